package async

import (
	"context"
	"errors"
	"time"
)

// A task that is under a context is a member of a cancelGroup. If the task is under several
// contexts, it is a member of several groups: they form a chain through outer, from the innermost
// context to the outermost. Members are registered with their group, and the group with its
// context.
//
// Joining (applyOptions), before the task is queued, for each group of the chain:
//
//  1. If ctx has ended, cancel the task. It never begins.
//  2. Add the task to members, under the lock. In a Group this may first wait for room
//     (Group.enter).
//  3. Set watching, under the lock. The member that has changed it registers an AfterFunc with ctx,
//     without the lock. If the group has members then, it stores the function that removes the
//     AfterFunc in unwatch. If not, it clears watching and removes the AfterFunc itself.
//  4. Read ctx.Err again. If ctx has ended, cancel the task.
//
// Leaving (leaveAll), at the end of a task, for each group of the chain:
//
//  1. Remove the task from members, under the lock.
//  2. The last member takes unwatch and clears watching, under the same lock, and calls unwatch
//     after it. So a group whose context never ends leaves nothing behind there.
//  3. A Group chooses callers that wait for room, under the same lock. It wakes them after it, and
//     WithGroup if there is no member left (Group.left).
//
// When ctx ends, the AfterFunc cancels all members (cancel).
//
// The races that this closes:
//
//  1. ctx ends before the AfterFunc is registered. Then the AfterFunc is called at once, and finds
//     the members that have been added.
//  2. ctx ends, and the AfterFunc has read members before the task was added. ctx.Err is set before
//     the AfterFunc is called, so step 4 of joining sees it.
//  3. The last member leaves while the AfterFunc is being registered, so unwatch is still nil. The
//     member that registers finds no members, and removes the AfterFunc.
//  4. A task joins while another member registers the AfterFunc. It sees watching set, and the
//     member that registers finds it among the members. A task that joins after watching was
//     cleared registers anew.
//  5. A task cannot join the second group of its chain. The task ends without having begun, and
//     leaves all groups of the chain; to leave a group without being a member takes no member out.
//
// A group whose ctx never ends and only has values (endless) has no members.

// A cancelGroup is the tasks that are cancelled together, when ctx ends: the tasks of a Spawner
// that is under ctx, the tasks that were spawned with a derived Context, or the tasks of a Group. A
// task finds its group in its attributes.
type cancelGroup struct {
	ctx        context.Context
	endless    bool            // ctx never ends: it only has values
	outer      *cancelGroup    // the group of the Spawner that was put under ctx, or nil
	membership groupMembership // the Group of the tasks, which limits the members and takes their failures; nil without a Group

	admission admission // its lock also guards the fields below, and the fields of the Group
	members   map[*task]struct{}
	watching  bool        // the AfterFunc is registered with ctx, or is being registered
	unwatch   func() bool // removes the AfterFunc

	children *cancelGroup // of the tasks that members of a Group spawn; see inherited
}

// inherited returns the group of the tasks that a member spawns with its own Context. These tasks
// are under the same contexts. They are not tasks of the Group to which the member belongs, so they
// get a group without it.
func (c *cancelGroup) inherited() *cancelGroup {
	if c == nil {
		return nil
	}
	outer := c.outer.inherited() // before c is locked: it locks another group
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
	caller() *Context                                  // see cancelGroup.caller
	enter(t *task, s Spawner) error                    // makes t a member, perhaps after waiting for room
	hasRoom() bool                                     // for one more member; the lock is held
	takesFailure(t *task, err error, gaveIn bool) bool // see cancelGroup.takesFailure
	left(last bool)                                    // a member has left; the lock is not held
}

// withContext makes the Spawner that Under returns. It registers nothing: the first task does.
func withContext(s Spawner, ctx context.Context) Spawner {
	if ctx == nil {
		panic("async: Under needs a context; got nil")
	}
	c := &cancelGroup{outer: s.cancelGroup()}
	c.ctx, _ = contextOutsideBubble(ctx) // not released: it ends when ctx ends
	if cx, ours := ctx.(*Context); ours {
		cx.t.state.retain()
	} else {
		c.endless = ctx.Done() == nil
	}
	return &spawnOptions{base: s, group: c}
}

