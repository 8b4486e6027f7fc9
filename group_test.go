package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGroupWaitsForAll(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		var ran atomic.Int32
		count := func() (None, error) { ran.Add(1); return None{}, nil }
		err := WithGroup(cx, func(cx *Context, g *Group) error {
			for range 10 {
				Go(g, func(cx *Context) error {
					Yield(cx)
					Go(g, func(cx *Context) error { count(); return Sleep(cx, time.Microsecond) }) // a task spawns another
					count()
					return nil
				})
				SpawnFuture(g, PollFunc(func(*Context) (None, error) { return count() }))
				SpawnBlocking(g, count)
				Go(g.Named("named"), func(cx *Context) error {
					count()
					return expect(cx.Task().Name == "named", "no name")
				})
			}
			return nil
		})
		return errors.Join(err, expect(ran.Load() == 50, "%d of 50 have run", ran.Load()))
	})
}

func TestGroupEmpty(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		failed := errors.New("failed")
		err := WithGroup(cx, func(cx *Context, g *Group) error { return errors.Join(g.Wait(cx), expect(g.len() == 0, "Len")) })
		err2 := WithGroup(cx, func(*Context, *Group) error { return failed })
		return errors.Join(err, expect(err2 == failed, "%v", err2), Yield(cx))
	})
}

// The first failure, of whatever kind, cancels the other tasks and the function, which get it as
// their cause. WithGroup returns it. Later failures are reported.
func TestGroupFirstFailure(t *testing.T) {
	boom := errors.New("boom")
	isBoom := func(err error) bool { return err == boom }
	for name, tc := range map[string]struct {
		fail func(g *Group)
		is   func(err error) bool
	}{
		"error":    {func(g *Group) { Go(g, func(*Context) error { return boom }) }, isBoom},
		"future":   {func(g *Group) { SpawnFuture(g, FailedFuture[int](boom)) }, isBoom},
		"blocking": {func(g *Group) { SpawnBlocking(g, func() (None, error) { return None{}, boom }) }, isBoom},
		"Goexit":   {func(g *Group) { Go(g, func(*Context) error { runtime.Goexit(); return nil }) }, func(err error) bool { return err == ErrGoexit }},
		"panic": {func(g *Group) { Go(g, func(*Context) error { panicsHere("oh"); return nil }) }, func(err error) bool {
			p, ok := err.(*PanicError)
			return ok && p.Value == "oh"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := new(reports)
			rt := newTestRuntime(t, Config{Workers: 2, Unhandled: r.add})
			p := new(probe)
			told := make(chan error, 3)
			_, err := join(t, Go(rt, func(cx *Context) error {
				outer := cx
				err := WithGroup(cx, func(cx *Context, g *Group) error {
					for range 2 {
						Go(g, func(cx *Context) error {
							Sleep(cx, time.Hour)
							told <- expect(tc.is(cx.Cause()) && tc.is(context.Cause(cx)), "a task's cause is %v", cx.Cause())
							return cx.Cause() // this is no failure
						})
					}
					SpawnFuture(g, p)
					for p.polls.Load() == 0 {
						Yield(cx)
					}
					tc.fail(g)
					err := Sleep(cx, time.Hour)
					told <- errors.Join(
						expect(err == context.Canceled, "the function slept: %v", err),
						expect(tc.is(cx.Cause()), "the function's cause is %v", cx.Cause()))
					h := Go(g, func(*Context) error { panic("it ran") })
					_, late := h.TryJoin()
					ended := late != ErrPending
					return expect(ended && late == context.Canceled && tc.is(h.cx.Cause()), "spawned later: %v, %v", ended, late)
				})
				return errors.Join(expect(tc.is(err), "the group's error is %v", err), expect(outer.Err() == nil, "the outer one: %v", outer.Err()))
			}))
			require.NoError(t, err)
			for range cap(told) {
				require.NoError(t, receive(t, told))
			}
			require.EqualValues(t, 1, p.cancels.Load())
			require.NoError(t, rt.Shutdown(ended()))
			require.Zero(t, r.count(), "%v", r.all)
		})
	}
}

func TestGroupLaterFailuresAreReported(t *testing.T) {
	r := new(reports)
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
	first, second := errors.New("first"), errors.New("second")
	_, err := join(t, Go(rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			for range 2 {
				Go(g, func(cx *Context) error { Sleep(cx, time.Hour); return second })
			}
			joined := Go(g, func(cx *Context) error { Sleep(cx, time.Hour); return second })
			Go(g, func(*Context) error { return first })
			joined.Join(cx.WithoutCancel())
			return nil
		})
	}))
	require.Equal(t, first, err)
	require.NoError(t, rt.Shutdown(ended()))
	require.Equal(t, 2, r.count(), "those that nobody has joined, but the first")
}

