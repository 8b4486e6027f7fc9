package async

import (
	"context"
	"runtime/pprof"
	"slices"
	"sync/atomic"
	"time"
)

// callNode is the entry of a call in its pool.
type callNode struct {
	t       *task
	outside bool // the call is refused once the runtime drains
	at      links[callNode]
	in      *callList // the queue, the calls that run, or the calls that run alone; nil for none
	g       uintptr   // the goroutine that runs it
}

// pooledCall is implemented by all calls.
type pooledCall interface{ poolNode() *callNode }

// internalCall is a call of the package's own. It has no handle and is run in any
// case: if the pool does not run it anymore, another goroutine does.
type internalCall struct {
	task
	node      callNode
	run       func()
	writesFor any // the object for which the call writes, such as a File; nil if no code asks for it
}

func (c *internalCall) poolNode() *callNode { return &c.node }

func (c *internalCall) poll(*worker) bool { c.run(); return true }

func (c *internalCall) abort(*worker, error) { c.w.rt.calls.runAlone(&c.node, c.run) }

// runInPool has the pool run run. It returns ErrBusy, and does nothing, if there is no
// room for it.
func (rt *Runtime) runInPool(run func()) error { return rt.runInPoolFor(nil, run) }

// runInPoolFor is runInPool for a call that writes for owner.
func (rt *Runtime) runInPoolFor(owner any, run func()) error {
	c := &internalCall{run: run, writesFor: owner}
	c.kind, c.body, c.cx.t, c.node.t = kindBlocking, c, &c.task, &c.task
	c.w = rt.assignWorker()
	c.id.Store(rt.nextID())
	err := rt.calls.submit(&c.node)
	if err == ErrShutdown {
		c.abort(nil, err)
		err = nil
	}
	return err
}

// links implements linkedElement.
func (c *callNode) links() *links[callNode] { return &c.at }

// callList is a list of calls that know in which list they are.
type callList struct {
	linkedList[callNode, *callNode]
}

func (l *callList) push(c *callNode) {
	c.in = l
	l.linkedList.push(c)
}

func (l *callList) remove(c *callNode) {
	c.in = nil
	l.linkedList.remove(c)
}

// callPool is the goroutines that run blocking calls, and the queue before
// them. A call wakes at most one goroutine, and none while a goroutine that was woken
// has not arrived yet; when this goroutine takes a call and sees more calls, it wakes the
// next. So few goroutines run short calls one after the other, and calls that block get
// a goroutine each. The goroutine that became idle last is woken first, so that
// goroutines that are not needed end.
//
// The lock is that of admission, the list of the tasks that wait for room in the queue.
// It is held for a few assignments only, since workers take it.
type callPool struct {
	rt  *Runtime
	cfg BlockingConfig

	admission  admission // of the queue
	queue      callList
	running    callList
	alone      callList         // calls that are run in any case, and were taken out of the queue or came too late
	idle       []*poolGoroutine // the goroutine that became idle last is the last
	goroutines int              // how many there are, the idle goroutines included
	waking     bool             // a goroutine was woken or started, and has not arrived yet
	spinning   bool             // a goroutine looks at posted before it becomes idle
	spin       adaptiveSpin     // hits: a caller makes its next call soon after its last call has ended
	posted     atomic.Bool
	sweeping   bool // the timer will end goroutines that are idle for too long
	sweeper    *time.Timer
	closed     bool // no goroutine waits for further calls

	spawned, ended int64 // see taskCount
}

// poolGoroutine is a goroutine of the pool.
type poolGoroutine struct {
	g     uintptr
	wake  chan struct{} // capacity 1, closed to end it
	since time.Time     // when it became idle
	spins bool          // it is the goroutine that spins
}

func newCallPool(rt *Runtime) *callPool {
	return &callPool{rt: rt, cfg: rt.cfg.Blocking, spin: adaptiveSpin{spinSettings: workerSpinSettings}}
}

// submit queues c. If there is no room it returns ErrBusy, and if it is too late
// ErrShutdown, and leaves c alone.
func (p *callPool) submit(c *callNode) error {
	p.admission.mu.Lock()
	defer p.admission.mu.Unlock()
	if !p.tooLate(c) && (!p.hasRoom() || p.admission.first != nil) {
		return ErrBusy
	}
	return p.push(c)
}

// tooLate reports whether it is too late for c.
func (p *callPool) tooLate(c *callNode) bool {
	return p.rt.closing.Load() || c.outside && p.rt.draining.Load()
}

// callAdmission is the future of a call's place in the queue. Once it is ready, err says
// why the call has not got the place.
type callAdmission struct {
	admissionFuture
	err error
}

