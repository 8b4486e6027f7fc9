package async

import (
	"context"
	"sync/atomic"
	"time"
)

// A Context is how code that polls or awaits reaches its task, its worker and
// its runtime. It comes as the first argument of that code, and its use ends
// with it.
//
// How Await waits depends on whose Context it is:
//
//   - straight-line code (Go, Spawn, Run) is suspended and its worker runs
//     other tasks meanwhile;
//   - a goroutine outside the pool (BlockOn) is parked;
//   - a plain future being polled (SpawnFuture, NewContext) cannot wait: Await
//     panics; call Poll methods instead.
//
// A Context may be used only by the code that it was given to, on its
// goroutine, and while that runs: everything that waits, polls or spawns
// panics elsewhere, and says so. The methods of context.Context alone (and
// Cause and AfterFunc) may be called from any goroutine at any time, so that a Context
// can be passed to code that only knows context.Context.
type Context struct {
	t *task

	// sc is nil in the Context that a task starts with, until the scope is
	// needed. It is never nil in a derived Context.
	sc atomic.Pointer[cancelScope]
}

var _ context.Context = (*Context)(nil)

// NewContext returns a Context for a loop that polls futures itself: w is
// woken when such a future may have its result. It cannot wait. No worker waits
// for timers that are polled with it, nor for connections, unless a task has waited for
// them, as the tasks of Serve do, or descriptors have run out: of s only the runtime counts.
//
// It may be used on any goroutine, by one goroutine at a time.
func NewContext(s Spawner, w Waker) *Context {
	rt, _ := s.spawner()
	o := &externalWaker{fn: w.Wake}
	o.kind, o.body = kindExternal, o
	o.w = rt.workers[0]
	o.cx.t = &o.task
	return &o.cx
}

// Waker returns the waker of cx's task. A future that takes it must wake it
// when it may have its result.
func (cx *Context) Waker() Waker { return Waker{cx.waker(waitsFuture)} }

// waker is Waker for the slots of this package. reason is what the task waits
// for.
func (cx *Context) waker(reason waitReason) *task {
	cx.here()
	cx.t.waits = reason
	return cx.t
}

// here returns the worker that runs cx's task, or nil for a Context of code
// that no worker runs. It panics if cx is used by other code than that of its task.
func (cx *Context) here() *worker {
	t := cx.t
	switch t.kind {
	case kindPlain:
		if w := t.w; w != nil && w.g.Load() == getg() && w.current == t {
			return w
		}
	case kindStraight:
		g := t.g.Load()
		if g == getg() && !t.state.done() {
			return t.w
		}
		if w := t.w; g == 0 && w != nil && w.g.Load() == getg() && w.current == t {
			return w // between two calls of a Handler; see servedConn
		}
	case kindGoroutine:
		if t.g.Load() == getg() && !t.state.done() {
			return nil
		}
	default:
		return nil
	}
	panic(t.misuse())
}

// misuse explains why the Context of t can't be used where it just was.
func (t *task) misuse() string {
	switch {
	case t.state.done():
		return "async: a Context was used after its task had ended; spawn a task for what goes on, and use its Context"
	case t.kind == kindPlain:
		return "async: a Context was used outside the Poll that it was passed to; use the Context of the current Poll"
	default:
		return "async: a Context was used on a goroutine that is not its own; " +
			"start a task (async.Go) and use its Context, or use BlockOn in the goroutine"
	}
}

// taskWorker returns the worker of cx's task; if here returns nil, any worker of its runtime.
func (cx *Context) taskWorker() *worker { return cx.t.w }

// spawner implements Spawner: new tasks start on the worker of cx.
func (cx *Context) spawner() (*Runtime, *worker) {
	w := cx.here()
	return cx.t.w.rt, w
}

// attributes implements Spawner: new tasks inherit some of the task-locals, and the contexts
// that cx is under.
func (cx *Context) attributes() *taskAttributes {
	own := cx.t.attributes.Load()
	if own == nil && cx.sc.Load() == nil { // most tasks
		return nil
	}
	return cx.inherited(own)
}

// inherited returns what tasks inherit from a task with the attributes own, or from cx.
func (cx *Context) inherited(own *taskAttributes) (d *taskAttributes) {
	if own != nil {
		d = own.child
	}
	if h := cx.spawnGroup(); h != nil {
		d = h.made.of(d, func(d *taskAttributes) { d.group = &h.group })
	}
	return d
}

