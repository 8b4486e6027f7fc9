package async

import (
	"context"
	"fmt"
	"sync/atomic"
)

// A Semaphore hands out a fixed number of permits. A request may be for several of them.
// [NewSemaphore] makes a Semaphore, which must not be copied. Its methods are safe for concurrent
// use by tasks and goroutines.
//
// Requests are served in FIFO order, and free permits are kept for the first request. For example,
// a request for 10 permits waits while 9 of 10 are free; a later request for 1 permit waits behind
// it. Otherwise the large request would wait for as long as small requests arrive.
//
// Acquiring permits that are free does not let other tasks run, however often it is done.
type Semaphore struct {
	size  int64 // how many permits there are in all
	state permitState
	list  waitlist
}

// permitState is the word that says how many permits are free, and whether a request waits.
//
//  1. Acquire subtracts its permits if they are free and permitsWanted is clear (take). If not, it
//     takes the lock of the list, sets permitsWanted (want) and joins the list.
//  2. Release adds its permits if permitsWanted is clear (give). If it is set, Release takes the
//     lock of the list, adds the permits, and gives them to the first requests in the list (serve).
//  3. While permitsWanted is set the word is written only under the lock of the list. So no other
//     caller can take the permits that the first request waits for.
//
// want sets permitsWanted only in a word in which too few permits are free. If a Release has added
// the missing permits before, want takes them. If a Release adds them later, it finds the request
// in the list.
type permitState struct{ bits atomic.Int64 }

const (
	permitsWanted int64 = 1 << iota // the list is not empty
	permitsUnit                     // the unit of the remaining bits, which count the free permits
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

// want notes, under the lock of the list, that a request for n permits waits. If it reports true,
// the permits have become free and the caller has taken them instead.
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

// give gives n permits back. If a request waits, it needs the lock of the list: listed says that
// the caller has it. give reports false if it needs the lock and the caller does not have it. It
// panics if more permits would be free than there are.
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

// grant takes n permits for a request in the list, if they are free. The lock of the list is held,
// so a plain store is enough.
func (s *permitState) grant(n int64) bool {
	old := s.bits.Load()
	if old/permitsUnit < n {
		return false
	}
	s.bits.Store(old - n*permitsUnit)
	return true
}

// unwanted notes, under the lock of the list, that no request waits.
func (s *permitState) unwanted() { s.bits.And(^permitsWanted) }

// NewSemaphore returns a [Semaphore] of n permits, all of them free. It panics if n is negative or
// more than 1<<62 - 1.
func NewSemaphore(n int64) *Semaphore {
	if n < 0 || n > 1<<62-1 {
		panic("async: NewSemaphore with a negative or absurd number of permits")
	}
	s := &Semaphore{size: n}
	s.state.bits.Store(n * permitsUnit)
	return s
}

// Acquire waits for n permits and takes them. It fails only if cx is cancelled, with cx.Err(). Then
// it has taken none, and only the place in the queue is lost. It panics if n is negative, or more
// than there are in all: it would never return.
func (s *Semaphore) Acquire(cx *Context, n int64) error {
	s.check(n)
	if cx.callers() && cx.calm() && s.state.take(n) {
		return nil
	}
	_, err := Await(cx, s.AcquireFuture(n))
	return err
}

// TryAcquire takes n permits if they are free and no request waits, and reports whether it did. It
// panics if n is negative.
func (s *Semaphore) TryAcquire(n int64) bool {
	if n < 0 {
		panic(negativePermits)
	}
	return s.state.take(n)
}

// AcquireBlocking is [Semaphore.Acquire] for a goroutine outside the pool: it parks the goroutine.
// It fails only if ctx ends, with ctx.Err(). It panics in a task, and where Acquire panics.
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

// AcquireFuture returns the future of [Semaphore.Acquire]. When it is ready the caller has the
// permits. Giving it up before it is ready gives up its place in the queue, and gives back the
// permits that it was handed in the meantime. AcquireFuture panics where Acquire panics.
func (s *Semaphore) AcquireFuture(n int64) Future[None] {
	s.check(n)
	return &permitFuture{s: s, w: waiter{want: n}}
}

const negativePermits = "async: a negative number of permits"

// check panics if no request for n permits can be served.
func (s *Semaphore) check(n int64) {
	if n < 0 {
		panic(negativePermits)
	}
	if n > s.size {
		panic(fmt.Sprintf("async: Semaphore.Acquire of %d permits, of which there are %d in all", n, s.size))
	}
}

// Release gives n permits back. It panics if n is negative, or more than are held. Any task or
// goroutine may release permits that another one has acquired.
func (s *Semaphore) Release(n int64) {
	if n < 0 {
		panic(negativePermits)
	}
	if s.state.give(n, s.size, false) {
		return
	}
	s.list.mu.Lock()
	defer s.serve() // unlocks; deferred, since give may panic
	s.state.give(n, s.size, true)
}

// serve gives the free permits to the first requests in the list, unlocks the list, and wakes their
// tasks. It stops at the first request for which too few permits are free.
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

// permitFuture is a place in the queue of a Semaphore.
type permitFuture struct {
	s      *Semaphore
	queued bool // w has a place in the list, or has been handed the permits
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
	f.s.serve() // the next request may be for fewer permits
}
