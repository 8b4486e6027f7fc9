package async

import (
	"io"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// stopActiveSet makes all workers active, and ends the looks. From now on only the test changes the
// size.
func stopActiveSet(rt *Runtime) {
	for !rt.active.looking.CompareAndSwap(false, true) {
	}
	rt.active.due.Store(math.MaxInt64)
	rt.active.resize(rt, int32(len(rt.workers)))
	rt.active.looking.Store(false)
}

// newMockActiveSet returns an activeSet that the test drives, and a function. The function moves
// the clock to the next look, makes the set look with the given polls per nanosecond and loads, and
// returns the size.
func newMockActiveSet(workers int32) (a *activeSet, look func(rate float64, loads ...workerLoad) int32) {
	a = newActiveSet(Config{Workers: int(workers)})
	a.clocks = true
	now := int64(0)
	polls := 0.
	return a, func(rate float64, loads ...workerLoad) int32 {
		now += activeLookEvery
		polls += rate * float64(activeLookEvery)
		a.seen[0].polls = uint64(polls)
		a.rate = rate
		copy(a.loads, loads)
		for i := range a.loads {
			a.loads[i].polls = 0
			if i < int(a.size.Load()) {
				a.loads[i].polls = 1 / float64(a.size.Load())
			}
		}
		a.size.Store(a.decide(now, a.stalls))
		return a.size.Load()
	}
}

func TestActiveWorkersAreFewWhenIdle(t *testing.T) {
	_, look := newMockActiveSet(4)
	some, idle := workerLoad{awake: 0.25}, workerLoad{awake: 0.1}
	for range activeLooks - 1 {
		require.EqualValues(t, 4, look(1, some, some, some, some))
	}
	require.EqualValues(t, 2, look(1, some, some, some, some))
	for range activeLooks {
		look(1, idle, idle)
	}
	for range 100 {
		require.EqualValues(t, 1, look(1, idle, idle, idle))
		require.EqualValues(t, 1, look(1, workerLoad{}, workerLoad{}, workerLoad{}))
	}
}

// With SharedProcs all workers serve if they do little.
func TestActiveWorkersWithSharedProcs(t *testing.T) {
	a, look := newMockActiveSet(3)
	a.sharedProcs, a.clocks = true, false
	idle := workerLoad{awake: 0.1}
	for range 2 * activeLooks {
		require.EqualValues(t, 3, look(1, idle, idle, idle))
	}
	a.size.Store(1)
	require.EqualValues(t, 3, look(1, idle))
	some := workerLoad{awake: 0.3}
	require.EqualValues(t, 2, look(1, some, some, some), "a trial")
}

// endTrial looks until the trial that has begun is over, and returns the size.
func endTrial(a *activeSet, look func(rate float64, loads ...workerLoad) int32, rate float64, loads ...workerLoad) int32 {
	for a.trial.was != 0 {
		look(rate, loads...)
	}
	return a.size.Load()
}

// growOnTrial looks as often as it takes to begin a trial with more workers, and returns the size.
func growOnTrial(a *activeSet, look func(rate float64, loads ...workerLoad) int32, loads ...workerLoad) int32 {
	for range activeLooks - 1 {
		look(1, loads...)
	}
	was := a.size.Load()
	look(1, loads...)
	if a.trial.was != was {
		panic("there is no trial")
	}
	return a.size.Load()
}

func TestActiveWorkersGrowWhenSaturated(t *testing.T) {
	busy, half := workerLoad{awake: 1}, workerLoad{awake: 0.5}
	t.Run("more help", func(t *testing.T) {
		a, look := newMockActiveSet(2)
		a.size.Store(1)
		require.EqualValues(t, 2, growOnTrial(a, look, busy, half))
		require.EqualValues(t, 2, endTrial(a, look, 1.5, busy, busy))
	})
	t.Run("the load is what it was", func(t *testing.T) {
		a, look := newMockActiveSet(2)
		a.size.Store(1)
		require.EqualValues(t, 2, growOnTrial(a, look, busy, half))
		require.EqualValues(t, 2, endTrial(a, look, 1, half, half))
	})
	t.Run("more do not help", func(t *testing.T) {
		a, look := newMockActiveSet(2)
		a.size.Store(1)
		last := int64(0)
		for range 10 {
			held := int64(0)
			for a.trial.was == 0 {
				look(1, busy, half)
				held += activeLookEvery
			}
			require.Greater(t, held, last, "the holds become longer")
			require.LessOrEqual(t, held, activeLongestHold+activeLooks*activeLookEvery)
			if last = held; held >= activeLongestHold {
				last = 0 // the holds grow no further
			}
			require.EqualValues(t, 1, endTrial(a, look, 0.7, half, half))
		}
	})
}

// A trial is measured from the time when most connections have moved, or after a second. It ends
// when there have been enough polls.
func TestActiveTrialWaitsForMoves(t *testing.T) {
	busy, half := workerLoad{awake: 1}, workerLoad{awake: 0.5}
	a, look := newMockActiveSet(2)
	a.size.Store(1)
	require.EqualValues(t, 2, growOnTrial(a, look, busy, half))
	require.False(t, a.trial.moved)
	look(1, busy, half)
	require.True(t, a.trial.moved)
	moved := func(size int32, polls float64) bool {
		a.loads[1].polls = polls
		return a.haveMoved(size)
	}
	a.trial = activeTrial{was: 1}
	require.False(t, moved(2, 0.1))
	require.True(t, moved(2, 0.4))
	a.trial = activeTrial{was: 2, share: 0.5}
	require.False(t, moved(1, 0.2))
	require.True(t, moved(1, 0.1))

	a.trial = activeTrial{was: 1, from: 1, rate: 1}
	a.loads[1].polls = 0
	for at := int64(1); at < activeMoveTime; at += activeLookEvery {
		a.judge(at, 2, 1)
		require.False(t, a.trial.moved)
	}
	a.judge(activeMoveTime+1, 2, 1)
	require.True(t, a.trial.moved)
	a.judge(activeMoveTime+1+activeTrialTime, 2, 1)
	require.NotZero(t, a.trial.was, "nothing has been polled")
	a.judge(2*activeMoveTime+1, 2, 1)
	require.Zero(t, a.trial.was)
}

// A trial without a look for a while ends without a result.
func TestActiveTrialEndsAtAPause(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	stopActiveSet(rt)
	a := rt.active
	a.measure(rt, nanos())
	a.trial.was = 2
	a.measure(rt, a.at+activeLookEvery)
	require.NotZero(t, a.trial.was)
	a.measure(rt, a.at+activeLookGap+1)
	require.Zero(t, a.trial.was)
}

// While polls take long, all workers serve.
func TestActiveWorkersAreAllWhilePollsAreLong(t *testing.T) {
	a, look := newMockActiveSet(4)
	a.size.Store(1)
	a.long = true
	require.EqualValues(t, 4, look(1, workerLoad{awake: 0.3}))

	ms := float64(time.Millisecond)
	for _, c := range []struct {
		loads []workerLoad
		long  bool
	}{
		{[]workerLoad{{}, {}}, false},
		{[]workerLoad{{ran: 5 * ms, polled: 1000}, {}}, false},
		{[]workerLoad{{ran: 5 * ms, polled: 10}, {}}, true},
		{[]workerLoad{{ran: 5 * ms, polled: 1000}, {ran: 10 * ms, polled: 10}}, false}, // one task computes
		{[]workerLoad{{ran: 0.5 * ms, polled: 1}, {}}, false},                          // almost no work
	} {
		a.loads = c.loads
		require.Equal(t, c.long, a.mostAreLong())
	}
}

func TestActiveWorkersShrinkWhenStarved(t *testing.T) {
	starved := workerLoad{awake: 1, starved: 0.4}
	a, look := newMockActiveSet(2)
	require.EqualValues(t, 1, look(1, starved, starved))
	require.EqualValues(t, 1, endTrial(a, look, 1.1, starved, starved))
	a, look = newMockActiveSet(2)
	require.EqualValues(t, 1, look(1, starved, starved))
	require.EqualValues(t, 2, endTrial(a, look, 0.6, starved, starved), "other threads have the processor")
	require.EqualValues(t, 2, look(1, starved, starved), "not again at once")

	a, look = newMockActiveSet(2)
	a.clocks = false
	busy := workerLoad{awake: 1}
	require.EqualValues(t, 1, look(1, busy, busy), "the workers may be starved")
}

// After a stall all workers serve for a while, and a trial is over.
func TestActiveWorkersAreAllAfterAStall(t *testing.T) {
	a, look := newMockActiveSet(4)
	a.size.Store(1)
	growOnTrial(a, look, workerLoad{awake: 1})
	a.size.Store(a.decide(activeLookEvery, 1))
	require.EqualValues(t, 4, a.size.Load())
	require.Zero(t, a.trial.was)
	for range activeLongestHold/activeLookEvery - 2 {
		require.EqualValues(t, 4, look(1))
	}
	for range 2 + 3*activeLooks {
		look(1, make([]workerLoad, 4)...)
	}
	require.EqualValues(t, 1, a.size.Load())
}

// A worker that sleeps much less than another worker moves some of its descriptors.
func TestActiveWorkersBalance(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 3})
	stopActiveSet(rt)
	a := rt.active
	a.at, a.movedAt = 10*activeMoveEvery, 0
	copy(a.loads, []workerLoad{{awake: 0.8}, {awake: 0.7}, {awake: 0.4}})
	a.balance(rt)
	require.InDelta(t, 250, newOwners(rt.workers[0], 1000)[2], 60)
	require.True(t, rt.workers[0].reactor.rebalances.Load())
	require.Empty(t, newOwners(rt.workers[1], 1000))
	copy(a.loads, []workerLoad{{awake: 0.4}, {awake: 0.8}, {awake: 0.5}})
	a.balance(rt)
	require.Empty(t, newOwners(rt.workers[1], 1000), "not so soon")
	a.at += activeMoveEvery
	a.balance(rt)
	require.InDelta(t, 250, newOwners(rt.workers[1], 1000)[0], 60)
	require.Empty(t, newOwners(rt.workers[0], 1000), "no longer")
	require.False(t, rt.workers[0].reactor.rebalances.Load())
	a.at += activeMoveEvery
	copy(a.loads, []workerLoad{{awake: 0.5}, {awake: 0.7}, {awake: 0.6}})
	a.balance(rt)
	require.NotEmpty(t, newOwners(rt.workers[1], 1000), "until the next move")
}

