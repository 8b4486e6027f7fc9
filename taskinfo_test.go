package async

import (
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// infoOf returns the description that Tasks gives of the task with this name.
func infoOf(rt *Runtime, name string) (info TaskInfo, ok bool) {
	for _, info := range rt.Tasks() {
		if info.Name == name {
			return info, true
		}
	}
	return TaskInfo{}, false
}

// describes waits until Tasks describes a task of this name as want expects.
func describes(t *testing.T, rt *Runtime, name string, want func(TaskInfo) bool) (info TaskInfo) {
	t.Helper()
	eventually(t, func() bool {
		var ok bool
		info, ok = infoOf(rt, name)
		return ok && want(info)
	}, name)
	return info
}

// lineAfter returns the place in the caller, some lines below the call.
func lineAfter(lines int) string {
	_, file, line, _ := runtime.Caller(1)
	return fmt.Sprintf("(%s:%d)", filepath.Base(file), line+lines)
}

// Tasks describes each kind of task, each event that a task can wait for, and where the task waits.
func TestTasksOfEachKindAndWait(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2, Blocking: BlockingConfig{Limit: 1}, Unhandled: func(Task, error) {}})
	var lines sync.Map // by the names of tasks
	never := new(probe)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	done, release := make(chan None), make(chan None)
	defer close(done)

	SpawnBlocking(rt.Named("call"), func() (None, error) { <-release; return None{}, nil })
	defer close(release)
	describes(t, rt, "call", func(i TaskInfo) bool { return i.State == "blocking" })
	queued := SpawnBlocking(rt.Named("queued call"), func() (None, error) { return None{}, nil })

	straight := map[string]struct {
		waits string
		fn    func(cx *Context, name string) error
	}{
		"sleep": {"time", func(cx *Context, name string) error {
			lines.Store(name, lineAfter(1))
			return Sleep(cx, time.Hour)
		}},
		"future": {"future", func(cx *Context, name string) error {
			lines.Store(name, lineAfter(1))
			_, err := Await(cx, never)
			return err
		}},
		"join": {"task", func(cx *Context, name string) error {
			h := Go(cx, func(cx *Context) error { return Sleep(cx, time.Hour) })
			lines.Store(name, lineAfter(1))
			_, err := h.Join(cx)
			h.Cancel()
			return err
		}},
		"accept": {"read", func(cx *Context, name string) error {
			ln, err := Listen(cx, "tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer ln.Close()
			lines.Store(name, lineAfter(1))
			_, err = ln.Accept(cx)
			return err
		}},
		"read": {"read", func(cx *Context, name string) error {
			c, err := Dial(cx, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			lines.Store(name, lineAfter(1))
			_, err = c.Read(cx, make([]byte, 1))
			return err
		}},
		"write": {"write", func(cx *Context, name string) error {
			c, err := Dial(cx, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			for p := make([]byte, 1<<20); ; {
				lines.Store(name, lineAfter(1))
				if _, err := c.Write(cx, p); err != nil {
					return err
				}
			}
		}},
		"blocked by a call": {"task", func(cx *Context, name string) error {
			h := SpawnBlocking(cx, func() (None, error) { return None{}, nil })
			lines.Store(name, lineAfter(1))
			_, err := h.Join(cx)
			return err
		}},
	}
	for name, c := range straight {
		Go(rt.Named(name), func(cx *Context) error { return c.fn(cx, name) })
	}
	for name, c := range straight {
		info := describes(t, rt, name, func(i TaskInfo) bool {
			line, ok := lines.Load(name) // to dial is to wait, too
			return ok && i.State == "waiting" && i.Waits == c.waits && strings.Contains(i.Where, line.(string))
		})
		require.Equal(t, "straight", info.Kind, name)
		require.Contains(t, info.Where, "TestTasksOfEachKindAndWait.func", name)
		require.Contains(t, info.String(), info.Task.String()+" waiting for "+c.waits+", ")
		require.True(t, strings.HasSuffix(info.String(), ", "+info.Where))
	}

	SpawnFuture(rt.Named("plain"), SleepFuture(time.Hour))
	info := describes(t, rt, "plain", func(i TaskInfo) bool { return i.State == "waiting" })
	require.Equal(t, "future", info.Kind)
	require.Equal(t, "time", info.Waits)
	require.Equal(t, fmt.Sprintf("%T", SleepFuture(time.Hour)), info.Where)
	SpawnFuture[int](rt.Named("user's"), new(probe))
	info = describes(t, rt, "user's", func(i TaskInfo) bool { return i.State == "waiting" })
	require.Equal(t, "future", info.Waits)
	require.Equal(t, "*async.probe", info.Where)

	go func() {
		BlockOn(rt.Named("goroutine that waits"), func(cx *Context) (None, error) { return None{}, Sleep(cx, time.Hour) })
	}()
	info = describes(t, rt, "goroutine that waits", func(i TaskInfo) bool { return i.State == "waiting" })
	require.Equal(t, "goroutine", info.Kind)
	require.Equal(t, "time", info.Waits)
	go func() {
		BlockOn(rt.Named("goroutine that runs"), func(*Context) (None, error) { <-done; return None{}, nil })
	}()
	info = describes(t, rt, "goroutine that runs", func(TaskInfo) bool { return true })
	require.Equal(t, "goroutine", info.Kind)
	require.Equal(t, "runnable", info.State)
	require.Equal(t, info.Task.String()+" runnable", info.String())

	info, _ = infoOf(rt, "call")
	require.Equal(t, TaskInfo{Task: info.Task, Kind: "blocking", State: "blocking"}, info)
	info, _ = infoOf(rt, "queued call")
	require.Equal(t, TaskInfo{Task: Task{queued.Task().ID, "queued call"}, Kind: "blocking", State: "queued"}, info)

	var all []TaskInfo
	eventually(t, func() bool {
		all = rt.Tasks()
		return len(all) == len(straight)+1+1+2+2+2
	}, "the child, the call of a task, two of each other kind")
	require.True(t, slices.IsSortedFunc(all, func(a, b TaskInfo) int { return int(a.ID) - int(b.ID) }))
	ids := map[uint64]bool{}
	for _, i := range all {
		ids[i.ID] = true
	}
	require.Len(t, ids, len(all), "a task is described twice")
}

// A call that waits for room in the queue says so.
func TestTasksWaitsForACall(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1, Queue: 1}})
	release := occupy(t, rt, 1)
	defer release()
	SpawnBlocking(rt, func() (None, error) { return None{}, nil })
	Go(rt.Named("spawner"), func(cx *Context) error {
		_, err := SpawnBlocking(cx, func() (None, error) { return None{}, nil }).Join(cx)
		return err
	})
	describes(t, rt, "spawner", func(i TaskInfo) bool { return i.State == "waiting" && i.Waits == "blocking call" })
}

