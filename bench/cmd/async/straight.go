package main

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"example.com/async"
	"example.com/async/bench/internal/work"
)

// straightWorkloads has the workloads with tasks of straight-line code.
func straightWorkloads(rt *async.Runtime) work.Workloads {
	all := work.Workloads{
		"chained_spawn":       byTask(rt, 1, chainedSpawn),
		"ping_pong":           byTask(rt, 1, pingPong),
		"spawn_many":          work.Timed(1, func(done func()) { spawnMany(rt, done) }),
		"spawn_many_by_task":  byTask(rt, 1, func(cx *async.Context, done func()) { spawnMany(cx, done) }),
		"yield_many":          byTask(rt, 1, yieldMany),
		"mutex_create":        mutexCreate,
		"mutex_contention":    byTask(rt, 1, locking(work.ContentionTasks, work.ContentionTimes)),
		"mutex_no_contention": byTask(rt, 1, locking(1, work.LonelyTimes)),
		"mpmc_4x4":            work.Timed(work.Messages, channel(rt, 4, 4)),
		"mpmc_4x1":            work.Timed(work.Messages, channel(rt, 4, 1)),
		"sleep_10ms":          byTask(rt, 1, sleepers(func(int) time.Duration { return 10 * time.Millisecond })),
		"sleep_1_to_100ms":    byTask(rt, 1, sleepers(work.SleepTime)),
		"idle_task":           idle(rt),
	}
	for _, n := range work.CostSizes {
		all[work.CostName(n)] = byTask(rt, n, cost(n))
	}
	return all
}

// byTask measures a workload that is started by a task. Each call spawns this task from outside the
// runtime.
func byTask(rt *async.Runtime, operations int, start func(cx *async.Context, done func())) func(*work.Meter) error {
	return work.Timed(operations, func(done func()) {
		async.Launch(rt, func(cx *async.Context) error {
			start(cx, done)
			return nil
		})
	})
}

func chainedSpawn(cx *async.Context, done func()) { link(cx, work.ChainLength, done) }

func link(s async.Spawner, left int, done func()) {
	async.Launch(s, func(cx *async.Context) error {
		if left == 1 {
			done()
		} else {
			link(cx, left-1, done)
		}
		return nil
	})
}

func pingPong(cx *async.Context, done func()) {
	count := work.Countdown(work.PingPairs, done)
	for range work.PingPairs {
		async.Launch(cx, func(cx *async.Context) error {
			var ping, pong async.Oneshot[async.None]
			async.Launch(cx, func(cx *async.Context) error {
				if _, err := ping.Recv(cx); err != nil {
					return err
				}
				return pong.Send(async.None{})
			})
			if err := ping.Send(async.None{}); err != nil {
				return err
			}
			_, err := pong.Recv(cx)
			count()
			return err
		})
	}
}

func spawnMany(s async.Spawner, done func()) {
	count := work.Countdown(work.SpawnCount, done)
	f := func(*async.Context) error { count(); return nil }
	for range work.SpawnCount {
		async.Launch(s, f)
	}
}

func yieldMany(cx *async.Context, done func()) {
	count := work.Countdown(work.YieldTasks, done)
	for range work.YieldTasks {
		async.Launch(cx, func(cx *async.Context) error {
			for range work.YieldTimes {
				if err := async.Yield(cx); err != nil {
					return err
				}
			}
			count()
			return nil
		})
	}
}

// made has the mutexes that mutexCreate makes. They are in memory so that the compiler cannot
// optimize them away.
var made [1024]async.Mutex

func mutexCreate(m *work.Meter) error {
	return m.Time(work.Creates, func() {
		for i := range work.Creates {
			made[i%len(made)] = async.Mutex{}
		}
	})
}

func locking(tasks, times int) func(cx *async.Context, done func()) {
	var m async.Mutex
	return func(cx *async.Context, done func()) {
		count := work.Countdown(tasks, done)
		for range tasks {
			async.Launch(cx, func(cx *async.Context) error {
				err := lockTimes(cx, &m, times)
				count()
				return err
			})
		}
	}
}

