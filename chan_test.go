package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The promises of a channel under stress, for any capacity:
//
//  1. each message that was sent is received exactly once;
//  2. a Send that failed has sent nothing;
//  3. the messages of one sender come out in order;
//  4. no more is held than the capacity.
func TestChanExactlyOnce(t *testing.T) {
	const senders, receivers, each = 6, 5, 300
	for _, capacity := range []int{-1, 0, 1, 4} {
		t.Run(fmt.Sprint(capacity), func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			ch := newTestChan[[2]int](capacity)
			var mu sync.Mutex
			got := map[[2]int]int{}
			last := map[[2]int]int{} // of a sender, as a receiver has seen it
			note := func(receiver int, m [2]int) {
				mu.Lock()
				defer mu.Unlock()
				got[m]++
				key := [2]int{receiver, m[0]}
				if m[1] < last[key] {
					t.Errorf("receiver %d got %v after %d", receiver, m, last[key])
				}
				last[key] = m[1]
				if n := ch.Len(); capacity >= 0 && n > capacity+receivers {
					t.Errorf("%d are held", n)
				}
			}
			sent := make([]map[int]bool, senders)
			var sends, recvs []*JoinHandle[None]
			for s := range senders {
				sent[s] = map[int]bool{}
				rng := rand.New(rand.NewSource(int64(s)))
				sends = append(sends, Go(rt, func(cx *Context) error {
					for i := range each {
						m := [2]int{s, i}
						var err error
						switch rng.Intn(6) {
						case 0:
							err = ch.TrySend(m)
						case 1:
							short, cancel := cx.WithCancel()
							stop := Go(cx, func(cx *Context) error { cancel(); return nil })
							err = ch.Send(short, m)
							stop.Await(cx)
							cancel()
						case 2:
							_, err = SelectInOrder(cx, SendCase(ch, m), AwaitCase(NewYield(), nil))
							if err == nil {
								// It may have been the yield: then it has not been sent.
								err = errUnknown
							}
						default:
							err = ch.Send(cx, m)
						}
						if err != errUnknown {
							sent[s][i] = err == nil
						}
					}
					return nil
				}))
			}
			for r := range receivers {
				rng := rand.New(rand.NewSource(int64(100 + r)))
				recvs = append(recvs, Go(rt, func(cx *Context) error {
					for {
						var m [2]int
						var err error
						switch rng.Intn(5) {
						case 0:
							short, cancel := cx.WithCancel()
							stop := Go(cx, func(cx *Context) error { cancel(); return nil })
							m, err = ch.Recv(short)
							stop.Await(cx)
							cancel()
						case 1:
							var i int
							if i, err = Select(cx, RecvCase(ch, &m), AwaitCase(NewYield(), nil)); i == 1 {
								continue
							}
						case 2:
							m, err = BlockOnGoroutine(cx, ch)
						default:
							m, err = ch.Recv(cx)
						}
						switch {
						case err == ErrClosed:
							return nil
						case err == nil:
							note(r, m)
						case err != context.Canceled:
							return err
						}
					}
				}))
			}
			for _, h := range sends {
				_, err := join(t, h)
				require.NoError(t, err)
			}
			require.True(t, ch.Close())
			for _, h := range recvs {
				_, err := join(t, h)
				require.NoError(t, err)
			}
			for m, n := range got {
				require.Equal(t, 1, n, "%v", m)
			}
			for s := range senders {
				for i, was := range sent[s] {
					require.Equal(t, was, got[[2]int{s, i}] == 1, "%d, %d", s, i)
				}
			}
			ns, nr := ch.Waiting()
			require.Zero(t, ns+nr)
			require.Zero(t, ch.Len())
		})
	}
}

var errUnknown = errors.New("may have been sent")

func newTestChan[T any](capacity int) *Chan[T] {
	if capacity < 0 {
		return NewUnboundedChan[T]()
	}
	return NewChan[T](capacity)
}