// An error of the function is treated as an error of a task.
func TestGroupFunctionFails(t *testing.T) {
	boom := errors.New("boom")
	everywhere(t, func(cx *Context) error {
		var cause error
		err := WithGroup(cx, func(cx *Context, g *Group) error {
			h := Go(g, func(cx *Context) error {
				Sleep(cx, time.Hour)
				cause = cx.Cause()
				return cx.Err()
			})
			for h.info(nil).State != "waiting" {
				Yield(cx)
			}
			return boom
		})
		return errors.Join(expect(err == boom, "%v", err), expect(cause == boom, "the cause is %v", cause), Yield(cx))
	})
}

// The tasks of a group end before WithGroup returns, however its function ends: also by a panic, or
// by Goexit.
func TestGroupNeverOutlived(t *testing.T) {
	for name, end := range map[string]func(cx *Context) error{
		"return": func(*Context) error { return nil },
		"error":  func(*Context) error { return io.EOF },
		"panic":  func(*Context) error { panicsHere("oh"); return nil },
		"Goexit": func(*Context) error { runtime.Goexit(); return nil },
		"cancel": func(cx *Context) error { return Sleep(cx, time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			var alive, ended atomic.Int32
			began, release := make(chan struct{}), make(chan struct{})
			code := func(cx *Context) error {
				defer func() {
					if alive.Load() == 0 {
						ended.Add(1)
					}
				}()
				return WithGroup(cx, func(cx *Context, g *Group) error {
					alive.Add(3)
					Go(g, func(cx *Context) error {
						defer alive.Add(-1)
						if name != "return" {
							Sleep(cx, time.Hour)
						}
						return Sleep(cx.WithoutCancel(), time.Millisecond) // cleans up
					})
					Go(g, func(cx *Context) error {
						defer alive.Add(-1)
						Go(g, func(cx *Context) error { // it is refused if the group is cancelled first
							alive.Add(1)
							defer alive.Add(-1)
							return Sleep(cx.WithoutCancel(), time.Millisecond)
						})
						return nil
					})
					SpawnBlocking(g, func() (None, error) {
						defer alive.Add(-1)
						close(began)
						<-release
						return None{}, nil
					})
					Await(cx.WithoutCancel(), PollFunc(func(cx *Context) (None, error) {
						select {
						case <-began:
							return None{}, nil
						default:
							return YieldFuture().Poll(cx)
						}
					}))
					return end(cx)
				})
			}
			h := Go(rt, code)
			eventually(t, func() bool {
				select {
				case <-began:
					return true
				default:
					return false
				}
			})
			if name == "cancel" {
				eventually(t, func() bool { return h.info(nil).Waits == "time" })
				h.Cancel()
			}
			require.Zero(t, ended.Load())
			require.False(t, h.state.done())
			close(release)
			_, err := join(t, h)
			require.EqualValues(t, 1, ended.Load(), "%d tasks are left", alive.Load())
			var p *PanicError
			switch name {
			case "return":
				require.NoError(t, err)
			case "error":
				require.Equal(t, io.EOF, err)
			case "panic":
				require.ErrorAs(t, err, &p)
				require.Contains(t, string(p.Stack), "panicsHere")
			case "Goexit":
				require.Equal(t, ErrGoexit, err)
			case "cancel":
				require.Equal(t, context.Canceled, err)
			}
		})
	}
}

// The same holds for a function that BlockOn runs.
func TestGroupPanicInBlockOn(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var ended atomic.Bool
	require.PanicsWithValue(t, "oh", func() {
		BlockOn(rt, func(cx *Context) (None, error) {
			return None{}, WithGroup(cx, func(cx *Context, g *Group) error {
				h := Go(g, func(cx *Context) error {
					defer ended.Store(true)
					return Sleep(cx, time.Hour)
				})
				for h.info(nil).State != "waiting" {
					Yield(cx)
				}
				panic("oh")
			})
		})
	})
	require.True(t, ended.Load())
}

// When the Context around the group is cancelled, or its deadline passes, the group's tasks are
// cancelled, with the error and the cause of that Context. WithGroup returns this error even if its
// function does not.
func TestGroupParentEnds(t *testing.T) {
	why := errors.New("why")
	rt := newTestRuntime(t, Config{Workers: 2})
	for _, byTime := range []bool{false, true} {
		want := context.Canceled
		if byTime {
			want = context.DeadlineExceeded
		}
		began := make(chan func(), 1)
		h := Go(rt, func(cx *Context) error {
			end := func() {}
			if byTime {
				short, cancel := cx.WithTimeoutCause(time.Hour, why)
				defer cancel()
				cx, end = short, func() { short.sc.Load().expire(nil) } // as if the hour had passed
			}
			told := errors.New("the task has not been told")
			err := WithGroup(cx, func(cx *Context, g *Group) error {
				Go(g, func(cx *Context) error {
					_, ok := cx.Deadline()
					err := Sleep(cx, time.Hour)
					told = errors.Join(
						expect(ok == byTime, "has a deadline: %v", ok),
						expect(err == want, "Sleep: %v", err),
						causes(cx, cx, want, why))
					return err
				})
				began <- end
				return nil
			})
			return errors.Join(told, expect(err == want, "the group's error is %v", err))
		})
		end := receive(t, began)
		eventually(t, func() bool { return h.info(nil).Waits == "group" })
		if byTime {
			end()
		} else {
			h.CancelCause(why)
		}
		_, err := join(t, h)
		require.NoError(t, err)
	}
}