func (p *callPool) newCallAdmission(c *callNode) *callAdmission {
	e := new(callAdmission)
	e.admissionFuture = admissionFuture{admission: &p.admission, reason: waitsCall, hasRoom: p.hasRoom, admit: func() { e.err = p.push(c) }}
	return e
}

// admitNext gives the room that a call has not taken to the next waiters.
func (p *callPool) admitNext() {
	var chosen chosenTasks
	p.admission.mu.Lock()
	p.admission.admit(p.hasRoom, &chosen)
	p.admission.mu.Unlock()
	chosen.wake()
}

// hasRoom reports whether one more call may be queued. A call that a goroutine is
// about to take does not count as queued.
func (p *callPool) hasRoom() bool {
	// Written so that a Queue without bounds, math.MaxInt, does not overflow.
	return p.queue.n+p.admission.reserved-(p.cfg.Limit-p.running.n) < p.cfg.Queue
}

// push queues c, for which there is room, unless it is too late.
func (p *callPool) push(c *callNode) error {
	if p.tooLate(c) {
		return ErrShutdown
	}
	p.spawned++
	p.queue.push(c)
	p.wakeOne()
	return nil
}

// wakeOne posts to the spinning goroutine, wakes an idle one or starts a new one for the
// queue, unless a goroutine is on its way or there can be no more.
func (p *callPool) wakeOne() {
	switch n := len(p.idle); {
	case p.waking || p.queue.n == 0:
	case p.spinning:
		p.posted.Store(true)
	case n > 0:
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.waking = true
		c.wake <- struct{}{}
	case p.goroutines < p.cfg.Limit:
		p.goroutines++
		p.waking = true
		goOutsideBubble(p.run)
	}
}

// run is a goroutine of the pool. If a call ends it, by Goexit, goroutineEnded starts another goroutine if the queue
// needs one.
func (p *callPool) run() {
	pprof.SetGoroutineLabels(context.Background()) // not the labels of the task that has started it
	c := &poolGoroutine{g: getg(), wake: make(chan struct{}, 1)}
	var now *callNode
	defer func() {
		if now != nil {
			p.goroutineEnded(now)
		}
	}()
	p.arrived(c)
	for {
		if now = p.next(now, c); now != nil {
			now.t.body.poll(nil)
		} else if c.spins {
			p.spinForCall()
		} else if _, ok := <-c.wake; ok {
			p.arrived(c)
		} else {
			return
		}
	}
}

// arrived notes that c, which was woken or started, is running.
func (p *callPool) arrived(c *poolGoroutine) {
	p.admission.mu.Lock()
	p.waking = false
	p.spin.slept(true, int64(time.Since(c.since)))
	p.admission.mu.Unlock()
}

// spinForCall waits a moment for the next call, without going to sleep.
func (p *callPool) spinForCall() { p.spin.spinFor(nanos(), p.posted.Load) }

// maySpin reports whether a goroutine may wait for the next call in this way:
// it must not take the processor of another goroutine.
func (p *callPool) maySpin() bool {
	if !p.spin.pays() || p.spinning || p.closed {
		return false
	}
	if !p.rt.ownProcs.asked.Load() {
		go p.rt.bringProcs() // it may wait
	}
	return p.rt.ownProcs.raised.Load()
}

// spun ends the spin of c; call says whether c has found a call.
func (p *callPool) spun(c *poolGoroutine, call bool) {
	c.spins, p.spinning = false, false
	p.posted.Store(false)
	if call {
		p.spin.spinHit()
	} else {
		p.spin.spinMiss()
	}
}

// next accounts for the call that c has run and returns the next call. If there
// is none it returns nil, and c spins or is idle.
func (p *callPool) next(ran *callNode, c *poolGoroutine) (next *callNode) {
	var chosen chosenTasks
	p.admission.mu.Lock()
	p.ranCall(ran)
	next = p.queue.first
	maySpin := p.maySpin() && !c.spins
	if c.spins {
		p.spun(c, next != nil)
	}
	switch {
	case next != nil:
		p.queue.remove(next)
		next.g = c.g
		p.running.push(next)
		p.wakeOne()
	case maySpin:
		c.spins, p.spinning = true, true
	default:
		p.becomeIdle(c)
	}
	p.admission.admit(p.hasRoom, &chosen)
	p.admission.mu.Unlock()
	chosen.wake()
	return next
}

// becomeIdle makes c idle.
func (p *callPool) becomeIdle(c *poolGoroutine) {
	if p.closed {
		p.goroutines--
		close(c.wake)
		return
	}
	c.since = time.Now()
	p.idle = append(p.idle, c)
	p.sweepLater(p.cfg.Idle)
}

