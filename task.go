package async

import "sync/atomic"

// taskState says which code may touch a task. A task has one holder at a time:
// the queue in which it stands, or the worker that polls it. A task that waits
// is idle and has no holder. The first caller that wakes it becomes its holder
// and must queue it.
//
// The zero state is that of a new task: held, by the code that made it.
//
// Each method is one transition and at most one locked instruction, in the
// usual case.
type taskState struct{ bits atomic.Uint32 }

const (
	// taskIdle is set while the task has no holder: its last poll returned
	// ErrPending and its waker has not been called since. The worker that
	// polled sets it, and the first caller that wakes the task clears it.
	taskIdle uint32 = 1 << iota

	// taskNotified is set when a caller wakes a task that is held. The holder
	// polls once more before it lets go, so that no wake is lost that comes
	// while the future is looking at something else. It is cleared before
	// each poll, and never set together with taskIdle.
	taskNotified

	// taskCancelled is set once and never cleared: the task has been asked to
	// end, and its awaits fail from now on.
	taskCancelled

	// taskByContext is set together with taskCancelled or never: the task was
	// first cancelled by the end of a context that it is under; see Under.
	taskByContext

	// taskByShutdown is the same for Shutdown.
	taskByShutdown

	// taskDone is set once and never cleared, after the result has been
	// written: code that sees it may read the result. Wakes do nothing anymore.
	taskDone

	// The bits from here to taskDiscarded are about results that are an io.Closer; see taskresult.go.

	// taskCloser is set together with taskDone, or never: the result is an io.Closer.
	taskCloser

	// taskShared is set if the end of the task has woken several tasks, or if a caller began to
	// wait for the end at the same moment. The result is not closed then.
	taskShared

	// taskUnwanted is set by an owner that gives the handle up before the task ends.
	taskUnwanted

	// taskCollected is set when a caller gets the result. The result is not closed from then on.
	taskCollected

	// taskDiscarded is set when the result is about to be closed: no caller gets it.
	taskDiscarded

	// taskDetached is set when the task is made, or never: the task has no handle; see Launch.
	taskDetached

	// taskRetained is set when a Context is derived from the Context of a detached task: the
	// derived Context refers to the task after its end, so the task is not reused.
	taskRetained
)

// wake notes that the task must be polled. It reports whether the caller has
// become its holder by that.
func (s *taskState) wake() (held bool) { return s.claim(0) }

// cancel does the same, and notes that the task is cancelled. The first call also
// notes the reason: by is taskByContext, taskByShutdown, or 0 for other reasons.
func (s *taskState) cancel(by uint32) (held bool) { return s.claim(taskCancelled | by) }

func (s *taskState) claim(mark uint32) (held bool) {
	for {
		old := s.bits.Load()
		if old&taskDone != 0 {
			return false
		}
		next := old
		if old&taskCancelled == 0 {
			next |= mark
		}
		if old&taskIdle != 0 {
			next &^= taskIdle
		} else {
			next |= taskNotified
		}
		// Even if next equals old the write is needed: it orders the caller's
		// writes before the wake before the poll that clears the bit.
		if s.bits.CompareAndSwap(old, next) {
			return old&taskIdle != 0
		}
	}
}

// take makes the caller the holder of a task that waits, without asking for a
// poll. It reports false for any other task.
func (s *taskState) take() (held bool) {
	for {
		old := s.bits.Load()
		if old&taskIdle == 0 {
			return false
		}
		if s.bits.CompareAndSwap(old, old&^taskIdle) {
			return true
		}
	}
}

// begin is called by the holder before it polls: wakes that have come so far
// are answered by this poll. A task that yields in a loop and is not woken
// passes here without a locked instruction.
func (s *taskState) begin() {
	if s.bits.Load()&taskNotified != 0 {
		s.bits.And(^taskNotified)
	}
}

// suspend lets go of a task whose poll was pending. If it reports false the
// task was woken meanwhile, and the caller still holds it.
func (s *taskState) suspend() (idle bool) {
	for {
		old := s.bits.Load()
		if old&taskNotified != 0 {
			return false
		}
		if s.bits.CompareAndSwap(old, old|taskIdle) {
			return true
		}
	}
}

// finish publishes the result that the holder has written. kind is 0 or taskCloser.
func (s *taskState) finish(kind uint32) { s.bits.Or(taskDone | kind) }

// detach makes s the state of a new task without a handle.
func (s *taskState) detach() { s.bits.Store(taskDetached) }

func (s *taskState) done() bool     { return s.bits.Load()&taskDone != 0 }
func (s *taskState) detached() bool { return s.bits.Load()&taskDetached != 0 }
func (s *taskState) retained() bool { return s.bits.Load()&taskRetained != 0 }

