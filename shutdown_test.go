package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A listener accepts nothing once Shutdown has begun, even if its task has begun to wait before.
// The tasks of open connections go on to their end.
func TestShutdownLetsTasksFinish(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	addrs, accepted := make(chan string, 1), make(chan struct{})
	server := Go(rt, func(cx *Context) error {
		ln, err := Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		addrs <- ln.Addr().String()
		c, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		close(accepted)
		Go(cx, func(cx *Context) error { // also spawned late: a task may
			defer c.Close()
			var p [4]byte
			for {
				n, err := c.Read(cx, p[:])
				if err != nil {
					return nil
				}
				if _, err := c.Write(cx, p[:n]); err != nil {
					return err
				}
			}
		})
		_, err = ln.Accept(cx)
		return err
	})
	c, err := net.Dial("tcp", receive(t, addrs))
	require.NoError(t, err)
	defer c.Close()
	receive(t, accepted)
	eventually(t, func() bool { return waiting(server) })

	over := make(chan error, 1)
	go func() { over <- rt.Shutdown(t.Context()) }()
	_, err = join(t, server)
	require.ErrorIs(t, err, ErrShutdown)
	_, err = join(t, Go(rt, func(*Context) error { return nil }))
	require.ErrorIs(t, err, ErrShutdown)

	for range 10 {
		_, err := c.Write([]byte("abcd"))
		require.NoError(t, err)
		var p [4]byte
		_, err = io.ReadFull(c, p[:])
		require.NoError(t, err)
	}
	require.Empty(t, over, "Shutdown has not waited")
	c.Close()
	require.NoError(t, receive(t, over))
}

// beginShutdown begins a Shutdown that waits for the tasks without a limit.
func beginShutdown(t *testing.T, rt *Runtime) (over <-chan error) {
	t.Helper()
	c := make(chan error, 1)
	go func() { c <- rt.Shutdown(t.Context()) }()
	eventually(t, rt.draining.Load)
	return c
}

// Draining is ready from the moment at which Shutdown begins, for the tasks that wait then and for
// all tasks that wait later. Tasks that have given up are not woken.
func TestDrainingIsReadyOnceShutdownBegins(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	cx, wakes := newPollCx(t, rt)
	early, given := DrainingFuture(), DrainingFuture()
	_, err := early.Poll(cx)
	require.Equal(t, ErrPending, err)
	other, otherWakes := newPollCx(t, rt)
	_, err = given.Poll(other)
	require.Equal(t, ErrPending, err)
	giveUp(nil, given)
	woken := otherWakes.Load()
	var servers []*JoinHandle[None]
	for range 10 {
		servers = append(servers,
			Go(rt, func(cx *Context) error { _, err := Await(cx, DrainingFuture()); return err }),
			SpawnFuture(rt, DrainingFuture()))
	}
	for _, h := range servers {
		eventually(t, func() bool { return waiting(h) })
	}
	giveUp(nil, DrainingFuture()) // a future that was never polled
	require.Zero(t, wakes.Load())

	require.NoError(t, receive(t, beginShutdown(t, rt)))
	for _, h := range servers {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	require.NotZero(t, wakes.Load())
	require.Equal(t, woken, otherWakes.Load(), "who has given up is woken")
	for _, f := range []Future[None]{early, DrainingFuture()} {
		_, err = f.Poll(cx)
		require.NoError(t, err)
	}
}

// First stage: code outside can no longer start tasks. Every task can.
func TestShutdownDrains(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	release, free := newRelease(t)
	began := make(chan None)
	tasks := Go(rt, func(cx *Context) error {
		close(began)
		if _, err := Await(cx, DrainingFuture()); err != nil {
			return err
		}
		_, err := SpawnBlocking(cx, func() (None, error) { <-release; return None{}, nil }).Join(cx)
		// A chain of tasks: the last step of each starts the next.
		var last atomic.Bool
		var link func(left int) func(cx *Context) error
		link = func(left int) func(cx *Context) error {
			return func(cx *Context) error {
				if left == 0 {
					last.Store(true)
					return nil
				}
				Go(cx, link(left-1))
				SpawnFuture(cx, ReadyFuture(1))
				return Yield(cx)
			}
		}
		_, err2 := Go(cx, link(100)).Join(cx)
		for !last.Load() {
			if err := Yield(cx); err != nil {
				return err
			}
		}
		return errors.Join(err, err2, cx.Err())
	})
	receive(t, began)
	over := beginShutdown(t, rt)

	_, err := join(t, Go(rt, func(*Context) error { return nil }))
	require.Equal(t, ErrShutdown, err)
	_, err = join(t, SpawnFuture(rt.Named("named"), ReadyFuture(1)))
	require.Equal(t, ErrShutdown, err)
	_, err = join(t, SpawnBlocking(rt, func() (int, error) { return 1, nil }))
	require.Equal(t, ErrShutdown, err)
	_, err = BlockOn(rt, func(*Context) (int, error) { return 1, nil })
	require.Equal(t, ErrShutdown, err)
	require.Empty(t, over)
	free()
	require.NoError(t, receive(t, over))
	_, err = join(t, tasks)
	require.NoError(t, err)
}

// A goroutine in BlockOn counts as a task: the second stage waits for it.
func TestShutdownWaitsForBlockOn(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	p := new(probe)
	result := make(chan error, 1)
	go func() {
		_, err := BlockOn(rt, func(cx *Context) (None, error) {
			_, err := Await(cx, p)
			_, err2 := Go(cx, func(*Context) error { return nil }).Join(cx)
			return None{}, errors.Join(err, expect(err2 == ErrShutdown, "the goroutine is outside, and has spawned: %v", err2))
		})
		result <- err
	}()
	eventually(t, func() bool { return rt.Metrics().BlockOns == 1 && p.polls.Load() > 0 })
	over := beginShutdown(t, rt)
	require.Empty(t, over)
	p.resolve(nil)
	require.NoError(t, receive(t, result))
	require.NoError(t, receive(t, over))
}

// Third stage: when the context of Shutdown ends, tasks that still live are cancelled, and so are
// calls that are only queued. Tasks can no longer start others. If all tasks end then, Shutdown
// returns no error.
func TestShutdownCancelsTheLate(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2, Blocking: BlockingConfig{Limit: 1}})
	release, free := newRelease(t)
	call := SpawnBlocking(rt, func() (None, error) { <-release; return None{}, nil })
	eventually(t, func() bool { return rt.Metrics().Blocking == 1 })
	queued := SpawnBlocking(rt, func() (None, error) { return None{}, errors.New("it ran") })
	cleaned := make(chan error, 1)
	task := Go(rt, func(cx *Context) error {
		err := Sleep(cx, time.Hour)
		_, err2 := Go(cx, func(*Context) error { return nil }).result()
		_, err3 := SpawnBlocking(cx, func() (None, error) { return None{}, nil }).result()
		cleaned <- errors.Join(
			expect(errors.Is(err2, ErrShutdown), "Go: %v", err2),
			expect(err3 != nil, "SpawnBlocking: %v", err3))
		return err
	})
	outside := make(chan error, 1)
	go func() {
		_, err := BlockOn(rt, func(cx *Context) (None, error) { return None{}, Sleep(cx, time.Hour) })
		outside <- err
	}()
	eventually(t, func() bool { return waiting(task) && rt.Metrics().BlockOns == 1 })
	over := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { over <- rt.Shutdown(ctx) }()
	eventually(t, rt.draining.Load)
	require.True(t, waiting(task), "it was cancelled in the second stage")
	cancel()
	require.NoError(t, receive(t, cleaned))
	_, err := join(t, task)
	require.ErrorIs(t, err, context.Canceled)
	_, err = join(t, queued)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, receive(t, outside), context.Canceled)
	require.Empty(t, over, "a call runs still")
	free()
	require.NoError(t, receive(t, over))
	_, err = join(t, call)
	require.NoError(t, err)
}

