package async

import (
	"context"
	"errors"
)

// A Group is a [Spawner] whose tasks belong together: none of them outlives the call of [WithGroup]
// that has made the Group. Use a Group only as WithGroup passes it; the zero Group panics. Its
// methods may be called concurrently from any goroutine, and tasks may be spawned with it from
// anywhere.
//
// [Go](g, ...), [Spawn], [SpawnFuture], [SpawnBlocking] and [Launch] start tasks of the group g.
// [Group.Named], [Group.Under], [Group.Via] and [Group.Try] return Spawners of the same group.
//
// The first task that fails cancels the other tasks and the Context of the group's function. Its
// error is their [Context.Cause], and WithGroup returns it. A panic is a failure, with a
// [*PanicError]. A task that was cancelled, and returns the error of its Context, has not failed.
// The failures after the first are treated as failures of other tasks are: if no caller joins the
// task, the error goes to [Config.Unhandled].
//
// A group that is cancelled or has ended starts no more tasks: the error of the handle is then
// [context.Canceled].
type Group struct {
	rt    *Runtime
	cx    *Context                // the Context of the function; the tasks are under it
	stop  context.CancelCauseFunc // cancels cx
	tasks cancelGroup
	made  attributesCache
	idle  wakerSlot // the callers that wait until the group has no member

	// Guarded by the cancel group's lock.
	limit     int // see SetLimit; negative: none
	keepGoing bool
	cancelled bool  // Cancel or CancelCause was called before cx had ended
	failed    bool  // first is set, and the members have been cancelled for it, or are about to be
	closed    bool  // the function and all tasks have ended: no task begins from then on
	first     error // the first failure of a task or of the function
	quit      error // the first error of a task that was cancelled, but not by Cancel or its handle
}

// WithGroup calls fn with a new [Group]. It returns when fn has returned and all tasks of the group
// have ended.
//
// The cx of fn is a [Context] of the same task. fn must use this cx, so that fn also ends when the
// group is cancelled: when the cx of WithGroup is cancelled, when a task of the group fails or fn
// returns an error, or by [Group.Cancel]. The tasks of the group are cancelled at the same time.
// WithGroup still waits for them. If fn panics or calls [runtime.Goexit], WithGroup cancels the
// group, waits, and then passes that on.
//
// WithGroup returns the error of the first task that has failed, or of fn if that was first. If
// there was no failure, but cx was cancelled and a task has returned because of that, WithGroup
// returns the error of this task: [context.Canceled], [context.DeadlineExceeded] or [ErrShutdown].
// Otherwise it returns nil.
//
// The last stage of [Runtime.Shutdown] unwinds code that waits: only then does WithGroup not wait
// for its tasks. WithGroup panics in a plain future, which cannot wait.
func WithGroup(cx *Context, fn func(cx *Context, g *Group) error) (err error) {
	cx.beginAwait()
	cx.spendOrYield() // also where the group stays empty and nothing is waited for
	inner, stop := cx.WithCancelCause()
	g := &Group{rt: cx.t.w.rt, cx: inner, stop: stop, limit: -1}
	g.tasks.ctx, g.tasks.membership = inner, g
	defer stop(nil)
	returned := false
	defer func() {
		if !returned {
			g.Cancel()
		}
		err = g.end(cx, err)
	}()
	err = fn(inner, g)
	returned = true
	return err
}

// end waits for the tasks, even if cx is cancelled, and returns the result of the group. err is the
// error of the function.
func (g *Group) end(cx *Context, err error) error {
	if err != nil {
		g.fail(err)
	}
	if !g.close() {
		if _, err := Await(cx.WithoutCancel(), &groupEnd{g: g, close: true}); err != nil {
			return errors.Join(g.err(), ErrShutdown) // the last stage of Shutdown ends the tasks
		}
	}
	g.tasks.admission.mu.Lock()
	defer g.tasks.admission.mu.Unlock()
	if g.first != nil {
		return g.first
	}
	return g.quit
}

// fail cancels the group because of the function's error.
func (g *Group) fail(err error) {
	g.tasks.admission.mu.Lock()
	if g.first == nil {
		g.first = err
	}
	g.failed, err = true, g.first
	g.tasks.admission.mu.Unlock()
	g.stop(err)
}

// close closes the group if it has no member. It reports whether it has.
func (g *Group) close() bool {
	var chosen chosenTasks
	g.tasks.admission.mu.Lock()
	empty := len(g.tasks.members) == 0
	if empty {
		g.closed, g.limit = true, -1
		g.tasks.admission.admit(g.hasRoom, &chosen) // the callers that wait for room are late: they see closed
	}
	g.tasks.admission.mu.Unlock()
	chosen.wake()
	return empty
}

