package async

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type underKey string

// The end of a context cancels the tasks of all kinds that are under it, with its error and its
// cause. The tasks see its values and its deadline.
func TestUnderCancelsWithItsContext(t *testing.T) {
	why := errors.New("why")
	rt := newTestRuntime(t, Config{Workers: 2})
	at := time.Now().Add(time.Hour)
	ctx, cancelDeadline := context.WithDeadline(context.WithValue(context.Background(), underKey("who"), "me"), at)
	defer cancelDeadline()
	ctx, cancel := context.WithCancelCause(ctx)

	s := rt.Named("spawner").Under(ctx)
	var asleep atomic.Int32
	code := func(cx *Context) error {
		derived, stop := context.WithCancel(cx)
		defer stop()
		deadline, ok := cx.Deadline()
		sooner, stopSooner := cx.WithTimeout(time.Minute)
		defer stopSooner()
		later, stopLater := cx.WithTimeout(2 * time.Hour)
		defer stopLater()
		soon, _ := sooner.Deadline()
		late, _ := later.Deadline()
		before := errors.Join(
			expect(ok && deadline.Equal(at), "deadline %v", deadline),
			expect(soon.Before(at) && late.Equal(at), "deadlines within: %v, %v", soon, late),
			expect(cx.Value(underKey("who")) == "me" && later.Value(underKey("who")) == "me", "no value"),
			expect(cx.Value(underKey("whom")) == nil, "a value from nowhere"),
			expect(cx.Task().Name == "spawner", "the name is %q", cx.Task().Name),
			causes(cx, derived, nil, nil))
		asleep.Add(1) // or is about to sleep
		err := Sleep(later, 10*time.Hour)
		return errors.Join(before,
			expect(err == context.Canceled, "Sleep: %v", err),
			causes(cx, derived, context.Canceled, why), causes(later, later, context.Canceled, why),
			expect(cx.Value(underKey("who")) == "me", "the value is gone"))
	}
	straight := Go(s, code)
	p := new(probe)
	future := SpawnFuture(s, p)
	began := make(chan struct{})
	call := SpawnBlocking(s, func() (None, error) {
		close(began)
		<-ctx.Done()
		return None{}, ctx.Err()
	})
	outside := make(chan error, 1)
	go func() {
		_, err := BlockOn(s, func(cx *Context) (None, error) { return None{}, code(cx) })
		outside <- err
	}()
	nested := Go(rt, func(cx *Context) error {
		_, err := Go(cx.Under(ctx).Named("spawner"), code).Join(cx)
		return err
	})
	// A task that a task under the context spawns is under it, too, at any depth.
	grandchild := make(chan *JoinHandle[None], 1)
	Go(s, func(cx *Context) error {
		Go(cx, func(cx *Context) error {
			grandchild <- Go(cx.Named("spawner"), code)
			return nil
		})
		return nil
	})
	descendant := receive(t, grandchild)
	receive(t, began)
	eventually(t, func() bool {
		return asleep.Load() == 4 && waiting(straight) && waiting(future) && waiting(nested) && waiting(descendant) && len(rt.Tasks()) == 7
	})

	cancel(why)
	_, err := join(t, straight)
	require.NoError(t, err)
	_, err = join(t, future)
	require.Equal(t, context.Canceled, err)
	require.EqualValues(t, 1, p.cancels.Load())
	_, err = join(t, call)
	require.Equal(t, context.Canceled, err)
	require.NoError(t, receive(t, outside))
	_, err = join(t, nested)
	require.NoError(t, err)
	_, err = join(t, descendant)
	require.NoError(t, err)

	// No task begins after the end.
	never := func(*Context) error { t.Error("it ran"); return nil }
	q := new(probe)
	for name, h := range map[string]*JoinHandle[None]{
		"straight": Go(s, never),
		"call":     SpawnBlocking(s, func() (None, error) { return None{}, never(nil) }),
	} {
		v, err := h.TryJoin()
		require.Equal(t, context.Canceled, err, "%s: %v", name, v)
		require.Equal(t, why, h.cx.Cause(), name)
		require.NotZero(t, h.Task().ID)
	}
	_, err = SpawnFuture(s, q).TryJoin()
	require.Equal(t, context.Canceled, err)
	require.EqualValues(t, 1, q.cancels.Load())
	_, err = BlockOn(s, func(cx *Context) (None, error) { return None{}, never(cx) })
	require.Equal(t, context.Canceled, err)
}

