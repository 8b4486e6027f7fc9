package async

import "sync/atomic"

// The holder of a task is the one party that may queue the task, poll it, move it to another
// worker, and use the fields of its head. A task has at most one holder at a time:
//
//   - the code that has made the task, until it has queued the task;
//   - the queue in which the task is: a run-next slot, a runQueue or localQueue, or the inbox of a
//     worker. The worker or thief that takes the task out becomes the holder;
//   - the worker that polls the task;
//   - for a function in BlockOn, the goroutine that runs it.
//
// A task that waits has no holder. It is idle: taskIdle is set. The caller that wakes it becomes
// its holder.
//
// Wake (task.wake), on any goroutine, any number of times:
//
//  1. In one compare-and-swap, clear taskIdle if it is set, and set taskNotified if it is not. Do
//     nothing if taskDone is set. A cancellation sets its bits in the same compare-and-swap.
//  2. The caller that has cleared taskIdle is the holder. It puts the task into the run-next slot
//     of its own worker, or into the inbox of the task's worker, which it unparks (schedule).
//  3. Every other caller has nothing more to do. The holder will poll the task once more.
//
// Poll (worker.poll), by the holder:
//
//  1. Clear taskNotified (begin). This poll answers all wakes that have set it.
//  2. Call the body's poll.
//  3. If the poll was the last, end the task; see taskresult.go.
//  4. If the task has yielded, queue it again. The state does not change, so a yield costs no
//     locked instruction here.
//  5. If the poll is pending, put the task on the worker's list of waiting tasks, once (see
//     shutdown.go). Then set taskIdle, unless taskNotified is set, in one compare-and-swap
//     (suspend). From the moment at which taskIdle is set another worker may poll the task, so the
//     worker does not touch it.
//  6. If taskNotified was set, queue the task again: it has not become idle, and the worker is
//     still its holder.
//
// The races that this closes:
//
//  1. A wake arrives while the task is polled, after the future has looked for its event. The wake
//     sets taskNotified. Step 5 of the poll sees the bit, and the task is polled again.
//  2. A wake arrives before step 1 of the poll. It is answered by this poll: begin reads the bit
//     that the waker's compare-and-swap has written, so the poll sees all that the waker has
//     written before the wake. A wake after step 1 sets the bit anew, and step 5 sees it.
//  3. Several callers wake an idle task at the same time. One of them clears taskIdle and queues
//     the task, so the task is never in two queues.
//  4. A wake arrives after the end of the task. It finds taskDone and does nothing. If the task was
//     reused by Launch in between, the wake is spurious for the new task.
//  5. A task is cancelled while it is polled. The bit taskCancelled and the wake are one write, so
//     the poll after the cancellation sees that the task is cancelled.
//
// A goroutine in BlockOn takes the same steps: its wait calls suspend, and begin once it has been
// woken. The remaining kinds are never idle: to wake a kindExternal or kindFanout is to call its
// body's poll, and a wake of a kindBlocking does nothing.

// taskState is the state word of a task. The head of this file has the protocol.
//
// The zero state is the state of a new task: held, by the code that has made it.
//
// Each method is one transition, and costs at most one locked instruction unless another goroutine
// changes the word at the same time.
type taskState struct{ bits atomic.Uint32 }

const (
	// taskIdle is set while the task has no holder: its last poll was pending, and no caller has
	// woken it since. The worker that has polled the task sets the bit. The first caller that wakes
	// the task clears it.
	taskIdle uint32 = 1 << iota

	// taskNotified is set when a caller wakes a task that has a holder. The holder polls the task
	// once more before it lets the task become idle. So a wake is not lost if it arrives while the
	// future is looking at something else. The bit is cleared before each poll, and is never set
	// together with taskIdle.
	taskNotified

	// taskCancelled is set once and never cleared: the task has been asked to end. Its awaits fail
	// from then on.
	taskCancelled

	// taskByContext is set together with taskCancelled, or never: the first cancellation of the
	// task was the end of a context that the task is under; see Spawner.Under.
	taskByContext

	// taskByShutdown is set together with taskCancelled, or never: the first cancellation of the
	// task was the third stage of Shutdown.
	taskByShutdown

	// taskDone is set once and never cleared, after the result has been written. Code that sees the
	// bit may read the result. A wake does nothing from then on.
	taskDone

	// The bits from taskCloser to taskDiscarded are about results that are an io.Closer; see
	// taskresult.go.
	//
	// taskCloser is set together with taskDone, or never: the result is an io.Closer.
	taskCloser

	// taskShared is set if the end of the task has woken several tasks, or if a caller began to
	// wait for the end at the same moment. The result is not closed then.
	taskShared

	// taskUnwanted is set by an owner that gives up the handle before the task has ended.
	taskUnwanted

	// taskCollected is set when a caller gets the result. The result is not closed from then on.
	taskCollected

	// taskDiscarded is set when the result is about to be closed. No caller gets the result from
	// then on.
	taskDiscarded

	// taskDetached is set when the task is made, or never: the task has no handle; see Launch.
	taskDetached

	// taskRetained is set when a Context is derived from the Context of a detached task. The
	// derived Context refers to the task after its end, so the task is not reused.
	taskRetained
)

// wake records that the task must be polled. It reports whether the caller has become the holder of
// the task, and must queue it.
func (s *taskState) wake() (held bool) { return s.claim(0) }

