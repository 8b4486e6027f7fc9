package async

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// threads counts the threads of the process, on systems that show their number.
func threads(t testing.TB) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	names, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	return len(names)
}

func TestShutdownFreesEverything(t *testing.T) {
	const rounds, workers = 10, 8
	newTestRuntime(t, Config{Workers: 1}) // counts goroutines and descriptors at the end
	before := threads(t)
	for range rounds {
		rt, err := New(Config{Workers: workers, Grace: patience})
		require.NoError(t, err)
		if runtime.GOOS == "linux" {
			require.GreaterOrEqual(t, threads(t), workers)
		}
		for i := range workers {
			_, err := join(t, Go(aimAt(rt, i), func(cx *Context) error { return Sleep(cx, time.Microsecond) }))
			require.NoError(t, err)
		}
		require.NoError(t, rt.Shutdown(ended()))
	}
	// The Go runtime has started threads of its own meanwhile, but far fewer than there were
	// workers.
	eventually(t, func() bool { return threads(t) < before+rounds*workers/2 })
}

// A worker that is about to sleep when Shutdown begins must notice that.
func TestShutdownWhileWorkersGoToSleep(t *testing.T) {
	newTestRuntime(t, Config{Workers: 1})
	for i := range 200 {
		rt, err := New(Config{Workers: 1 + i%3, Grace: patience})
		require.NoError(t, err)
		if i%2 == 0 {
			_, err = join(t, SpawnFuture(rt, ReadyFuture(1)))
			require.NoError(t, err)
		}
		require.NoError(t, rt.Shutdown(ended()))
	}
}

func TestRuntimesSideBySide(t *testing.T) {
	a := newTestRuntime(t, Config{Workers: 2})
	b := newTestRuntime(t, Config{Workers: 2})
	// Tasks of two runtimes wait for each other and wake each other.
	run := func(mine, other *Runtime) *JoinHandle[int] {
		return Spawn(mine, func(cx *Context) (int, error) {
			sum := 0
			for range 100 {
				v, err := Spawn(other, func(cx *Context) (int, error) {
					if cx.here().rt != other {
						return 0, errors.New("on the wrong runtime")
					}
					return 1, Yield(cx)
				}).Join(cx)
				if err != nil {
					return 0, err
				}
				if cx.here().rt != mine {
					return 0, errors.New("moved to another runtime")
				}
				sum += v
			}
			return sum, nil
		})
	}
	var hs []*JoinHandle[int]
	for range 4 {
		hs = append(hs, run(a, b), run(b, a))
	}
	for _, h := range hs {
		sum, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, 100, sum)
	}

	// A plain future may move to the worker on which it is woken, but not to another runtime.
	p := new(probe)
	var on *Runtime
	h := SpawnFuture(a, PollFunc(func(cx *Context) (int, error) {
		on = cx.here().rt
		return p.Poll(cx)
	}))
	eventually(t, func() bool { return waiting(h) })
	_, err := join(t, SpawnFuture(b, PollFunc(func(*Context) (None, error) { p.resolve(nil); return None{}, nil })))
	require.NoError(t, err)
	_, err = join(t, h)
	require.NoError(t, err)
	require.Same(t, a, on)

	require.NoError(t, b.Shutdown(ended()))
	_, err = join(t, SpawnFuture(a, SleepFuture(time.Microsecond)))
	require.NoError(t, err, "the other runtime's Shutdown has stopped this one")
}

// Connections are assigned to all workers evenly, with or without tasks from outside in between.
func TestAssignConnSpreads(t *testing.T) {
	for _, workers := range []int{1, 2, 3} {
		rt := newTestRuntime(t, Config{Workers: workers})
		for _, with := range []func(){func() {}, func() { rt.assignWorker() }} {
			placed := map[*worker]int{}
			for range 6 * workers {
				with()
				placed[rt.assignConn(false)]++
			}
			for _, w := range rt.workers {
				require.Equal(t, 6, placed[w])
			}
		}
	}
}