// cancelGroup implements Spawner: tasks are not cancelled with the task that spawns them, but
// with a derived Context, and with the contexts that the task is under.
func (cx *Context) cancelGroup() *cancelGroup {
	if h := cx.spawnGroup(); h != nil {
		return &h.group
	}
	return cx.t.cancelGroup().inherited()
}

// spawnGroup is the tasks that are spawned with a derived Context.
type spawnGroup struct {
	group cancelGroup
	made  attributesCache
}

// spawnGroup returns the tasks that are spawned with cx; nil if cx is its task's own Context.
func (cx *Context) spawnGroup() *spawnGroup {
	sc := cx.sc.Load()
	if sc == nil || sc.parent == nil {
		return nil
	}
	if h := sc.spawned.Load(); h != nil {
		return h
	}
	h := new(spawnGroup)
	switch {
	case sc.value != nil: // such a Context has no end of its own
		h.group.ctx, h.group.endless = context.WithValue(context.Background(), sc.value.key, sc.value.val), true
		h.group.outer = sc.parent.cancelGroup()
	case sc.shield != nil:
		if h.group.ctx, h.group.endless = cx.values(), true; h.group.ctx == context.Background() {
			return nil // and the task is under no context
		}
	default:
		h.group.ctx = cx
	}
	sc.spawned.CompareAndSwap(nil, h)
	return sc.spawned.Load()
}

// Under implements Spawner. cx.Under(cx) is for tasks that must not outlive cx's task: they
// are cancelled when cx or the task ends.
func (cx *Context) Under(ctx context.Context) Spawner { return withContext(cx, ctx) }

// Named implements Spawner.
func (cx *Context) Named(name string) Spawner { return &spawnOptions{base: cx, name: name} }

// Runtime returns the runtime of cx's task.
func (cx *Context) Runtime() *Runtime {
	cx.here()
	return cx.t.w.rt
}

// draining reports whether Shutdown has begun.
func (cx *Context) draining() bool {
	cx.here()
	return cx.t.w.rt.draining.Load()
}

// Task returns the number and the name of cx's task. Like the methods of
// context.Context it may be called from any goroutine.
func (cx *Context) Task() Task { return cx.t.ident() }

// beginAwait is called before the first poll of an await.
func (cx *Context) beginAwait() *task {
	t := cx.t
	if !cx.canWait() {
		panic("async: a plain future cannot wait: call the Poll form, keep what it returns and return ErrPending, " +
			"or spawn straight-line code with async.Go")
	}
	t.waits = waitsNothing
	return t
}

// canWait reports whether Await can wait with cx, here.
func (cx *Context) canWait() bool {
	cx.here()
	return cx.t.kind == kindStraight || cx.t.kind == kindGoroutine
}

// callers reports whether cx belongs to the calling code: to straight-line code or a
// goroutine in BlockOn, which can wait. callers and calm make the checks of Await for
// the price of a few loads, for operations that seldom wait. They are two functions
// so that they can be inlined.
func (cx *Context) callers() bool { return cx.t.g.Load() == getg() }

// calm reports whether nothing has been cancelled. If it is false the caller must
// look closer: cx may be a derived Context.
func (cx *Context) calm() bool {
	return cx.t.state.bits.Load()&(taskCancelled|taskDone) == 0 && cx.sc.Load() == nil
}

// mustAwait is the closer look: it panics if cx cannot wait here, returns cx.Err(),
// and makes the task yield now and then, as all awaits do that may be in a loop. (An
// operation that finds a lock free at the first look does not: it would cost a tenth more.)
func (cx *Context) mustAwait() error {
	if !cx.proceed(cx.beginAwait()) {
		return cx.Err()
	}
	return nil
}

// quick is callers, calm and spend for straight-line code in one, and returns
// its worker. If it reports false, proceed must look closer.
func (cx *Context) quick() (w *worker, ok bool) {
	t := cx.t
	if t.kind != kindStraight || !cx.callers() || !cx.calm() {
		return nil, false
	}
	w = t.w
	w.budget--
	return w, w.budget >= 0
}

