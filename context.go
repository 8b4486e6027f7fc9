package async

import (
	"context"
	"sync/atomic"
	"time"
)

// A Context connects code to its task, its worker and its runtime. It is the first argument of code
// that polls or awaits, and of every function that waits. It is also a [context.Context], and a
// [Spawner].
//
// How an await waits depends on the code to which the Context belongs:
//
//   - Straight-line code ([Go], [Spawn], [Run]) is suspended. Its worker runs other tasks
//     meanwhile.
//   - A goroutine outside the pool ([BlockOn]) is parked.
//   - A plain future ([SpawnFuture], [NewContext]) cannot wait: awaits panic. Call Poll methods
//     instead.
//
// An await with a Context that is cancelled fails with cx.Err(), even if it could succeed at once.
// The Context of a task is cancelled by [JoinHandle.Cancel], by [Runtime.Shutdown], and by the end
// of a context or a [Group] that the task is under. [Context.WithCancel], [Context.WithTimeout] and
// similar methods derive a Context of the same task, which can also be cancelled by itself.
// [Context.WithoutCancel] derives one for code that cleans up.
//
// Use a Context only in the code to which it was passed, on the goroutine of this code, and until
// this code returns. Anywhere else, every function that waits, polls or spawns with it panics. Some
// methods may be called concurrently, from any goroutine and at any time, so that a Context can be
// passed to code that takes a [context.Context]: the methods of that interface, [Context.Cause],
// [Context.AfterFunc] and [Context.Task].
type Context struct {
	t *task

	// sc is nil in the Context of a task until a scope is needed. It is never nil in a derived
	// Context.
	sc atomic.Pointer[cancelScope]
}

var _ context.Context = (*Context)(nil)

// NewContext returns a Context for a loop that polls futures itself. w is woken when such a future
// may have its result. The Context cannot wait: awaits with it panic. It may be used on any
// goroutine, by one goroutine at a time.
//
// Only the runtime of s counts: names, contexts and groups have no effect. Timers that are polled
// with the Context are Go's own. Connections are registered with a reactor that a goroutine serves,
// and with a worker only if a task has waited for them before, as the tasks of [Serve] do, or if no
// descriptors are left.
func NewContext(s Spawner, w Waker) *Context {
	rt, _ := s.spawner()
	o := &externalWaker{fn: w.Wake}
	o.kind, o.body = kindExternal, o
	o.w = rt.workers[0]
	o.cx.t = &o.task
	return &o.cx
}

// Waker returns the waker of cx's task. A future that takes the waker and returns [ErrPending] must
// make sure that the waker is woken once the future may have its result.
func (cx *Context) Waker() Waker { return Waker{cx.waker(waitsFuture)} }

// waker is Waker for the slots of this package. reason is the event that the task waits for.
func (cx *Context) waker(reason waitReason) *task {
	cx.here()
	cx.t.waits = reason
	return cx.t
}

// here returns the worker that runs cx's task, or nil if no worker runs it. It panics if the caller
// is not the code of cx's task.
//
// A plain future is the caller if its worker runs the calling goroutine and polls the future now.
// For straight-line code and BlockOn, the goroutine is compared.
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

// misuse returns the text of the panic for a Context of t that was used by other code, or too late.
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

// taskWorker returns the worker of cx's task, or any worker of its runtime if no worker runs it.
func (cx *Context) taskWorker() *worker { return cx.t.w }

// spawner implements Spawner: new tasks start on the worker of cx.
func (cx *Context) spawner() (*Runtime, *worker) {
	w := cx.here()
	return cx.t.w.rt, w
}

// attributes implements Spawner: new tasks inherit the task-locals that have Inherit set, and the
// contexts that cx is under.
func (cx *Context) attributes() *taskAttributes {
	own := cx.t.attributes.Load()
	if own == nil && cx.sc.Load() == nil { // most tasks
		return nil
	}
	return cx.inherited(own)
}

// inherited returns the attributes that tasks inherit from a task with the attributes own, or from
// cx.
func (cx *Context) inherited(own *taskAttributes) (d *taskAttributes) {
	if own != nil {
		d = own.child
	}
	if h := cx.spawnGroup(); h != nil {
		d = h.made.of(d, func(d *taskAttributes) { d.group = &h.group })
	}
	return d
}

// cancelGroup implements Spawner. New tasks are not cancelled together with the task that spawns
// them. They are cancelled with a derived Context, and with the contexts that the task is under.
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