// bringsProcs runs the first task of rt, and waits until GOMAXPROCS is raised.
func bringsProcs(t *testing.T, rt *Runtime) {
	_, err := join(t, Go(rt, func(cx *Context) error { return Sleep(cx, time.Microsecond) }))
	require.NoError(t, err)
	if !rt.cfg.SharedProcs {
		eventually(t, rt.ownProcs.raised.Load)
	}
}

func TestProcsAreRaisedAndLowered(t *testing.T) {
	ownProcsOnly(t)
	before := runtime.GOMAXPROCS(0)
	shared := newTestRuntime(t, Config{Workers: 2, SharedProcs: true})
	bringsProcs(t, shared)
	require.Equal(t, before, runtime.GOMAXPROCS(0))
	own := newTestRuntime(t, Config{Workers: 3})
	bringsProcs(t, own)
	require.Equal(t, before+3, runtime.GOMAXPROCS(0))
	second := newTestRuntime(t, Config{})
	require.Len(t, second.workers, before, "the processors that another runtime has brought count as the program's")
	bringsProcs(t, second)
	require.Equal(t, before+3+before, runtime.GOMAXPROCS(0))
	for _, rt := range []*Runtime{own, shared, second} {
		bringsProcs(t, rt)
	}
	require.Equal(t, before+3+before, runtime.GOMAXPROCS(0))
	require.NoError(t, own.Shutdown(ended()))
	require.NoError(t, shared.Shutdown(ended()))
	require.NoError(t, second.Shutdown(ended()))
	require.NoError(t, second.Shutdown(ended()))
	require.Equal(t, before, runtime.GOMAXPROCS(0))
}

// A program that has no tasks keeps its GOMAXPROCS.
func TestProcsWithoutTasks(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	rt := newTestRuntime(t, Config{Workers: 2})
	ln, err := rt.ListenNet("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := rt.DialNet(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	peer, err := ln.Accept()
	require.NoError(t, err)
	defer peer.Close()
	read := later(func() (int, error) { return c.Read(make([]byte, 1)) })
	waits(t, c, 0)
	_, err = peer.Write([]byte("x"))
	require.NoError(t, err)
	require.Equal(t, answer{n: 1}, soon(t, read))
	require.Equal(t, before, runtime.GOMAXPROCS(0))
	require.NoError(t, rt.Shutdown(ended()))
	rt.bringProcs()
	require.Equal(t, before, runtime.GOMAXPROCS(0), "it has ended")
}

// If the program sets GOMAXPROCS while a runtime has raised it, the runtime does not change it any
// more.
func TestProcsThatAreSet(t *testing.T) {
	ownProcsOnly(t)
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	first := newTestRuntime(t, Config{Workers: 4})
	bringsProcs(t, first)
	require.Equal(t, before+4, runtime.GOMAXPROCS(2))
	second := newTestRuntime(t, Config{})
	require.Len(t, second.workers, 2)
	bringsProcs(t, second)
	require.Equal(t, 2, runtime.GOMAXPROCS(0))
	require.NoError(t, first.Shutdown(ended()))
	require.Equal(t, 2, runtime.GOMAXPROCS(0))
	require.NoError(t, second.Shutdown(ended()))
	require.Equal(t, 2, runtime.GOMAXPROCS(0))
	third := newTestRuntime(t, Config{Workers: 1})
	bringsProcs(t, third)
	require.Equal(t, 3, runtime.GOMAXPROCS(0), "all have ended: a new beginning")
	require.NoError(t, third.Shutdown(ended()))
	require.Equal(t, 2, runtime.GOMAXPROCS(0))
}

func TestSpawnAfterShutdown(t *testing.T) {
	r := new(reports)
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: r.add})
	cx, _ := newPollCx(t, rt)
	require.NoError(t, rt.Shutdown(ended()))

	ran := func(*Context) error { panic("it ran") }
	p := new(probe)
	ids := map[uint64]bool{}
	for _, s := range []Spawner{rt, cx} {
		h := Go(s, ran)
		_, err := join(t, h)
		require.Equal(t, ErrShutdown, err)
		ids[h.Task().ID] = true
		f := SpawnFuture(s, p)
		_, err = join(t, f)
		require.Equal(t, ErrShutdown, err)
		ids[f.Task().ID] = true
	}
	require.Len(t, ids, 4, "tasks have the same number")
	require.Zero(t, p.polls.Load())
	require.EqualValues(t, 2, p.cancels.Load())
	_, err := BlockOn(rt, func(*Context) (None, error) { panic("it ran") })
	require.Equal(t, ErrShutdown, err)
	require.Zero(t, r.count())
}