// BlockOnGoroutine receives on a goroutine, for a task.
func BlockOnGoroutine[T any](cx *Context, ch *Chan[T]) (T, error) {
	return SpawnBlocking(cx, func() (T, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		v, err := ch.RecvBlocking(ctx)
		if err == context.DeadlineExceeded {
			err = context.Canceled
		}
		return v, err
	}).Await(cx)
}

func TestChanClose(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	cx, wakes := newPollCx(t, rt)
	ch := NewChan[int](2)
	require.NoError(t, ch.TrySend(1))
	require.NoError(t, ch.TrySend(2))
	require.Equal(t, ErrFull, ch.TrySend(3))
	f := ch.SendFuture(3)
	_, err := f.Poll(cx)
	require.Equal(t, ErrPending, err)
	require.True(t, ch.Close())
	require.False(t, ch.Close())
	require.True(t, ch.Closed())
	require.EqualValues(t, 1, wakes.Load())
	_, err = f.Poll(cx)
	require.Equal(t, ErrClosed, err)
	require.Equal(t, ErrClosed, ch.TrySend(4))
	for want := 1; want <= 2; want++ {
		v, err := ch.TryRecv()
		require.NoError(t, err)
		require.Equal(t, want, v)
	}
	_, err = ch.TryRecv()
	require.Equal(t, ErrClosed, err)
	_, err = ch.PollNext(cx)
	require.Equal(t, io.EOF, err)

	other := NewChan[int](0)
	r := other.RecvFuture()
	_, err = r.Poll(cx)
	require.Equal(t, ErrPending, err)
	other.Close()
	_, err = r.Poll(cx)
	require.Equal(t, ErrClosed, err)
}

// A receiver that gives up after it was handed a message passes it on, before
// what came after it.
func TestChanCancelAfterChosen(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for _, capacity := range []int{-1, 0, 1} {
		cx, _ := newPollCx(t, rt)
		ch := newTestChan[int](capacity)
		first, second := ch.RecvFuture(), ch.RecvFuture()
		for _, f := range []Future[int]{first, second} {
			_, err := f.Poll(cx)
			require.Equal(t, ErrPending, err)
		}
		require.NoError(t, ch.TrySend(1))
		giveUp(first)
		v, err := second.Poll(cx)
		require.NoError(t, err)
		require.Equal(t, 1, v)

		third := ch.RecvFuture()
		_, err = third.Poll(cx)
		require.Equal(t, ErrPending, err)
		require.NoError(t, ch.TrySend(2))
		giveUp(third)
		v, err = ch.TryRecv()
		require.NoError(t, err)
		require.Equal(t, 2, v)
	}
}

// A sender that gives up leaves nothing behind; one whose message was taken has
// sent it.
func TestChanCancelSend(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for _, capacity := range []int{0, 1} {
		cx, _ := newPollCx(t, rt)
		ch := NewChan[int](capacity)
		for range capacity {
			require.NoError(t, ch.TrySend(0))
		}
		gone, stays := ch.SendFuture(1), ch.SendFuture(2)
		for _, f := range []Future[None]{gone, stays} {
			_, err := f.Poll(cx)
			require.Equal(t, ErrPending, err)
		}
		giveUp(gone)
		for want := 2 - 2*capacity; want <= 2; want += 2 {
			v, err := ch.TryRecv()
			require.NoError(t, err)
			require.Equal(t, want, v)
		}
		giveUp(stays)
		_, err := ch.TryRecv()
		require.Equal(t, ErrEmpty, err)
	}
}

