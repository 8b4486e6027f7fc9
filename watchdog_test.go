package async

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A worker that is stuck is found, and relieved, also while another one feeds the watchdog
// all the time.
func TestWatchdogWhileAnotherWorkerFeedsIt(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 2, Stalled: log.add})
	feeder := Go(pinned(rt, 1), func(cx *Context) error {
		for {
			if err := Sleep(cx, 100*time.Microsecond); err != nil {
				return nil
			}
		}
	})
	release, free := newRelease(t)
	spawned := make(chan *JoinHandle[int], 1)
	h := Go(pinned(rt, 0).Named("stuck"), func(cx *Context) error {
		spawned <- SpawnFuture(rt, PollFunc(func(cx *Context) (int, error) { return cx.here().index, nil }))
		blocksHere(release)
		return nil
	})
	log.next(t, "stuck")
	index, err := join(t, receive(t, spawned))
	require.NoError(t, err)
	require.Equal(t, 1, index)
	free()
	feeder.Cancel()
	for _, h := range []*JoinHandle[None]{h, feeder} {
		_, err := join(t, h)
		require.NoError(t, err)
	}
}

// A worker that wakes while the watchdog looks does not feed it. If it gets stuck then, it is
// found all the same.
func TestWatchdogSeesWhoDidNotFeedIt(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 2, Stalled: log.add})
	d := rt.watchdog
	eventually(t, func() bool { return d.due.CompareAndSwap(0, watchdogLooks) })
	release, free := newRelease(t)
	before := arrivals.Load()
	h := Go(rt.Named("stuck"), func(*Context) error { blocksHere(release); return nil })
	eventually(t, func() bool { return arrivals.Load() > before })
	d.settle(nil)
	log.next(t, "stuck")
	free()
	_, err := join(t, h)
	require.NoError(t, err)
}

// A worker that sleeps for long each time puts the timer off before, so that the watchdog's
// goroutine does not wake for nothing.
func TestWatchdogIsNotWokenByThoseWhoRest(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	w, d := rt.workers[0], rt.watchdog
	eventually(t, func() bool { return d.due.Load() == 0 })
	on(w, func(w *worker) {
		d.feed(w, nanos())
		require.Positive(t, d.due.Load())
		d.rests(w)
		require.Zero(t, d.due.Load())
	})
}

// A poll is seen soon enough for Config.Stall: before half of it is over.
func TestWatchdogIsAsPatientAsStallAllows(t *testing.T) {
	for stall, patience := range map[time.Duration]time.Duration{
		-1: 5 * time.Millisecond, 0: 5 * time.Millisecond, 2 * time.Millisecond: time.Millisecond, time.Second: 5 * time.Millisecond,
	} {
		rt := newTestRuntime(t, Config{Workers: 1, Stall: stall})
		require.EqualValues(t, patience, rt.watchdog.patience)
	}
}
