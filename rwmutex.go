package async

import (
	"context"
	"sync/atomic"
)

// An RWMutex is a reader/writer mutual exclusion lock: any number of readers hold it at the same
// time, or one writer. A task that waits for it does not block its worker. The zero value is
// unlocked. An RWMutex may be held while its holder awaits, is not bound to a task, and must not be
// copied after first use. Its methods are safe for concurrent use by tasks and goroutines.
//
// One of the readers may be upgradable ([RWMutex.ULock]). Ordinary readers lock and unlock beside
// it. [RWMutex.Upgrade] makes it the writer, and no other writer can have written in between.
//
// Writers go before readers, within bounds. A writer whose turn it is waits for the readers that
// hold the lock, and lets no new readers in. When it unlocks, all readers that wait by then are let
// in before the next writer. So a reader is overtaken by at most one writer, and a writer whose
// turn it is by no reader. Writers and upgradable readers get the turn as callers get a [Mutex],
// with the same bounds.
//
// Locking a free RWMutex does not let other tasks run; see [Mutex].
//
// A task that holds a read lock must not lock for reading again. If a writer waits, the task and
// the writer would wait for each other, as with [sync.RWMutex].
type RWMutex struct {
	// turn is held by one caller: the writer, the writer that waits for readers to unlock, or the
	// upgradable reader.
	turn  Mutex
	state rwState

	// The lock of readers guards both lists. At most one waiter is in writer: the caller that holds
	// the turn.
	readers waitlist
	writer  waitlist
}

// rwState is the word that says how many readers hold an RWMutex, and whether more readers may lock
// it. An upgradable reader is not counted: it holds the turn.
//
// RLock:
//
//  1. If rwWriter is clear, add a reader (lockShared).
//  2. If not, take the lock of the lists, set rwWaiting (queue) and join readers. If rwWriter was
//     cleared in between, queue adds the reader instead.
//
// RUnlock:
//
//  1. Subtract a reader (unlockShared).
//  2. If it was the last and rwWriter is set, take the lock of the lists and wake the writer
//     (lastReader).
//
// Lock:
//
//  1. Lock turn.
//  2. Set rwWriter: no more readers get in (shut). If there are no readers the writer has the lock.
//  3. If there are readers, take the lock of the lists, look at the count again, and join writer
//     (drainFuture). Upgrade does steps 2 and 3: the upgradable reader has the turn.
//
// Unlock, and a writer that is given up in step 3:
//
//  1. Clear rwWriter (reopen). If rwWaiting is set, do this under the lock of the lists, and make
//     all readers in the list hold the lock in the same step.
//  2. Unlock turn, except after an Upgrade that is given up: its caller is the upgradable reader
//     still. This is the last step, so the readers that waited hold the lock before the next writer
//     sets rwWriter.
//
// The races that this closes:
//
//  1. A reader joins while the writer unlocks. queue sets rwWaiting only in a word with rwWriter,
//     and reopen takes the lock of the lists if rwWaiting is set. So the reader sees rwWriter
//     clear, or is in the list when reopen looks.
//  2. The last reader unlocks while the writer joins. The writer sets rwWriter and then looks at
//     the count, under the lock of the lists. The reader subtracts itself and then looks for the
//     writer, under that lock. So the writer sees that there are no readers, or the reader sees the
//     writer.
//  3. The last reader is late. By the time it has the lock of the lists, the writer may have been
//     given up, and new readers or another writer may have arrived. So lastReader looks at the word
//     again.
type rwState struct{ bits atomic.Int64 }

const (
	// rwWriter is set by the caller that holds the turn and writes, or waits for readers to unlock
	// so as to write. No reader gets in while it is set.
	rwWriter int64 = 1 << iota

	// rwWaiting is set, under the lock of the lists, by a reader that waits. It is set only
	// together with rwWriter, and cleared with it, under that lock. It may stay set when all
	// readers in the list were given up: reopen then takes the lock for nothing.
	rwWaiting

	// rwReader is the unit of the remaining bits, which count the readers.
	rwReader
)

// lockShared adds a reader, unless a writer holds the lock or waits for readers to unlock.
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

// queue sets rwWaiting for a reader that is about to join the list, and reports true. If rwWriter is
// clear by now, it counts the reader instead, which then holds the RWMutex, and reports false. The
// caller holds the lock of the lists.
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

// unlockShared subtracts a reader. It reports whether this was the last reader and a writer waits
// for it.
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

