package async

import (
	"container/list"
	"context"
	"slices"
	"time"
)

// BlockingConfig bounds the pool of SpawnBlocking. Zeros mean the defaults.
type BlockingConfig struct {
	Limit int           // how many calls run at once; 512
	Queue int           // how many more may be waiting for that; 16,384
	Idle  time.Duration // how long a goroutine waits for another call before it ends; 10 s
}

// SpawnBlocking runs fn, which may block, on a goroutine of the runtime's pool
// and returns the handle of its result. The pool runs at most
// Config.Blocking.Limit calls at once; others wait in a queue of at most
// Config.Blocking.Queue.
//
// If the queue is full too, code that can wait does: a straight-line task, or a
// function that BlockOn runs, whose Context is s, is suspended until there is
// room, or until it is cancelled, which is then the result. With any other s the
// result is ErrBusy at once.
//
// Cancelling the handle takes a call that is still queued out of the queue, with
// the result context.Canceled. A call that runs goes on; if it should end early,
// hand it a context, for which a Context serves: context.WithTimeout(cx, d).
// Shutdown cancels what is queued at its third stage, and waits for what runs.
func SpawnBlocking[T any](s Spawner, fn func() (T, error)) *JoinHandle[T] {
	rt, w := s.spawner()
	c := &call[T]{fn: fn}
	c.kind, c.body, c.cx.t = kindBlocking, c, &c.task
	c.w, c.id = rt.place(), rt.nextID()
	if d := s.details(); d != nil {
		c.details.Store(d)
	}
	cx, ok := s.(*Context)
	canWait := ok && cx.canWait()
	switch err := rt.calls.submit(&c.task, w == nil && !canWait); {
	case err != ErrBusy:
	case !canWait:
		c.abort(nil, ErrBusy)
	default:
		if _, err := Await(cx, &roomInQueue{p: rt.calls, t: &c.task}); err != nil {
			c.abort(nil, err)
		}
	}
	return &c.JoinHandle
}

// call is a task that a goroutine of the pool runs.
type call[T any] struct {
	JoinHandle[T]
	fn func() (T, error)
}

// poll runs the call. The worker is nil: it is a goroutine of the pool.
func (c *call[T]) poll(*worker) bool {
	returned := false
	var (
		v   T
		err error
	)
	defer func() {
		if p := recover(); p != nil {
			err = newPanicError(p)
		} else if !returned {
			err = ErrGoexit
		}
		c.fn = nil
		c.finish(nil, v, err)
	}()
	v, err = c.fn()
	returned = true
	return true
}

func (c *call[T]) abort(_ *worker, err error) {
	c.fn = nil
	var zero T
	c.finish(nil, zero, err)
}

// callPool is the goroutines that run blocking calls, and the queue before
// them. A call is handed to the goroutine that became idle last, so that those
// that are not needed end.
//
// The lock, which is that of the list of those who wait for room in the queue,
// is held for a few assignments only, since workers take it.
type callPool struct {
	rt  *Runtime
	cfg BlockingConfig

	room     waitlist
	reserved int       // places in the queue of those who were chosen
	queue    list.List // of *task
	queued   map[*task]*list.Element
	running  map[*task]struct{}
	idle     []*caller // the one that became idle last is the last
	callers  int       // goroutines, the idle ones included
	sweeping bool      // a timer will end those that are idle for too long
	closed   bool      // no goroutine waits for more

	spawned, ended int64 // see census
}

// caller is a goroutine of the pool.
type caller struct {
	next  chan *task // while it is idle; capacity 1, closed to end it
	since time.Time
}

func newCallPool(rt *Runtime) *callPool {
	return &callPool{
		rt:      rt,
		cfg:     rt.cfg.Blocking,
		queued:  map[*task]*list.Element{},
		running: map[*task]struct{}{},
	}
}

// submit hands t to a goroutine, or queues it. If there is no room it leaves t
// alone and returns ErrBusy; with any other error t has ended.
func (p *callPool) submit(t *task, outside bool) error {
	p.room.mu.Lock()
	c, err := p.take(t, outside)
	p.room.mu.Unlock()
	switch {
	case c != nil:
		c.next <- t
	case err == ErrShutdown:
		t.body.abort(nil, err)
	}
	return err
}

// take is submit under the lock. The caller hands t to the goroutine that it
// returns.
func (p *callPool) take(t *task, outside bool) (*caller, error) {
	switch n := len(p.idle); {
	case p.rt.closing.Load() || outside && p.rt.draining.Load():
		return nil, ErrShutdown
	case n > 0:
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.spawned++
		p.running[t] = struct{}{}
		return c, nil
	case p.callers < p.cfg.Limit:
		p.callers++
		p.spawned++
		p.running[t] = struct{}{}
		go p.serve(t)
		return nil, nil
	case p.hasRoom() && p.room.first == nil:
		p.push(t)
		return nil, nil
	}
	return nil, ErrBusy
}

func (p *callPool) hasRoom() bool { return p.queue.Len()+p.reserved < p.cfg.Queue }

func (p *callPool) push(t *task) {
	p.spawned++
	p.queued[t] = p.queue.PushBack(t)
}

// pop takes the oldest call out of the queue, to run it, and lets in those who
// wait for room.
func (p *callPool) pop(chosen *chosenTasks) *task {
	e := p.queue.Front()
	if e == nil {
		return nil
	}
	t := p.queue.Remove(e).(*task)
	delete(p.queued, t)
	p.running[t] = struct{}{}
	p.letIn(chosen)
	return t
}

