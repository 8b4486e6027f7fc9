package async

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// onReused calls f on an ordinary goroutine with the descriptor g, which another goroutine had
// before. It reports false if the Go runtime has given the descriptor to a goroutine of its own or
// of other code.
func onReused(g uintptr, f func()) (called bool) {
	// Each processor keeps some descriptors of ended goroutines. A processor that is removed gives
	// its descriptors to the remaining processors.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	over := make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	defer close(over)
	for range 100_000 {
		found := make(chan bool)
		all.Go(func() {
			here := getg() == g
			if here {
				f()
			}
			found <- here
			<-over
		})
		if <-found {
			return true
		}
	}
	return false
}

// untilReused calls try until it reports that a descriptor was reused. That does not happen each
// time.
func untilReused(t *testing.T, try func(t *testing.T) (reused bool)) {
	for i := range 10 {
		reused := false
		t.Run(fmt.Sprint(i), func(t *testing.T) { reused = try(t) })
		if reused || t.Failed() {
			return
		}
	}
	t.Fatal("no goroutine got the descriptor of the one that has ended")
}

// requireOutside fails if the caller, an ordinary goroutine, is taken for a worker or for one of
// its coroutines.
func requireOutside(t *testing.T, joined *JoinHandle[None]) {
	if w := callersWorker(); w != nil {
		t.Errorf("an ordinary goroutine is taken for worker %d", w.index)
	}
	if text := misuse(func() { joined.JoinBlocking(context.Background()) }); text != "" {
		t.Errorf("Wait on an ordinary goroutine panics: %s", text)
	}
}

// Go gives the descriptor of a goroutine that has ended to another goroutine. The new goroutine is
// no worker, even if the old goroutine was one. Here the old goroutine is the coroutine that the
// worker ran last. It has ended since, as one of many free coroutines.
func TestIdentityEndsWithACoroutineThatIsTrimmed(t *testing.T) {
	untilReused(t, trimAndReuse)
}

func trimAndReuse(t *testing.T) (reused bool) {
	const burst = keepFree + 50
	rt := newTestRuntime(t, Config{Workers: 1, Tuning: Tuning{Spin: time.Hour}}) // does not park, and so does not forget the coroutine that ran last
	joined := Go(newTestRuntime(t, Config{Workers: 1}), func(*Context) error { return nil })
	_, err := joined.JoinBlocking(t.Context())
	require.NoError(t, err)

	var last uintptr
	c := NewChan[int](0)
	hs := make([]*JoinHandle[None], burst)
	for i := range hs {
		hs[i] = Go(rt, func(cx *Context) error {
			c.Recv(cx)
			last = getg()
			return nil
		})
	}
	eventually(t, func() bool { _, receivers := c.waitingCounts(); return receivers == burst })
	c.Close()
	for _, h := range hs {
		_, err := h.JoinBlocking(t.Context())
		require.NoError(t, err)
	}
	trimSooner(rt)
	eventually(t, func() bool { return rt.Metrics().Coroutines == keepFree }) // there were more
	return onReused(last, func() { requireOutside(t, joined) })
}

// The same if Shutdown unwinds the code while other code keeps the worker.
func TestIdentityEndsWithACoroutineThatIsUnwound(t *testing.T) {
	untilReused(t, unwindAndReuse)
}

func unwindAndReuse(t *testing.T) (reused bool) {
	rt, err := New(Config{Workers: 1, Grace: 50 * time.Millisecond, Stall: -1, Unhandled: func(Task, error) {}})
	require.NoError(t, err)
	joined := Go(newTestRuntime(t, Config{Workers: 1}), func(*Context) error { return nil })
	_, err = joined.JoinBlocking(t.Context())
	require.NoError(t, err)

	unwinds, goOn := make(chan struct{}), make(chan struct{})
	waits := Go(rt, func(cx *Context) error {
		defer func() {
			close(unwinds)
			<-goOn
		}()
		_, err := NewChan[int](0).Recv(cx.WithoutCancel())
		return err
	})
	eventually(t, func() bool { return waiting(waits) })
	runs := make(chan uintptr, 1)
	Go(rt, func(cx *Context) error {
		runs <- getg()
		for {
			Yield(cx) // it ignores its cancellation, and is always queued
		}
	})
	g := receive(t, runs)
	ended := later(func() (int, error) { return 0, rt.Shutdown(ended()) })
	receive(t, unwinds)
	reused = onReused(g, func() { requireOutside(t, joined) })
	close(goOn)
	require.Error(t, soon(t, ended).err)
	return reused
}

// countIdentities returns how many goroutines have the identity of a worker of rt or one of its
// coroutines, and how many have the identity of a shared reactor of any runtime.
func countIdentities(rt *Runtime) (own, lobbies int) {
	identities.mu.Lock()
	defer identities.mu.Unlock()
	all := identities.slots.Load().all
	for i := range all {
		if g := all[i].g.Load(); g == 0 || g == identityRemoved {
			continue
		}
		if id := all[i].id; id == sharedReactorIdentity {
			lobbies++
		} else if id.worker.rt == rt {
			own++
		}
	}
	return own, lobbies
}

