package async

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRWMutexByHand(t *testing.T) {
	wait := waitersOf(t)
	var m RWMutex
	require.True(t, m.TryRLock() && m.TryRLock())
	require.False(t, m.TryLock())
	require.True(t, m.TryULock(), "beside ordinary readers")
	require.False(t, m.TryULock(), "only one is upgradable")
	require.False(t, m.TryLock())
	require.False(t, m.TryUpgrade(), "there are readers")
	m.RUnlock()
	m.RUnlock()
	require.True(t, m.TryUpgrade())
	require.False(t, m.TryRLock() || m.TryULock() || m.TryLock())
	m.DowngradeToU()
	require.True(t, m.TryRLock())
	m.RUnlock()
	m.UDowngrade()
	require.True(t, m.TryULock())
	require.False(t, m.TryUpgrade(), "it has become a reader")
	m.RUnlock()
	m.UUnlock()
	require.True(t, m.TryLock())

	reader := wait(m.RLockFuture())
	m.Downgrade()
	require.True(t, reader.woken() && reader.ready(t))
	require.False(t, m.TryLock())
	m.RUnlock()
	m.RUnlock()
	require.Zero(t, m.state.bits.Load())
	require.True(t, m.TryLock())
}

// Upgrade lets no other writer in between, although writers wait.
func TestRWMutexUpgrade(t *testing.T) {
	wait := waitersOf(t)
	var m RWMutex
	require.True(t, m.TryULock() && m.TryRLock())
	writer := wait(m.LockFuture())
	require.True(t, m.TryRLock(), "a writer whose turn has not come keeps no readers out")
	upgrade := wait(m.UpgradeFuture())
	require.False(t, m.TryRLock())
	late := wait(m.RLockFuture())
	m.RUnlock()
	require.False(t, upgrade.woken())
	m.RUnlock()
	require.True(t, upgrade.woken() && upgrade.ready(t))
	require.False(t, writer.woken())
	require.False(t, m.TryRLock())
	m.Unlock()
	require.True(t, late.woken() && late.ready(t))
	require.True(t, writer.woken())
	require.False(t, writer.ready(t))
	m.RUnlock()
	require.True(t, writer.woken() && writer.ready(t))
}

// However many writers wait, a reader waits only for the writer that it has found.
func TestRWMutexReadersDoNotStarve(t *testing.T) {
	wait := waitersOf(t)
	var m RWMutex
	require.True(t, m.TryLock())
	next := wait(m.LockFuture())
	for range 100 {
		after := wait(m.LockFuture())
		readers := []*mockWaiter{wait(m.RLockFuture()), wait(m.RLockFuture())}
		m.Unlock()
		require.True(t, next.woken())
		require.False(t, next.ready(t))
		for _, r := range readers {
			require.True(t, r.woken() && r.ready(t))
		}
		require.False(t, m.TryRLock(), "the next writer's turn has come")
		m.RUnlock()
		m.RUnlock()
		require.True(t, next.woken() && next.ready(t))
		next = after
	}
}

// However many readers arrive, a writer whose turn it is waits only for the readers that it has
// found.
func TestRWMutexWriterDoesNotStarve(t *testing.T) {
	wait := waitersOf(t)
	var m RWMutex
	for range 100 {
		require.True(t, m.TryRLock())
	}
	writer := wait(m.LockFuture())
	var late []*mockWaiter
	for range 100 {
		require.False(t, writer.woken())
		late = append(late, wait(m.RLockFuture()))
		m.RUnlock()
	}
	require.True(t, writer.woken() && writer.ready(t))
	m.Unlock()
	for _, r := range late {
		require.True(t, r.woken() && r.ready(t))
	}
}

// The last reader is late to wake the writer. By then another writer waits in its place, for
// readers of its own.
func TestRWMutexLateReader(t *testing.T) {
	wait := waitersOf(t)
	var m RWMutex
	require.True(t, m.TryRLock())
	writer := wait(m.LockFuture())
	require.True(t, m.state.unlockShared(), "it has gone, and is about to tell")
	require.True(t, writer.ready(t))
	m.lastReader()
	m.Unlock()
	require.True(t, m.TryRLock())
	writer = wait(m.LockFuture())
	m.lastReader()
	require.False(t, writer.woken() || writer.ready(t))
	m.RUnlock()
	require.True(t, writer.woken() && writer.ready(t))
}

// Writers are overtaken no more often than callers of a Mutex.
func TestRWMutexTurns(t *testing.T) {
	wait := waitersOf(t)
	var m RWMutex
	m.TryLock()
	writer := wait(m.LockFuture())
	turns := 0
	for m.Unlock(); m.TryLock(); m.Unlock() {
		turns++
	}
	require.Equal(t, mutexTurns, turns)
	require.True(t, writer.woken() && writer.ready(t))
}

func TestRWMutexExcludes(t *testing.T) {
	var m RWMutex
	inside := 0
	contend(t, 300, m.Lock, m.LockBlocking, m.LockFuture,
		func() {
			if inside++; inside != 1 {
				t.Error("two hold it")
			}
		},
		func() { inside--; m.Unlock() })
	require.Zero(t, m.state.bits.Load())
}