func (g *Group) err() error {
	g.tasks.admission.mu.Lock()
	defer g.tasks.admission.mu.Unlock()
	return g.first
}

// len returns how many members the group has.
func (g *Group) len() int {
	g.tasks.admission.mu.Lock()
	defer g.tasks.admission.mu.Unlock()
	return len(g.tasks.members)
}

// Wait waits until no task of the group lives. It returns the error of the first task that has
// failed, or nil. If none has failed, more tasks may be spawned. If cx is cancelled before, Wait
// returns at once, with the error of the first task that has failed, or with cx.Err() if there is
// none. Nothing is lost then.
//
// The cx of the group's function is cancelled when a task fails. So, with this cx, Wait does not
// wait until the other tasks have ended: [WithGroup] does. Wait panics in a task of the group,
// which would wait for itself.
func (g *Group) Wait(cx *Context) error {
	g.mustBeMade()
	for c := cx.t.cancelGroup(); c != nil; c = c.outer {
		if c == &g.tasks {
			panic("async: Group.Wait was called in a task of the group, and would wait for itself; await the handles of the others")
		}
	}
	_, err := Await(cx, &groupEnd{g: g})
	if first := g.err(); first != nil {
		return first
	}
	return err
}

// SetLimit bounds how many tasks of the group live at the same time. A negative n means no limit,
// as at the beginning. The limit may be changed at any time.
//
// At the limit, code that spawns with the group waits for room if it can: straight-line code of a
// task, and the function of [WithGroup]. These callers get room in the order in which they arrived.
// Any other code, and code that uses [Group.Try], gets a handle whose error is [ErrBusy] at once.
//
// The wait ends if the Context of the caller, the group, or a context that the [Spawner] is under
// is cancelled. The task never begins then, and its handle has the error of the cancellation. A
// task of the group that waits for room keeps its own place: if all tasks of the group wait for
// room, none of them gets any.
func (g *Group) SetLimit(n int) {
	g.mustBeMade()
	var chosen chosenTasks
	g.tasks.admission.mu.Lock()
	if !g.closed {
		g.limit = n
		g.tasks.admission.admit(g.hasRoom, &chosen)
	}
	g.tasks.admission.mu.Unlock()
	chosen.wake()
}

// KeepGoing makes the group only a bound for the lifetime of its tasks: a task that fails does not
// cancel the others, and [WithGroup] returns no error but the error of its function. If no caller
// joins the task, its error goes to [Config.Unhandled]. It is for the connections of a server, and
// for results that are taken one by one, with a [JoinSet].
func (g *Group) KeepGoing() {
	g.mustBeMade()
	g.tasks.admission.mu.Lock()
	defer g.tasks.admission.mu.Unlock()
	g.keepGoing = true
}

// Cancel cancels the tasks of the group and the cx of its function. It returns at once. A task that
// returns because of it does not fail the group.
func (g *Group) Cancel() { g.CancelCause(nil) }

// CancelCause is [Group.Cancel] with a cause, which [Context.Cause] then returns in the tasks.
// [WithGroup] does not return it.
func (g *Group) CancelCause(cause error) {
	g.mustBeMade()
	if g.cx.Err() == nil { // otherwise another cancellation was first
		g.tasks.admission.mu.Lock()
		g.cancelled = true
		g.tasks.admission.mu.Unlock()
	}
	g.stop(cause)
}

// Via returns a [Spawner] whose tasks are tasks of the group, and start as the tasks of s do. For
// example, tasks of g.Via(Local(cx)) stay on the worker of cx (see [Local]), and tasks of
// g.Via(rt.Workers()[0]) run on the first worker. The tasks are also under the contexts that s is
// under. Via panics if s belongs to a group.
func (g *Group) Via(s Spawner) Spawner {
	g.mustBeMade()
	return &spawnOptions{base: s, group: s.cancelGroup().within(&g.tasks)}
}

// Try returns a [Spawner] of the group with which spawning never waits. If there is no room, the
// error of the handle is [ErrBusy] at once; see [Group.SetLimit].
func (g *Group) Try() Spawner { return &spawnOptions{base: g, neverWaits: true} }

// Named returns a [Spawner] of the group whose tasks have a name.
func (g *Group) Named(name string) Spawner { return &spawnOptions{base: g, name: name} }

// Under returns a [Spawner] of the group whose tasks are also under ctx: they are cancelled when
// ctx ends, and when the group is cancelled.
func (g *Group) Under(ctx context.Context) Spawner { return withContext(g, ctx) }

// spawner implements Spawner: a task starts on the worker that runs the caller.
func (g *Group) spawner() (*Runtime, *worker) {
	g.mustBeMade()
	if w := callersWorker(); w != nil && w.rt == g.rt {
		return g.rt, w
	}
	return g.rt, nil
}