func TestSpawnDuringShutdown(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	p := new(probe)
	h := Go(rt, func(cx *Context) error {
		Sleep(cx, time.Hour)
		_, err := Go(cx, func(*Context) error { panic("it ran") }).result()
		_, err2 := SpawnFuture(cx, p).result()
		return errors.Join(
			expect(err == ErrShutdown, "Go: %v", err),
			expect(err2 == ErrShutdown, "SpawnFuture: %v", err2))
	})
	eventually(t, func() bool { return waiting(h) })
	require.NoError(t, rt.Shutdown(ended()))
	_, err := join(t, h)
	require.NoError(t, err)
	require.Zero(t, p.polls.Load())
	require.EqualValues(t, 1, p.cancels.Load())
}

// Shutdown cancels tasks that wait, tasks that are queued and tasks that keep running, and returns
// when the last deferred call has run.
func TestShutdownCancelsAndWaits(t *testing.T) {
	r := new(reports)
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: r.add})
	var over atomic.Int32
	p := new(probe)
	children := make(chan *JoinHandle[None], 1)
	hs := []*JoinHandle[None]{
		Go(rt, func(cx *Context) error {
			defer over.Add(1)
			return Sleep(cx, time.Hour)
		}),
		Go(rt, func(cx *Context) error {
			defer over.Add(1)
			h := Go(cx, func(cx *Context) error {
				defer over.Add(1)
				_, err := Await(cx, NeverFuture[int]())
				return err
			})
			children <- h
			_, err := h.Join(cx)
			return err
		}),
		Go(rt, func(cx *Context) error {
			defer over.Add(1)
			for {
				if err := Yield(cx); err != nil {
					return err
				}
			}
		}),
		Go(rt, func(cx *Context) error {
			defer over.Add(1)
			ln, err := Listen(cx, "tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer ln.Close()
			_, err = ln.Accept(cx)
			return err
		}),
		SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) { return YieldFuture().Poll(cx) })),
	}
	f := SpawnFuture(rt, p)
	child := receive(t, children)
	eventually(t, func() bool {
		return waiting(hs[0]) && waiting(hs[1]) && waiting(hs[3]) && waiting(f) && waiting(child)
	})
	require.NoError(t, rt.Shutdown(ended()))
	require.EqualValues(t, 5, over.Load())
	for i, h := range append(hs, child) {
		require.True(t, h.state.done())
		_, err := join(t, h)
		if i == 3 && errors.Is(err, ErrShutdown) {
			continue // its Accept failed in the first stage, before it was cancelled in the third
		}
		require.ErrorIs(t, err, context.Canceled, "task %d of the list", i)
	}
	_, err := join(t, f)
	require.Equal(t, context.Canceled, err)
	require.EqualValues(t, 1, p.cancels.Load())
	require.Zero(t, r.count())
}

// Shutdown cancels one task after the other. A task may return the error of a task that was
// cancelled before it. That is no failure of this task either.
func TestShutdownIsNoFailure(t *testing.T) {
	r := new(reports)
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
	children := make(chan *JoinHandle[None], 1)
	parent := Go(rt, func(cx *Context) error {
		h := Go(cx, func(cx *Context) error { return Sleep(cx, time.Hour) })
		children <- h
		_, err := h.Join(cx)
		return fmt.Errorf("child: %w", err)
	})
	spawner := Go(rt, func(cx *Context) error {
		for {
			if _, err := SpawnFuture(cx, ReadyFuture(1)).Join(cx); err != nil {
				return fmt.Errorf("spawn: %w", err)
			}
		}
	})
	child := receive(t, children)
	eventually(t, func() bool { return waiting(parent) && waiting(child) })
	rt.closing.Store(true) // the state of Shutdown when it cancels the first task
	child.Cancel()
	eventually(t, func() bool { return parent.state.done() && spawner.state.done() })
	require.NoError(t, rt.Shutdown(ended()))
	require.Empty(t, r.of(parent.Task().ID))
	require.Empty(t, r.of(spawner.Task().ID))
}

