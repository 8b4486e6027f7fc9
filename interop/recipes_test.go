package interop

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/async"
	"github.com/stretchr/testify/require"
)

func TestRecipePeriodically(t *testing.T) {
	calls, enough := 0, errors.New("enough")
	_, err := inTask(t, async.Default(), func(cx *async.Context) (async.None, error) {
		return async.None{}, periodically(cx, time.Millisecond, func(*async.Context) error {
			if calls++; calls == 3 {
				return enough
			}
			return nil
		})
	})
	require.ErrorIs(t, err, enough)
	require.Equal(t, 3, calls)
	_, err = inTask(t, async.Default(), func(cx *async.Context) (async.None, error) {
		cx, cancel := cx.WithCancel()
		return async.None{}, periodically(cx, time.Hour, func(*async.Context) error { cancel(); return nil })
	})
	require.ErrorIs(t, err, context.Canceled)
}

func TestRecipeValues(t *testing.T) {
	lines, err := inTask(t, async.Default(), func(cx *async.Context) (lines []string, err error) {
		lines = append(lines, tenantOf(cx), logLine(cx, "begins"))
		requestID.Set(cx, 7)
		h := async.Go(withTenant(cx, "blue"), func(cx *async.Context) error {
			tenant, err := async.Await(cx, async.SpawnBlocking(cx, func() (string, error) { return tenantOf(cx), nil }))
			lines = append(lines, tenant, logLine(cx, "goes on"))
			return err
		})
		_, err = h.Join(cx)
		return append(lines, tenantOf(cx)), err
	})
	require.NoError(t, err)
	require.Equal(t, []string{"", "begins", "blue", "request 7: goes on", ""}, lines)
}

func TestRecipeDispatcher(t *testing.T) {
	ran, err := inTask(t, async.Default(), func(cx *async.Context) (ran []int, err error) {
		d, done := newDispatcher(cx), async.NewChan[int](3)
		for i := range 3 {
			job := func(cx *async.Context) error { return done.Send(cx, i) }
			if err := d.submit(cx, job); err != nil {
				return nil, err
			}
		}
		if err := d.close(cx); err != nil {
			return nil, err
		}
		require.ErrorIs(t, d.submit(cx, nil), async.ErrClosed)
		done.Close()
		for i, err := range done.All(cx) {
			if err != nil {
				return nil, err
			}
			ran = append(ran, i)
		}
		return ran, nil
	})
	require.NoError(t, err)
	slices.Sort(ran)
	require.Equal(t, []int{0, 1, 2}, ran)

	_, err = inTask(t, async.Default(), func(cx *async.Context) (async.None, error) {
		d := newDispatcher(cx)
		d.ended.Cancel() // also while a caller waits in submit, or before
		if _, err := d.ended.Join(cx); !errors.Is(err, context.Canceled) {
			return async.None{}, err
		}
		return async.None{}, d.submit(cx, nil)
	})
	require.ErrorIs(t, err, async.ErrClosed)
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		beats := async.NewChan[time.Time](10)
		go heartbeat(ctx, beats, time.Minute)

		time.Sleep(3 * time.Minute) // by the clock of the bubble: takes no real time
		synctest.Wait()
		if n := beats.Len(); n != 3 {
			t.Errorf("%d beats in 3 minutes", n)
		}
	})
}

func TestRecipeCounters(t *testing.T) {
	var c counters
	_, err := inTask(t, async.Default(), func(cx *async.Context) (async.None, error) {
		return async.None{}, async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
			for range 10 {
				async.Go(g, func(*async.Context) error { c.add("x", 1); return nil })
			}
			return nil
		})
	})
	require.NoError(t, err)
	require.Equal(t, 10, c.of["x"])
}
