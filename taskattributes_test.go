package async

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNamesOfTasks(t *testing.T) {
	r := new(reports)
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: r.add})
	for name, s := range map[string]Spawner{
		"":       rt,
		"one":    rt.Named("one"),
		"latest": rt.Named("first").Named("latest"),
	} {
		var hs []interface{ Task() Task }
		self := func(cx *Context) (Task, error) { return cx.Task(), nil }
		straight, future := Spawn(s, self), SpawnFuture(s, PollFunc(self))
		call := SpawnBlocking(s, func() (None, error) { return None{}, nil })
		hs = append(hs, straight, future, call)
		for _, h := range hs {
			require.Equal(t, name, h.Task().Name)
			require.NotZero(t, h.Task().ID)
		}
		for _, h := range []*JoinHandle[Task]{straight, future} {
			who, err := join(t, h)
			require.NoError(t, err)
			require.Equal(t, Task{ID: h.Task().ID, Name: name}, who)
		}
		who, err := BlockOn(s, self)
		require.NoError(t, err)
		require.Equal(t, name, who.Name)
		require.NotZero(t, who.ID)
	}
	require.Equal(t, "7", Task{ID: 7}.String())
	require.Equal(t, "7 (accept)", Task{ID: 7, Name: "accept"}.String())
}

// A name belongs to one task: the tasks that this task spawns have no name, or a name of their own.
func TestNamesAreNotInherited(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	runInTask(t, rt.Named("parent"), func(cx *Context) error {
		child := Go(cx, func(*Context) error { return nil })
		named := Go(cx.Named("child"), func(cx *Context) error {
			return expect(cx.Task().Name == "child", "named %q", cx.Task().Name)
		})
		_, err := child.Join(cx)
		_, err2 := named.Join(cx)
		return errors.Join(err, err2,
			expect(child.Task().Name == "", "the child is named %q", child.Task().Name),
			expect(named.Task().Name == "child", "the other is named %q", named.Task().Name))
	})
}

// The handler of failures gets the number and the name of each task.
func TestNamesInReports(t *testing.T) {
	got := make(chan Task, 1)
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(t Task, err error) { got <- t }})
	h := Go(rt.Named("loser"), func(*Context) error { return errors.New("lost") })
	eventually(t, h.state.done)
	id := h.Task().ID
	require.NoError(t, rt.Shutdown(ended()))
	require.Equal(t, Task{ID: id, Name: "loser"}, receive(t, got))
	runtime.KeepAlive(h)
}

// A Spawner with a name is made once. A spawn with it costs as much as with a Spawner without a
// name: one allocation.
func TestNamedSpawnIsOneAllocation(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	f := new(pointerFuture)
	const n = 200 // fits into the run queue
	least, err := join(t, Spawn(rt, func(cx *Context) (uint64, error) {
		named := cx.Named("counted")
		least := ^uint64(0)
		for range 10 { // other goroutines allocate too, but not always
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range n {
				SpawnFuture[None](named, f)
			}
			runtime.ReadMemStats(&after)
			least = min(least, after.Mallocs-before.Mallocs)
			if err := Yield(cx); err != nil {
				return 0, err
			}
		}
		return least, nil
	}))
	require.NoError(t, err)
	require.GreaterOrEqual(t, least, uint64(n))
	require.Less(t, least, uint64(n+n/10), "allocations of %d spawns", n)
}

// A Spawner that is made of a cx may be used only where this cx may be used.
func TestMisuseNamedElsewhere(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	runInTask(t, rt, func(cx *Context) error {
		spawners := []Spawner{cx.Named("x"), Local(cx), Local(cx).Named("x")}
		text := make(chan string)
		go func() {
			for _, s := range spawners {
				text <- misuse(func() { Go(s, func(*Context) error { return nil }) })
			}
		}()
		for range spawners {
			select {
			case got := <-text:
				if err := expect(got != "", "a task was spawned on a wrong goroutine"); err != nil {
					return err
				}
			case <-time.After(patience):
				return errors.New("nothing came")
			}
		}
		return nil
	})
}

// A named Spawner of a runtime may be used by many goroutines at the same time.
func TestNamedFromManyGoroutines(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	s := rt.Named("shared")
	const goroutines, each = 4, 50
	over := make(chan error, goroutines)
	for range goroutines {
		go func() {
			for range each {
				h := SpawnFuture(s, ReadyFuture(1))
				if _, err := h.JoinBlocking(t.Context()); err != nil || h.Task().Name != "shared" {
					over <- fmt.Errorf("%q, %w", h.Task().Name, err)
					return
				}
			}
			over <- nil
		}()
	}
	for range goroutines {
		require.NoError(t, receive(t, over))
	}
}

