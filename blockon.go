package async

// BlockOn runs fn on the calling goroutine and returns the results of fn. Awaits with the [Context]
// of fn park the goroutine. So BlockOn is the way from goroutines to the functions of this package.
// It panics in tasks, which can await with their own Context and would block their worker.
//
// s says to which runtime the Context belongs, what it is under, and its name; see [Spawner].
// Awaits fail with cx.Err() when a context that it is under ends, and when [Runtime.Shutdown]
// cancels it. If such a context has ended before, BlockOn returns its error, and if Shutdown has
// begun, [ErrShutdown]; fn is not called then. A panic in fn is a panic of BlockOn.
//
// No worker waits for the timers of fn. Nor does a worker wait for its connections, unless a task
// has waited for them before, as the tasks of [Serve] do, or no descriptors are left.
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

// beginBlockOn registers p, so that Shutdown waits for it. It reports false if Shutdown has begun.
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

// endBlockOn publishes the end of p, in the order of the steps at the head of taskresult.go.
func (rt *Runtime) endBlockOn(p *blockOnParker) {
	p.state.finish(0)
	p.endScope(nil)
	rt.mu.Lock()
	delete(rt.blockOns, p)
	rt.mu.Unlock()
	notifyChan(rt.countChanged)
	p.cancelGroup().leaveAll(&p.task)
}