// goroutineEnded accounts for a call that has ended its goroutine.
func (p *callPool) goroutineEnded(ran *callNode) {
	var chosen chosenTasks
	p.admission.mu.Lock()
	p.goroutines--
	p.ranCall(ran)
	p.wakeOne()
	p.admission.admit(p.hasRoom, &chosen)
	p.admission.mu.Unlock()
	chosen.wake()
}

func (p *callPool) ranCall(ran *callNode) {
	if ran != nil {
		p.running.remove(ran)
		p.countEnd()
	}
}

func (p *callPool) countEnd() {
	p.ended++
	if p.rt.draining.Load() {
		notifyChan(p.rt.countChanged)
	}
}

// sweepLater sets the timer that ends goroutines that are idle for too long.
func (p *callPool) sweepLater(d time.Duration) {
	if !p.sweeping {
		p.sweeping = true
		p.sweeper = time.AfterFunc(d, p.sweep)
	}
}

func (p *callPool) sweep() {
	p.admission.mu.Lock()
	defer p.admission.mu.Unlock()
	p.sweeping = false
	now, n := time.Now(), 0
	for n < len(p.idle) && now.Sub(p.idle[n].since) >= p.cfg.Idle {
		n++
	}
	p.endIdle(n)
	if len(p.idle) > 0 {
		p.sweepLater(p.cfg.Idle - now.Sub(p.idle[0].since))
	}
}

// endIdle ends the n goroutines that have been idle for longest.
func (p *callPool) endIdle(n int) {
	for _, c := range p.idle[:n] {
		close(c.wake)
	}
	p.idle = slices.Delete(p.idle, 0, n)
	p.goroutines -= n
}

// cancel ends t if it is still queued.
func (p *callPool) cancel(t *task) {
	c := t.body.(pooledCall).poolNode()
	var chosen chosenTasks
	p.admission.mu.Lock()
	queued := c.in == &p.queue
	if queued {
		p.queue.remove(c)
		p.admission.admit(p.hasRoom, &chosen)
	}
	p.admission.mu.Unlock()
	chosen.wake()
	if queued {
		t.body.abort(nil, t.cx.Err())
		p.admission.mu.Lock()
		p.countEnd()
		p.admission.mu.Unlock()
	}
}

// runAlone runs a call that the pool does not run on a goroutine of its own. The call
// counts like the others, so that Shutdown waits for it.
func (p *callPool) runAlone(c *callNode, run func()) {
	p.admission.mu.Lock()
	p.spawned++
	p.alone.push(c)
	p.admission.mu.Unlock()
	goOutsideBubble(func() {
		pprof.SetGoroutineLabels(context.Background()) // not the labels of the task that has started it
		run()
		p.admission.mu.Lock()
		p.alone.remove(c)
		p.countEnd()
		p.admission.mu.Unlock()
	})
}

// unfinishedWriters returns the owners of the internal calls that have not ended.
func (p *callPool) unfinishedWriters() (all []any) {
	p.admission.mu.Lock()
	defer p.admission.mu.Unlock()
	for _, list := range []*callList{&p.queue, &p.running, &p.alone} {
		for c := range list.all() {
			if inner, ok := c.t.body.(*internalCall); ok && inner.writesFor != nil {
				all = append(all, inner.writesFor)
			}
		}
	}
	return all
}

// cancelQueued cancels all calls that do not run. It is called when no more calls
// are accepted.
func (p *callPool) cancelQueued() {
	p.admission.mu.Lock()
	var all []*task
	for c := range p.queue.all() {
		all = append(all, c.t)
	}
	p.admission.mu.Unlock()
	for _, t := range all {
		t.cancel(taskByShutdown)
	}
}

// close ends the idle goroutines. A goroutine that runs a call ends after the call.
func (p *callPool) close() {
	p.admission.mu.Lock()
	defer p.admission.mu.Unlock()
	p.closed = true
	p.endIdle(len(p.idle))
	if p.sweeping {
		p.sweeper.Stop() // it would keep the runtime until it fires
	}
}

// runsCaller reports whether the calling goroutine runs a call.
func (p *callPool) runsCaller() bool {
	g := getg()
	p.admission.mu.Lock()
	defer p.admission.mu.Unlock()
	for c := range p.running.all() {
		if c.g == g {
			return true
		}
	}
	return false
}

// infos describes the calls.
func (p *callPool) infos() (infos []TaskInfo) {
	p.admission.mu.Lock()
	defer p.admission.mu.Unlock()
	for _, list := range []*callList{&p.running, &p.alone} {
		for c := range list.all() {
			infos = append(infos, TaskInfo{Task: c.t.ident(), Kind: kindBlocking.String(), State: "blocking"})
		}
	}
	for c := range p.queue.all() {
		infos = append(infos, TaskInfo{Task: c.t.ident(), Kind: kindBlocking.String(), State: "queued"})
	}
	return infos
}
