package async

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stallLog collects the reports that a runtime passes to Config.Stalled.
type stallLog struct{ c chan Stall }

func newStallLog() *stallLog { return &stallLog{make(chan Stall, 1000)} }

func (l *stallLog) add(s Stall) { l.c <- s }

// next returns the next report on a task of that name. On a machine that is overloaded there may be
// reports on other tasks.
func (l *stallLog) next(t *testing.T, name string) Stall {
	t.Helper()
	for {
		if s := receive(t, l.c); s.Task.Name == name {
			return s
		}
	}
}

// rest returns how many more reports on tasks of that name there are.
func (l *stallLog) rest(name string) (n int) {
	for len(l.c) > 0 {
		if s := <-l.c; s.Task.Name == name {
			n++
		}
	}
	return n
}

// newRelease returns a channel, and a function that closes it. The channel is closed at the end of
// the test at the latest.
func newRelease(t *testing.T) (release <-chan None, free func()) {
	c := make(chan None)
	free = sync.OnceFunc(func() { close(c) })
	t.Cleanup(free)
	return c, free
}

// arrivals counts the calls of blocksHere.
var arrivals atomic.Int32

// blocksHere blocks its thread until release is closed.
//
//go:noinline
func blocksHere(release <-chan None) {
	arrivals.Add(1)
	<-release
}

// computesHere computes until release is closed.
//
//go:noinline
func computesHere(release <-chan None) {
	for {
		select {
		case <-release:
			return
		default:
		}
	}
}

// mockWatch is a stallWatch with a clock of its own. The test drives it, at moments when it is
// certain what the workers do. The threads of the workers seem to be asleep, unless the test
// replaces asleep. The runtime has no other stallWatch, because of Stall: -1.
type mockWatch struct {
	*stallWatch
	log      *stallLog
	now      time.Time
	profiles int // how many profiles of goroutines were taken
}

func newMockWatch(rt *Runtime, log *stallLog) *mockWatch {
	h := &mockWatch{stallWatch: newStallWatch(rt), log: log, now: time.Now()}
	h.every = defaultStall
	h.used = func(*worker) (time.Duration, bool) { return 0, true }
	h.asleep = func(*worker) bool { return true }
	h.starved = func(f func()) bool { f(); return false }
	h.reports.profile = func() string {
		h.profiles++
		return takeProfile()
	}
	return h
}

// see looks for one more Config.Stall, and returns the reports. The first stall that it finds has
// its stack, however recently another stack was taken.
func (h *mockWatch) see(late bool) []Stall {
	h.reports.stackDue = time.Time{}
	return h.seeLater(h.every, late)
}

// seeLater looks until d more has passed, and returns the reports.
func (h *mockWatch) seeLater(d time.Duration, late bool) (found []Stall) {
	for end := h.now.Add(d); h.now.Before(end); {
		h.now = h.now.Add(h.every / 2)
		h.look(h.now, late)
		h.reports.delivery.Wait()
	}
	for len(h.log.c) > 0 {
		found = append(found, <-h.log.c)
	}
	return found
}

// stuck returns the report on the task that start has started, and that blocks in blocksHere.
func (h *mockWatch) stuck(t *testing.T, start func()) Stall {
	t.Helper()
	before := arrivals.Load()
	start()
	eventually(t, func() bool { return arrivals.Load() > before })
	require.Empty(t, h.see(false), "seen for the first time")
	found := h.see(false)
	require.Len(t, found, 1)
	return found[0]
}

// A task keeps one of two workers for 200 ms, beside a thousand other tasks:
//
//  1. the stall is reported once, with the task, its worker and the code;
//  2. tasks that may move are run by the other worker meanwhile;
//  3. sockets of the stuck worker are served once it returns.
func TestStallIsReportedAndWorkMovesOn(t *testing.T) {
	for name, stuckIn := range map[string]func(<-chan None){"blocksHere": blocksHere, "computesHere": computesHere} {
		t.Run(name, func(t *testing.T) {
			// Try again if the thread lost its processor before it called stuckIn.
			eventually(t, func() bool { return stallsIn(t, name, stuckIn) })
		})
	}
}

