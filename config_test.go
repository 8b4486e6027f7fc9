package async

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/trace"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The error of New names the mistake in a Config. New has started nothing then.
func TestConfigNonsense(t *testing.T) {
	newTestRuntime(t, Config{Workers: 1}) // counts the goroutines and descriptors that are left over
	for want, cfg := range map[string]Config{
		"Workers is -1":                         {Workers: -1},
		"Affinity is for 1 workers":             {Workers: 2, Tuning: Tuning{Affinity: [][]int{{0}}}},
		"Affinity is for 3 workers":             {Workers: 2, Tuning: Tuning{Affinity: [][]int{{0}, {0}, {0}}}},
		"Affinity is set, and with SharedProcs": {Tuning: Tuning{Affinity: [][]int{nil}}, SharedProcs: true},
		"Spin is -1ns":                          {Tuning: Tuning{Spin: -1}},
		"Budget is -1":                          {Tuning: Tuning{Budget: -1}},
		"Grace is -1s":                          {Grace: -time.Second},
		"Stall is 999.999µs":                    {Stall: time.Millisecond - 1},
		"Blocking is {Limit:-1 ":                {Blocking: BlockingConfig{Limit: -1}},
		"Blocking is {Limit:512 Queue":          {Blocking: BlockingConfig{Queue: -1}},
		"Idle:-1ns}":                            {Blocking: BlockingConfig{Idle: -1}},
	} {
		rt, err := New(cfg)
		require.Nil(t, rt, want)
		require.ErrorContains(t, err, "async: Config.")
		require.ErrorContains(t, err, want)
	}
}

func TestConfigDefaults(t *testing.T) {
	cfg, err := Config{}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, runtime.GOMAXPROCS(0), cfg.Workers)
	require.Equal(t, 128, cfg.Tuning.Budget)
	require.Equal(t, time.Second, cfg.Grace)
	require.Equal(t, 10*time.Millisecond, cfg.Stall)
	require.Equal(t, BlockingConfig{Limit: 512, Queue: 16384, Idle: 10 * time.Second}, cfg.Blocking)
	require.NotNil(t, cfg.Unhandled)
	require.NotNil(t, cfg.Stalled)
	require.Zero(t, cfg.Tuning.Spin)

	cfg, err = Config{Tuning: Tuning{Affinity: [][]int{nil, nil, nil}}}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, 3, cfg.Workers, "as many as Affinity is for")
}

// Values that mean "none" or "no limit" work.
func TestConfigExtremes(t *testing.T) {
	for name, cfg := range map[string]Config{
		"nothing in Affinity": {Workers: 1, Tuning: Tuning{Affinity: [][]int{}}},
		"no limits": {Workers: 1, Tuning: Tuning{Budget: math.MaxInt}, Stall: math.MaxInt64,
			Blocking: BlockingConfig{Limit: math.MaxInt, Queue: math.MaxInt, Idle: math.MaxInt64}},
		"least": {Workers: 1, Tuning: Tuning{Budget: 1}, Stall: time.Millisecond, Grace: patience,
			Blocking: BlockingConfig{Limit: 1, Queue: 1, Idle: 1}},
		"never": {Workers: 1, Stall: math.MinInt64},
	} {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, cfg)
			_, err := join(t, Go(rt, func(cx *Context) error {
				_, err := SpawnBlocking(cx, func() (int, error) { return 1, nil }).Join(cx)
				return errors.Join(err, Sleep(cx, time.Microsecond))
			}))
			require.NoError(t, err)
		})
	}
}

// If a runtime has fewer processors than workers and brings none of its own, it still makes
// progress, and so does the rest of the program.
func TestConfigFewProcs(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const workers, rounds = 4, 20
	rt := newTestRuntime(t, Config{Workers: workers, SharedProcs: true})
	require.Equal(t, 1, runtime.GOMAXPROCS(0))
	chans := make([]chan int, workers)
	var hs []*JoinHandle[None]
	for i := range workers {
		chans[i] = make(chan int, rounds)
		hs = append(hs, Go(pinned(rt, i), func(cx *Context) error {
			for n := range rounds {
				// A goroutine, a timer and a task on another worker in each round.
				chans[i] <- n
				h := Go(pinned(rt, (i+1)%workers), func(cx *Context) error { return Yield(cx) })
				if _, err := h.Join(cx); err != nil {
					return err
				}
				if err := Sleep(cx, time.Microsecond); err != nil {
					return err
				}
			}
			return expect(cx.here().index == i, "on worker %d instead of %d", cx.here().index, i)
		}))
	}
	for _, c := range chans {
		for n := range rounds {
			require.Equal(t, n, receive(t, c))
		}
	}
	for _, h := range hs {
		_, err := join(t, h)
		require.NoError(t, err)
	}
}