func TestShutdownAndBlockOn(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	began := make(chan *Context, 1)
	result := make(chan error, 1)
	var over atomic.Bool
	go func() {
		_, err := BlockOn(rt, func(cx *Context) (None, error) {
			defer over.Store(true)
			began <- cx
			return None{}, Sleep(cx, time.Hour)
		})
		result <- err
	}()
	receive(t, began)
	require.NoError(t, rt.Shutdown(ended()))
	require.True(t, over.Load(), "Shutdown did not wait for it")
	require.Equal(t, context.Canceled, receive(t, result))
}

func TestShutdownNamesGoroutinesInBlockOn(t *testing.T) {
	rt := newTestRuntime(t, Config{Grace: 200 * time.Millisecond, Workers: 1})
	began, release := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		BlockOn(rt, func(*Context) (None, error) { close(began); <-release; return None{}, nil })
	})
	receive(t, began)
	err := rt.Shutdown(ended())
	close(release)
	all.Wait()
	var se *ShutdownError
	require.ErrorAs(t, err, &se)
	require.NotContains(t, err.Error(), "tasks that have not ended: 0", "it says that nothing is left, but something is")
}

func TestShutdownTwice(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	release := make(chan struct{})
	began := make(chan struct{})
	h := Go(rt, func(cx *Context) error { // keeps Shutdown waiting
		close(began)
		<-release
		return nil
	})
	receive(t, began)
	results := make(chan error, 10)
	for range cap(results) {
		go func() { results <- rt.Shutdown(context.Background()) }()
	}
	eventually(t, rt.draining.Load)
	require.ErrorIs(t, rt.Shutdown(ended()), context.Canceled, "a second call that gives up")
	require.Empty(t, results)
	close(release)
	for range cap(results) {
		require.NoError(t, receive(t, results))
	}
	for range 20 {
		require.NoError(t, rt.Shutdown(ended()), "it is over, so ctx does not matter")
	}
	_, err := join(t, h)
	require.NoError(t, err)
}