// stallsIn returns false, without all of its checks, if the task was reported before it had called
// stuckIn.
func stallsIn(t *testing.T, name string, stuckIn func(<-chan None)) bool {
	const tasks, stuckFor = 1000, 200 * time.Millisecond
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 2, Stalled: log.add})
	client, server := stallEcho(t, rt)

	release, free := newRelease(t)
	spawned := make(chan None)
	var others []*JoinHandle[int]
	spawn := func(s Spawner, n int) {
		for i := range n {
			work := func(cx *Context) (int, error) { return cx.here().index, nil }
			if i%2 == 0 {
				others = append(others, SpawnFuture(s, PollFunc(work)))
			} else {
				others = append(others, Spawn(s, func(cx *Context) (int, error) {
					index := cx.here().index
					return index, Sleep(cx, time.Millisecond)
				}))
			}
		}
	}
	begun := time.Now()
	h := Go(pinned(rt, 0).Named("stuck"), func(cx *Context) error {
		spawn(cx, tasks/2)
		close(spawned)
		stuckIn(release)
		return nil
	})
	receive(t, spawned)
	spawn(rt, tasks/2)
	client.Write([]byte("ping"))

	stall := log.next(t, "stuck")
	require.Equal(t, Task{h.Task().ID, "stuck"}, stall.Task)
	require.Equal(t, 0, stall.Worker)
	require.GreaterOrEqual(t, stall.For, defaultStall)
	require.LessOrEqual(t, stall.For, time.Since(begun))
	require.Contains(t, stall.String(), "async: task "+stall.Task.String()+" has kept worker 0 for "+stall.For.String())
	if !strings.Contains(stall.Stack, "async."+name) {
		free()
		return false
	}
	require.Contains(t, stall.Stack, "watchdogstall_test.go:")

	for _, h := range others {
		index, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, 1, index, "it ran before worker 0 got stuck, or waited for it")
	}
	time.Sleep(stuckFor - time.Since(begun)) // leave time for further reports, and for a wrong reply
	require.False(t, server.state.done(), "it was served, though its worker is stuck")
	require.Zero(t, log.rest("stuck"), "reported more than once")
	free()
	_, err := join(t, h)
	require.NoError(t, err)
	client.SetReadDeadline(time.Now().Add(patience))
	var p [4]byte
	_, err = io.ReadFull(client, p[:])
	require.NoError(t, err)
	require.Equal(t, "ping", string(p[:]))
	require.GreaterOrEqual(t, rt.Metrics().Stalls, uint64(1))
	return true
}

// stallEcho returns a connection that a task of worker 0 serves. The task already waits for one
// message, which it echoes.
func stallEcho(t *testing.T, rt *Runtime) (client net.Conn, server *JoinHandle[None]) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	server = Go(pinned(rt, 0).Named("server"), func(cx *Context) error {
		c, err := Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		var p [4]byte
		if _, err := c.Read(cx, p[:]); err != nil {
			return err
		}
		_, err = c.Write(cx, p[:])
		return err
	})
	client, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	eventually(t, func() bool { return server.info(nil).Waits == "read" })
	return client, server
}

// Each long poll is reported once, also if one task has several of them. Each report is counted.
func TestStallEachPoll(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Stalled: log.add})
	watch := newMockWatch(rt, log)
	steps := NewChan[<-chan None](0)
	h := Go(rt.Named("again"), func(cx *Context) error {
		for release := range steps.All(cx) {
			blocksHere(release)
			if err := Yield(cx); err != nil {
				return err
			}
		}
		return nil
	})
	for range 3 {
		release, free := newRelease(t)
		stall := watch.stuck(t, func() { require.NoError(t, steps.SendBlocking(t.Context(), release)) })
		require.Equal(t, Task{h.Task().ID, "again"}, stall.Task)
		require.Empty(t, watch.see(false), "reported again")
		free()
	}
	steps.Close()
	join(t, h)
	require.EqualValues(t, 3, rt.Metrics().Stalls)
}

// The threshold is Config.Stall: a poll that has not reached it is not reported.
func TestStallThreshold(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 1, Stall: 50 * time.Millisecond, Stalled: log.add})
	release, free := newRelease(t)
	begun := time.Now()
	Go(rt.Named("long"), func(*Context) error { blocksHere(release); return nil })
	stall := log.next(t, "long")
	free()
	require.GreaterOrEqual(t, stall.For, 50*time.Millisecond)
	require.GreaterOrEqual(t, time.Since(begun), 50*time.Millisecond)
}