// inBudget is callers, calm and spend in one, for an operation whose short way may
// be ready at once. If it reports false the operation must take its long way, which
// lets other tasks run if no budget is left.
func (cx *Context) inBudget() bool {
	if !cx.callers() || !cx.calm() {
		return false
	}
	if cx.t.kind != kindStraight {
		return true // a goroutine has no budget
	}
	w := cx.t.w
	w.budget--
	return w.budget >= 0
}

// spendOrYield is spend for an operation that does not wait, and lets other tasks
// run if there is no budget left. It does not look whether cx is cancelled. Code that
// cannot wait goes on.
func (cx *Context) spendOrYield() {
	for cx.canWait() && !cx.spend() {
		cx.t.wait()
	}
}

// refused returns err, the failure of an operation that had nothing to wait for. A
// loop that tries such an operation again and again must let other tasks run, too. In
// a plain future it returns ErrPending if there is no budget left.
func (cx *Context) refused(err error) error {
	if cx.canWait() {
		cx.spendOrYield()
	} else if !cx.spend() {
		return ErrPending
	}
	return err
}

// proceed is called by an await before it polls. It reports false if cx is
// cancelled, and true once its task may do another operation.
func (cx *Context) proceed(t *task) bool {
	for {
		if cx.ended() {
			if !cx.spend() {
				t.wait() // code that ignores cancellation must not keep its worker
			}
			return false
		}
		if cx.spend() {
			return true
		}
		t.wait()
	}
}

// spend takes one operation off the budget of the current poll. If there is
// none left it makes the task yield and reports false: the caller returns
// ErrPending. So a connection that is always ready cannot keep its worker.
func (cx *Context) spend() bool {
	w := cx.here()
	if w == nil {
		return true
	}
	if w.budget--; w.budget >= 0 {
		return true
	}
	w.yield(cx.t)
	return false
}

// unspent gives back the operation that spend has taken if err is ErrPending: the
// poll has done nothing. So a future may poll more futures in one poll than the budget
// has operations, and each of them gets its waker. It returns err.
func (cx *Context) unspent(err error) error {
	if err == ErrPending {
		cx.giveBack()
	}
	return err
}

// giveBack undoes spend. The caller is the code of cx, as spend has made sure.
func (cx *Context) giveBack() {
	if t := cx.t; t.kind == kindPlain || t.kind == kindStraight {
		t.w.budget++
	}
}

// ended reports whether Err is not nil.
func (cx *Context) ended() bool {
	if cx.sc.Load() == nil {
		return cx.t.state.cancelled()
	}
	status, _ := cx.ending()
	return status != scopeOpen
}

// fastErr returns cx.Err(), with a fast path for a Context that has not ended.
func (cx *Context) fastErr() error {
	if !cx.ended() {
		return nil
	}
	return cx.Err()
}

// ending looks up the chain. It returns how cx has ended, and the scope that has ended. The
// scope is nil if cx has not ended, or if the task was cancelled and its own scope, if there
// is one, has no status yet.
func (cx *Context) ending() (status uint32, sc *cancelScope) {
	for c := cx; ; c = sc.parent {
		if sc = c.sc.Load(); sc == nil {
			break
		}
		if sc.shield != nil && sc.shield.stopping.Load() {
			sc.end(scopeCancelled, ErrShutdown, nil)
		}
		if status := sc.status.Load(); status != scopeOpen || sc.shield != nil {
			return status, sc
		}
		if sc.parent == nil {
			break
		}
	}
	if cx.t.state.cancelled() {
		status, _ = cx.t.why()
	}
	return status, nil
}

// why returns how and why t, which is cancelled or has ended, was cancelled.
func (t *task) why() (status uint32, cause error) {
	switch t.state.cancelledBy() {
	case taskByShutdown:
		return scopeCancelled, ErrShutdown
	case taskByContext:
		return t.cancelGroup().cause()
	}
	if sc := t.cx.sc.Load(); sc != nil && t.state.cancelled() {
		return scopeCancelled, sc.proposed()
	}
	return scopeCancelled, nil
}

// causeIn returns why a Context of t has ended; sc is the scope that ending has returned.
func (t *task) causeIn(sc *cancelScope) error {
	if sc != nil {
		return sc.cause
	}
	_, cause := t.why()
	return cause
}

