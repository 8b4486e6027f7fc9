package async

import (
	"context"
	"io"
	"math/rand"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOneshot(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	cx, wakes := newPollCx(t, rt)
	var o Oneshot[int]
	_, err := o.TryRecv()
	require.Equal(t, ErrEmpty, err)
	_, err = o.Poll(cx)
	require.Equal(t, ErrPending, err)
	require.NoError(t, o.Send(1))
	require.EqualValues(t, 1, wakes.Load())
	require.Equal(t, ErrClosed, o.Send(2))
	o.Close()
	require.True(t, o.Closed())
	v, err := o.Poll(cx)
	require.NoError(t, err)
	require.Equal(t, 1, v)
	_, err = o.Poll(cx)
	require.Equal(t, ErrClosed, err)

	var never Oneshot[int]
	f := never.RecvFuture()
	_, err = f.Poll(cx)
	require.Equal(t, ErrPending, err)
	never.Close()
	never.Close()
	_, err = f.Poll(cx)
	require.Equal(t, ErrClosed, err)
	require.Equal(t, ErrClosed, never.Send(1))
}

// A value stays for others if its receiver gives up.
func TestOneshotCancel(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for range 500 {
		var o Oneshot[int]
		h := Spawn(rt, func(cx *Context) (int, error) { return o.Recv(cx) })
		go h.Cancel()
		go o.Send(1)
		if _, err := join(t, h); err != nil {
			require.Equal(t, context.Canceled, err)
			v, err := o.RecvBlocking(t.Context())
			require.NoError(t, err)
			require.Equal(t, 1, v)
		}
		eventually(t, func() bool { return o.slot.p.Load() == nil }, "somebody waits still")
	}
}

// Everybody sees the last value, in order, and none twice.
func TestWatch(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const readers, last = 8, 2000
	w := NewWatch(0)
	var hs []*JoinHandle[None]
	for i := range readers {
		r := w.Subscribe()
		if i%2 == 0 {
			hs = append(hs, Go(rt, func(cx *Context) error {
				seen := 0
				for v := range r.All(cx) {
					if v <= seen {
						t.Errorf("%d after %d", v, seen)
					}
					seen = v
				}
				require.Equal(t, last, seen)
				return nil
			}))
			continue
		}
		hs = append(hs, SpawnBlocking(rt, func() (None, error) {
			seen := 0
			for {
				v, err := r.ChangedBlocking(t.Context())
				if err == ErrClosed {
					require.Equal(t, last, seen)
					return None{}, nil
				}
				if v <= seen || err != nil {
					t.Errorf("%d after %d, %v", v, seen, err)
				}
				seen = v
			}
		}))
	}
	for i := 1; i <= last; i++ {
		require.NoError(t, w.Update(func(old int) int { return old + 1 }))
		require.Equal(t, i, w.Get())
	}
	w.Close()
	require.Equal(t, ErrClosed, w.Set(1))
	for _, h := range hs {
		_, err := join(t, h)
		require.NoError(t, err)
	}
}

func TestWatchByHand(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	cx, wakes := newPollCx(t, rt)
	w := NewWatch("a")
	r := w.Subscribe()
	_, err := r.TryChanged()
	require.Equal(t, ErrEmpty, err, "it has seen the first")
	_, err = r.PollNext(cx)
	require.Equal(t, ErrPending, err)
	require.NoError(t, w.Set("b"))
	require.NoError(t, w.Set("c"))
	require.EqualValues(t, 1, wakes.Load())
	v, err := r.PollNext(cx)
	require.NoError(t, err)
	require.Equal(t, "c", v)
	f := r.ChangedFuture()
	_, err = f.Poll(cx)
	require.Equal(t, ErrPending, err)
	giveUp(f)
	require.Nil(t, w.slot.p.Load())
	require.NoError(t, w.Set("d"))
	w.Close()
	v, err = r.TryChanged()
	require.NoError(t, err)
	require.Equal(t, "d", v)
	_, err = r.PollNext(cx)
	require.Equal(t, io.EOF, err)
	w = NewWatch("e")
	require.Panics(t, func() { w.Update(func(string) string { panic("oh") }) })
	require.Equal(t, "e", w.Get(), "it is locked, or changed")
}

// Against a model: all that was sent, of which a receiver has seen a part.
func FuzzBroadcast(f *testing.F) {
	f.Add(int64(1), uint8(1))
	f.Add(int64(2), uint8(4))
	f.Fuzz(func(t *testing.T, seed int64, size uint8) {
		rng := rand.New(rand.NewSource(seed))
		n := int(size%8) + 1
		b := NewBroadcast[int](n)
		type reader struct {
			r    *BroadcastReceiver[int]
			next int
		}
		var readers []*reader
		sent, closed := 0, false
		for range 300 {
			switch op := rng.Intn(10); {
			case op == 0 && len(readers) < 5:
				readers = append(readers, &reader{b.Subscribe(), sent})
			case op < 4:
				if err := b.Send(sent); closed != (err == ErrClosed) {
					t.Fatal(err)
				} else if err == nil {
					sent++
				}
			case op == 9 && rng.Intn(20) == 0:
				b.Close()
				closed = true
			case len(readers) > 0:
				r := readers[rng.Intn(len(readers))]
				v, err := r.r.TryRecv()
				switch missed := sent - r.next - n; {
				case missed > 0:
					lagged, ok := err.(*LaggedError)
					if !ok || lagged.Missed != uint64(missed) {
						t.Fatal(err, missed)
					}
					r.next += missed
				case r.next < sent:
					if err != nil || v != r.next {
						t.Fatal(v, err, r.next)
					}
					r.next++
				case closed && err != ErrClosed, !closed && err != ErrEmpty:
					t.Fatal(err)
				}
			}
		}
	})
}

// Each receiver that keeps up gets all messages, also if it gives up now and
// then.
func TestBroadcast(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const receivers, messages = 6, 2000
	b := NewBroadcast[int](messages)
	var total atomic.Int64
	var hs []*JoinHandle[None]
	for i := range receivers {
		r := b.Subscribe()
		hs = append(hs, Go(rt, func(cx *Context) error {
			for want := 0; ; {
				inner, cancel := cx.WithCancel()
				if i%2 == 0 {
					Go(cx, func(*Context) error { cancel(); return nil })
				}
				v, err := r.Recv(inner)
				cancel()
				switch {
				case err == ErrClosed && want == messages:
					return nil
				case err == context.Canceled:
				case err != nil || v != want:
					t.Errorf("%d, %v instead of %d", v, err, want)
					return err
				default:
					want++
					total.Add(1)
				}
			}
		}))
	}
	for i := range messages {
		require.NoError(t, b.Send(i))
	}
	b.Close()
	for _, h := range hs {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	require.EqualValues(t, receivers*messages, total.Load())
	require.Panics(t, func() { NewBroadcast[int](0) })
}

func TestBroadcastAll(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	b := NewBroadcast[int](2)
	r := b.Subscribe()
	for i := range 5 {
		require.NoError(t, b.Send(i))
	}
	b.Close()
	inTask(t, rt, func(cx *Context) error {
		var got []any
		for v, err := range r.All(cx) {
			if err != nil {
				got = append(got, err.Error())
			} else {
				got = append(got, v)
			}
		}
		require.Equal(t, []any{"async: the receiver was too slow, and has lost 3 messages", 3, 4}, got)
		return nil
	})
	cx, _ := newPollCx(t, rt)
	_, err := r.PollNext(cx)
	require.Equal(t, io.EOF, err)
}
