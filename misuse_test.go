package async

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// misuse returns the text with which fn panics, or "" if fn does not panic.
func misuse(fn func()) (text string) {
	defer func() {
		if v := recover(); v != nil {
			text = fmt.Sprint(v)
		}
	}()
	fn()
	return ""
}

// requireMisuse checks a text that explains a mistake to a user of the package.
func requireMisuse(t testing.TB, text string, parts ...string) {
	t.Helper()
	require.NotEmpty(t, text, "there was no panic")
	require.True(t, strings.HasPrefix(text, "async: "), text)
	for _, part := range parts {
		require.Contains(t, text, part)
	}
}

// requireTaskMisuse checks the error of a task that has panicked with such a text.
func requireTaskMisuse(t testing.TB, err error, parts ...string) {
	t.Helper()
	var p *PanicError
	require.ErrorAs(t, err, &p)
	requireMisuse(t, fmt.Sprint(p.Value), parts...)
}

const (
	afterTheEnd   = "used after its task had ended"
	outsidePoll   = "used outside the Poll"
	foreignThread = "on a goroutine that is not its own"
	withoutWaker  = "returned ErrPending without taking cx.Waker()"
	asResult      = "returned ErrPending as its result"
	wouldBlock    = "was called in a task and would block its worker"
)

func TestMisuseAwaitInPlainFuture(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	awaits := map[string]func(cx *Context) error{
		"Await": func(cx *Context) error { _, err := Await(cx, ReadyFuture(1)); return err },
		"Sleep": func(cx *Context) error { return Sleep(cx, 0) },
		"Yield": Yield,
		"JoinHandle.Await": func(cx *Context) error {
			_, err := SpawnFuture(cx, ReadyFuture(1)).Join(cx)
			return err
		},
	}
	for name, await := range awaits {
		t.Run(name, func(t *testing.T) {
			_, err := join(t, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) { return None{}, await(cx) })))
			requireTaskMisuse(t, err, "a plain future cannot wait", "async.Go")
			cx, _ := newPollCx(t, rt)
			requireMisuse(t, misuse(func() { await(cx) }), "a plain future cannot wait")
		})
	}
}

// uses are the ways to use a Context that only its own code has.
var uses = map[string]func(cx *Context){
	"Sleep":       func(cx *Context) { Sleep(cx, time.Hour) },
	"Yield":       func(cx *Context) { Yield(cx) },
	"Await":       func(cx *Context) { Await(cx, ReadyFuture(1)) },
	"Go":          func(cx *Context) { Go(cx, func(*Context) error { return nil }) },
	"SpawnFuture": func(cx *Context) { SpawnFuture(cx, ReadyFuture(1)) },
	"Waker":       func(cx *Context) { cx.Waker() },
	"WithCancel":  func(cx *Context) { cx.WithCancel() },
	"WithTimeout": func(cx *Context) { cx.WithTimeout(time.Hour) },
	"Poll":        func(cx *Context) { SleepFuture(time.Hour).Poll(cx) },
	"derived":     func(cx *Context) { NeverFuture[int]().Poll(&Context{t: cx.t}) },
}

func TestMisuseContextAfterItsTask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var cx, pollCx, blockCx *Context
	runInTask(t, rt, func(own *Context) error { cx = own; return nil })
	_, err := join(t, SpawnFuture(rt, PollFunc(func(own *Context) (None, error) { pollCx = own; return None{}, nil })))
	require.NoError(t, err)
	_, err = BlockOn(rt, func(own *Context) (None, error) { blockCx = own; return None{}, nil })
	require.NoError(t, err)
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			for _, cx := range []*Context{cx, pollCx, blockCx} {
				requireMisuse(t, misuse(func() { use(cx) }), afterTheEnd)
				// The next task gets the coroutine of the task before.
				_, err := join(t, Go(rt, func(*Context) error { use(cx); return nil }))
				requireTaskMisuse(t, err, afterTheEnd)
				_, err = join(t, SpawnFuture(rt, PollFunc(func(*Context) (None, error) { use(cx); return None{}, nil })))
				requireTaskMisuse(t, err, afterTheEnd)
			}
		})
	}
}

