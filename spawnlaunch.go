package async

// Launch is [Go] without a handle: the task cannot be joined. It is cancelled only by
// [Runtime.Shutdown], and by the end of a context or a [Group] that it is under; see [Spawner]. If
// fn returns an error, panics or calls [runtime.Goexit], the error goes to [Config.Unhandled] at
// once. If it is the first failure of a Group, [WithGroup] returns it instead.
//
// Launch is for short tasks without a result that are started often. A worker reuses the memory of
// launched tasks that have ended. So a launch with the [Context] of a task usually allocates
// nothing. A task that has a name or other attributes, or that is launched with a [Runtime], is
// allocated anew. Launch may be called wherever s may be used.
//
// Do not use the Context of fn after fn has returned, not even by the methods of [context.Context]:
// it may belong to another task by then. There are two exceptions: a Context that is derived from
// it stays valid, and so does a Context whose Done was called before fn returned.
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

// LaunchFuture is [Launch] for a plain future; see [SpawnFuture]. Do not use the Context of f after
// the Poll that has returned the result. A waker of the task may be woken after the end of the
// task: then another task may be polled once more than needed. So f should not leave a waker behind
// that is woken all the time.
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

// maxFreeTasks is how many ended tasks of each kind a worker keeps for reuse. With a larger list
// the memory has left the cache before it is reused, which costs more than new memory: see
// docs/design.md, "Tasks".
const maxFreeTasks = 1024

// taskFreeList is a list of detached tasks that have ended, linked by next.
type taskFreeList struct {
	first *task
	n     int
}

// takeFreeTask takes a task from the free list of w, gives it the state of a new task, and returns
// its body. It returns nil if the list is empty, if w is nil, or if the new task has attributes,
// since such tasks are not reused. It also returns nil, and drops the task that it has taken, if
// the Context of this task was used after its end. w is the worker that runs the caller, or nil.
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
	if t.cx.sc.Load() != nil { // used after the end of the old task; see Context.scope
		return nil
	}
	return t.body
}

// freeTask puts t, which has ended, on the free list for the next Launch. It leaves t to the
// garbage collector if the list is full, or if the attributes, the Context or derived Contexts of t
// may still be in use. Wakers of t may be left: they cause spurious wakes of the next task.
func (w *worker) freeTask(t *task) {
	h := &w.freeTasks[t.kind]
	if h.n < maxFreeTasks && t.attributes.Load() == nil && t.cx.sc.Load() == nil && !t.state.retained() {
		t.next, h.first = h.first, t
		h.n++
	}
}
