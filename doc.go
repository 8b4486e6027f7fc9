// Package async runs many tasks on few threads: async-std's idea for Go, in the
// standard library's shape, with waiting that does not cost a goroutine.
//
// A Runtime is a fixed pool of workers, each a goroutine locked to its thread,
// with its own queue, timers and epoll or kqueue. A task is either
// straight-line code (Go, Spawn), which runs in a coroutine and awaits, or a
// plain Future (SpawnFuture), which is polled. Both reach their worker through
// a Context, the first argument of whatever waits. A JoinHandle is a task's
// result, and a Group bounds the lifetime of several; a Waker makes a task be
// polled again. BlockOn, JoinHandle.Wait and NewWaker connect the pool to
// goroutines and to other loops. Chan, Oneshot, Broadcast and Watch carry messages
// between all of them, and Select waits for several things at once. LockFuture,
// SendFuture and their kin are futures of what locks and channels wait for,
// NewSleep, NewYield, NewSelect and NewDial those of functions. The
// future of what has a Poll form is a PollFunc, that of what runs in the pool of
// blocking calls (the functions of package os, look-ups) SpawnBlocking. XBlocking(ctx)
// is for goroutines outside: one that has to wait is parked, which costs switches of
// goroutines, and often of threads, on both sides; no goroutine or timer is started.
//
// New starts one thread per worker, and one goroutine that detects polls that take too long (on Linux
// it waits for a timerfd). The first task, or a burst of blocking calls, raises GOMAXPROCS by the
// number of workers, so that the goroutines of the program keep their processors
// while workers wait in the kernel. A goroutine waits for the descriptors that
// goroutines use. Blocking calls have a pool of goroutines of their own.
// Shutdown takes all of them back.
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
// To read the code, begin with future.go and task.go, then context.go,
// spawn.go, executor.go, coroutine.go and goroutineidentity.go; waker.go, timer.go and executorqueue.go
// are its tools; reactor.go, pollfd.go, reactorshared.go, socketconn.go and socketlistener.go are
// what waits for sockets; runtime.go and shutdown.go start and end it all; contextscope.go, taskcancelgroup.go
// and group.go cancel; metrics.go, taskinfo.go and watchdogstall.go show what goes on; watchdog.go finds
// workers that are stuck, and executoractive.go
// decides how many are needed.
// waitlist.go is under mutex.go, chan.go and their kin. docs/design.md says why it
// is so.
package async
