package async

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// countResumes counts how often a coroutine of w is resumed: the free coroutine that is taken next.
func countResumes(w *worker, n *int) {
	co := w.freeCoroutines
	resume := co.resume
	co.resume = func() (struct{}, bool) {
		*n++
		return resume()
	}
}

// A chain of tasks that end without waiting runs in one coroutine, with a switch for each round and
// not for each task.
func TestChainRunsInOneCoroutine(t *testing.T) {
	const links = 1000
	rt := newTestRuntime(t, Config{Workers: 1})
	done := make(chan None)
	var link func(s Spawner, left int)
	link = func(s Spawner, left int) {
		Go(s, func(cx *Context) error {
			if left == 0 {
				close(done)
			} else {
				link(cx, left-1)
			}
			return nil
		})
	}
	link(rt, 10) // so that there is a free coroutine
	receive(t, done)
	done = make(chan None)
	resumes := 0
	on(rt.workers[0], func(w *worker) {
		w.roundSize = pollsPerRound
		countResumes(w, &resumes)
	})
	link(rt, links)
	receive(t, done)
	on(rt.workers[0], func(*worker) { require.Less(t, resumes, links/4) })
}

// A task that begins in the coroutine of the previous task may wait, fail, panic or call Goexit
// like any other task.
func TestNextTaskInSameCoroutine(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	failure := errors.New("failure")
	resume := NewChan[None](0)
	bodies := []func(cx *Context) (int, error){
		func(*Context) (int, error) { return 1, nil },
		func(cx *Context) (int, error) { return 2, Yield(cx) },
		func(cx *Context) (int, error) { return 3, failure },
		func(cx *Context) (int, error) { panic("four") },
		func(cx *Context) (int, error) { runtime.Goexit(); return 5, nil },
		func(cx *Context) (int, error) { _, err := resume.Recv(cx); return 6, err },
		func(cx *Context) (int, error) { return 7, Sleep(cx, time.Microsecond) },
		func(cx *Context) (int, error) {
			return Await(cx, PollFunc(func(*Context) (int, error) { return 8, nil }))
		},
	}
	for range 100 {
		var hs []*JoinHandle[int]
		runInTask(t, rt, func(cx *Context) error {
			for _, body := range bodies {
				hs = append(hs, Spawn(cx, body), Spawn(cx, bodies[0]))
			}
			hs = append(hs, SpawnFuture(cx, ReadyFuture(1)), Spawn(cx, bodies[0]))
			return nil
		})
		require.NoError(t, resume.SendBlocking(context.Background(), None{}))
		for i, h := range hs {
			v, err := join(t, h)
			var p *PanicError
			switch {
			case i%2 == 1 || i == 0 || i == len(hs)-2:
				require.NoError(t, err)
				require.Equal(t, 1, v)
			case i/2 == 2:
				require.Equal(t, failure, err)
			case i/2 == 3:
				require.ErrorAs(t, err, &p)
				require.Equal(t, "four", p.Value)
			case i/2 == 4:
				require.Equal(t, ErrGoexit, err)
			default:
				require.NoError(t, err)
				require.Equal(t, i/2+1, v)
			}
		}
	}
}

// A chain of tasks in one coroutine ends with the round: the worker's inbox, timers and sockets are
// then served.
func TestChainEndsWithTheRound(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	stop := make(chan None)
	var link func(s Spawner)
	link = func(s Spawner) {
		Go(s, func(cx *Context) error {
			select {
			case <-stop:
			default:
				link(cx)
			}
			return nil
		})
	}
	link(rt)
	_, err := join(t, Go(rt, func(cx *Context) error { return Sleep(cx, time.Millisecond) }))
	require.NoError(t, err)
	close(stop)
}

// Shutdown cancels straight-line code that has never waited, and names it if it does not end.
func TestShutdownFindsCodeThatNeverWaited(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Grace: 50 * time.Millisecond})
	begun, release := make(chan *Context, 1), make(chan None)
	h := Go(rt.Named("never waited"), func(cx *Context) error {
		begun <- cx
		<-release
		return nil
	})
	cx := receive(t, begun)
	err := rt.Shutdown(ended())
	var e *ShutdownError
	require.ErrorAs(t, err, &e)
	require.Len(t, e.Tasks, 1)
	require.Equal(t, "never waited", e.Tasks[0].Name)
	require.Error(t, cx.Err())
	close(release)
	_, err = join(t, h)
	require.NoError(t, err)
}

// Shutdown names and cancels straight-line code that has begun and has only yielded since, also
// while another task runs.
func TestShutdownFindsCodeThatHasOnlyYielded(t *testing.T) {
	begin := func(rt *Runtime) (yields *JoinHandle[None], release func()) {
		stuck := make(chan None)
		free, release := newRelease(t)
		join(t, Go(rt, func(cx *Context) error {
			yields = Go(cx.Named("yields"), func(cx *Context) error {
				Go(cx, func(*Context) error {
					close(stuck)
					<-free
					return nil
				})
				if err := Yield(cx); err != nil {
					return err
				}
				for cx.Err() == nil {
				}
				return cx.Err()
			})
			return nil
		}))
		receive(t, stuck)
		return yields, release
	}
	t.Run("named", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1, Grace: 50 * time.Millisecond})
		_, release := begin(rt)
		defer release()
		var e *ShutdownError
		require.ErrorAs(t, rt.Shutdown(ended()), &e)
		require.Len(t, e.Tasks, 2)
		require.True(t, slices.ContainsFunc(e.Tasks, func(i TaskInfo) bool { return i.Name == "yields" }), "%v", e)
	})
	t.Run("cancelled", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1, Grace: patience})
		yields, release := begin(rt)
		done := make(chan error)
		go func() { done <- rt.Shutdown(ended()) }()
		eventually(t, rt.closing.Load)
		release()
		require.NoError(t, receive(t, done))
		_, err := join(t, yields)
		require.ErrorIs(t, err, context.Canceled)
	})
}

// A poll that panics is counted in Metrics.Polls.
func TestPanicIsCountedAsPoll(t *testing.T) {
	const polls = 100
	rt := newTestRuntime(t, Config{Workers: 1})
	before := rt.Metrics().Polls
	var hs []*JoinHandle[None]
	runInTask(t, rt, func(cx *Context) error {
		for range polls {
			hs = append(hs, SpawnFuture(cx, PollFunc(func(*Context) (None, error) { panic("a poll") })))
		}
		return nil
	})
	for _, h := range hs {
		_, err := join(t, h)
		require.Error(t, err)
	}
	eventually(t, func() bool { return rt.Metrics().Polls >= before+polls })
}

func TestTaskInfosUniqueByID(t *testing.T) {
	info := func(id uint64, state string) TaskInfo { return TaskInfo{Task: Task{ID: id}, State: state} }
	require.Equal(t, []TaskInfo{info(1, "runnable"), info(2, "waiting")},
		uniqueByID([]TaskInfo{info(1, "runnable"), info(2, "waiting"), info(1, "waiting")}))
}