func TestChanPermits(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ch := NewChan[int](2)
	p, err := ch.TryReserve()
	require.NoError(t, err)
	require.NoError(t, ch.TrySend(1))
	require.Equal(t, ErrFull, ch.TrySend(2))
	_, err = ch.TryReserve()
	require.Equal(t, ErrFull, err)
	old, replaced, err := ch.ForceSend(2)
	require.NoError(t, err)
	require.True(t, replaced)
	require.Equal(t, 1, old)
	waits := Spawn(rt, func(cx *Context) (*Permit[int], error) { return ch.Reserve(cx) })
	eventually(t, func() bool { return waiting(waits) })
	p.Release()
	require.PanicsWithValue(t, "async: a Permit was used twice", p.Release)
	q, err := join(t, waits)
	require.NoError(t, err)
	require.NoError(t, q.Send(3))
	for _, want := range []int{2, 3} {
		v, err := ch.TryRecv()
		require.NoError(t, err)
		require.Equal(t, want, v)
	}
	r, err := ch.ReserveBlocking(t.Context())
	require.NoError(t, err)
	ch.Close()
	require.Equal(t, ErrClosed, r.Send(4))
	require.Panics(t, func() { NewChan[int](0).TryReserve() })
	require.Panics(t, func() { NewChan[int](-1) })
}

func TestChanForceSend(t *testing.T) {
	ch := NewChan[int](0)
	_, _, err := ch.ForceSend(1)
	require.Equal(t, ErrFull, err)
	ch = NewChan[int](1)
	_, replaced, err := ch.ForceSend(1)
	require.NoError(t, err)
	require.False(t, replaced)
	old, replaced, err := ch.ForceSend(2)
	require.NoError(t, err)
	require.True(t, replaced)
	require.Equal(t, 1, old)
	ch.Close()
	_, _, err = ch.ForceSend(3)
	require.Equal(t, ErrClosed, err)
}

// Ten thousand receivers give up just when they are handed a message.
func TestChanGivesUpWhileChosen(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ch := NewChan[int](0)
	const rounds = 10000
	var received atomic.Int64
	receiver := Go(rt, func(cx *Context) error {
		for range ch.All(cx) {
			received.Add(1)
		}
		return nil
	})
	quitter := Spawn(rt, func(cx *Context) (n int, err error) {
		for range rounds {
			short, cancel := cx.WithCancel()
			f := Go(cx, func(*Context) error { cancel(); return nil })
			if _, err := ch.Recv(short); err == nil {
				n++
			} else if err == ErrClosed {
				f.Await(cx)
				return n, nil
			}
			f.Await(cx)
			cancel()
		}
		return n, nil
	})
	sent := 0
	for ; !quitter.state.done(); sent++ {
		require.NoError(t, ch.SendBlocking(t.Context(), sent))
	}
	n, err := join(t, quitter)
	require.NoError(t, err)
	ch.Close()
	_, err = join(t, receiver)
	require.NoError(t, err)
	require.EqualValues(t, sent, received.Load()+int64(n))
}

func TestSelectTakesOne(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	inTask(t, rt, func(cx *Context) error {
		a, b := NewChan[int](1), NewChan[string](1)
		var n int
		var s string
		i, err := Select(cx, RecvCase(a, &n), RecvCase(b, &s), After(0))
		require.NoError(t, err)
		require.Equal(t, 2, i)
		i, err = TrySelect(cx, RecvCase(a, &n), RecvCase(b, &s), RecvCase[int](nil, nil), SendCase[int](nil, 1))
		require.Equal(t, -1, i)
		require.Equal(t, ErrPending, err)
		require.NoError(t, a.TrySend(7))
		require.NoError(t, b.TrySend("x"))
		i, err = SelectInOrder(cx, RecvCase(a, &n), RecvCase(b, &s))
		require.NoError(t, err)
		require.Equal(t, 0, i)
		require.Equal(t, 7, n)
		require.Equal(t, 1, b.Len())
		i, err = Select(cx, SendCase(b, "y"), RecvCase(b, &s), SendCase(a, 8))
		require.NoError(t, err)
		require.Contains(t, []int{1, 2}, i)
		a.Close()
		i, err = SelectInOrder(cx, SendCase(a, 9), After(time.Hour))
		require.Equal(t, 0, i)
		require.Equal(t, ErrClosed, err)
		return nil
	})
}