// The description of a task has the event, the time and the place of its last wait.
func TestTasksIsUpToDate(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	first, second := new(probe), new(probe)
	lines := make(chan string, 2)
	Go(rt.Named("walker"), func(cx *Context) error {
		lines <- lineAfter(1)
		Await(cx, first)
		SleepFuture(time.Hour).Poll(cx) // the task does not wait for this future, which is dropped
		lines <- lineAfter(1)
		Await(cx, second)
		return nil
	})
	waitsAt := func(line string) func(i TaskInfo) bool {
		return func(i TaskInfo) bool { return i.State == "waiting" && strings.Contains(i.Where, line) }
	}
	describes(t, rt, "walker", waitsAt(receive(t, lines)))
	long := describes(t, rt, "walker", func(i TaskInfo) bool { return i.For >= 40*time.Millisecond })
	first.resolve(nil)
	info := describes(t, rt, "walker", waitsAt(receive(t, lines)))
	require.Equal(t, "future", info.Waits)
	second.resolve(nil)
	eventually(t, func() bool { _, ok := infoOf(rt, "walker"); return !ok }, "it has ended")
	require.GreaterOrEqual(t, long.For, 40*time.Millisecond)
}

// The time for which a task is said to have waited exceeds the real time by a few milliseconds at
// most.
func TestTasksFor(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	describe := func(name string, begun time.Time) {
		info := describes(t, rt, name, func(i TaskInfo) bool { return i.For >= 20*time.Millisecond })
		require.Less(t, info.For, time.Since(begun)+10*time.Millisecond)
	}
	begun := time.Now()
	Go(rt.Named("straight"), func(cx *Context) error { return Sleep(cx, time.Hour) })
	SpawnFuture(rt.Named("future"), SleepFuture(time.Hour))
	describe("straight", begun)
	describe("future", begun)
	var outside sync.WaitGroup
	begun = time.Now()
	outside.Go(func() {
		BlockOn(rt.Named("goroutine"), func(cx *Context) (None, error) { return None{}, Sleep(cx, time.Hour) })
	})
	describe("goroutine", begun)
	require.NoError(t, rt.Shutdown(ended()))
	outside.Wait()
}

