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
// between all of them, and Select waits for several events at once.
//
// # Names
//
// Names are those of the standard library, with a cx first:
//
//   - X(cx) waits. XFuture() is the future of X(cx), for Select and hand-written futures.
//   - PollX(cx) never waits, and returns ErrPending. PollFunc makes a Future of it.
//   - TryX() does X now or never.
//   - XBlocking(ctx) is X for a goroutine outside the pool, which it parks: that costs switches
//     of goroutines, and often of threads, on both sides; no goroutine or timer is started.
//   - BindX(cx, x) gives x the interface of the standard library.
//   - IsX() reports whether something is so.
//   - All(cx) yields elements and errors, for range.
//   - Close returns nil the first time, and later an error that says "closed".
//
// For a blocking call (a function of package os, a C library) use SpawnBlocking.
//
// # Choices
//
//   - To wait for a task: h.Join(cx) leaves the task running if cx ends. Await(cx, h) owns the
//     task, and cancels it then.
//   - To limit one Read, or anything else that waits: cx.WithTimeout. SetReadDeadline is for a
//     limit that stays, such as an idle time, and allocates nothing; TimeoutFuture is for futures.
//   - To start a task: Go(cx, ...) on the same worker, under what cx is under (see Spawner); Go(g, ...)
//     in a Group, which no task outlives; Go(cx.Runtime(), ...) for a task that goes on by itself;
//     SpawnFuture for a state machine; Launch for many short tasks without a result.
//   - To use a connection with code that knows package net: BindConn(cx, c) in a task,
//     NetConn(rt, c) on goroutines.
//   - To serve many connections: Serve, with a Handler that is called when data has come.
//   - To give one worker data without locks: Local(cx), and g.Via(Local(cx)) in a Group.
//
// # Costs
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
// # When not to use it
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
// # Reading the code
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
//   - bind.go, incoming.go: the forms for the standard library, and the stream of a listener.
//   - net.go, netdialer.go, netconnect.go, netresolver.go, netlistenconfig.go, netzone.go and
//     nettrace.go: dialing and listening; serve.go: Serve.
//
// The drop-in forms of package net: netconn.go, netpacket.go and netconvert.go.
//
// ringbuffer.go, linkedlist.go, lockorder*.go and race*.go are tools for all of these.
// docs/design.md gives the reasons.
package async

import _ "example.com/async/internal/runs_on_linux_macos_and_bsd" // makes a build for another system fail with this path in its message
