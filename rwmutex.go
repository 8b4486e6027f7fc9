package async

import (
	"context"
	"sync/atomic"
)

// An RWMutex is a reader/writer mutual exclusion lock that is waited for without
// blocking a worker: any number of readers hold it at the same time, or one
// writer. The zero value is unlocked. It may be held while awaiting, is not bound
// to a task, and must not be copied after first use. All methods may be called by
// tasks and goroutines at the same time.
//
// One of the readers may be upgradable (ULock): ordinary readers come and go beside it, and
// Upgrade makes it the writer, without another writer in between.
//
// Writers go first, but not always. A writer whose turn has come waits for the readers that
// hold the lock then, and lets no new ones in; when it unlocks, all readers that wait by
// then are let in before the next writer. So a reader is overtaken by at most one writer,
// and a writer whose turn has come by no reader. Among writers and upgradable readers the
// turn is given as a Mutex is, with the same bound.
//
// Like a Mutex, a free RWMutex is locked without letting other tasks run.
//
// A task that holds a read lock must not take another one: if a writer waits, the task and
// the writer wait for each other, as with sync.RWMutex.
type RWMutex struct {
	// turn is held by the writer, by the one writer that waits for readers to
	// go, and by the upgradable reader.
	turn  Mutex
	state rwState

	// Both lists are guarded by the lock of readers. At most one waiter is in writer: the
	// one that has the turn.
	readers waitlist
	writer  waitlist
}

// rwState is the word that says how many readers hold an RWMutex, and whether
// more may.
type rwState struct{ bits atomic.Int64 }

const (
	// rwWriter is set by the caller that has the turn and writes, or waits for readers to
	// go so as to write. No reader gets in while it is set.
	rwWriter int64 = 1 << iota

	// rwWaiting is set, under the lock of the lists, by a reader that waits.
	// Only together with rwWriter, and cleared with it, under that lock.
	rwWaiting

	// rwReader is the unit of the remaining bits, which count the readers.
	rwReader
)

// lockShared adds a reader, unless there is a writer.
func (s *rwState) lockShared() bool {
	for {
		old := s.bits.Load()
		if old&rwWriter != 0 {
			return false
		}
		if s.bits.CompareAndSwap(old, old+rwReader) {
			return true
		}
	}
}

// queue notes, under the lock of the lists, that a reader waits. It reports false
// if the reader got in instead.
func (s *rwState) queue() bool {
	for {
		old := s.bits.Load()
		switch {
		case old&rwWriter == 0:
			if s.lockShared() {
				return false
			}
		case old&rwWaiting != 0 || s.bits.CompareAndSwap(old, old|rwWaiting):
			return true
		}
	}
}

// unlockShared takes a reader off, and reports whether it was the last and a writer waits
// for that.
func (s *rwState) unlockShared() (last bool) {
	for {
		old := s.bits.Load()
		if old < rwReader {
			panic("async: RUnlock of unlocked RWMutex")
		}
		if s.bits.CompareAndSwap(old, old-rwReader) {
			return old < 2*rwReader && old&rwWriter != 0
		}
	}
}

// shut lets no more readers in, and reports whether no reader holds the lock.
func (s *rwState) shut() (free bool) { return s.bits.Or(rwWriter) < rwReader }

// written reports whether a writer holds the lock.
func (s *rwState) written() bool {
	old := s.bits.Load()
	return old&rwWriter != 0 && old < rwReader
}

// open lets readers in again, and makes n more hold the lock. Unless listed, which says
// that the caller has the lock of the lists, it does so only if no reader waits, and
// reports whether it has.
func (s *rwState) open(n int, listed bool) bool {
	for {
		old := s.bits.Load()
		if old&rwWaiting != 0 && !listed {
			return false
		}
		if s.bits.CompareAndSwap(old, old&^(rwWriter|rwWaiting)+int64(n)*rwReader) {
			return true
		}
	}
}

// readersOnly reports whether the lock has readers and no writer.
func (s *rwState) readersOnly() bool { return s.bits.Load()&rwWriter == 0 }

