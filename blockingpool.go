package async

import (
	"context"
	"runtime/pprof"
	"slices"
	"sync/atomic"
	"time"
)

// callNode is the entry of a call in its pool. All fields except t and outside are guarded by the
// lock of the pool.
type callNode struct {
	t       *task
	outside bool            // the call is refused once the runtime drains
	at      links[callNode] // its neighbours in the list in
	in      *callList       // the queue, running or alone of the pool; nil if it is in no list
	g       uintptr         // the goroutine that runs it
}

// pooledCall is implemented by all calls.
type pooledCall interface{ poolNode() *callNode }

// internalCall is a call of this package, for example a write of a File. It has no handle. Unless
// the pool refuses it with ErrBusy, it runs in any case: if Shutdown takes it off the queue, or the
// pool refuses it with ErrShutdown, a goroutine of its own runs it (abort, runAlone).
type internalCall struct {
	task
	node      callNode
	run       func()
	writesFor any // the object for which the call writes, such as a File; nil if Shutdown need not find it
}

func (c *internalCall) poolNode() *callNode { return &c.node }

func (c *internalCall) poll(*worker) bool { c.run(); return true }

// abort is called when the call is removed from the queue, or arrives too late.
func (c *internalCall) abort(*worker, error) { c.w.rt.calls.runAlone(&c.node, c.run) }

// runInPool queues run for the pool, and does not wait until it has ended. If the pool has no room,
// runInPool does nothing and returns ErrBusy. If the runtime is closing, run gets a goroutine of
// its own.
func (rt *Runtime) runInPool(run func()) error { return rt.runInPoolFor(nil, run) }

// runInPoolFor is runInPool for a call that writes for owner; see unfinishedWriters.
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

// callList is a list of calls. Each call in it has the list in callNode.in.
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

// callPool is the goroutines that run blocking calls, and the queue of the calls that wait for
// them.
//
// A goroutine of the pool is on its way (it was started or woken, and does not run yet), runs a
// call, spins, or is idle. At most cfg.Limit goroutines exist, and at most one of them is on its
// way, and at most one spins. A call may be queued if fewer than cfg.Queue calls wait, not counting
// the calls that a goroutine can take at once (hasRoom).
//
// Waking goroutines of the pool:
//
//  1. A caller queues its call and calls wakeOne. Both happen under the lock.
//  2. wakeOne does the first of these that applies. If a goroutine is on its way, or the queue is
//     empty, it does nothing. If a goroutine spins, it posts to it. If a goroutine is idle, it
//     wakes the goroutine that became idle last, so that goroutines that are not needed stay idle
//     and end. If there are fewer goroutines than cfg.Limit, it starts one. Otherwise all
//     goroutines run calls.
//  3. A goroutine that arrives is no longer on its way (arrived). It takes the first call off the
//     queue, and calls wakeOne for the calls that are left (next).
//  4. A goroutine whose call has ended also takes the next call (next). If there is none, it spins,
//     if this has paid before, and then becomes idle.
//  5. A goroutine that a call ends, by runtime.Goexit, calls wakeOne (goroutineEnded), since it may
//     have been the goroutine that would take the next call.
//
// So a call wakes at most one goroutine. Few goroutines run short calls one after the other, and
// calls that block get a goroutine each.
//
// No call is left behind. While calls are queued, a goroutine is on its way or spins, and will take
// a call and then do step 3; or cfg.Limit goroutines run calls, and each of them takes a call when
// its own has ended. A goroutine spins or becomes idle only if it finds the queue empty, under the
// lock.
//
// The lock is the lock of admission, the list of the tasks that wait for room in the queue. It
// guards all fields below except posted. It is held for a few assignments only, since workers take
// it.
type callPool struct {
	rt  *Runtime
	cfg BlockingConfig

	admission  admission        // the tasks that wait for room in the queue
	queue      callList         // the calls that wait for a goroutine
	running    callList         // the calls that goroutines of the pool run
	alone      callList         // internal calls that run on goroutines of their own; see runAlone
	idle       []*poolGoroutine // in the order in which they became idle
	goroutines int              // how many there are, the idle goroutines included
	waking     bool             // a goroutine is on its way
	spinning   bool             // a goroutine spins: it looks at posted before it becomes idle
	spin       adaptiveSpin     // a hit is a call that arrives soon after the goroutine ran out of calls
	posted     atomic.Bool      // there is a call for the goroutine that spins; read without the lock
	sweeping   bool             // sweeper is set
	sweeper    *time.Timer      // ends goroutines that have been idle for cfg.Idle
	closed     bool             // goroutines end instead of becoming idle

	spawned, ended int64 // the calls of all time; see taskCount
}

