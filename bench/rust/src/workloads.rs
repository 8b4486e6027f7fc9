//! The workloads. `workloads!(name, adapter)` makes a module with the workloads for one runtime.
//! The sizes are the sizes of the Go package work.

pub const CHAIN_LENGTH: usize = 1_000;
pub const PING_PAIRS: usize = 1_000;
pub const SPAWN_COUNT: usize = 10_000;
pub const YIELD_TASKS: usize = 200;
pub const YIELD_TIMES: usize = 1_000;
pub const CREATES: usize = 1_000_000;
pub const CONTENTION_TASKS: usize = 10;
pub const CONTENTION_TIMES: usize = 1_000;
pub const LONELY_TIMES: usize = 10_000;
pub const MESSAGES: usize = 100_000;
pub const CHAN_CAPACITY: usize = 128;
pub const SLEEPERS: usize = 100_000;
pub const IDLE_TASKS: usize = 100_000;
pub const MAX_COST_TASKS: usize = 1_000_000;

#[macro_export]
macro_rules! workloads {
    ($name:ident, $adapter:ident) => {
        mod $name {
            use $crate::adapters::$adapter as rt;
            use $crate::meter::{burn, Meter};
            use $crate::workloads::*;
            use std::hint::black_box;
            use std::sync::atomic::{AtomicUsize, Ordering};
            use std::sync::mpsc::{sync_channel, SyncSender};
            use std::sync::Arc;
            use std::time::Duration;

            pub fn start(workers: usize) {
                rt::start(workers)
            }

            /// Serves echo beside a number of CPU-bound tasks, until it fails.
            pub fn echo(busy: usize) -> std::io::Result<()> {
                rt::block_on(async move {
                    for _ in 0..busy {
                        rt::detach(async {
                            loop {
                                burn();
                                rt::yield_now().await;
                            }
                        });
                    }
                    rt::spawn(rt::echo()).await
                })
            }

            /// Measures a workload. Reports whether there is a workload of that name.
            pub fn work(name: &str, m: &mut Meter) -> bool {
                match name {
                    "chained_spawn" => m.time(1, chained_spawn),
                    "ping_pong" => m.time(1, ping_pong),
                    "spawn_many" => m.time(1, || until_done(spawn_many)),
                    "spawn_many_by_task" => m.time(1, || until_done(|done| rt::detach(async { spawn_many(done) }))),
                    "yield_many" => m.time(1, yield_many),
                    "mutex_create" => m.time(CREATES, mutex_create),
                    "mutex_contention" => m.time(1, || locking(CONTENTION_TASKS, CONTENTION_TIMES)),
                    "mutex_no_contention" => m.time(1, || locking(1, LONELY_TIMES)),
                    "mpmc_4x4" => m.time(MESSAGES, || channel(4, 4)),
                    "mpmc_4x1" => m.time(MESSAGES, || channel(4, 1)),
                    "tokio_mpmc_4x1" => m.time(MESSAGES, || tokio_mpsc(4)),
                    "sleep_10ms" => m.time(1, || sleepers(|_| 10)),
                    "sleep_1_to_100ms" => m.time(1, || sleepers(|i| 1 + (i % 100) as u64)),
                    "idle_task" => m.idle(IDLE_TASKS, idle),
                    _ => match name.strip_prefix("cost_").and_then(|n| n.parse().ok()) {
                        Some(n) if (1..=MAX_COST_TASKS).contains(&n) => m.time(n, || cost(n)),
                        _ => return false,
                    },
                }
                true
            }

            /// Calls `start` on the main thread, which is not a worker, and waits until the
            /// operations that it starts have ended.
            fn until_done(start: impl FnOnce(SyncSender<()>)) {
                let (done, wait) = sync_channel(1);
                rt::block_on(async { start(done) });
                wait.recv().expect("a workload says that it is done");
            }

            /// Returns a function that reports the end when it is called for the n-th time.
            fn countdown(n: usize, done: SyncSender<()>) -> impl Fn() + Clone + Send {
                let left = Arc::new(AtomicUsize::new(n));
                move || {
                    if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                        done.send(()).expect("the main thread waits");
                    }
                }
            }

            fn chained_spawn() {
                until_done(|done| link(CHAIN_LENGTH, done))
            }

            fn link(left: usize, done: SyncSender<()>) {
                rt::detach(async move {
                    if left == 1 {
                        done.send(()).expect("the main thread waits");
                    } else {
                        link(left - 1, done);
                    }
                });
            }

            fn ping_pong() {
                until_done(|done| {
                    rt::detach(async move {
                        let count = countdown(PING_PAIRS, done);
                        for _ in 0..PING_PAIRS {
                            let count = count.clone();
                            rt::detach(async move {
                                let (ping_tx, ping_rx) = rt::oneshot::<()>();
                                let (pong_tx, pong_rx) = rt::oneshot::<()>();
                                rt::detach(async move {
                                    ping_rx.await.expect("ping");
                                    pong_tx.send(()).expect("pong is awaited");
                                });
                                ping_tx.send(()).expect("ping is awaited");
                                pong_rx.await.expect("pong");
                                count();
                            });
                        }
                    })
                })
            }

            fn spawn_many(done: SyncSender<()>) {
                let count = countdown(SPAWN_COUNT, done);
                for _ in 0..SPAWN_COUNT {
                    let count = count.clone();
                    rt::detach(async move { count() });
                }
            }

            fn yield_many() {
                until_done(|done| {
                    rt::detach(async move {
                        let count = countdown(YIELD_TASKS, done);
                        for _ in 0..YIELD_TASKS {
                            let count = count.clone();
                            rt::detach(async move {
                                for _ in 0..YIELD_TIMES {
                                    rt::yield_now().await;
                                }
                                count();
                            });
                        }
                    })
                })
            }

            fn mutex_create() {
                for _ in 0..CREATES {
                    black_box(rt::Mutex::new(()));
                }
            }

            fn locking(tasks: usize, times: usize) {
                until_done(|done| {
                    rt::detach(async move {
                        let count = countdown(tasks, done);
                        let mutex = Arc::new(rt::Mutex::new(()));
                        for _ in 0..tasks {
                            let (count, mutex) = (count.clone(), mutex.clone());
                            rt::detach(async move {
                                for _ in 0..times {
                                    drop(mutex.lock().await);
                                }
                                count();
                            });
                        }
                    })
                })
            }

            /// The tasks are spawned from the main thread. The last sender closes the channel.
            fn channel(senders: usize, receivers: usize) {
                let all = Arc::new(AtomicUsize::new(0));
                let got = all.clone();
                until_done(|done| {
                    let (tx, rx) = async_channel::bounded::<usize>(CHAN_CAPACITY);
                    let count = countdown(receivers, done);
                    for _ in 0..receivers {
                        let (rx, got, count) = (rx.clone(), got.clone(), count.clone());
                        rt::detach(async move {
                            let mut n = 0;
                            while rx.recv().await.is_ok() {
                                n += 1;
                            }
                            got.fetch_add(n, Ordering::AcqRel);
                            count();
                        });
                    }
                    for _ in 0..senders {
                        let tx = tx.clone();
                        rt::detach(async move {
                            for i in 0..MESSAGES / senders {
                                tx.send(i).await.expect("the channel is open");
                            }
                        });
                    }
                });
                assert_eq!(all.load(Ordering::Acquire), MESSAGES, "messages were lost");
            }

            /// Like `channel`, with the channel of tokio, which has one receiver.
            fn tokio_mpsc(senders: usize) {
                until_done(|done| {
                    let (tx, mut rx) = tokio::sync::mpsc::channel::<usize>(CHAN_CAPACITY);
                    rt::detach(async move {
                        let mut n = 0;
                        while rx.recv().await.is_some() {
                            n += 1;
                        }
                        assert_eq!(n, MESSAGES, "messages were lost");
                        done.send(()).expect("the main thread waits");
                    });
                    for _ in 0..senders {
                        let tx = tx.clone();
                        rt::detach(async move {
                            for i in 0..MESSAGES / senders {
                                tx.send(i).await.expect("the channel is open");
                            }
                        });
                    }
                });
            }

            fn sleepers(ms: impl Fn(usize) -> u64 + Send + 'static) {
                until_done(|done| {
                    rt::detach(async move {
                        let count = countdown(SLEEPERS, done);
                        for i in 0..SLEEPERS {
                            let (d, count) = (Duration::from_millis(ms(i)), count.clone());
                            rt::detach(async move {
                                rt::sleep(d).await;
                                count();
                            });
                        }
                    })
                })
            }

            /// A task starts n tasks, each of which yields once.
            fn cost(n: usize) {
                until_done(|done| {
                    rt::detach(async move {
                        let count = countdown(n, done);
                        for _ in 0..n {
                            let count = count.clone();
                            rt::detach(async move {
                                rt::yield_now().await;
                                count();
                            });
                        }
                    })
                })
            }

            fn idle(n: usize) {
                static BEGUN: AtomicUsize = AtomicUsize::new(0);
                let want = BEGUN.load(Ordering::Acquire) + n;
                rt::block_on(async {
                    rt::detach(async move {
                        for _ in 0..n {
                            rt::detach(async {
                                BEGUN.fetch_add(1, Ordering::AcqRel);
                                std::future::pending::<()>().await
                            });
                        }
                    })
                });
                while BEGUN.load(Ordering::Acquire) < want {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    };
}