// RLock waits until no writer holds the lock or is about to, and locks it for reading. It
// fails only if cx is cancelled, with cx.Err(), and has then not locked it; nothing is lost
// but the place among the waiters.
func (rw *RWMutex) RLock(cx *Context) error {
	if cx.callers() && cx.calm() && rw.state.lockShared() {
		return nil
	}
	return rw.rlockSlow(cx)
}

func (rw *RWMutex) rlockSlow(cx *Context) error {
	if err := cx.mustAwait(); err != nil {
		return err
	}
	if rw.state.lockShared() {
		return nil
	}
	_, err := Await(cx, rw.RLockFuture())
	return err
}

// TryRLock locks for reading if no writer holds the lock or waits for readers to
// go, and reports whether it has.
func (rw *RWMutex) TryRLock() bool { return rw.state.lockShared() }

// RLockBlocking is RLock for a goroutine outside the pool, which it parks. It
// fails only if ctx ends, with ctx.Err(). It panics in tasks.
func (rw *RWMutex) RLockBlocking(ctx context.Context) error {
	mustNotBlock("RWMutex.RLockBlocking", "mu.RLock(cx)")
	if err := ctx.Err(); err != nil {
		return err
	}
	if rw.state.lockShared() {
		return nil
	}
	_, err := awaitParked(ctx, rw.RLockFuture())
	return err
}

// RLockFuture returns RLock as a future. When it is ready the lock is held. Given up before
// that it unlocks the lock if that had been given to it.
func (rw *RWMutex) RLockFuture() Future[None] { return &rlockFuture{rw: rw} }

// RUnlock undoes one RLock. It panics if there is no reader.
func (rw *RWMutex) RUnlock() {
	if rw.state.unlockShared() {
		rw.lastReader()
	}
}

// lastReader wakes the writer that waits, if that holds the lock now. Much may have
// happened since the reader went.
func (rw *RWMutex) lastReader() {
	var t *task
	rw.readers.mu.Lock()
	if w := rw.writer.first; w != nil && rw.state.written() {
		t = rw.writer.choose(w)
	}
	rw.readers.mu.Unlock()
	wakeChosen(t)
}

// reopen ends the exclusion of readers, which a writer has begun: it makes n readers hold
// the lock, and lets in the readers that wait.
func (rw *RWMutex) reopen(n int) {
	if rw.state.open(n, false) {
		return
	}
	var chosen chosenTasks
	rw.readers.mu.Lock()
	rw.state.open(n+rw.readers.n, true)
	rw.readers.chooseAll(&chosen)
	rw.readers.mu.Unlock()
	chosen.wake()
}

// Lock waits until no other caller holds the lock, and locks it for writing. It fails only
// if cx is cancelled, with cx.Err(), and has then not locked it; nothing is lost but the
// place in the queue.
func (rw *RWMutex) Lock(cx *Context) error {
	if err := rw.turn.Lock(cx); err != nil {
		return err
	}
	if rw.state.shut() {
		return nil
	}
	_, err := Await(cx, &drainFuture{rw: rw, shut: true, turn: true})
	return err
}

// TryLock locks for writing if no caller holds the lock, and reports whether it has.
func (rw *RWMutex) TryLock() bool {
	if rw.state.bits.Load() != 0 || !rw.turn.TryLock() {
		return false
	}
	if rw.state.bits.CompareAndSwap(0, rwWriter) {
		return true
	}
	rw.turn.Unlock()
	return false
}

// LockBlocking is Lock for a goroutine outside the pool, which it parks. It fails
// only if ctx ends, with ctx.Err(). It panics in tasks.
func (rw *RWMutex) LockBlocking(ctx context.Context) error {
	mustNotBlock("RWMutex.LockBlocking", "mu.Lock(cx)")
	if err := ctx.Err(); err != nil {
		return err
	}
	if rw.TryLock() {
		return nil
	}
	_, err := awaitParked(ctx, rw.LockFuture())
	return err
}

