package async

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMutexByHand(t *testing.T) {
	wait := waitersOf(t)
	var m Mutex
	require.True(t, m.TryLock())
	require.False(t, m.TryLock())
	a, b := wait(m.LockFuture()), wait(m.LockFuture())
	require.False(t, a.ready(t), "polled without a wake")
	m.Unlock()
	require.True(t, a.woken())
	require.False(t, b.woken())
	require.False(t, b.ready(t), "it is not its turn")
	require.True(t, a.ready(t))
	m.Unlock()
	require.True(t, b.ready(t))
	m.Unlock()
	require.Zero(t, m.state.bits.Load())
	require.Zero(t, m.list.n)
}

// The first waiter is overtaken at most mutexTurns times, however late it runs after it was woken.
func TestMutexTurns(t *testing.T) {
	wait := waitersOf(t)
	var m Mutex
	m.TryLock()
	waiters := []*mockWaiter{wait(m.LockFuture()), wait(m.LockFuture()), wait(m.LockFuture())}
	for _, w := range waiters {
		turns := 0
		for m.Unlock(); m.TryLock(); m.Unlock() {
			turns++
		}
		require.Equal(t, mutexTurns, turns)
		require.True(t, w.woken())
		require.True(t, w.ready(t), "it was handed over")
	}
	m.Unlock()
	require.Zero(t, m.state.bits.Load())
}

// The first waiter is not woken more than mutexTries times without getting the mutex.
func TestMutexTries(t *testing.T) {
	wait := waitersOf(t)
	var m Mutex
	m.TryLock()
	waiters := []*mockWaiter{wait(m.LockFuture()), wait(m.LockFuture()), wait(m.LockFuture())}
	for _, w := range waiters {
		tries := 0
		for m.Unlock(); m.TryLock(); m.Unlock() {
			require.True(t, w.woken())
			require.False(t, w.ready(t))
			tries++
		}
		require.Equal(t, mutexTries, tries)
		require.True(t, w.ready(t))
	}
}

// A promise ends with the waiter to which it was made.
func TestMutexPromiseEnds(t *testing.T) {
	wait := waitersOf(t)
	var m Mutex
	m.TryLock()
	a, b := wait(m.LockFuture()), wait(m.LockFuture())
	for range mutexTries {
		m.Unlock()
		m.TryLock()
		a.ready(t)
	}
	a.cancel()
	m.Unlock()
	require.True(t, m.TryLock(), "nothing was promised to the second")
	require.False(t, b.ready(t))
	b.cancel()
	m.Unlock()
	require.Zero(t, m.state.bits.Load())
}

