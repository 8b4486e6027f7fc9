package async

// BlockOn runs fn on the calling goroutine, with a Context whose awaits park
// it, and returns fn's results. It is the bridge from goroutines. No worker waits
// for timers that fn awaits, nor for connections, unless a task has waited for them, as
// the tasks of Serve do, or descriptors have run out. If s has a name, fn's task has the
// same name.
//
// It panics in tasks, which can await and would block their worker. A panic of
// fn is a panic of BlockOn. Shutdown cancels fn's Context. If s is under a
// context, so is fn; if this context has ended, fn is not called.
func BlockOn[T any](s Spawner, fn func(cx *Context) (T, error)) (T, error) {
	mustNotBlock("BlockOn", "the cx that the task has")
	rt, _ := s.spawner()
	p := new(blockOnParker)
	p.kind, p.body = kindGoroutine, p
	p.g.Store(getg())
	if p.w = workerOf(s); p.w == nil {
		p.w = rt.workers[0]
	}
	p.cx.t = &p.task
	err := p.applyOptions(s)
	if err == nil && !rt.beginBlockOn(p) {
		err = ErrShutdown
	}
	if err != nil {
		p.cancelGroup().leaveAll(&p.task)
		var zero T
		return zero, err
	}
	defer rt.endBlockOn(p)
	v, err := fn(&p.cx)
	return v, p.finalError(err)
}

// beginBlockOn makes Shutdown wait for p. It reports false if it is too late.
func (rt *Runtime) beginBlockOn(p *blockOnParker) bool {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.shutting {
		return false
	}
	rt.blockOnsBegun++
	p.id.Store(rt.nextID())
	rt.blockOns[p] = struct{}{}
	return true
}

func (rt *Runtime) endBlockOn(p *blockOnParker) {
	p.state.finish(0)
	p.endScope(nil)
	rt.mu.Lock()
	delete(rt.blockOns, p)
	rt.mu.Unlock()
	notifyChan(rt.countChanged)
	p.cancelGroup().leaveAll(&p.task)
}
