package async

// Launch starts a task that runs fn, like [Go], but returns no handle: the task cannot be
// joined, and only Shutdown or the end of a context (see Under in [Spawner]) cancels it. If fn
// returns an error, panics or calls runtime.Goexit, that is reported at once; see Config.Unhandled.
//
// Launch is for short tasks without a result that are started often. A worker reuses the memory
// of launched tasks that have ended, so launching from a task, with its *Context, usually
// allocates nothing. A task that has a name or other attributes, or that is launched with a
// *Runtime, is allocated anew.
//
// The Context of fn must not be used after fn has returned, not even through the methods of
// context.Context: it may belong to another task by then. A Context derived from it stays valid,
// and so does a Context whose Done was called before fn returned. Launch may be called from
// wherever s may be used.
func Launch(s Spawner, fn func(cx *Context) error) {
	rt, w := s.spawner()
	st, _ := takeFreeTask(s, w, kindStraight).(*straight[None])
	if st == nil {
		st = new(straight[None])
		st.kind, st.body, st.cx.t = kindStraight, st, &st.task
		st.state.detach()
	}
	st.do = fn
	startTaskAt(rt, w, s, &st.task)
}

// LaunchFuture is [Launch] for a plain future. The Context of f must not be used after the Poll
// that returned the result. Wakers of the task may outlive it. A wake then causes at most a
// spurious poll of another task, so f should not leave a waker that is woken continuously.
func LaunchFuture(s Spawner, f Future[None]) {
	rt, w := s.spawner()
	p, _ := takeFreeTask(s, w, kindPlain).(*plain[None])
	if p == nil {
		p = new(plain[None])
		p.body, p.cx.t = p, &p.task
		p.state.detach()
	}
	p.f = f
	startTaskAt(rt, w, s, &p.task)
}

// maxFreeTasks is how many ended tasks of each kind a worker keeps for reuse.
const maxFreeTasks = 1024

// taskFreeList is a list, linked by next, of detached tasks that have ended.
type taskFreeList struct {
	first *task
	n     int
}

// takeFreeTask removes a task from the free list of w, resets it and returns its body. It
// returns nil if the list is empty, if w is nil, or if the new task has attributes: such a task is
// not reused. w is the worker that runs the caller, or nil.
func takeFreeTask(s Spawner, w *worker, kind taskKind) taskBody {
	if w == nil || s.attributes() != nil {
		return nil
	}
	h := &w.freeTasks[kind]
	t := h.first
	if t == nil {
		return nil
	}
	h.first, t.next = t.next, nil
	h.n--
	t.waits, t.listedAt, t.w = waitsNothing, 0, nil
	t.g.Store(0)
	t.state.detach()
	if t.cx.sc.Load() != nil { // the old task's Context was used after its end; see Context.scope
		return nil
	}
	return t.body
}

// freeTask keeps t, which has ended, for the next Launch, unless its attributes, its Context or
// a derived Context may still be in use. Wakers of t may remain: for the next task they cause
// spurious wakes.
func (w *worker) freeTask(t *task) {
	h := &w.freeTasks[t.kind]
	if h.n < maxFreeTasks && t.attributes.Load() == nil && t.cx.sc.Load() == nil && !t.state.retained() {
		t.next, h.first = h.first, t
		h.n++
	}
}
