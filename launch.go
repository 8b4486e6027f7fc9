package async

// Launch starts a task that runs fn, like Go, but for which there is no handle: nobody can
// join or cancel it. If it fails, that is reported at once; see Config.Unhandled. It is for
// what is started often and only does something: what a worker keeps of a task that has ended serves
// for the next one that its tasks launch, so that launching allocates nothing, unless the tasks have a name or
// other attributes; see Spawner.
//
// fn's Context must not be used in any way after fn has returned, not even its methods of
// context.Context: another task may have it by then. (A Context that was derived from it, or that
// was asked for its Done channel, stays what it is.)
func Launch(s Spawner, fn func(cx *Context) error) {
	rt, w := s.spawner()
	st, _ := takeHead(s, w, kindStraight).(*straight[None])
	if st == nil {
		st = new(straight[None])
		st.kind, st.body, st.cx.t = kindStraight, st, &st.task
		st.state.launch()
	}
	st.do = fn
	startAt(rt, w, s, &st.task)
}

// LaunchFuture is Launch for a plain future. f's Context must not be used after the Poll that has
// returned the result, and f must have no waker of it left that it wakes all the time: such a
// waker wakes another task.
func LaunchFuture(s Spawner, f Future[None]) {
	rt, w := s.spawner()
	p, _ := takeHead(s, w, kindPlain).(*plain[None])
	if p == nil {
		p = new(plain[None])
		p.body, p.cx.t = p, &p.task
		p.state.launch()
	}
	p.f = f
	startAt(rt, w, s, &p.task)
}

// keepHeads is how many tasks of each kind a worker keeps that have ended.
const keepHeads = 1024

// heads are tasks that have been launched and have ended. They are linked by next.
type heads struct {
	first *task
	n     int
}

// takeHead returns the body of a task that has ended, as good as new; nil if there is none, or if
// the new task has attributes: it would not be kept after its end. w is the worker that runs the caller, or
// nil.
func takeHead(s Spawner, w *worker, kind taskKind) taskBody {
	if w == nil || s.details() != nil {
		return nil
	}
	h := &w.heads[kind]
	t := h.first
	if t == nil {
		return nil
	}
	h.first, t.next = t.next, nil
	h.n--
	t.waits, t.listedAt, t.w = waitsNothing, 0, nil
	t.g.Store(0)
	t.state.launch()
	if t.cx.sc.Load() != nil { // somebody has used the Context too late: see Context.scope
		return nil
	}
	return t.body
}

// recycle keeps t, which has ended, for the next that is launched, unless somebody may still look at
// it. Wakers of it may be left: they wake the next one, to which a wake more means nothing.
func (w *worker) recycle(t *task) {
	h := &w.heads[t.kind]
	if h.n < keepHeads && t.details.Load() == nil && t.cx.sc.Load() == nil && !t.state.kept() {
		t.next, h.first = h.first, t
		h.n++
	}
}