// spawnGroup returns the group of the tasks that are spawned with cx, and makes it if there is
// none. It returns nil if cx is the Context that its task began with.
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
			return nil // there are no values to pass on, and the task is under no context
		}
	default:
		h.group.ctx = cx
	}
	sc.spawned.CompareAndSwap(nil, h)
	return sc.spawned.Load()
}

// Under returns a [Spawner] like cx whose tasks are under ctx; see [Spawner]. Tasks of cx.Under(cx)
// are cancelled when cx or its task ends. To also wait for such tasks, use a [Group].
func (cx *Context) Under(ctx context.Context) Spawner { return withContext(cx, ctx) }

// Named returns a [Spawner] like cx whose tasks have a name; see [Spawner].
func (cx *Context) Named(name string) Spawner { return &spawnOptions{base: cx, name: name} }

// Runtime returns the [Runtime] of cx's task.
func (cx *Context) Runtime() *Runtime {
	cx.here()
	return cx.t.w.rt
}

// draining reports whether Shutdown has begun.
func (cx *Context) draining() bool {
	cx.here()
	return cx.t.w.rt.draining.Load()
}

// Task returns the number and the name of cx's task. It may be called from any goroutine.
func (cx *Context) Task() Task { return cx.t.ident() }

// beginAwait is called before the first poll of an await. It returns the task of cx. It panics if
// the caller is not the code of cx, or is a plain future, which cannot wait.
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

// callers reports whether cx belongs to the calling code: to straight-line code or a function that
// BlockOn runs, which can wait. callers and calm make the checks of Await at the cost of a few
// loads, for operations that seldom wait. They are two functions so that both are inlined.
func (cx *Context) callers() bool { return cx.t.g.Load() == getg() }

// calm reports whether nothing has been cancelled. If it reports false the caller must look closer
// (mustAwait, proceed): cx may be a derived Context that has not ended.
func (cx *Context) calm() bool {
	return cx.t.state.bits.Load()&(taskCancelled|taskDone) == 0 && cx.sc.Load() == nil
}

// mustAwait is the closer look after callers and calm. It panics if cx cannot wait here, returns
// cx.Err() if cx is cancelled, and takes one operation off the budget: the task yields if none is
// left, as in all awaits that may be in a loop. (A lock that is free at the first look takes none:
// that would cost a tenth more.)
func (cx *Context) mustAwait() error {
	if !cx.proceed(cx.beginAwait()) {
		return cx.Err()
	}
	return nil
}

// quick makes the checks of callers and calm, for straight-line code only, and takes one operation
// off the budget. It returns the worker of this code. If it reports false, a check has failed or no
// budget is left. Unlike spend it has not made the task yield: the caller takes its long way, which
// looks closer and yields (see proceed).
func (cx *Context) quick() (w *worker, ok bool) {
	t := cx.t
	if t.kind != kindStraight || !cx.callers() || !cx.calm() {
		return nil, false
	}
	w = t.w
	w.budget--
	return w, w.budget >= 0
}

// inBudget is callers, calm and spend in one, for an operation whose short way may be ready at
// once. If it reports false the operation must take its long way, which yields if no budget is
// left.
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

// spendOrYield is spend for an operation that does not wait. It yields if no budget is left, and
// does not look whether cx is cancelled. For code that cannot wait it does nothing.
func (cx *Context) spendOrYield() {
	for cx.canWait() && !cx.spend() {
		cx.t.wait()
	}
}

// refused is called by an operation that fails with err at once. It takes one operation off the
// budget, so that a loop which tries the operation again and again lets other tasks run. If no
// budget is left, straight-line code yields before refused returns err, and a plain future gets
// ErrPending instead of err.
func (cx *Context) refused(err error) error {
	if cx.canWait() {
		cx.spendOrYield()
	} else if !cx.spend() {
		return ErrPending
	}
	return err
}

// proceed is called by an await before it polls. It reports false if cx is cancelled. It reports
// true once the task may do another operation: if no budget is left, it first yields.
func (cx *Context) proceed(t *task) bool {
	for {
		if cx.ended() {
			if !cx.spend() {
				t.wait() // queued again by spend: code that ignores cancellation yields, too
			}
			return false
		}
		if cx.spend() {
			return true
		}
		t.wait()
	}
}

// spend takes one operation off the budget of the current poll. If none is left it makes the task
// yield and reports false; the caller then waits or returns ErrPending. So a connection that is
// always ready cannot keep its worker from other tasks.
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