// Readers, upgradable readers and writers run together. The race detector watches value.
func TestRWMutexTogether(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	const tasks, times = 8, 200
	var m RWMutex
	value := 0
	var all []*JoinHandle[None]
	for i := range tasks {
		all = append(all, Go(aimAt(rt, i%2), func(cx *Context) error {
			for j := range times {
				switch (i + j) % 4 {
				case 0:
					if err := m.Lock(cx); err != nil {
						return err
					}
					value++
					if j%2 == 0 {
						m.Unlock()
						continue
					}
					m.Downgrade()
					m.RUnlock()
				case 1:
					if err := m.ULock(cx); err != nil {
						return err
					}
					seen := value
					Yield(cx)
					if err := m.Upgrade(cx); err != nil {
						return err
					}
					if value != seen {
						return fmt.Errorf("somebody has written: %d, %d", seen, value)
					}
					value++
					m.DowngradeToU()
					m.UUnlock()
				default:
					if err := m.RLock(cx); err != nil {
						return err
					}
					seen := value
					Yield(cx)
					if value != seen {
						return fmt.Errorf("somebody writes: %d, %d", seen, value)
					}
					m.RUnlock()
				}
			}
			return nil
		}))
	}
	for _, h := range all {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	require.Equal(t, tasks*times/2, value)
	require.Zero(t, m.state.bits.Load())
}

// FuzzRWMutex lets a few actors use the lock in any order, each in all its ways,
// and checks it against counters.
func FuzzRWMutex(f *testing.F) {
	const actors = 6
	// The ways in which an actor may hold the lock.
	const (
		out = iota
		reads
		mayUpgrade
		writes
	)
	// The operations. For an actor that cannot do its operation, step does nothing.
	const rlock, lock, ulock, upgrade, poll, cancel, unlock, downgrade = 0 << 4, 1 << 4, 2 << 4, 3 << 4, 4 << 4, 5 << 4, 6 << 4, 7 << 4
	f.Add([]byte{rlock, rlock | 1, lock | 2, rlock | 3, unlock, unlock | 1, poll | 2, unlock | 2, poll | 3})
	f.Add([]byte{ulock, rlock | 1, rlock | 2, upgrade, rlock | 3, unlock | 1, unlock | 2, poll, downgrade, poll | 3, unlock})
	f.Add([]byte{rlock, lock | 1, rlock | 2, cancel | 1, poll | 2, lock | 3, unlock, unlock | 2, poll | 3, downgrade | 3, lock | 4, unlock | 3})
	f.Add([]byte{ulock, rlock | 1, upgrade, rlock | 2, lock | 3, cancel, poll | 2, unlock, poll | 3, cancel | 3})
	f.Add([]byte{lock, lock | 1, lock | 2, rlock | 3, unlock, poll | 1, cancel | 1, poll | 2, poll | 3, unlock | 3, poll | 2})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var m RWMutex
		type actor struct {
			stands, wants int
			w             *mockWaiter
		}
		all := make([]actor, actors)
		var n [4]int // how many actors hold it in each way
		stand := func(a *actor, s int) {
			n[a.stands]--
			a.stands = s
			n[s]++
			require.LessOrEqual(t, n[writes]+n[mayUpgrade], 1)
			if n[writes] > 0 {
				require.Zero(t, n[reads])
			}
		}
		n[out] = actors
		poll1 := func(a *actor) {
			if a.w.ready(t) {
				stand(a, a.wants)
				a.w = nil
			}
		}
		wait := func(a *actor, f Future[None], wants int) {
			a.w, a.wants = newMockWaiter(f), wants
			poll1(a)
		}
		step := func(a *actor, op byte) {
			switch s := a.stands; {
			case op == poll:
				if a.w != nil {
					poll1(a)
				}
			case op == cancel:
				if a.w != nil {
					a.w.cancel()
					a.w = nil
				}
			case a.w != nil:
			case s == out && op == rlock:
				free := n[writes] == 0 && m.state.readersOnly()
				wait(a, m.RLockFuture(), reads)
				require.Equal(t, free, a.w == nil, "a reader waits for writers only")
			case s == out && op == lock:
				wait(a, m.LockFuture(), writes)
			case s == out && op == ulock:
				wait(a, m.ULockFuture(), mayUpgrade)
			case s == mayUpgrade && op == upgrade:
				alone := n[reads] == 0
				wait(a, m.UpgradeFuture(), writes)
				if a.w == nil {
					require.True(t, alone)
				}
			case s == reads && op == unlock:
				stand(a, out)
				m.RUnlock()
			case s == writes && op == unlock:
				stand(a, out)
				m.Unlock()
			case s == mayUpgrade && op == unlock:
				stand(a, out)
				m.UUnlock()
			case s == writes && op == downgrade:
				stand(a, reads)
				m.Downgrade()
			case s == writes && op == upgrade:
				stand(a, mayUpgrade)
				m.DowngradeToU()
			case s == mayUpgrade && op == downgrade:
				stand(a, reads)
				m.UDowngrade()
			}
			waits, woken := 0, 0
			for i := range all {
				if w := all[i].w; w != nil {
					waits++
					if w.woken() {
						woken++
					}
				}
			}
			if waits > 0 && n[out] == actors {
				require.Positive(t, woken, "it is free, and nobody comes for it")
			}
			require.LessOrEqual(t, int64(n[reads]), m.state.bits.Load()/rwReader)
		}
		for _, op := range ops {
			step(&all[int(op&15)%actors], op&0x70)
		}
		for again := true; again; {
			again = false
			for i := range all {
				a := &all[i]
				if a.w != nil && a.w.woken() {
					again = true
					step(a, poll)
				}
				if a.w == nil && a.stands != out {
					again = true
					step(a, unlock)
				}
			}
		}
		for i := range all {
			// An upgradable reader that waits to upgrade waits for readers only.
			require.Nil(t, all[i].w, "forgotten")
		}
		require.Zero(t, m.state.bits.Load())
		require.Zero(t, m.turn.state.bits.Load())
	})
}
