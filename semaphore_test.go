package async

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSemaphoreByHand(t *testing.T) {
	wait := waitersOf(t)
	s := NewSemaphore(10)
	require.True(t, s.TryAcquire(0) && s.TryAcquire(1) && s.TryAcquire(9))
	require.False(t, s.TryAcquire(1))
	require.False(t, s.TryAcquire(11))
	a, b, c := wait(s.AcquireFuture(2)), wait(s.AcquireFuture(3)), wait(s.AcquireFuture(4))
	s.Release(4)
	require.True(t, a.woken() && a.ready(t))
	require.False(t, b.woken(), "2 are not enough")
	s.Release(5)
	require.True(t, b.woken() && c.woken(), "7 are, for both")
	require.True(t, c.ready(t) && b.ready(t), "in whatever order they look")
	require.False(t, s.TryAcquire(2))
	s.Release(10)
	require.True(t, s.TryAcquire(10))
}

// A large request is not overtaken by small requests, however many arrive.
func TestSemaphoreLargeRequests(t *testing.T) {
	wait := waitersOf(t)
	s := NewSemaphore(10)
	require.True(t, s.TryAcquire(10))
	large := wait(s.AcquireFuture(10))
	var small []*mockWaiter
	for range 10 {
		require.False(t, s.TryAcquire(1))
		small = append(small, wait(s.AcquireFuture(1)))
		require.False(t, large.woken())
		s.Release(1)
	}
	require.True(t, large.woken() && large.ready(t))
	for _, w := range small {
		require.False(t, w.woken())
	}
	s.Release(10)
	for _, w := range small {
		require.True(t, w.woken() && w.ready(t))
	}
}

// When a large request gives up, the small requests behind it get their permits.
func TestSemaphoreLargeRequestGivesUp(t *testing.T) {
	wait := waitersOf(t)
	s := NewSemaphore(10)
	require.True(t, s.TryAcquire(2))
	large, small := wait(s.AcquireFuture(10)), wait(s.AcquireFuture(8))
	large.cancel()
	require.True(t, small.woken() && small.ready(t))
}

func TestSemaphoreExtremes(t *testing.T) {
	s := NewSemaphore(1<<62 - 1)
	require.True(t, s.TryAcquire(1<<62-1))
	require.False(t, s.TryAcquire(1))
	s.Release(1<<62 - 1)
	requireMisuse(t, misuse(func() { s.Release(math.MaxInt64) }), "Release")
	require.True(t, s.TryAcquire(1<<62-1))
	require.NotEmpty(t, misuse(func() { NewSemaphore(1 << 62) }))
	require.False(t, NewSemaphore(0).TryAcquire(1))
}

func TestSemaphoreExcludes(t *testing.T) {
	s := NewSemaphore(1)
	inside := 0
	contend(t, 300,
		func(cx *Context) error { return s.Acquire(cx, 1) },
		func(ctx context.Context) error { return s.AcquireBlocking(ctx, 1) },
		func() Future[None] { return s.AcquireFuture(1) },
		func() {
			if inside++; inside != 1 {
				t.Error("two hold it")
			}
		},
		func() { inside--; s.Release(1) })
	require.True(t, s.TryAcquire(1))
}

// FuzzSemaphore checks the semaphore against a queue and a number.
func FuzzSemaphore(f *testing.F) {
	// The other bits of an operation are 3 bits for the actor and 3 bits for the number of permits.
	const acquire, try, release, cancel = 0 << 6, 1 << 6, 2 << 6, 3 << 6
	const size, actors = 5, 7
	f.Add([]byte{acquire | 5, acquire | 8 | 1, acquire | 16 | 2, release, release})
	f.Add([]byte{acquire | 4, acquire | 8 | 5, try | 16 | 1, acquire | 24 | 1, cancel | 8, release})
	f.Add([]byte{acquire | 3, acquire | 8 | 2, acquire | 16 | 5, acquire | 24 | 0, release | 8, cancel | 24, release, cancel | 16})
	f.Fuzz(func(t *testing.T, ops []byte) {
		s := NewSemaphore(size)
		type actor struct {
			w     *mockWaiter
			want  int64
			holds bool
		}
		var all [actors]actor
		var queue []*actor
		free := int64(size)
		serve := func() {
			for len(queue) > 0 && queue[0].want <= free {
				free -= queue[0].want
				require.True(t, queue[0].w.woken() && queue[0].w.ready(t))
				queue[0].holds, queue[0].w = true, nil
				queue = queue[1:]
			}
		}
		for _, op := range ops {
			a, n := &all[op>>3&7%actors], int64(op&7)%(size+1)
			switch kind := op & 0xc0; {
			case kind == acquire && !a.holds && a.w == nil:
				a.want, a.w = n, newMockWaiter(s.AcquireFuture(n))
				got := a.w.ready(t)
				require.Equal(t, len(queue) == 0 && n <= free, got)
				if got {
					a.holds, a.w = true, nil
					free -= n
				} else {
					queue = append(queue, a)
				}
			case kind == try && !a.holds && a.w == nil:
				got := s.TryAcquire(n)
				require.Equal(t, len(queue) == 0 && n <= free, got)
				if got {
					a.holds, a.want = true, n
					free -= n
				}
			case kind == release && a.holds:
				a.holds = false
				free += a.want
				s.Release(a.want)
			case kind == cancel && a.w != nil:
				a.w.cancel()
				a.w = nil
				for i, q := range queue {
					if q == a {
						queue = append(queue[:i:i], queue[i+1:]...)
					}
				}
			}
			serve()
			for _, q := range queue {
				require.False(t, q.w.woken(), "too early")
			}
			require.Equal(t, free, s.state.bits.Load()/permitsUnit)
		}
		for len(queue) > 0 {
			for i := range all {
				if a := &all[i]; a.holds {
					a.holds = false
					free += a.want
					s.Release(a.want)
					serve()
				}
			}
		}
	})
}
