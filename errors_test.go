package async

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The error of a panic names the task and the line, for every kind of task and every way to get the
// error.
func TestPanicErrorSaysWhere(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: func(Task, error) {}})
	s := rt.Named("culprit")
	var empty map[string]int
	inTask := func(f func()) func(t *testing.T) (Task, error) {
		return func(t *testing.T) (Task, error) {
			h := Go(s, func(*Context) error { f(); return nil })
			_, err := join(t, h)
			return Task{h.Task().ID, "culprit"}, err
		}
	}
	var line string
	for name, c := range map[string]struct {
		run      func(t *testing.T) (Task, error)
		function string
		value    string
	}{
		"straight":                 {inTask(func() { line = lineAfter(0); panic("oh") }), "", "oh"},
		"in a function of its own": {inTask(func() { line = "(task_test.go:"; panicsHere("oh") }), "panicsHere", "oh"},
		"of the runtime of Go":     {inTask(func() { line = lineAfter(0); empty["a"] = 1 }), "", "nil map"},
		"by a signal":              {inTask(func() { line = lineAfter(0); _ = *(*int)(nil) }), "", "nil pointer"},
		"of the standard library":  {inTask(func() { line = lineAfter(0); strings.Repeat("x", -1) }), "", "negative Repeat count"},
		"of this package": {inTask(func() {
			var mu Mutex
			line = lineAfter(1)
			mu.Unlock()
		}), "", "async: "},
		"after a wait": {func(t *testing.T) (Task, error) {
			h := Go(s, func(cx *Context) error {
				Yield(cx)
				line = lineAfter(1)
				panic("oh")
			})
			_, err := join(t, h)
			return Task{h.Task().ID, "culprit"}, err
		}, "", "oh"},
		"in a deferred call": {inTask(func() {
			defer func() { line = lineAfter(0); panic("second") }()
			panic("first")
		}), "", "second"},
		"future": {func(t *testing.T) (Task, error) {
			h := SpawnFuture(s, PollFunc(func(*Context) (None, error) { line = lineAfter(0); panic("oh") }))
			_, err := join(t, h)
			return Task{h.Task().ID, "culprit"}, err
		}, "", "oh"},
		"future that is given up": {func(t *testing.T) (Task, error) {
			h := SpawnFuture(s, &cancelFunc{
				poll:   func(cx *Context) (None, error) { cx.Waker(); return None{}, ErrPending },
				cancel: func() { line = lineAfter(0); panic("oh") },
			})
			eventually(t, func() bool { return waiting(h) })
			h.Cancel()
			_, err := join(t, h)
			return Task{h.Task().ID, "culprit"}, err
		}, "", "oh"},
		"blocking call": {func(t *testing.T) (Task, error) {
			h := SpawnBlocking(s, func() (None, error) { line = lineAfter(0); panic("oh") })
			_, err := join(t, h)
			return Task{h.Task().ID, "culprit"}, err
		}, "", "oh"},
		"under a context": {func(t *testing.T) (Task, error) {
			h := Go(s.Under(t.Context()), func(*Context) error { line = lineAfter(0); panic("oh") })
			_, err := join(t, h)
			return Task{h.Task().ID, "culprit"}, err
		}, "", "oh"},
		"of a group": {func(t *testing.T) (who Task, _ error) {
			_, err := join(t, Go(rt, func(cx *Context) error {
				return WithGroup(cx, func(cx *Context, g *Group) error {
					Go(g.Named("culprit"), func(cx *Context) error { who = cx.Task(); line = lineAfter(0); panic("oh") })
					return Sleep(cx, time.Hour)
				})
			}))
			return who, err
		}, "", "oh"},
		"of a set": {func(t *testing.T) (who Task, err error) {
			inTask := func(cx *Context) error {
				var set JoinSet[None]
				set.Add(Go(cx.Named("culprit"), func(cx *Context) error { who = cx.Task(); line = lineAfter(0); panic("oh") }))
				h, _ := set.Next(cx)
				_, err = h.TryJoin()
				return nil
			}
			join(t, Go(rt, inTask))
			return who, err
		}, "", "oh"},
		"nobody's": {func(t *testing.T) (who Task, err error) {
			reported := make(chan error, 1)
			rt, newErr := New(Config{Workers: 1, Unhandled: func(t Task, err error) { who = t; reported <- err }})
			require.NoError(t, newErr)
			h := Go(rt.Named("culprit"), func(*Context) error { line = lineAfter(0); panic("oh") })
			eventually(t, h.state.done)
			require.NoError(t, rt.Shutdown(context.Background()))
			runtime.KeepAlive(h)
			return who, receive(t, reported)
		}, "", "oh"},
	} {
		t.Run(name, func(t *testing.T) {
			who, err := c.run(t)
			var p *PanicError
			require.ErrorAs(t, err, &p)
			require.Equal(t, "culprit", who.Name)
			if c.function == "" {
				c.function = "TestPanicErrorSaysWhere.func"
			}
			require.Contains(t, p.Error(), fmt.Sprintf("async: task %v panicked at %s.%s", who, packagePath, c.function))
			require.Contains(t, p.Error(), line)
			require.Contains(t, p.Error(), c.value)
			require.NotContains(t, p.Error(), "\n")
		})
	}
}