// Two Selects meet on a channel that holds nothing, in either order, and one
// Select does not talk to itself.
func TestSelectMeetsSelect(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := NewChan[int](0), NewChan[int](0)
	const rounds = 2000
	swap := func(send int) *JoinHandle[int] {
		return Spawn(rt, func(cx *Context) (sum int, err error) {
			for range rounds {
				var v int
				// Both directions on both channels.
				i, err := Select(cx, SendCase(a, send), RecvCase(a, &v), SendCase(b, send), RecvCase(b, &v))
				if err != nil {
					return 0, err
				}
				if i%2 == 1 {
					sum += v
				} else {
					sum -= send
				}
			}
			return sum, nil
		})
	}
	x, y := swap(1), swap(1)
	nx, err := join(t, x)
	require.NoError(t, err)
	ny, err := join(t, y)
	require.NoError(t, err)
	require.Zero(t, nx+ny, "each send has one receive")
}

func TestSelectCancel(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ch := NewChan[int](0)
	p := new(probe)
	h := Spawn(rt, func(cx *Context) (int, error) {
		return Select(cx, RecvCase(ch, nil), AwaitCase(Future[int](Never[int]()), nil), AwaitCase[int](p, nil))
	})
	eventually(t, func() bool { return waiting(h) })
	h.Cancel()
	i, err := join(t, h)
	require.Equal(t, context.Canceled, err)
	require.Equal(t, -1, i)
	require.EqualValues(t, 1, p.cancels.Load())
	_, n := ch.Waiting()
	require.Zero(t, n)
	require.Equal(t, ErrFull, ch.TrySend(1))
}

// No case that is always ready starves another one.
func TestSelectIsFair(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	inTask(t, rt, func(cx *Context) error {
		var count [4]int
		var cases []Case
		for range count {
			ch := NewChan[int](0)
			ch.Close()
			cases = append(cases, RecvCase(ch, nil))
		}
		const rounds = 4000
		for range rounds {
			i, _ := Select(cx, cases...)
			count[i]++
		}
		for i, n := range count {
			require.Greater(t, n, rounds/8, "case %d", i)
		}
		return nil
	})
}

// Waiting costs no allocation once the channel is warm.
func TestChanAllocations(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	inTask(t, rt, func(cx *Context) error {
		ch := NewChan[int](0)
		echo := Go(cx, func(cx *Context) error {
			for range ch.All(cx) {
			}
			return nil
		})
		n := testing.AllocsPerRun(1000, func() { ch.Send(cx, 1) })
		require.Zero(t, n)
		var v int
		buffered := NewChan[int](1)
		recv, send := RecvCase(buffered, &v), SendCase(buffered, 1)
		n = testing.AllocsPerRun(1000, func() { Select(cx, recv, send) })
		require.Zero(t, n)
		ch.Close()
		_, err := echo.Await(cx)
		return err
	})
}

// Two who only poll meet, for any capacity.
func TestChanPollersMeet(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for _, capacity := range []int{-1, 0, 1, 4} {
		const messages = 1000
		ch := newTestChan[int](capacity)
		sent := 0
		sender := SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
			for ; sent < messages; sent++ {
				if err := ch.PollSend(cx, sent); err != nil {
					return None{}, err
				}
			}
			ch.Close()
			return None{}, nil
		}))
		got := 0
		receiver := SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
			for {
				v, err := ch.PollNext(cx)
				switch {
				case err == io.EOF:
					return None{}, nil
				case err != nil:
					return None{}, err
				case v != got:
					return None{}, fmt.Errorf("%d instead of %d", v, got)
				}
				got++
			}
		}))
		for _, h := range []*JoinHandle[None]{sender, receiver} {
			_, err := join(t, h)
			require.NoError(t, err)
		}
		require.Equal(t, messages, got)
	}
}