// A worker that spins polls the kernel instead of waiting, and stops when its time is over.
func TestConfigSpin(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Tuning: Tuning{Spin: time.Hour}})
	w := rt.workers[0]
	_, err := join(t, SpawnFuture(rt, ReadyFuture(1)))
	require.NoError(t, err)
	for range 3 {
		turn := w.turn.Load()
		eventually(t, func() bool { return w.turn.Load()-turn > 1000 })
		require.False(t, w.asleep.Load())
		_, err = join(t, Go(rt, func(cx *Context) error { return Sleep(cx, time.Microsecond) }))
		require.NoError(t, err)
	}
	a, b := tcpPair(t, rt)
	h := Go(rt, func(cx *Context) error { return tcpExpect(cx, a, "hello") })
	eventually(t, func() bool { return waiting(h) })
	_, err = BlockOn(rt, func(cx *Context) (None, error) { return None{}, tcpWrite(cx, b, "hello") })
	require.NoError(t, err)
	_, err = join(t, h)
	require.NoError(t, err)
	require.Zero(t, rt.Metrics().Parks)

	// It yields its P once to a goroutine that it has woken, and then spins on.
	_, err = join(t, Go(rt, func(*Context) error { w.noteRunnable(); return nil }))
	require.NoError(t, err)
	turn := w.turn.Load()
	eventually(t, func() bool { return w.turn.Load()-turn > 1000 })
	_, err = join(t, Go(rt, func(*Context) error { require.False(t, w.madeRunnable); return nil }))
	require.NoError(t, err)

	short := newTestRuntime(t, Config{Workers: 1, Tuning: Tuning{Spin: time.Millisecond}})
	_, err = join(t, SpawnFuture(short, ReadyFuture(1)))
	require.NoError(t, err)
	eventually(t, short.workers[0].asleep.Load)
}

func TestConfigBudget(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Tuning: Tuning{Budget: 3}})
	const operations = 10
	var polls []int // operations in each
	total := 0
	_, err := join(t, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
		polls = append(polls, 0)
		for cx.spend() {
			polls[len(polls)-1]++
			if total++; total == operations {
				return None{}, nil
			}
		}
		return None{}, ErrPending
	})))
	require.NoError(t, err)
	require.Equal(t, []int{3, 3, 3, 1}, polls)
}

// hookCall is one call of a hook.
type hookCall struct {
	hook   string
	worker int
	task   Task
	g      uintptr // the goroutine that called it
	on     int     // the worker on whose thread it was called; -1 for none
}

// hookLog keeps the calls of the hooks of a runtime, in their order.
type hookLog struct {
	mu    sync.Mutex
	calls []hookCall
}

func (l *hookLog) add(hook string, worker int, task Task) {
	on := -1
	if w := callersWorker(); w != nil {
		on = w.index
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, hookCall{hook, worker, task, getg(), on})
}

func (l *hookLog) hooks() Hooks {
	ofWorker := func(hook string) func(int) { return func(w int) { l.add(hook, w, Task{}) } }
	ofTask := func(hook string) func(Task) { return func(t Task) { l.add(hook, -1, t) } }
	return Hooks{
		WorkerStart: ofWorker("worker start"),
		WorkerStop:  ofWorker("worker stop"),
		TaskStart:   ofTask("start"),
		TaskEnd:     ofTask("end"),
		BeforePoll:  ofTask("before"),
		AfterPoll:   ofTask("after"),
	}
}

func (l *hookLog) all() []hookCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

// of returns the calls for the task with this name.
func (l *hookLog) of(name string) (calls []hookCall) {
	for _, c := range l.all() {
		if c.task.Name == name {
			calls = append(calls, c)
		}
	}
	return calls
}