// A coroutine that has ended in any way has no identity. The same holds for the goroutines of
// workers and of shared reactors.
func TestIdentitiesAreForgotten(t *testing.T) {
	_, before := countIdentities(nil)
	rt, err := New(Config{Workers: 2, Grace: 50 * time.Millisecond, Unhandled: func(Task, error) {}})
	require.NoError(t, err)
	a, b, err := SocketPair()
	require.NoError(t, err)
	defer a.Close()
	defer b.Close()
	cx, _ := newPollCx(t, rt)
	require.Equal(t, ErrPending, a.PollReadable(cx)) // starts the shared reactor

	stays := func(cx *Context) error { _, err := NewChan[int](0).Recv(cx.WithoutCancel()); return err }
	for _, fn := range []func(cx *Context) error{
		func(*Context) error { return nil },
		func(*Context) error { panic("as it may happen") },
		func(*Context) error { runtime.Goexit(); return nil },
	} {
		Go(rt, fn).JoinBlocking(t.Context())
	}
	for _, fn := range []func(cx *Context) error{
		stays,
		func(cx *Context) error { defer panic("while it is unwound"); return stays(cx) },
		func(cx *Context) error { defer Sleep(cx, time.Hour); return stays(cx) },
		func(cx *Context) error { defer runtime.Goexit(); return stays(cx) },
		func(cx *Context) error {
			defer func() {
				defer stays(cx)
				panic("on the way out")
			}()
			runtime.Goexit()
			return nil
		},
	} {
		h := Go(rt, fn)
		eventually(t, func() bool { return waiting(h) })
	}
	own, _ := countIdentities(rt)
	require.Greater(t, own, 3)
	require.Error(t, rt.Shutdown(ended()))
	eventually(t, func() bool {
		own, lobbies := countIdentities(rt)
		return own == 0 && lobbies <= before // shared reactors of earlier tests may end meanwhile
	})
}

// identitySteps returns how many slots a look-up of g compares.
func identitySteps(g uintptr) int {
	s := identities.slots.Load()
	for i := s.firstSlot(g); ; i++ {
		if key := s.all[i&(len(s.all)-1)].g.Load(); key == g || key == 0 {
			return i - s.firstSlot(g) + 1
		}
	}
}

// The test whether the caller is a worker takes as many steps with 256 workers, or with thousands
// of coroutines, as with one worker.
func TestIdentityCostsTheSameWithManyWorkers(t *testing.T) {
	mean := func() float64 {
		var mu sync.Mutex
		var all sync.WaitGroup
		steps, goroutines := 0, 2000
		together := make(chan struct{})
		for range goroutines {
			all.Go(func() {
				n := identitySteps(getg())
				mu.Lock()
				steps += n
				mu.Unlock()
				<-together
			})
		}
		close(together)
		all.Wait()
		return float64(steps) / float64(goroutines)
	}
	one := newTestRuntime(t, Config{Workers: 1, Stall: -1, SharedProcs: true})
	require.Less(t, mean(), 4.0)
	newTestRuntime(t, Config{Workers: 255, Stall: -1, SharedProcs: true})
	require.Less(t, mean(), 4.0)

	const many = 5000
	c := NewChan[int](0)
	hs := make([]*JoinHandle[None], many)
	for i := range hs {
		hs[i] = Go(one, func(cx *Context) error { c.Recv(cx); return nil })
	}
	eventually(t, func() bool { _, receivers := c.waitingCounts(); return receivers == many })
	require.Less(t, mean(), 4.0)
	c.Close()
	for _, h := range hs {
		_, err := h.JoinBlocking(t.Context())
		require.NoError(t, err)
	}
}

// The table gives the same answers as a map, and its size stays within its bounds.
func TestIdentityTableAgainstAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	table, want := newIdentityTable(), map[uintptr]*identity{}
	var keys []uintptr
	for round := range 40 {
		grows := round%8 < 4
		for range 500 {
			if n := len(keys); n > 0 && (random.IntN(4) == 0) == grows {
				i := random.IntN(n)
				g := keys[i]
				keys[i] = keys[n-1]
				keys = keys[:n-1]
				table.remove(g)
				delete(want, g)
			} else {
				g := uintptr(random.IntN(1<<20))*64 + 1<<30
				if want[g] != nil {
					continue
				}
				id := new(identity)
				table.add(g, id)
				want[g], keys = id, append(keys, g)
			}
			require.Equal(t, len(want), table.live)
			n := len(table.slots.Load().all)
			require.LessOrEqual(t, 4*table.used, n)
			require.LessOrEqual(t, n, max(32*table.live, identitySlotsMin))
		}
		for range 100 {
			g := uintptr(random.IntN(1<<20))*64 + 1<<30
			require.True(t, table.of(g) == want[g], fmt.Sprintf("%x", g))
		}
		for g, id := range want {
			require.True(t, table.of(g) == id, fmt.Sprintf("%x", g))
		}
	}
}

// Goroutines begin and end, and the table grows and shrinks. Each goroutine finds itself as long as
// it is in the table, and not longer.
func TestIdentityTableWhileItChanges(t *testing.T) {
	table := newIdentityTable()
	rounds := 200
	if testing.Short() {
		rounds = 40
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range rounds {
				var some sync.WaitGroup
				for range 1 + i*10 {
					some.Go(func() {
						g, id := getg(), new(identity)
						for range 3 {
							if table.of(g) != nil {
								t.Error("a goroutine has the identity of a former one")
							}
							table.add(g, id)
							if table.of(g) != id {
								t.Error("a goroutine does not find itself")
							}
							runtime.Gosched()
							if table.of(g) != id {
								t.Error("a goroutine does not find itself")
							}
							table.remove(g)
						}
					})
				}
				some.Wait()
			}
		})
	}
	all.Wait()
	require.Zero(t, table.live)
}
