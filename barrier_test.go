package async

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBarrierByHand(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	cx, wakes := newPollCx(t, rt)
	b := NewBarrier(3)
	for round := range 3 {
		one, two, gone := b.WaitFuture(), b.WaitFuture(), b.WaitFuture()
		for _, f := range []Future[bool]{one, two, one, two} {
			_, err := f.Poll(cx)
			require.Equal(t, ErrPending, err)
		}
		giveUp(nil, one)
		_, err := gone.Poll(cx)
		require.Equal(t, ErrPending, err, "the one that gave up does not count")
		require.EqualValues(t, 2*round, wakes.Load())
		leader, err := b.WaitFuture().Poll(cx)
		require.NoError(t, err)
		require.True(t, leader)
		require.EqualValues(t, 2*round+2, wakes.Load())
		for _, f := range []Future[bool]{gone, two} {
			leader, err = f.Poll(cx)
			require.NoError(t, err)
			require.False(t, leader)
		}
	}
}

func TestBarrierOfOne(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		b := NewBarrier(1)
		for range 3 {
			leader, err := b.Wait(cx)
			if err := expect(leader && err == nil, "%v, %v", leader, err); err != nil {
				return err
			}
		}
		return nil
	})
}

// In every round one party is the leader, and no party is a round ahead.
func TestBarrierRounds(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const parties, rounds = 5, 200
	b := NewBarrier(parties)
	var arrived, leaders atomic.Int64
	party := func(wait func() (bool, error)) error {
		for round := range rounds {
			arrived.Add(1)
			leader, err := wait()
			if err != nil {
				return err
			}
			if n := arrived.Load(); n < int64(round+1)*parties {
				return expect(false, "round %d: only %d have come", round, n)
			}
			if leader {
				leaders.Add(1)
			}
		}
		return nil
	}
	outside := make(chan error, 1)
	go func() { outside <- party(func() (bool, error) { return b.WaitBlocking(t.Context()) }) }()
	var all []*JoinHandle[None]
	for i := range parties - 1 {
		all = append(all, Go(aimAt(rt, i%2), func(cx *Context) error {
			return party(func() (bool, error) { return b.Wait(cx) })
		}))
	}
	for _, h := range all {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	require.NoError(t, receive(t, outside))
	require.EqualValues(t, rounds, leaders.Load())
}