func hooksOf(calls []hookCall) (hooks []string) {
	for _, c := range calls {
		hooks = append(hooks, c.hook)
	}
	return hooks
}

// The promises of the hooks:
//
//  1. the hooks of a worker are called on its thread, before and after all others;
//  2. the hooks of a task are called once each: TaskStart on the thread that spawns
//     it, TaskEnd on the thread where it ends;
//  3. each poll is between two calls on its worker's thread, also if it panics;
//  4. no hooks are called for the runtime's own work.
func TestHooksAreCalledInOrder(t *testing.T) {
	const workers = 2
	log := new(hookLog)
	rt := newTestRuntime(t, Config{Workers: workers, Tuning: Tuning{Hooks: log.hooks()}, Unhandled: func(Task, error) {}})
	two := []string{"start", "before", "after", "before", "end", "after"}
	one := []string{"start", "before", "end", "after"}
	for name, c := range map[string]struct {
		run  func(s Spawner) (awaited interface{ Done() <-chan struct{} })
		want []string
	}{
		"future": {func(s Spawner) interface{ Done() <-chan struct{} } { return SpawnFuture(s, ReadyFuture(1)) }, one},
		"future that waits": {func(s Spawner) interface{ Done() <-chan struct{} } {
			return SpawnFuture(s, YieldFuture())
		}, two},
		"straight": {func(s Spawner) interface{ Done() <-chan struct{} } {
			return Go(s, func(cx *Context) error { return Yield(cx) })
		}, two},
		"straight that panics": {func(s Spawner) interface{ Done() <-chan struct{} } {
			return Go(s, func(cx *Context) error { panic("oh") })
		}, one},
		"straight that calls Goexit": {func(s Spawner) interface{ Done() <-chan struct{} } {
			return Go(s, func(cx *Context) error { runtime.Goexit(); return nil })
		}, one},
		"future that panics": {func(s Spawner) interface{ Done() <-chan struct{} } {
			return SpawnFuture(s, PollFunc(func(cx *Context) (None, error) { panic("oh") }))
		}, []string{"start", "before", "after", "end"}},
		"future that calls Goexit": {func(s Spawner) interface{ Done() <-chan struct{} } {
			return SpawnFuture(s, PollFunc(func(cx *Context) (None, error) { runtime.Goexit(); return None{}, nil }))
		}, []string{"start", "before", "after", "end"}},
		"blocking call": {func(s Spawner) interface{ Done() <-chan struct{} } {
			return SpawnBlocking(s, func() (None, error) { return None{}, nil })
		}, []string{"start", "end"}},
	} {
		t.Run(name, func(t *testing.T) {
			receive(t, c.run(rt.Named(name)).Done())
			eventually(t, func() bool { return len(log.of(name)) >= len(c.want) })
			calls := log.of(name)
			require.Equal(t, c.want, hooksOf(calls))
			require.Equal(t, getg(), calls[0].g, "the one who spawned")
			before := hookCall{}
			for _, c := range calls {
				switch c.hook {
				case "before":
					require.GreaterOrEqual(t, c.on, 0)
					before = c
				case "after":
					require.Equal(t, before.on, c.on)
					require.Equal(t, before.g, c.g)
				}
			}

			name := name + ", spawned by a task"
			begun := make(chan uintptr, 1)
			_, err := join(t, Go(rt, func(cx *Context) error {
				begun <- getg()
				c.run(cx.Named(name))
				return nil
			}))
			require.NoError(t, err)
			eventually(t, func() bool { return len(log.of(name)) >= len(c.want) })
			calls = log.of(name)
			require.Equal(t, c.want, hooksOf(calls))
			require.Equal(t, receive(t, begun), calls[0].g, "the one who spawned")
		})
	}

	cancelled := Go(rt.Named("cancelled"), func(cx *Context) error { return Sleep(cx, time.Hour) })
	eventually(t, func() bool { return waiting(cancelled) })
	for _, w := range rt.workers { // no worker is still in an earlier hook
		_, err := w.survey().JoinBlocking(t.Context())
		require.NoError(t, err)
	}
	before := len(log.all())
	rt.Tasks()
	require.Len(t, log.all(), before, "the runtime's own work has been told")
	require.NoError(t, rt.Shutdown(ended()))
	receive(t, Go(rt.Named("too late"), func(*Context) error { return nil }).Done())
	require.Equal(t, two, hooksOf(log.of("cancelled")))
	require.Equal(t, []string{"start", "end"}, hooksOf(log.of("too late")))

	for i := range rt.workers {
		var mine []hookCall
		for _, c := range log.all() {
			if c.on == i {
				mine = append(mine, c)
			}
		}
		require.NotEmpty(t, mine)
		last := len(mine) - 1
		g := mine[0].g
		require.Equal(t, hookCall{hook: "worker start", worker: i, g: g, on: i}, mine[0])
		require.Equal(t, hookCall{hook: "worker stop", worker: i, g: g, on: i}, mine[last])
		for _, c := range mine[1:last] {
			require.Equal(t, -1, c.worker, c.hook)
		}
	}
	perTask := map[uint64]map[string]int{}
	for _, c := range log.all() {
		if c.worker < 0 {
			if perTask[c.task.ID] == nil {
				perTask[c.task.ID] = map[string]int{}
			}
			perTask[c.task.ID][c.hook]++
		}
	}
	for id, n := range perTask {
		require.Equal(t, 1, n["start"], "task %d: %v", id, n)
		require.Equal(t, 1, n["end"], "task %d: %v", id, n)
		require.Equal(t, n["before"], n["after"], "task %d: %v", id, n)
	}
}