// Many polls that are each shorter than the threshold are no stall, even if they take longer
// together before the worker's round ends.
func TestStallIsOnePoll(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Stalled: log.add})
	watch := newMockWatch(rt, log)
	eventually(t, func() bool { // until the worker would run all tasks in one round
		entered, goOn := make(chan int, 3), make(chan None)
		defer close(goOn)
		var hs []*JoinHandle[None]
		runInTask(t, rt, func(cx *Context) error {
			for range 3 {
				hs = append(hs, SpawnFuture(cx, PollFunc(func(cx *Context) (None, error) {
					entered <- cx.here().roundSize
					<-goOn
					return None{}, nil
				})))
			}
			return nil
		})
		together := false
		for i := range hs {
			roundSize := receive(t, entered)
			together = together || i == 0 && roundSize > len(hs)
			require.Empty(t, watch.see(false), "this poll was not there at the last look")
			goOn <- None{}
		}
		for _, h := range hs {
			_, err := join(t, h)
			require.NoError(t, err)
		}
		return together
	})
}

// A future without a name is reported without an ID, also if the task that was polled before it had
// one. The stack shows the code of the future.
func TestStallOfANamelessFuture(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Stalled: log.add})
	watch := newMockWatch(rt, log)
	for _, before := range []Spawner{rt.Named("straight"), rt} {
		release, free := newRelease(t)
		stall := watch.stuck(t, func() {
			Go(before, func(cx *Context) error {
				SpawnFuture(cx, PollFunc(func(*Context) (None, error) { blocksHere(release); return None{}, nil }))
				return nil
			})
		})
		free()
		require.Zero(t, stall.Task)
		require.Contains(t, stall.Stack, "blocksHere")
		require.Contains(t, stall.String(), "a future without a name has kept worker 0")
	}
	release, free := newRelease(t)
	var h *JoinHandle[None]
	stall := watch.stuck(t, func() {
		h = SpawnFuture(rt.Named("future"), PollFunc(func(*Context) (None, error) { blocksHere(release); return None{}, nil }))
	})
	free()
	require.Equal(t, Task{h.Task().ID, "future"}, stall.Task)
	require.Contains(t, stall.Stack, "blocksHere")
}

// The stack is the stack of the code that keeps the worker. It shows no other code that runs for
// the same worker or was started by the task.
func TestStallStack(t *testing.T) {
	stuck := map[string]func(release <-chan None){
		"in the task": blocksHere,
		"in a coroutine of its own": func(release <-chan None) {
			next, stop := iter.Pull(func(yield func(int) bool) {
				blocksHere(release)
				yield(1)
			})
			defer stop()
			next()
		},
		"beside one": func(release <-chan None) {
			next, stop := iter.Pull(func(yield func(int) bool) { yield(bystander(1)) })
			defer stop()
			next()
			blocksHere(release)
		},
		"with a goroutine": func(release <-chan None) {
			began := make(chan None)
			go func() { close(began); bystanderBlocks(release) }()
			<-began
			blocksHere(release)
		},
		"under a deep stack": func(release <-chan None) {
			deeper(200, func() { blocksHere(release) })
		},
		"with a goroutine under a deep stack": func(release <-chan None) {
			began := make(chan None)
			go deeper(200, func() { close(began); bystanderBlocks(release) })
			<-began
			blocksHere(release)
		},
		"in a deferred call": func(release <-chan None) {
			defer blocksHere(release)
		},
	}
	for _, labels := range []bool{false, true} {
		log := newStallLog()
		rt := newTestRuntime(t, Config{Workers: 2, Stall: -1, Stalled: log.add, Tuning: Tuning{Labels: labels}})
		watch := newMockWatch(rt, log)
		for range 20 { // other tasks, which wait
			h := Go(rt.Named("stuck"), func(cx *Context) error { bystander(0); return Sleep(cx, time.Hour) })
			eventually(t, func() bool { return waiting(h) })
		}
		allAsleep(t, rt)
		for name, stuckIn := range stuck {
			t.Run(name, func(t *testing.T) {
				release, free := newRelease(t)
				var h *JoinHandle[None]
				stall := watch.stuck(t, func() {
					h = Go(pinned(rt, 1).Named("stuck"), func(*Context) error { stuckIn(release); return nil })
				})
				free()
				require.Equal(t, Task{h.Task().ID, "stuck"}, stall.Task)
				require.Equal(t, 1, stall.Worker)
				require.Contains(t, stall.Stack, "async.blocksHere\n")
				require.Contains(t, stall.Where, "async.blocksHere (watchdogstall_test.go:")
				require.NotContains(t, stall.Stack, "bystander")
				join(t, h)
			})
		}
	}
}

