package async

import (
	"context"
	"errors"
	"time"
)

// cancelGroup is tasks that are cancelled together, when ctx ends: the tasks of a Spawner
// that is under ctx, those spawned with a derived Context, or the tasks of a Group. A task
// finds its group in its attributes.
//
// The first member that joins registers an AfterFunc with the context, and the last
// member that leaves removes it. So a Spawner that is under a context which never
// ends leaves nothing behind there.
type cancelGroup struct {
	ctx        context.Context
	endless    bool            // ctx never ends: it only has values
	outer      *cancelGroup    // of the Spawner that was put under ctx
	membership groupMembership // the Group of the tasks, which limits the members and takes their failures; nil without a Group

	admission admission // its lock guards the fields below, and the Group; only a Group limits its members
	members   map[*task]struct{}
	watching  bool        // the AfterFunc is registered with ctx, or is being registered
	unwatch   func() bool // removes the AfterFunc

	children *cancelGroup // of the tasks that members of a Group spawn; see inherited
}

// inherited returns the group of the tasks that a member spawns with its own Context: they are
// under the same contexts, and not tasks of the Group.
func (c *cancelGroup) inherited() *cancelGroup {
	if c == nil {
		return nil
	}
	outer := c.outer.inherited() // not under the lock of c
	if c.membership == nil && outer == c.outer {
		return c
	}
	c.admission.mu.Lock()
	defer c.admission.mu.Unlock()
	if c.children == nil {
		c.children = &cancelGroup{ctx: c.ctx, endless: c.endless, outer: outer}
	}
	return c.children
}

// groupMembership is implemented by Group.
type groupMembership interface {
	caller() *Context
	enter(t *task, s Spawner) error
	hasRoom() bool
	takesFailure(t *task, err error, gaveIn bool) bool
	left(last bool)
}

// withContext makes the Spawner that Under returns.
func withContext(s Spawner, ctx context.Context) Spawner {
	if ctx == nil {
		panic("async: Under needs a context; got nil")
	}
	c := &cancelGroup{outer: s.cancelGroup()}
	c.ctx, _ = contextOutsideBubble(ctx) // it ends with ctx, if ever, and is not released
	if cx, ours := ctx.(*Context); ours {
		cx.t.state.retain()
	} else {
		c.endless = ctx.Done() == nil
	}
	return &spawnOptions{base: s, group: c}
}

// cancelGroup returns the group of the tasks with which t is cancelled, or nil.
func (t *task) cancelGroup() *cancelGroup {
	if d := t.attributes.Load(); d != nil {
		return d.group
	}
	return nil
}

// within returns a group like c whose outermost context is within outer, a Group.
func (c *cancelGroup) within(outer *cancelGroup) *cancelGroup {
	switch {
	case c == nil:
		return outer
	case c.membership != nil:
		panic("async: Group.Via needs a Spawner that does not belong to a group")
	}
	return &cancelGroup{ctx: c.ctx, endless: c.endless, outer: c.outer.within(outer)}
}

// caller returns the Context with which the calling code can wait for room in the Group; nil
// if there is no Group, or the code cannot wait.
func (c *cancelGroup) caller() *Context {
	for ; c != nil; c = c.outer {
		if c.membership != nil {
			return c.membership.caller()
		}
	}
	return nil
}

// applyOptions gives t, which is new, the attributes of the tasks of s, and makes it a
// member of its cancel groups. If it returns an error t must not begin.
func (t *task) applyOptions(s Spawner) error {
	d := s.attributes()
	if d == nil {
		return nil
	}
	t.attributes.Store(d)
	for c := d.group; c != nil; c = c.outer {
		if c.ctx.Err() != nil {
			t.state.cancel(taskByContext)
			return t.cx.Err()
		}
		if err := c.join(t, s); err != nil {
			return err
		}
	}
	if t.state.cancelled() { // a context has ended while t joined
		return t.cx.Err()
	}
	return nil
}

// awaitAdmission waits with the caller's cx for the place of t, which is new. The end of a
// context that t is under ends the wait, too. If it returns an error t must not begin.
func (t *task) awaitAdmission(cx *Context, place *admissionFuture) error {
	inner, cancel := cx.WithCancel()
	defer cancel()
	for c := t.cancelGroup(); c != nil; c = c.outer {
		defer c.afterContext(cancel)()
	}
	_, err := Await(inner, place)
	switch {
	case err == nil:
		return nil
	case cx.Err() == nil:
		t.state.cancel(taskByContext)
		return t.cx.Err()
	}
	t.cancelCause(err) // with the caller
	return err
}