// A description does not disturb tasks. No task is polled for it, no wake is lost, and a task that
// is woken meanwhile is polled.
func TestTasksDisturbsNoTask(t *testing.T) {
	const tasks, rounds = 100, 30
	rt := newTestRuntime(t, Config{Workers: 2})
	quiet := new(probe)
	h := SpawnFuture(rt, quiet)
	eventually(t, func() bool { return waiting(h) })
	var hs []*JoinHandle[int]
	for i := range tasks {
		hand := newHandshake(rounds)
		if i%2 == 0 {
			hs = append(hs, SpawnFuture(rt, hand))
		} else {
			hs = append(hs, Spawn(rt, func(cx *Context) (int, error) { return Await(cx, hand) }))
		}
		go func() {
			w := <-hand.wakers
			for turn := range rounds {
				hand.turn = turn + 1
				w.Wake()
				<-hand.acks
			}
		}()
	}
	over := func() bool { return !slices.ContainsFunc(hs, func(h *JoinHandle[int]) bool { return !h.state.done() }) }
	var askers sync.WaitGroup
	for range 2 { // at the same time
		askers.Go(func() {
			for begun := time.Now(); !over() && time.Since(begun) < patience; {
				for _, info := range rt.Tasks() {
					if info.Where == "*async.survey" {
						t.Error("one who asks is told of the other")
					}
				}
			}
		})
	}
	askers.Wait()
	for _, h := range hs {
		polls, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, rounds+1, polls)
	}
	require.EqualValues(t, 1, quiet.polls.Load())
	quiet.resolve(nil)
	_, err := join(t, h)
	require.NoError(t, err)
}

// Tasks does not wait for a worker that is stuck. The tasks of this worker are described without
// the place where their code waits.
func TestTasksOfAStuckWorker(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	var places [2]*JoinHandle[None]
	for i := range places {
		places[i] = Go(pinned(rt, i).Named(fmt.Sprint("on worker ", i)), func(cx *Context) error { return Sleep(cx, time.Hour) })
		eventually(t, func() bool { return waiting(places[i]) })
	}
	plain := SpawnFuture(pinned(rt, 0).Named("plain"), SleepFuture(time.Hour))
	eventually(t, func() bool { return waiting(plain) })
	stuck, release := stick(t, pinned(rt, 0).Named("stuck"))
	infos := map[string]TaskInfo{}
	for _, info := range rt.Tasks() {
		infos[info.Name] = info
	}
	require.Equal(t, "waiting", infos["on worker 0"].State)
	require.Equal(t, "time", infos["on worker 0"].Waits)
	require.Empty(t, infos["on worker 0"].Where)
	require.Equal(t, "*async.sleepFuture", infos["plain"].Where, "no worker is needed for that")
	require.Equal(t, TaskInfo{Task: Task{stuck.Task().ID, "stuck"}, Kind: "straight", State: "runnable"}, infos["stuck"])
	eventually(t, func() bool { i, _ := infoOf(rt, "on worker 1"); return i.Where != "" }, "the other worker answers")
	release()
	join(t, stuck)
	info := describes(t, rt, "on worker 0", func(i TaskInfo) bool { return i.Where != "" })
	require.Contains(t, info.Where, "TestTasksOfAStuckWorker")
}

