package async

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBroadcast(t *testing.T) {
	b := NewBroadcast[int](2)
	n, err := b.Send(0) // there is no subscriber
	require.NoError(t, err)
	require.Zero(t, n)
	s1, s2 := b.Subscribe(), b.Subscribe()
	require.Equal(t, 2, b.subscribers())
	h1, h2 := newMockTask(), newMockTask()
	_, err = s1.pollRecv(h1.cx)
	require.Equal(t, ErrPending, err)
	_, err = s2.pollRecv(h2.cx)
	require.Equal(t, ErrPending, err)
	n, err = b.Send(1)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.True(t, h1.woken())
	require.True(t, h2.woken())
	v, err := s1.TryRecv()
	require.NoError(t, err)
	require.Equal(t, 1, v)
	_, err = s1.TryRecv()
	require.Equal(t, ErrEmpty, err)

	b.Send(2)
	b.Send(3)
	b.Send(4)
	_, err = s2.TryRecv()
	var lagged *LaggedError
	require.ErrorAs(t, err, &lagged)
	require.EqualValues(t, 2, lagged.Missed)
	require.Contains(t, err.Error(), "2 messages")
	for _, want := range []int{3, 4} {
		v, err = s2.TryRecv()
		require.NoError(t, err)
		require.Equal(t, want, v)
	}

	require.NoError(t, b.Close())
	require.Equal(t, ErrClosed, b.Close())
	_, err = b.Send(5)
	require.Equal(t, ErrClosed, err)
	_, err = s1.TryRecv()
	require.ErrorAs(t, err, &lagged)
	v, err = s1.PollNext(h1.cx)
	require.NoError(t, err)
	require.Equal(t, 3, v)
	s1.TryRecv()
	_, err = s1.PollNext(h1.cx)
	require.Equal(t, io.EOF, err)
	_, err = s1.TryRecv()
	require.Equal(t, ErrClosed, err)
	require.Panics(t, func() { NewBroadcast[int](0) })
}

// A subscription that is closed wakes the tasks that wait with it, and takes nothing from other
// subscriptions.
func TestBroadcastUnsubscribe(t *testing.T) {
	b := NewBroadcast[int](2)
	s1, s2 := b.Subscribe(), b.Subscribe()
	h1, h2 := newMockTask(), newMockTask()
	f1, f2 := s1.recvFuture(), s2.recvFuture()
	pending(t, h1, f1)
	pending(t, h2, f2)
	s1.Close()
	s1.Close()
	require.True(t, h1.woken())
	failed(t, ErrClosed, h1, f1)
	pending(t, h2, f2)
	require.Equal(t, 1, b.subscribers())
	h2.woken()
	b.Send(1)
	require.True(t, h2.woken())
	got(t, 1, h2, f2)
}

// Closing n subscriptions costs n wakes, not n wakes for each. Only the tasks that wait with the
// closed subscription look again.
func TestBroadcastUnsubscribeWakes(t *testing.T) {
	const n = 50
	b := NewBroadcast[int](1)
	hs, subs, fs := make([]*mockTask, n), make([]*Subscription[int], n), make([]Future[int], n)
	for i := range n {
		hs[i], subs[i] = newMockTask(), b.Subscribe()
		fs[i] = subs[i].recvFuture()
		pending(t, hs[i], fs[i])
	}
	second, again := newMockTask(), subs[0].recvFuture()
	pending(t, second, again)
	pending(t, second, again) // it still has one place
	for i, s := range subs[:n-1] {
		s.Close()
		for j, h := range hs {
			require.Equal(t, i == j, h.woken(), "%d of %d", j, i)
		}
		failed(t, ErrClosed, hs[i], fs[i])
		require.Zero(t, subs[i+1].queue.n-1)
	}
	require.True(t, second.woken())
	failed(t, ErrClosed, second, again)
	require.Zero(t, subs[0].queue.n)

	// The same holds after a message that another caller has received.
	last, h := subs[n-1], hs[n-1]
	b.Send(1)
	_, err := last.TryRecv()
	require.NoError(t, err)
	pending(t, h, fs[n-1])
	h.woken()
	last.Close()
	require.True(t, h.woken())
	failed(t, ErrClosed, h, fs[n-1])
	require.Zero(t, last.queue.n)
	require.Zero(t, b.topic.count())
}

// A task is cancelled after it was called: the message is there for the next Recv.
func TestBroadcastCancel(t *testing.T) {
	b := NewBroadcast[int](2)
	s := b.Subscribe()
	h := newMockTask()
	f := s.recvFuture()
	pending(t, h, f)
	b.Send(1)
	giveUp(nil, f)
	got(t, 1, h, s.recvFuture())
	pending(t, h, f)
	giveUp(nil, f)
	require.Zero(t, b.topic.count())

	rt := newTestRuntime(t, Config{Workers: 1})
	r := Spawn(rt, s.Recv)
	eventually(t, func() bool { return waiting(r) })
	r.Cancel()
	_, err := join(t, r)
	require.Equal(t, context.Canceled, err)
	require.Zero(t, b.topic.count())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.RecvBlocking(ctx)
	require.Equal(t, context.Canceled, err)
	_, err = join(t, Go(rt, func(cx *Context) error {
		require.Panics(t, func() { s.RecvBlocking(cx) })
		return nil
	}))
	require.NoError(t, err)
}

// Every subscriber gets every message, in order, or gets the number of the messages that it has
// lost.
func TestBroadcastTasks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	b := NewBroadcast[int](4)
	const messages = 2000
	count := func(seq func(yield func(int, error) bool)) (n int, err error) {
		next := 0
		for v, err := range seq {
			var lagged *LaggedError
			switch {
			case errors.As(err, &lagged):
				next += int(lagged.Missed)
			case err != nil:
				return next, err
			case v != next:
				return next, io.ErrUnexpectedEOF
			default:
				next++
			}
		}
		return next, nil
	}
	var hs []*JoinHandle[int]
	for range 4 {
		s := b.Subscribe()
		hs = append(hs, Spawn(rt, func(cx *Context) (int, error) { return count(s.All(cx)) }))
	}
	s := b.Subscribe()
	outside := make(chan int)
	go func() {
		n, _ := count(func(yield func(int, error) bool) {
			for {
				v, err := s.RecvBlocking(context.Background())
				if err == ErrClosed || !yield(v, err) {
					return
				}
			}
		})
		outside <- n
	}()
	for i := range messages {
		_, err := b.Send(i)
		require.NoError(t, err)
	}
	b.Close()
	for _, h := range hs {
		n, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, messages, n)
	}
	require.Equal(t, messages, receive(t, outside))
}

// All ends with the error of a cancelled Context.
func TestBroadcastAllCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s := NewBroadcast[int](1).Subscribe()
	h := Go(rt, func(cx *Context) error {
		for _, err := range s.All(cx) {
			return err
		}
		return nil
	})
	h.Cancel()
	_, err := join(t, h)
	require.Equal(t, context.Canceled, err)
}

// Two tasks that receive from one subscription share its messages.
func TestBroadcastShared(t *testing.T) {
	b := NewBroadcast[int](4)
	s := b.Subscribe()
	h1, h2 := newMockTask(), newMockTask()
	f1, f2 := s.recvFuture(), s.recvFuture()
	pending(t, h1, f1)
	pending(t, h2, f2)
	b.Send(1)
	got(t, 1, h1, f1)
	pending(t, h2, f2)
	h2.woken()
	b.Send(2)
	require.True(t, h2.woken())
	got(t, 2, h2, f2)
}