// A runtime that cannot start has called no hook.
func TestHooksOfAFailedStart(t *testing.T) {
	newTestRuntime(t, Config{Workers: 1})
	log := new(hookLog)
	_, err := New(Config{Workers: 2, Tuning: Tuning{Affinity: [][]int{nil, {-1}}, Hooks: log.hooks()}})
	require.Error(t, err)
	require.Empty(t, log.all())
}

// profileLabels returns the labels of the goroutine that runs the function.
func profileLabels(t testing.TB, function string) string {
	t.Helper()
	for _, group := range strings.Split(takeProfile(), "\n\n") {
		if strings.Contains(group, "."+function+"+0x") {
			for _, line := range strings.Split(group, "\n") {
				if labels, ok := strings.CutPrefix(line, "# labels: "); ok {
					return labels
				}
			}
			return ""
		}
	}
	t.Errorf("no goroutine runs %s", function)
	return ""
}

//go:noinline
func labelledHere(t testing.TB) string { return profileLabels(t, "labelledHere") }

func TestLabels(t *testing.T) {
	const label = `"task":"greeter"`
	kinds := map[string]func(s Spawner) string{
		"straight": func(s Spawner) string {
			labels, _ := join(t, Spawn(s, func(cx *Context) (string, error) { return labelledHere(t), nil }))
			return labels
		},
		"straight, later": func(s Spawner) string {
			labels, _ := join(t, Spawn(s, func(cx *Context) (string, error) { err := Yield(cx); return labelledHere(t), err }))
			return labels
		},
		"future": func(s Spawner) string {
			labels, _ := join(t, SpawnFuture(s, PollFunc(func(cx *Context) (string, error) { return labelledHere(t), nil })))
			return labels
		},
		"future that panics": func(s Spawner) (labels string) {
			join(t, SpawnFuture(s, PollFunc(func(cx *Context) (None, error) { labels = labelledHere(t); panic("oh") })))
			return labels
		},
	}
	on := newTestRuntime(t, Config{Tuning: Tuning{Name: "post", Labels: true}, Workers: 1})
	off := newTestRuntime(t, Config{Tuning: Tuning{Name: "mail"}, Workers: 1})
	for name, labels := range kinds {
		t.Run(name, func(t *testing.T) {
			got := labels(on.Named("greeter"))
			require.Contains(t, got, label)
			require.Contains(t, got, on.workers[0].labelled, "the worker is known still")
			require.NotContains(t, labels(on), `"task"`, "a name has outlived its task")
			require.Contains(t, labels(on.Named("another")), `"task":"another"`)
			require.NotContains(t, labels(off.Named("greeter")), `"task"`)
		})
	}
	call := func(s Spawner) string {
		labels, _ := join(t, SpawnBlocking(s, func() (string, error) { return labelledHere(t), nil }))
		return labels
	}
	t.Run("call", func(t *testing.T) {
		for range 2 { // a goroutine of the pool that a task has started, and a goroutine that has run another call
			got, err := join(t, Go(on.Named("starter"), func(cx *Context) error {
				labels, err := SpawnBlocking(cx, func() (string, error) { return labelledHere(t), nil }).Join(cx)
				return errors.Join(err, expect(!strings.Contains(labels, "starter") && !strings.Contains(labels, "worker"), "%s", labels))
			}))
			require.NoError(t, err, "%v", got)
			require.Contains(t, call(on.Named("greeter")), label)
			join(t, SpawnBlocking(on.Named("greeter"), func() (None, error) { panic("oh") }))
			require.NotContains(t, call(on), `"task"`, "a name has outlived its call")
			require.NotContains(t, call(off.Named("greeter")), `"task"`)
		}
	})
	for _, rt := range []*Runtime{on, off} {
		require.Contains(t, takeProfile(), fmt.Sprintf(`"async.worker":"%s/%d/0"`, rt.cfg.Tuning.Name, rt.serial))
	}
	nameless := newTestRuntime(t, Config{Workers: 1})
	require.Contains(t, takeProfile(), fmt.Sprintf(`"async.worker":"%d/0"`, nameless.serial))
}