// A member that is cancelled by its handle has not failed the group.
func TestGroupMemberCancelled(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		ran := false
		err := WithGroup(cx, func(cx *Context, g *Group) error {
			h := Go(g, func(cx *Context) error { return Sleep(cx, time.Hour) })
			f := SpawnFuture(g, NeverFuture[int]())
			Go(g, func(cx *Context) error {
				h.Cancel()
				f.CancelCause(io.EOF)
				Yield(cx)
				ran = true
				return cx.Err()
			})
			return nil
		})
		return errors.Join(err, expect(ran, "the other one was cancelled, too"))
	})
}

func TestGroupCancel(t *testing.T) {
	why := errors.New("why")
	everywhere(t, func(cx *Context) error {
		var cause error
		err := WithGroup(cx, func(cx *Context, g *Group) error {
			h := Go(g, func(cx *Context) error {
				Sleep(cx, time.Hour)
				cause = cx.Cause()
				return cx.Err()
			})
			SpawnFuture(g, NeverFuture[int]())
			for h.info(nil).State != "waiting" {
				Yield(cx)
			}
			if g.len() != 2 {
				return fmt.Errorf("Len is %d", g.len())
			}
			g.CancelCause(why)
			g.Cancel()
			return errors.Join(causes(cx, cx, context.Canceled, why), g.Wait(cx.WithoutCancel()), expect(g.len() == 0, "Len"))
		})
		boom := errors.New("boom")
		err2 := WithGroup(cx, func(cx *Context, g *Group) error {
			Go(g, func(cx *Context) error { Sleep(cx, time.Hour); return boom })
			g.Cancel()
			return nil
		})
		return errors.Join(err, expect(cause == why || cause == nil, "the cause is %v", cause),
			expect(err2 == boom || err2 == nil, "a failure after Cancel: %v", err2), Yield(cx))
	})
}

func TestGroupKeepGoing(t *testing.T) {
	boom := errors.New("boom")
	r := new(reports)
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: r.add})
	_, err := join(t, Go(rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			g.KeepGoing()
			Go(g, func(*Context) error { return boom })
			joined := Go(g, func(*Context) error { panic("oh") })
			if _, err := joined.Join(cx); err == nil {
				return errors.New("no panic")
			}
			return Sleep(cx, time.Millisecond)
		})
	}))
	require.NoError(t, err)
	require.NoError(t, rt.Shutdown(ended()))
	require.Equal(t, 1, r.count())
}

func TestGroupWait(t *testing.T) {
	boom := errors.New("boom")
	everywhere(t, func(cx *Context) error {
		err := WithGroup(cx, func(cx *Context, g *Group) error {
			for phase := range 3 {
				for range 5 {
					Go(g.Under(cx), Yield)
				}
				if err := g.Wait(cx); err != nil || g.len() != 0 {
					return fmt.Errorf("phase %d: %v, %d tasks", phase, err, g.len())
				}
			}
			Go(g, func(cx *Context) error { return Sleep(cx, time.Hour) })
			short, cancel := cx.WithTimeout(time.Millisecond)
			defer cancel()
			if err := g.Wait(short); err != context.DeadlineExceeded {
				return fmt.Errorf("Wait with a timeout: %v", err)
			}
			Go(g, func(*Context) error { return boom })
			return expect(g.Wait(cx) == boom, "Wait in a group that fails")
		})
		return expect(err == boom, "the group: %v", err)
	})
}

func TestGroupMisuse(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	_, err := join(t, Go(rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			Go(g.Under(context.Background()), func(cx *Context) error { return g.Wait(cx) })
			return nil
		})
	}))
	requireTaskMisuse(t, err, "Group.Wait was called in a task of the group")
	_, err = join(t, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
		return None{}, WithGroup(cx, func(*Context, *Group) error { return nil })
	})))
	requireTaskMisuse(t, err, "a plain future cannot wait")
}

// A group that has ended starts no more tasks, whatever code uses it.
func TestGroupAfterItsEnd(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	var left *Group
	runInTask(t, rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error { left = g; return nil })
	})
	h := Go(left, func(*Context) error { panic("it ran") })
	_, err := h.TryJoin()
	ended := err != ErrPending
	require.True(t, ended)
	require.Equal(t, context.Canceled, err)
	runInTask(t, rt, func(cx *Context) error {
		_, err := Go(left, Yield).Join(cx)
		return expect(err == context.Canceled, "%v", err)
	})
	left.SetLimit(0)
	left.Cancel()

	// Tasks from outside, while the group ends: they are tasks of the group, or never begin.
	for range 100 {
		groups, outside := make(chan *Group, 1), make(chan *JoinHandle[None], 1)
		var ran, over atomic.Bool
		go func() {
			outside <- Go(<-groups, func(cx *Context) error {
				if over.Load() {
					t.Error("it began after the end")
				}
				ran.Store(true)
				return Yield(cx.WithoutCancel())
			})
		}()
		runInTask(t, rt, func(cx *Context) error {
			err := WithGroup(cx, func(cx *Context, g *Group) error {
				groups <- g
				return Yield(cx)
			})
			over.Store(true)
			return err
		})
		_, err := join(t, receive(t, outside))
		require.Equal(t, ran.Load(), err == nil, "%v", err)
	}
}