func TestMisuseContextOnOtherGoroutine(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	// on calls use on another goroutine and returns the text of its panic.
	on := func(use func(*Context), cx *Context) <-chan string {
		text := make(chan string, 1)
		go func() { text <- misuse(func() { use(cx) }) }()
		return text
	}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			t.Run("while the task runs", func(t *testing.T) {
				runInTask(t, rt, func(cx *Context) error {
					text := <-on(use, cx)
					return errors.Join(expect(strings.Contains(text, foreignThread), "%q", text), Yield(cx))
				})
			})
			t.Run("while the task is suspended and resumed", func(t *testing.T) {
				var text <-chan string
				runInTask(t, rt, func(cx *Context) error {
					text = on(use, cx)
					for len(text) == 0 {
						if err := Yield(cx); err != nil {
							return err
						}
					}
					return nil
				})
				requireMisuse(t, receive(t, text), foreignThread)
			})
			t.Run("of BlockOn", func(t *testing.T) {
				_, err := BlockOn(rt, func(cx *Context) (None, error) {
					text := on(use, cx)
					for len(text) == 0 {
						if err := Yield(cx); err != nil {
							return None{}, err
						}
					}
					got := <-text
					return None{}, expect(strings.Contains(got, foreignThread), "%q", got)
				})
				require.NoError(t, err)
			})
			t.Run("in another task", func(t *testing.T) {
				for i := range 2 {
					runInTask(t, aimAt(rt, 0), func(cx *Context) error {
						h := Go(aimAt(rt, i), func(*Context) error { use(cx); return nil })
						_, err := h.Join(cx)
						return expect(err != nil && strings.Contains(err.Error(), foreignThread), "%v", err)
					})
				}
			})
		})
	}
}

func TestMisuseContextOutsidePoll(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			contexts := make(chan *Context, 1)
			polls := 0
			wakers := make(chan Waker, 1)
			text := make(chan string, 2)
			h := SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
				if polls++; polls == 1 {
					contexts <- cx
					wakers <- cx.Waker()
					return None{}, ErrPending
				}
				return None{}, nil
			}))
			cx, waker := receive(t, contexts), receive(t, wakers)
			eventually(t, func() bool { return waiting(h) })
			text <- misuse(func() { use(cx) })
			_, err := join(t, SpawnFuture(rt, PollFunc(func(*Context) (None, error) { use(cx); return None{}, nil })))
			requireTaskMisuse(t, err, outsidePoll)
			_, err = join(t, Go(rt, func(*Context) error { use(cx); return nil }))
			requireTaskMisuse(t, err, outsidePoll)
			requireMisuse(t, <-text, outsidePoll)
			waker.Wake()
			_, err = join(t, h)
			require.NoError(t, err)
		})
	}
	t.Run("in a goroutine that a Poll has started", func(t *testing.T) {
		text := make(chan string, 1)
		started := false
		_, err := join(t, SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
			if !started {
				started = true
				go func() { text <- misuse(func() { cx.Waker() }) }()
			}
			if len(text) > 0 {
				return None{}, nil
			}
			return YieldFuture().Poll(cx)
		})))
		require.NoError(t, err)
		requireMisuse(t, receive(t, text), outsidePoll)
	})
}

func TestMisuseContextInAnIterator(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	_, err := join(t, Go(rt, func(cx *Context) error {
		next, stop := iter.Pull(func(yield func(int) bool) {
			Sleep(cx, time.Hour)
			yield(1)
		})
		defer stop()
		next()
		return nil
	}))
	requireTaskMisuse(t, err, foreignThread)

	// An iterator whose code does not use cx may be pulled between awaits.
	runInTask(t, rt, func(cx *Context) error {
		next, stop := iter.Pull(func(yield func(int) bool) {
			for i := range 10 {
				if !yield(i) {
					return
				}
			}
		})
		defer stop()
		for i := range 10 {
			if err := Yield(cx); err != nil {
				return err
			}
			if got, ok := next(); !ok || got != i {
				return fmt.Errorf("got %d, %v instead of %d", got, ok, i)
			}
		}
		return nil
	})
}

