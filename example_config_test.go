package async_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"time"

	"example.com/async"
)

// A task whose failure no code asks for is reported to Unhandled.
func ExampleConfig() {
	rt, err := async.New(async.Config{
		Workers: 2,
		Grace:   20 * time.Second, // for cancelled tasks that take long to clean up
		Unhandled: func(t async.Task, err error) {
			fmt.Printf("task %s failed: %v\n", t.Name, err)
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	async.Go(rt.Named("import"), func(cx *async.Context) error {
		return errors.New("the table is locked")
	})
	fmt.Println(rt.Shutdown(context.Background()))
	// Output:
	// task import failed: the table is locked
	// <nil>
}

// Profiles show which runtime, worker and task the code belongs to.
func ExampleTuning() {
	rt, err := async.New(async.Config{Tuning: async.Tuning{Name: "web", Labels: true}})
	if err != nil {
		fmt.Println(err)
		return
	}
	async.Go(rt.Named("login"), func(cx *async.Context) error {
		task, _ := pprof.Label(cx, "task")
		worker, _ := pprof.Label(cx, "async.worker")
		fmt.Println(task, strings.HasPrefix(worker, "web/"))
		return nil
	})
	fmt.Println(rt.Shutdown(context.Background()))
	// Output:
	// login true
	// <nil>
}

// Hooks that count the tasks. They are called on several threads at the same time.
func ExampleHooks() {
	var started, ended atomic.Int64
	rt, err := async.New(async.Config{Tuning: async.Tuning{Hooks: async.Hooks{
		TaskStart: func(async.Task) { started.Add(1) },
		TaskEnd:   func(async.Task) { ended.Add(1) },
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		async.Go(rt, func(cx *async.Context) error { return async.Yield(cx) })
	}
	fmt.Println(rt.Shutdown(context.Background()))
	fmt.Println(started.Load(), "started,", ended.Load(), "ended")
	// Output:
	// <nil>
	// 3 started, 3 ended
}

// One call runs and one waits. A goroutine outside the pool does not wait for room.
func ExampleBlockingConfig() {
	rt, err := async.New(async.Config{Blocking: async.BlockingConfig{Limit: 1, Queue: 1}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	release := make(chan struct{})
	call := func() (string, error) { <-release; return "done", nil }
	runs, waits, refused := async.SpawnBlocking(rt, call), async.SpawnBlocking(rt, call), async.SpawnBlocking(rt, call)
	_, err = refused.JoinBlocking(ctx)
	fmt.Println(err)
	close(release)
	fmt.Println(runs.JoinBlocking(ctx))
	fmt.Println(waits.JoinBlocking(ctx))
	fmt.Println(rt.Shutdown(ctx))
	// Output:
	// async: the limit is reached
	// done <nil>
	// done <nil>
	// <nil>
}

// A function that may wait for the disk runs in the pool, and its result is joined in a task.
func ExampleSpawnBlocking() {
	err := async.Run(func(cx *async.Context) error {
		h := async.SpawnBlocking(cx, func() (string, error) { return filepath.EvalSymlinks("/") })
		path, err := h.Join(cx)
		fmt.Println(path)
		return err
	})
	fmt.Println(err)
	// Output:
	// /
	// <nil>
}

func ExampleMetrics() {
	rt, err := async.New(async.Config{Workers: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 10 {
		async.Go(rt, func(cx *async.Context) error { return async.Yield(cx) })
	}
	rt.Shutdown(context.Background()) // afterwards all counts are published
	m := rt.Metrics()
	fmt.Println(m.Workers, "workers;", m.Spawned, "tasks,", m.Ended, "ended,", m.Alive, "alive")
	// Output: 2 workers; 10 tasks, 10 ended, 0 alive
}

// The latency of polls, as it may be shown by a program: h is Metrics().PollTime there.
func ExampleHistogram() {
	var h async.Histogram
	h.Counts[0], h.Counts[3], h.Counts[10] = 900, 90, 10
	fmt.Println(h.Count(), "polls")
	for _, q := range []float64{0.5, 0.95, 1} {
		fmt.Println(q, "of them are below", h.Quantile(q))
	}
	// Output:
	// 1000 polls
	// 0.5 of them are below 1.024µs
	// 0.95 of them are below 8.192µs
	// 1 of them are below 1.048576ms
}

func ExampleSleep() {
	err := async.Run(func(cx *async.Context) error {
		begun := time.Now()
		if err := async.Sleep(cx, 2*time.Millisecond); err != nil {
			return err
		}
		fmt.Println(time.Since(begun) >= 2*time.Millisecond)

		short, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		return async.Sleep(short, time.Hour)
	})
	fmt.Println(err)
	// Output:
	// true
	// context deadline exceeded
}

// A pause that another event may end.
func ExampleSleepFuture() {
	err := async.Run(func(cx *async.Context) error {
		ready := async.NewChan[string](1)
		pause := async.OnFuture(async.SleepFuture(time.Millisecond))
		i, err := async.Select(cx, async.OnRecv(ready), pause)
		fmt.Println(i)
		return err
	})
	fmt.Println(err)
	// Output:
	// 1
	// <nil>
}
