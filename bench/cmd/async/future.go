package main

import (
	"errors"
	"sync/atomic"
	"time"

	"example.com/async"
	"example.com/async/bench/internal/work"
)

// futureWorkloads has the workloads with plain futures. The future of a task is a struct with the
// state that straight-line code has on its stack.
func futureWorkloads(rt *async.Runtime) work.Workloads {
	all := work.Workloads{
		"chained_spawn":       byFuture(rt, 1, chainedSpawnFuture),
		"ping_pong":           byFuture(rt, 1, pingPongFuture),
		"spawn_many":          work.Timed(1, func(done func()) { spawnManyFuture(rt, done) }),
		"spawn_many_by_task":  byFuture(rt, 1, func(cx *async.Context, done func()) { spawnManyFuture(cx, done) }),
		"yield_many":          byFuture(rt, 1, yieldManyFuture),
		"mutex_contention":    byFuture(rt, 1, lockingFuture(work.ContentionTasks, work.ContentionTimes)),
		"mutex_no_contention": byFuture(rt, 1, lockingFuture(1, work.LonelyTimes)),
		"mpmc_4x4":            work.Timed(work.Messages, channelFuture(rt, 4, 4)),
		"mpmc_4x1":            work.Timed(work.Messages, channelFuture(rt, 4, 1)),
		"sleep_10ms":          byFuture(rt, 1, sleepersFuture(func(int) time.Duration { return 10 * time.Millisecond })),
		"sleep_1_to_100ms":    byFuture(rt, 1, sleepersFuture(work.SleepTime)),
		"idle_task":           idleFuture(rt),
	}
	for _, n := range work.CostSizes {
		all[work.CostName(n)] = byFuture(rt, n, costFuture(n))
	}
	return all
}

// byFuture measures a workload that is started by a future. Each call spawns this future from
// outside the runtime.
func byFuture(rt *async.Runtime, operations int, start func(cx *async.Context, done func())) func(*work.Meter) error {
	return work.Timed(operations, func(done func()) {
		async.LaunchFuture(rt, async.PollFunc(func(cx *async.Context) (async.None, error) {
			start(cx, done)
			return async.None{}, nil
		}))
	})
}

func chainedSpawnFuture(cx *async.Context, done func()) {
	async.LaunchFuture(cx, &chainLink{work.ChainLength, done})
}

type chainLink struct {
	left int
	done func()
}

func (l *chainLink) Poll(cx *async.Context) (async.None, error) {
	if l.left == 1 {
		l.done()
	} else {
		async.LaunchFuture(cx, &chainLink{l.left - 1, l.done})
	}
	return async.None{}, nil
}

func pingPongFuture(cx *async.Context, done func()) {
	count := work.Countdown(work.PingPairs, done)
	for range work.PingPairs {
		async.LaunchFuture(cx, &pinger{done: count})
	}
}

// A pinger is the first task of a pair. It has the state that both tasks share.
type pinger struct {
	done       func()
	sent       bool
	ping, pong async.Oneshot[async.None]
}

func (p *pinger) Poll(cx *async.Context) (async.None, error) {
	if !p.sent {
		p.sent = true
		async.LaunchFuture(cx, &ponger{pair: p})
		if err := p.ping.Send(async.None{}); err != nil {
			return async.None{}, err
		}
	}
	if _, err := p.pong.Poll(cx); err != nil {
		return async.None{}, err
	}
	p.done()
	return async.None{}, nil
}

// A ponger is the second task of a pair.
type ponger struct{ pair *pinger }

func (p *ponger) Poll(cx *async.Context) (async.None, error) {
	if _, err := p.pair.ping.Poll(cx); err != nil {
		return async.None{}, err
	}
	return async.None{}, p.pair.pong.Send(async.None{})
}

func spawnManyFuture(s async.Spawner, done func()) {
	count := work.Countdown(work.SpawnCount, done)
	for range work.SpawnCount {
		async.LaunchFuture(s, &counted{count})
	}
}

type counted struct{ count func() }

func (c *counted) Poll(*async.Context) (async.None, error) {
	c.count()
	return async.None{}, nil
}

func yieldManyFuture(cx *async.Context, done func()) {
	count := work.Countdown(work.YieldTasks, done)
	for range work.YieldTasks {
		async.LaunchFuture(cx, &yielder{left: work.YieldTimes, done: count})
	}
}

