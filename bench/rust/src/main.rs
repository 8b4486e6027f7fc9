//! The workloads and echo servers of the benchmark on tokio, async-std and smol.
//! The command line, the sizes and the way of measuring are the same as in the Go programs:
//!
//!     peers echo [-workers=N] [-busy=N] RUNTIME
//!     peers work [-workers=N] [-seconds=S] RUNTIME WORKLOAD

mod adapters;
mod meter;
#[macro_use]
mod workloads;

use meter::Meter;
use std::process::exit;
use std::time::Duration;

workloads!(on_tokio, tokio_rt);
workloads!(on_async_std, async_std_rt);
workloads!(on_smol, smol_rt);

fn usage() -> ! {
    eprintln!("usage: peers echo [-workers=N] [-busy=N] RUNTIME, or peers work [-workers=N] [-seconds=S] RUNTIME WORKLOAD; RUNTIME is tokio, async-std or smol");
    exit(2)
}

macro_rules! on {
    ($runtime:expr, $call:ident ( $($arg:expr),* )) => {
        match $runtime {
            "tokio" | "tokio-mpsc" => on_tokio::$call($($arg),*),
            "async-std" => on_async_std::$call($($arg),*),
            "smol" => on_smol::$call($($arg),*),
            _ => usage(),
        }
    };
}

fn main() {
    let (mut workers, mut busy, mut seconds) = (2usize, 0usize, 1f64);
    let mut words = Vec::new();
    for arg in std::env::args().skip(1) {
        let Some(flag) = arg.strip_prefix('-') else {
            words.push(arg);
            continue;
        };
        let (name, value) = flag.split_once('=').unwrap_or_else(|| usage());
        match name {
            "workers" => workers = value.parse().unwrap_or_else(|_| usage()),
            "busy" => busy = value.parse().unwrap_or_else(|_| usage()),
            "seconds" => seconds = value.parse().unwrap_or_else(|_| usage()),
            _ => usage(),
        }
    }
    if !(1..=1024).contains(&workers) || busy > 1024 || !(seconds > 0.0 && seconds <= 60.0) {
        usage()
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["echo", runtime] => {
            meter::obey();
            on!(runtime, start(workers));
            if let Err(e) = on!(runtime, echo(busy)) {
                eprintln!("peers: {e}");
                exit(1)
            }
        }
        ["work", runtime, workload] => {
            on!(runtime, start(workers));
            // The channel of tokio is a subject of its own.
            let workload = if runtime == "tokio-mpsc" { &format!("tokio_{workload}") } else { workload };
            let mut meter = Meter::new(Duration::from_secs_f64(seconds));
            if !on!(runtime, work(workload, &mut meter)) {
                eprintln!("peers: {runtime} has no workload {workload}");
                exit(1)
            }
            println!("{}", meter.json());
            exit(0) // does not wait for tasks that are never woken
        }
        _ => usage(),
    }
}
