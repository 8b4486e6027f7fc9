package async_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
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

// A function that takes a Spawner leaves it to its caller where its tasks run, and with what they end.
func ExampleSpawner() {
	greet := func(s async.Spawner) *async.JoinHandle[string] {
		return async.Spawn(s, func(cx *async.Context) (string, error) {
			return "hello from " + cx.Task().Name, cx.Err()
		})
	}
	async.Run(func(cx *async.Context) error {
		fmt.Println(greet(cx.Named("a task of this worker")).Join(cx))
		fmt.Println(greet(cx.Runtime().Named("a task of any worker")).Join(cx))
		return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
			fmt.Println(greet(g.Named("a task of a group")).Join(cx))
			return nil
		})
	})
	// Output:
	// hello from a task of this worker <nil>
	// hello from a task of any worker <nil>
	// hello from a task of a group <nil>
}

// Tasks of one worker never run at the same time, so they can share a variable without a lock.
func ExampleLocal() {
	async.Run(func(cx *async.Context) error {
		visits := 0
		err := async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
			for range 100 {
				async.Go(g.Via(async.Local(cx)), func(cx *async.Context) error {
					visits++
					return async.Yield(cx)
				})
			}
			return nil
		})
		fmt.Println(visits, err)
		return err
	})
	// Output: 100 <nil>
}

func ExampleAwait() {
	async.Run(func(cx *async.Context) error {
		words := async.NewChan[string](1)
		async.Go(cx, func(cx *async.Context) error { return words.Send(cx, "hello") })
		fmt.Println(async.Await(cx, words.RecvFuture()))

		short, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		_, err := async.Await(short, words.RecvFuture()) // no message comes
		fmt.Println(err)
		return nil
	})
	// Output:
	// hello <nil>
	// context deadline exceeded
}

func ExampleYield() {
	async.Run(func(cx *async.Context) error {
		done := false
		async.Go(async.Local(cx), func(cx *async.Context) error {
			done = true
			return nil
		})
		for !done { // without Yield the other task of this worker would not run
			if err := async.Yield(cx); err != nil {
				return err
			}
		}
		fmt.Println("the other task has run")
		return nil
	})
	// Output: the other task has run
}

func ExampleYieldFuture() {
	rt := newRuntime()
	defer rt.Shutdown(context.Background())
	wakes := 0
	cx := async.NewContext(rt, async.NewWaker(func() { wakes++ }))
	f := async.YieldFuture()
	_, err := f.Poll(cx)
	fmt.Println(err == async.ErrPending, wakes)
	_, err = f.Poll(cx)
	fmt.Println(err)
	// Output:
	// true 1
	// <nil>
}

// A function that returns a Future may have the result, or the error, already.
func ExampleReadyFuture() {
	births := map[string]int{"go": 2009}
	birth := func(name string) async.Future[int] {
		year, ok := births[name]
		if !ok {
			return async.FailedFuture[int](errors.New("no language " + name))
		}
		return async.ReadyFuture(year)
	}
	async.Run(func(cx *async.Context) error {
		fmt.Println(async.Await(cx, birth("go")))
		return nil
	})
	// Output: 2009 <nil>
}

func ExampleFailedFuture() {
	divide := func(a, b int) async.Future[int] {
		if b == 0 {
			return async.FailedFuture[int](errors.New("division by zero"))
		}
		return async.ReadyFuture(a / b)
	}
	async.Run(func(cx *async.Context) error {
		_, err := async.Await(cx, divide(1, 0))
		fmt.Println(err)
		return nil
	})
	// Output: division by zero
}

// To wait for cancellation alone, await a future that is never ready.
func ExampleNeverFuture() {
	async.Run(func(cx *async.Context) error {
		h := async.SpawnFuture(cx, async.NeverFuture[int]())
		h.Cancel()
		_, err := h.Join(cx)
		fmt.Println(err)
		return nil
	})
	// Output: context canceled
}

// squareStream is a hand-written stream.
type squareStream struct{ next, last int }

func (s *squareStream) PollNext(cx *async.Context) (int, error) {
	if s.next > s.last {
		return 0, io.EOF
	}
	n := s.next
	s.next++
	return n * n, nil
}

func ExampleStream() {
	async.Run(func(cx *async.Context) error {
		var squares async.Stream[int] = &squareStream{next: 1, last: 3}
		for {
			n, err := async.Await(cx, async.PollFunc(squares.PollNext))
			if err == io.EOF {
				return nil
			} else if err != nil {
				return err // cx has ended
			}
			fmt.Println(n)
		}
	})
	// Output:
	// 1
	// 4
	// 9
}

// A channel of None carries only the fact that something has happened.
func ExampleNone() {
	async.Run(func(cx *async.Context) error {
		ready := async.NewChan[async.None](1)
		async.Go(cx, func(cx *async.Context) error { return ready.Send(cx, async.None{}) })
		_, err := ready.Recv(cx)
		fmt.Println("ready", err)
		return nil
	})
	// Output: ready <nil>
}

// manualEvent is a future of the moment at which its method set is called.
type manualEvent struct {
	mu    sync.Mutex
	isSet bool
	waker async.Waker
}

