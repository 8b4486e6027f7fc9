package async

import (
	"context"
	"sync"
)

// parker is the task of a goroutine outside the pool that waits: to slots and lists it is one of the tasks that wait
// there. A wake sends a token. The goroutine waits in one of three ways:
//
//   - with the Context of BlockOn: blockOnParker.wait;
//   - with a context.Context of the caller's, whose end also ends the wait: goroutineParker.park;
//   - in a call of package net, which a deadline or Close ends through the connection or listener that it waits for:
//     parker.park, by netSide.
//
// A goroutine that selects waits for a channel instead, which is closed: see doneSignal.
type parker struct {
	task
	token chan struct{} // capacity 1
}

// poll implements taskBody: the waker of p holds it, and passes it to the goroutine.
func (p *parker) poll(w *worker) bool {
	w.noteRunnable()
	notifyChan(p.token)
	return false
}

func (p *parker) abort(*worker, error) {}

// park waits until p was woken after the latest park.
func (p *parker) park() { <-p.token }

// blockOnParker is the parker of BlockOn. Unlike the others it has the states of a task.
type blockOnParker struct {
	parker        // its token is made by the first wait
	own    waiter // see task.ownWaiter
}

// wait parks the goroutine until p is woken.
func (p *blockOnParker) wait() {
	p.since = ticksAt(nanosHere())
	if p.token == nil {
		p.token = newChan[struct{}](1)
	}
	if p.state.suspend() {
		<-p.token
	}
	p.state.begin()
}

// goroutineParker is the parker of a call that has a context.Context and no Context. It is used
// again by other calls: a wake that comes too late is spurious for them.
type goroutineParker struct {
	parker
	own waiter // for a primitive's wait list; the call leaves the list before it frees the parker

	ctx     context.Context // see contextOfWait; nil if it has not parked yet
	release func()
}

var goroutineParkers = sync.Pool{New: func() any {
	p := new(goroutineParker)
	p.token = newChan[struct{}](1)
	p.kind, p.body, p.cx.t = kindExternal, p, &p.task
	return p
}}

func takeParker() *goroutineParker { return goroutineParkers.Get().(*goroutineParker) }

func (p *goroutineParker) free() {
	if p.ctx != nil {
		p.release()
		p.ctx, p.release = nil, nil
	}
	goroutineParkers.Put(p)
}

// park waits for a wake, or for the end of ctx, whose error it returns. It is always
// called with the same ctx.
func (p *goroutineParker) park(ctx context.Context) error {
	if p.ctx == nil {
		p.ctx, p.release = contextOfWait(ctx)
	}
	select {
	case <-p.token:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// awaitParked is Await for a goroutine outside the pool, which has a ctx and no
// cx, and for futures that need no worker.
func awaitParked[T any](ctx context.Context, f Future[T]) (T, error) {
	p := takeParker()
	defer p.free()
	for {
		v, err := f.Poll(&p.cx)
		if err != ErrPending {
			return v, err
		}
		if err := p.park(ctx); err != nil {
			giveUp(&p.task, f)
			return v, err
		}
	}
}

// notifyChan makes one value wait in a channel of capacity 1.
func notifyChan(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// doneSignal is a task whose poll closes a channel. It stands in one slot.
type doneSignal struct {
	task
	c chan struct{}
}

func newDoneSignal() *doneSignal {
	d := &doneSignal{c: newChan[struct{}](0)} // the worker closes it, and is in no bubble
	d.kind, d.body = kindExternal, d
	return d
}

// closedSignal is the channel of a slot that was fired before signal is called.
var closedSignal = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// poll implements taskBody; see externalWaker.
func (d *doneSignal) poll(w *worker) bool {
	w.noteRunnable()
	close(d.c)
	return false
}

func (d *doneSignal) abort(*worker, error) {}
