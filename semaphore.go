package async

import (
	"context"
	"fmt"
	"sync/atomic"
)

// A Semaphore hands out a fixed number of permits, of which each request may want
// several. It is made by NewSemaphore and must not be copied. All methods may be
// called by tasks and goroutines at the same time.
//
// Requests are served in the order in which they came, and permits are reserved
// for the first of them: of 10 permits, while a request for 10 waits, none are
// given to a later request for 1, though 9 may be free. Else large requests would
// wait as long as small ones come. Permits that are free are taken without letting
// other tasks run.
type Semaphore struct {
	size  int64
	state permitState
	list  waitlist
}

// permitState is the word that says how many permits are free and whether a request waits:
// while one does, the word is written only under the lock of the list.
type permitState struct{ bits atomic.Int64 }

const (
	permitsWanted int64 = 1 << iota // the list is not empty
	permitsUnit                     // of the remaining bits, which count the free permits
)

// take takes n permits if they are free and no request waits.
func (s *permitState) take(n int64) bool {
	for {
		old := s.bits.Load()
		if old&permitsWanted != 0 || old/permitsUnit < n {
			return false
		}
		if s.bits.CompareAndSwap(old, old-n*permitsUnit) {
			return true
		}
	}
}

// want notes, under the lock of the list, that a request waits. If it reports true the n
// permits have become free, and the caller has taken them instead.
func (s *permitState) want(n int64) (taken bool) {
	for {
		if s.take(n) {
			return true
		}
		old := s.bits.Load()
		if old&permitsWanted != 0 || old/permitsUnit < n && s.bits.CompareAndSwap(old, old|permitsWanted) {
			return false
		}
	}
}

// give gives n permits back. Unless listed, which says that the caller has the lock of the
// list, it does so only if no request waits, and reports whether it has.
func (s *permitState) give(n, size int64, listed bool) bool {
	for {
		old := s.bits.Load()
		if old&permitsWanted != 0 && !listed {
			return false
		}
		if old/permitsUnit > size-n {
			panic(fmt.Sprintf("async: Semaphore.Release of %d permits of %d, of which %d are held", n, size, size-old/permitsUnit))
		}
		if s.bits.CompareAndSwap(old, old+n*permitsUnit) {
			return true
		}
	}
}

// grant takes n permits for a request that waits, under the lock of the list, if they are
// free.
func (s *permitState) grant(n int64) bool {
	old := s.bits.Load()
	if old/permitsUnit < n {
		return false
	}
	s.bits.Store(old - n*permitsUnit)
	return true
}

// unwanted notes, under the lock of the list, that no request waits anymore.
func (s *permitState) unwanted() { s.bits.And(^permitsWanted) }

// NewSemaphore returns a Semaphore of n permits, all free. It panics if n is
// negative, or beyond 1<<62 - 1.
func NewSemaphore(n int64) *Semaphore {
	if n < 0 || n > 1<<62-1 {
		panic("async: NewSemaphore with a negative or absurd number of permits")
	}
	s := &Semaphore{size: n}
	s.state.bits.Store(n * permitsUnit)
	return s
}

// Acquire waits for n permits and takes them. It fails only if cx is cancelled,
// with cx.Err(), and has then taken none; nothing is lost but the place in the
// queue. It panics if n is negative or more than there are in all, for which it
// would wait for ever.
func (s *Semaphore) Acquire(cx *Context, n int64) error {
	s.check(n)
	if cx.callers() && cx.calm() && s.state.take(n) {
		return nil
	}
	_, err := Await(cx, s.AcquireFuture(n))
	return err
}

// TryAcquire takes n permits if they are free and no request waits, and reports whether it
// has. It panics if n is negative.
func (s *Semaphore) TryAcquire(n int64) bool {
	if n < 0 {
		panic(negativePermits)
	}
	return s.state.take(n)
}

// AcquireBlocking is Acquire for a goroutine outside the pool, which it parks. It
// fails only if ctx ends, with ctx.Err(). It panics in tasks, and as Acquire does.
func (s *Semaphore) AcquireBlocking(ctx context.Context, n int64) error {
	mustNotBlock("Semaphore.AcquireBlocking", "s.Acquire(cx, n)")
	s.check(n)
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.state.take(n) {
		return nil
	}
	_, err := awaitParked(ctx, s.AcquireFuture(n))
	return err
}

// AcquireFuture returns Acquire as a future. When it is ready the permits are the caller's.
// Given up before that it gives back the permits that it had been
// handed. It panics as Acquire does.
func (s *Semaphore) AcquireFuture(n int64) Future[None] {
	s.check(n)
	return &permitFuture{s: s, w: waiter{want: n}}
}

const negativePermits = "async: a negative number of permits"

func (s *Semaphore) check(n int64) {
	if n < 0 {
		panic(negativePermits)
	}
	if n > s.size {
		panic(fmt.Sprintf("async: Semaphore.Acquire of %d permits, of which there are %d in all", n, s.size))
	}
}

// Release gives n permits back. It panics if n is negative, or more than are held. The
// caller may release permits that another task or goroutine has acquired.
func (s *Semaphore) Release(n int64) {
	if n < 0 {
		panic(negativePermits)
	}
	if s.state.give(n, s.size, false) {
		return
	}
	s.list.mu.Lock()
	defer s.serve() // unlocks; deferred, since give panics
	s.state.give(n, s.size, true)
}

// serve hands out the free permits to the requests that are first in the list, unlocks the
// list, and wakes their tasks.
func (s *Semaphore) serve() {
	var chosen chosenTasks
	w := s.list.first
	for ; w != nil && s.state.grant(w.want); w = s.list.first {
		chosen.add(s.list.choose(w))
	}
	if w == nil {
		s.state.unwanted()
	}
	s.list.mu.Unlock()
	chosen.wake()
}

// permitFuture is a place in the queue for a Semaphore.
type permitFuture struct {
	s      *Semaphore
	queued bool // its waiter has a place in the list, or the permits
	w      waiter
}

func (f *permitFuture) Poll(cx *Context) (None, error) {
	s := f.s
	if !f.queued {
		cx.here()
		if s.state.take(f.w.want) {
			return None{}, nil
		}
	}
	t := cx.waker(waitsPermits)
	s.list.mu.Lock()
	defer s.list.mu.Unlock()
	switch {
	case f.w.phase == waiterChosen:
		s.list.leave(&f.w)
	case f.w.phase == waiterIn || !s.state.want(f.w.want):
		s.list.join(&f.w, t)
		f.queued = true
		return None{}, ErrPending
	}
	f.queued = false
	return None{}, nil
}

// Cancel implements canceler.
func (f *permitFuture) Cancel() {
	if !f.queued {
		return
	}
	f.queued = false
	f.s.list.mu.Lock()
	if f.s.list.leave(&f.w) == waiterChosen {
		f.s.state.give(f.w.want, f.s.size, true)
	}
	f.s.serve() // the next request may want less
}