// endedScope ends the scope of cx as ending says, and returns it. So the answers of cx do
// not change from then on. It returns nil if cx has not ended.
func (cx *Context) endedScope() *cancelScope {
	status, at := cx.ending()
	if status == scopeOpen {
		return nil
	}
	own := cx.scope()
	if own != at {
		own.end(status, cx.t.causeIn(at), nil)
	}
	return own
}

// Err returns context.Canceled once the task or cx was cancelled,
// context.DeadlineExceeded once the deadline of cx has passed, and else nil.
func (cx *Context) Err() error {
	if c := cx.t.cancelGroup(); cx.sc.Load() == nil && (c == nil || c.outer == nil) {
		status, _ := cx.ending() // such a Context can only end in one way: there is no need to keep the status
		return scopeErrs[status]
	}
	if sc := cx.endedScope(); sc != nil {
		return scopeErrs[sc.status.Load()]
	}
	return nil
}

// Cause returns why cx has ended: the cause that was passed to the function of
// WithCancelCause or to [JoinHandle.CancelCause], the cause of the context that the
// task is under, the error of the task that failed in its group, ErrShutdown if
// [Runtime.Shutdown] has cancelled the task, and else the result of Err; nil if cx has
// not ended. The first end counts. context.Cause(cx) is the same, also of contexts
// that are derived from cx.
func (cx *Context) Cause() error {
	if sc := cx.endedScope(); sc != nil {
		return sc.cause
	}
	return nil
}

// Deadline returns the time at which cx will be cancelled, if there is one.
func (cx *Context) Deadline() (deadline time.Time, ok bool) {
	if sc := cx.sc.Load(); sc != nil && sc.parent != nil {
		return sc.deadline, !sc.deadline.IsZero()
	}
	return cx.t.cancelGroup().deadline()
}

// Done returns a channel that is closed when cx is cancelled or its task has
// ended. It is for goroutines: a task that waits for a channel blocks its
// worker.
func (cx *Context) Done() <-chan struct{} { return cx.endScope().doneChan() }

// Value returns the value for key of WithValue, or else of the contexts that cx's task is
// under; see Spawner. A value that code of this package alone needs can be a [TaskLocal].
// For runtime/pprof a Context has the labels of its task, so that pprof.Do with it
// leaves them in force.
func (cx *Context) Value(key any) any {
	// context.Cause asks for the value of a key of its own. Only a context of
	// that package can give it: so ask one that has ended with the same cause.
	if cx.ended() {
		ended, cancel := context.WithCancelCause(context.Background())
		cancel(cx.Cause())
		if v := ended.Value(key); v != nil {
			return v
		}
	}
	for sc := cx.sc.Load(); sc != nil && sc.parent != nil; sc = sc.parent.sc.Load() {
		if v := sc.value; v != nil && v.key == key {
			return v.val
		}
	}
	return cx.t.valueOrLabels(key, cx.t.cancelGroup().value(key))
}

// WithValue returns a Context of the same task in which key has the value val, as
// context.WithValue does; like that it panics if key is nil or cannot be compared. Tasks that
// are spawned with it have the value, too; otherwise they are as if spawned with cx.
func (cx *Context) WithValue(key, val any) *Context {
	_ = context.WithValue(context.Background(), key, val) // panics as it should
	child, sc := cx.derive(time.Time{}, nil)
	sc.value = &scopeValue{key, val}
	return child
}

// AfterFunc arranges for f to be called in its own goroutine once cx is
// cancelled or its task has ended. The stop function is that of
// context.AfterFunc, and the context package uses this method, so that
// contexts derived from cx by it cost no goroutine.
func (cx *Context) AfterFunc(f func()) (stop func() bool) { return cx.endScope().callAfter(f, false) }

// WithCancel returns a Context of the same task that can be cancelled by
// itself: awaits with it then return context.Canceled, and awaits with cx go
// on. The function may be called from any goroutine, more than once, and
// should be called when the Context is no longer needed.
func (cx *Context) WithCancel() (*Context, context.CancelFunc) {
	child, sc := cx.derive(time.Time{}, nil)
	return child, sc.cancel
}