func (e *manualEvent) Poll(cx *async.Context) (async.None, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.isSet {
		return async.None{}, nil
	}
	e.waker = cx.Waker() // the waker of the latest poll
	return async.None{}, async.ErrPending
}

func (e *manualEvent) set() {
	e.mu.Lock()
	e.isSet = true
	waker := e.waker
	e.mu.Unlock()
	waker.Wake() // does nothing if no task has polled yet
}

// A future keeps the Waker, and any goroutine may wake its task.
func ExampleWaker() {
	async.Run(func(cx *async.Context) error {
		e := new(manualEvent)
		go e.set()
		_, err := async.Await(cx, e)
		fmt.Println("set", err)
		return nil
	})
	// Output: set <nil>
}

func ExamplePanicError() {
	async.Run(func(cx *async.Context) error {
		h := async.Go(cx, func(cx *async.Context) error {
			var counts map[string]int
			counts["x"]++
			return nil
		})
		_, err := h.Join(cx)
		var p *async.PanicError
		fmt.Println(errors.As(err, &p))
		fmt.Println(p.Value)
		fmt.Println(len(p.Stack) > 0)
		return nil
	})
	// Output:
	// true
	// assignment to entry in nil map
	// true
}

func ExampleTask() {
	async.Run(func(cx *async.Context) error {
		h := async.Spawn(cx.Named("fetch"), func(cx *async.Context) (async.Task, error) {
			return cx.Task(), nil
		})
		own, err := h.Join(cx)
		fmt.Println(own.Name, own == h.Task(), err)
		fmt.Println(async.Task{ID: 7, Name: "fetch"}) // as logs show it
		return nil
	})
	// Output:
	// fetch true <nil>
	// 7 (fetch)
}

// Tasks shows what each task of a runtime waits for.
func ExampleTaskInfo() {
	rt := newRuntime()
	defer rt.Shutdown(context.Background())
	jobs := async.NewChan[string](0)
	async.Go(rt.Named("worker"), func(cx *async.Context) error {
		_, err := jobs.Recv(cx)
		return err
	})
	infos := rt.Tasks()
	for len(infos) == 0 { // the task does not wait yet
		infos = rt.Tasks()
	}
	i := infos[0]
	fmt.Println(i.Name, i.Kind, i.State, "for", i.Waits)
	jobs.Close()
	// Output: worker straight waiting for receive
}

// requestNumber is set once for each request, and passed on to all tasks that work for it.
var requestNumber = async.TaskLocal[int]{Inherit: true}

func ExampleTaskLocal() {
	async.Run(func(cx *async.Context) error {
		requestNumber.Set(cx, 7)
		h := async.Go(cx, func(cx *async.Context) error {
			fmt.Println(requestNumber.Get(cx))
			requestNumber.Set(cx, 8) // of this task alone
			return nil
		})
		_, err := h.Join(cx)
		fmt.Println(requestNumber.Get(cx))
		return err
	})
	// Output:
	// 7 true
	// 7 true
}

// A task that works without end asks now and then whether it should finish.
func ExampleIsDraining() {
	rt := newRuntime()
	async.Go(rt, func(cx *async.Context) error {
		for !async.IsDraining(cx) {
			if err := async.Yield(cx); err != nil { // or the next piece of work
				return err
			}
		}
		fmt.Println("finished")
		return nil
	})
	fmt.Println(rt.Shutdown(context.Background()))
	// Output:
	// finished
	// <nil>
}

func ExampleDraining() {
	rt := newRuntime()
	async.Go(rt, func(cx *async.Context) error {
		if err := async.Draining(cx); err != nil {
			return err
		}
		fmt.Println("saved the cache")
		return nil
	})
	fmt.Println(rt.Shutdown(context.Background()))
	// Output:
	// saved the cache
	// <nil>
}

// A task that waits for jobs can also wait for the moment at which it should finish.
func ExampleDrainingFuture() {
	rt := newRuntime()
	jobs := async.NewChan[string](1)
	async.Go(rt, func(cx *async.Context) error {
		job := async.OnRecv(jobs)
		for {
			switch i, err := async.SelectInOrder(cx, job, async.OnFuture(async.DrainingFuture())); {
			case err != nil:
				return err
			case i == 1:
				fmt.Println("no more jobs")
				return nil
			}
			fmt.Println(job.Result())
		}
	})
	jobs.TrySend("a job")
	fmt.Println(rt.Shutdown(context.Background()))
	// Output:
	// a job <nil>
	// no more jobs
	// <nil>
}

func ExampleShutdownError() {
	rt, err := async.New(async.Config{Workers: 1, Grace: 10 * time.Millisecond})
	if err != nil {
		fmt.Println(err)
		return
	}
	began := make(chan struct{})
	async.Go(rt.Named("stubborn"), func(cx *async.Context) error {
		close(began)
		_, err := async.Await(cx.WithoutCancel(), async.NeverFuture[int]())
		return err
	})
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	err = rt.Shutdown(ctx)
	var left *async.ShutdownError
	if errors.As(err, &left) {
		fmt.Println(left.Err)
		fmt.Println(len(left.Tasks), left.Tasks[0].Name)
	}
	// Output:
	// context deadline exceeded
	// 1 stubborn
}
