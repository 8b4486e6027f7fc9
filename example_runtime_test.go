package async_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"example.com/async"
)

// Run is the main function of a program with tasks. It returns the error of its function.
func ExampleRun() {
	err := async.Run(func(cx *async.Context) error {
		greeting := async.Spawn(cx, func(cx *async.Context) (string, error) {
			return "hello", async.Sleep(cx, time.Millisecond)
		})
		text, err := greeting.Join(cx)
		if err != nil {
			return err
		}
		fmt.Println(text)
		return errors.New("nothing else to do")
	})
	fmt.Println(err)
	// Output:
	// hello
	// nothing else to do
}

// A plain function, for example an HTTP handler, spawns tasks with Default. They run on the same
// Runtime as the tasks of Run.
func ExampleDefault() {
	square := func(ctx context.Context, n int) (int, error) {
		h := async.Spawn(async.Default(), func(cx *async.Context) (int, error) {
			return n * n, async.Yield(cx)
		})
		return h.JoinBlocking(ctx)
	}
	fmt.Println(square(context.Background(), 12))

	async.Run(func(cx *async.Context) error {
		fmt.Println(cx.Runtime() == async.Default())
		return nil
	})
	// Output:
	// 144 <nil>
	// true
}

// The Config must be set before Default or Run is called for the first time.
func ExampleSetDefaultConfig() {
	err := async.SetDefaultConfig(async.Config{Workers: -1})
	fmt.Println(err)

	err = async.Run(func(cx *async.Context) error { return nil })
	fmt.Println(err)

	err = async.SetDefaultConfig(async.Config{Workers: 4})
	fmt.Println(err)
	// Output:
	// async: Config.Workers is -1; it can be 0 to 4096
	// <nil>
	// async: SetDefaultConfig: the default runtime has been started
}

// A task that computes for long without an await keeps its worker from all other tasks. The runtime
// reports it while it still computes.
func ExampleStall() {
	var reported atomic.Bool
	rt, err := async.New(async.Config{
		Stall: time.Millisecond,
		Stalled: func(s async.Stall) {
			if !reported.Load() {
				fmt.Println(s.Task.Name, s.For >= time.Millisecond)
				reported.Store(true)
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := async.Go(rt.Named("indexer"), func(cx *async.Context) error {
		for !reported.Load() { // computes
		}
		return nil
	})
	_, err = h.JoinBlocking(context.Background())
	fmt.Println(err)
	rt.Shutdown(context.Background())
	// Output:
	// indexer true
	// <nil>
}

// Each worker accumulates its own sum: no other thread uses it, so it needs no lock.
func ExampleRuntime_Workers() {
	rt := newRuntime()
	ctx := context.Background()
	workers := rt.Workers()
	sums := make([]int, len(workers))
	var tasks []*async.JoinHandle[async.None]
	for i := range 100 {
		n := i % len(workers)
		tasks = append(tasks, async.Go(workers[n], func(cx *async.Context) error {
			sums[n] += i
			return nil
		}))
	}
	for _, h := range tasks {
		h.JoinBlocking(ctx)
	}
	fmt.Println(len(workers), sums)
	rt.Shutdown(ctx)
	// Output: 2 [2450 2500]
}