// The promises of a limit:
//
//  1. Never more than that many tasks live, and each runs exactly once.
//  2. Callers that wait for room get it in the order in which they arrived.
//  3. A caller that gives up has taken no place. A place that it was given goes to the next caller.
func TestGroupLimit(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		const limit, tasks = 3, 50
		var alive, most, ran atomic.Int32
		work := func() {
			n := alive.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			ran.Add(1)
		}
		err := WithGroup(cx, func(cx *Context, g *Group) error {
			g.SetLimit(limit)
			for i := range tasks {
				switch i % 3 {
				case 0:
					Go(g, func(cx *Context) error {
						work()
						defer alive.Add(-1)
						return Yield(cx)
					})
				case 1:
					SpawnFuture(g, PollFunc(func(cx *Context) (None, error) {
						work()
						defer alive.Add(-1)
						return None{}, nil
					}))
				case 2:
					SpawnBlocking(g.Named("call"), func() (None, error) {
						work()
						defer alive.Add(-1)
						return None{}, nil
					})
				}
				if g.len() > limit {
					return fmt.Errorf("%d tasks live", g.len())
				}
			}
			return nil
		})
		return errors.Join(err, expect(ran.Load() == tasks, "%d have run", ran.Load()), expect(most.Load() <= limit, "%d at once", most.Load()))
	})
}

// Promise 2.
func TestGroupLimitIsFirstComeFirstServed(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const waiters = 8
	begun := make(chan int, waiters)
	runInTask(t, rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			g.SetLimit(1)
			p := new(probe)
			Go(g, func(cx *Context) error { _, err := Await(cx, p); return err })
			var spawners []*JoinHandle[None]
			for i := range waiters {
				h := Go(cx, func(*Context) error {
					Go(g, func(cx *Context) error { begun <- i; return Yield(cx) })
					return nil
				})
				spawners = append(spawners, h)
				for !waiting(h) {
					if err := Yield(cx); err != nil {
						return err
					}
				}
				if i == waiters/2 { // a caller that gives up changes nothing for the others
					h.Cancel()
				}
			}
			p.resolve(nil)
			for _, h := range spawners { // the group ends once it is empty, also if callers are about to enter
				if _, err := h.Join(cx); err != nil {
					return err
				}
			}
			return nil
		})
	})
	close(begun)
	var order []int
	for i := range begun {
		order = append(order, i)
	}
	require.Equal(t, []int{0, 1, 2, 3, 5, 6, 7}, order)
}

func TestGroupLimitChanges(t *testing.T) {
	everywhere(t, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			stay := func(cx *Context) error { Sleep(cx, time.Hour); return nil }
			g.SetLimit(0)
			_, err := Go(g.Try(), stay).TryJoin()
			ended := err != ErrPending
			if !ended || err != ErrBusy {
				return fmt.Errorf("a limit of 0: %v, %v", ended, err)
			}
			inner, cancel := cx.WithCancel()
			defer cancel()
			outside := Go(inner.Under(inner), stay) // not a task of the group
			for !waiting(outside) {
				Yield(cx)
			}
			cancel()
			if _, err = outside.Join(cx); err != nil {
				return err
			}
			g.SetLimit(1)
			first := Go(g, stay)
			Go(cx, func(cx *Context) error { g.SetLimit(2); return nil })
			second := Go(g, stay) // waits for the limit of 2
			first.Cancel()
			third := Go(g, stay) // waits for the end of first
			g.SetLimit(-1)
			Go(g, stay)
			if _, err := second.TryJoin(); err != ErrPending {
				return errors.New("it has ended")
			}
			if _, err := third.TryJoin(); err != ErrPending {
				return errors.New("it has ended")
			}
			g.Cancel()
			return nil
		})
	})
}

