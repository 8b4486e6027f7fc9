package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"example.com/async/bench/internal/work"
)

func workloads() work.Workloads {
	all := work.Workloads{
		"chained_spawn":       work.Timed(1, chainedSpawn),
		"ping_pong":           work.Timed(1, pingPong),
		"spawn_many":          work.Timed(1, func(done func()) { spawnMany(done) }),
		"spawn_many_by_task":  work.Timed(1, func(done func()) { go spawnMany(done) }),
		"yield_many":          work.Timed(1, yieldMany),
		"mutex_create":        mutexCreate,
		"mutex_contention":    work.Timed(1, locking(work.ContentionTasks, work.ContentionTimes)),
		"mutex_no_contention": work.Timed(1, locking(1, work.LonelyTimes)),
		"mpmc_4x4":            work.Timed(work.Messages, channel(4, 4)),
		"mpmc_4x1":            work.Timed(work.Messages, channel(4, 1)),
		"sleep_10ms":          work.Timed(1, sleepers(func(int) time.Duration { return 10 * time.Millisecond })),
		"sleep_1_to_100ms":    work.Timed(1, sleepers(work.SleepTime)),
		"idle_task":           idle,
	}
	for _, n := range work.CostSizes {
		all[work.CostName(n)] = work.Timed(n, cost(n))
	}
	return all
}

func chainedSpawn(done func()) { go link(work.ChainLength, done) }

func link(left int, done func()) {
	if left == 1 {
		done()
		return
	}
	go link(left-1, done)
}

func pingPong(done func()) {
	count := work.Countdown(work.PingPairs, done)
	go func() {
		for range work.PingPairs {
			go func() {
				ping, pong := make(chan struct{}, 1), make(chan struct{}, 1)
				go func() {
					<-ping
					pong <- struct{}{}
				}()
				ping <- struct{}{}
				<-pong
				count()
			}()
		}
	}()
}

func spawnMany(done func()) {
	count := work.Countdown(work.SpawnCount, done)
	for range work.SpawnCount {
		go count()
	}
}

func yieldMany(done func()) {
	count := work.Countdown(work.YieldTasks, done)
	for range work.YieldTasks {
		go func() {
			for range work.YieldTimes {
				runtime.Gosched()
			}
			count()
		}()
	}
}

// made has the mutexes that mutexCreate makes. They are in memory so that the compiler cannot
// optimize them away.
var made [1024]sync.Mutex

func mutexCreate(m *work.Meter) error {
	return m.Time(work.Creates, func() {
		for i := range work.Creates {
			made[i%len(made)] = sync.Mutex{}
		}
	})
}

func locking(tasks, times int) func(done func()) {
	var m sync.Mutex
	return func(done func()) {
		count := work.Countdown(tasks, done)
		for range tasks {
			go func() {
				for range times {
					m.Lock()
					m.Unlock()
				}
				count()
			}()
		}
	}
}

func channel(senders, receivers int) func(done func()) {
	return func(done func()) {
		c := make(chan int, work.ChanCapacity)
		received := work.CountReceived(receivers, done)
		for range receivers {
			go func() {
				n := 0
				for range c {
					n++
				}
				received(n)
			}()
		}
		sent := work.Countdown(senders, func() { close(c) })
		for range senders {
			go func() {
				for i := range work.Messages / senders {
					c <- i
				}
				sent()
			}()
		}
	}
}

func sleepers(how func(i int) time.Duration) func(done func()) {
	return func(done func()) {
		count := work.Countdown(work.Sleepers, done)
		for i := range work.Sleepers {
			go func() {
				time.Sleep(how(i))
				count()
			}()
		}
	}
}

// cost returns a workload in which a goroutine starts n goroutines, each of which yields once.
func cost(n int) func(done func()) {
	return func(done func()) {
		count := work.Countdown(n, done)
		go func() {
			for range n {
				go func() {
					runtime.Gosched()
					count()
				}()
			}
		}()
	}
}

func idle(m *work.Meter) error {
	return m.Idle(func(n int, begun *atomic.Int64) {
		go func() {
			for range n {
				go func() {
					begun.Add(1)
					select {} // a wait on a channel would also allocate a sudog
				}()
			}
		}()
	})
}