// A yielder yields a number of times: it is a loop over YieldFuture, written as a state machine.
type yielder struct {
	left int
	now  async.Future[async.None]
	done func()
}

func (y *yielder) Poll(cx *async.Context) (async.None, error) {
	for y.left > 0 {
		if y.now == nil {
			y.now = async.YieldFuture()
		}
		if _, err := y.now.Poll(cx); err != nil {
			return async.None{}, err
		}
		y.now = nil
		y.left--
	}
	y.done()
	return async.None{}, nil
}

func lockingFuture(tasks, times int) func(cx *async.Context, done func()) {
	var m async.Mutex
	return func(cx *async.Context, done func()) {
		count := work.Countdown(tasks, done)
		for range tasks {
			async.LaunchFuture(cx, &locker{lock: m.LockFuture(), m: &m, left: times, done: count})
		}
	}
}

// A locker locks and unlocks a number of times. The future of a lock can be polled again after the
// mutex has been unlocked.
type locker struct {
	lock async.Future[async.None]
	m    *async.Mutex
	left int
	done func()
}

func (l *locker) Poll(cx *async.Context) (async.None, error) {
	for ; l.left > 0; l.left-- {
		if _, err := l.lock.Poll(cx); err != nil {
			return async.None{}, err
		}
		l.m.Unlock()
	}
	l.done()
	return async.None{}, nil
}

func channelFuture(rt *async.Runtime, senders, receivers int) func(done func()) {
	return func(done func()) {
		c := async.NewChan[int](work.ChanCapacity)
		received := work.CountReceived(receivers, done)
		for range receivers {
			async.LaunchFuture(rt, &receiver{f: c.RecvFuture(), received: received})
		}
		sent := work.Countdown(senders, func() { c.Close() })
		for range senders {
			async.LaunchFuture(rt, &sender{f: c.SendFuture(0), end: work.Messages / senders, sent: sent})
		}
	}
}

type sender struct {
	f    *async.SendFuture[int]
	i    int
	end  int
	sent func()
}

func (s *sender) Poll(cx *async.Context) (async.None, error) {
	for s.i < s.end {
		if _, err := s.f.Poll(cx); err != nil {
			return async.None{}, err
		}
		s.i++
		s.f.Reset(s.i)
	}
	s.sent()
	return async.None{}, nil
}

type receiver struct {
	f        *async.RecvFuture[int]
	n        int
	received func(n int)
}

func (r *receiver) Poll(cx *async.Context) (async.None, error) {
	for {
		_, err := r.f.Poll(cx)
		if errors.Is(err, async.ErrClosed) {
			r.received(r.n)
			return async.None{}, nil
		}
		if err != nil {
			return async.None{}, err
		}
		r.n++
	}
}

func sleepersFuture(how func(i int) time.Duration) func(cx *async.Context, done func()) {
	return func(cx *async.Context, done func()) {
		count := work.Countdown(work.Sleepers, done)
		for i := range work.Sleepers {
			async.LaunchFuture(cx, &sleeper{d: how(i), done: count})
		}
	}
}

// A sleeper begins its sleep in its first poll, as the other forms do: SleepFuture counts from the
// call.
type sleeper struct {
	d     time.Duration
	sleep async.Future[async.None]
	done  func()
}

func (s *sleeper) Poll(cx *async.Context) (async.None, error) {
	if s.sleep == nil {
		s.sleep = async.SleepFuture(s.d)
	}
	if _, err := s.sleep.Poll(cx); err != nil {
		return async.None{}, err
	}
	s.done()
	return async.None{}, nil
}

func costFuture(n int) func(cx *async.Context, done func()) {
	return func(cx *async.Context, done func()) {
		count := work.Countdown(n, done)
		for range n {
			async.LaunchFuture(cx, &yielder{left: 1, done: count})
		}
	}
}

func idleFuture(rt *async.Runtime) func(*work.Meter) error {
	return idling(rt, func(cx *async.Context, begun *atomic.Int64) *async.JoinHandle[async.None] {
		return async.SpawnFuture(cx, &idler{begun: begun})
	})
}

// An idler is never ready.
type idler struct {
	begun *atomic.Int64
	never async.Future[async.None]
}

func (i *idler) Poll(cx *async.Context) (async.None, error) {
	if i.never == nil {
		i.never = async.NeverFuture[async.None]()
		i.begun.Add(1)
	}
	return i.never.Poll(cx)
}