// Local tasks never leave their worker: not while it is stuck, not when another worker wakes them,
// and not for load. Other tasks that are spawned beside them leave it, so the other worker was
// looking for tasks and did not take the local tasks.
func TestLocalStaysOnItsWorker(t *testing.T) {
	const tasks = 50
	rt := newTestRuntime(t, Config{Workers: 2})
	eventually(t, rt.workers[1].asleep.Load)
	release, spawned := make(chan struct{}), make(chan struct{})
	var local, others []*JoinHandle[int]
	where := func(cx *Context) (int, error) { return cx.here().index, nil }
	h := Go(pinned(rt, 0), func(cx *Context) error {
		for range tasks {
			local = append(local, SpawnFuture(Local(cx), PollFunc(where)), Spawn(Local(cx), where))
			others = append(others, SpawnFuture(cx, PollFunc(where)), Spawn(cx, where))
		}
		close(spawned)
		<-release
		return nil
	})
	receive(t, spawned)
	for _, h := range others {
		index, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, 1, index)
	}
	for _, h := range local {
		require.False(t, h.state.done())
	}
	close(release)
	join(t, h)
	for _, h := range local {
		index, err := join(t, h)
		require.NoError(t, err)
		require.Equal(t, 0, index)
	}
}

func TestLocalWokenElsewhere(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	// spawn starts a future on worker 0 and wakes it on worker 1. It returns the workers that have
	// polled it.
	spawn := func(local bool) (polledBy []int) {
		event := new(oneshot)
		h, err := join(t, Spawn(pinned(rt, 0), func(cx *Context) (*JoinHandle[None], error) {
			s := Spawner(cx)
			if local {
				s = Local(cx).Named("stays")
			}
			return SpawnFuture(s, PollFunc(func(cx *Context) (None, error) {
				polledBy = append(polledBy, cx.here().index)
				return event.Poll(cx)
			})), nil
		}))
		require.NoError(t, err)
		eventually(t, func() bool { return waiting(h) })
		join(t, Go(pinned(rt, 1), func(cx *Context) error { event.send(cx); return nil }))
		_, err = join(t, h)
		require.NoError(t, err)
		return polledBy
	}
	for range 50 {
		require.Equal(t, []int{0, 0}, spawn(true))
	}
	eventually(t, func() bool { return slices.Contains(spawn(false), 1) }, "others go where they are woken")
}

// The tasks that a local task spawns are not local themselves.
func TestLocalIsNotInherited(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	runInTask(t, rt, func(cx *Context) error {
		_, err := Spawn(Local(cx), func(cx *Context) (None, error) {
			child := SpawnFuture(cx, ReadyFuture(1))
			return None{}, expect(child.attributes.Load() == nil, "a child has %+v", child.attributes.Load())
		}).Join(cx)
		return err
	})
}

