package async

import "context"

// A Cond is a condition variable: code that holds a [Mutex] waits with it until other code
// announces a change. It is [sync.Cond] with a Mutex of this package. Make a Cond with [NewCond],
// or set L. It must not be copied after first use. Its methods are safe for concurrent use by tasks
// and goroutines. L is locked when Wait is called; it may be locked or unlocked when [Cond.Signal]
// or [Cond.Broadcast] is called.
//
// As with sync.Cond, check the condition again after each Wait:
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
	// L is held by callers of Wait, and by the code that checks or changes the condition.
	L    *Mutex
	list waitlist
}

// NewCond returns a [Cond] with the mutex l.
func NewCond(l *Mutex) *Cond { return &Cond{L: l} }

// Wait unlocks c.L, waits for [Cond.Signal] or [Cond.Broadcast], locks c.L again and returns. It
// does not miss a signal that is sent after it has unlocked c.L. It panics if c.L is not locked.
//
// If cx is cancelled Wait returns cx.Err(), and then c.L is locked, too: cancelling does not
// shorten the wait for c.L. A Signal that had chosen this caller is passed on to another waiter.
//
// There is one exception. If [Runtime.Shutdown] unwinds the waiting code while another task holds
// c.L, Wait does not return and c.L stays locked by the other task. A deferred c.L.Unlock would
// unlock it under that task. Code that may be unwound while other code still runs, for example a
// goroutine, must itself keep track of the locks that it holds.
func (c *Cond) Wait(cx *Context) error {
	c.mustBeLocked()
	f := condFuture{c: c}
	defer func() {
		if f.begun { // it has unlocked c.L
			c.L.lockRegardless(cx)
		}
	}()
	_, err := Await(cx, &f)
	return err
}

// WaitBlocking is [Cond.Wait] for a goroutine outside the pool: it parks the goroutine. It fails
// only if ctx ends, with ctx.Err(), and then c.L is locked, too. It panics in a task.
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

// WaitFuture returns the future of [Cond.Wait]. Its first Poll unlocks c.L, and c.L is locked when
// it is ready. If it is given up in between, it passes on the signal that it may have been given,
// and does not lock c.L: unlike Wait, giving up cannot wait for a lock. WaitFuture panics if c.L is
// not locked.
func (c *Cond) WaitFuture() Future[None] {
	c.mustBeLocked()
	return &condLockFuture{signal: condFuture{c: c}, lock: lockFuture{m: c.L}}
}

// mustBeLocked panics if c.L is missing or not locked.
func (c *Cond) mustBeLocked() {
	if c.L == nil {
		panic("async: a Cond without its L was used")
	}
	if !c.L.state.locked() {
		panic("async: Wait on a Cond whose Mutex is not locked")
	}
}

// Signal wakes the first waiter in the queue, if there is one.
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

// condFuture waits for a signal. Its first Poll joins the list and then unlocks the Mutex: code
// that changes the condition holds the Mutex, and so finds the waiter in the list when it signals.
type condFuture struct {
	c     *Cond
	w     waiter // its want is byOne if Signal has chosen it
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
	if !f.begun { // it is in the list: no signal is missed from now on
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

// passOn gives the signal that f was given to another waiter. A Broadcast is not passed on: it has
// woken all waiters.
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
	// It was signalled, and does not return to act on the signal.
	f.lock.Cancel()
	f.signal.passOn()
}
