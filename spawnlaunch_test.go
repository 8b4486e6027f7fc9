package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// launchers are the two forms of Launch, for code that does not wait.
var launchers = map[string]func(s Spawner, fn func(cx *Context) error){
	"Launch": Launch,
	"LaunchFuture": func(s Spawner, fn func(cx *Context) error) {
		LaunchFuture(s, PollFunc(func(cx *Context) (None, error) { return None{}, fn(cx) }))
	},
}

func ExampleLaunch() {
	var done sync.WaitGroup
	done.Add(3)
	Run(func(cx *Context) error {
		for i := range 3 {
			Launch(cx, func(cx *Context) error {
				defer done.Done()
				return Sleep(cx, time.Duration(i)*time.Millisecond)
			})
		}
		return nil
	})
	done.Wait()
	fmt.Println("all have ended")
	// Output: all have ended
}

func ExampleLaunchFuture() {
	done := make(chan struct{})
	LaunchFuture(Default(), PollFunc(func(cx *Context) (None, error) {
		close(done)
		return None{}, nil
	}))
	<-done
	fmt.Println("it has been polled")
	// Output: it has been polled
}

// A launched task runs exactly once, whatever code launches it, and has an ID of its own.
func TestLaunchRunsEachTaskOnce(t *testing.T) {
	const tasks = 5000 // more than are kept
	for name, launch := range launchers {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			var mu sync.Mutex
			ids := map[uint64]int{}
			var all sync.WaitGroup
			code := func(cx *Context) error {
				defer all.Done()
				mu.Lock()
				defer mu.Unlock()
				ids[cx.Task().ID]++
				return nil
			}
			for range 3 {
				all.Add(2 * tasks)
				runInTask(t, rt, func(cx *Context) error {
					for range tasks {
						launch(cx, code)
					}
					return nil
				})
				for range tasks {
					launch(rt, code)
				}
				all.Wait()
			}
			require.Len(t, ids, 6*tasks)
		})
	}
}

// A launched task may wait. Tasks that are launched meanwhile do not reuse it.
func TestLaunchedTasksWait(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	var all sync.WaitGroup
	var wrong atomic.Int32
	all.Add(2000)
	runInTask(t, rt, func(cx *Context) error {
		for i := range 2000 {
			Launch(cx, func(cx *Context) error {
				defer all.Done()
				id := cx.Task().ID
				if i%3 == 0 {
					Yield(cx)
				} else if i%3 == 1 {
					Sleep(cx, time.Duration(i)*time.Microsecond)
				}
				if cx.Task().ID != id || cx.Err() != nil {
					wrong.Add(1)
				}
				return nil
			})
			if i%10 == 0 {
				Yield(cx)
			}
		}
		return nil
	})
	all.Wait()
	require.Zero(t, wrong.Load())
}

// The failure of a launched task (an error, a panic, a Goexit) is reported at once, without a
// garbage collection. A launch that Shutdown refuses is no failure.
func TestLaunchedFailures(t *testing.T) {
	failure := errors.New("failure")
	for name, launch := range launchers {
		t.Run(name, func(t *testing.T) {
			reports := make(chan error, 10)
			rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(_ Task, err error) { reports <- err }})
			launch(rt, func(*Context) error { return failure })
			require.Equal(t, failure, receive(t, reports))
			launch(rt, func(*Context) error { panic("it") })
			var p *PanicError
			require.ErrorAs(t, receive(t, reports), &p)
			launch(rt, func(*Context) error { runtime.Goexit(); return nil })
			require.Equal(t, ErrGoexit, receive(t, reports))
			require.NoError(t, rt.Shutdown(t.Context()))
			launch(rt, func(*Context) error { return nil })
			require.Empty(t, reports, "Shutdown is no failure")
		})
	}
}

// A launched task whose Context has a Done channel is not reused.
func TestLaunchedTaskWithDoneIsNotReused(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	kept := make(chan *Context, 1)
	runInTask(t, rt, func(cx *Context) error {
		Launch(cx, func(cx *Context) error {
			cx.Done()
			kept <- cx
			return nil
		})
		return nil
	})
	cx := receive(t, kept)
	receive(t, cx.Done())
	runInTask(t, rt, func(cx *Context) error {
		for range 10 {
			Launch(cx, func(cx *Context) error { return nil })
			Yield(cx)
		}
		return nil
	})
	receive(t, cx.Done())
	require.True(t, cx.t.state.done())
}

