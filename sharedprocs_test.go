package async

import (
	"iter"
	"os"
	"runtime"
	"testing"
	"time"

	"example.com/async/internal/sys"
	"github.com/stretchr/testify/require"
)

// forceShared makes the runtimes of all tests share the processors of the program; see the target
// shared of the Makefile.
var forceShared = os.Getenv("ASYNC_TEST_SHARED") != ""

// ownProcsOnly gives the runtimes of a test processors of their own, also if forceShared is set.
func ownProcsOnly(t *testing.T) {
	was := forceShared
	forceShared = false
	t.Cleanup(func() { forceShared = was })
}

func TestSharedProcsLocksNoThread(t *testing.T) {
	ownProcsOnly(t)
	for _, shared := range []bool{false, true} {
		rt := newTestRuntime(t, Config{Workers: 1, SharedProcs: shared})
		_, err := join(t, Go(rt, func(cx *Context) error { return Sleep(cx, time.Microsecond) }))
		require.NoError(t, err)
		if runtime.GOOS == "linux" {
			require.Equal(t, shared, rt.workers[0].thread == sys.Thread{})
		}
		_, known := sys.Thread{}.Used()
		require.False(t, known)
		require.True(t, sys.Thread{}.Asleep())
	}
}

// Straight-line code may use a thread of its own between two awaits, and coroutines of its own
// across awaits, in both modes.
func TestSharedProcsUserCode(t *testing.T) {
	for _, shared := range []bool{false, true} {
		rt := newTestRuntime(t, Config{Workers: 2, SharedProcs: shared})
		var hs []*JoinHandle[int]
		for range 8 {
			hs = append(hs, Spawn(rt, func(cx *Context) (sum int, err error) {
				next, stop := iter.Pull(func(yield func(int) bool) {
					for i := 0; yield(i); i++ {
					}
				})
				defer stop()
				for range 100 {
					runtime.LockOSThread()
					runtime.Gosched()
					runtime.UnlockOSThread()
					i, _ := next()
					sum += i
					if err := Sleep(cx, time.Microsecond); err != nil {
						return sum, err
					}
					i, _ = next()
					sum += i
				}
				return sum, nil
			}))
		}
		for _, h := range hs {
			sum, err := join(t, h)
			require.NoError(t, err)
			require.Equal(t, 199*200/2, sum)
		}
	}
}

// A stall is reported even if the worker's thread is not known, unless the watchdog itself is late.
func TestSharedProcsStall(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 1, SharedProcs: true, Stalled: log.add})
	release, free := newRelease(t)
	h := Go(rt.Named("stuck"), func(*Context) error { computesHere(release); return nil })
	eventually(t, func() bool { return rt.Metrics().Stalls > 0 })
	free()
	_, err := join(t, h)
	require.NoError(t, err)
}

// Goroutines make progress while a worker is always busy, and a worker makes progress while
// goroutines compute.
func TestSharedProcsTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	rt := newTestRuntime(t, Config{Workers: 1, SharedProcs: true})
	turns := 0
	busy := Go(rt, func(cx *Context) error {
		for {
			turns++
			if err := Yield(cx); err != nil {
				return err
			}
		}
	})
	for range 10 {
		done := make(chan int)
		go func() { done <- 1 }()
		receive(t, done)
	}
	release, free := newRelease(t)
	over := make(chan None)
	go func() { defer close(over); computesHere(release) }()
	slept := Go(rt, func(cx *Context) error { return Sleep(cx, time.Millisecond) })
	_, err := join(t, slept)
	require.NoError(t, err)
	free()
	<-over
	busy.Cancel()
	busy.JoinBlocking(t.Context())
	require.Positive(t, turns)
}
