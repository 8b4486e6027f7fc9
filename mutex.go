package async

import (
	"context"
	"sync/atomic"
)

// A Mutex is a mutual exclusion lock. A task that waits for it does not block its worker. The zero
// value is an unlocked mutex. A Mutex may be held while its holder awaits, and is not bound to a
// task: another task or goroutine may unlock it. It must not be copied after first use. Its methods
// are safe for concurrent use by tasks and goroutines.
//
// [Mutex.Lock] fails if cx is cancelled, and then the mutex is not locked: check its error. In code
// that cleans up after a cancellation, lock with the Context of [Context.WithoutCancel]. A section
// that awaits nothing can use a [sync.Mutex] instead, which a task may hold between two awaits.
//
// A caller that finds the mutex free locks it, even if other callers wait. (To hand it over each
// time would make all callers wait for the slowest waiter to run.) The first waiter is overtaken at
// most 4,096 times. After that, or when it has been woken 4 times and has found the mutex locked,
// the next Unlock hands the mutex to it and to no other caller. The other waiters follow in FIFO
// order.
//
// Locking a free mutex does not let other tasks run, however often it is done. A loop that locks
// the mutex to see whether something has changed must call [Yield], or better wait with a [Cond].
//
// As with [sync.Mutex], code that panics or is cancelled while it holds the mutex leaves it locked,
// unless it has deferred Unlock.
type Mutex struct {
	state mutexState
	list  waitlist
}

// The bounds of the doc comment above. mutexTurns is how many callers may overtake the first
// waiter: in 4,096 short critical sections a sleeping worker has time to wake up several times.
// mutexTries is how often the first waiter may be woken and find the mutex locked: each such try
// costs a poll.
const (
	mutexTurns = 4096
	mutexTries = 4
)

// mutexState is the word that says whether a Mutex is locked and whether a waiter must be woken.
// The waiters themselves are in the list, which has a lock of its own.
//
// Lock:
//
//  1. The fast path changes the word from 0 to mutexLocked.
//  2. If that fails and the mutex is free, the caller overtakes the waiters: it sets mutexLocked
//     and adds mutexTurn (take). The last caller that may do so also sets mutexPromised.
//  3. If the mutex is locked, the caller takes the lock of the list, sets mutexWanted (want) and
//     joins the list. If the mutex has become free in between, want takes it instead.
//
// Unlock:
//
//  1. The fast path changes the word from mutexLocked to 0. It fails if there is a waiter.
//  2. If mutexCalled is set and mutexPromised is not, it clears mutexLocked (release): the first
//     waiter was woken before and will look.
//  3. Otherwise it takes the lock of the list (drop). If mutexPromised is set it hands the mutex
//     over: mutexLocked stays set, the first waiter is chosen, and has the mutex when it is polled.
//     If not, it clears mutexLocked, sets mutexCalled and wakes the first waiter, which stays in
//     the list.
//
// The waiter that was called is polled and takes the lock of the list (answer):
//
//  1. If the mutex is free it sets mutexLocked and leaves the list. The count of overtaking callers
//     begins anew for the next waiter (renew).
//  2. If not, it clears mutexCalled and stays the first in the list: the next Unlock calls it
//     again. After mutexTries such tries it sets mutexPromised.
//
// A waiter that is given up leaves the list. If it was the first, renew makes the word right for
// the next waiter, and calls that waiter if the mutex is free. If it had been handed the mutex, it
// unlocks it.
//
// The invariant: while the mutex is free and mutexWanted is set, mutexCalled is set. So a waiter
// that was woken has yet to look, and no waiter sleeps beside a free mutex. The race of step 3 of
// Lock with an Unlock is closed by the compare-and-swap of want, which sets mutexWanted only in a
// word with mutexLocked. If it comes first, Unlock sees mutexWanted, and finds the waiter under the
// lock of the list. If Unlock comes first, want sees the free mutex.
type mutexState struct{ bits atomic.Uint32 }

const (
	// mutexLocked is set by the caller that takes the mutex, and cleared by the caller that unlocks
	// it. It stays set when the mutex is handed over.
	mutexLocked uint32 = 1 << iota

	// mutexWanted is set while the list is not empty. It is written under the lock of the list. The
	// next two bits are, too; mutexPromised has an exception.
	mutexWanted

	// mutexCalled is set while the first waiter in the list has been woken and has not looked yet:
	// a caller that unlocks need not wake it again. It is set only together with mutexWanted.
	mutexCalled

	// mutexPromised is set when the next Unlock must hand the mutex over to the first waiter in the
	// list. It is set by that waiter, or, without the lock of the list, by the last caller that may
	// overtake the waiter (take). It is set only together with mutexLocked and mutexWanted.
	mutexPromised

	// mutexTurn is the unit of the remaining bits, which count how often the first waiter in the
	// list was overtaken.
	mutexTurn
)