// A Context that is derived from the Context of a launched task stays valid after the end of the
// task, and does not affect tasks that are launched later.
func TestLaunchedTaskWithDerivedContextIsNotReused(t *testing.T) {
	derive := map[string]func(cx *Context) (*Context, Spawner){
		"WithCancel":    func(cx *Context) (*Context, Spawner) { child, _ := cx.WithCancel(); return child, nil },
		"WithoutCancel": func(cx *Context) (*Context, Spawner) { return cx.WithoutCancel(), nil },
		"Under":         func(cx *Context) (*Context, Spawner) { return nil, cx.Runtime().Under(cx) },
	}
	for name, derive := range derive {
		t.Run(name, func(t *testing.T) {
			failed := make(chan error, 100)
			rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(_ Task, err error) { failed <- err }})
			var child *Context
			var under Spawner
			runInTask(t, rt, func(cx *Context) error {
				Launch(cx, func(cx *Context) error { child, under = derive(cx); return nil })
				return Yield(cx)
			})
			late := func() {
				if child != nil {
					child.Done()
				} else {
					join(t, Go(under, func(cx *Context) error { return nil }))
				}
			}
			late()
			ran := 0
			runInTask(t, rt, func(cx *Context) error {
				for range 10 {
					Launch(cx, func(cx *Context) error { ran++; return Yield(cx) })
					Yield(cx)
					Yield(cx)
				}
				return nil
			})
			require.Equal(t, 10, ran)
			require.Empty(t, failed)
		})
	}
}

// A Context that is used after the end of its task, against the rules, does not affect tasks that
// are launched later.
func TestLaunchedContextUsedAfterEnd(t *testing.T) {
	failed := make(chan error, 100)
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(_ Task, err error) { failed <- err }})
	runInTask(t, rt, func(cx *Context) error {
		var old *Context
		Launch(cx, func(cx *Context) error { old = cx; return nil })
		Yield(cx)
		old.Done()
		Launch(cx, func(cx *Context) error { return Yield(cx) })
		Yield(cx)
		return Yield(cx)
	})
	require.Empty(t, failed)
}

// A launch that is refused gets an ID of its own.
func TestRefusedLaunchHasNewID(t *testing.T) {
	failed := make(chan Task, 10)
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(who Task, _ error) { failed <- who }})
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrUnexpectedEOF)
	runInTask(t, rt, func(cx *Context) error {
		ids := map[uint64]None{}
		for range 10 {
			Launch(cx, func(cx *Context) error { ids[cx.Task().ID] = None{}; return nil })
			Yield(cx)
		}
		Launch(cx.Under(ended), func(cx *Context) error { return nil })
		ids[0] = None{}
		if len(ids) != 11 {
			return fmt.Errorf("%d numbers", len(ids))
		}
		return nil
	})
	require.Empty(t, failed)
}

// A Sleep that was cancelled keeps nothing of its task.
func TestCancelledSleepReleasesTask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	runInTask(t, rt, func(cx *Context) error {
		short, cancel := cx.WithCancel()
		Launch(cx, func(*Context) error { cancel(); return nil })
		require.ErrorIs(t, Sleep(short, time.Hour), context.Canceled)
		s := cx.t.ownTimer()
		require.Nil(t, s.t)
		require.Nil(t, s.alarm.own.to)
		return nil
	})
}

// A waker of a launched task that has ended may wake the next task, and is harmless.
func TestLaunchStaleWaker(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	stop := make(chan None)
	wakers := make(chan Waker, 1)
	var waking sync.WaitGroup
	waking.Go(func() {
		w := <-wakers
		for {
			select {
			case <-stop:
				return
			default:
				w.Wake()
			}
		}
	})
	runInTask(t, rt, func(cx *Context) error {
		LaunchFuture(cx, PollFunc(func(cx *Context) (None, error) { wakers <- cx.Waker(); return None{}, nil }))
		return nil
	})
	var all sync.WaitGroup
	all.Add(2000)
	runInTask(t, rt, func(cx *Context) error {
		for range 1000 {
			LaunchFuture(cx, &countdownFuture{polls: 3, done: all.Done})
			Launch(cx, func(cx *Context) error { defer all.Done(); return Yield(cx) })
			Yield(cx)
		}
		return nil
	})
	all.Wait()
	close(stop)
	waking.Wait()
}

// countdownFuture wakes itself until it has been polled polls times.
type countdownFuture struct {
	polls int
	done  func()
}

func (f *countdownFuture) Poll(cx *Context) (None, error) {
	if f.polls--; f.polls > 0 {
		cx.Waker().Wake()
		return None{}, ErrPending
	}
	if f.polls == 0 {
		f.done()
		return None{}, nil
	}
	return None{}, io.ErrUnexpectedEOF
}