// unspent gives back the operation that spend has taken if err is ErrPending, since the poll has
// done nothing. It returns err. So a future may poll more futures in one poll than the budget has
// operations, and each of them gets its waker.
func (cx *Context) unspent(err error) error {
	if err == ErrPending {
		cx.giveBack()
	}
	return err
}

// giveBack undoes spend. The caller is the code of cx: spend has checked it.
func (cx *Context) giveBack() {
	if t := cx.t; t.kind == kindPlain || t.kind == kindStraight {
		t.w.budget++
	}
}

// ended reports whether cx.Err() is not nil.
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

// ending looks up the chain of Contexts. It returns how cx has ended, and the scope that has ended.
// The scope is nil if cx has not ended, and if the task was cancelled and its own scope, if there
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

// why returns how and why t was cancelled. t is cancelled, or has ended.
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

// causeIn returns the cause with which a Context of t has ended. sc is the scope that ending has
// returned, or nil if the task itself was cancelled or has ended. A nil cause means the result of
// the Context's Err.
func (t *task) causeIn(sc *cancelScope) error {
	if sc != nil {
		return sc.cause
	}
	_, cause := t.why()
	return cause
}

// endedScope returns the scope of cx, or nil if cx has not ended. If cx has ended because an outer
// Context or the task has, endedScope first ends the scope in the same way and with the same cause.
// The status and the cause of the scope do not change from then on, so all later answers of cx
// agree.
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

// Err returns nil until cx has ended. From then on it returns [context.DeadlineExceeded] if a
// deadline has ended it, and [context.Canceled] otherwise; this does not change again. After the end
// of the task it may return context.Canceled, too, and does so if [Context.Done] has returned a
// channel.
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

// Cause returns why cx has ended, or nil if it has not ended. The cause is
//
//   - the error that was passed to the function of [Context.WithCancelCause] or to
//     [JoinHandle.CancelCause];
//   - the cause of the context that the task is under;
//   - the error of the task that failed in the [Group] of this task;
//   - [ErrShutdown] if [Runtime.Shutdown] has cancelled the task;
//   - otherwise the result of cx.Err().
//
// If cx ends several times, the first end counts. [context.Cause](cx) returns the same error, also
// for contexts that are derived from cx.
func (cx *Context) Cause() error {
	if sc := cx.endedScope(); sc != nil {
		return sc.cause
	}
	return nil
}

// Deadline returns the time at which cx will be cancelled: the earliest deadline of cx, of the
// Contexts from which it is derived, and of the contexts that its task is under. ok is false if
// there is none.
func (cx *Context) Deadline() (deadline time.Time, ok bool) {
	if sc := cx.sc.Load(); sc != nil && sc.parent != nil {
		return sc.deadline, !sc.deadline.IsZero()
	}
	return cx.t.cancelGroup().deadline()
}

// Done returns a channel that is closed when cx is cancelled or its task has ended. It is for
// goroutines. A task must not wait for it, since that would block the worker: awaits with cx end by
// themselves.
func (cx *Context) Done() <-chan struct{} { return cx.endScope().doneChan() }

