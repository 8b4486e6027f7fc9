// Package async runs many tasks on a few threads, which wait in epoll or kqueue themselves: a task
// that waits costs no turn of Go's scheduler. It has the shape of the standard library ([net],
// [io], [os], [sync], [context]), with a [*Context], named cx, as the first argument of every
// function that waits; async-std did the same for Rust.
//
//	err := async.Run(func(cx *async.Context) error { // in main, for example
//		conn, err := async.Dial(cx, "tcp", address)
//		if err != nil {
//			return err
//		}
//		defer conn.Close()
//		_, err = conn.Write(cx, []byte("hello\n"))
//		return err
//	})
//
// # When not to use it
//
// Use goroutines where there are few of them, where they mostly compute, or where they call code
// that blocks. A task that blocks in a [sync.Mutex], a Go channel or a system call stops its
// worker, and every task that has begun there waits. Tasks pay off with many connections and small
// messages, where CPU time per event, memory per idle connection or tail latency matter.
//
// # Tasks
//
// A [Runtime] is a fixed pool of workers, each with a thread of its own. [Run] runs a function on
// the default runtime, and [New] makes another one. A task is straight-line code in a coroutine
// ([Spawn], [Go]) or a [Future] without a stack, which is polled ([SpawnFuture]). A [JoinHandle] is
// the result of a task. A [Group] ends when all of its tasks have ended, and its first failure
// cancels the others.
//
//	h := async.Spawn(cx, func(cx *async.Context) (int, error) { return 6 * 7, nil })
//	n, err := h.Join(cx)
//	fmt.Println(n, err)
//	return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
//		async.Go(g, func(cx *async.Context) error { return async.Sleep(cx, time.Millisecond) })
//		return nil // WithGroup waits for the tasks of g
//	})
//
// The first argument says where a task begins: Go(cx, ...) starts it on the worker of cx, with the
// values and deadlines of cx; Go(g, ...) in a [Group]; Go(rt, ...) on any worker, with nothing of
// the caller's. [Local] binds a task to the worker of cx, so that such tasks share data without
// locks.
//
// # Waiting and cancellation
//
// A function that waits suspends its task, and the worker runs other tasks. If cx is cancelled or
// its deadline passes, the function returns cx.Err(), or an error that wraps it. The page
// docs/cancellation.md of the repository says for each operation what is lost then (nearly always
// nothing). [Context.WithTimeout] limits everything that waits with the new Context.
//
//	limited, cancel := cx.WithTimeout(time.Millisecond)
//	defer cancel()
//	if _, err := never.Recv(limited); errors.Is(err, context.DeadlineExceeded) {
//		fmt.Println("too late, and no message is lost")
//	}
//
// The form of a name says how it waits:
//
//   - X(cx) waits, as straight-line code does. All(cx) yields elements and errors, for range.
//   - XFuture() returns the future of X(cx), for [Select] and for futures of your own.
//   - PollX(cx) never waits: it returns [ErrPending], and the task is polled again when X may be
//     possible.
//   - TryX() does X at once or not at all.
//   - XBlocking(ctx) is X for a goroutine outside the pool, which it parks.
//   - BindX(cx, x) returns x with the interface of the standard library, which waits with cx.
//   - IsX() reports whether something is so. OnX() is a case of [Select].
//
// # Connections
//
// [Listen] and [Dial] return connections whose methods are those of package net with a cx. [Serve]
// calls a [Handler] whenever data has arrived, and an idle connection keeps neither a stack nor a
// buffer. [Incoming] is the loop that accepts, for programs that start a task for each connection.
//
//	return async.Serve(cx, ln, func(cx *async.Context, c async.Conn) (keep bool, err error) {
//		buf := make([]byte, 512)
//		n, err := c.Read(cx, buf) // the Handler is called when data has arrived
//		if err == nil {
//			_, err = c.Write(cx, buf[:n])
//		}
//		return err == nil, err
//	})
//
// Every connection must be closed: the collector does not do it.
//
// # Other people's code
//
// Code that knows only [net.Conn] runs unchanged. Inside one task it gets the connection from
// [BindConn] (bufio, crypto/tls, fasthttp); on goroutines of its own from [NetConn],
// [Runtime.ListenNet] or [Runtime.DialNet] (net/http, gRPC, database drivers). Code with a
// descriptor of its own uses a [Source] in a task, or a [Poller] in a loop. docs/libraries.md has a
// table.
//
//	lines := bufio.NewScanner(async.BindConn(cx, conn)) // in a task
//	for lines.Scan() {
//		fmt.Println(lines.Text())
//	}
//	return lines.Err()
//
// # Files and processes
//
// Files have the functions of package os with a cx: a pool of goroutines does the work, and on
// Linux data in memory is read without it. [Command] is that of os/exec. [SpawnBlocking] runs a
// function that blocks, such as a call of a C library, in the same pool.
//
//	if err := async.WriteFile(cx, name, []byte("b\na\n"), 0o600); err != nil {
//		return err
//	}
//	sorted, err := async.Command("sort", name).Output(cx)
//	fmt.Print(string(sorted))
//
// # Locks and channels
//
// [Chan], [Oneshot], [Broadcast] and [Watch] carry messages between tasks, and between tasks and
// goroutines. [Mutex], [RWMutex], [Semaphore], [Cond], [Barrier], [Once], [WaitGroup] and [Notify]
// suspend a task where those of package sync block a thread. [Select] waits for several events.
//
//	switch i, err := async.Select(cx, job, stop, async.After(time.Minute)); {
//	case err != nil:
//		return err // cx has ended
//	case i == 0:
//		n, err := job.Result()
//		fmt.Println("job", n, err)
//	}
//
// # Goroutines outside
//
// A goroutine may use the XBlocking methods, [JoinHandle.JoinBlocking] among them, and [BlockOn],
// which gives it a cx to wait with. A loop that polls futures itself uses [NewContext] and
// [NewWaker].
//
//	text, err := results.RecvBlocking(context.Background())
//	fmt.Println(text, err)
//	n, err := async.BlockOn(rt, func(cx *async.Context) (int, error) {
//		return 1, async.Sleep(cx, time.Millisecond) // on this goroutine
//	})
//
// # Shutdown and observing
//
// [Runtime.Shutdown] stops accepting, waits for the tasks until its ctx ends, and cancels the rest.
// [Runtime.Tasks] lists tasks and the events that they wait for, [Runtime.Metrics] counts,
// [Config.Stalled] reports polls that keep a worker too long, and [Config.Unhandled] failures that
// no code has joined.
//
//	for _, task := range rt.Tasks() {
//		fmt.Println(task.Name, task.State, task.Waits)
//	}
//	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
//	defer cancel()
//	err := rt.Shutdown(ctx) // cancels the tasks that still run after a millisecond
//
// # What code in a task must not do
//
// Most mistakes panic at once, with a message that begins with "async:" and says what to do
// instead:
//
//   - Use a Context on another goroutine: "a Context was used on a goroutine that is not its own".
//   - Keep a Context and use it later: "a Context was used after its task had ended". A future gets
//     "a Context was used outside the Poll that it was passed to".
//   - Wait in a plain future: "a plain future cannot wait".
//   - Return [ErrPending] from a future without keeping a [Waker]: "nothing would ever wake this
//     task".
//   - Call [BlockOn], an XBlocking method or a connection of [NetConn]: "was called in a task and
//     would block its worker".
//   - Block in a sync.Mutex, a Go channel or a system call, or compute for more than 10
//     milliseconds without [Yield]: there is no panic. [Config.Stalled] reports it, by default as a
//     line on standard error: "has kept worker 0 for 12ms or more without awaiting".
//
// One mistake ends the program, since the Go runtime does ("coro: OS thread locking must match"): a
// task that has called [runtime.LockOSThread] awaits or ends before it has called
// [runtime.UnlockOSThread] as often, or a callback from C awaits.
//
// # Threads
//
// [New] starts one thread per worker and two goroutines: the watchdog, which finds polls that take
// too long, and one that waits for the events of workers that have been idle for 8 milliseconds.
// The first task raises GOMAXPROCS by the number of workers, so that goroutines keep their
// processors while workers wait in the kernel; Shutdown lowers it again. [Config.SharedProcs] turns
// this off. A third goroutine waits for the descriptors that goroutines use, once there are any.
// Straight-line code that has begun stays on its worker. Plain futures and idle connections of
// [Serve] move between workers, and as few workers as possible serve them.
//
// # Read on
//
// In the repository, docs/cancellation.md says what cancelling each operation loses,
// docs/libraries.md how to use other libraries, and docs/design.md how the package works, why, and
// in which order to read its files. The programs in examples/ are complete servers and tools.
package async

import _ "example.com/async/internal/runs_on_linux_macos_and_bsd" // makes a build for another system fail with this path in its message