// letIn reserves free places for those who wait.
func (p *callPool) letIn(chosen *chosenTasks) {
	for w := p.room.first; w != nil && p.hasRoom(); w = p.room.first {
		p.reserved++
		chosen.add(p.room.choose(w))
	}
}

// serve is a goroutine of the pool. A call that ends it, by Goexit, has it
// replaced.
func (p *callPool) serve(t *task) {
	c := &caller{next: make(chan *task, 1)}
	defer func() {
		if t != nil {
			p.replace(t)
		}
	}()
	for t != nil {
		t.body.poll(nil)
		t = p.after(t, c)
	}
}

// after accounts for a call that has ended and returns the next one, when there
// is one; nil if the goroutine is to end.
func (p *callPool) after(t *task, c *caller) (next *task) {
	var chosen chosenTasks
	p.room.mu.Lock()
	p.account(t)
	next = p.pop(&chosen)
	idle := next == nil && !p.closed
	switch {
	case idle:
		c.since = time.Now()
		p.idle = append(p.idle, c)
		p.sweepLater(p.cfg.Idle)
	case next == nil:
		p.callers--
	}
	p.room.mu.Unlock()
	chosen.wake()
	if idle {
		next = <-c.next
	}
	return next
}

func (p *callPool) account(t *task) {
	delete(p.running, t)
	p.ended++
	notify(p.rt.told)
}

// replace is after for a goroutine that cannot go on.
func (p *callPool) replace(t *task) {
	var chosen chosenTasks
	p.room.mu.Lock()
	p.account(t)
	next := p.pop(&chosen)
	if next != nil {
		go p.serve(next)
	} else {
		p.callers--
	}
	p.room.mu.Unlock()
	chosen.wake()
}

// sweepLater sees to it that goroutines end that are idle for too long.
func (p *callPool) sweepLater(d time.Duration) {
	if !p.sweeping {
		p.sweeping = true
		time.AfterFunc(d, p.sweep)
	}
}

func (p *callPool) sweep() {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	p.sweeping = false
	now, n := time.Now(), 0
	for n < len(p.idle) && now.Sub(p.idle[n].since) >= p.cfg.Idle {
		n++
	}
	p.dismiss(n)
	if len(p.idle) > 0 {
		p.sweepLater(p.cfg.Idle - now.Sub(p.idle[0].since))
	}
}

// dismiss ends the n goroutines that have been idle for longest.
func (p *callPool) dismiss(n int) {
	for _, c := range p.idle[:n] {
		close(c.next)
	}
	p.idle = slices.Delete(p.idle, 0, n)
	p.callers -= n
}

// cancel ends t if it is still queued.
func (p *callPool) cancel(t *task) {
	var chosen chosenTasks
	p.room.mu.Lock()
	e := p.queued[t]
	if e != nil {
		p.queue.Remove(e)
		delete(p.queued, t)
		p.letIn(&chosen)
	}
	p.room.mu.Unlock()
	chosen.wake()
	if e != nil {
		p.abandon(t)
	}
}

// abandon ends a call that was taken out of the queue.
func (p *callPool) abandon(t *task) {
	t.body.abort(nil, context.Canceled)
	p.room.mu.Lock()
	p.account(t)
	p.room.mu.Unlock()
}

// cancelQueued cancels all calls that do not run. It is called when no more
// are taken.
func (p *callPool) cancelQueued() {
	p.room.mu.Lock()
	var all []*task
	for t := range p.queued {
		all = append(all, t)
	}
	p.room.mu.Unlock()
	for _, t := range all {
		t.cancel()
	}
}

// close ends the idle goroutines. Those that run a call end after it.
func (p *callPool) close() {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	p.closed = true
	p.dismiss(len(p.idle))
}

// infos describes the calls.
func (p *callPool) infos() (infos []TaskInfo) {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	for t := range p.running {
		infos = append(infos, TaskInfo{Task: t.ident(), Kind: kindBlocking.String(), State: "blocking"})
	}
	for t := range p.queued {
		infos = append(infos, TaskInfo{Task: t.ident(), Kind: kindBlocking.String(), State: "queued"})
	}
	return infos
}

// roomInQueue is the future of a call that waits for a place in the queue.
type roomInQueue struct {
	p *callPool
	t *task // the call
	w waiter
}

func (r *roomInQueue) Poll(cx *Context) (None, error) {
	waker, p := cx.waker(waitsCall), r.p
	p.room.mu.Lock()
	if r.w.phase != waiterChosen {
		c, err := p.take(r.t, false)
		if err == ErrBusy {
			p.room.join(&r.w, waker)
			err = ErrPending
		}
		if err != ErrPending {
			p.room.leave(&r.w)
		}
		p.room.mu.Unlock()
		if c != nil {
			c.next <- r.t
		}
		return None{}, err
	}
	p.room.leave(&r.w)
	p.reserved--
	p.push(r.t)
	p.room.mu.Unlock()
	return None{}, nil
}

// Cancel implements canceller.
func (r *roomInQueue) Cancel() {
	var chosen chosenTasks
	r.p.room.mu.Lock()
	if r.p.room.leave(&r.w) == waiterChosen {
		r.p.reserved--
		r.p.letIn(&chosen)
	}
	r.p.room.mu.Unlock()
	chosen.wake()
}
