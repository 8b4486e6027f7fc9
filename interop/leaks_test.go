package interop

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"example.com/async"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// While a runtime runs, goleak finds no goroutine if it gets the names that docs/libraries.md
// lists, and finds a goroutine if one of the names is missing. After Shutdown it finds none without
// the names.
func TestLeakCheckers(t *testing.T) {
	earlier := goleak.IgnoreCurrent() // goroutines of libraries that other tests have used
	rt, err := async.New(async.Config{
		Workers:  2,
		Blocking: async.BlockingConfig{Idle: time.Hour}, // longer than this test
	})
	require.NoError(t, err)

	// Start goroutines of each kind.
	ln, err := rt.ListenNet("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	accepted := begun(func() error { _, err := ln.Accept(); return err })
	signals := async.Signals(syscall.SIGUSR1)
	waiting := make(chan struct{})
	waits := async.Go(rt, func(cx *async.Context) error {
		_, err := async.Await(cx, async.SpawnBlocking(cx, func() (async.None, error) { return async.None{}, nil }))
		close(waiting)
		if err != nil {
			return err
		}
		_, err = async.Await(cx, async.NeverFuture[async.None]())
		return err
	})
	<-waiting

	find := func(names []goleak.Option) error { return goleak.Find(append(names, earlier)...) }
	names := runtimeGoroutines()
	// The goroutine that accepts belongs to this test.
	ours := goleak.IgnoreAnyFunction("example.com/async/interop.begun.func1")
	require.NoError(t, find(append(slices.Clone(names), ours)))
	for i := range names {
		without := slices.Delete(slices.Clone(names), i, i+1)
		require.Error(t, find(append(without, ours)), "name %d is not needed", i)
	}

	waits.Cancel()
	require.NoError(t, ln.Close())
	require.Error(t, ends(t, "Accept", accepted))
	signals.Close()
	require.NoError(t, rt.Shutdown(t.Context()))
	require.NoError(t, find(nil))
}