// allAsleep waits until no worker polls. Call it when nothing is left that may wake a worker.
func allAsleep(t *testing.T, rt *Runtime) {
	t.Helper()
	for _, w := range rt.workers {
		eventually(t, w.asleep.Load)
	}
}

// A task whose code has set profiler labels of its own, and tasks that run on the same coroutine or
// worker later, are found like other tasks.
func TestStallAfterLabels(t *testing.T) {
	labelled := pprof.WithLabels(context.Background(), pprof.Labels("who", "me"))
	do := func(cx *Context) {
		pprof.Do(cx, pprof.Labels("a", "b"), func(context.Context) {})
	}
	replace := func(*Context) { pprof.SetGoroutineLabels(context.Background()) }
	for _, labels := range []bool{false, true} {
		log := newStallLog()
		rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Stalled: log.add, Tuning: Tuning{Labels: labels}})
		watch := newMockWatch(rt, log)
		stuck := func(t *testing.T, s Spawner, future bool, before func(*Context)) {
			release, free := newRelease(t)
			fn := func(cx *Context) (None, error) {
				before(cx)
				blocksHere(release)
				return None{}, nil
			}
			var h *JoinHandle[None]
			stall := watch.stuck(t, func() {
				if future {
					h = SpawnFuture(s, PollFunc(fn))
				} else {
					h = Spawn(s, fn)
				}
			})
			free()
			require.Equal(t, Task{h.Task().ID, "stuck"}, stall.Task)
			require.Contains(t, stall.Stack, "async.blocksHere\n")
			join(t, h)
		}
		for _, future := range []bool{false, true} {
			t.Run(fmt.Sprintf("labels=%v/future=%v", labels, future), func(t *testing.T) {
				plain := rt.Named("stuck")
				stuck(t, plain, future, do)
				stuck(t, plain.Under(labelled), future, do)
				stuck(t, plain.Under(labelled), future, func(cx *Context) {
					label, _ := pprof.Label(cx, "who")
					require.Equal(t, "me", label, "the labels of the context passed to Under")
				})
				stuck(t, plain, future, func(cx *Context) {
					outer, cancel := cx.WithCancel()
					defer cancel()
					pprof.Do(outer, pprof.Labels("a", "b"), func(ctx context.Context) {
						pprof.Do(ctx, pprof.Labels("c", "d"), func(context.Context) {})
					})
				})
				var replaced *JoinHandle[None]
				if future {
					replaced = SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) { replace(cx); return None{}, nil }))
				} else {
					replaced = Go(rt, func(cx *Context) error { replace(cx); return nil })
				}
				_, err := join(t, replaced)
				require.NoError(t, err)
				for range 2 {
					stuck(t, plain, future, func(*Context) {})
				}
				stuck(t, plain, future, replace)
			})
		}
	}
	cx, _ := newPollCx(t, newTestRuntime(t, Config{Workers: 1}))
	require.Nil(t, cx.Value("key"))
	_, has := pprof.Label(cx, workerLabel)
	require.False(t, has, "no worker runs it")
}

// deeper calls f under n frames.
//
//go:noinline
func deeper(n int, f func()) int {
	if n == 0 {
		f()
		return 0
	}
	return deeper(n-1, f) + 1
}

//go:noinline
func bystander(n int) int { return n }

//go:noinline
func bystanderBlocks(c <-chan None) { <-c }

// If Config.Stall is below zero, there is no stallWatch, and no stall is reported.
func TestStallNever(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Stalled: log.add})
	require.Nil(t, rt.watchdog.stalls)
	h, release := stick(t, rt)
	time.Sleep(5 * defaultStall)
	release()
	join(t, h)
	require.Empty(t, log.c)
	require.Zero(t, rt.Metrics().Stalls)
}