// WithCancelCause is WithCancel with a function that says why; see Cause. A nil
// cause is context.Canceled.
func (cx *Context) WithCancelCause() (*Context, context.CancelCauseFunc) {
	child, sc := cx.derive(time.Time{}, nil)
	return child, func(cause error) { sc.close(scopeCancelled, cause, nil) }
}

// WithTimeout is WithDeadline with a deadline of d from now.
func (cx *Context) WithTimeout(d time.Duration) (*Context, context.CancelFunc) {
	return cx.WithDeadline(time.Now().Add(d))
}

// WithTimeoutCause is WithTimeout with a cause for the case that the time
// passes; see Cause.
func (cx *Context) WithTimeoutCause(d time.Duration, cause error) (*Context, context.CancelFunc) {
	return cx.WithDeadlineCause(time.Now().Add(d), cause)
}

// WithDeadline returns a Context of the same task whose awaits return
// context.DeadlineExceeded once the deadline has passed, or context.Canceled
// once the function has been called. An earlier deadline of cx stays in force.
// The function releases the timer; call it when the Context is no longer
// needed.
func (cx *Context) WithDeadline(deadline time.Time) (*Context, context.CancelFunc) {
	return cx.WithDeadlineCause(deadline, nil)
}

// WithDeadlineCause is WithDeadline with a cause for the case that the deadline
// passes; see Cause.
func (cx *Context) WithDeadlineCause(deadline time.Time, cause error) (*Context, context.CancelFunc) {
	if deadline.IsZero() {
		deadline = deadline.Add(1) // has passed, too, and does not mean that there is none
	}
	child, sc := cx.derive(deadline, cause)
	return child, sc.cancel
}

// WithoutCancel returns a Context of the same task that does not end when cx
// or the task is cancelled, nor at a deadline of cx: code that cleans up awaits
// with it after a cancellation. It should have a deadline of its own:
//
//	defer func() {
//		cx, cancel := cx.WithoutCancel().WithTimeout(time.Second)
//		defer cancel()
//		conn.Write(cx, goodbye)
//	}()
//
// [Runtime.Shutdown] cannot cancel such code, and waits for it for Config.Grace. Its last
// stage, which unwinds code that waits, ends the Context all the same: awaits that begin
// later fail, with the cause ErrShutdown.
func (cx *Context) WithoutCancel() *Context {
	cx.here()
	cx.t.state.retain()
	child := &Context{t: cx.t}
	child.sc.Store(&cancelScope{t: cx.t, parent: cx, shield: cx.t.w.rt})
	return child
}

func (cx *Context) derive(deadline time.Time, late error) (*Context, *cancelScope) {
	w := cx.here()
	cx.t.state.retain()
	sc := &cancelScope{t: cx.t, parent: cx, deadline: deadline, late: late}
	if outer, ok := cx.Deadline(); ok && (deadline.IsZero() || !timeEarlier(deadline, outer)) {
		sc.deadline = outer
	}
	child := &Context{t: cx.t}
	child.sc.Store(sc)
	if deadline.IsZero() {
		return child, sc
	}
	// The timer is set also if the outer deadline seems to come first: the wall clock
	// may have been stepped since the outer deadline was converted.
	if at := nanosAt(deadline); at <= cx.nanos() {
		sc.close(scopeExpired, late, w)
	} else {
		sc.arm(w, at)
	}
	return child, sc
}

// scope returns the scope of cx, and makes it if there is none.
func (cx *Context) scope() *cancelScope {
	if sc := cx.sc.Load(); sc != nil {
		return sc
	}
	cx.sc.CompareAndSwap(nil, &cancelScope{t: cx.t})
	sc := cx.sc.Load()
	if cx.t.state.cancelled() || cx.t.state.done() {
		cx.t.endScope(nil)
	}
	return sc
}

// endScope returns the scope that ends when cx does: that of WithValue has no end of its own,
// and no function that would take it off its parent's list.
func (cx *Context) endScope() *cancelScope {
	sc := cx.scope()
	for sc.value != nil {
		sc = sc.parent.scope()
	}
	return sc
}

// endScope ends the scope of t's own Context, if it has one. t is cancelled, or
// has ended.
func (t *task) endScope(from *worker) {
	if sc := t.cx.sc.Load(); sc != nil {
		status, cause := t.why()
		sc.end(status, cause, from)
	}
}
