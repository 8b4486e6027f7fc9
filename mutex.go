package async

import (
	"context"
	"sync/atomic"
)

// A Mutex is a mutual exclusion lock that is waited for without blocking a
// worker. The zero value is an unlocked mutex. It may be held while awaiting, is
// not bound to a task, and must not be copied after first use. All methods may
// be called by tasks and goroutines at the same time.
//
// A mutex that is free is taken by the first caller that comes, also while others wait:
// handing it over each time would have all wait for the slowest waiter to wake up. But the
// first waiter is overtaken at most 4,096 times; after that, or when it has been woken 4
// times and found the mutex locked, the next Unlock hands the mutex to it and to no other
// caller. The others wait in the order in which they came.
//
// Lock of a free mutex does not let other tasks run, however often it is called: code
// that locks to see whether something has changed, in a loop, must Yield in it. A
// Cond is better.
//
// Lock fails if cx is cancelled, and then the mutex is not locked: check its error, and in code
// that cleans up lock with cx.WithoutCancel(). A section that awaits nothing can use a
// sync.Mutex, which a task may hold between two awaits.
//
// As with sync.Mutex, code that panics or is cancelled while it holds the mutex
// leaves it locked, unless it has deferred Unlock.
type Mutex struct {
	state mutexState
	list  waitlist
}

// The bounds of the doc comment above. In 4,096 short turns another worker wakes up several
// times over; each try that fails costs a poll.
const (
	mutexTurns = 4096
	mutexTries = 4
)

// mutexState is the word that says whether a Mutex is locked, and whether tasks wait for
// it.
type mutexState struct{ bits atomic.Uint32 }

const (
	// mutexLocked is set by the caller that takes the mutex, and cleared by the caller that
	// unlocks it. When the mutex is handed over it stays set.
	mutexLocked uint32 = 1 << iota

	// mutexWanted is set while the list is not empty. It is written under the
	// lock of the list, as are the next two except where they say otherwise.
	mutexWanted

	// mutexCalled is set while the first waiter in the list has been woken and has not
	// looked yet: a caller that unlocks need not wake it again. Only together with
	// mutexWanted.
	mutexCalled

	// mutexPromised is set when the next unlock must hand the mutex over to the first
	// waiter in the list. It is set by that waiter, or by the last caller that may overtake
	// it. Only together with mutexLocked and mutexWanted.
	mutexPromised

	// mutexTurn is the unit of the remaining bits, which count how often the first waiter
	// in the list was overtaken.
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

// want notes, under the lock of the list, that the list will not be empty. If it
// reports true the mutex has become free, and the caller has taken it instead.
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

// answer is called, under the lock of the list, by the first waiter in it when it has been
// called: it locks the mutex if that is free. If not, the waiter will be called again, or,
// if insist is set, is promised the mutex.
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

// renew is called, under the lock of the list, when another waiter has become the first in
// it, or the list has become empty. It reports whether the first waiter must be called.
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

// release unlocks the mutex if no waiter has to be woken. If it reports false the caller
// holds the mutex still, and must unlock it under the lock of the list.
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

// drop unlocks the mutex under the lock of the list, which changes only there while the
// mutex is locked. It reports whether the first waiter in the list must be called, and
// whether the mutex, which is then still locked, is promised to it.
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

func (s *mutexState) locked() bool { return s.bits.Load()&mutexLocked != 0 }

// Lock waits until the mutex is free and locks it. It fails only if cx is
// cancelled, with cx.Err(), and has then not locked it; nothing is lost but the
// place in the queue.
func (m *Mutex) Lock(cx *Context) error {
	if cx.callers() && cx.calm() && m.state.bits.CompareAndSwap(0, mutexLocked) {
		return nil
	}
	return m.lockSlow(cx)
}

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

// TryLock locks the mutex if it is free, and reports whether it has.
func (m *Mutex) TryLock() bool { return m.state.take() }

// LockBlocking is Lock for a goroutine outside the pool, which it parks. It fails
// only if ctx ends, with ctx.Err(). It panics in tasks.
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

// LockFuture returns Lock as a future. When it is ready the mutex is locked. Given up
// before that it passes on the mutex if that had been handed to it.
func (m *Mutex) LockFuture() Future[None] { return &lockFuture{m: m} }

// Unlock unlocks the mutex. It panics if the mutex is not locked. Any task or goroutine may
// unlock it.
func (m *Mutex) Unlock() {
	if !m.state.bits.CompareAndSwap(mutexLocked, 0) {
		m.unlockSlow()
	}
}

// unlockSlow unlocks the mutex if others want it, under the lock of the list if the first
// waiter must be woken.
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

// lockRegardless locks the mutex for code that has to hold it whether it was
// cancelled or not.
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

// lockFuture is a place in the queue for a Mutex.
type lockFuture struct {
	m      *Mutex
	queued bool // its waiter has a place in the list, or has been handed the mutex
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
	case waiterOut:
		if locked = m.state.want(); !locked {
			m.list.join(&f.w, t)
		}
	case waiterIn:
		m.list.join(&f.w, t)
	case waiterCalled:
		f.w.passed++
		if locked = m.state.answer(f.w.passed >= mutexTries); locked {
			m.leave(&f.w) // the next waiter need not be called while the mutex is locked
		} else {
			m.list.join(&f.w, t)
		}
	case waiterChosen:
		locked = true
		m.list.leave(&f.w)
	}
	m.list.mu.Unlock()
	if f.queued = !locked; f.queued {
		return None{}, ErrPending
	}
	return None{}, nil
}

// leave takes w off the list, and returns the task to wake if the next waiter in it must be
// called. The lock of the list is held.
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
	if chosen {
		m.Unlock()
	}
}