// newOwners returns how many of the first n descriptors are to move from w to other workers, by
// worker.
func newOwners(w *worker, n int32) map[int]int {
	to := map[int]int{}
	for fd := range n {
		if o := w.activeOwner(fd); o != nil {
			to[o.index]++
		}
	}
	return to
}

// The load of a worker is the part of the time for which it was not parked, in finished parks and
// the present one.
func TestActiveLoadIsTimeNotParked(t *testing.T) {
	rt := &Runtime{cfg: Config{Workers: 2}}
	for i := range 2 {
		rt.workers = append(rt.workers, newWorker(rt, i))
	}
	a := newActiveSet(rt.cfg)
	now := int64(1000)
	a.measure(rt, now)
	require.Zero(t, a.loads[0].awake, "nothing is known yet")

	rt.workers[0].parkedTime.Store(-now) // it has been parked since then
	rt.workers[1].parkedTime.Store(activeLookEvery / 4)
	rt.workers[1].published[countPolls].Store(300)
	now += activeLookEvery
	a.measure(rt, now)
	require.Zero(t, a.loads[0].awake)
	require.InDelta(t, 0.75/2, a.loads[1].awake, 1e-6, "half of the value of this look")
	require.InDelta(t, 1, a.loads[1].polls, 1e-6)
	require.InDelta(t, 150/float64(activeLookEvery), a.rate, 1e-9)
	require.False(t, a.clocks)

	rt.workers[0].parkedTime.Store(activeLookEvery) // the park has ended
	now += 2 * activeLookEvery
	a.measure(rt, now)
	require.InDelta(t, 0.5, a.loads[0].awake, 1e-6)
	require.InDelta(t, (0.75/2+1)/2, a.loads[1].awake, 1e-6)
}