// The watchdog sleeps while the runtime is idle, also if timers are set. It is awake again once a
// worker has work. Workers that have nothing to do take no turns.
func TestWatchdogIdle(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 4, Stalled: log.add})
	idle := func() bool { // no worker takes a turn for longer than a wait that keeps the P
		var turns []uint32
		for _, w := range rt.workers {
			turns = append(turns, w.turn.Load())
		}
		time.Sleep(keepP * 2)
		for i, w := range rt.workers {
			if w.turn.Load() != turns[i] {
				return false
			}
		}
		return rt.watchdog.due.Load() == 0
	}
	for range 3 {
		eventually(t, idle)
		release, free := newRelease(t)
		h := Go(rt.Named("stuck"), func(*Context) error { blocksHere(release); return nil })
		log.next(t, "stuck")
		free()
		join(t, h)
	}
	for i := range rt.workers {
		h := SpawnFuture(pinned(rt, i), SleepFuture(time.Hour))
		eventually(t, func() bool { return waiting(h) })
	}
	eventually(t, idle, "with timers")
	release, free := newRelease(t)
	Go(rt.Named("stuck"), func(*Context) error { blocksHere(release); return nil })
	log.next(t, "stuck")
	free()
}

// A handler that blocks does not delay workers, nor the other steps of Shutdown. Shutdown waits for
// it.
func TestStallHandlerThatBlocks(t *testing.T) {
	called := make(chan Stall, 100)
	release, end := newRelease(t)
	var over atomic.Bool
	rt := newTestRuntime(t, Config{Workers: 1, Stalled: func(s Stall) {
		called <- s
		<-release
		over.Store(true)
	}})
	h, free := stick(t, rt)
	receive(t, called)
	free()
	join(t, h)
	_, err := join(t, Go(rt, func(cx *Context) error { return Sleep(cx, time.Microsecond) }))
	require.NoError(t, err)
	done := make(chan error)
	go func() { done <- rt.Shutdown(ended()) }()
	receive(t, rt.workers[0].exited)
	end()
	require.NoError(t, receive(t, done))
	require.True(t, over.Load())
}

// Without a handler, a stall is reported as one line on standard error, with the user's frame and a
// reference to Config. Stalls for which no stack was to be taken are counted in the next line.
func TestStallReporter(t *testing.T) {
	cfg, err := Config{}.withDefaults()
	require.NoError(t, err)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	stderr := os.Stderr
	os.Stderr = w
	for i := range uint64(7) {
		s := Stall{Task: Task{ID: i + 1, Name: "stuck"}, Worker: 3, For: 20 * time.Millisecond, looked: i%3 == 0}
		if i == 3 {
			s.Where, s.Stack = "main.work (main.go:7)", "main.work\n\tmain.go:7\n"
		}
		cfg.Stalled(s)
	}
	os.Stderr = stderr
	require.NoError(t, w.Close())
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	const see = "see Config.Stalled for the stack, Config.Stall for the limit"
	require.Equal(t, "async: task 1 (stuck) has kept worker 3 for 20ms or more without awaiting ("+see+")\n"+
		"async: task 4 (stuck) has kept worker 3 for 20ms or more without awaiting, at main.work (main.go:7) ("+see+"; 2 more since the last such line)\n"+
		"async: task 7 (stuck) has kept worker 3 for 20ms or more without awaiting ("+see+"; 2 more since the last such line)\n", string(got))
}

// A task that sleeps, waits for a socket or waits for another task is no stall.
func TestStallNotWhileWaiting(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 2, Stall: -1, Stalled: log.add})
	watch := newMockWatch(rt, log)
	client, server := stallEcho(t, rt)
	release, free := newRelease(t)
	hs := []*JoinHandle[None]{
		Go(rt.Named("waits"), func(cx *Context) error { return Sleep(cx, time.Hour) }),
		Go(rt.Named("waits"), func(cx *Context) error { _, err := Await(cx, new(probe)); return err }),
		Go(rt.Named("waits"), func(cx *Context) error {
			_, err := SpawnBlocking(cx, func() (None, error) { blocksHere(release); return None{}, nil }).Join(cx)
			return err
		}),
	}
	for _, h := range hs {
		eventually(t, func() bool { return waiting(h) })
	}
	allAsleep(t, rt)
	for range 5 {
		require.Empty(t, watch.see(false))
	}
	free()
	client.Close()
	join(t, server)
	_, err := join(t, hs[2])
	require.NoError(t, err)
}

