package async

import (
	"context"
	"sync"
)

// parker is the task of a goroutine outside the pool that waits. Slots and lists treat it like any
// other task that waits there. A wake sends a token to a channel, and the goroutine waits for the
// token. So the wait belongs to Go's scheduler, and no worker takes part in it.
//
// A goroutine that waits by a parker does so in one of three ways:
//
//   - with the Context of BlockOn: blockOnParker.wait;
//   - with a context.Context, whose end also ends the wait: goroutineParker.park;
//   - in a call of package net's interfaces, which a deadline or Close ends through the connection
//     or listener for which it waits: parker.park, used by netSide.
//
// The channel has room for one token. A wake that finds a token there adds none, since the
// goroutine has yet to look. A wake before the wait is not lost: its token is still there. A wake
// too many is spurious: the goroutine looks again, finds nothing and waits again.
//
// The select statement of a goroutine needs a channel that is closed instead; see doneSignal.
type parker struct {
	task
	token chan struct{} // capacity 1
}

// poll implements taskBody: it passes the wake on to the goroutine. No worker polls a parker. w is
// the worker on whose thread the wake happens, or nil.
func (p *parker) poll(w *worker) bool {
	w.noteRunnable()
	notifyChan(p.token)
	return false
}

// abort implements taskBody. No worker holds a parker, so there is nothing to end.
func (p *parker) abort(*worker, error) {}

// park waits until p has been woken since the last park.
func (p *parker) park() { <-p.token }

// blockOnParker is the parker of BlockOn. Unlike other parkers it has the states of a task
// (taskState): it can be cancelled, and only a wake while it is idle sends a token.
type blockOnParker struct {
	parker        // its token is made by the first wait
	own    waiter // see task.ownWaiter
}

// wait parks the goroutine until p is woken. As for a task, a wake between two waits sets
// taskNotified: suspend then reports false, and wait returns at once.
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

// goroutineParker is the parker of a call that has a context.Context and no Context. It is kept in
// a pool and used again by other calls. A wake for an earlier call that arrives late is spurious
// for the next call.
type goroutineParker struct {
	parker
	own waiter // for a primitive's wait list; the call leaves the list before it frees the parker

	ctx     context.Context // see contextOfWait; nil if it has not parked yet
	release func()
}

// goroutineParkers are the free parkers.
var goroutineParkers = sync.Pool{New: func() any {
	p := new(goroutineParker)
	p.token = newChan[struct{}](1)
	p.kind, p.body, p.cx.t = kindExternal, p, &p.task
	return p
}}

// takeParker returns a parker for the caller, which calls free when it waits no longer.
func takeParker() *goroutineParker { return goroutineParkers.Get().(*goroutineParker) }

// free gives p back. p is in no wait list; it may still be in a slot, in which case a wake is
// spurious.
func (p *goroutineParker) free() {
	if p.ctx != nil {
		p.release()
		p.ctx, p.release = nil, nil
	}
	goroutineParkers.Put(p)
}

// park waits for a wake, or for the end of ctx, whose error it returns. All calls between
// takeParker and free have the same ctx.
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

// awaitParked is Await for a goroutine outside the pool, which has a ctx and no cx. It is for
// futures that need no worker. If ctx ends first, it gives f up and returns the error of ctx.
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

// notifyChan makes sure that a channel of capacity 1 has a value. It never waits.
func notifyChan(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// doneSignal is a task whose poll closes a channel, for goroutines that wait for a slot in a select
// statement. It is in one slot, and is woken once.
type doneSignal struct {
	task
	c chan struct{}
}

// newDoneSignal returns a doneSignal for a slot. Its channel belongs to no bubble, since a worker
// may close it.
func newDoneSignal() *doneSignal {
	d := &doneSignal{c: newChan[struct{}](0)}
	d.kind, d.body = kindExternal, d
	return d
}

// closedSignal is a closed channel: the result of signal for a slot that has been fired before.
var closedSignal = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// poll implements taskBody: a wake closes the channel. See externalWaker.
func (d *doneSignal) poll(w *worker) bool {
	w.noteRunnable()
	close(d.c)
	return false
}

// abort implements taskBody. No worker holds a doneSignal.
func (d *doneSignal) abort(*worker, error) {}