func TestGroupLimitWhoCannotWait(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(Task, error) {}})
	groups, release := make(chan *Group, 1), make(chan struct{})
	h := Go(rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			g.SetLimit(1)
			SpawnBlocking(g, func() (None, error) { <-release; return None{}, nil })
			groups <- g
			return nil
		})
	})
	g := receive(t, groups)
	require.Equal(t, g.cx.t, &h.task)
	never := func(*Context) error { t.Error("it ran"); return nil }
	_, err := Go(g, never).TryJoin()
	ended := err != ErrPending
	require.True(t, ended)
	require.Equal(t, ErrBusy, err, "a goroutine")
	_, err = join(t, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
		_, err := Go(g, never).TryJoin()
		return None{}, err
	})))
	require.Equal(t, ErrBusy, err, "a plain future")
	_, err = BlockOn(g, func(cx *Context) (None, error) { return None{}, never(cx) })
	require.Equal(t, ErrBusy, err, "BlockOn")
	// Any task can wait, and not only the tasks of the group.
	waiter := Spawn(rt, func(cx *Context) (*JoinHandle[None], error) { return Go(g, Yield), nil })
	eventually(t, func() bool { return waiting(waiter) && waiter.info(nil).Waits == "group" })
	gaveUp := Spawn(rt, func(cx *Context) (*JoinHandle[None], error) { return Go(g, never), nil })
	eventually(t, func() bool { return waiting(gaveUp) })
	gaveUp.Cancel()
	late, err := join(t, gaveUp)
	require.NoError(t, err)
	_, err = join(t, late)
	require.Equal(t, context.Canceled, err)
	require.Equal(t, 1, g.len())
	close(release)
	in, err := join(t, waiter)
	require.NoError(t, err)
	if _, err = join(t, in); err != context.Canceled { // the group may have ended before the task was spawned
		require.NoError(t, err)
	}
	_, err = join(t, h)
	require.NoError(t, err, "who was refused has not failed the group")
}

// A call for which the pool has no room has not begun, and so it has not failed the group.
func TestGroupAndFullPool(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: func(Task, error) {}, Blocking: BlockingConfig{Limit: 1, Queue: 1}})
	defer occupy(t, rt, 1)()
	SpawnBlocking(rt, func() (None, error) { return None{}, nil })
	never := func() (None, error) { t.Error("it ran"); return None{}, nil }
	runInTask(t, rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			other := Go(g, func(cx *Context) error { return Sleep(cx, time.Millisecond) })
			_, err := SpawnBlocking(g.Try(), never).TryJoin()
			if err != ErrBusy || g.len() != 1 {
				return fmt.Errorf("a full pool: %v, %d in the group", err, g.len())
			}
			short, cancel := cx.WithTimeout(time.Millisecond)
			defer cancel()
			_, err = SpawnBlocking(g.Under(short), never).TryJoin()
			if err != context.DeadlineExceeded || g.len() > 1 {
				return fmt.Errorf("a full pool and a deadline: %v, %d in the group", err, g.len())
			}
			_, err = other.Join(cx)
			return errors.Join(err, cx.Err())
		})
	})
}

// A caller that waits for room stops when the group or a context of the new task ends. The new task
// does not begin, neither at once nor when there is room.
func TestGroupEndsTheWaitForRoom(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1, Queue: 1}})
	never := func(*Context) error { t.Error("it ran"); return nil }
	call := func() (None, error) { return None{}, never(nil) }
	for name, c := range map[string]struct {
		waits string
		byCtx bool
		spawn func(cx *Context, g *Group, ctx context.Context) *JoinHandle[None]
	}{
		"the group": {
			waits: "group",
			spawn: func(_ *Context, g *Group, _ context.Context) *JoinHandle[None] { return Go(g, never) },
		},
		"the context": {
			waits: "group", byCtx: true,
			spawn: func(_ *Context, g *Group, ctx context.Context) *JoinHandle[None] { return Go(g.Under(ctx), never) },
		},
		"the context, for a call in the group": {
			waits: "group", byCtx: true,
			spawn: func(_ *Context, g *Group, ctx context.Context) *JoinHandle[None] {
				return SpawnBlocking(g.Under(ctx), call)
			},
		},
		"the context, for a call in the pool": {
			waits: "blocking call", byCtx: true,
			spawn: func(cx *Context, _ *Group, ctx context.Context) *JoinHandle[None] {
				return SpawnBlocking(cx.Under(ctx), call)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			groups, began, free := make(chan *Group, 1), make(chan struct{}), make(chan struct{})
			h := Go(rt, func(cx *Context) error {
				return WithGroup(cx, func(cx *Context, g *Group) error {
					g.SetLimit(1)
					SpawnBlocking(g, func() (None, error) { close(began); <-free; return None{}, nil })
					groups <- g
					return nil
				})
			})
			release := sync.OnceFunc(func() { close(free) })
			defer release()
			g := receive(t, groups)
			receive(t, began)
			eventually(t, func() bool { running, _, _, _ := rt.calls.count(); return running == 1 })
			queued := SpawnBlocking(rt, func() (None, error) { return None{}, nil })
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			waiter := Spawn(rt, func(cx *Context) (*JoinHandle[None], error) { return c.spawn(cx, g, ctx), nil })
			eventually(t, func() bool { return waiting(waiter) && waiter.info(nil).Waits == c.waits })
			if c.byCtx {
				cancel()
			} else {
				g.Cancel()
			}
			late, err := join(t, waiter)
			require.NoError(t, err)
			_, err = late.TryJoin()
			require.Equal(t, context.Canceled, err)
			require.Equal(t, 1, g.len())
			release()
			_, err = join(t, h)
			require.NoError(t, err)
			_, err = join(t, queued)
			require.NoError(t, err)
		})
	}

	// There is room, but the group ends before the waiting task is polled.
	runInTask(t, rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			g.SetLimit(0)
			waiter := Spawn(cx, func(cx *Context) (*JoinHandle[None], error) { return Go(g, never), nil })
			for !waiting(waiter) {
				Yield(cx)
			}
			g.SetLimit(1)
			g.Cancel()
			cx = cx.WithoutCancel()
			late, err := waiter.Join(cx)
			if err == nil {
				_, err = late.Join(cx)
			}
			return errors.Join(expect(err == context.Canceled, "%v", err),
				expect(g.tasks.admission.reserved == 0 && g.tasks.admission.n == 0, "%d reserved, %d wait", g.tasks.admission.reserved, g.tasks.admission.n))
		})
	})
}