// The error names no line if no code has panicked.
func TestPanicErrorWithoutPlace(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	h := Go(rt.Named("culprit"), func(*Context) error { return ErrPending })
	_, err := join(t, h)
	require.ErrorContains(t, err, fmt.Sprintf("async: task %d (culprit) panicked: async: a task returned ErrPending", h.Task().ID))
	require.Equal(t, "async: task panicked: oh", (&PanicError{Value: "oh"}).Error())
}

// %+v prints the stack, and no other format does.
func TestPanicErrorFormat(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	_, err := join(t, Go(rt, func(*Context) error { panicsHere("oh"); return nil }))
	var p *PanicError
	require.ErrorAs(t, err, &p)
	line := err.Error()
	require.Equal(t, line, fmt.Sprint(err))
	require.Equal(t, line, fmt.Sprintf("%v", err))
	require.Equal(t, line, fmt.Sprintf("%s", err))
	require.Equal(t, fmt.Sprintf("%q", line), fmt.Sprintf("%q", err))
	require.Equal(t, fmt.Sprintf("%300s|%-300s|%.10s", line, line, line), fmt.Sprintf("%300s|%-300s|%.10s", err, err, err))
	require.Equal(t, "wrapped: "+line, fmt.Errorf("wrapped: %w", err).Error())
	require.Contains(t, fmt.Sprintf("%#v", err), `Value:"oh"`)
	require.Equal(t, line+"\n\n"+string(p.Stack), fmt.Sprintf("%+v", err))
	require.Contains(t, string(p.Stack), "panicsHere")
}

// The user's frame is the innermost frame outside this package and the standard library. Tests of
// the package count as the user's code.
func TestUserFrame(t *testing.T) {
	var pcs [64]uintptr
	capture := func() string { return userFrame(pcs[:runtime.Callers(1, pcs[:])]) }
	var got string
	here := lineAfter(1)
	strings.Map(func(rune) rune { got = func() string { return capture() }(); return -1 }, "x")
	require.Contains(t, got, "TestUserFrame.func")
	_, file, _, _ := runtime.Caller(0)
	require.Contains(t, got, filepath.Base(file))
	require.NotEmpty(t, here)

	fromStd := make(chan string, 1)
	stop := context.AfterFunc(t.Context(), func() {})
	stop()
	require.Empty(t, userFrame(nil))
	timer := time.AfterFunc(0, func() { fromStd <- capture() })
	defer timer.Stop()
	require.Contains(t, receive(t, fromStd), "TestUserFrame.func")
	require.True(t, isStandard(runtime.Frame{Function: "strings.Map", File: standardFiles + "strings/strings.go"}))
	require.False(t, isStandard(runtime.Frame{Function: packagePath + ".New", File: file}))
}

// A hook that panics or calls Goexit ends the program, with a message that names the place.
func TestHooksMustReturn(t *testing.T) {
	armed := func(ending func()) func(Task) {
		return func(t Task) {
			if t.Name == "armed" {
				ending()
			}
		}
	}
	for name, ending := range map[string]func(){"panics": func() { panicsHere("at the disco") }, "exits": runtime.Goexit} {
		for hook, hooks := range map[string]Hooks{
			"WorkerStart": {WorkerStart: func(int) { ending() }},
			"WorkerStop":  {WorkerStop: func(int) { ending() }},
			"TaskStart":   {TaskStart: armed(ending)},
			"TaskEnd":     {TaskEnd: armed(ending)},
			"BeforePoll":  {BeforePoll: armed(ending)},
			"AfterPoll":   {AfterPoll: armed(ending)},
		} {
			t.Run(hook+" "+name, func(t *testing.T) {
				if inChild(t) {
					over := make(chan None)
					go func() { // which a hook may end
						defer close(over)
						defer func() { recover() }()
						rt, err := New(Config{Workers: 1, Grace: time.Second, Tuning: Tuning{Hooks: hooks}})
						require.NoError(t, err)
						ctx, cancel := context.WithTimeout(context.Background(), patience)
						defer cancel()
						defer rt.Shutdown(ended())
						Go(rt.Named("armed"), func(*Context) error { return nil }).JoinBlocking(ctx)
					}()
					<-over
					fmt.Println("survived")
					return
				}
				out, err := child(t).CombinedOutput()
				require.Error(t, err, string(out))
				require.NotContains(t, string(out), "survived")
				require.Contains(t, string(out), "panic: async: the hook "+hook+" must return: ")
				require.Contains(t, string(out), map[string]string{"panics": "errors_test.go:", "exits": "it called runtime.Goexit"}[name])
			})
		}
	}
}
