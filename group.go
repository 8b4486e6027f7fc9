package async

import (
	"context"
	"errors"
)

// A Group is a Spawner whose tasks belong together, and none of which outlives
// the function that the group was made for. Groups are made by WithGroup: the zero Group
// panics. Its methods may be called from any goroutine, and tasks may be spawned from anywhere.
//
// Its tasks are of all kinds: Go(g, ...), Spawn(g, ...), SpawnFuture(g, ...) and
// SpawnBlocking(g, ...) start them, and g.Named(...) and g.Under(...) are
// Spawners of the same group.
//
// The first task that fails fails the group: the Contexts of the others, and that of the
// function, are cancelled, with its error as their Cause, and WithGroup returns that error.
// Panics are failures, with a *PanicError. A task that was cancelled and says so has not
// failed. Failures after the first one are treated like those of other tasks: the failure
// of a task that no caller joins goes to Config.Unhandled.
//
// A group that is cancelled, or has ended, starts no more tasks: the handle of a task that
// is spawned then has context.Canceled at once.
type Group struct {
	rt    *Runtime
	cx    *Context // of the function; the tasks are under it
	stop  context.CancelCauseFunc
	tasks cancelGroup
	made  attributesCache
	idle  wakerSlot // the callers that wait until no task lives

	// Guarded by the cancel group's lock.
	limit     int // negative: none
	keepGoing bool
	cancelled bool  // by Cancel or CancelCause, before anything else
	failed    bool  // and the others have been cancelled for it, or are about to be
	closed    bool  // the function and all tasks have ended
	first     error // of a task or of the function
	quit      error // the first error of a task that gave in to a cancellation other than by Cancel or its handle
}

// WithGroup calls fn with a new group, and returns when fn has returned and all tasks of
// the group have ended: also if cx is cancelled, and if fn panics or calls runtime.Goexit,
// in which cases it first cancels them. Only the last stage of Shutdown, which unwinds the
// code that waits, does not wait for them.
//
// The cx of fn is a Context of the same task. It ends when the group is cancelled: when the
// cx of WithGroup ends, when a task of the group fails or fn returns an error, or by
// Group.Cancel. The tasks are cancelled with it.
//
// WithGroup returns the first error, of a task that failed or of fn. If there is none but
// some task gave in to the cancellation of cx, or to Shutdown, it returns that task's
// error.
//
// To end with the group, code in fn need do nothing but use its cx. A plain
// future cannot wait, and so has no groups: WithGroup panics.
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

