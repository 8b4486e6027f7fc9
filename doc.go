// Package async runs many tasks on few threads: async-std's idea for Go, in the
// standard library's shape, with waiting that does not cost a goroutine.
//
// A Runtime is a fixed pool of workers, each a goroutine locked to its thread,
// with its own queue, timers and epoll or kqueue. A task is either
// straight-line code (Go, Spawn), which runs in a coroutine and awaits, or a
// plain Future (SpawnFuture), which is polled. Both reach their worker through
// a Context, the first argument of every function that waits. A JoinHandle is a
// task's result, and a Group bounds the lifetime of several tasks; a Waker makes a
// task be polled again. BlockOn, JoinHandle.JoinBlocking and NewWaker connect the pool to
// goroutines and to other loops. Chan, Oneshot, Broadcast and Watch carry messages
// between all of them, and Select waits for several events at once. LockFuture,
// SendFuture and similar methods return the futures of locks and channels; SleepFuture,
// YieldFuture, SelectFuture and DialFuture return the futures of the functions of these names.
// To turn a PollX method into a Future use PollFunc; for a blocking call (a function of
// package os, a look-up) use SpawnBlocking. The methods named XBlocking, with a ctx, are for
// goroutines outside the pool: a goroutine that has to wait is parked, which costs switches
// of goroutines, and often of threads, on both sides; no goroutine or timer is started.
//
// New starts one thread per worker, and one goroutine that detects polls that take too long (on Linux
// it waits for a timerfd). The first task, or a burst of blocking calls, raises GOMAXPROCS by the
// number of workers, so that the goroutines of the program keep their processors
// while workers wait in the kernel. A goroutine waits for the descriptors that
// goroutines use. Blocking calls have a pool of goroutines of their own.
// Shutdown ends all of these threads and goroutines, and lowers GOMAXPROCS again.
//
// Plain futures, and connections between two calls of a Handler of Serve, are served by as few
// workers as they need, and move between them. Straight-line code that has begun stays on its worker.
//
// Use plain goroutines instead where there are few of them, where they mostly
// compute, or where they call code that blocks: a task that blocks (a
// sync.Mutex that is held, a channel, a file) stops its worker and every task
// that has begun there. Tasks pay off with many connections, small messages,
// and where CPU per event, memory per idle connection or tail latency matter.
//
// Caveats: a Context belongs to its task, on its goroutine. A task must undo each
// runtime.LockOSThread of its own, and no other, before it awaits and before it ends,
// however it ends, and must not await in a callback from C: the Go runtime ends the
// program for it. Connections must be closed.
//
// To read the code, take the files in this order. Files whose names begin with the same
// word are about the same subject.
//
// The core:
//
//   - future.go, futureyield.go: polling and awaiting.
//   - task.go, taskident.go, joinhandle.go, taskresult.go: the states and the result of a
//     task; taskattributes.go, taskcancelgroup.go, taskfailure.go, taskinfo.go, errors.go.
//   - context.go, contextscope.go: the Context, and how it is cancelled.
//   - spawn.go, spawner.go, spawnlaunch.go, spawnworkers.go: starting tasks.
//   - executor.go: the turns of a worker; executorqueue.go, executorsteal.go; executoractive.go
//     decides how many workers are needed. coroutine.go, coroutinefree.go: straight-line code.
//   - goroutine.go, goroutineidentity.go, goroutinepark.go, blockon.go, bubble.go: goroutines.
//   - idle.go, idlespin.go, idlewatch.go: how a worker waits.
//   - waker.go, wakerslot.go, wakerfanout.go, waitlist.go, admission.go: where tasks wait.
//   - timer.go: the timers of a worker.
//   - reactor.go, reactor_linux.go, reactor_bsd.go, reactorshared.go: epoll and kqueue.
//   - pollfd.go, pollfdowner.go, pollfddeadline.go, pollfdwait.go, pollfdretry.go: a descriptor,
//     the reactor that owns it, and waiting for it.
//   - blocking.go, blockingpool.go, blockingawait.go: blocking calls.
//   - runtime.go, runtimeprocs.go, config.go, metrics.go, shutdown.go: a runtime from New to
//     Shutdown.
//   - watchdog.go, watchdogstall.go, watchdogtimer_linux.go, watchdogtimer_other.go: workers that
//     are stuck in a poll.
//
// The primitives:
//
//   - mutex.go, rwmutex.go, semaphore.go, cond.go, barrier.go, once.go, notify.go, waitgroup.go.
//   - chan.go, chanfuture.go, chanpermit.go, oneshot.go; pubsub.go, broadcast.go, watch.go;
//     gochan.go.
//   - select.go, group.go, joinset.go; signal.go.
//
// Files and sockets:
//
//   - io.go and iosplice*.go: Copy and the interfaces of streams.
//   - file.go and the other file*.go: files; process*.go: commands.
//   - source.go, poller.go: descriptors of the program.
//   - socket.go and the other socket*.go: the parts that tcp.go, udp*.go and unix*.go share.
//   - net.go, netdialer.go, netconnect.go, netresolver.go, netlistenconfig.go, netzone.go and
//     nettrace.go: dialing and listening; serve.go: Serve.
//
// The drop-in forms of package net: netconn.go, netpacket.go and netconvert.go.
//
// ringbuffer.go, linkedlist.go, lockorder*.go and race*.go are tools for all of these.
// docs/design.md gives the reasons.
package async

import _ "example.com/async/internal/runs_on_linux_macos_and_bsd" // the last words of a build for another system