// cancelGroup returns the innermost group of t, or nil.
func (t *task) cancelGroup() *cancelGroup {
	if d := t.attributes.Load(); d != nil {
		return d.group
	}
	return nil
}

// within returns a chain like c that goes on with outer, the group of a Group.
func (c *cancelGroup) within(outer *cancelGroup) *cancelGroup {
	switch {
	case c == nil:
		return outer
	case c.membership != nil:
		panic("async: Group.Via needs a Spawner that does not belong to a group")
	}
	return &cancelGroup{ctx: c.ctx, endless: c.endless, outer: c.outer.within(outer)}
}

// caller returns the Context with which the calling code can wait for room in the Group. It returns
// nil if there is no Group in the chain, or if the calling code cannot wait.
func (c *cancelGroup) caller() *Context {
	for ; c != nil; c = c.outer {
		if c.membership != nil {
			return c.membership.caller()
		}
	}
	return nil
}

// applyOptions gives a new task the attributes of the tasks of s, and makes it a member of its
// cancel groups. If it returns an error, the task must not begin.
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

// awaitAdmission waits with the caller's cx for the place of a new task. The wait also ends when a
// context ends that the task is under. If awaitAdmission returns an error, the task must not begin.
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
	t.cancelCause(err) // the caller was cancelled, and the new task with it
	return err
}

// join makes t a member, once there is room: steps 2 to 4 of joining.
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
		t.cancel(taskByContext) // see race 2
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

// watchContext is step 3 of joining.
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
		c.watching = false // the members have left meanwhile; see race 3
	}
	c.admission.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
}

// afterContext arranges for f to be called once ctx has ended.
func (c *cancelGroup) afterContext(f func()) (stop func() bool) {
	if cx, ours := c.ctx.(*Context); ours {
		return cx.endScope().callAfter(f, true)
	}
	return context.AfterFunc(c.ctx, f)
}

// cancel cancels the members. It collects them under the lock and cancels them after it, since a
// cancelled task may leave the group at once.
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

// takesFailure is called with the error of a task before the error is published. gaveIn says that
// the error only means that the task was cancelled. takesFailure reports whether WithGroup will
// return the error, so that the error is not lost if no caller joins the task.
func (c *cancelGroup) takesFailure(t *task, err error, gaveIn bool) (taken bool) {
	for ; c != nil; c = c.outer {
		if c.membership != nil && c.membership.takesFailure(t, err, gaveIn) {
			taken = true
		}
	}
	return taken
}

// leaveAll removes t, which has ended, from all groups of the chain. t may be a member of none.
func (c *cancelGroup) leaveAll(t *task) {
	for ; c != nil; c = c.outer {
		if !c.endless {
			c.leave(t)
		}
	}
}

// leave removes t from c: steps 1 to 3 of leaving.
func (c *cancelGroup) leave(t *task) {
	var chosen chosenTasks
	var unwatch func() bool
	c.admission.mu.Lock()
	_, member := c.members[t]
	delete(c.members, t)
	last := member && len(c.members) == 0
	if last {
		c.members = nil // a map never becomes smaller
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

// cause returns how the innermost context that has ended has ended, and why.
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

// deadline returns the earliest deadline of the contexts of the chain.
func (c *cancelGroup) deadline() (deadline time.Time, ok bool) {
	for ; c != nil; c = c.outer {
		if d, has := c.ctx.Deadline(); has && (!ok || timeEarlier(d, deadline)) {
			deadline, ok = d, true
		}
	}
	return deadline, ok
}

// value returns the value for key of the innermost context that has one.
func (c *cancelGroup) value(key any) any {
	for ; c != nil; c = c.outer {
		if v := c.ctx.Value(key); v != nil {
			return v
		}
	}
	return nil
}

// values returns a context that has the values of cx and never ends. Unlike cx, it may be used on
// any goroutine, and after the task has ended.
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
		return c.ctx // not wrapped: otherwise a task that spawns its successor with it would make an endless chain
	}
	return cancelGroupValues{context.Background(), c}
}

// cancelGroupValues is a context with the values of a chain of cancel groups.
type cancelGroupValues struct {
	context.Context
	group *cancelGroup
}

func (v cancelGroupValues) Value(key any) any { return v.group.value(key) }