// end waits for the tasks, whatever happens to cx, and returns the result of the
// group. err is that of the function.
func (g *Group) end(cx *Context, err error) error {
	if err != nil {
		g.fail(err)
	}
	if !g.close() {
		if _, err := Await(cx.WithoutCancel(), &groupEnd{g: g, close: true}); err != nil {
			return errors.Join(g.err(), ErrShutdown) // the tasks have been left to it
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

// close ends the group, if no task lives.
func (g *Group) close() bool {
	var chosen chosenTasks
	g.tasks.admission.mu.Lock()
	empty := len(g.tasks.members) == 0
	if empty {
		g.closed, g.limit = true, -1
		g.tasks.admission.admit(g.hasRoom, &chosen) // to see that they are late
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

// len returns how many tasks of the group live.
func (g *Group) len() int {
	g.tasks.admission.mu.Lock()
	defer g.tasks.admission.mu.Unlock()
	return len(g.tasks.members)
}

// Wait waits until no task of the group lives, and returns the error of the first task that
// failed, or nil. If no task has failed, the group can be used further. If cx ends before,
// Wait returns at once: the error of the task that failed, or cx.Err() if none has. The cx
// of the group's function ends when a task fails; to wait until cancelled tasks have ended
// is left to WithGroup.
//
// A task of the group cannot wait for itself: Wait panics in one.
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

// SetLimit bounds how many tasks of the group live at once; a negative n is no
// limit, as in the beginning. It may be changed at any time.
//
// At the limit, a caller that spawns with the group waits for room, first come, first
// served, if it is straight-line code on a worker, or the function of WithGroup. For any
// other caller, and with Try, the handle has ErrBusy at once. Cancelling the caller, or the
// group, or the context that the Spawner is Under, ends the wait, and the handle has that
// error; the task has not begun then. A task of the group that waits for room keeps its own
// place: if all tasks wait for room, none ever gets on.
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

// KeepGoing makes the group only a bound for the lifetime of its tasks: a task that fails
// leaves the others alone, and WithGroup returns no error but that of its function. If no
// caller joins the task, the error goes to Config.Unhandled. It is for a server's
// connections, and for results that are taken one by one; see JoinSet.
func (g *Group) KeepGoing() {
	g.mustBeMade()
	g.tasks.admission.mu.Lock()
	defer g.tasks.admission.mu.Unlock()
	g.keepGoing = true
}

// Cancel cancels the tasks of the group and the cx of its function. It returns
// at once. Tasks that only give in to it do not fail the group.
func (g *Group) Cancel() { g.CancelCause(nil) }

// CancelCause is Cancel with a reason; see Context.Cause. WithGroup does not
// return it.
func (g *Group) CancelCause(cause error) {
	g.mustBeMade()
	if g.cx.Err() == nil { // else another cancellation was first
		g.tasks.admission.mu.Lock()
		g.cancelled = true
		g.tasks.admission.mu.Unlock()
	}
	g.stop(cause)
}

// Via returns a Spawner whose tasks are tasks of the group, and are started as s starts them:
// with g.Via(Local(cx)) they stay on the worker of cx, with g.Via(rt.Workers()[0]) on the
// first worker. What s is under counts, too. It panics if s belongs to a group.
func (g *Group) Via(s Spawner) Spawner {
	g.mustBeMade()
	return &spawnOptions{base: s, group: s.cancelGroup().within(&g.tasks)}
}

// Try returns a Spawner of the group with which spawning never waits: the handle
// has ErrBusy at once if there is no room.
func (g *Group) Try() Spawner { return &spawnOptions{base: g, neverWaits: true} }

// Named implements Spawner.
func (g *Group) Named(name string) Spawner { return &spawnOptions{base: g, name: name} }

// Under implements Spawner: the group's end is still the tasks' end, too.
func (g *Group) Under(ctx context.Context) Spawner { return withContext(g, ctx) }

// spawner implements Spawner: tasks start where they are spawned.
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

// attributes implements Spawner: tasks inherit from the task that made the group.
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

// hasRoom reports whether there is room for one more task. The cancel group's lock is held.
func (g *Group) hasRoom() bool {
	return g.limit < 0 || len(g.tasks.members)+g.tasks.admission.reserved < g.limit
}

// enter makes t a member, waiting for room if the caller can.
func (g *Group) enter(t *task, s Spawner) error {
	gate := &g.tasks.admission
	gate.mu.Lock()
	late := g.closed
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

// late is for tasks that come after the end of the group.
func (g *Group) late(t *task) error {
	t.state.cancel(taskByContext)
	return context.Canceled
}

// takesFailure decides what the error of a task means for the group; see cancelGroup.takesFailure.
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

// told reports whether t was cancelled by its handle or by the group's Cancel.
// The lock is held.
func (g *Group) told(t *task) bool {
	by := t.state.cancelledBy()
	return t.state.cancelled() && by == 0 || by == taskByContext && g.cancelled
}

// left is called when a member has left; last reports that no member is left.
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

// groupEnd is the future of the moment at which no task of the group lives.
type groupEnd struct {
	g     *Group
	close bool // the group then
	t     *task
}

func (e *groupEnd) Poll(cx *Context) (None, error) {
	for {
		if e.over() {
			return None{}, nil
		}
		e.t = cx.waker(waitsGroup)
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