// Grace is for tasks that were cancelled. If all tasks have ended, Shutdown does not wait for it.
func TestShutdownWithoutGrace(t *testing.T) {
	for range 20 {
		rt := newTestRuntime(t, Config{Workers: 2, Grace: 1})
		runInTask(t, rt, Yield)
		require.NoError(t, rt.Shutdown(t.Context()))
	}
}

// Tasks that have not ended in the end are named, with their state, in an error that wraps the
// error of the context. A long list is cut off.
func TestShutdownError(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Grace: time.Millisecond, Unhandled: func(Task, error) {}})
	stuck, release := stick(t, rt.Named("stubborn"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err := rt.Shutdown(ctx)
	var se *ShutdownError
	require.ErrorAs(t, err, &se)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, []TaskInfo{{Task: Task{stuck.Task().ID, "stubborn"}, Kind: "straight", State: "runnable"}}, se.Tasks)
	require.EqualError(t, err, fmt.Sprintf(
		"async: shutdown: context deadline exceeded; tasks that have not ended: 1; %d (stubborn) runnable", stuck.Task().ID))
	release()
	join(t, stuck)
	receive(t, rt.workers[0].exited)

	require.Equal(t, err, rt.Shutdown(t.Context()), "a second call")

	var many ShutdownError
	for i := range uint64(13) {
		many.Tasks = append(many.Tasks, TaskInfo{Task: Task{ID: i + 1}, State: "runnable"})
	}
	require.Contains(t, many.Error(), "not ended: 13; 1 runnable; ")
	require.Contains(t, many.Error(), "; 10 runnable, and 3 more")
	require.NotContains(t, many.Error(), "11 runnable")
}

