package async

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// The mutex workloads of the announcement, and further ones. One operation is the whole workload,
// unless the comment of a benchmark says otherwise.
const (
	contentionTasks = 10
	contentionTimes = 1000
	lonelyTimes     = 10000
)

// benchTasks measures work that n straight-line tasks do. The tasks are started in three ways:
//
//   - by a future that is spawned for each operation, so that the time contains the wakes of
//     threads that the spawning causes;
//   - by a task that waits for the tasks;
//   - on the workers in turn.
func benchTasks(b *testing.B, n int, work func(cx *Context)) {
	b.Run("straight", func(b *testing.B) {
		benchOn(b, func(cx *Context, done func()) {
			count := countdown(n, done)
			for range n {
				Go(cx, func(cx *Context) error { work(cx); count(); return nil })
			}
		})
	})
	b.Run("straight-inside", func(b *testing.B) {
		b.ReportAllocs()
		Go(benchRuntime(b), func(cx *Context) error {
			for b.Loop() {
				var wg WaitGroup
				for range n {
					wg.Go(cx, func(cx *Context) error { work(cx); return nil })
				}
				wg.Wait(cx)
			}
			return nil
		}).JoinBlocking(b.Context())
	})
	b.Run("straight-spread", func(b *testing.B) {
		rt := benchRuntime(b)
		over := make(chan struct{})
		b.ReportAllocs()
		for b.Loop() {
			count := countdown(n, func() { over <- struct{}{} })
			for i := range n {
				Go(aimAt(rt, i%2), func(cx *Context) error { work(cx); count(); return nil })
			}
			<-over
		}
	})
}

func benchGoroutines(b *testing.B, n int, work func()) {
	over := make(chan struct{})
	b.ReportAllocs()
	for b.Loop() {
		count := countdown(n, func() { over <- struct{}{} })
		for range n {
			go func() { work(); count() }()
		}
		<-over
	}
}

// locker is a plain future that locks and unlocks, with one future for all locks, or with a new
// future for each lock.
type locker struct {
	m     *Mutex
	left  int
	fresh bool
	now   Future[None]
	done  func()
}

func (l *locker) Poll(cx *Context) (None, error) {
	for ; l.left > 0; l.left-- {
		if l.now == nil {
			l.now = l.m.LockFuture()
		}
		if _, err := l.now.Poll(cx); err != nil {
			return None{}, err
		}
		if l.fresh {
			l.now = nil
		}
		l.m.Unlock()
	}
	l.done()
	return None{}, nil
}

// keptMutex and keptAsyncMutex hold the mutexes of BenchmarkMutexCreate, so that the compiler
// cannot optimize the mutexes away.
var (
	keptMutex      *sync.Mutex
	keptAsyncMutex *Mutex
)

// BenchmarkMutexCreate allocates mutexes and does not lock them.
func BenchmarkMutexCreate(b *testing.B) {
	b.Run("sync", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			keptMutex = new(sync.Mutex)
		}
	})
	b.Run("async", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			keptAsyncMutex = new(Mutex)
		}
	})
}

func benchMutex(b *testing.B, tasks, times int) {
	b.Run("goroutines", func(b *testing.B) {
		var m sync.Mutex
		benchGoroutines(b, tasks, func() {
			for range times {
				m.Lock()
				m.Unlock()
			}
		})
	})
	for name, fresh := range map[string]bool{"futures": false, "futures-fresh": true} {
		b.Run(name, func(b *testing.B) {
			var m Mutex
			benchOn(b, func(cx *Context, done func()) {
				count := countdown(tasks, done)
				for range tasks {
					SpawnFuture(cx, &locker{m: &m, left: times, fresh: fresh, done: count})
				}
			})
		})
	}
	var m Mutex
	work := func(cx *Context) {
		for range times {
			m.Lock(cx)
			m.Unlock()
		}
	}
	benchTasks(b, tasks, work)
}

func BenchmarkMutexContention(b *testing.B)   { benchMutex(b, contentionTasks, contentionTimes) }
func BenchmarkMutexNoContention(b *testing.B) { benchMutex(b, 1, lonelyTimes) }

// BenchmarkMutexFastPath measures one lock and unlock in a loop without contention: the cost of the
// fast path alone.
func BenchmarkMutexFastPath(b *testing.B) {
	b.Run("sync", func(b *testing.B) {
		var m sync.Mutex
		for b.Loop() {
			m.Lock()
			m.Unlock()
		}
	})
	b.Run("async", func(b *testing.B) {
		rt, err := New(Config{Workers: 2, Stalled: func(Stall) {}})
		if err != nil {
			b.Fatal(err)
		}
		defer rt.Shutdown(ended())
		var m Mutex
		Go(rt, func(cx *Context) error {
			for b.Loop() {
				m.Lock(cx)
				m.Unlock()
			}
			return nil
		}).JoinBlocking(b.Context())
	})
}