// take locks the mutex if it is free. It is for callers that are not in the list.
func (s *mutexState) take() bool {
	for {
		old := s.bits.Load()
		if old&mutexLocked != 0 {
			return false
		}
		next := old | mutexLocked
		if old&mutexWanted != 0 {
			if next += mutexTurn; next >= mutexTurns*mutexTurn {
				next |= mutexPromised
			}
		}
		if s.bits.CompareAndSwap(old, next) {
			return true
		}
	}
}

// want notes, under the lock of the list, that the list will not be empty. If it reports true the
// mutex has become free, and the caller has taken it instead.
func (s *mutexState) want() (taken bool) {
	for {
		old := s.bits.Load()
		switch {
		case old&mutexLocked == 0:
			if s.take() {
				return true
			}
		case old&mutexWanted != 0 || s.bits.CompareAndSwap(old, old|mutexWanted):
			return false
		}
	}
}

// answer is called, under the lock of the list, by the first waiter when it was called and is
// polled. It locks the mutex if the mutex is free. If not, the waiter will be called again; with
// insist set, it is promised the mutex.
func (s *mutexState) answer(insist bool) (taken bool) {
	for {
		old := s.bits.Load()
		next := old &^ mutexCalled
		switch {
		case old&mutexLocked == 0:
			next |= mutexLocked
		case insist:
			next |= mutexPromised
		}
		if s.bits.CompareAndSwap(old, next) {
			return old&mutexLocked == 0
		}
	}
}

// renew is called, under the lock of the list, when another waiter has become the first or the list
// has become empty. It clears the count and the promise, which were for the waiter that left. It
// reports whether the caller must call the first waiter: the mutex is free, so no Unlock will do
// it.
func (s *mutexState) renew(empty bool) (call bool) {
	for {
		old := s.bits.Load()
		next := old & mutexLocked
		switch {
		case empty:
		case next != 0:
			next = mutexLocked | mutexWanted
		default:
			next = mutexWanted | mutexCalled
		}
		if s.bits.CompareAndSwap(old, next) {
			return next&mutexCalled != 0
		}
	}
}

// release unlocks the mutex if no waiter must be woken. If it reports false, the caller still holds
// the mutex and must unlock it under the lock of the list. It panics if the mutex is not locked.
func (s *mutexState) release() (released bool) {
	for {
		old := s.bits.Load()
		if old&mutexLocked == 0 {
			panic("async: unlock of unlocked Mutex")
		}
		if old&mutexPromised != 0 || old&(mutexWanted|mutexCalled) == mutexWanted {
			return false
		}
		if s.bits.CompareAndSwap(old, old&^mutexLocked) {
			return true
		}
	}
}

// drop unlocks the mutex under the lock of the list. It reports whether the first waiter in the
// list must be called, or whether the mutex is promised to it; a promised mutex is still locked.
//
// A plain store is enough: while the mutex is locked, every other caller that changes the word has
// the lock of the list.
func (s *mutexState) drop() (call, promised bool) {
	old := s.bits.Load()
	if old&mutexPromised != 0 {
		return false, true
	}
	call = old&(mutexWanted|mutexCalled) == mutexWanted
	next := old &^ mutexLocked
	if call {
		next |= mutexCalled
	}
	s.bits.Store(next)
	return call, false
}

// locked reports whether the mutex is locked.
func (s *mutexState) locked() bool { return s.bits.Load()&mutexLocked != 0 }

// Lock waits until the mutex is free and locks it. It fails only if cx is cancelled, with cx.Err().
// Then it has not locked the mutex, and only the place in the queue is lost.
func (m *Mutex) Lock(cx *Context) error {
	if cx.callers() && cx.calm() && m.state.bits.CompareAndSwap(0, mutexLocked) {
		return nil
	}
	return m.lockSlow(cx)
}

// lockSlow is Lock if the mutex is locked or wanted, or if cx needs a closer look. It tries once
// more before it makes a future, which costs an allocation.
func (m *Mutex) lockSlow(cx *Context) error {
	if err := cx.mustAwait(); err != nil {
		return err
	}
	if m.state.take() {
		return nil
	}
	_, err := Await(cx, m.LockFuture())
	return err
}