// poolGoroutine is a goroutine of the pool.
type poolGoroutine struct {
	g     uintptr       // its identity; see getg
	wake  chan struct{} // has room for one value, which wakes it; closed to end it
	since time.Time     // when it became idle
	spins bool          // it is the goroutine that spins
}

func newCallPool(rt *Runtime) *callPool {
	return &callPool{rt: rt, cfg: rt.cfg.Blocking, spin: adaptiveSpin{spinSettings: workerSpinSettings}}
}

// submit queues c. If there is no room, it returns ErrBusy, and if it is too late, ErrShutdown. A
// caller never overtakes tasks that wait for room.
func (p *callPool) submit(c *callNode) error {
	p.admission.mu.Lock()
	defer p.admission.mu.Unlock()
	if !p.tooLate(c) && (!p.hasRoom() || p.admission.first != nil) {
		return ErrBusy
	}
	return p.push(c)
}

// tooLate reports whether c must be refused because the runtime ends.
func (p *callPool) tooLate(c *callNode) bool {
	return p.rt.closing.Load() || c.outside && p.rt.draining.Load()
}

// callAdmission is the future of a place in the queue. When it is ready, err is nil if the call has
// the place, or else the reason why not.
type callAdmission struct {
	admissionFuture
	err error
}

// newCallAdmission returns the future of a place for c. Its admit runs under the lock, at the
// moment at which the room is taken.
func (p *callPool) newCallAdmission(c *callNode) *callAdmission {
	e := new(callAdmission)
	e.admissionFuture = admissionFuture{admission: &p.admission, reason: waitsCall, hasRoom: p.hasRoom, admit: func() { e.err = p.push(c) }}
	return e
}

// admitNext gives room that a call did not take to the next waiters.
func (p *callPool) admitNext() {
	var chosen chosenTasks
	p.admission.mu.Lock()
	p.admission.admit(p.hasRoom, &chosen)
	p.admission.mu.Unlock()
	chosen.wake()
}

// hasRoom reports whether one more call may be queued. A queued call that a goroutine can take at
// once does not count: there are Limit-running.n of them at most.
func (p *callPool) hasRoom() bool {
	// The sum is arranged so that it does not overflow for an unlimited Queue, math.MaxInt.
	return p.queue.n+p.admission.reserved-(p.cfg.Limit-p.running.n) < p.cfg.Queue
}

// push queues c and wakes a goroutine for it. The caller holds the lock and has found that there is
// room. If it is too late (tooLate), push returns ErrShutdown and does not queue c.
func (p *callPool) push(c *callNode) error {
	if p.tooLate(c) {
		return ErrShutdown
	}
	p.spawned++
	p.queue.push(c)
	p.wakeOne()
	return nil
}

// wakeOne is step 2 at callPool.
func (p *callPool) wakeOne() {
	switch n := len(p.idle); {
	case p.waking || p.queue.n == 0:
	case p.spinning:
		p.posted.Store(true)
	case n > 0:
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.waking = true
		// This does not block: the channel of an idle goroutine is empty, and only this code sends,
		// under the lock.
		c.wake <- struct{}{}
	case p.goroutines < p.cfg.Limit:
		p.goroutines++
		p.waking = true
		goOutsideBubble(p.run)
	}
}