// script describes the looks of a stallWatch at one worker that stays in one poll. It has the state
// of the worker's thread in each half of Config.Stall, and the look at which the stall is found; 0
// means never.
type script struct {
	looks []scriptedLook
	found int
}

type scriptedLook struct {
	computed time.Duration
	asleep   bool
	late     bool
	wakes    bool // while the watch checks whether the thread is blocked
	starved  bool // another thread of the process is ready to run, and gets no processor
}

// The time for which the thread computed or was blocked counts. The time for which it was ready to
// run does not count: a task is never reported because its thread had no processor.
func TestStallIsTheThreadsOwnTime(t *testing.T) {
	const ms = time.Millisecond
	many := func(n int, looks ...scriptedLook) (all []scriptedLook) {
		for range n {
			all = append(all, looks...)
		}
		return all
	}
	asleep, ready := scriptedLook{asleep: true}, scriptedLook{}
	for name, c := range map[string]script{
		"computes":                         {many(9, scriptedLook{computed: 5 * ms}), 2},
		"is blocked":                       {many(9, asleep), 2},
		"is ready to run":                  {many(200, ready), 0},
		"gets a fifth of a processor":      {many(12, scriptedLook{computed: ms}), 10},
		"computes, then is blocked":        {append(many(1, scriptedLook{computed: 3 * ms}), many(9, asleep)...), 3},
		"is ready, then blocked":           {append(many(10, ready), many(9, asleep)...), 12},
		"is blocked now and then":          {many(9, asleep, ready, ready), 4},
		"computes in between":              {many(9, scriptedLook{computed: ms, asleep: true}), 2},
		"has been given a P meanwhile":     {many(200, scriptedLook{asleep: true, wakes: true}), 0},
		"may wait for a thread that waits": {append(many(200, scriptedLook{asleep: true, starved: true}), asleep, asleep), 202},
		"computes while others wait":       {many(9, scriptedLook{computed: 5 * ms, starved: true}), 2},
		"is looked at late":                {many(9, scriptedLook{asleep: true, late: true}), 2},
	} {
		t.Run(name, func(t *testing.T) {
			log := newStallLog()
			rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Stalled: log.add})
			watch := newMockWatch(rt, log)
			h, release := stick(t, rt.Named("stuck"))
			var look scriptedLook
			var used time.Duration
			watch.used = func(*worker) (time.Duration, bool) { return used, true }
			watch.asleep = func(*worker) bool { return look.asleep }
			watch.starved = func(f func()) bool {
				f()
				if look.wakes {
					used++
				}
				return look.starved
			}
			require.Empty(t, watch.seeLater(watch.every/2, false), "seen for the first time")
			found := 0
			for i := range c.looks {
				look = c.looks[i]
				used += look.computed
				if stalls := watch.seeLater(watch.every/2, look.late); len(stalls) > 0 {
					require.Zero(t, found, "reported again")
					require.Len(t, stalls, 1)
					require.Equal(t, Task{h.Task().ID, "stuck"}, stalls[0].Task)
					found = i + 1
				}
			}
			release()
			join(t, h)
			require.Equal(t, c.found, found)
			require.EqualValues(t, min(found, 1), rt.Metrics().Stalls)
		})
	}
}

// Systems other than Linux have no clock for threads. Without it, a late look counts no time since
// the last look, and a task that was reported before is not reported again.
func TestStallLateLook(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Stalled: log.add})
	watch := newMockWatch(rt, log)
	watch.used = func(*worker) (time.Duration, bool) { return 0, false }
	watch.asleep = func(*worker) bool { t.Error("asked"); return false }
	look := func(late bool) int { return len(watch.see(late)) }
	for range 2 {
		h, release := stick(t, rt.Named("stuck"))
		require.Zero(t, look(false), "seen for the first time")
		for range 20 {
			require.Zero(t, look(true))
		}
		require.Equal(t, 1, look(false))
		require.Zero(t, look(false)+look(true)+look(false), "reported again")
		release()
		join(t, h)
	}
}

