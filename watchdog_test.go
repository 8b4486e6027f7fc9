package async

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A stuck worker is found, and its tasks are taken over, even if another worker sends heartbeats
// all the time.
func TestWatchdogWhileAnotherWorkerIsActive(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 2, Stalled: log.add})
	active := Go(pinned(rt, 1), func(cx *Context) error {
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
	active.Cancel()
	for _, h := range []*JoinHandle[None]{h, active} {
		_, err := join(t, h)
		require.NoError(t, err)
	}
}

// A worker that wakes during a check sends no heartbeat. If it then gets stuck, it is still found.
func TestWatchdogAfterMissedHeartbeat(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 2, Stalled: log.add})
	d := rt.watchdog
	eventually(t, func() bool { return d.due.CompareAndSwap(0, watchdogClaimed) })
	release, free := newRelease(t)
	before := arrivals.Load()
	h := Go(rt.Named("stuck"), func(*Context) error { blocksHere(release); return nil })
	eventually(t, func() bool { return arrivals.Load() > before })
	d.releaseDisarmed(nil)
	log.next(t, "stuck")
	free()
	_, err := join(t, h)
	require.NoError(t, err)
}

// A worker that expects a long sleep disarms the timer first, so that the watchdog's goroutine is
// not woken.
func TestWatchdogDisarmedBeforeLongSleep(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	w, d := rt.workers[0], rt.watchdog
	eventually(t, func() bool { return d.due.Load() == 0 })
	on(w, func(w *worker) {
		d.heartbeat(w, nanos())
		require.Positive(t, d.due.Load())
		d.disarm(w)
		require.Zero(t, d.due.Load())
	})
}

// A poll is seen soon enough for Config.Stall: before half of Config.Stall is over.
func TestWatchdogTimeout(t *testing.T) {
	for stall, timeout := range map[time.Duration]time.Duration{
		-1: 5 * time.Millisecond, 0: 5 * time.Millisecond, 2 * time.Millisecond: time.Millisecond, time.Second: 5 * time.Millisecond,
	} {
		rt := newTestRuntime(t, Config{Workers: 1, Stall: stall})
		require.EqualValues(t, timeout, rt.watchdog.timeout)
	}
}
