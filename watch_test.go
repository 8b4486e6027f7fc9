package async

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWatch(t *testing.T) {
	w := NewWatch("a")
	require.Equal(t, "a", w.Get())
	r := w.Watch()
	require.False(t, r.HasChanged())
	h := newMockTask()
	_, err := r.pollChanged(h.cx)
	require.Equal(t, ErrPending, err)
	require.NoError(t, w.Set("b"))
	require.NoError(t, w.Set("c"))
	require.True(t, h.woken())
	require.True(t, r.HasChanged())
	v, err := r.pollChanged(h.cx)
	require.NoError(t, err)
	require.Equal(t, "c", v, "the last one only")
	_, err = r.pollChanged(h.cx)
	require.Equal(t, ErrPending, err)

	require.NoError(t, w.Set("c"))
	require.True(t, h.woken(), "also if it is equal")
	require.Equal(t, "c", r.Get())
	require.False(t, r.HasChanged(), "Get has seen it")
	_, err = r.PollNext(h.cx)
	require.Equal(t, ErrPending, err)

	require.NoError(t, w.Set("d"))
	require.NoError(t, w.Close())
	require.Equal(t, ErrClosed, w.Close())
	require.True(t, h.woken())
	v, err = r.PollNext(h.cx)
	require.NoError(t, err)
	require.Equal(t, "d", v, "the last change comes before the end")
	_, err = r.PollNext(h.cx)
	require.Equal(t, io.EOF, err)
	_, err = r.pollChanged(h.cx)
	require.Equal(t, ErrClosed, err)
	require.Equal(t, ErrClosed, w.Set("e"))
	require.Equal(t, "d", w.Get())

	var zero Watch[int]
	require.Zero(t, zero.Get())
}

func TestWatchUpdate(t *testing.T) {
	w := NewWatch(0)
	done := make(chan struct{})
	for range 4 {
		go func() {
			for range 500 {
				w.Update(func(n int) int { return n + 1 })
			}
			done <- struct{}{}
		}()
	}
	for range 4 {
		receive(t, done)
	}
	require.Equal(t, 2000, w.Get())
	v, err := w.Update(func(n int) int { return n + 1 })
	require.NoError(t, err)
	require.Equal(t, 2001, v)
	w.Close()
	_, err = w.Update(func(n int) int { return n + 1 })
	require.Equal(t, ErrClosed, err)
	require.Equal(t, 2001, w.Get())
}

// A task is cancelled after it was called: the change is there for the next caller.
func TestWatchCancel(t *testing.T) {
	w := NewWatch(0)
	r := w.Watch()
	h := newMockTask()
	f := r.changedFuture()
	pending(t, h, f)
	w.Set(1)
	giveUp(nil, f)
	got(t, 1, h, r.changedFuture())
	pending(t, h, f)
	giveUp(nil, f)
	require.Zero(t, w.topic.count())

	rt := newTestRuntime(t, Config{Workers: 1})
	j := Spawn(rt, r.Changed)
	eventually(t, func() bool { return waiting(j) })
	j.Cancel()
	_, err := join(t, j)
	require.Equal(t, context.Canceled, err)
	require.Zero(t, w.topic.count())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.ChangedBlocking(ctx)
	require.Equal(t, context.Canceled, err)
	_, err = join(t, Go(rt, func(cx *Context) error {
		require.Panics(t, func() { r.ChangedBlocking(cx) })
		return nil
	}))
	require.NoError(t, err)
}

// Every watcher sees the last value, and no value twice.
func TestWatchTasks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	w := NewWatch(0)
	const last = 2000
	var hs []*JoinHandle[int]
	for range 4 {
		r := w.Watch()
		hs = append(hs, Spawn(rt, func(cx *Context) (seen int, err error) {
			for {
				switch v, err := r.Changed(cx); {
				case err == ErrClosed:
					return seen, nil
				case err != nil || v <= seen:
					return v, io.ErrUnexpectedEOF
				default:
					seen = v
				}
			}
		}))
	}
	r := w.Watch()
	outside := make(chan int)
	go func() {
		seen := 0
		for {
			v, err := r.ChangedBlocking(context.Background())
			if err != nil {
				break
			}
			seen = v
		}
		outside <- seen
	}()
	for i := 1; i <= last; i++ {
		require.NoError(t, w.Set(i))
	}
	w.Close()
	for _, h := range hs {
		seen, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, last, seen)
	}
	require.Equal(t, last, receive(t, outside))
}

// Two tasks wait with one Watcher: each change is for one of them.
func TestWatchShared(t *testing.T) {
	w := NewWatch(0)
	r := w.Watch()
	h1, h2 := newMockTask(), newMockTask()
	f1, f2 := r.changedFuture(), r.changedFuture()
	pending(t, h1, f1)
	pending(t, h2, f2)
	w.Set(1)
	got(t, 1, h1, f1)
	pending(t, h2, f2)
	h2.woken()
	w.Set(2)
	require.True(t, h2.woken())
	got(t, 2, h2, f2)
}