// A task that did not begin because its spawner gave up is not reported, even if no caller joins
// it.
func TestSpawnersThatGiveUp(t *testing.T) {
	r := new(reports)
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add, Blocking: BlockingConfig{Limit: 1, Queue: 1}})
	release := occupy(t, rt, 1)
	SpawnBlocking(rt, func() (int, error) { return 1, nil })
	runInTask(t, rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			g.SetLimit(1)
			Go(g, func(cx *Context) error { return Sleep(cx, time.Hour) })
			short, cancel := cx.WithTimeout(time.Millisecond)
			defer cancel()
			call := SpawnBlocking(short, func() (int, error) { return 2, nil })
			Spawn(cx.Under(short), func(cx *Context) (*JoinHandle[None], error) { return Go(g, Yield), nil })
			g.Cancel()
			return expect(call.state.done() && peek(call) == context.DeadlineExceeded, "%v", call.err)
		})
	})
	release()
	require.NoError(t, rt.Shutdown(context.Background()))
	require.Zero(t, r.count())
}

// Tasks wait for room in a group, and some of them are cancelled. The other tasks get the room.
func TestGroupLimitPassesRoomOn(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: func(Task, error) {}})
	for round := range 200 {
		runInTask(t, rt, func(cx *Context) error {
			var ran atomic.Int32
			err := WithGroup(cx, func(cx *Context, g *Group) error {
				g.SetLimit(1)
				first := Go(g, func(cx *Context) error { return Yield(cx) })
				var spawners []*JoinHandle[*JoinHandle[None]]
				for range 4 {
					spawners = append(spawners, Spawn(cx, func(cx *Context) (*JoinHandle[None], error) {
						return Go(g, func(cx *Context) error { ran.Add(1); return nil }), nil
					}))
				}
				if round%2 == 0 {
					Yield(cx)
				}
				go spawners[0].Cancel()
				go spawners[1].Cancel()
				first.Cancel()
				for i, s := range spawners {
					h, err := s.Join(cx)
					if err == nil {
						_, err = h.Join(cx)
					}
					if err != nil && (i > 1 || err != context.Canceled) {
						return fmt.Errorf("spawner %d: %w", i, err)
					}
				}
				return expect(g.tasks.admission.reserved == 0 && g.tasks.admission.n == 0, "%d reserved, %d wait", g.tasks.admission.reserved, g.tasks.admission.n)
			})
			return errors.Join(err, expect(ran.Load() >= 2, "%d have run", ran.Load()))
		})
	}
}

// Shutdown ends groups as it ends other tasks: from its third stage on they are cancelled, and the
// last stage unwinds them.
func TestGroupAndShutdown(t *testing.T) {
	t.Run("cancelled", func(t *testing.T) {
		r := new(reports)
		rt := newTestRuntime(t, Config{Workers: 2, Unhandled: r.add})
		var cleaned atomic.Int32
		h := Go(rt, func(cx *Context) error {
			return WithGroup(cx, func(cx *Context, g *Group) error {
				for range 10 {
					Go(g, func(cx *Context) error {
						defer cleaned.Add(1)
						err := Sleep(cx, time.Hour)
						Sleep(cx.WithoutCancel(), time.Millisecond)
						return err
					})
				}
				SpawnFuture(g, NeverFuture[int]())
				return nil
			})
		})
		eventually(t, func() bool { return h.info(nil).Waits == "group" && len(rt.Tasks()) == 12 })
		require.NoError(t, rt.Shutdown(ended()))
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
		require.EqualValues(t, 10, cleaned.Load())
		require.Zero(t, r.count())
	})
	t.Run("unwound", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1, Grace: 50 * time.Millisecond})
		h := Go(rt, func(cx *Context) error {
			return WithGroup(cx, func(cx *Context, g *Group) error {
				Go(g, func(cx *Context) error { return Sleep(cx.WithoutCancel(), time.Hour) })
				return nil
			})
		})
		outside := make(chan error, 1)
		go func() {
			_, err := BlockOn(rt, func(cx *Context) (None, error) {
				return None{}, WithGroup(cx, func(cx *Context, g *Group) error {
					Go(g, func(cx *Context) error { return Sleep(cx.WithoutCancel(), time.Hour) })
					return nil
				})
			})
			outside <- err
		}()
		eventually(t, func() bool { return h.info(nil).Waits == "group" && len(rt.Tasks()) == 4 })
		require.Error(t, rt.Shutdown(ended()))
		_, err := join(t, h)
		require.Equal(t, ErrShutdown, err)
		require.ErrorIs(t, receive(t, outside), ErrShutdown)
	})
	t.Run("draining", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1})
		began := make(chan struct{})
		h := Go(rt, func(cx *Context) error {
			return WithGroup(cx, func(cx *Context, g *Group) error {
				close(began)
				Await(cx, DrainingFuture())
				var set JoinSet[int]
				set.Add(Spawn(g, func(cx *Context) (int, error) { return 1, Yield(cx) }))
				h, err := set.Next(cx)
				if err == nil {
					_, err = h.Join(cx)
				}
				return err
			})
		})
		receive(t, began)
		require.NoError(t, rt.Shutdown(context.Background()))
		_, err := join(t, h)
		require.NoError(t, err, "tasks may still be spawned from inside")
	})
}

