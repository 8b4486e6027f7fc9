package async

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRecvFrom(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ch := make(chan int, 1)
	recv := func(cx *Context) (int, error) { return RecvFrom(cx, ch) }
	ch <- 1
	v, err := join(t, Spawn(rt, recv))
	require.NoError(t, err)
	require.Equal(t, 1, v)

	h := Spawn(rt, recv)
	eventually(t, func() bool { return waiting(h) && h.info(nil).Waits == "goroutine" })
	ch <- 2
	v, err = join(t, h)
	require.NoError(t, err)
	require.Equal(t, 2, v)

	h = Spawn(rt, recv)
	eventually(t, func() bool { return waiting(h) })
	h.Cancel()
	_, err = join(t, h)
	require.Equal(t, context.Canceled, err)

	h = Spawn(rt, recv)
	eventually(t, func() bool { return waiting(h) })
	close(ch)
	_, err = join(t, h)
	require.Equal(t, ErrClosed, err)
	_, err = join(t, Spawn(rt, recv))
	require.Equal(t, ErrClosed, err)

	// A call whose Context is cancelled takes nothing.
	full := make(chan int, 1)
	full <- 1
	h = Spawn(rt, func(cx *Context) (int, error) {
		cx, cancel := cx.WithCancel()
		cancel()
		return RecvFrom(cx, full)
	})
	_, err = join(t, h)
	require.Equal(t, context.Canceled, err)
	require.Len(t, full, 1)
}

// A RecvFrom is cancelled at any moment. It has received a value or has not, and reports which.
func TestRecvFromCancel(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ch := make(chan int)
	rounds := 500
	for i := range rounds {
		h := Spawn(rt, func(cx *Context) (int, error) { return RecvFrom(cx, ch) })
		eventually(t, func() bool { return waiting(h) })
		go h.Cancel()
		taken := false
		var v int
		var err error
		for !taken && !h.state.done() {
			select {
			case ch <- i:
				taken = true
			default:
				runtime.Gosched()
			}
		}
		v, err = join(t, h)
		if taken {
			require.NoError(t, err)
			require.Equal(t, i, v)
		} else {
			require.Equal(t, context.Canceled, err)
		}
	}
}

// A RecvFrom or SendTo that Shutdown unwinds leaves no goroutine behind (see newTestRuntime), and
// takes or sends nothing later.
func TestGoChanUnwound(t *testing.T) {
	// The grace period gives the tasks time to wait again after they were woken to be cancelled. A
	// task that has not waited again when the workers stop sees that its Context has ended, and
	// returns.
	rt := newTestRuntime(t, Config{Workers: 1, Grace: 50 * time.Millisecond, Unhandled: func(Task, error) {}})
	from, to := make(chan int), make(chan int)
	receives := Go(rt, func(cx *Context) error { return second(RecvFrom(cx.WithoutCancel(), from)) })
	sends := Go(rt, func(cx *Context) error { return SendTo(cx.WithoutCancel(), to, 1) })
	eventually(t, func() bool { return waiting(receives) && waiting(sends) })
	require.Error(t, rt.Shutdown(ended()))
	for _, h := range []*JoinHandle[None]{receives, sends} {
		_, err := join(t, h)
		require.True(t, err == ErrShutdown || err == context.Canceled, "%v", err)
	}
	// A goroutine that is left behind would take part in these operations sooner or later.
	eventually(t, func() bool { return runtime.NumGoroutine() <= goroutinesBefore })
	select {
	case from <- 1:
		require.Fail(t, "a value has been taken for nobody")
	case <-to:
		require.Fail(t, "it has been sent for nobody")
	default:
	}
}