// The descriptors that move are spread over all active workers. It does not matter which workers
// were busy.
func TestActiveMovesSpreadEvenly(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 4})
	stopActiveSet(rt)
	a := rt.active
	even := func(each int, workers ...int) map[int]float64 {
		m := map[int]float64{}
		for _, i := range workers {
			m[i] = float64(each)
		}
		return m
	}
	requireNewOwners := func(want map[int]float64, of *worker) {
		got := map[int]float64{}
		for i, n := range newOwners(of, 3000) {
			got[i] = float64(n)
		}
		require.InDeltaMapValues(t, want, got, 150)
	}
	a.resize(rt, 3)
	requireNewOwners(even(1000, 0, 1, 2), rt.workers[3])
	requireNewOwners(even(0), rt.workers[0])
	a.resize(rt, 1)
	requireNewOwners(even(3000, 0), rt.workers[1])
	require.Equal(t, 1<<20, newOwners(rt.workers[1], 1<<20)[0], "all without exception")
	a.resize(rt, 4)
	requireNewOwners(even(750, 1, 2, 3), rt.workers[0])
	requireNewOwners(even(0), rt.workers[1])
	first := newOwners(rt.workers[0], 100)
	a.resize(rt, 1)
	a.resize(rt, 4)
	require.NotEqual(t, first, newOwners(rt.workers[0], 100), "other descriptors than the last time")
}

