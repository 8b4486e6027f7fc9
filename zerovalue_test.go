package async

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The zero value of a type with a descriptor has no descriptor, and behaves like a closed value:
// every method returns, and no method uses descriptor 0, the standard input.
func TestZeroValuesHaveNoDescriptor(t *testing.T) {
	var before, after unix.Stat_t
	require.NoError(t, unix.Fstat(0, &before))
	rt := newTestRuntime(t, Config{Workers: 2})
	for _, zero := range []any{
		new(TCPConn), new(TCPListener), new(UDPConn), new(UnixConn), new(UnixDatagram), new(UnixListener),
		new(Source), new(File), new(Poller), new(SignalStream),
	} {
		typ := reflect.TypeOf(zero)
		failed := 0
		for i := range typ.NumMethod() {
			m := typ.Method(i)
			if m.Name == "WriteBuffers" || m.Name == "PollWriteBuffers" || m.Name == "ReadBuffers" || m.Name == "PollReadBuffers" {
				continue // these methods dereference the pointer to the buffers, which is nil here
			}
			recv := reflect.New(typ.Elem())
			out := make(chan []reflect.Value, 1)
			call := func(cx *Context) {
				// SignalStream.Next waits for a signal that never arrives.
				ctx, cancel := cx.WithTimeout(50 * time.Millisecond)
				defer cancel()
				out <- m.Func.Call(argumentsOf(m.Type, recv, ctx))
			}
			_, err := join(t, Go(rt, func(cx *Context) error {
				call(cx)
				return nil
			}))
			require.NoError(t, err, "%v.%s", typ, m.Name)
			for _, v := range receive(t, out) {
				if err, ok := v.Interface().(error); ok && err != nil {
					failed++
				}
			}
		}
		require.Positive(t, failed, typ)
	}
	require.NoError(t, unix.Fstat(0, &after))
	require.Equal(t, fmt.Sprint(before.Dev, before.Ino), fmt.Sprint(after.Dev, after.Ino))
}

// argumentsOf returns arguments for a call of a method: zero values, except for contexts, memory
// and functions.
func argumentsOf(method reflect.Type, recv reflect.Value, cx *Context) []reflect.Value {
	args := []reflect.Value{recv}
	for i := 1; i < method.NumIn(); i++ {
		switch in := method.In(i); {
		case method.IsVariadic() && i == method.NumIn()-1:
		case in == reflect.TypeFor[*Context]():
			args = append(args, reflect.ValueOf(cx))
		case in == reflect.TypeFor[Spawner]():
			args = append(args, reflect.ValueOf(Spawner(cx)))
		case in == reflect.TypeFor[context.Context]():
			args = append(args, reflect.ValueOf(context.Context(cx)))
		case in == reflect.TypeFor[[]byte]():
			args = append(args, reflect.ValueOf(make([]byte, 8)))
		case in == reflect.TypeFor[[]PollEvent]():
			args = append(args, reflect.ValueOf(make([]PollEvent, 1)))
		case in == reflect.TypeFor[io.Writer](), in == reflect.TypeFor[io.Reader]():
			args = append(args, reflect.ValueOf(new(nopReadWriter)))
		case in.Kind() == reflect.Func:
			args = append(args, reflect.MakeFunc(in, func([]reflect.Value) (zeros []reflect.Value) {
				for j := range in.NumOut() {
					zeros = append(zeros, reflect.Zero(in.Out(j)))
				}
				return zeros
			}))
		default:
			args = append(args, reflect.Zero(in))
		}
	}
	return args
}

type nopReadWriter struct{}

func (*nopReadWriter) Read([]byte) (int, error)    { return 0, io.EOF }
func (*nopReadWriter) Write(p []byte) (int, error) { return len(p), nil }