// Local tasks share data without locks, also in a busy pool: the race detector
// and the count would show a mistake.
func TestLocalSharesWithoutLocks(t *testing.T) {
	const tasks, rounds = 20, 50
	rt := newTestRuntime(t, Config{Workers: 4})
	var noise atomic.Bool
	for range 4 {
		Go(rt, func(cx *Context) error {
			for !noise.Load() {
				SpawnFuture(cx, ReadyFuture(1))
				if err := Yield(cx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	defer noise.Store(true)
	runInTask(t, rt, func(cx *Context) error {
		sum := 0
		var hs []*JoinHandle[None]
		for range tasks {
			n := 0
			hs = append(hs, SpawnFuture(Local(cx), PollFunc(func(cx *Context) (None, error) {
				if n++; n > rounds {
					return None{}, nil
				}
				sum++
				return YieldFuture().Poll(cx)
			})), Go(Local(cx), func(cx *Context) error {
				for range rounds {
					v := sum
					sum = v + 1
					if err := Yield(cx); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		for _, h := range hs {
			if _, err := h.Join(cx); err != nil {
				return err
			}
		}
		return expect(sum == 2*tasks*rounds, "%d instead of %d", sum, 2*tasks*rounds)
	})
}

var (
	inheritedLocal = TaskLocal[string]{Inherit: true}
	ownLocal       TaskLocal[string]
	otherLocal     TaskLocal[string]
	errorLocal     TaskLocal[error]
)

// has checks the value of a TaskLocal that a task sees.
func has[T comparable](cx *Context, l *TaskLocal[T], want T, wantOK bool) error {
	got, ok := l.Get(cx)
	return expect(got == want && ok == wantOK, "got %v, %v instead of %v, %v", got, ok, want, wantOK)
}

func TestTaskLocals(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		err := errors.Join(
			has(cx, &ownLocal, "", false),
			has(cx, &inheritedLocal, "", false))
		ownLocal.Set(cx, "a")
		inheritedLocal.Set(cx, "b")
		errorLocal.Set(cx, nil)
		err = errors.Join(err,
			has(cx, &ownLocal, "a", true),
			has(cx, &inheritedLocal, "b", true),
			has(cx, &otherLocal, "", false),
			has(cx, &errorLocal, nil, true))
		ownLocal.Set(cx, "c")
		return errors.Join(err,
			has(cx, &ownLocal, "c", true),
			has(cx, &inheritedLocal, "b", true),
			expect(len(cx.t.attributes.Load().locals) == 3, "%d values are kept of 3", len(cx.t.attributes.Load().locals)))
	})
}

// A task that inherits begins with the value at the moment of its spawn. Other tasks do not see a
// value that a task sets later.
func TestTaskLocalsInherited(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		inheritedLocal.Set(cx, "first")
		ownLocal.Set(cx, "mine")
		check := func(cx *Context, want string) error {
			return errors.Join(
				has(cx, &inheritedLocal, want, true),
				has(cx, &ownLocal, "", false))
		}
		first := Go(cx, func(cx *Context) error {
			err := check(cx, "first")
			grandchild := Go(cx, func(cx *Context) error { return check(cx, "first") })
			inheritedLocal.Set(cx, "a child's")
			sibling := SpawnFuture(cx, PollFunc(func(cx *Context) (None, error) { return None{}, check(cx, "a child's") }))
			_, err2 := grandchild.Join(cx)
			_, err3 := sibling.Join(cx)
			return errors.Join(err, err2, err3, check(cx, "a child's"))
		})
		inheritedLocal.Set(cx, "second")
		rest := []*JoinHandle[None]{
			first,
			Go(cx.Named("second"), func(cx *Context) error { return check(cx, "second") }),
			Go(cx.Runtime(), func(cx *Context) error { return has(cx, &inheritedLocal, "", false) }),
		}
		var errs []error
		for _, h := range rest {
			_, err := h.Join(cx)
			errs = append(errs, err)
		}
		return errors.Join(append(errs, has(cx, &inheritedLocal, "second", true))...)
	})
}

// A task-local changes nothing else of its task.
func TestTaskLocalsKeepTheRest(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	runInTask(t, rt, func(cx *Context) error {
		named := Local(cx).Named("kept")
		for range 2 { // the second time with the attributes that were made before
			_, err := SpawnFuture(named, PollFunc(func(cx *Context) (None, error) {
				err := has(cx, &ownLocal, "", false)
				ownLocal.Set(cx, "x")
				return None{}, errors.Join(err,
					expect(cx.Task().Name == "kept", "named %q", cx.Task().Name),
					expect(!cx.t.movable(), "not local anymore"))
			})).Join(cx)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// A Spawner that was made earlier passes on the values at the moment of the spawn.
func TestTaskLocalsOfAnOldSpawner(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	runInTask(t, rt, func(cx *Context) error {
		s := Local(cx).Named("child")
		var got []string
		for _, v := range []string{"one", "two"} {
			inheritedLocal.Set(cx, v)
			v, err := Spawn(s, func(cx *Context) (string, error) {
				v, _ := inheritedLocal.Get(cx)
				return v, nil
			}).Join(cx)
			if err != nil {
				return err
			}
			got = append(got, v)
		}
		return expect(slices.Equal(got, []string{"one", "two"}), "%v", got)
	})
}

func TestMisuseTaskLocals(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var kept *Context
	runInTask(t, rt, func(cx *Context) error { kept = cx; return nil })
	requireMisuse(t, misuse(func() { ownLocal.Get(kept) }), "after its task had ended")
	requireMisuse(t, misuse(func() { ownLocal.Set(kept, "x") }), "after its task had ended")
}

// The names of tasks may be read while the tasks change their attributes.
func TestAttributesReadWhileTheyChange(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	h := Go(rt.Named("busy"), func(cx *Context) error {
		for i := range 2000 {
			ownLocal.Set(cx, fmt.Sprint(i))
			if err := Yield(cx); err != nil {
				return err
			}
		}
		return nil
	})
	for !h.state.done() {
		require.Equal(t, "busy", h.Task().Name)
		rt.Tasks()
	}
	_, err := join(t, h)
	require.NoError(t, err)
}

// The watchdog also watches a worker that gets stuck when it was the only worker that was parked
// with a limit, because of a timer.
func TestStuckAfterABoundedSleep(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	sleeper := Go(pinned(rt, 0), func(cx *Context) error { return Sleep(cx, time.Hour) })
	eventually(t, func() bool { return waiting(sleeper) && rt.workers[0].asleep.Load() && rt.workers[1].asleep.Load() })
	release, spawned := make(chan struct{}), make(chan *JoinHandle[int], 1)
	stuck := Go(pinned(rt, 0), func(cx *Context) error {
		spawned <- SpawnFuture(cx, ReadyFuture(1))
		<-release
		return nil
	})
	v, err := join(t, receive(t, spawned))
	require.NoError(t, err)
	require.Equal(t, 1, v)
	close(release)
	_, err = join(t, stuck)
	require.NoError(t, err)
}