func TestMisusePendingWithoutWaker(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	hangs := PollFunc(func(*Context) (None, error) { return None{}, ErrPending })
	_, err := join(t, SpawnFuture(rt, hangs))
	requireTaskMisuse(t, err, withoutWaker)
	await := func(cx *Context) error {
		if err := Yield(cx); err != nil { // it takes the waker, for an await that is over
			return err
		}
		_, err := Await(cx, hangs)
		return err
	}
	_, err = join(t, Go(rt, await))
	requireTaskMisuse(t, err, withoutWaker)
	requireMisuse(t, misuse(func() {
		BlockOn(rt, func(cx *Context) (None, error) { return None{}, await(cx) })
	}), withoutWaker)
	_, err = join(t, Go(rt, func(cx *Context) error {
		_, err := Await(cx, TimeoutFuture(NeverFuture[int](), time.Microsecond))
		return err
	}))
	require.Equal(t, context.DeadlineExceeded, err)
}

func TestMisusePendingAsResult(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	wrapped := fmt.Errorf("read: %w", ErrPending)
	for _, pending := range []error{ErrPending, wrapped, errors.Join(errors.New("also"), ErrPending)} {
		_, err := join(t, Go(rt, func(*Context) error { return pending }))
		requireTaskMisuse(t, err, asResult, "Await(cx, f)")
		require.NotErrorIs(t, err, ErrPending)
		_, err = BlockOn(rt, func(*Context) (None, error) { return None{}, pending })
		requireTaskMisuse(t, err, asResult)
		if pending != ErrPending {
			_, err = join(t, SpawnFuture(rt, PollFunc(func(*Context) (None, error) { return None{}, pending })))
			requireTaskMisuse(t, err, asResult, "not wrapped")
		}
	}
	// The usual form of the mistake.
	_, err := join(t, Go(rt, func(cx *Context) error { _, err := SleepFuture(time.Hour).Poll(cx); return err }))
	requireTaskMisuse(t, err, asResult)
}

func TestMisuseBlockingInATask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	other := newTestRuntime(t, Config{Workers: 1})
	h := SpawnFuture(rt, ReadyFuture(1))
	join(t, h)
	var ran atomic.Bool // a function that cannot be waited for does not begin
	for name, block := range map[string]func(){
		"Run":                     func() { Run(func(*Context) error { ran.Store(true); return nil }) },
		"BlockOn":                 func() { BlockOn(rt, func(*Context) (int, error) { return 1, nil }) },
		"JoinHandle.JoinBlocking": func() { h.JoinBlocking(context.Background()) },
		"Runtime.Shutdown":        func() { rt.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, rt := range []*Runtime{rt, other} {
				_, err := join(t, Go(rt, func(*Context) error { block(); return nil }))
				requireTaskMisuse(t, err, name, wouldBlock, "use ")
				_, err = join(t, SpawnFuture(rt, PollFunc(func(*Context) (None, error) { block(); return None{}, nil })))
				requireTaskMisuse(t, err, name, wouldBlock)
			}
		})
	}
	runInTask(t, rt, func(*Context) error { return nil })
	require.False(t, ran.Load())
}

func TestMisuseFailed(t *testing.T) {
	requireMisuse(t, misuse(func() { FailedFuture[int](nil) }), "FailedFuture needs an error")
	requireMisuse(t, misuse(func() { FailedFuture[int](ErrPending) }), "FailedFuture needs an error")
}

func TestConfigIsChecked(t *testing.T) {
	for _, n := range []int{-1, -1 << 31, maxWorkers + 1, 10_000} {
		rt, err := New(Config{Workers: n})
		require.Nil(t, rt)
		require.ErrorContains(t, err, fmt.Sprintf("async: Config.Workers is %d", n))
	}
}

func TestThreadsVariable(t *testing.T) {
	for _, text := range []string{"0", "-1", "x", "1.5", " 2", "65536", "4097", "99999999999999999999"} {
		_, err := defaultWorkers(text)
		require.ErrorContains(t, err, fmt.Sprintf("ASYNC_THREADS is %q", text))
	}
	n, err := defaultWorkers("")
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = defaultWorkers("3")
	require.NoError(t, err)
	require.Equal(t, 3, n)
}