// The zero value of a type that only a function can make panics with a text that names the
// function. Without such a panic its methods would hang, or fail with a nil pointer.
func TestZeroValuesThatMustBeMade(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for name, use := range map[string]func(cx *Context){
		"Barrier.Wait":         func(cx *Context) { new(Barrier).Wait(cx) },
		"Barrier.WaitFuture":   func(cx *Context) { new(Barrier).WaitFuture() },
		"Broadcast.Send":       func(cx *Context) { new(Broadcast[int]).Send(1) },
		"Broadcast.Subscribe":  func(cx *Context) { new(Broadcast[int]).Subscribe() },
		"Go with a Group":      func(cx *Context) { Go(new(Group), func(*Context) error { return nil }) },
		"SpawnFuture with one": func(cx *Context) { SpawnFuture(new(Group), ReadyFuture(1)) },
		"SpawnBlocking":        func(cx *Context) { SpawnBlocking(new(Group), func() (int, error) { return 0, nil }) },
		"Group.Named":          func(cx *Context) { Go(new(Group).Named("x"), func(*Context) error { return nil }) },
		"Group.Under":          func(cx *Context) { Go(new(Group).Under(cx), func(*Context) error { return nil }) },
		"Group.Try":            func(cx *Context) { Go(new(Group).Try(), func(*Context) error { return nil }) },
		"Group.Cancel":         func(cx *Context) { new(Group).Cancel() },
		"Group.CancelCause":    func(cx *Context) { new(Group).CancelCause(io.EOF) },
		"Group.Wait":           func(cx *Context) { new(Group).Wait(cx) },
		"Group.SetLimit":       func(cx *Context) { new(Group).SetLimit(1) },
		"Group.KeepGoing":      func(cx *Context) { new(Group).KeepGoing() },
		"Group.Via":            func(cx *Context) { new(Group).Via(cx) },
		"IncomingStream.All":   func(cx *Context) { new(IncomingStream).All(cx)(func(Conn, error) bool { return false }) },
	} {
		_, err := join(t, Go(rt, func(cx *Context) error {
			text := misuse(func() { use(cx) })
			expect(text != "", "%s: there was no panic", name)
			panic(text)
		}))
		requireTaskMisuse(t, err, "that was not made by")
	}
	require.Contains(t, misuse(func() { new(Barrier).WaitBlocking(t.Context()) }), "that was not made by")
}

// zeroValues returns the zero values of the types that a program may declare, except the types of
// TestZeroValuesHaveNoDescriptor. Only functions make handles, cases of Select, futures, Contexts,
// Runtimes and so on.
func zeroValues() []any {
	return []any{
		new(Barrier), new(Broadcast[int]), new(Chan[int]), new(Cond), new(CopyError), new(Dialer), new(Group), new(Histogram),
		new(IncomingStream), new(JoinSet[int]), new(LaggedError), new(ListenConfig), new(Mutex), new(Notify), new(Once[int]),
		new(Oneshot[int]), new(PanicError), new(RWMutex), new(Resolver), new(Semaphore), new(Server), new(ShutdownError),
		new(Stall), new(Subscription[int]), new(Task), new(TaskInfo), new(TaskLocal[int]), new(UnwrittenError), new(WaitGroup),
		new(Waker), new(Watch[int]), new(Watcher[int]),
	}
}

// A method of a zero value works, or panics with a text of this package. It returns at the latest
// when its Context ends, and does not fail with a nil pointer.
func TestZeroValues(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for _, zero := range zeroValues() {
		typ := reflect.TypeOf(zero)
		for i := range typ.NumMethod() {
			m := typ.Method(i)
			if m.Name == "Format" {
				continue // it has a value that cannot be made here
			}
			recv := reflect.New(typ.Elem())
			call := func(cx *Context) {
				defer func() {
					if v := recover(); v != nil {
						text, ok := v.(string)
						assert.True(t, ok && strings.HasPrefix(text, "async: "), "%v.%s: %v", typ, m.Name, v)
					}
				}()
				m.Func.Call(argumentsOf(m.Type, recv, cx))
			}
			if strings.HasSuffix(m.Name, "Blocking") || m.Name == "Shutdown" || m.Name == "ListenNet" || m.Name == "DialNet" {
				_, err := BlockOn(rt, func(cx *Context) (None, error) {
					short, cancel := cx.WithTimeout(10 * time.Millisecond)
					defer cancel()
					call(short)
					return None{}, nil
				})
				require.NoError(t, err)
				continue
			}
			_, err := join(t, Go(rt, func(cx *Context) error {
				short, cancel := cx.WithTimeout(10 * time.Millisecond)
				defer cancel()
				call(short)
				return nil
			}))
			require.NoError(t, err, "%v.%s", typ, m.Name)
		}
	}
}