// run is a goroutine of the pool.
func (p *callPool) run() {
	// The goroutine does not keep the labels of the task that has started it.
	pprof.SetGoroutineLabels(context.Background())
	c := &poolGoroutine{g: getg(), wake: make(chan struct{}, 1)}
	var now *callNode
	defer func() {
		// The call has ended this goroutine by runtime.Goexit.
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

// arrived notes that c, which was woken or started, runs. It also tells spin how long c was idle. A
// new goroutine, whose since is the zero time, counts as idle for long.
func (p *callPool) arrived(c *poolGoroutine) {
	p.admission.mu.Lock()
	p.waking = false
	p.spin.slept(true, int64(time.Since(c.since)))
	p.admission.mu.Unlock()
}

// spinForCall spins until a call is posted, or until the spin is over.
func (p *callPool) spinForCall() { p.spin.spinFor(nanos(), p.posted.Load) }

// maySpin reports whether a goroutine may spin for the next call. It must not take the processor of
// another goroutine, so it spins only while the runtime has raised GOMAXPROCS. A burst of calls
// raises it.
func (p *callPool) maySpin() bool {
	if !p.spin.pays() || p.spinning || p.closed {
		return false
	}
	if !p.rt.ownProcs.asked.Load() {
		go p.rt.bringProcs() // it may wait for a collection, and the lock is held here
	}
	return p.rt.ownProcs.raised.Load()
}

// spun ends the spin of c. call says whether there is a call for c.
func (p *callPool) spun(c *poolGoroutine, call bool) {
	c.spins, p.spinning = false, false
	p.posted.Store(false)
	if call {
		p.spin.spinHit()
	} else {
		p.spin.spinMiss()
	}
}

// next accounts for ran, the call that c has run (or nil), and returns the next call. If there is
// none, it returns nil, and c spins or is idle from then on.
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
	// A call that was taken off the queue, or has ended, makes room for tasks that wait.
	p.admission.admit(p.hasRoom, &chosen)
	p.admission.mu.Unlock()
	chosen.wake()
	return next
}

// becomeIdle makes c idle, or lets it end if the pool is closed.
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

// goroutineEnded accounts for the call ran, which has ended its goroutine.
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

// ranCall accounts for the end of ran; nil is no call.
func (p *callPool) ranCall(ran *callNode) {
	if ran != nil {
		p.running.remove(ran)
		p.countEnd()
	}
}

// countEnd counts the end of a call. While the runtime drains, Shutdown waits for such changes.
func (p *callPool) countEnd() {
	p.ended++
	if p.rt.draining.Load() {
		notifyChan(p.rt.countChanged)
	}
}

// sweepLater sets the timer for goroutines that are idle for too long, unless it is set.
func (p *callPool) sweepLater(d time.Duration) {
	if !p.sweeping {
		p.sweeping = true
		p.sweeper = time.AfterFunc(d, p.sweep)
	}
}

// sweep ends the goroutines that have been idle for cfg.Idle. They are first in idle. It sets the
// timer again for the next goroutine.
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

// cancel ends t if t is still queued. A call that runs is not changed.
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
	// The end is counted after abort, so that Shutdown waits until the result is there.
	if queued {
		t.body.abort(nil, t.cx.Err())
		p.admission.mu.Lock()
		p.countEnd()
		p.admission.mu.Unlock()
	}
}

// runAlone runs an internal call, which the pool no longer runs, on a goroutine of its own. The
// call counts like the others, so Shutdown waits for it.
func (p *callPool) runAlone(c *callNode, run func()) {
	p.admission.mu.Lock()
	p.spawned++
	p.alone.push(c)
	p.admission.mu.Unlock()
	goOutsideBubble(func() {
		// The goroutine does not keep the labels of the task that has started it.
		pprof.SetGoroutineLabels(context.Background())
		run()
		p.admission.mu.Lock()
		p.alone.remove(c)
		p.countEnd()
		p.admission.mu.Unlock()
	})
}

// unfinishedWriters returns the objects for which internal calls write that have not ended.
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

// cancelQueued cancels all calls that are queued. The runtime accepts no more calls when it is
// called.
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
		p.sweeper.Stop() // the timer would keep the runtime in memory until it fires
	}
}

// runsCaller reports whether the calling goroutine runs a call of the pool.
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

// infos describes the calls that have not ended.
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