// Tasks that have not begun have not ended either, in whatever queue they are.
func TestShutdownNamesWhatHasNotBegun(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Grace: time.Millisecond, Unhandled: func(Task, error) {}})
	began, free := make(chan None), make(chan None)
	hs := make(chan *JoinHandle[None], 2)
	code := func(*Context) error { t.Error("it ran"); return nil }
	stuck := Go(rt.Named("stuck"), func(cx *Context) error {
		hs <- Go(cx.Named("in the queue"), code)
		hs <- SpawnFuture(cx.Named("future"), PollFunc(func(cx *Context) (None, error) { return None{}, code(cx) }))
		close(began)
		<-free
		return nil
	})
	release := sync.OnceFunc(func() { close(free) })
	defer release()
	receive(t, began)
	unbegun := []*JoinHandle[None]{receive(t, hs), receive(t, hs), Go(rt.Named("in the inbox"), code)}
	for range 2 * ringSize {
		unbegun = append(unbegun, SpawnFuture(rt, NeverFuture[None]()))
	}
	err := rt.Shutdown(ended())
	var se *ShutdownError
	require.ErrorAs(t, err, &se)
	require.Len(t, se.Tasks, 1+len(unbegun))
	require.Contains(t, err.Error(), fmt.Sprintf("not ended: %d; %d (stuck) runnable; %d (future) runnable; %d (in the queue) runnable; %d (in the inbox) runnable; ",
		len(se.Tasks), stuck.Task().ID, unbegun[1].Task().ID, unbegun[0].Task().ID, unbegun[2].Task().ID))
	release()
	for _, h := range unbegun {
		_, err := join(t, h)
		require.Equal(t, ErrShutdown, err)
	}
	join(t, stuck)
}

// A worker ends all tasks in its list, also a task that has another holder at this moment: the
// caller that wakes a task holds it until it has sent the task.
func TestShutdownWaitsForTasksOnTheirWay(t *testing.T) {
	begin := func(t *testing.T, workers int) (*Runtime, func() <-chan error) {
		rt := newTestRuntime(t, Config{Workers: workers, Grace: time.Millisecond})
		return rt, func() <-chan error {
			over := make(chan error, 1)
			go func() { over <- rt.Shutdown(ended()) }()
			eventually(t, rt.stopping.Load)
			return over
		}
	}
	t.Run("straight", func(t *testing.T) {
		rt, shutdown := begin(t, 1)
		h := Go(rt, func(cx *Context) error { return Sleep(cx.WithoutCancel(), time.Hour) })
		eventually(t, func() bool { return waiting(h) })
		require.True(t, h.state.take())
		over := shutdown()
		require.False(t, within(20*time.Millisecond, rt.workers[0].ended), "the worker has gone without it")
		h.schedule(nil)
		_, err := join(t, h)
		require.Equal(t, ErrShutdown, err)
		require.Error(t, receive(t, over))
	})
	t.Run("future, sent to a worker that has ended", func(t *testing.T) {
		rt, shutdown := begin(t, 2)
		p := new(probe)
		h := SpawnFuture(aimAt(rt, 0), p)
		eventually(t, func() bool { return waiting(h) && h.state.take() })
		lister := rt.workers[h.listedAt-1]
		h.w = rt.workers[2-h.listedAt] // as if its last waker had run there
		over := shutdown()
		eventually(t, h.w.ended)
		require.False(t, lister.ended())
		h.schedule(nil)
		_, err := join(t, h)
		require.Equal(t, ErrShutdown, err)
		require.EqualValues(t, 1, p.cancels.Load())
		require.Error(t, receive(t, over))
	})
}

// A goroutine has lost its processor between its look at Shutdown and its message to the worker. By
// then the worker has ended.
func TestShutdownEndsTaskSentToEndedWorker(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	require.NoError(t, rt.Shutdown(t.Context()))
	for _, w := range rt.workers {
		st := &straight[None]{do: func(*Context) error { return nil }}
		st.kind, st.body, st.cx.t, st.w = kindStraight, st, &st.task, w
		w.sendNew(&st.task)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := st.JoinBlocking(ctx)
		cancel()
		require.Equal(t, ErrShutdown, err)
		require.Nil(t, w.inbox.Load())
	}
}

// The inbox of a worker that has ended may also hold a future that is in the list of another worker,
// and one whose Cancel calls Goexit. All of them end.
func TestShutdownAbortsInbox(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	require.NoError(t, rt.Shutdown(t.Context()))
	a, b := rt.workers[0], rt.workers[1]
	var handles []*JoinHandle[int]
	for i := range 3 {
		f := new(goexitFuture)
		p := &plain[int]{f: f}
		p.body, p.cx.t, p.w = p, &p.task, b
		f.goexit = i == 1
		b.send(&p.task)
		handles = append(handles, &p.JoinHandle)
	}
	a.list(&handles[0].task)
	exited := make(chan None)
	go func() { defer close(exited); b.abortInbox() }()
	<-exited
	for _, h := range handles {
		_, err := h.TryJoin()
		require.ErrorIs(t, err, ErrShutdown)
	}
	require.Empty(t, a.waiting.all())
}

// goexitFuture is never ready.
type goexitFuture struct{ goexit bool }

func (f *goexitFuture) Poll(cx *Context) (int, error) { cx.Waker(); return 0, ErrPending }

func (f *goexitFuture) Cancel() {
	if f.goexit {
		runtime.Goexit()
	}
}