// LockFuture returns Lock as a future. When it is ready the lock is held. Given up before
// that it lets in the callers that waited for it.
func (rw *RWMutex) LockFuture() Future[None] {
	return &writeFuture{turn: lockFuture{m: &rw.turn}, drain: drainFuture{rw: rw, turn: true}}
}

// Unlock ends the write lock that Lock, or Upgrade, has taken. It panics if no writer holds it.
func (rw *RWMutex) Unlock() {
	rw.mustBeWritten("Unlock")
	rw.reopen(0)
	rw.turn.Unlock()
}

// Downgrade makes the writer a reader, which then calls RUnlock. No other caller can have
// written in between. It panics if no writer holds the lock.
func (rw *RWMutex) Downgrade() {
	rw.mustBeWritten("Downgrade")
	rw.reopen(1)
	rw.turn.Unlock()
}

// DowngradeToU makes the writer the upgradable reader, which then calls UUnlock. No other
// caller can have written in between. It panics if no writer holds the lock.
func (rw *RWMutex) DowngradeToU() {
	rw.mustBeWritten("DowngradeToU")
	rw.reopen(0)
}

func (rw *RWMutex) mustBeWritten(op string) {
	if !rw.state.written() {
		panic("async: " + op + " of an RWMutex that is not locked for writing")
	}
}

// ULock waits until there is neither a writer nor another upgradable reader, and locks for
// reading with the right to Upgrade. It fails only if cx is cancelled, with cx.Err(), and
// has then not locked it; nothing is lost but the place in the queue.
func (rw *RWMutex) ULock(cx *Context) error { return rw.turn.Lock(cx) }

// TryULock locks for upgradable reading if there is neither a writer nor another
// upgradable reader, and reports whether it has.
func (rw *RWMutex) TryULock() bool { return rw.turn.TryLock() }

// ULockBlocking is ULock for a goroutine outside the pool, which it parks. It
// fails only if ctx ends, with ctx.Err(). It panics in tasks.
func (rw *RWMutex) ULockBlocking(ctx context.Context) error {
	mustNotBlock("RWMutex.ULockBlocking", "mu.ULock(cx)")
	return rw.turn.LockBlocking(ctx)
}

// ULockFuture returns ULock as a future. When it is ready the lock is held. Given up before
// that it passes on the lock if that had been handed to it.
func (rw *RWMutex) ULockFuture() Future[None] { return rw.turn.LockFuture() }

// UUnlock undoes a ULock. It panics if there is no upgradable reader.
func (rw *RWMutex) UUnlock() {
	rw.mustBeUpgradable("UUnlock")
	rw.turn.Unlock()
}

// UDowngrade makes the upgradable reader an ordinary reader, which then calls RUnlock. It
// panics if there is no upgradable reader.
func (rw *RWMutex) UDowngrade() {
	rw.mustBeUpgradable("UDowngrade")
	rw.state.lockShared() // there is no writer, and can be none before the turn ends
	rw.turn.Unlock()
}

// Upgrade makes the upgradable reader the writer: it lets no new readers in and waits until
// the other readers have gone. No other caller can have written since ULock. Unlock or a
// downgrade ends it.
//
// It fails only if cx is cancelled, with cx.Err(), and the caller is then still the
// upgradable reader. It panics if there is no upgradable reader.
func (rw *RWMutex) Upgrade(cx *Context) error {
	rw.mustBeUpgradable("Upgrade")
	if cx.callers() && cx.calm() && rw.TryUpgrade() {
		return nil
	}
	_, err := Await(cx, &drainFuture{rw: rw})
	return err
}

// TryUpgrade makes the upgradable reader the writer if there are no other
// readers, and reports whether it has. It panics if there is no upgradable reader.
func (rw *RWMutex) TryUpgrade() bool {
	rw.mustBeUpgradable("TryUpgrade")
	return rw.state.bits.CompareAndSwap(0, rwWriter)
}