// open clears rwWriter and rwWaiting, so that readers may lock again, and makes n more readers hold
// the RWMutex. If rwWaiting is set, the caller must hold the lock of the lists, and says so by
// listed. Otherwise open reports false and changes nothing.
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

// readersOnly reports whether no writer holds the lock or waits for readers to unlock.
func (s *rwState) readersOnly() bool { return s.bits.Load()&rwWriter == 0 }

// RLock locks for reading. It waits while a writer holds the lock or waits for readers to unlock.
// It fails only if cx is cancelled, with cx.Err(). Then it has not locked, and only the place among
// the waiters is lost.
func (rw *RWMutex) RLock(cx *Context) error {
	if cx.callers() && cx.calm() && rw.state.lockShared() {
		return nil
	}
	return rw.rlockSlow(cx)
}

// rlockSlow is RLock if a writer holds the lock, or if cx needs a closer look.
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

// TryRLock locks for reading if no writer holds the lock or waits for readers to unlock, and
// reports whether it did.
func (rw *RWMutex) TryRLock() bool { return rw.state.lockShared() }

// RLockBlocking is [RWMutex.RLock] for a goroutine outside the pool: it parks the goroutine. It
// fails only if ctx ends, with ctx.Err(). It panics in a task.
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

// RLockFuture returns the future of [RWMutex.RLock]. When it is ready the read lock is held. Giving
// it up before it is ready gives up the place among the waiters; a read lock that it was given in
// the meantime is unlocked.
func (rw *RWMutex) RLockFuture() Future[None] { return &rlockFuture{rw: rw} }

// RUnlock undoes one RLock. It panics if no reader holds the lock.
func (rw *RWMutex) RUnlock() {
	if rw.state.unlockShared() {
		rw.lastReader()
	}
}

// lastReader wakes the writer that waits, if it holds the lock now. See race 3 above.
func (rw *RWMutex) lastReader() {
	var t *task
	rw.readers.mu.Lock()
	if w := rw.writer.first; w != nil && rw.state.written() {
		t = rw.writer.choose(w)
	}
	rw.readers.mu.Unlock()
	wakeChosen(t)
}

// reopen lets readers in again after a writer has locked them out. The readers that wait hold the
// lock from then on, and so do n more readers: n is 1 for a writer that becomes a reader.
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

// Lock waits until no other caller holds the lock, and locks it for writing. It fails only if cx is
// cancelled, with cx.Err(). Then it has not locked, and only the place in the queue is lost.
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

// TryLock locks for writing if no caller holds the lock, and reports whether it did.
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

// LockBlocking is [RWMutex.Lock] for a goroutine outside the pool: it parks the goroutine. It fails
// only if ctx ends, with ctx.Err(). It panics in a task.
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

// LockFuture returns the future of [RWMutex.Lock]. When it is ready the write lock is held. Giving
// it up before it is ready lets in the readers and writers that waited for it.
func (rw *RWMutex) LockFuture() Future[None] {
	return &writeFuture{turn: lockFuture{m: &rw.turn}, drain: drainFuture{rw: rw, turn: true}}
}

// Unlock ends the write lock of [RWMutex.Lock] or [RWMutex.Upgrade]. It panics if no writer holds
// the lock.
func (rw *RWMutex) Unlock() {
	rw.mustBeWritten("Unlock")
	rw.reopen(0)
	rw.turn.Unlock()
}

// Downgrade makes the writer an ordinary reader, which later calls [RWMutex.RUnlock]. No other
// caller writes in between. It panics if no writer holds the lock.
func (rw *RWMutex) Downgrade() {
	rw.mustBeWritten("Downgrade")
	rw.reopen(1)
	rw.turn.Unlock()
}

// DowngradeToU makes the writer the upgradable reader, which later calls [RWMutex.UUnlock]. No
// other caller writes in between. It panics if no writer holds the lock.
func (rw *RWMutex) DowngradeToU() {
	rw.mustBeWritten("DowngradeToU")
	rw.reopen(0)
}

// mustBeWritten panics if no writer holds the lock.
func (rw *RWMutex) mustBeWritten(op string) {
	if !rw.state.written() {
		panic("async: " + op + " of an RWMutex that is not locked for writing")
	}
}

// ULock waits until there is neither a writer nor another upgradable reader, and locks for reading
// with the right to [RWMutex.Upgrade]. It fails only if cx is cancelled, with cx.Err(). Then it has
// not locked, and only the place in the queue is lost.
func (rw *RWMutex) ULock(cx *Context) error { return rw.turn.Lock(cx) }