// join makes t a member, once there is room.
func (c *cancelGroup) join(t *task, s Spawner) error {
	if c.endless {
		return nil
	}
	if c.membership != nil {
		if err := c.membership.enter(t, s); err != nil {
			return err
		}
	} else {
		c.admission.mu.Lock()
		c.add(t)
		c.admission.mu.Unlock()
	}
	c.watchContext()
	if c.ctx.Err() != nil {
		t.cancel(taskByContext) // t may have joined too late for the AfterFunc to find it
	}
	return nil
}

// add makes t a member. The lock is held.
func (c *cancelGroup) add(t *task) {
	if c.members == nil {
		c.members = map[*task]struct{}{}
	}
	c.members[t] = struct{}{}
}

// watchContext has the members cancelled when ctx ends.
func (c *cancelGroup) watchContext() {
	c.admission.mu.Lock()
	watched := c.watching
	c.watching = true
	c.admission.mu.Unlock()
	if watched {
		return
	}
	unwatch := c.afterContext(c.cancel)
	c.admission.mu.Lock()
	if len(c.members) > 0 {
		c.unwatch, unwatch = unwatch, nil
	} else {
		c.watching = false // the members have left meanwhile
	}
	c.admission.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
}

// afterContext has f called once ctx has ended.
func (c *cancelGroup) afterContext(f func()) (stop func() bool) {
	if cx, ours := c.ctx.(*Context); ours {
		return cx.endScope().callAfter(f, true)
	}
	return context.AfterFunc(c.ctx, f)
}

// cancel cancels the members.
func (c *cancelGroup) cancel() {
	c.admission.mu.Lock()
	all := make([]*task, 0, len(c.members))
	for t := range c.members {
		all = append(all, t)
	}
	c.admission.mu.Unlock()
	for _, t := range all {
		t.cancel(taskByContext)
	}
}

// takesFailure is called with the error of a task before the error is published. It
// reports whether a Group will return the error, too, and not only the task's handle.
func (c *cancelGroup) takesFailure(t *task, err error, gaveIn bool) (taken bool) {
	for ; c != nil; c = c.outer {
		if c.membership != nil && c.membership.takesFailure(t, err, gaveIn) {
			taken = true
		}
	}
	return taken
}

// leaveAll is called when t has ended, whether or not it was a member.
func (c *cancelGroup) leaveAll(t *task) {
	for ; c != nil; c = c.outer {
		if !c.endless {
			c.leave(t)
		}
	}
}

func (c *cancelGroup) leave(t *task) {
	var chosen chosenTasks
	var unwatch func() bool
	c.admission.mu.Lock()
	_, member := c.members[t]
	delete(c.members, t)
	last := member && len(c.members) == 0
	if last {
		c.members = nil // a map keeps the size that it once had
		if unwatch = c.unwatch; unwatch != nil {
			c.unwatch, c.watching = nil, false
		}
	}
	if c.membership != nil {
		c.admission.admit(c.membership.hasRoom, &chosen)
	}
	c.admission.mu.Unlock()
	chosen.wake()
	if unwatch != nil {
		unwatch()
	}
	if c.membership != nil && member {
		c.membership.left(last)
	}
}

// cause returns how the innermost context that is over has ended, and why.
func (c *cancelGroup) cause() (status uint32, cause error) {
	for ; c != nil; c = c.outer {
		if err := c.ctx.Err(); err != nil {
			status = scopeCancelled
			if errors.Is(err, context.DeadlineExceeded) {
				status = scopeExpired
			}
			return status, context.Cause(c.ctx)
		}
	}
	return scopeCancelled, nil
}

// deadline returns the earliest deadline of the contexts.
func (c *cancelGroup) deadline() (deadline time.Time, ok bool) {
	for ; c != nil; c = c.outer {
		if d, has := c.ctx.Deadline(); has && (!ok || timeEarlier(d, deadline)) {
			deadline, ok = d, true
		}
	}
	return deadline, ok
}

// value returns the value of the first context that has a value for key.
func (c *cancelGroup) value(key any) any {
	for ; c != nil; c = c.outer {
		if v := c.ctx.Value(key); v != nil {
			return v
		}
	}
	return nil
}

// values returns a context that has the values of cx and never ends. Unlike cx, it
// may be used on any goroutine and after the task has ended.
func (cx *Context) values() context.Context {
	for sc := cx.sc.Load(); sc != nil && sc.parent != nil; sc = sc.parent.sc.Load() {
		if sc.value != nil {
			return context.WithValue(sc.parent.values(), sc.value.key, sc.value.val)
		}
	}
	c := cx.t.cancelGroup()
	switch {
	case c == nil:
		return context.Background()
	case c.endless && c.outer == nil:
		return c.ctx // so that a task that spawns itself anew makes no chain
	}
	return cancelGroupValues{context.Background(), c}
}

// cancelGroupValues is the values of the contexts of a task's cancel group.
type cancelGroupValues struct {
	context.Context
	group *cancelGroup
}

func (v cancelGroupValues) Value(key any) any { return v.group.value(key) }