// BenchmarkMutexHeld holds the mutex while other tasks run, so that each lock waits.
func BenchmarkMutexHeld(b *testing.B) {
	b.Run("goroutines", func(b *testing.B) {
		var m sync.Mutex
		benchGoroutines(b, contentionTasks, func() {
			for range 100 {
				m.Lock()
				runtime.Gosched()
				m.Unlock()
			}
		})
	})
	var m Mutex
	work := func(cx *Context) {
		for range 100 {
			m.Lock(cx)
			Yield(cx)
			m.Unlock()
		}
	}
	benchTasks(b, contentionTasks, work)
}

// BenchmarkWakeOne has n waiters. One operation wakes the first waiter, which then waits again,
// behind the other waiters. The cost must not depend on n.
func BenchmarkWakeOne(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000, 10000} {
		run := func(name string, future func() Future[None], pass func()) {
			b.Run(fmt.Sprintf("%s/waiters=%d", name, n), func(b *testing.B) {
				all := make([]*mockWaiter, n)
				for i := range all {
					all[i] = newMockWaiter(future())
					all[i].poll()
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					w := all[i%n]
					pass()
					if w.poll() != nil || w.poll() != ErrPending {
						b.Fatal("the waiters are not woken in FIFO order")
					}
				}
				for _, w := range all { // the next run uses the same lock
					giveUp(nil, w.f)
				}
			})
		}
		m := new(Mutex)
		m.TryLock()
		run("Mutex", m.LockFuture, m.Unlock)
		s := NewSemaphore(1)
		s.TryAcquire(1)
		run("Semaphore", func() Future[None] { return s.AcquireFuture(1) }, func() { s.Release(1) })
		rw := new(RWMutex)
		rw.TryLock()
		run("RWMutex.Lock", rw.LockFuture, rw.Unlock)
		no := new(Notify)
		run("Notify", no.WaitFuture, no.NotifyOne)
		c := NewCond(new(Mutex))
		run("Cond", func() Future[None] { return &condFuture{c: c, begun: true} }, c.Signal)
		b.Run(fmt.Sprintf("sync.Cond/waiters=%d", n), func(b *testing.B) {
			sc := sync.NewCond(new(sync.Mutex))
			var all sync.WaitGroup
			quit, turn := false, make(chan None, n)
			for range n {
				all.Go(func() {
					sc.L.Lock()
					defer sc.L.Unlock()
					for !quit {
						turn <- None{}
						sc.Wait()
					}
				})
				<-turn
			}
			for b.Loop() {
				sc.L.Lock()
				sc.Signal()
				sc.L.Unlock()
				<-turn
			}
			sc.L.Lock()
			quit = true
			sc.L.Unlock()
			sc.Broadcast()
			all.Wait()
		})
	}
}

// BenchmarkRWMutexReadMostly writes once in a hundred times.
func BenchmarkRWMutexReadMostly(b *testing.B) {
	b.Run("goroutines", func(b *testing.B) {
		var m sync.RWMutex
		benchGoroutines(b, contentionTasks, func() {
			for i := range contentionTimes {
				if i%100 == 0 {
					m.Lock()
					m.Unlock()
				} else {
					m.RLock()
					m.RUnlock()
				}
			}
		})
	})
	var m RWMutex
	work := func(cx *Context) {
		for i := range contentionTimes {
			if i%100 == 0 {
				m.Lock(cx)
				m.Unlock()
			} else {
				m.RLock(cx)
				m.RUnlock()
			}
		}
	}
	benchTasks(b, contentionTasks, work)
}

// BenchmarkSemaphore makes ten tasks share three permits; goroutines use a channel of that
// capacity.
func BenchmarkSemaphore(b *testing.B) {
	b.Run("goroutines-chan", func(b *testing.B) {
		c := make(chan None, 3)
		benchGoroutines(b, contentionTasks, func() {
			for range contentionTimes {
				c <- None{}
				<-c
			}
		})
	})
	s := NewSemaphore(3)
	work := func(cx *Context) {
		for range contentionTimes {
			s.Acquire(cx, 1)
			s.Release(1)
		}
	}
	benchTasks(b, contentionTasks, work)
}