// cancel is wake, and also records that the task is cancelled. The first call records the reason,
// too: by is taskByContext, taskByShutdown, or 0 for other reasons.
func (s *taskState) cancel(by uint32) (held bool) { return s.claim(taskCancelled | by) }

// claim is step 1 of a wake. It sets the bits of mark unless the task was cancelled before.
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
		// The write is needed even if next equals old. It orders the writes of the caller before
		// the wake before the poll that clears taskNotified.
		if s.bits.CompareAndSwap(old, next) {
			return old&taskIdle != 0
		}
	}
}

// take makes the caller the holder of an idle task, without asking for a poll. It reports false for
// any other task. The caller ends the hold by suspend, and queues the task if suspend reports
// false.
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

// begin is step 1 of a poll: the poll that follows answers all wakes so far. A task that yields in
// a loop, and is not woken, needs no locked instruction here.
func (s *taskState) begin() {
	if s.bits.Load()&taskNotified != 0 {
		s.bits.And(^taskNotified)
	}
}

// suspend makes a task idle whose poll was pending. If it reports false, the task was woken
// meanwhile, and the caller is still its holder.
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

// finish publishes the result, which the holder has written. kind is 0 or taskCloser.
func (s *taskState) finish(kind uint32) { s.bits.Or(taskDone | kind) }

// detach makes s the state of a new task without a handle.
func (s *taskState) detach() { s.bits.Store(taskDetached) }

func (s *taskState) done() bool     { return s.bits.Load()&taskDone != 0 }
func (s *taskState) detached() bool { return s.bits.Load()&taskDetached != 0 }
func (s *taskState) retained() bool { return s.bits.Load()&taskRetained != 0 }

// retain records that a Context has been derived from the Context of the task.
func (s *taskState) retain() {
	if s.detached() {
		s.bits.Or(taskRetained)
	}
}
func (s *taskState) cancelled() bool { return s.bits.Load()&taskCancelled != 0 }

// cancelledBy returns the reason of the first cancellation; see cancel.
func (s *taskState) cancelledBy() uint32 { return s.bits.Load() & (taskByContext | taskByShutdown) }

// taskKind says how a task waits. It never changes.
type taskKind uint8

const (
	kindPlain     taskKind = iota // polled on the stack of its worker; cannot await
	kindStraight                  // runs in a coroutine of its worker
	kindGoroutine                 // a goroutine in BlockOn, which parks to wait
	kindExternal                  // a function in the place of a task; see externalWaker
	kindFanout                    // several tasks that wait in one slot; see fanout
	kindBlocking                  // a call of SpawnBlocking, which a goroutine of the pool runs
)

// taskBody is the part of a task that differs between kinds of tasks.
type taskBody interface {
	// poll runs the task until it waits or ends, on the thread of w, and reports whether the task
	// has ended. A kind that no worker polls passes the wake on instead: w is then the worker on
	// whose thread the wake happens, or nil.
	poll(w *worker) (done bool)

	// abort ends the task with err as its result. It is called if a poll did not return, or if the
	// task will not be polled again.
	abort(w *worker, err error)
}

// task is the head of every task. Wakers and queues point to it. The typed part, which includes the
// result, follows the head in the same allocation; see JoinHandle.
//
// The fields belong to the holder of the task, except where their comments say otherwise.
type task struct {
	state taskState // for any goroutine
	kind  taskKind
	waits waitReason // of the event for which the waker was last taken; reset by each await

	listedAt  uint16    // the worker, counted from 1, that has the task in its list of waiting tasks; 0: none
	listIndex uint32    // the index in that list; guarded by the list's lock
	since     dumpTicks // when the task began to wait

	w    *worker        // the worker that queues the task when it is woken
	g    atomic.Uintptr // the goroutine that may use cx, once it is known; read by any goroutine
	next *task          // the next task of an inbox, a batch or a free list; for an ended task see discarding

	attributes atomic.Pointer[taskAttributes] // nil for most tasks; written by the holder, read by any goroutine
	body       taskBody                       // never changes

	waiters wakerSlot // the tasks that wait for the end; for any goroutine
	id      atomic.Uint64

	cx Context
}

// wake makes the task be polled again. from is the worker on whose thread the caller runs, or nil
// if the caller has not looked.
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

// schedule is step 2 of a wake. The caller is the holder of t.
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
		// It costs less to run the task where its waker is than to unpark the task's worker.
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

// movable reports whether another worker may run t: t is not bound to its worker by [Local] or
// [Runtime.Workers], and is no straight-line code that has begun. The caller is the holder of t.
func (t *task) movable() bool {
	if t.g.Load() != 0 {
		return false
	}
	d := t.attributes.Load()
	return d == nil || !d.local
}

// wait suspends the straight-line code, or the goroutine, that runs t, until t is woken. It may
// return early.
func (t *task) wait() {
	if t.kind == kindGoroutine {
		t.body.(*blockOnParker).wait()
		return
	}
	t.w.running.wait()
}

// ownTimer returns the timer for a Sleep of t. Straight-line code is in one Sleep at a time, so its
// coroutine keeps a timer, and Sleep allocates nothing.
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

// ownWaiter returns a waiter for an await of t, which therefore allocates none. Straight-line code
// waits for one event at a time. An await that uses this waiter must have left its list before
// other code of the task runs.
func (t *task) ownWaiter() *waiter {
	if t.kind == kindGoroutine {
		return &t.body.(*blockOnParker).own
	}
	return &t.w.running.own
}