// UpgradeBlocking is Upgrade for a goroutine outside the pool, which it parks. It
// fails only if ctx ends, with ctx.Err(). It panics in tasks, and if there is no
// upgradable reader.
func (rw *RWMutex) UpgradeBlocking(ctx context.Context) error {
	mustNotBlock("RWMutex.UpgradeBlocking", "mu.Upgrade(cx)")
	rw.mustBeUpgradable("UpgradeBlocking")
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := awaitParked(ctx, &drainFuture{rw: rw})
	return err
}

// UpgradeFuture returns Upgrade as a future. When it is ready the caller is the
// writer. Given up before that it lets readers in again. It
// panics if there is no upgradable reader, here and when it is polled first.
func (rw *RWMutex) UpgradeFuture() Future[None] {
	rw.mustBeUpgradable("UpgradeFuture")
	return &drainFuture{rw: rw}
}

func (rw *RWMutex) mustBeUpgradable(op string) {
	if !rw.turn.state.locked() || !rw.state.readersOnly() {
		panic("async: " + op + " of an RWMutex that is not locked for upgradable reading")
	}
}

// rlockFuture is a reader that waits for a writer to go.
type rlockFuture struct {
	rw     *RWMutex
	queued bool // its waiter has a place in the list, or the lock
	w      waiter
}

func (f *rlockFuture) Poll(cx *Context) (None, error) {
	rw := f.rw
	if !f.queued {
		cx.here()
		if rw.state.lockShared() {
			return None{}, nil
		}
	}
	t := cx.waker(waitsLock)
	rw.readers.mu.Lock()
	defer rw.readers.mu.Unlock()
	switch {
	case f.w.phase == waiterChosen:
		rw.readers.leave(&f.w)
	case f.w.phase == waiterIn || rw.state.queue():
		rw.readers.join(&f.w, t)
		f.queued = true
		return None{}, ErrPending
	}
	f.queued = false
	return None{}, nil
}

// Cancel implements canceler.
func (f *rlockFuture) Cancel() {
	if !f.queued {
		return
	}
	f.queued = false
	f.rw.readers.mu.Lock()
	was := f.rw.readers.leave(&f.w)
	f.rw.readers.mu.Unlock()
	if was == waiterChosen {
		f.rw.RUnlock()
	}
}

// writeFuture waits for the turn, then for the readers to go.
type writeFuture struct {
	turn   lockFuture
	turned bool
	drain  drainFuture
}

func (f *writeFuture) Poll(cx *Context) (None, error) {
	if !f.turned {
		if _, err := f.turn.Poll(cx); err != nil {
			return None{}, err
		}
		f.turned = true
	}
	_, err := f.drain.Poll(cx)
	f.turned = err != nil
	return None{}, err
}

// Cancel implements canceler.
func (f *writeFuture) Cancel() {
	if f.turned {
		f.turned = false
		f.drain.Cancel()
	} else {
		f.turn.Cancel()
	}
}

// drainFuture is the waiter that has the turn, and waits for the readers to go.
type drainFuture struct {
	rw   *RWMutex
	shut bool // no new readers get in
	turn bool // Cancel ends the turn
	w    waiter
}

func (f *drainFuture) Poll(cx *Context) (None, error) {
	rw := f.rw
	if !f.shut {
		cx.here()
		if !f.turn {
			rw.mustBeUpgradable("UpgradeFuture") // or there would be two writers
		}
		if rw.state.shut() {
			return None{}, nil
		}
		f.shut = true
	}
	t := cx.waker(waitsLock)
	rw.readers.mu.Lock()
	defer rw.readers.mu.Unlock()
	if !rw.state.written() {
		rw.writer.join(&f.w, t)
		return None{}, ErrPending
	}
	rw.writer.leave(&f.w)
	f.shut = false
	return None{}, nil
}

// Cancel implements canceler.
func (f *drainFuture) Cancel() {
	if f.shut {
		f.shut = false
		f.rw.readers.mu.Lock()
		f.rw.writer.leave(&f.w)
		f.rw.readers.mu.Unlock()
		f.rw.reopen(0)
	}
	if f.turn {
		f.rw.turn.Unlock()
	}
}