// Connections of a Serve that is bound to a worker stay there.
func TestActiveMovesNoPinnedServe(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: func(Task, error) {}})
	stopActiveSet(rt)
	conns := activeClients(t, pinned(rt, 1), rt, activeServers[0].serve, 8)
	echo := func() {
		for i, c := range conns {
			oneEcho(t, c, byte(i))
		}
	}
	echo()
	rt.active.resize(rt, 1)
	echo()
	echo()
	require.EqualValues(t, 9, rt.workers[1].reactor.registered.Load(), "and the listener")
}

// A connection stays on its worker while its Handler runs.
func TestActiveMovesNoRunningHandler(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: func(Task, error) {}})
	stopActiveSet(rt)
	rt.active.resize(rt, 1)
	calls := make(chan *worker, 8)
	conns := activeClients(t, rt, rt, func(cx *Context, ln Listener) error {
		return Serve(cx, ln, func(cx *Context, c Conn) (bool, error) {
			var buf [1]byte
			for {
				if _, err := c.Read(cx, buf[:]); err != nil {
					return false, nil
				}
				calls <- cx.here()
				if _, err := c.Write(cx, buf[:]); err != nil {
					return false, nil
				}
			}
		})
	}, 1)
	oneEcho(t, conns[0], 1)
	at := receive(t, calls)
	rt.active.resize(rt, 2)
	for range 4 {
		oneEcho(t, conns[0], 1)
		require.Same(t, at, receive(t, calls))
		require.EqualValues(t, 1, streamsAt(rt, at, conns[0]))
	}
}

// streamsAt returns how many descriptors of rt are registered with w, counting only those with the
// peer c.
func streamsAt(rt *Runtime, w *worker, c net.Conn) (n int) {
	for i := range rt.fds.chunks {
		chunk := rt.fds.chunks[i].Load()
		if chunk == nil {
			continue
		}
		for j := range chunk {
			s := chunk[j].Load()
			if s == nil || s.owner.Load() != &w.reactor {
				continue
			}
			if peer, err := unix.Getpeername(int(s.fd)); err == nil && peer.(*unix.SockaddrInet4).Port == c.LocalAddr().(*net.TCPAddr).Port {
				n++
			}
		}
	}
	return n
}

