package async

import (
	"context"
	"runtime/pprof"
	"runtime/trace"
	"time"
)

// BlockingConfig limits the pool of [SpawnBlocking]; see [Config.Blocking]. A field that is 0 means
// its default.
type BlockingConfig struct {
	// Limit is the number of calls that run at the same time, on a goroutine and mostly a thread
	// each. 0 means 512. Raise it if many calls wait for other machines, and lower it to protect a
	// resource.
	Limit int

	// Queue is the number of further calls that may wait until they run. 0 means 16,384. Then
	// [SpawnBlocking] waits or returns [ErrBusy].
	Queue int

	// Idle is the time for which a goroutine without a call waits before it ends. 0 means 10
	// seconds.
	Idle time.Duration
}

// SpawnBlocking runs fn, which may block, on a goroutine of the runtime's pool, and returns the
// handle of its result. At most [BlockingConfig.Limit] calls run at the same time. At most
// [BlockingConfig.Queue] further calls wait in a queue.
//
// If the queue is full, the caller waits until there is room, if it can wait. It can if s is, or is
// derived from, the [Context] or [Group] of straight-line code or of a function that [BlockOn]
// runs. If that caller is cancelled while it waits, or a context that s is Under ends, the call
// does not begin, and the result is the error of this end. Any other caller does not wait: the
// result is [ErrBusy].
//
// Cancelling the handle removes a call that is still queued. The result is then the error of the
// task's Context. Cancelling does not stop a call that runs. To stop fn early, pass it a context,
// which may be derived from a Context: context.WithTimeout(cx, d).
//
// The result of the handle is the result of fn, or a [*PanicError] if fn panics, or [ErrGoexit] if
// fn calls [runtime.Goexit]. Once [Runtime.Shutdown] has begun, a call from outside the pool has
// the result [ErrShutdown]. In its third stage Shutdown cancels queued calls, and each new call has
// the result ErrShutdown. Shutdown waits for calls that run.
func SpawnBlocking[T any](s Spawner, fn func() (T, error)) *JoinHandle[T] {
	return spawnCall(s, fn, true)
}

// spawnCall is SpawnBlocking if own is set. Otherwise the call is part of another operation with s.
// Such a call gets no task attributes, and is not refused while the runtime drains, if its
// operation is not.
func spawnCall[T any](s Spawner, fn func() (T, error), own bool) *JoinHandle[T] {
	rt, w := s.spawner()
	c := newBlockingCall(rt, fn)
	if own {
		if err := c.applyOptions(s); err != nil {
			rt.refuse(&c.task, err)
			return &c.JoinHandle
		}
	}
	if h := rt.cfg.Tuning.Hooks.TaskStart; h != nil {
		h(c.ident())
	}
	cx := waitingContext(s)
	// Draining refuses calls that begin something new outside the pool.
	c.node.outside = w == nil && (own || cx == nil)
	err := rt.calls.submit(&c.node)
	// The caller waits for room. It may get the place, and then be too late for it (entrance.err).
	// It must then give the room to the next waiter.
	if err == ErrBusy && cx != nil {
		entrance := rt.calls.newCallAdmission(&c.node)
		if err = c.awaitAdmission(cx, &entrance.admissionFuture); err == nil && entrance.err != nil {
			err = entrance.err
			rt.calls.admitNext()
		}
	}
	if err != nil {
		c.refuse(err)
	}
	return &c.JoinHandle
}

// refuse ends c, which has not begun, with err. This is not a failure in c's cancel group, so c
// leaves the group first. The exception is ErrShutdown, which the group also gets from tasks of
// other kinds.
func (c *blockingCall[T]) refuse(err error) {
	if err != ErrShutdown {
		c.cancelGroup().leaveAll(&c.task)
	}
	c.abort(nil, err)
}

// blockingCall is a task that a goroutine of the pool runs.
type blockingCall[T any] struct {
	JoinHandle[T]
	fn   func() (T, error) // nil once it has returned, so that its data can be collected
	node callNode
}

// newBlockingCall makes a call, and assigns it to a worker, which does not run it: the worker
// connects the task to its runtime.
func newBlockingCall[T any](rt *Runtime, fn func() (T, error)) *blockingCall[T] {
	c := &blockingCall[T]{fn: fn}
	c.kind, c.body, c.cx.t, c.node.t = kindBlocking, c, &c.task, &c.task
	c.w = rt.assignWorker()
	c.id.Store(rt.nextID())
	return c
}

func (c *blockingCall[T]) poolNode() *callNode { return &c.node }

// poll runs the call. The worker is nil, because the caller is a goroutine of the pool.
func (c *blockingCall[T]) poll(*worker) bool {
	// It was cancelled before it was queued, or after the goroutine took it off the queue.
	if c.state.cancelled() {
		c.abort(nil, c.cx.Err())
		return true
	}
	if name := c.name(); name != "" && c.w.rt.cfg.Tuning.Labels {
		defer labelCall(name)()
	}
	returned := false
	var (
		v   T
		err error
	)
	defer func() {
		if p := recover(); p != nil {
			err = newPanicError(&c.task, p)
		} else if !returned {
			err = ErrGoexit
		}
		c.fn = nil
		c.finish(nil, v, err)
	}()
	v, err = c.fn()
	returned = true
	return true
}

// labelCall gives the calling goroutine of the pool the label and the trace region of a named task.
// reset ends both.
func labelCall(name string) (reset func()) {
	ctx := pprof.WithLabels(context.Background(), pprof.Labels("task", name))
	pprof.SetGoroutineLabels(ctx)
	region := trace.StartRegion(ctx, name)
	return func() {
		region.End()
		pprof.SetGoroutineLabels(context.Background())
	}
}

// abort ends the call, which has not begun, with err.
func (c *blockingCall[T]) abort(_ *worker, err error) {
	c.fn = nil
	var zero T
	c.finish(nil, zero, err)
}