// A task that blocks its worker cannot be ended. Shutdown names this task and all tasks that cannot
// end because of it. They are unwound when the blocking task returns.
func TestShutdownGivesUp(t *testing.T) {
	r := new(reports)
	rt := newTestRuntime(t, Config{Grace: 200 * time.Millisecond, Workers: 1, Unhandled: r.add})
	defers := make(chan string, 10)
	sleeper := Go(rt, func(cx *Context) error {
		defer func() { defers <- "sleeper" }()
		defer func() {
			if err := Sleep(cx, time.Hour); err != nil { // an await while the task is unwound
				defers <- "awaiting"
			}
		}()
		return Sleep(cx, time.Hour)
	})
	watched := Go(rt, func(cx *Context) error { // has a scope, which must end, too
		defer func() { defers <- "watched" }()
		ctx, cancel := context.WithCancel(cx)
		defer cancel()
		defer func() { <-ctx.Done() }()
		return Sleep(cx, time.Hour)
	})
	p := new(probe)
	plain := SpawnFuture(rt, p)
	eventually(t, func() bool { return waiting(sleeper) && waiting(watched) && waiting(plain) })

	began, release := make(chan struct{}), make(chan struct{})
	blocker := Go(rt, func(cx *Context) error {
		close(began)
		<-release
		return nil
	})
	receive(t, began)
	queued := Go(rt, func(*Context) error { defers <- "queued"; return nil })

	err := rt.Shutdown(ended())
	var se *ShutdownError
	require.ErrorAs(t, err, &se)
	require.ErrorIs(t, err, context.Canceled)
	named := map[uint64]string{}
	for _, info := range se.Tasks {
		named[info.ID] = info.State
	}
	require.Equal(t, "runnable", named[blocker.Task().ID])
	for _, id := range []uint64{sleeper.Task().ID, watched.Task().ID, plain.Task().ID} {
		require.Contains(t, named, id)
		require.Contains(t, err.Error(), fmt.Sprintf("%d ", id))
	}
	require.False(t, blocker.state.done() || sleeper.state.done())

	close(release)
	_, err = join(t, blocker)
	require.NoError(t, err)
	for name, h := range map[string]*JoinHandle[None]{"sleeper": sleeper, "watched": watched, "queued": queued} {
		if !within(patience, h.state.done) {
			t.Errorf("%s has never ended", name)
			continue
		}
		_, err := join(t, h)
		require.ErrorIs(t, err, ErrShutdown, name)
	}
	if within(patience, plain.state.done) {
		_, err = join(t, plain)
		require.Equal(t, ErrShutdown, err)
		require.EqualValues(t, 1, p.cancels.Load())
	} else {
		t.Error("the plain future has never ended")
	}
	close(defers)
	var ran []string
	for name := range defers {
		ran = append(ran, name)
	}
	require.ElementsMatch(t, []string{"awaiting", "sleeper", "watched"}, ran)
	receive(t, rt.workers[0].exited)
	require.Zero(t, r.count())
}

// Code that waits again and again although it has been cancelled still waits: other tasks run, and
// Shutdown can unwind it.
func TestTaskThatIgnoresCancellation(t *testing.T) {
	waits := map[string]func(cx *Context, p *probe){
		"Sleep": func(cx *Context, p *probe) { Sleep(cx, time.Hour) },
		"Await": func(cx *Context, p *probe) { Await(cx, p) },
		"Yield": func(cx *Context, p *probe) { Yield(cx) },
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1, Grace: 200 * time.Millisecond})
			var rescue, deferred atomic.Bool // rescue ends the task if the test fails
			var ignored atomic.Int32
			began := make(chan struct{})
			h := Go(rt, func(cx *Context) error {
				defer deferred.Store(true)
				p := new(probe)
				close(began)
				for !rescue.Load() {
					wait(cx, p)
					if cx.Err() != nil {
						ignored.Add(1)
					}
				}
				return nil
			})
			defer rescue.Store(true)
			receive(t, began)
			h.Cancel()
			eventually(t, func() bool { return ignored.Load() > 10 })
			neighbour := Go(rt, func(cx *Context) error { return Sleep(cx, time.Microsecond) })
			ok := within(patience, neighbour.state.done)
			if !ok {
				rescue.Store(true)
				t.Error("a neighbour on its worker does not run anymore")
			}
			err := rt.Shutdown(ended())
			if !ok {
				return
			}
			var se *ShutdownError
			require.ErrorAs(t, err, &se)
			require.Len(t, se.Tasks, 1)
			require.Equal(t, h.Task().ID, se.Tasks[0].ID)
			_, err = join(t, h)
			require.Equal(t, ErrShutdown, err)
			require.True(t, deferred.Load())
		})
	}
}

// A task that is unwound when its worker ends may call Goexit or panic in a deferred call. The
// other tasks are unwound all the same.
func TestShutdownUnwindsAll(t *testing.T) {
	rt := newTestRuntime(t, Config{Grace: 200 * time.Millisecond, Workers: 1, Unhandled: func(Task, error) {}})
	var deferred atomic.Int32
	var hs []*JoinHandle[None]
	for i := range 30 {
		hs = append(hs, Go(rt, func(cx *Context) error {
			defer deferred.Add(1)
			defer func() {
				switch i % 3 {
				case 1:
					runtime.Goexit()
				case 2:
					panic("in a deferred call")
				}
			}()
			return Sleep(cx, time.Hour)
		}))
	}
	eventually(t, func() bool {
		for _, h := range hs {
			if !waiting(h) {
				return false
			}
		}
		return true
	})
	began, release := make(chan struct{}), make(chan struct{})
	Go(rt, func(*Context) error { close(began); <-release; return nil })
	receive(t, began)
	require.Error(t, rt.Shutdown(ended()))
	close(release)
	for i, h := range hs {
		_, err := join(t, h)
		require.Error(t, err, "task %d", i)
	}
	require.EqualValues(t, len(hs), deferred.Load())
	receive(t, rt.workers[0].exited)
}

