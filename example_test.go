package async_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"example.com/async"
)

func Example() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()

		async.Go(cx, func(cx *async.Context) error {
			for conn, err := range async.Incoming(ln).All(cx) {
				if err != nil {
					return nil // the listener has been closed
				}
				async.Go(cx, func(cx *async.Context) error {
					defer conn.Close()
					c := async.BindConn(cx, conn) // a net.Conn for the standard library
					_, err := io.Copy(c, c)
					return err
				})
			}
			return nil
		})

		conn, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write(cx, []byte("hello\n")); err != nil {
			return err
		}
		line, err := bufio.NewReader(async.BindConn(cx, conn)).ReadString('\n')
		fmt.Print(line)
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: hello
}

// newRuntime is for the examples that end their own runtime.
func newRuntime() *async.Runtime {
	rt, err := async.New(async.Config{Workers: 2, Grace: 20 * time.Second})
	if err != nil {
		panic(err)
	}
	return rt
}

func ExampleNew() {
	rt, err := async.New(async.Config{Workers: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := async.Spawn(rt, func(cx *async.Context) (int, error) { return 6 * 7, nil })
	fmt.Println(h.JoinBlocking(context.Background()))
	fmt.Println(rt.Shutdown(context.Background()))
	// Output:
	// 42 <nil>
	// <nil>
}

func ExampleSpawn() {
	async.Run(func(cx *async.Context) error {
		sum := async.Spawn(cx, func(cx *async.Context) (int, error) {
			total := 0
			for i := range 5 {
				total += i
				async.Yield(cx) // lets others run
			}
			return total, nil
		})
		fmt.Println(sum.Join(cx))
		return nil
	})
	// Output: 10 <nil>
}

func ExampleGo() {
	async.Run(func(cx *async.Context) error {
		h := async.Go(cx, func(cx *async.Context) error { panic("oh") })
		_, err := h.Join(cx)
		var p *async.PanicError
		fmt.Println(errors.As(err, &p), p.Value)
		return nil
	})
	// Output: true oh
}

// countdown is a hand-written future: a state machine without a stack.
type countdown struct{ left int }

func (c *countdown) Poll(cx *async.Context) (string, error) {
	if c.left == 0 {
		return "lift-off", nil
	}
	c.left--
	cx.Waker().Wake() // poll me again, soon
	return "", async.ErrPending
}

func ExampleFuture() {
	async.Run(func(cx *async.Context) error {
		fmt.Println(async.Await(cx, &countdown{left: 3}))
		return nil
	})
	// Output: lift-off <nil>
}

func ExampleSpawnFuture() {
	rt := newRuntime()
	defer rt.Shutdown(context.Background())
	h := async.SpawnFuture(rt, &countdown{left: 3})
	fmt.Println(h.JoinBlocking(context.Background()))
	// Output: lift-off <nil>
}

func ExamplePollFunc() {
	polls := 0
	f := async.PollFunc(func(cx *async.Context) (int, error) {
		if polls++; polls < 3 {
			cx.Waker().Wake()
			return 0, async.ErrPending
		}
		return polls, nil
	})
	fmt.Println(async.SpawnFuture(async.Default(), f).JoinBlocking(context.Background()))
	// Output: 3 <nil>
}

func ExampleBlockOn() {
	// On a goroutine of the caller, outside the pool.
	v, err := async.BlockOn(async.Default(), func(cx *async.Context) (string, error) {
		err := async.Sleep(cx, time.Millisecond)
		return "slept", err
	})
	fmt.Println(v, err)
	// Output: slept <nil>
}

func ExampleTimeoutFuture() {
	async.Run(func(cx *async.Context) error {
		_, err := async.Await(cx, async.TimeoutFuture(async.NeverFuture[int](), time.Millisecond))
		fmt.Println(err)
		return nil
	})
	// Output: context deadline exceeded
}

func ExampleContext_WithTimeout() {
	async.Run(func(cx *async.Context) error {
		short, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		fmt.Println(async.Sleep(short, time.Hour))
		fmt.Println(cx.Err()) // the task itself goes on
		return nil
	})
	// Output:
	// context deadline exceeded
	// <nil>
}

func ExampleJoinHandle_Cancel() {
	async.Run(func(cx *async.Context) error {
		h := async.Go(cx, func(cx *async.Context) error {
			defer fmt.Println("cleaned up")
			return async.Sleep(cx, time.Hour)
		})
		async.Yield(cx) // it begins to sleep
		h.Cancel()
		_, err := h.Join(cx)
		fmt.Println(err)
		return nil
	})
	// Output:
	// cleaned up
	// context canceled
}

// A loop outside the pool can poll futures: its Waker is called when it is to poll again.
func ExampleNewWaker() {
	rt := newRuntime()
	defer rt.Shutdown(context.Background())

	again := make(chan struct{}, 1)
	cx := async.NewContext(rt, async.NewWaker(func() {
		select {
		case again <- struct{}{}:
		default:
		}
	}))
	f := async.SleepFuture(time.Millisecond)
	for {
		if _, err := f.Poll(cx); err != async.ErrPending {
			fmt.Println("slept", err)
			return
		}
		<-again
	}
	// Output: slept <nil>
}

func ExampleBindConn() {
	async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		server := async.Go(cx, func(cx *async.Context) error {
			conn, err := ln.Accept(cx)
			if err != nil {
				return err
			}
			defer conn.Close()
			name, err := bufio.NewReader(async.BindConn(cx, conn)).ReadString('\n')
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(async.BindConn(cx, conn), "hello, %s", name)
			return err
		})
		conn, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		fmt.Fprintln(async.BindConn(cx, conn), "gopher")
		answer, err := io.ReadAll(async.BindConn(cx, conn))
		fmt.Println(strings.TrimSpace(string(answer)), err)
		_, err = server.Join(cx)
		return err
	})
	// Output: hello, gopher <nil>
}

func ExampleRuntime_Shutdown() {
	rt := newRuntime()
	async.Go(rt, func(cx *async.Context) error {
		_, err := async.Await(cx, async.DrainingFuture()) // a task without an end of its own
		fmt.Println("finishing")
		return err
	})
	async.Go(rt, func(cx *async.Context) error {
		return async.Sleep(cx, time.Hour) // is cancelled when the time is over
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	fmt.Println(rt.Shutdown(ctx))
	// Output:
	// finishing
	// <nil>
}