// stick makes a task keep its worker until the function is called.
func stick(t *testing.T, s Spawner) (h *JoinHandle[None], release func()) {
	t.Helper()
	began, free := make(chan None), make(chan None)
	h = Go(s, func(*Context) error { close(began); <-free; return nil })
	receive(t, began)
	release = sync.OnceFunc(func() { close(free) })
	t.Cleanup(release)
	return h, release
}

// Tasks describes the tasks for which Shutdown waits.
func TestTasksDuringShutdown(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	p := new(probe)
	Go(rt.Named("last"), func(cx *Context) error { _, err := Await(cx, p); return err })
	describes(t, rt, "last", func(i TaskInfo) bool { return i.State == "waiting" })
	over := make(chan error, 1)
	go func() { over <- rt.Shutdown(t.Context()) }()
	eventually(t, rt.draining.Load)
	for range 20 {
		info := describes(t, rt, "last", func(i TaskInfo) bool { return i.Where != "" })
		require.Contains(t, info.Where, "TestTasksDuringShutdown")
	}
	require.Empty(t, over)
	p.resolve(nil)
	require.NoError(t, receive(t, over))
	require.Empty(t, rt.Tasks(), "after the end")
}

// Goroutines that call Tasks all the time do not prevent Shutdown from ending.
func TestTasksAndShutdownAtOnce(t *testing.T) {
	newTestRuntime(t, Config{Workers: 1})
	times := 20
	if testing.Short() {
		times = 5
	}
	for range times {
		rt, err := New(Config{Workers: 2, Grace: patience})
		require.NoError(t, err)
		for range 10 {
			Go(rt, func(cx *Context) error { return Sleep(cx, time.Hour) })
		}
		var stop atomic.Bool
		var askers sync.WaitGroup
		for range 2 {
			askers.Go(func() {
				for !stop.Load() {
					rt.Tasks()
				}
			})
		}
		require.NoError(t, rt.Shutdown(ended()))
		stop.Store(true)
		askers.Wait()
	}
}

func TestMisuseTasksInATask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	_, err := join(t, Go(rt, func(*Context) error { rt.Tasks(); return nil }))
	requireTaskMisuse(t, err, "Runtime.Tasks", wouldBlock, "use SpawnBlocking")
	_, err = join(t, SpawnBlocking(rt, func() (int, error) { return len(rt.Tasks()), nil }))
	require.NoError(t, err)
}

// If there are more tasks than a survey describes in one poll, each task is described once.
func TestTasksMany(t *testing.T) {
	const n = 10*surveyStep + 7
	rt := newTestRuntime(t, Config{Workers: 2})
	for i := range n {
		if i%2 == 0 {
			SpawnFuture(rt.Named("f"), SleepFuture(time.Hour))
		} else {
			Go(rt.Named("s"), func(cx *Context) error { return Sleep(cx, time.Hour) })
		}
	}
	count := func() (waiting int, ids map[uint64]bool) {
		ids = map[uint64]bool{}
		for _, i := range rt.Tasks() {
			ids[i.ID] = true
			if i.State == "waiting" && i.Where != "" {
				waiting++
			}
		}
		return waiting, ids
	}
	eventually(t, func() bool { w, ids := count(); return w == n && len(ids) == n })
}

// A survey in a list of waiting tasks, for example a survey that Shutdown has cancelled, is not
// described.
func TestTasksLeavesSurveysOut(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	p := &plain[[]TaskInfo]{f: new(survey)}
	p.attributes.Store(surveyAttributes)
	user := SpawnFuture(rt, SleepFuture(time.Hour))
	eventually(t, func() bool { return waiting(user) })
	infos := appendInfos(nil, []*task{&p.task, &user.task}, nil)
	require.Len(t, infos, 1)
	require.Equal(t, user.Task().ID, infos[0].ID)
}

func TestTasksOrder(t *testing.T) {
	infos := []TaskInfo{{Task: Task{ID: 1 << 63}}, {Task: Task{ID: 1}}, {Task: Task{ID: 1 << 32}}, {Task: Task{ID: 2}}}
	slices.SortFunc(infos, byID)
	var ids []uint64
	for _, info := range infos {
		ids = append(ids, info.ID)
	}
	require.Equal(t, []uint64{1, 2, 1 << 32, 1 << 63}, ids)
}