// retain notes that a Context has been derived from the task's.
func (s *taskState) retain() {
	if s.detached() {
		s.bits.Or(taskRetained)
	}
}
func (s *taskState) cancelled() bool { return s.bits.Load()&taskCancelled != 0 }

// cancelledBy returns why the task was first cancelled; see cancel.
func (s *taskState) cancelledBy() uint32 { return s.bits.Load() & (taskByContext | taskByShutdown) }

// taskKind says how a task waits, and never changes.
type taskKind uint8

const (
	kindPlain     taskKind = iota // polled on its worker's own stack; cannot wait
	kindStraight                  // runs in a coroutine of its worker
	kindGoroutine                 // a goroutine in BlockOn: waits by parking
	kindExternal                  // a function that wakes a loop outside this package, or closes a channel
	kindFanout                    // several tasks that wait in one slot
	kindBlocking                  // a call that a goroutine of the pool runs
)

// taskBody is the part of a task that differs between kinds of tasks.
type taskBody interface {
	// poll runs the task until it waits or ends, on the thread of w, and
	// reports whether it has ended. For kinds that no worker polls it passes
	// the wake on; w is then the worker on whose thread the wake happens, or
	// nil.
	poll(w *worker) (done bool)

	// abort ends a task whose poll did not return, or that will not be polled
	// again, with err as its result.
	abort(w *worker, err error)
}

// task is the head of every task; wakers and queues point to it. The typed
// part, result included, follows it in the same allocation: see JoinHandle.
//
// Its fields belong to the holder (see taskState) except where they say
// otherwise.
type task struct {
	state taskState // for any goroutine
	kind  taskKind
	waits waitReason // of the code that last took the waker, during the current Await or since the spawn of a plain future

	listedAt  uint16    // which worker's list of waiting tasks it stands in, counted from 1
	listIndex uint32    // and where there; guarded by that list
	since     dumpTicks // when it began to wait

	w    *worker        // where it is queued when woken
	g    atomic.Uintptr // the goroutine that may use cx, once straight-line code has begun; read by any goroutine
	next *task          // in an inbox or a batch

	attributes atomic.Pointer[taskAttributes] // nil for most tasks; written by the holder, read by any goroutine
	body       taskBody                       // never changes

	waiters wakerSlot // tasks that wait for the end; for any goroutine
	id      atomic.Uint64

	cx Context
}

// wake makes the task be polled again. from is the worker on whose thread the
// caller runs; nil if it doesn't know.
func (t *task) wake(from *worker) {
	if t.kind >= kindExternal {
		if t.kind != kindBlocking { // a blocking call is run by a goroutine, once
			t.body.poll(from)
		}
		return
	}
	if t.state.wake() {
		t.schedule(from)
	}
}

// expire implements expirer.
func (t *task) expire(w *worker) { t.wake(w) }

// schedule queues t, which the caller holds.
func (t *task) schedule(from *worker) {
	if t.kind == kindGoroutine {
		t.body.poll(from)
		return
	}
	w := t.w
	if from == nil && callersWorker() == w {
		from = w
	}
	if from != nil && from != w && t.movable() && from.rt == w.rt {
		// It costs less to run it where its waker is than to wake its worker.
		w, t.w = from, from
	}
	w.probe.woken(t)
	if from != nil && from.rt == w.rt {
		from.counts[countWoken]++
	} else {
		w.wokenFromOutside.Add(1)
	}
	if from == w {
		w.pushNext(t)
	} else {
		w.send(t)
	}
}

// movable reports whether another worker may run t. The caller holds t.
func (t *task) movable() bool {
	if t.g.Load() != 0 {
		return false
	}
	d := t.attributes.Load()
	return d == nil || !d.local
}

// wait suspends the straight-line code or the goroutine that runs t until t is
// woken. It may return early.
func (t *task) wait() {
	if t.kind == kindGoroutine {
		t.body.(*blockOnParker).wait()
		return
	}
	t.w.running.wait()
}

// ownTimer returns the timer for a Sleep of t. Straight-line code sleeps in one call at a time, so its
// coroutine keeps a timer and Sleep allocates nothing.
func (t *task) ownTimer() *sleepFuture {
	if t.kind == kindGoroutine {
		return new(sleepFuture)
	}
	co := t.w.running
	if co.sleep == nil {
		co.sleep = new(sleepFuture)
	}
	return co.sleep
}

// ownWaiter returns a place in a waitlist for an await of t, so that it needs no
// allocation. Straight-line code waits for one event at a time: an await that takes the
// waiter must have left the list before other code of the task runs.
func (t *task) ownWaiter() *waiter {
	if t.kind == kindGoroutine {
		return &t.body.(*blockOnParker).own
	}
	return &t.w.running.own
}