// A failure that has not been joined yet keeps no goroutine running, and forces no collection.
func TestFailuresForceNoCollection(t *testing.T) {
	collections := forcedCollections()
	synctest.Test(t, func(t *testing.T) {
		fs := &taskFailures{report: func(Task, error) { t.Error("reported") }}
		h := new(JoinHandle[int])
		f := fs.add(&h.task, errors.New("failed")).(*taskFailure)
		time.Sleep(time.Hour)
		require.Equal(t, collections, forcedCollections())
		require.True(t, fs.take(f))
		runtime.KeepAlive(h)
	})
}

// The end of a runtime waits for a report that is being made, so that the report is not lost with
// the program. The wait is limited, since the handler may itself wait for the end.
func TestFlushWaitsForTheReport(t *testing.T) {
	slow := errors.New("slow")
	began, release := make(chan None), make(chan None)
	var reported atomic.Int32
	fs := &taskFailures{report: func(_ Task, err error) {
		if err == slow {
			close(began)
			<-release
		}
		reported.Add(1)
	}}
	h := new(JoinHandle[int])
	fs.add(&h.task, slow).(*taskFailure).unjoinable()
	fs.add(&h.task, errors.New("other"))
	receive(t, began)
	flushed := make(chan None)
	go func() { fs.reportAll(time.Hour); close(flushed) }()
	eventually(t, func() bool { return reported.Load() == 1 })
	require.False(t, within(10*time.Millisecond, func() bool { return len(flushed) > 0 }))
	fs.reportAll(time.Microsecond)
	close(release)
	receive(t, flushed)
	require.EqualValues(t, 2, reported.Load())
	runtime.KeepAlive(h)
}

// A handler of failures may shut the runtime down.
func TestUnhandledMayShutDown(t *testing.T) {
	var rt *Runtime
	over := make(chan error, 1)
	rt = newTestRuntime(t, Config{Workers: 1, Grace: 10 * time.Millisecond, Unhandled: func(Task, error) { over <- rt.Shutdown(ended()) }})
	ln := tcpListen(t)
	server := startServe(rt, &Server{SpeaksFirst: true, Handler: func(*Context, Conn) (bool, error) { panic("oh") }}, ln)
	requireEnd(t, dials(t, ln, 1)[0])
	require.NoError(t, receive(t, over))
	_, err := joinOrCancel(server)
	require.Error(t, err)
}

//go:noinline
func waitsForAccept(cx *Context, ln Listener, line *atomic.Int32) error {
	_, _, here, _ := runtime.Caller(0)
	line.Store(int32(here) + 2)
	_, err := ln.Accept(cx)
	return err
}

//go:noinline
func waitsForSleep(cx *Context, line *atomic.Int32) error {
	_, _, here, _ := runtime.Caller(0)
	line.Store(int32(here) + 2)
	return Sleep(cx, time.Hour)
}

//go:noinline
func waitsForRead(cx *Context, c Conn, line *atomic.Int32) error {
	_, _, here, _ := runtime.Caller(0)
	line.Store(int32(here) + 2)
	_, err := io.ReadAll(BindConn(cx, c))
	return err
}

