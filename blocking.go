package async

import (
	"context"
	"runtime/pprof"
	"runtime/trace"
	"time"
)

// BlockingConfig bounds the pool of SpawnBlocking. Zeros mean the defaults.
type BlockingConfig struct {
	Limit int           // how many calls run at once; 512
	Queue int           // how many more calls may wait for that; 16,384
	Idle  time.Duration // how long a goroutine waits for another call before it ends; 10 s
}

// SpawnBlocking runs fn, which may block, on a goroutine of the runtime's pool
// and returns the handle of its result. The pool runs at most
// Config.Blocking.Limit calls at once; further calls wait in a queue of at most
// Config.Blocking.Queue.
//
// If the queue is full too, code that can wait does: a straight-line task, or a
// function that BlockOn runs, from whose Context or Group s comes, is suspended until
// there is room. If it is cancelled meanwhile, or a context that s is Under ends, the
// result is that error. With any other s the result is ErrBusy at once.
//
// Cancelling the handle takes a call that is still queued out of the queue; the
// result is then its Context's error. A call that runs goes on; if it should end
// early, pass a context to it, for which a Context serves: context.WithTimeout(cx, d).
// Shutdown cancels queued calls at its third stage, and waits for running calls.
func SpawnBlocking[T any](s Spawner, fn func() (T, error)) *JoinHandle[T] {
	return spawnCall(s, fn, true)
}

// spawnCall is SpawnBlocking. own is set if the call is a task of the user's own. A call
// that is part of another operation with s is not refused while the runtime drains.
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
	c.node.outside = w == nil && (own || cx == nil)
	err := rt.calls.submit(&c.node)
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

// refuse ends c, which has not begun: its error is no failure of its group. The group
// sees only ErrShutdown, as it does from tasks of other kinds.
func (c *blockingCall[T]) refuse(err error) {
	if err != ErrShutdown {
		c.cancelGroup().leaveAll(&c.task)
	}
	c.abort(nil, err)
}

// blockingCall is a task that a goroutine of the pool runs.
type blockingCall[T any] struct {
	JoinHandle[T]
	fn   func() (T, error)
	node callNode
}

func newBlockingCall[T any](rt *Runtime, fn func() (T, error)) *blockingCall[T] {
	c := &blockingCall[T]{fn: fn}
	c.kind, c.body, c.cx.t, c.node.t = kindBlocking, c, &c.task, &c.task
	c.w = rt.assignWorker()
	c.id.Store(rt.nextID())
	return c
}

func (c *blockingCall[T]) poolNode() *callNode { return &c.node }

// poll runs the call. The worker is nil: it is a goroutine of the pool.
func (c *blockingCall[T]) poll(*worker) bool {
	if c.state.cancelled() { // before it was queued, or a moment ago
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

// labelCall gives the calling goroutine, a goroutine of the pool, the label and the
// region of a named task, until reset is called.
func labelCall(name string) (reset func()) {
	ctx := pprof.WithLabels(context.Background(), pprof.Labels("task", name))
	pprof.SetGoroutineLabels(ctx)
	region := trace.StartRegion(ctx, name)
	return func() {
		region.End()
		pprof.SetGoroutineLabels(context.Background())
	}
}

func (c *blockingCall[T]) abort(_ *worker, err error) {
	c.fn = nil
	var zero T
	c.finish(nil, zero, err)
}