func TestThreadsVariableInvalid(t *testing.T) {
	if inChild(t) {
		for range 2 {
			text := misuse(func() { Run(func(*Context) error { return nil }) })
			fmt.Printf("panic: %s\n", text)
		}
		return
	}
	out, err := child(t, "ASYNC_THREADS=many").CombinedOutput()
	require.NoError(t, err, string(out))
	want := "panic: async: the default runtime cannot be started: ASYNC_THREADS is \"many\"; it must be a number from 1 to 4096\n"
	require.Equal(t, 2, strings.Count(string(out), want), string(out))
}

// No use of a Context in the wrong place makes the Go runtime end the program. If it did, it would
// end the program of the test, so a child process makes the mistakes.
func TestMisuseNeverReachesTheGoRuntime(t *testing.T) {
	if inChild(t) {
		misuseEverything(t)
		fmt.Println("survived")
		return
	}
	cmd := child(t)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	require.NotContains(t, out.String(), "fatal error")
	require.NotContains(t, out.String(), "coro")
	require.NoError(t, err, out.String())
	require.Contains(t, out.String(), "survived\n")
}

func misuseEverything(t *testing.T) {
	rt, err := New(Config{Workers: 2, Grace: patience, Unhandled: func(Task, error) {}})
	if err != nil {
		panic(err)
	}
	for name, use := range uses {
		fmt.Fprintln(os.Stderr, "now:", name)
		var cx *Context
		p := new(probe)
		derived := make(chan *Context, 1)
		victim := Go(aimAt(rt, 0), func(own *Context) error {
			cx = own
			child, cancel := own.WithTimeout(time.Hour)
			defer cancel()
			derived <- child
			_, err := Await(child, p)
			return err
		})
		for _, cx := range []*Context{receive(t, derived), cx} {
			eventually(t, func() bool { return waiting(victim) })
			texts := make(chan string, 3)
			go func() { texts <- misuse(func() { use(cx) }) }()
			receive(t, texts)
			for i := range 2 {
				join(t, Go(aimAt(rt, i), func(*Context) error { use(cx); return nil }))
				join(t, SpawnFuture(aimAt(rt, i), PollFunc(func(*Context) (None, error) { use(cx); return None{}, nil })))
			}
			misuse(func() {
				BlockOn(rt, func(*Context) (None, error) { use(cx); return None{}, nil })
			})
			misuse(func() {
				for range seqThatUses(cx, use) {
				}
			})
		}
		p.resolve(nil)
		if _, err := join(t, victim); err != nil {
			panic(err)
		}
		for i := range 2 {
			join(t, Go(aimAt(rt, i), func(*Context) error { use(cx); return nil }))
		}
	}
	if err := rt.Shutdown(ended()); err != nil {
		panic(err)
	}
}

// seqThatUses is an iterator, on a coroutine of its own, that uses cx there.
func seqThatUses(cx *Context, use func(*Context)) iter.Seq[int] {
	return func(yield func(int) bool) {
		next, stop := iter.Pull(func(yield func(int) bool) {
			use(cx)
			yield(1)
		})
		defer stop()
		if v, ok := next(); ok {
			yield(v)
		}
	}
}

func TestMisuseShutdownInsideBlockOn(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	_, err := BlockOn(rt, func(*Context) (None, error) {
		require.PanicsWithValue(t, "async: Runtime.Shutdown was called in a function that BlockOn runs on the runtime, "+
			"and would wait for it; call it after BlockOn", func() { rt.Shutdown(ended()) })
		return None{}, nil
	})
	require.NoError(t, err)
}

func TestMisuseShutdownInsideABlockingCall(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	other := newTestRuntime(t, Config{Workers: 1})
	_, err := join(t, SpawnBlocking(rt, func() (None, error) {
		if err := other.Shutdown(ended()); err != nil {
			return None{}, err
		}
		return None{}, rt.Shutdown(ended())
	}))
	requireTaskMisuse(t, err, "Runtime.Shutdown was called in a call of SpawnBlocking on the runtime, and would wait for it; ")
	over := make(chan error, 1)
	_, err = join(t, SpawnBlocking(rt, func() (None, error) {
		go func() { over <- rt.Shutdown(context.Background()) }() // as it says
		return None{}, expect(within(patience, rt.draining.Load), "Shutdown has not begun")
	}))
	require.NoError(t, err)
	require.NoError(t, receive(t, over))
}