// TryULock locks for upgradable reading if there is neither a writer nor another upgradable reader,
// and reports whether it did.
func (rw *RWMutex) TryULock() bool { return rw.turn.TryLock() }

// ULockBlocking is [RWMutex.ULock] for a goroutine outside the pool: it parks the goroutine. It
// fails only if ctx ends, with ctx.Err(). It panics in a task.
func (rw *RWMutex) ULockBlocking(ctx context.Context) error {
	mustNotBlock("RWMutex.ULockBlocking", "mu.ULock(cx)")
	return rw.turn.LockBlocking(ctx)
}

// ULockFuture returns the future of [RWMutex.ULock]. When it is ready the lock is held. Giving it
// up before it is ready gives up its place in the queue; if the lock was handed to it in the
// meantime, the lock is passed on.
func (rw *RWMutex) ULockFuture() Future[None] { return rw.turn.LockFuture() }

// UUnlock undoes a [RWMutex.ULock]. It panics if there is no upgradable reader.
func (rw *RWMutex) UUnlock() {
	rw.mustBeUpgradable("UUnlock")
	rw.turn.Unlock()
}

// UDowngrade makes the upgradable reader an ordinary reader, which later calls [RWMutex.RUnlock].
// It panics if there is no upgradable reader.
func (rw *RWMutex) UDowngrade() {
	rw.mustBeUpgradable("UDowngrade")
	rw.state.lockShared() // there is no writer, and the turn, which this caller holds, keeps it so
	rw.turn.Unlock()
}

// Upgrade makes the upgradable reader the writer. It lets no new readers in and waits until the
// other readers have unlocked. No other caller can have written since [RWMutex.ULock].
// [RWMutex.Unlock], [RWMutex.Downgrade] or [RWMutex.DowngradeToU] ends it.
//
// It fails only if cx is cancelled, with cx.Err(). Then the caller is still the upgradable reader.
// It panics if there is no upgradable reader.
func (rw *RWMutex) Upgrade(cx *Context) error {
	rw.mustBeUpgradable("Upgrade")
	if cx.callers() && cx.calm() && rw.TryUpgrade() {
		return nil
	}
	_, err := Await(cx, &drainFuture{rw: rw})
	return err
}

// TryUpgrade makes the upgradable reader the writer if there are no other readers, and reports
// whether it did. It panics if there is no upgradable reader.
func (rw *RWMutex) TryUpgrade() bool {
	rw.mustBeUpgradable("TryUpgrade")
	return rw.state.bits.CompareAndSwap(0, rwWriter)
}

// UpgradeBlocking is [RWMutex.Upgrade] for a goroutine outside the pool: it parks the goroutine. It
// fails only if ctx ends, with ctx.Err(). It panics in a task, and if there is no upgradable
// reader.
func (rw *RWMutex) UpgradeBlocking(ctx context.Context) error {
	mustNotBlock("RWMutex.UpgradeBlocking", "mu.Upgrade(cx)")
	rw.mustBeUpgradable("UpgradeBlocking")
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := awaitParked(ctx, &drainFuture{rw: rw})
	return err
}

// UpgradeFuture returns the future of [RWMutex.Upgrade]. When it is ready the caller is the writer.
// Giving it up before it is ready lets readers in again, and the caller is still the upgradable
// reader. UpgradeFuture panics if there is no upgradable reader, and so does the first Poll of the
// future.
func (rw *RWMutex) UpgradeFuture() Future[None] {
	rw.mustBeUpgradable("UpgradeFuture")
	return &drainFuture{rw: rw}
}

// mustBeUpgradable panics if there is no upgradable reader.
func (rw *RWMutex) mustBeUpgradable(op string) {
	if !rw.turn.state.locked() || !rw.state.readersOnly() {
		panic("async: " + op + " of an RWMutex that is not locked for upgradable reading")
	}
}

// rlockFuture is a reader that waits until no writer holds the lock or waits for readers.
type rlockFuture struct {
	rw     *RWMutex
	queued bool // w has a place in the list, or has been given the lock
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

// writeFuture waits for the turn, and then for the readers to unlock.
type writeFuture struct {
	turn   lockFuture
	turned bool // it holds the turn
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

// drainFuture is the caller that has the turn and waits for the readers to unlock.
type drainFuture struct {
	rw   *RWMutex
	shut bool // rwWriter is set: no new readers get in
	turn bool // Cancel unlocks the turn; not so for Upgrade
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
	// The count is looked at under the lock of the lists; see race 2 of rwState.
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
