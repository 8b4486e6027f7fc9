package async

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOneshot(t *testing.T) {
	h := newMockTask()
	t.Run("receiver first", func(t *testing.T) {
		var o Oneshot[int]
		pending(t, h, &o)
		_, err := o.TryRecv()
		require.Equal(t, ErrEmpty, err)
		h.woken()
		require.NoError(t, o.Send(1))
		require.True(t, h.woken())
		got(t, 1, h, &o)
		failed(t, ErrClosed, h, &o)
		require.Equal(t, ErrClosed, o.Send(2))
		require.Zero(t, o.v)
	})
	t.Run("sender first", func(t *testing.T) {
		var o Oneshot[*int]
		require.NoError(t, o.Send(new(int)))
		require.Equal(t, ErrClosed, o.Send(new(int)))
		require.Equal(t, ErrClosed, o.Close(), "it has been sent")
		v, err := o.TryRecv()
		require.NoError(t, err)
		require.NotNil(t, v)
		require.Nil(t, o.v, "not kept")
		_, err = o.TryRecv()
		require.Equal(t, ErrClosed, err)
	})
	t.Run("close", func(t *testing.T) {
		var o Oneshot[int]
		pending(t, h, &o)
		h2 := newMockTask()
		require.Equal(t, ErrPending, o.pollClosed(h2.cx))
		h.woken()
		require.NoError(t, o.Close())
		require.Equal(t, ErrClosed, o.Close())
		require.True(t, h.woken())
		require.True(t, h2.woken())
		failed(t, ErrClosed, h, &o)
		require.NoError(t, o.pollClosed(h2.cx))
		require.Equal(t, ErrClosed, o.Send(1))
	})
	t.Run("closed by the receipt", func(t *testing.T) {
		var o Oneshot[int]
		require.NoError(t, o.Send(1))
		require.Equal(t, ErrPending, o.pollClosed(h.cx))
		h.woken()
		got(t, 1, newMockTask(), &o)
		require.True(t, h.woken())
		require.NoError(t, o.pollClosed(h.cx))
	})
	t.Run("two receivers", func(t *testing.T) {
		var o Oneshot[int]
		h2 := newMockTask()
		pending(t, h, &o)
		pending(t, h2, &o)
		h.woken()
		require.NoError(t, o.Send(1))
		require.True(t, h.woken())
		require.True(t, h2.woken())
		got(t, 1, h2, &o)
		failed(t, ErrClosed, h, &o)
	})
}

// A Recv that is cancelled leaves the value to other receivers, even if the value has woken it.
func TestOneshotCancel(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for range 200 {
		var o Oneshot[int]
		r := Spawn(rt, o.Recv)
		c := Go(rt, o.Closed)
		eventually(t, func() bool { return waiting(r) && waiting(c) })
		go r.Cancel()
		require.NoError(t, o.Send(1))
		v, err := join(t, r)
		if err != nil {
			require.Equal(t, context.Canceled, err)
			v, err = o.RecvBlocking(t.Context())
		}
		require.NoError(t, err)
		require.Equal(t, 1, v)
		_, err = join(t, c)
		require.NoError(t, err)
	}

	var o Oneshot[int]
	c := Go(rt, o.Closed)
	c.Cancel()
	_, err := join(t, c)
	require.Equal(t, context.Canceled, err)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, o.Send(2))
	_, err = o.RecvBlocking(ctx)
	require.Equal(t, context.Canceled, err)
	misuse := Go(rt, func(cx *Context) error {
		require.Panics(t, func() { o.RecvBlocking(cx) })
		require.Panics(t, func() { o.closedBlocking(cx) })
		cx, cancel := cx.WithCancel()
		cancel()
		_, err := o.Recv(cx)
		return err
	})
	_, err = join(t, misuse)
	require.Equal(t, context.Canceled, err)
	v, err := o.TryRecv()
	require.NoError(t, err)
	require.Equal(t, 2, v)
}

// A caller that gives up leaves nothing behind in a Oneshot that is still in use.
func TestOneshotForgets(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var o Oneshot[int]
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { _, err := o.RecvBlocking(ctx); done <- err }()
		eventually(t, func() bool { return o.recvs.count() == 1 })
		cancel()
		require.Equal(t, context.Canceled, <-done)
		require.Zero(t, o.recvs.count())

		for _, recv := range []func(cx *Context) (int, error){
			o.Recv,
			func(cx *Context) (int, error) { return Await(cx, &o) },
			func(cx *Context) (int, error) { return Await(cx, o.recvFuture()) },
		} {
			h := Spawn(rt, recv)
			eventually(t, func() bool { return waiting(h) && o.recvs.count() == 1 })
			h.Cancel()
			_, err := join(t, h)
			require.Equal(t, context.Canceled, err)
			require.Zero(t, o.recvs.count())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- o.closedBlocking(ctx) }()
	eventually(t, func() bool { return o.closed.count() == 1 })
	cancel()
	require.Equal(t, context.Canceled, <-done)
	require.Equal(t, context.Canceled, o.closedBlocking(ctx))
	require.Zero(t, o.closed.count())
	closed := o.ClosedFuture()
	pending(t, newMockTask(), closed)
	giveUp(nil, closed)
	require.Zero(t, o.closed.count())
	go func() { done <- o.closedBlocking(t.Context()) }()
	eventually(t, func() bool { return o.closed.count() == 1 })

	h, f := newMockTask(), o.recvFuture()
	giveUp(nil, f) // it has no place yet
	pending(t, h, f)
	giveUp(nil, f)
	require.Zero(t, o.recvs.count())
	pending(t, h, f)
	require.NoError(t, o.Send(1))
	require.True(t, h.woken())
	giveUp(nil, f)
	got(t, 1, newMockTask(), o.recvFuture())
	require.NoError(t, <-done)
	got(t, None{}, newMockTask(), closed)
}

// Of several senders and several receivers one each succeeds. Of Send and Close one succeeds.
func TestOneshotRace(t *testing.T) {
	for i := range 2000 {
		var (
			o        Oneshot[int]
			sent, rx atomic.Int32
			done     = make(chan struct{})
		)
		party := func(f func()) { go func() { f(); done <- struct{}{} }() }
		for v := range 2 {
			party(func() {
				if o.Send(v+1) == nil {
					sent.Add(1)
				}
			})
			party(func() {
				for {
					switch v, err := o.TryRecv(); err {
					case nil:
						if v > 0 {
							rx.Add(1)
						}
						return
					case ErrClosed:
						return
					}
					runtime.Gosched()
				}
			})
		}
		closed := false
		party(func() {
			if i%2 == 0 {
				closed = o.Close() == nil
			}
		})
		for range 5 {
			receive(t, done)
		}
		want := int32(1)
		if closed {
			want = 0
		}
		require.Equal(t, want, sent.Load())
		require.Equal(t, want, rx.Load())
	}
}

// A value is sent while the receiver takes its place. The receiver sees it or is woken by it.
func TestOneshotSendWhilePolled(t *testing.T) {
	rounds := 50000
	if testing.Short() {
		rounds = 10000
	}
	begin, done := make(chan *Oneshot[int]), make(chan struct{})
	go func() {
		for o := range begin {
			o.Send(1)
			done <- struct{}{}
		}
	}()
	h := newMockTask()
	for range rounds {
		o := new(Oneshot[int])
		h.woken()
		begin <- o
		_, err := o.Poll(h.cx)
		<-done
		require.True(t, err == nil || h.woken())
	}
	close(begin)
}