// A worker keeps a bounded number of label sets, even if there are many names.
func TestLabelsOfManyNames(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Tuning: Tuning{Labels: true}})
	for i := range 3 * labelSets {
		_, err := join(t, Go(rt.Named(fmt.Sprint("number ", i)), func(cx *Context) error { return nil }))
		require.NoError(t, err)
	}
	on(rt.workers[0], func(w *worker) { require.LessOrEqual(t, len(w.named), labelSets) })
}

func TestLabelsInTraces(t *testing.T) {
	traced := func(cfg Config) string {
		var b bytes.Buffer
		require.NoError(t, trace.Start(&b))
		defer trace.Stop()
		rt := newTestRuntime(t, cfg)
		for _, h := range []*JoinHandle[None]{
			Go(rt.Named("region-straight"), func(cx *Context) error { return Yield(cx) }),
			SpawnFuture(rt.Named("region-future"), YieldFuture()),
			SpawnBlocking(rt.Named("region-call"), func() (None, error) { return None{}, nil }),
		} {
			_, err := join(t, h)
			require.NoError(t, err)
		}
		require.NoError(t, rt.Shutdown(context.Background()))
		trace.Stop()
		return b.String()
	}
	with := traced(Config{Workers: 1, Tuning: Tuning{Labels: true}})
	require.Contains(t, with, "region-straight")
	require.Contains(t, with, "region-future")
	require.Contains(t, with, "region-call")
	require.NotContains(t, traced(Config{Workers: 1}), "region-")
}

// The Config of the default runtime can be set until the runtime is used. ASYNC_THREADS counts if
// this Config does not set Workers.
func TestSetDefaultConfig(t *testing.T) {
	if inChild(t) {
		fmt.Println("nonsense:", SetDefaultConfig(Config{Workers: -1}))
		fmt.Println("early:", SetDefaultConfig(Config{Workers: 7}))
		workers, _ := strconv.Atoi(os.Getenv("ASYNC_TEST_WORKERS"))
		fmt.Println("again:", SetDefaultConfig(Config{Workers: workers, Grace: time.Minute}))
		Run(func(cx *Context) error {
			fmt.Println("Run:", len(cx.here().rt.workers), cx.here().rt.cfg.Grace)
			return nil
		})
		fmt.Println("late:", SetDefaultConfig(Config{}))
		fmt.Println("Default:", len(Default().workers))
		return
	}
	for workers, want := range map[string]string{"2": "2", "0": "3"} {
		out, err := child(t, "ASYNC_THREADS=3", "ASYNC_TEST_WORKERS="+workers).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "nonsense: async: Config.Workers is -1")
		require.Contains(t, string(out), "early: <nil>\nagain: <nil>\nRun: "+want+" 1m0s\n"+
			"late: async: SetDefaultConfig: the default runtime has been started\nDefault: "+want+"\n")
	}
}