// The clock of a worker's thread goes on while the worker computes, and the thread is asleep once
// the worker is blocked.
func TestThread(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1})
	thread := rt.workers[0].thread
	before, known := thread.Used()
	if !known {
		return // the fallback is tested above
	}
	release, free := newRelease(t)
	h := Go(rt, func(*Context) error { computesHere(release); return nil })
	eventually(t, func() bool { now, _ := thread.Used(); return now-before > defaultStall })
	eventually(t, func() bool { return !thread.Asleep() })
	free()
	join(t, h)
	h, unstick := stick(t, rt)
	eventually(t, thread.Asleep)
	before, _ = thread.Used()
	eventually(t, func() bool { now, _ := thread.Used(); same := now == before; before = now; return same })
	unstick()
	join(t, h)
}

// Every stall is counted and reported. A stack needs a profile of all goroutines, so stacks are
// taken once a second, however many stalls and goroutines there are.
func TestStallsAreCountedFirst(t *testing.T) {
	const tasks, stalls = 2000, 50
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Stalled: log.add})
	watch := newMockWatch(rt, log)
	for range tasks {
		Go(rt, func(cx *Context) error { return Sleep(cx, time.Hour) })
	}
	watch.reports.profile = func() string { watch.profiles++; return "" } // a quick profile: slow profiles are not taken each second
	stall := func() (s Stall) {
		h, release := stick(t, rt.Named("stuck"))
		require.Empty(t, watch.seeLater(watch.every/2, false), "seen for the first time")
		found := watch.seeLater(watch.every, false)
		require.Len(t, found, 1)
		require.Equal(t, Task{h.Task().ID, "stuck"}, found[0].Task)
		release()
		join(t, h)
		return found[0]
	}
	begun := watch.now
	for i := range stalls {
		require.Equal(t, i == 0, stall().looked)
	}
	require.Less(t, watch.now.Sub(begun), stackEvery)
	require.EqualValues(t, stalls, rt.Metrics().Stalls)
	require.Equal(t, 1, watch.profiles)
	watch.now = begun.Add(stackEvery + watch.every)
	require.True(t, stall().looked)
	require.EqualValues(t, stalls+1, rt.Metrics().Stalls)
	require.Equal(t, 2, watch.profiles)
}

// If taking a stack takes long, the next stack is taken later than after a second.
func TestStallStacksThatTakeLong(t *testing.T) {
	var r stallReports
	found := time.Now()
	r.took(found, time.Millisecond)
	require.Equal(t, found.Add(stackShare*time.Millisecond), r.stackDue)
	r.took(found, 200*time.Millisecond)
	require.Equal(t, found.Add(4*time.Second), r.stackDue)
	r.took(found, 10*time.Millisecond)
	require.Equal(t, found.Add(4*time.Second), r.stackDue)
}

// A stall that ends while its stack is being taken is reported. It has its stack if the profile
// shows the poll. Otherwise it has no stack, and never the stack of another poll.
func TestStallThatEndsMeanwhile(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprintf("before the profile=%v", before), func(t *testing.T) {
			log := newStallLog()
			rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Stalled: log.add})
			watch := newMockWatch(rt, log)
			release, free := newRelease(t)
			next, nextIn := newRelease(t)
			var h, other *JoinHandle[None]
			watch.reports.profile = func() (profile string) {
				if !before {
					profile = takeProfile()
				}
				free()
				join(t, h)
				other = Go(rt.Named("other"), func(*Context) error { computesHere(next); return nil })
				eventually(t, func() bool { // until the witness has noticed the end, and the next poll has begun
					p := takeProfile()
					return strings.Contains(p, "async.computesHere") && !strings.Contains(p, witnessLabel)
				})
				if before {
					profile = takeProfile()
				}
				return profile
			}
			stall := watch.stuck(t, func() {
				h = Go(rt.Named("stuck"), func(*Context) error { blocksHere(release); return nil })
			})
			nextIn()
			join(t, other)
			require.Equal(t, Task{h.Task().ID, "stuck"}, stall.Task)
			require.NotContains(t, stall.Stack, "computesHere")
			require.Equal(t, !before, strings.Contains(stall.Stack, "async.blocksHere\n"), stall.Stack)
			require.Equal(t, !before, strings.Contains(stall.Where, "async.blocksHere (watchdogstall_test.go:"), stall.Where)
		})
	}
}

