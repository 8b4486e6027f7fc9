//! One module for each runtime. All modules have the same names, so that the workloads are
//! written once and compiled for each runtime. `sleep` and `yield_now` are the functions of the
//! runtimes. They are not wrapped in an `async fn`, which would make the tasks larger.

/// Serves one connection. `$s` is a stream with the methods of the traits of the runtime.
macro_rules! echo_loop {
    ($s:ident) => {{
        let mut buf = vec![0u8; 4096];
        while let Ok(n) = $s.read(&mut buf).await {
            if n == 0 || $s.write_all(&buf[..n]).await.is_err() {
                break;
            }
        }
    }};
}

pub mod tokio_rt {
    use std::future::Future;
    use std::sync::OnceLock;

    pub type Mutex<T> = tokio::sync::Mutex<T>;
    pub use tokio::sync::oneshot::channel as oneshot;
    pub use tokio::task::yield_now;
    pub use tokio::time::sleep;

    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();

    pub fn start(workers: usize) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
            .expect("tokio's runtime");
        RUNTIME.set(runtime).expect("started once");
    }

    pub fn block_on<F: Future>(f: F) -> F::Output {
        RUNTIME.get().expect("started").block_on(f)
    }

    pub fn detach<F: Future<Output = ()> + Send + 'static>(f: F) {
        drop(tokio::spawn(f));
    }

    pub fn spawn<F>(f: F) -> impl Future<Output = F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let handle = tokio::spawn(f);
        async { handle.await.expect("the task has failed") }
    }

    pub async fn echo() -> std::io::Result<()> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (mut s, _) = listener.accept().await?;
            s.set_nodelay(true)?;
            tokio::spawn(async move { echo_loop!(s) });
        }
    }
}

pub mod async_std_rt {
    use std::future::Future;

    pub type Mutex<T> = async_std::sync::Mutex<T>;
    pub use async_std::task::{block_on, sleep, spawn, yield_now};
    pub use futures::channel::oneshot::channel as oneshot;

    pub fn start(workers: usize) {
        // The runtime reads the variable once, when the executor starts.
        std::env::set_var("ASYNC_STD_THREAD_COUNT", workers.to_string());
        block_on(async {});
    }

    pub fn detach<F: Future<Output = ()> + Send + 'static>(f: F) {
        drop(spawn(f));
    }

    pub async fn echo() -> std::io::Result<()> {
        use async_std::io::{ReadExt, WriteExt};
        let listener = async_std::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (mut s, _) = listener.accept().await?;
            s.set_nodelay(true)?;
            spawn(async move { echo_loop!(s) });
        }
    }
}

pub mod smol_rt {
    use std::future::Future;
    use std::time::Duration;

    pub type Mutex<T> = smol::lock::Mutex<T>;
    pub use futures::channel::oneshot::channel as oneshot;
    pub use smol::future::yield_now;
    pub use smol::{block_on, spawn};

    pub fn start(workers: usize) {
        // The runtime reads the variable once, at the first spawn.
        std::env::set_var("SMOL_THREADS", workers.to_string());
        block_on(spawn(async {}));
    }

    pub fn detach<F: Future<Output = ()> + Send + 'static>(f: F) {
        spawn(f).detach();
    }

    pub fn sleep(d: Duration) -> smol::Timer {
        smol::Timer::after(d)
    }

    pub async fn echo() -> std::io::Result<()> {
        use smol::io::{AsyncReadExt, AsyncWriteExt};
        let listener = smol::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (mut s, _) = listener.accept().await?;
            s.set_nodelay(true)?;
            detach(async move { echo_loop!(s) });
        }
    }
}