func TestUnderDeadline(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var ctx context.Context
	began := false
	for d := time.Millisecond; !began; d *= 4 { // the context may end before BlockOn begins
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(context.Background(), d, ErrBusy)
		defer cancel()
		_, err := BlockOn(rt.Under(ctx), func(cx *Context) (None, error) {
			began = true
			err := Sleep(cx, time.Hour)
			return None{}, errors.Join(expect(err == context.DeadlineExceeded, "Sleep: %v", err), causes(cx, cx, context.DeadlineExceeded, ErrBusy))
		})
		if began {
			require.NoError(t, err)
		} else {
			require.Equal(t, context.DeadlineExceeded, err)
		}
	}
	_, err := join(t, SpawnFuture(rt.Under(ctx), NeverFuture[int]()))
	require.Equal(t, context.DeadlineExceeded, err)
	_, err = join(t, Spawn(rt.Under(ctx), func(cx *Context) (int, error) { return 1, nil }))
	require.Equal(t, context.DeadlineExceeded, err)
}

// A task that is under two contexts ends with the first of them that ends. It has the values of
// both; the inner context counts first.
func TestUnderTwoContexts(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for i := range 2 {
		a, cancelA := context.WithCancelCause(context.WithValue(context.WithValue(context.Background(), underKey("1"), "a"), underKey("2"), "a"))
		soon, cancelSoon := context.WithTimeout(context.WithValue(context.Background(), underKey("2"), "b"), time.Minute)
		b, cancelB := context.WithCancelCause(soon)
		s := rt.Under(a).Named("n").Under(b)
		h := Go(s, func(cx *Context) error {
			at, ok := cx.Deadline()
			err := Sleep(cx, time.Hour)
			return errors.Join(
				expect(ok && time.Until(at) < 2*time.Minute, "deadline %v", at),
				expect(err == context.Canceled, "Sleep: %v", err),
				expect(cx.Value(underKey("1")) == "a" && cx.Value(underKey("2")) == "b", "values"),
				causes(cx, cx, context.Canceled, ErrBusy))
		})
		eventually(t, func() bool { return waiting(h) })
		[]context.CancelCauseFunc{cancelA, cancelB}[i](ErrBusy)
		_, err := join(t, h)
		require.NoError(t, err)
		cancelA(nil)
		cancelB(nil)
		cancelSoon()
	}
}

// A task that is under the Context of another task ends with this Context, and with the other task.
func TestUnderContextOfTask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for _, cancel := range []bool{false, true} {
		child := make(chan *JoinHandle[None], 1)
		p := new(probe)
		parent := Go(rt, func(cx *Context) error {
			child <- Go(cx.Under(cx), func(cx *Context) error { return Sleep(cx, time.Hour) })
			_, err := Await(cx, p)
			return err
		})
		h := receive(t, child)
		eventually(t, func() bool { return waiting(h) && waiting(parent) })
		if cancel {
			parent.CancelCause(ErrBusy)
		} else {
			p.resolve(nil)
		}
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
		if cancel {
			require.Equal(t, ErrBusy, h.cx.Cause())
		}
		join(t, parent)
	}
}

// countingContext counts the functions that wait for its end.
type countingContext struct {
	context.Context
	done    chan struct{}
	waiting atomic.Int32
}

func (c *countingContext) Done() <-chan struct{} { return c.done }

func (c *countingContext) AfterFunc(func()) func() bool {
	c.waiting.Add(1)
	var once sync.Once
	return func() bool { once.Do(func() { c.waiting.Add(-1) }); return true }
}

// A context that goes on keeps nothing of the tasks that were under it. It has one AfterFunc for
// all of them.
func TestUnderLeavesNothingBehind(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ctx := &countingContext{Context: context.Background(), done: make(chan struct{})}
	for range 100 {
		s := rt.Under(ctx)
		var hs []*JoinHandle[None]
		for range 10 {
			hs = append(hs, Go(s, Yield))
		}
		// One AfterFunc, and one for each worker that is about to remove an earlier one.
		require.LessOrEqual(t, ctx.waiting.Load(), int32(3))
		for _, h := range hs {
			_, err := join(t, h)
			require.NoError(t, err)
		}
		eventually(t, func() bool { return ctx.waiting.Load() == 0 })
	}
	endless := rt.Under(context.WithValue(context.Background(), underKey("1"), 1)).(*spawnOptions)
	_, err := join(t, Go(endless, func(cx *Context) error { return expect(cx.Value(underKey("1")) == 1, "no value") }))
	require.NoError(t, err)
	require.False(t, endless.group.watching)
}