// A stall is reported even if its stack cannot be found. That happens if code has replaced the
// profiler labels of two workers that are in a poll.
func TestStallWithoutItsStack(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 2, Stall: -1, Stalled: log.add})
	watch := newMockWatch(rt, log)
	release, free := newRelease(t)
	var hs []*JoinHandle[None]
	before := arrivals.Load()
	for i := range 2 {
		hs = append(hs, Go(pinned(rt, i).Named(fmt.Sprint(i)), func(*Context) error {
			pprof.SetGoroutineLabels(context.Background())
			blocksHere(release)
			return nil
		}))
	}
	eventually(t, func() bool { return arrivals.Load() == before+2 })
	require.Empty(t, watch.see(false), "seen for the first time")
	found := watch.see(false)
	require.Len(t, found, 2)
	for i, s := range found {
		require.Equal(t, Task{hs[i].Task().ID, fmt.Sprint(i)}, s.Task)
		require.Empty(t, s.Stack+s.Where)
	}
	require.EqualValues(t, 2, rt.Metrics().Stalls)
	free()
	for _, h := range hs {
		join(t, h)
	}
}

// The user's frame is the frame of the user's code, not the frame of the function of the standard
// library in which this code is blocked.
func TestStallWhere(t *testing.T) {
	log := newStallLog()
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Stalled: log.add})
	watch := newMockWatch(rt, log)
	var mu sync.Mutex
	mu.Lock()
	began := make(chan string, 1)
	h := Go(rt, func(cx *Context) error {
		began <- lineAfter(1)
		mu.Lock()
		mu.Unlock()
		return nil
	})
	line := receive(t, began)
	eventually(t, rt.workers[0].thread.Asleep)
	require.Empty(t, watch.see(false))
	found := watch.see(false)
	require.Len(t, found, 1)
	mu.Unlock()
	join(t, h)
	require.Contains(t, found[0].Stack, "sync.(*Mutex).Lock")
	require.Contains(t, found[0].Where, "async.TestStallWhere.func")
	require.Contains(t, found[0].Where, line)
	require.True(t, strings.HasSuffix(found[0].String(), " without awaiting, at "+found[0].Where))
}

// While the handler does not return, a bounded number of reports waits for it, in order.
func TestStallReportsWait(t *testing.T) {
	release, free := newRelease(t)
	began := make(chan None)
	var got []int
	r := stallReports{profile: func() string { return "" }, handler: func(s Stall) {
		if s.Worker == 0 {
			close(began)
			<-release
		}
		got = append(got, s.Worker)
	}}
	w := new(worker)
	now := time.Now()
	r.stackDue = now.Add(time.Hour)
	r.add(Stall{}, w, 1, now)
	receive(t, began)
	for i := range stallsWaiting + 10 {
		r.add(Stall{Worker: i + 1}, w, 1, now)
	}
	free()
	r.delivery.Wait()
	require.Len(t, got, stallsWaiting+1)
	for i, n := range got {
		require.Equal(t, i, n)
	}
	r.add(Stall{Worker: -1}, w, 1, now)
	r.delivery.Wait()
	require.Equal(t, -1, got[len(got)-1])
}

// The work of a worker between its polls changes its turn, also if there is much work at once. No
// task is reported because of it.
func TestStallIsNoBurst(t *testing.T) {
	const n = 3*progressEvery + 7
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1})
	moves := func(burst func(w *worker)) (moved int) {
		on(rt.workers[0], func(w *worker) {
			before := w.turn.Load()
			burst(w)
			moved = int(w.turn.Load() - before)
		})
		return moved
	}
	nothing := func(*Context) (None, error) { return None{}, nil }
	require.Equal(t, 3, moves(func(w *worker) {
		var list *task
		for range n {
			p := &plain[None]{f: PollFunc(nothing)}
			p.body, p.cx.t, p.w = p, &p.task, w
			w.counts[countSpawned]++
			p.next, list = list, &p.task
		}
		w.pushList(list)
	}), "tasks that come at once")
	fires := newExternalWaker(func() {})
	var alarms [2 * n]alarm
	require.Equal(t, 3, moves(func(w *worker) {
		for i := range n {
			alarms[i].set(w, 1, fires)
		}
		require.Equal(t, n, w.fireTimers(nanos()))
	}), "timers that fire at once")
	require.Equal(t, 3, moves(func(w *worker) {
		for i := range n {
			a := &alarms[n+i]
			a.set(w, maxNanos, fires)
			a.timer.state.Store(timerDropped)
			a.timer.dropNext = w.dropped.Load()
			w.dropped.Store(a.timer)
		}
		w.takeDropped()
	}), "timers that other threads have dropped")
}