func (g *Group) mustBeMade() {
	if g.rt == nil {
		panic("async: a Group that was not made by WithGroup was used")
	}
}

// attributes implements Spawner: tasks inherit from the task that has made the group.
func (g *Group) attributes() *taskAttributes {
	return g.made.of(g.cx.t.cx.attributes(), func(d *taskAttributes) { d.group = &g.tasks })
}

func (g *Group) cancelGroup() *cancelGroup { return &g.tasks }

// caller returns the Context with which the calling code can wait, or nil.
func (g *Group) caller() *Context {
	if t := g.cx.t; t.g.Load() == getg() && !t.state.done() {
		return g.cx
	}
	if _, w := g.spawner(); w != nil {
		if t := w.current; t != nil && t.kind == kindStraight && t.g.Load() == getg() {
			return &t.cx
		}
	}
	return nil
}

// hasRoom reports whether there is room for one more task, besides the reserved room. The cancel
// group's lock is held.
func (g *Group) hasRoom() bool {
	return g.limit < 0 || len(g.tasks.members)+g.tasks.admission.reserved < g.limit
}

// enter makes t a member. If there is no room, it waits if the caller can, and otherwise returns
// ErrBusy.
func (g *Group) enter(t *task, s Spawner) error {
	gate := &g.tasks.admission
	gate.mu.Lock()
	late := g.closed
	// A caller that arrives while others wait for room waits behind them, even if there is room.
	room := g.hasRoom() && gate.first == nil
	if room && !late {
		g.tasks.add(t)
	}
	gate.mu.Unlock()
	switch {
	case late:
		return g.late(t)
	case !room:
		return g.enterLater(t, s)
	}
	return nil
}

func (g *Group) enterLater(t *task, s Spawner) error {
	cx := waitingContext(s)
	if cx == nil {
		return ErrBusy
	}
	late := false
	place := &admissionFuture{admission: &g.tasks.admission, reason: waitsGroup, hasRoom: g.hasRoom, admit: func() {
		if late = g.closed; !late {
			g.tasks.add(t)
		}
	}}
	if err := t.awaitAdmission(cx, place); err != nil {
		return err
	}
	if late {
		return g.late(t)
	}
	return nil
}

// late refuses a task that was spawned after the end of the group.
func (g *Group) late(t *task) error {
	t.state.cancel(taskByContext)
	return context.Canceled
}

// takesFailure decides what the error of a task means for the group; see cancelGroup.takesFailure.
//
// It runs in step 1 of the end of a task, before the task leaves the group. So WithGroup, which
// waits for all members, sees first and quit.
func (g *Group) takesFailure(t *task, err error, gaveIn bool) bool {
	g.tasks.admission.mu.Lock()
	defer g.tasks.admission.mu.Unlock()
	if _, member := g.tasks.members[t]; !member {
		return false
	}
	if gaveIn {
		if g.quit == nil && !g.keepGoing && !g.told(t) {
			g.quit = err
		}
		return false
	}
	if g.first != nil || g.keepGoing {
		return false
	}
	g.first = err
	return true
}

// told reports whether t was cancelled by its handle or by the group's Cancel. The lock is held.
func (g *Group) told(t *task) bool {
	by := t.state.cancelledBy()
	return t.state.cancelled() && by == 0 || by == taskByContext && g.cancelled
}

// left is called when a member has left the group. last reports that no member is left. A member
// that has failed cancels the group here: after its handle has its result.
func (g *Group) left(last bool) {
	g.tasks.admission.mu.Lock()
	fails := g.first != nil && !g.failed
	g.failed = g.failed || fails
	err := g.first
	g.tasks.admission.mu.Unlock()
	if fails {
		g.stop(err)
	}
	if last {
		g.idle.fire(nil)
	}
}

// groupEnd is a future that is ready when the group has no member.
type groupEnd struct {
	g     *Group
	close bool  // closes the group then
	t     *task // the task that has polled it, or nil
}

func (e *groupEnd) Poll(cx *Context) (None, error) {
	for {
		if e.over() {
			return None{}, nil
		}
		e.t = cx.waker(waitsGroup)
		// The last member may have left before the join. So look again.
		if e.g.idle.join(e.t) && !e.over() {
			return None{}, ErrPending
		}
	}
}

func (e *groupEnd) over() bool {
	if e.close {
		return e.g.close()
	}
	return e.g.len() == 0
}

// Cancel implements canceler.
func (e *groupEnd) Cancel() {
	if e.t != nil {
		e.g.idle.leave(e.t, nil)
	}
}