// SIGQUIT shows for each straight-line task the line on which it waits. It is the usual first step
// if a server hangs.
func TestTracebackShowsWhereTasksWait(t *testing.T) {
	if inChild(t) {
		waitForever(t)
		return
	}
	cmd := child(t)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer cmd.Process.Kill()

	lines := map[string]string{}
	in := bufio.NewScanner(stdout)
	for in.Scan() && in.Text() != "ready" {
		if name, line, ok := strings.Cut(in.Text(), " at "); ok {
			lines[name] = line
		}
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGQUIT))
	io.Copy(io.Discard, stdout)
	require.Error(t, cmd.Wait())

	require.Len(t, lines, 3)
	for name, line := range lines {
		frame := regexp.MustCompile(`\.` + name + `\(.*\)\n\t\S*runtime_test\.go:` + line + ` `)
		require.Regexp(t, frame, stderr.String())
	}
	require.Contains(t, stderr.String(), "[coroutine")
}

func waitForever(t *testing.T) {
	rt, err := New(Config{Workers: 2})
	if err != nil {
		panic(err)
	}
	var accept, sleep, read atomic.Int32
	ln, err := ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		panic(err)
	}
	server := Go(rt, func(cx *Context) error {
		c, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		Go(cx, func(cx *Context) error { return waitsForRead(cx, c, &read) })
		return waitsForAccept(cx, ln, &accept)
	})
	h := Go(rt, func(cx *Context) error { return waitsForSleep(cx, &sleep) })
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		panic(err)
	}
	defer peer.Close()
	eventually(t, func() bool {
		if accept.Load() == 0 || sleep.Load() == 0 || read.Load() == 0 {
			return false
		}
		n := 0
		for _, w := range rt.workers {
			for _, u := range w.waiting.all() {
				if u.info(nil).State == "waiting" {
					n++
				}
			}
		}
		return n == 3 && waiting(server) && waiting(h)
	})
	// Go's traceback can end in a fault, and be cut off, if a thread returns from a system call
	// meanwhile.
	if runtime.GOOS == "linux" {
		eventually(t, func() bool { return parkedWorkers(rt) == len(rt.workers) })
	}
	fmt.Printf("waitsForAccept at %d\nwaitsForSleep at %d\nwaitsForRead at %d\nready\n", accept.Load(), sleep.Load(), read.Load())
	select {}
}

// A pause of the whole process does not use up Grace, even if it is longer than Grace.
func TestShutdownOfAPausedProcess(t *testing.T) {
	const grace = time.Second // long enough for a worker to answer once it goes on
	if inChild(t) {
		rt, err := New(Config{Workers: 1, Grace: grace})
		require.NoError(t, err)
		h := Go(rt, func(cx *Context) error {
			err := Sleep(cx, time.Hour)
			unix.Kill(unix.Getpid(), unix.SIGSTOP)
			return err
		})
		eventually(t, func() bool { return waiting(h) })
		fmt.Println("Shutdown:", rt.Shutdown(ended()))
		return
	}
	cmd := child(t)
	var out strings.Builder
	cmd.Stdout = &out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var status unix.WaitStatus
	eventually(t, func() bool {
		pid, err := unix.Wait4(cmd.Process.Pid, &status, unix.WUNTRACED|unix.WNOHANG, nil)
		require.True(t, err == nil || err == unix.EINTR, err)
		return err == nil && pid == cmd.Process.Pid
	})
	require.True(t, status.Stopped())
	time.Sleep(grace + grace/10) // Shutdown must not count this time
	require.NoError(t, cmd.Process.Signal(unix.SIGCONT))
	require.NoError(t, cmd.Wait())
	require.Contains(t, out.String(), "Shutdown: <nil>\n")
}

// Without a pause, grace lasts for Config.Grace. It leaves no goroutine or timer behind.
func TestShutdownGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := &Runtime{cfg: Config{Grace: time.Minute}}
		for _, early := range []bool{false, true} {
			ctx, cancel := rt.grace()
			begun := time.Now()
			if early {
				time.Sleep(time.Second)
				cancel()
			}
			<-ctx.Done()
			if !early {
				require.Equal(t, time.Minute, time.Since(begun))
			}
			cancel()
		}
		rt.cfg.Grace = 1 // a tenth of it is 0
		ctx, cancel := rt.grace()
		defer cancel()
		<-ctx.Done()
	})
}