// A task of a group inherits the task-locals of the task that made the group.
func TestGroupInherits(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	local := TaskLocal[string]{Inherit: true}
	runInTask(t, rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			for _, v := range []string{"a", "b"} {
				local.Set(cx, v)
				h := Go(g, func(cx *Context) error {
					got, _ := local.Get(cx)
					local.Set(cx, "c")
					return expect(got == v, "%q", got)
				})
				if _, err := h.Join(cx); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// Groups in groups: a failure in the innermost cancels the tasks and groups beside it, and each
// level passes it on.
func TestGroupNested(t *testing.T) {
	boom := errors.New("boom")
	rt := newTestRuntime(t, Config{Workers: 2})
	var ended atomic.Int32
	var nest func(cx *Context, depth int) error
	nest = func(cx *Context, depth int) error {
		if depth == 0 {
			Sleep(cx, time.Millisecond)
			return boom
		}
		return WithGroup(cx, func(cx *Context, g *Group) error {
			Go(g, func(cx *Context) error { return nest(cx, depth-1) })
			for range 3 {
				Go(g, func(cx *Context) error {
					defer ended.Add(1)
					return WithGroup(cx, func(cx *Context, g *Group) error { return Sleep(cx, time.Hour) })
				})
			}
			return nil
		})
	}
	_, err := join(t, Go(rt, func(cx *Context) error { return nest(cx, 10) }))
	require.Equal(t, boom, err)
	require.LessOrEqual(t, ended.Load(), int32(30))
}

func TestJoinSet(t *testing.T) {
	boom := errors.New("boom")
	everywhere(t, func(cx *Context) error {
		var set JoinSet[int]
		if _, err := set.Next(cx); err != io.EOF {
			return fmt.Errorf("an empty set: %v", err)
		}
		probes := make([]*probe, 5)
		var hs []*JoinHandle[int]
		for i := range probes {
			probes[i] = new(probe)
			hs = append(hs, SpawnFuture(cx, probes[i]))
		}
		set.Add(hs...)
		_, err := set.PollNext(cx)
		if err != ErrPending {
			return fmt.Errorf("PollNext: %v", err)
		}
		short, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		if _, err := set.Next(short); err != context.DeadlineExceeded || set.Len() != 5 {
			return fmt.Errorf("a Next that is given up: %v, %d left", err, set.Len())
		}
		order := []int{3, 0, 4, 2, 1}
		for _, i := range order {
			probes[i].resolve(nil)
			h, err := set.Next(cx)
			if err != nil || h != hs[i] {
				return fmt.Errorf("Next: %v, %v; want %v", h.Task().ID, err, hs[i].Task().ID)
			}
			if v, err := h.TryJoin(); v != 42 || err != nil {
				return fmt.Errorf("TryJoin: %d, %v", v, err)
			}
		}
		if _, err := set.Next(cx); err != io.EOF {
			return fmt.Errorf("a set that is empty again: %v", err)
		}

		set.Add(Spawn(cx, func(*Context) (int, error) { return 1, io.EOF }), SpawnFuture(cx, FailedFuture[int](boom)), hs[0])
		n := 0
		for h, err := range set.All(cx) {
			if err != nil {
				return err
			}
			switch v, err := h.TryJoin(); {
			case err == ErrPending:
				return errors.New("it has not ended")
			case err == io.EOF && v == 1, err == boom, h == hs[0] && err == nil:
				n++
			}
		}
		gone, cancelGone := cx.WithCancel()
		cancelGone()
		set.Add(hs[1])
		for _, err := range set.All(gone) {
			if err != context.Canceled {
				return fmt.Errorf("All with a Context that is cancelled: %v", err)
			}
			n++
		}
		return errors.Join(expect(n == 4, "%d elements", n), expect(set.Len() == 1, "%d left", set.Len()))
	})
}

// Many tasks take handles from one set while tasks end and others are added. Each handle is
// returned once, and all tasks that wait see the end.
func TestJoinSetExactlyOnce(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for range 20 {
		var set JoinSet[int]
		const each, takers = 100, 4
		var seen [2 * each]atomic.Int32
		var hs []*JoinHandle[int]
		for i := range each {
			hs = append(hs, Spawn(rt, func(cx *Context) (int, error) { return i, Yield(cx) }))
		}
		set.Add(hs...)
		var tasks []*JoinHandle[None]
		for k := range takers {
			tasks = append(tasks, Go(rt, func(cx *Context) error {
				if k == 0 {
					for i := range each {
						set.Add(SpawnFuture(cx, ReadyFuture(each+i)))
					}
				}
				for {
					if k == 1 {
						short, cancel := cx.WithTimeout(time.Microsecond)
						_, err := Await(short, NeverFuture[int]())
						cancel()
						if err != context.DeadlineExceeded {
							return err
						}
					}
					h, err := set.Next(cx)
					if err != nil {
						return expect(err == io.EOF, "Next: %v", err)
					}
					v, err := h.Join(cx)
					if err != nil {
						return err
					}
					seen[v].Add(1)
				}
			}))
		}
		for _, h := range tasks {
			_, err := join(t, h)
			require.NoError(t, err)
		}
		if left := set.Len(); left > 0 { // the other tasks have returned before all handles were added
			runInTask(t, rt, func(cx *Context) error {
				for h, err := range set.All(cx) {
					if err != nil {
						return err
					}
					v, _ := h.TryJoin()
					seen[v].Add(1)
				}
				return nil
			})
		}
		for i := range seen {
			require.EqualValues(t, 1, seen[i].Load(), "handle %d", i)
		}
	}
}

// A task of Group.Via starts as a task of its Spawner does, and is a task of the group.
func TestGroupVia(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 3})
	at := time.Now().Add(time.Hour)
	ctx, cancel := context.WithDeadline(context.WithValue(t.Context(), underKey("who"), "me"), at)
	defer cancel()
	require.NoError(t, runTask(rt, func(cx *Context) error {
		home := cx.taskWorker()
		return WithGroup(cx, func(cx *Context, g *Group) error {
			for name, s := range map[string]Spawner{
				"Local":            Local(cx),
				"Local, named":     Local(cx).Named("x"),
				"Local, under":     Local(cx).Under(ctx),
				"named after":      g.Via(Local(cx)).Named("x"),
				"the worker's":     rt.Workers()[home.index],
				"the worker's too": rt.Workers()[home.index].Under(ctx),
			} {
				if name != "named after" {
					s = g.Via(s)
				}
				moved := false
				hs := []*JoinHandle[None]{}
				for range 8 {
					hs = append(hs, Go(s, func(cx *Context) error {
						for range 5 {
							moved = moved || cx.taskWorker() != home // no other task runs in between
							Yield(cx)
						}
						under := strings.Contains(name, "under") || strings.Contains(name, "too")
						return errors.Join(expect(!moved, "%s: it has left its worker", name),
							expect((cx.Value(underKey("who")) == "me") == under, "%s: the value", name),
							expect(g.len() > 0, "%s: it does not belong to the group", name))
					}))
				}
				for _, h := range hs {
					if _, err := h.Join(cx); err != nil {
						return err
					}
				}
			}
			g.SetLimit(1)
			first := Go(g.Via(Local(cx)), func(cx *Context) error { return Sleep(cx, time.Millisecond) })
			for _, s := range []Spawner{Local(cx), rt.Workers()[1]} { // waits for room
				if _, err := Go(g.Via(s), Yield).Join(cx); err != nil {
					return err
				}
			}
			_, err := first.TryJoin()
			return errors.Join(err, expect(strings.Contains(misuse(func() { g.Via(g) }), "does not belong to a group"), "a group in a group"))
		})
	}))

	// A Spawner that never waits still never waits if other Spawners are made of it.
	require.NoError(t, runTask(rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			g.SetLimit(1)
			stays := Go(g, func(cx *Context) error { return Sleep(cx, time.Hour) })
			defer stays.Cancel()
			for _, s := range []Spawner{g.Try(), g.Try().Under(t.Context()), g.Try().Named("x").Under(t.Context()).Named("y")} {
				if _, err := Go(s, Yield).TryJoin(); err != ErrBusy {
					return expect(false, "%v", err)
				}
			}
			return nil
		})
	}))

	// The failure of such a task is a failure of the group, and the end of the group ends the task.
	err := runTask(rt, func(cx *Context) error {
		return WithGroup(cx, func(cx *Context, g *Group) error {
			Go(g.Via(rt.Workers()[0]), func(cx *Context) error { return Sleep(cx, time.Hour) })
			Go(g.Via(Local(cx)), func(*Context) error { return io.EOF })
			return nil
		})
	})
	require.Equal(t, io.EOF, err)
}
