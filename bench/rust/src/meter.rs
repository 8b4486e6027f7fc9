//! The measuring of workloads, and the commands of a server.

use std::io::BufRead;
use std::process::exit;
use std::time::{Duration, Instant};

/// Takes one measurement of one workload.
pub struct Meter {
    duration: Duration,
    metrics: Vec<(&'static str, f64)>,
}

impl Meter {
    pub fn new(duration: Duration) -> Meter {
        Meter { duration, metrics: Vec::new() }
    }

    /// Calls `once` repeatedly: for a quarter of the duration unmeasured, and then measured for
    /// the duration. Measures at least 10 calls if a call takes less than 100 ms, and at least 3
    /// calls if a call takes longer. Records the median time of the calls and the mean CPU time
    /// of the process, both divided by the number of operations in one call.
    pub fn time(&mut self, operations: usize, mut once: impl FnMut()) {
        let begin = Instant::now();
        loop {
            once();
            if begin.elapsed() >= self.duration / 4 {
                break;
            }
        }
        let mut took = Vec::with_capacity(1024);
        let cpu = cpu_time();
        let begin = Instant::now();
        while took.len() < 3
            || took.len() < 10 && begin.elapsed() < Duration::from_secs(1)
            || took.len() < 200_000 && begin.elapsed() < self.duration
        {
            let t = Instant::now();
            once();
            took.push(t.elapsed().as_nanos() as f64 / operations as f64);
        }
        let cpu = cpu_time() - cpu;
        let calls = took.len();
        took.sort_by(f64::total_cmp);
        self.metrics = vec![
            ("ns", (took[(calls - 1) / 2] + took[calls / 2]) / 2.0),
            ("cpu_ns", cpu.as_nanos() as f64 / (calls * operations) as f64),
            ("calls", calls as f64),
        ];
    }

    /// Records the resident memory of one waiting task. `start` starts `tasks` such tasks.
    pub fn idle(&mut self, tasks: usize, start: impl Fn(usize)) {
        start(1_000); // allocates threads, queues and tables, which are not counted
        trim();
        let before = resident_bytes();
        start(tasks);
        let grown = resident_bytes();
        trim();
        let after = resident_bytes();
        self.metrics = vec![
            ("bytes", (after - before) / tasks as f64),
            ("bytes_uncollected", (grown - before) / tasks as f64),
        ];
    }

    pub fn json(&self) -> String {
        let fields: Vec<String> = self.metrics.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        format!("{{{}}}", fields.join(","))
    }
}

/// Answers the lines of standard input in a thread of its own. Ends the process when standard
/// input ends.
pub fn obey() {
    std::thread::spawn(|| {
        for line in std::io::stdin().lock().lines() {
            if matches!(line.as_deref(), Ok("collect")) {
                trim();
                println!("collected");
            }
        }
        exit(0)
    });
}

/// Computes for about 100 microseconds: one slice of a CPU-bound task.
pub fn burn() {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_micros(100) {}
}

/// Returns the unused memory of the allocator to the system.
fn trim() {
    unsafe { libc::malloc_trim(0) };
}

fn cpu_time() -> Duration {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut ts) };
    assert_eq!(rc, 0, "clock_gettime");
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc/self/statm");
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of pages");
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as f64
}
