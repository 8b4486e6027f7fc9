package async

import "context"

// A Cond is a condition variable: code that holds a Mutex waits with it until other code
// announces that something has changed. It is sync.Cond with a Mutex of this package. Make
// a Cond with NewCond, or set L; it must not be copied after first use. Signal and
// Broadcast may be called by tasks and goroutines at the same time, with L locked or not.
//
// As with sync.Cond, the condition must be looked at again after Wait:
//
//	mu.Lock(cx)
//	for !condition() {
//		if err := c.Wait(cx); err != nil {
//			break // cancelled; mu is locked
//		}
//	}
//	...
//	mu.Unlock()
type Cond struct {
	L    *Mutex // is held when Wait is called, and while the condition is looked at
	list waitlist
}

// NewCond returns a Cond with the given Mutex.
func NewCond(l *Mutex) *Cond { return &Cond{L: l} }

// Wait unlocks c.L, waits for Signal or Broadcast, locks c.L again and returns.
// A signal that comes after Wait has unlocked is not missed. It panics if c.L is
// not locked.
//
// If cx is cancelled it returns cx.Err(), and c.L is locked then too: cancelling does not
// shorten the wait for c.L. A signal that had been given to it is passed on to another
// waiter.
//
// There is one exception. If [Runtime.Shutdown] has to tear the code down while it waits,
// and another task holds c.L then, Wait does not return and c.L remains that task's: a
// deferred c.L.Unlock would unlock it under that task. Code that may be torn down while
// other code, for example a goroutine, goes on must know for itself which locks it holds.
func (c *Cond) Wait(cx *Context) error {
	c.mustBeLocked()
	f := condFuture{c: c}
	defer func() {
		if f.begun { // and has unlocked
			c.L.lockRegardless(cx)
		}
	}()
	_, err := Await(cx, &f)
	return err
}

// WaitBlocking is Wait for a goroutine outside the pool, which it parks. It fails
// only if ctx ends, with ctx.Err(), and c.L is locked then too. It panics in
// tasks.
func (c *Cond) WaitBlocking(ctx context.Context) error {
	mustNotBlock("Cond.WaitBlocking", "c.Wait(cx)")
	c.mustBeLocked()
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := awaitParked(ctx, &condFuture{c: c})
	c.L.LockBlocking(context.Background())
	return err
}

// WaitFuture returns Wait as a future. c.L is unlocked by its first Poll, and locked when
// it is ready. Given up in between it passes on the signal that it
// may have been given, and does not lock c.L: unlike Wait it cannot wait for that. It
// panics if c.L is not locked.
func (c *Cond) WaitFuture() Future[None] {
	c.mustBeLocked()
	return &condLockFuture{signal: condFuture{c: c}, lock: lockFuture{m: c.L}}
}

func (c *Cond) mustBeLocked() {
	if c.L == nil {
		panic("async: a Cond without its L was used")
	}
	if !c.L.state.locked() {
		panic("async: Wait on a Cond whose Mutex is not locked")
	}
}

// Signal wakes the waiter that has waited for longest, if there is one.
func (c *Cond) Signal() {
	var t *task
	c.list.mu.Lock()
	if w := c.list.first; w != nil {
		w.want = byOne
		t = c.list.choose(w)
	}
	c.list.mu.Unlock()
	wakeChosen(t)
}

// Broadcast wakes all waiters.
func (c *Cond) Broadcast() {
	var chosen chosenTasks
	c.list.mu.Lock()
	c.list.chooseAll(&chosen)
	c.list.mu.Unlock()
	chosen.wake()
}

// condFuture waits for a signal.
type condFuture struct {
	c     *Cond
	w     waiter // want is byOne if Signal has chosen it
	begun bool   // it has unlocked the Mutex
}

func (f *condFuture) Poll(cx *Context) (None, error) {
	t := cx.waker(waitsCond)
	list := &f.c.list
	var err error
	list.mu.Lock()
	if f.w.phase == waiterChosen {
		list.leave(&f.w)
	} else {
		f.w.want = byAll
		list.join(&f.w, t)
		err = ErrPending
	}
	list.mu.Unlock()
	if !f.begun { // it is in the list: no signal can be missed
		f.begun = true
		f.c.L.Unlock()
	}
	return None{}, err
}

// Cancel implements canceler.
func (f *condFuture) Cancel() {
	f.c.list.mu.Lock()
	was := f.c.list.leave(&f.w)
	f.c.list.mu.Unlock()
	if was == waiterChosen {
		f.passOn()
	}
}

// passOn has another waiter get the signal that f was given.
func (f *condFuture) passOn() {
	if f.w.want == byOne {
		f.c.Signal()
	}
}

// condLockFuture waits for a signal, and then for the Mutex.
type condLockFuture struct {
	signal   condFuture
	signaled bool
	lock     lockFuture
}

func (f *condLockFuture) Poll(cx *Context) (None, error) {
	if !f.signaled {
		if _, err := f.signal.Poll(cx); err != nil {
			return None{}, err
		}
		f.signaled = true
	}
	return f.lock.Poll(cx)
}

// Cancel implements canceler.
func (f *condLockFuture) Cancel() {
	if !f.signaled {
		f.signal.Cancel()
		return
	}
	f.lock.Cancel()
	f.signal.passOn()
}