func TestUnderNil(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	requireMisuse(t, misuse(func() { rt.Under(nil) }), "Under needs a context")
}

// Tasks that are spawned while their context ends are cancelled, whichever happens first.
func TestUnderWhileItEnds(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2, Blocking: BlockingConfig{Limit: 1}})
	for range 100 {
		ctx, cancel := context.WithCancel(context.Background())
		s := rt.Under(ctx)
		go cancel()
		for range 3 {
			for _, h := range []*JoinHandle[None]{
				Go(s, func(cx *Context) error { _, err := Await(cx, NeverFuture[None]()); return err }),
				SpawnFuture(s, NeverFuture[None]()),
				SpawnBlocking(s, func() (None, error) { <-ctx.Done(); return None{}, ctx.Err() }),
			} {
				_, err := join(t, h)
				require.Equal(t, context.Canceled, err)
			}
		}
	}
}

// A call does not begin if its context ends while its spawner waits for room in the queue, even if
// there is room later.
func TestUnderEndsBeforeThereIsRoom(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1, Queue: 1}})
	release := occupy(t, rt, 1)
	queued := SpawnBlocking(rt, func() (int, error) { return 1, nil })
	cancels := make(chan context.CancelFunc, 1)
	h := Go(rt, func(cx *Context) error {
		inner, cancel := cx.WithCancel()
		cancels <- cancel
		_, err := SpawnBlocking(cx.Under(inner), func() (int, error) { t.Error("it ran"); return 2, nil }).Join(cx)
		return err
	})
	eventually(t, func() bool { return h.info(nil).Waits == "blocking call" })
	receive(t, cancels)()
	release()
	_, err := join(t, h)
	require.Equal(t, context.Canceled, err)
	_, err = join(t, queued)
	require.NoError(t, err)
}