func lockTimes(cx *async.Context, m *async.Mutex, times int) error {
	for range times {
		if err := m.Lock(cx); err != nil {
			return err
		}
		m.Unlock()
	}
	return nil
}

// channel sends work.Messages messages. The tasks are spawned from outside of the workers, so that
// they are spread over the workers.
func channel(rt *async.Runtime, senders, receivers int) func(done func()) {
	return func(done func()) {
		c := async.NewChan[int](work.ChanCapacity)
		received := work.CountReceived(receivers, done)
		for range receivers {
			async.Launch(rt, func(cx *async.Context) error {
				n := 0
				for {
					_, err := c.Recv(cx)
					if errors.Is(err, async.ErrClosed) {
						received(n)
						return nil
					}
					if err != nil {
						return err
					}
					n++
				}
			})
		}
		sent := work.Countdown(senders, func() { c.Close() })
		for range senders {
			async.Launch(rt, func(cx *async.Context) error {
				for i := range work.Messages / senders {
					if err := c.Send(cx, i); err != nil {
						return err
					}
				}
				sent()
				return nil
			})
		}
	}
}

func sleepers(how func(i int) time.Duration) func(cx *async.Context, done func()) {
	return func(cx *async.Context, done func()) {
		count := work.Countdown(work.Sleepers, done)
		for i := range work.Sleepers {
			async.Launch(cx, func(cx *async.Context) error {
				err := async.Sleep(cx, how(i))
				count()
				return err
			})
		}
	}
}

// cost returns a workload in which a task starts n tasks, each of which yields once.
func cost(n int) func(cx *async.Context, done func()) {
	return func(cx *async.Context, done func()) {
		count := work.Countdown(n, done)
		f := func(cx *async.Context) error {
			err := async.Yield(cx)
			count()
			return err
		}
		for range n {
			async.Launch(cx, f)
		}
	}
}

func idle(rt *async.Runtime) func(*work.Meter) error {
	return idling(rt, func(cx *async.Context, begun *atomic.Int64) *async.JoinHandle[async.None] {
		return async.Go(cx, func(cx *async.Context) error {
			begun.Add(1)
			_, err := async.Await(cx, async.NeverFuture[async.None]())
			return err
		})
	})
}

// idling measures the memory of tasks that wait and are never woken. It keeps their handles,
// because a task without a reference is garbage. The result contains 8 bytes per task for the
// handle.
func idling(rt *async.Runtime, spawn func(cx *async.Context, begun *atomic.Int64) *async.JoinHandle[async.None]) func(*work.Meter) error {
	return func(m *work.Meter) error {
		var handles []*async.JoinHandle[async.None]
		defer func() { runtime.KeepAlive(handles) }()
		return m.Idle(func(n int, begun *atomic.Int64) {
			handles = slices.Grow(handles, n)
			async.Launch(rt, func(cx *async.Context) error {
				for range n {
					handles = append(handles, spawn(cx, begun))
				}
				return nil
			})
		})
	}
}

// insideWorkloads has the workloads of the mutex, started and awaited by a task. They do not
// contain the wake of a thread at the beginning and at the end of each call, which all other forms
// contain.
func insideWorkloads(rt *async.Runtime) work.Workloads {
	return work.Workloads{
		"mutex_contention":    insideLocking(rt, work.ContentionTasks, work.ContentionTimes),
		"mutex_no_contention": insideLocking(rt, 1, work.LonelyTimes),
	}
}

func insideLocking(rt *async.Runtime, tasks, times int) func(*work.Meter) error {
	return func(m *work.Meter) error {
		var lock async.Mutex
		_, err := async.Go(rt, func(cx *async.Context) error {
			var failed error
			err := m.Time(1, func() {
				var wg async.WaitGroup
				for range tasks {
					wg.Go(cx, func(cx *async.Context) error { return lockTimes(cx, &lock, times) })
				}
				failed = errors.Join(failed, wg.Wait(cx))
			})
			return errors.Join(err, failed)
		}).JoinBlocking(context.Background())
		return err
	}
}