// Value returns the value for key that was set by [Context.WithValue], or else the value of a
// context that the task of cx is under (see [Spawner]), or else nil. Use a [TaskLocal] for values
// that only code of tasks needs.
//
// For package [runtime/pprof] a Context has the labels of its task: [runtime/pprof.Do] adds labels
// to them.
func (cx *Context) Value(key any) any {
	// context.Cause asks for the value of a key of its own. Only a context of package context can
	// give this value. So ask such a context that has ended with the same cause.
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

// WithValue returns a Context of the same task in which key has the value val. As
// [context.WithValue] does, it panics if key is nil or cannot be compared. Tasks that are spawned
// with it have the value, too. In all other respects it is cx: it is cancelled when cx is.
func (cx *Context) WithValue(key, val any) *Context {
	_ = context.WithValue(context.Background(), key, val) // panics as it should
	child, sc := cx.derive(time.Time{}, nil)
	sc.value = &scopeValue{key, val}
	return child
}

// AfterFunc arranges for f to be called on a goroutine of its own once cx is cancelled or its task
// has ended. stop prevents the call, and reports whether it has done that, as the function of
// [context.AfterFunc] does. Package context uses this method, so a context that it derives from cx
// costs no goroutine.
func (cx *Context) AfterFunc(f func()) (stop func() bool) { return cx.endScope().callAfter(f, false) }

// WithCancel returns a Context of the same task, and a function that cancels it. Awaits with this
// Context, and tasks that were spawned with it, are cancelled then, with [context.Canceled]; awaits
// with cx go on. The Context is also cancelled when cx is. The function may be called from any
// goroutine, and more than once. Call it when the Context is no longer needed.
func (cx *Context) WithCancel() (*Context, context.CancelFunc) {
	child, sc := cx.derive(time.Time{}, nil)
	return child, sc.cancel
}

// WithCancelCause is [Context.WithCancel] with a cause, which [Context.Cause] then returns. A nil
// cause means [context.Canceled].
func (cx *Context) WithCancelCause() (*Context, context.CancelCauseFunc) {
	child, sc := cx.derive(time.Time{}, nil)
	return child, func(cause error) { sc.close(scopeCancelled, cause, nil) }
}

// WithTimeout is [Context.WithDeadline] with a deadline of d from now.
func (cx *Context) WithTimeout(d time.Duration) (*Context, context.CancelFunc) {
	return cx.WithDeadline(time.Now().Add(d))
}

// WithTimeoutCause is [Context.WithTimeout] with a cause, which [Context.Cause] returns if the
// Context ends because the time has passed.
func (cx *Context) WithTimeoutCause(d time.Duration, cause error) (*Context, context.CancelFunc) {
	return cx.WithDeadlineCause(time.Now().Add(d), cause)
}

// WithDeadline returns a Context of the same task that is cancelled at the deadline, with
// [context.DeadlineExceeded], and a function that cancels it before, with [context.Canceled]. An
// earlier deadline of cx stays in force. The function may be called from any goroutine, and more
// than once. Call it when the Context is no longer needed: it releases the timer.
func (cx *Context) WithDeadline(deadline time.Time) (*Context, context.CancelFunc) {
	return cx.WithDeadlineCause(deadline, nil)
}

// WithDeadlineCause is [Context.WithDeadline] with a cause, which [Context.Cause] returns if the
// Context ends because the deadline has passed.
func (cx *Context) WithDeadlineCause(deadline time.Time, cause error) (*Context, context.CancelFunc) {
	if deadline.IsZero() {
		deadline = deadline.Add(1) // a time that has also passed; the zero time would mean no deadline
	}
	child, sc := cx.derive(deadline, cause)
	return child, sc.cancel
}

// WithoutCancel returns a Context of the same task that has the values of cx, but is not cancelled
// when cx or the task is, and has no deadline. Code that cleans up after a cancellation awaits with
// it. Give it a deadline of its own:
//
//	defer func() {
//		cx, cancel := cx.WithoutCancel().WithTimeout(time.Second)
//		defer cancel()
//		conn.Write(cx, goodbye)
//	}()
//
// [Runtime.Shutdown] cannot cancel such code, and waits for it for [Config.Grace]. Then it unwinds
// code that waits, and ends this Context, too: awaits that begin later fail with
// [context.Canceled], and the cause is [ErrShutdown].
func (cx *Context) WithoutCancel() *Context {
	cx.here()
	cx.t.state.retain()
	child := &Context{t: cx.t}
	child.sc.Store(&cancelScope{t: cx.t, parent: cx, shield: cx.t.w.rt})
	return child
}

// derive returns a Context that is derived from cx, and its scope. late is the cause if the
// deadline ends the scope; nil means [context.DeadlineExceeded]. A zero deadline adds no deadline
// to that of cx.
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
	// The timer is set even if the outer deadline seems to be earlier: the wall clock may have been
	// stepped since the outer deadline was converted.
	if at := nanosAt(deadline); at <= cx.nanos() {
		sc.close(scopeExpired, late, w)
	} else {
		sc.arm(w, at)
	}
	return child, sc
}

// scope returns the scope of cx, and makes it if there is none. If the task is cancelled or has
// ended, the new scope is ended; see race 5 in contextscope.go.
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

// endScope returns the scope that ends when cx does: the scope of cx or, if WithValue made that, the
// nearest scope up the chain that WithValue did not make. A scope of WithValue ends only with its
// parent. It is not registered with the parent: nothing could remove the registration before the
// parent ends, because WithValue returns no function that cancels.
func (cx *Context) endScope() *cancelScope {
	sc := cx.scope()
	for sc.value != nil {
		sc = sc.parent.scope()
	}
	return sc
}

// endScope ends the scope of t's own Context, if there is one. t is cancelled, or has ended.
func (t *task) endScope(from *worker) {
	if sc := t.cx.sc.Load(); sc != nil {
		status, cause := t.why()
		sc.end(status, cause, from)
	}
}