// Under permanent contention of tasks, no task waits for more turns than the bounds of all tasks
// before it allow. Without the bound a task waits for most of the turns, which are several times
// more.
func TestMutexStarvesNoTask(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const tasks, turnsEach = 6, 30_000
	var m Mutex
	var turns atomic.Int64
	var worst int64 // guarded by m
	// lock counts the turns from the moment at which its place in the queue is certain: there is no
	// promise about the turns before.
	lock := func(cx *Context) error {
		f, begun := m.LockFuture(), int64(-1)
		_, err := Await(cx, PollFunc(func(cx *Context) (None, error) {
			_, err := f.Poll(cx)
			if err == ErrPending && begun < 0 {
				begun = turns.Load()
			}
			return None{}, err
		}))
		if err == nil && begun >= 0 {
			worst = max(worst, turns.Load()-begun)
		}
		return err
	}
	var all []*JoinHandle[None]
	for i := range tasks {
		all = append(all, Go(aimAt(rt, i%2), func(cx *Context) error {
			for j := range turnsEach {
				if err := lock(cx); err != nil {
					return err
				}
				turns.Add(1)
				if j%3 == i%3 {
					Yield(cx)
				}
				m.Unlock()
			}
			return nil
		}))
	}
	for _, h := range all {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	require.EqualValues(t, tasks*turnsEach, turns.Load())
	t.Log("the longest wait, in turns:", worst)
	require.LessOrEqual(t, worst, int64(tasks*(mutexTurns+1)))
}

func TestMutexExcludes(t *testing.T) {
	var m Mutex
	inside := 0
	contend(t, 300, m.Lock, m.LockBlocking, m.LockFuture,
		func() {
			if inside++; inside != 1 {
				t.Error("two hold it")
			}
		},
		func() { inside--; m.Unlock() })
	require.Zero(t, m.state.bits.Load())
	require.Zero(t, m.list.n)
}

// FuzzMutex lets a few actors use a mutex in any order. It checks that at most one actor
// holds it, and that waiting actors are woken.
func FuzzMutex(f *testing.F) {
	const lock, poll, cancel, unlock, try = 0 << 4, 1 << 4, 2 << 4, 3 << 4, 4 << 4
	f.Add([]byte{lock, lock | 1, lock | 2, unlock, poll | 1, unlock | 1, poll | 2})
	f.Add([]byte{lock, lock | 1, unlock, try | 2, poll | 1, unlock | 2, try | 3, poll | 1, unlock | 3, try, poll | 1, unlock, try | 2, poll | 1, lock | 4, unlock | 2, try, cancel | 1, poll | 4})
	f.Add([]byte{lock, lock | 1, lock | 2, unlock, cancel | 1, poll | 2, lock | 3, cancel | 3, unlock | 2})
	f.Add([]byte{lock, lock | 1, lock | 2, cancel | 1, poll | 2, unlock, cancel | 2, try | 4})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var m Mutex
		type actor struct {
			w     *mockWaiter
			holds bool
		}
		actors := make([]actor, 6)
		take := func(a *actor) {
			for i := range actors {
				require.False(t, actors[i].holds, "two hold it")
			}
			a.w, a.holds = nil, true
		}
		check := func() {
			holder, waits, called, handed := 0, 0, 0, 0
			for _, a := range actors {
				switch {
				case a.holds:
					holder++
				case a.w != nil:
					waits++
					if a.w.woken() {
						called++
					}
					if a.w.f.(*lockFuture).w.phase == waiterChosen {
						handed++
						require.True(t, a.w.woken())
					}
				}
			}
			require.Equal(t, holder+handed == 1, m.state.locked())
			require.LessOrEqual(t, holder+handed, 1)
			require.Equal(t, waits-handed, m.list.n)
			if waits > 0 && holder == 0 {
				require.Positive(t, called, "it is free, and nobody comes for it")
			}
			if waits == 0 {
				require.Zero(t, m.state.bits.Load()&^mutexLocked)
			}
		}
		step := func(a *actor, op byte) {
			switch {
			case op == lock && a.w == nil && !a.holds:
				a.w = newMockWaiter(m.LockFuture())
				if a.w.ready(t) {
					take(a)
				}
			case op == poll && a.w != nil:
				if a.w.ready(t) {
					take(a)
				}
			case op == cancel && a.w != nil:
				a.w.cancel()
				a.w = nil
			case op == unlock && a.holds:
				a.holds = false
				m.Unlock()
			case op == try && a.w == nil && !a.holds:
				free := !m.state.locked()
				require.Equal(t, free, m.TryLock())
				if free {
					take(a)
				}
			}
			check()
		}
		for _, op := range ops {
			step(&actors[int(op&15)%len(actors)], op&0x70)
		}
		for again := true; again; {
			again = false
			for i := range actors {
				a := &actors[i]
				again = again || a.holds || a.w != nil && a.w.woken()
				step(a, unlock)
				if a.w != nil && a.w.woken() {
					step(a, poll)
				}
			}
		}
		for i := range actors {
			require.Nil(t, actors[i].w, "forgotten")
		}
		require.Zero(t, m.state.bits.Load())
	})
}