// A handler of net/http that serves its requests in tasks.
func TestUnderRequest(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	began, over := make(chan struct{}, 1), make(chan error, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := rt.Under(r.Context())
		_, err := BlockOn(s, func(cx *Context) (None, error) {
			if cx.Value(http.ServerContextKey) == nil {
				return None{}, errors.New("the values of the request are missing")
			}
			h := Go(s, func(cx *Context) error { return Sleep(cx, time.Hour) })
			began <- struct{}{}
			return h.Join(cx.WithoutCancel())
		})
		over <- err
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := make(chan error, 1)
	tr := &http.Transport{DisableKeepAlives: true}
	go func() {
		req, err := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
		if err == nil {
			_, err = tr.RoundTrip(req)
		}
		client <- err
	}()
	receive(t, began)
	cancel()
	require.Equal(t, context.Canceled, receive(t, over))
	require.Error(t, receive(t, client))
}

// Hooks are called for the start and the end of all tasks, also of tasks that have never begun.
func TestHooksOfRefusedTasks(t *testing.T) {
	var mu sync.Mutex
	seen := map[uint64]string{}
	hook := func(what string) func(Task) {
		return func(t Task) { mu.Lock(); defer mu.Unlock(); seen[t.ID] += what }
	}
	rt := newTestRuntime(t, Config{Workers: 1, Tuning: Tuning{Hooks: Hooks{TaskStart: hook("+"), TaskEnd: hook("-")}}})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	hs := []*JoinHandle[None]{
		Go(rt, Yield), Go(rt.Under(ctx), Yield), SpawnFuture(rt.Under(ctx), YieldFuture()),
		SpawnBlocking(rt, func() (None, error) { return None{}, nil }),
		SpawnBlocking(rt.Under(ctx), func() (None, error) { return None{}, nil }),
	}
	for _, h := range hs {
		join(t, h)
	}
	mu.Lock()
	defer mu.Unlock()
	for i, h := range hs {
		require.Equal(t, "+-", seen[h.Task().ID], "task %d", i)
	}
	require.Len(t, seen, len(hs), fmt.Sprint(seen))
}

// A task that is spawned with a derived Context is under it. A task that is spawned with the task's
// own Context is not cancelled with the task.
func TestDerivedContextsReachTheirTasks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	why := errors.New("why")
	ctx := context.WithValue(t.Context(), underKey("who"), "me")
	at := time.Now().Add(time.Hour)

	// of returns a Spawner for tasks, whose Context must have the deadline and the value.
	for name, of := range map[string]func(cx, derived *Context) Spawner{
		"derived":        func(_, derived *Context) Spawner { return derived },
		"named":          func(_, derived *Context) Spawner { return derived.Named("x") },
		"local":          func(_, derived *Context) Spawner { return Local(derived) },
		"under another":  func(_, derived *Context) Spawner { return derived.Under(t.Context()) },
		"derived again":  func(_, derived *Context) Spawner { again, _ := derived.WithCancel(); return again },
		"by a grandtask": nil,
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			began := make(chan *JoinHandle[None], 1)
			stop := make(chan context.CancelCauseFunc, 1)
			sleeper := func(cx *Context) error {
				deadline, ok := cx.Deadline()
				err := errors.Join(expect(ok && deadline.Equal(at), "deadline %v, %v", deadline, ok),
					expect(cx.Value(underKey("who")) == "me", "no value"))
				if err == nil && Sleep(cx, 2*time.Hour) != context.Canceled {
					err = errors.New("it was not cancelled")
				}
				return errors.Join(err, expect(cx.Cause() == why, "the cause is %v", cx.Cause()))
			}
			parent := Go(rt.Under(ctx), func(cx *Context) error {
				timed, cancel := cx.WithDeadline(at)
				defer cancel()
				derived, cancelCause := timed.WithCancelCause()
				stop <- cancelCause
				if of != nil {
					began <- Go(of(cx, derived), sleeper)
				} else {
					Go(derived, func(cx *Context) error {
						began <- Go(cx, sleeper)
						return nil
					})
				}
				return Sleep(cx, 3*time.Hour)
			})
			h := receive(t, began)
			eventually(t, func() bool { return waiting(h) && waiting(parent) })
			receive(t, stop)(why)
			_, err := join(t, h)
			require.NoError(t, err)
			eventually(t, func() bool { return waiting(parent) }, "the task goes on")
			parent.Cancel()
			_, err = join(t, parent)
			require.Equal(t, context.Canceled, err)
		})
	}

	// Tasks that do not end with the task or the derived Context.
	for name, of := range map[string]func(cx, derived *Context) Spawner{
		"its own":       func(cx, _ *Context) Spawner { return cx },
		"WithoutCancel": func(_, derived *Context) Spawner { return derived.WithoutCancel() },
		"the runtime":   func(_, derived *Context) Spawner { return derived.Runtime() },
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			began := make(chan *JoinHandle[None], 1)
			parent := Go(rt.Under(ctx), func(cx *Context) error {
				derived, cancel := cx.WithTimeout(time.Hour)
				defer cancel()
				began <- Go(of(cx, derived), func(cx *Context) error {
					_, ok := cx.Deadline()
					hasValue := cx.Value(underKey("who")) == "me"
					return errors.Join(expect(!ok, "it has a deadline"), expect(hasValue == (name != "the runtime"), "a value: %v", hasValue),
						Sleep(cx, 2*time.Hour))
				})
				return Sleep(derived, 2*time.Hour)
			})
			h := receive(t, began)
			eventually(t, func() bool { return waiting(h) && waiting(parent) })
			parent.Cancel()
			_, err := join(t, parent)
			require.Equal(t, context.Canceled, err)
			require.True(t, waiting(h))
			h.Cancel()
			_, err = join(t, h)
			require.ErrorIs(t, err, context.Canceled)
		})
	}

	// A task that is spawned with a derived Context that has ended does not begin.
	require.NoError(t, runTask(rt, func(cx *Context) error {
		late, cancel := cx.WithTimeout(-1)
		defer cancel()
		_, err := Go(late, func(*Context) error { t.Error("it ran"); return nil }).Join(cx)
		return expect(err == context.DeadlineExceeded, "%v", err)
	}))
}

// A derived Context leaves nothing behind, and nothing is left in it.
func TestDerivedContextLeavesNothingBehind(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		derived, cancel := cx.WithCancel()
		defer cancel()
		for range 10 {
			if _, err := Go(derived, Yield).Join(cx); err != nil {
				return err
			}
		}
		g := &derived.sc.Load().spawned.Load().group
		return errors.Join(expect(len(g.members) == 0 && !g.watching, "%d members, watching %v", len(g.members), g.watching),
			expect(len(derived.sc.Load().after) == 0, "%d functions wait for the end", len(derived.sc.Load().after)))
	}))
}