func TestSendTo(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ch := make(chan int, 1)
	send := func(cx *Context) error { return SendTo(cx, ch, 1) }
	_, err := join(t, Go(rt, send))
	require.NoError(t, err)
	h := Go(rt, send)
	eventually(t, func() bool { return waiting(h) })
	require.Equal(t, 1, receive(t, ch))
	_, err = join(t, h)
	require.NoError(t, err)

	h = Go(rt, send)
	eventually(t, func() bool { return waiting(h) })
	h.Cancel()
	_, err = join(t, h)
	require.Equal(t, context.Canceled, err)
	require.Len(t, ch, 1)

	// (To close ch while the task waits would be a data race by Go's rules.)
	close(ch)
	_, err = join(t, Go(rt, send))
	require.Equal(t, ErrClosed, err)
}

func TestFromGoChan(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for _, n := range []int{0, 1, 16} {
		ch := make(chan int)
		c := FromGoChan(t.Context(), ch, n)
		h := Spawn(rt, func(cx *Context) (sum int, err error) {
			for v := range c.All(cx) {
				sum += v
			}
			return sum, nil
		})
		for i := range 100 {
			ch <- i
		}
		close(ch)
		sum, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, 99*50, sum)
		eventually(t, c.IsClosed)
	}

	// The end of ctx loses no value that was taken.
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		ch := make(chan int)
		c := FromGoChan(ctx, ch, i%3)
		go cancel()
		select {
		case ch <- i:
			v, err := c.RecvBlocking(t.Context())
			require.NoError(t, err)
			require.Equal(t, i, v)
		case <-ctx.Done():
		}
		_, err := c.RecvBlocking(t.Context())
		require.Equal(t, ErrClosed, err)
	}
}

func TestGroupDone(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var wg sync.WaitGroup
	wg.Add(1)
	wait := func(cx *Context) error { return WaitGroupDone(cx, &wg) }
	h := Go(rt, wait)
	gaveUp := Go(rt, wait)
	eventually(t, func() bool { return waiting(h) && waiting(gaveUp) })
	gaveUp.Cancel()
	_, err := join(t, gaveUp)
	require.Equal(t, context.Canceled, err)
	wg.Done()
	_, err = join(t, h)
	require.NoError(t, err)
}

func TestContextDone(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ctx, cancel := context.WithCancel(context.Background())
	before := runtime.NumGoroutine()
	h := Go(rt, func(cx *Context) error { return ContextDone(cx, ctx) })
	gaveUp := Go(rt, func(cx *Context) error { return ContextDone(cx, ctx) })
	eventually(t, func() bool { return waiting(h) && waiting(gaveUp) })
	eventually(t, func() bool { return runtime.NumGoroutine() <= before+2 }, "the tasks' coroutines, and nothing else")
	gaveUp.Cancel()
	_, err := join(t, gaveUp)
	require.Equal(t, context.Canceled, err)
	cancel()
	_, err = join(t, h)
	require.NoError(t, err)
	_, err = join(t, Go(rt, func(cx *Context) error { return ContextDone(cx, ctx) }))
	require.NoError(t, err)

	ended, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	i, err := join(t, Spawn(rt, func(cx *Context) (int, error) {
		return Select(cx, OnFuture(NeverFuture[int]()), OnFuture(ContextDoneFuture(ended)))
	}))
	require.NoError(t, err)
	require.Equal(t, 1, i)
}

// A WaitGroupDoneFuture that was given up no longer knows the task, although its goroutine goes on.
func TestWaitGroupDoneForgets(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var wg sync.WaitGroup
	wg.Add(1)
	wakes := atomic.Int32{}
	cx := NewContext(rt, NewWaker(func() { wakes.Add(1) }))
	f := WaitGroupDoneFuture(&wg)
	_, err := f.Poll(cx)
	require.Equal(t, ErrPending, err)
	Cancel(cx, f)
	wakes.Store(0) // a task that leaves a slot is polled once more
	wg.Done()
	eventually(t, func() bool { _, err := f.(*groupDone).o.TryRecv(); return err == nil }, "the goroutine ends")
	require.Zero(t, wakes.Load())
}