// activeServers are servers whose connections may move, and one server whose connections must not
// move.
var activeServers = []struct {
	name    string
	movable bool
	serve   func(cx *Context, ln Listener) error
}{
	{"Serve", true, func(cx *Context, ln Listener) error {
		return Serve(cx, ln, func(cx *Context, c Conn) (bool, error) {
			var buf [64]byte
			n, err := c.Read(cx, buf[:])
			if err == io.EOF {
				return false, nil
			}
			if err == nil {
				_, err = c.Write(cx, buf[:n])
			}
			return true, err
		})
	}},
	{"futures", true, acceptAll(func(cx *Context, c Conn) {
		p, buf, unwritten := c.(PollConn), make([]byte, 64), []byte(nil)
		SpawnFuture(cx, PollFunc(func(cx *Context) (None, error) {
			for {
				if len(unwritten) == 0 {
					n, err := p.PollRead(cx, buf)
					if err != nil {
						if err != ErrPending {
							c.Close()
						}
						return None{}, err
					}
					unwritten = buf[:n]
				}
				n, err := p.PollWrite(cx, unwritten)
				if err != nil {
					return None{}, err
				}
				unwritten = unwritten[n:]
			}
		}))
	})},
	{"straight-line code", false, acceptAll(func(cx *Context, c Conn) {
		Go(cx, func(cx *Context) error {
			defer c.Close()
			for buf := make([]byte, 64); ; {
				n, err := c.Read(cx, buf)
				if err == nil {
					_, err = c.Write(cx, buf[:n])
				}
				if err != nil {
					return err
				}
			}
		})
	})},
}

func acceptAll(handle func(cx *Context, c Conn)) func(cx *Context, ln Listener) error {
	return func(cx *Context, ln Listener) error {
		for {
			c, err := ln.Accept(cx)
			if err != nil {
				return err
			}
			handle(cx, c)
		}
	}
}

// activeClients connects clients to a server of rt, which on starts.
func activeClients(t *testing.T, on Spawner, rt *Runtime, serve func(cx *Context, ln Listener) error, n int) []net.Conn {
	ln, err := ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	h := Go(on, func(cx *Context) error { return serve(cx, ln) })
	var conns []net.Conn
	for range n {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		conns = append(conns, c)
	}
	t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
		ln.Close()
		eventually(t, func() bool { return rt.Metrics().Sources == 0 && h.state.done() })
	})
	return conns
}

func oneEcho(t testing.TB, c net.Conn, b byte) {
	var buf [1]byte
	_, err := c.Write([]byte{b})
	require.NoError(t, err)
	_, err = io.ReadFull(c, buf[:])
	require.NoError(t, err)
	require.Equal(t, b, buf[0])
}

// Connections move to the active workers after they have been served, and back.
func TestActiveMovesConnectionsAndBack(t *testing.T) {
	const n = 32
	for _, server := range activeServers {
		t.Run(server.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2, Unhandled: func(Task, error) {}})
			stopActiveSet(rt)
			conns := activeClients(t, rt, rt, server.serve, n)
			on := func(i int) int { return int(rt.workers[i].reactor.registered.Load()) }
			echo := func() {
				for i, c := range conns {
					oneEcho(t, c, byte(i))
				}
			}
			echo()
			require.Greater(t, on(0), n/8)
			require.Greater(t, on(1), n/8)
			rt.active.resize(rt, 1)
			echo()
			echo()
			if !server.movable {
				require.Greater(t, on(1), n/8)
				return
			}
			eventually(t, func() bool { return on(1) <= 1 }) // except for the listener
			rt.active.resize(rt, 2)
			echo()
			echo()
			eventually(t, func() bool { return on(0) >= n/8 && on(1) >= n/8 })
		})
	}
}

// No event is lost while the size changes all the time.
func TestActiveMovesLoseNoEvent(t *testing.T) {
	const n = 16
	rounds := 400
	if testing.Short() {
		rounds = 100
	}
	for _, server := range activeServers {
		t.Run(server.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 3, Unhandled: func(Task, error) {}})
			stopActiveSet(rt)
			conns := activeClients(t, rt, rt, server.serve, n)
			var over atomic.Bool
			var changes, clients sync.WaitGroup
			changes.Go(func() {
				for !over.Load() {
					rt.active.resize(rt, 1+rand.Int32N(3))
					w := rt.workers[rand.IntN(3)]
					w.moveRule.Store(uint64(newMoveRule(0.5, uint16(rand.IntN(100)), 0, 3)))
					w.reactor.rebalances.Store(true)
				}
			})
			for i, c := range conns {
				clients.Go(func() {
					for k := range rounds {
						if t.Failed() {
							return
						}
						oneEcho(t, c, byte(i+k))
					}
				})
			}
			clients.Wait()
			over.Store(true)
			changes.Wait()
		})
	}
}