// The values of WithValue reach the tasks that are spawned with it, and the tasks of these tasks.
// The Context adds no end of its own.
func TestWithValueReachesTasks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const a, b, c = underKey("a"), underKey("b"), underKey("c")
	values := func(cx *Context) string { return fmt.Sprint(cx.Value(a), " ", cx.Value(b), " ", cx.Value(c)) }
	ctx := context.WithValue(context.WithValue(t.Context(), a, "outer"), c, "outer")
	began := make(chan *JoinHandle[None], 8)
	sleeps := func(want string) func(cx *Context) error {
		return func(cx *Context) error {
			return errors.Join(expect(values(cx) == want, "%s, and not %s", values(cx), want), Sleep(cx, time.Hour))
		}
	}
	parent := Go(rt.Under(ctx), func(cx *Context) error {
		valued := cx.WithValue(a, 1).WithValue(b, 2)
		timed, cancel := valued.WithTimeout(time.Hour)
		defer cancel()
		began <- Go(valued, sleeps("1 2 outer"))
		began <- Go(valued.WithValue(b, 3).Named("x"), sleeps("1 3 outer"))
		began <- Go(timed.WithoutCancel(), sleeps("1 2 outer"))
		began <- Go(valued, func(cx *Context) error {
			_, err := Go(cx, sleeps("1 2 outer")).Join(cx)
			return err
		})
		began <- Go(timed.WithValue(c, 4), sleeps("1 2 4"))
		if v, err := Await(timed, SpawnBlocking(timed, func() (any, error) { return timed.Value(a), nil })); v != 1 || err != nil {
			return expect(false, "SpawnBlocking: %v, %v", v, err)
		}
		deadline, ok := timed.WithValue(c, 4).Deadline()
		outer, _ := timed.Deadline()
		return errors.Join(expect(values(timed) == "1 2 outer", "%s", values(timed)), expect(ok && deadline.Equal(outer), "no deadline"),
			expect(values(cx) == "outer <nil> outer", "%s", values(cx)),
			expect(strings.Contains(misuse(func() { cx.WithValue(nil, 1) }), "nil key"), "a nil key"))
	})
	_, err := join(t, parent)
	require.NoError(t, err)
	for i := range 5 {
		h := receive(t, began)
		if i == 4 { // this task was spawned with a Context that has ended with its task
			_, err := join(t, h)
			require.ErrorIs(t, err, context.Canceled)
			continue
		}
		eventually(t, func() bool { return waiting(h) })
		h.Cancel()
		_, err := join(t, h)
		require.ErrorIs(t, err, context.Canceled)
	}
}

// A Context of WithValue has no end of its own. Code that watches it watches the Context from which
// it was derived, and leaves nothing there.
func TestWithValueLeavesNothingBehind(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		derived, cancelDerived := cx.WithCancel()
		for i := range 10 {
			_, cancel := context.WithCancel(derived.WithValue(underKey("n"), i))
			cancel()
		}
		left := len(derived.sc.Load().after)
		watched, cancel := context.WithCancel(derived.WithValue(underKey("n"), 0).WithValue(underKey("m"), 1))
		defer cancel()
		cancelDerived()
		<-watched.Done() // another goroutine ends it
		return errors.Join(expect(left == 0, "%d functions wait for the end", left), expect(watched.Err() == context.Canceled, "%v", watched.Err()))
	}))
}

// A task that spawns its successor keeps nothing of the tasks before it.
func TestRespawnMakesNoChain(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for name, s := range map[string]Spawner{"no values": rt, "values": rt.Under(context.WithValue(context.Background(), underKey("a"), 1))} {
		depth := make(chan int, 1)
		var again func(n int) func(cx *Context) error
		again = func(n int) func(cx *Context) error {
			return func(cx *Context) error {
				if n > 0 {
					Go(cx.WithoutCancel(), again(n-1))
					return nil
				}
				d := 0
				for c := cx.t.cancelGroup(); c != nil; c = c.outer {
					for v, ok := c.ctx.(cancelGroupValues); ok && v.group != nil; v, ok = v.group.ctx.(cancelGroupValues) {
						d++
					}
					d++
				}
				depth <- d
				return nil
			}
		}
		Go(s, again(100))
		require.LessOrEqual(t, receive(t, depth), 3, name)
	}
}