// TryLock locks the mutex if it is free, and reports whether it did. It does not wait.
func (m *Mutex) TryLock() bool { return m.state.take() }

// LockBlocking is [Mutex.Lock] for a goroutine outside the pool: it parks the goroutine. It fails
// only if ctx ends, with ctx.Err(). It panics in a task.
func (m *Mutex) LockBlocking(ctx context.Context) error {
	mustNotBlock("Mutex.LockBlocking", "mu.Lock(cx)")
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.state.take() {
		return nil
	}
	_, err := awaitParked(ctx, m.LockFuture())
	return err
}

// LockFuture returns the future of [Mutex.Lock]. When it is ready the mutex is locked, and the
// caller must unlock it. Giving it up before it is ready gives up its place in the queue; if the
// mutex was handed to it in the meantime, the mutex is unlocked for the next waiter.
func (m *Mutex) LockFuture() Future[None] { return &lockFuture{m: m} }

// Unlock unlocks the mutex. It panics if the mutex is not locked. Any task or goroutine may unlock
// it.
func (m *Mutex) Unlock() {
	if !m.state.bits.CompareAndSwap(mutexLocked, 0) {
		m.unlockSlow()
	}
}

// unlockSlow unlocks the mutex if there are waiters. It takes the lock of the list if the first
// waiter must be woken, and wakes it after that lock.
func (m *Mutex) unlockSlow() {
	if m.state.release() {
		return
	}
	var t *task
	m.list.mu.Lock()
	switch call, promised := m.state.drop(); {
	case call:
		t = m.list.call(m.list.first)
	case promised:
		t = m.list.choose(m.list.first)
		m.state.renew(m.list.first == nil)
	}
	m.list.mu.Unlock()
	wakeChosen(t)
}

// lockRegardless locks the mutex for code that must hold it whether or not it was cancelled. It
// never fails. If Shutdown unwinds the code that waits, it does not return.
func (m *Mutex) lockRegardless(cx *Context) {
	t := cx.beginAwait()
	f := lockFuture{m: m}
	over := false
	defer func() {
		if !over {
			f.Cancel() // Shutdown unwinds the code
		}
	}()
	for {
		if _, err := f.Poll(cx); err == nil {
			break
		}
		t.wait()
	}
	over = true
}

// lockFuture is a place in the queue of a Mutex.
type lockFuture struct {
	m      *Mutex
	queued bool // w has a place in the list, or has been handed the mutex
	w      waiter
}

func (f *lockFuture) Poll(cx *Context) (None, error) {
	m := f.m
	if !f.queued {
		cx.here()
		if m.state.take() {
			return None{}, nil
		}
	}
	t := cx.waker(waitsLock)
	m.list.mu.Lock()
	locked := false
	switch f.w.phase {
	case waiterOut: // it has not waited yet
		if locked = m.state.want(); !locked {
			m.list.join(&f.w, t)
		}
	case waiterIn: // a spurious wake: it keeps its place
		m.list.join(&f.w, t)
	case waiterCalled: // it may try for itself
		f.w.passed++
		if locked = m.state.answer(f.w.passed >= mutexTries); locked {
			m.leave(&f.w) // the mutex is locked, so no next waiter is to be called
		} else {
			m.list.join(&f.w, t)
		}
	case waiterChosen: // the mutex was handed to it
		locked = true
		m.list.leave(&f.w)
	}
	m.list.mu.Unlock()
	if f.queued = !locked; f.queued {
		return None{}, ErrPending
	}
	return None{}, nil
}

// leave takes w off the list, if it is in the list. It returns the task to wake if the next waiter
// must be called. The lock of the list is held.
func (m *Mutex) leave(w *waiter) (next *task) {
	first := m.list.first == w
	m.list.leave(w)
	if first && m.state.renew(m.list.first == nil) {
		next = m.list.call(m.list.first)
	}
	return next
}

// Cancel implements canceler.
func (f *lockFuture) Cancel() {
	if !f.queued {
		return
	}
	f.queued = false
	m := f.m
	m.list.mu.Lock()
	chosen := f.w.phase == waiterChosen
	next := m.leave(&f.w)
	m.list.mu.Unlock()
	wakeChosen(next)
	// It held the mutex, and the next waiter may be waiting for it.
	if chosen {
		m.Unlock()
	}
}
