package async

// parker is the task of a goroutine outside the pool that awaits in BlockOn.
type parker struct {
	task
	unpark chan struct{} // capacity 1; nil until it first waits
	own    waiter        // see task.ownWaiter
}

// BlockOn runs fn on the calling goroutine, with a Context whose awaits park
// it, and returns fn's results. It is the bridge from goroutines. No worker waits
// for timers that fn awaits, nor for connections, unless a task has waited for them, as
// those of Serve do, or descriptors have run out. The name of s, if it has one, is that
// of fn's task.
//
// It panics in tasks, which can await and would block their worker. A panic of
// fn is a panic of BlockOn. Shutdown cancels fn's Context. If s is under a
// context, so is fn; if that has ended, fn is not called.
func BlockOn[T any](s Spawner, fn func(cx *Context) (T, error)) (T, error) {
	mustNotBlock("BlockOn", "the cx that the task has")
	rt, _ := s.spawner()
	p := new(parker)
	p.kind, p.body = kindGoroutine, p
	p.g.Store(getg())
	if p.w = workerOf(s); p.w == nil {
		p.w = rt.workers[0]
	}
	p.cx.t = &p.task
	err := p.adorn(s)
	if err == nil && !rt.enter(p) {
		err = ErrShutdown
	}
	if err != nil {
		p.crew().leave(&p.task)
		var zero T
		return zero, err
	}
	defer rt.leave(p)
	v, err := fn(&p.cx)
	return v, p.settle(err)
}

// wait parks the goroutine until p is woken.
func (p *parker) wait() {
	p.since = ticksAt(nanosHere())
	if p.unpark == nil {
		p.unpark = newChan[struct{}](1)
	}
	if p.state.suspend() {
		<-p.unpark
	}
	p.state.begin()
}

// poll implements taskBody: the one who woke p holds it, and passes it to the
// goroutine.
func (p *parker) poll(w *worker) bool {
	w.readies()
	notify(p.unpark)
	return false
}

func (p *parker) abort(*worker, error) {}

// enter makes Shutdown wait for p. It reports false if it is too late.
func (rt *Runtime) enter(p *parker) bool {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.shutting {
		return false
	}
	rt.entered++
	p.id.Store(rt.nextID())
	rt.outside[p] = struct{}{}
	return true
}

func (rt *Runtime) leave(p *parker) {
	p.state.finish(0)
	p.endScope(nil)
	rt.mu.Lock()
	delete(rt.outside, p)
	rt.mu.Unlock()
	notify(rt.told)
	p.crew().leave(&p.task)
}
