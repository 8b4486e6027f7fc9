package async

// waitlist is the queue of the tasks that wait for a mutex, a permit, a message or another
// thing that a primitive hands out. All primitives wait here, and the steps that are easily
// got wrong are only here:
//
//   - a waiter that is chosen is taken off the list under the lock, and its task is woken after it;
//   - a waiter that is given up is asked, under the same lock, whether it had been chosen by then.
//     Its primitive then passes on to the next waiter the thing that it was handed.
//
// Joining, leaving and choosing cost the same however many tasks wait.
//
// A primitive guards its own state with mu, too. It wakes tasks when it has unlocked mu.
type waitlist struct {
	mu lockOf[waitlist]
	waiterQueue
}

// waiterQueue is a waitlist without its lock, for the primitives that have several
// queues under one.
type waiterQueue struct {
	first, last *waiter
	n           int
}

// waiter is one place in a waitlist, and the part of a future that its list knows. A waiter
// belongs to one future and is used again when the future is polled anew after an end.
type waiter struct {
	_          noCopy
	t          *task // woken when it is chosen; guarded by the list, like the other fields
	prev, next *waiter
	phase      waiterPhase

	// The data that the primitive keeps with a waiter.
	want   int64 // how much, or which kind
	passed int   // how often it had to let others go before
}

// noCopy makes go vet find copies of a struct that contains it: of a node that others point
// to.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// waiterPhase is the state of a waiter.
type waiterPhase uint8

const (
	waiterOut    waiterPhase = iota // not in the list, and nothing was handed to it
	waiterIn                        // in the list
	waiterCalled                    // in the list, and woken to try for itself
	waiterChosen                    // taken off the list, and handed the lock or the permits; in a Chan, only to try
)

// How a waiter was chosen, for primitives that have both ways: it is kept in want.
const (
	byAll int64 = iota // with all waiters: not passed on
	byOne              // alone: passed on to the next waiter
)

// join puts w at the end of the list, or, if it is in the list, makes t the task to wake.
// If w had been called it waits to be called again. mu is held.
func (l *waiterQueue) join(w *waiter, t *task) {
	w.t = t
	switch w.phase {
	case waiterCalled:
		w.phase = waiterIn
		return
	case waiterIn, waiterChosen:
		return
	}
	w.phase = waiterIn
	w.prev, w.next = l.last, nil
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	l.n++
}

// joinFirst puts w, which is out of the list and had the first place in it, back
// there. mu is held.
func (l *waiterQueue) joinFirst(w *waiter, t *task) {
	w.t, w.phase = t, waiterIn
	w.prev, w.next = nil, l.first
	if l.first != nil {
		l.first.prev = w
	} else {
		l.last = w
	}
	l.first = w
	l.n++
}

// choose takes w off the list: it has been handed the lock or the permits that it waits
// for, or (in a Chan, which counts the waiters that it has called) may try for itself. The
// caller wakes the task that is returned once mu, which is held, is unlocked.
func (l *waiterQueue) choose(w *waiter) *task {
	l.unlink(w)
	w.phase = waiterChosen
	return w.t
}

// chooseAll takes all waiters off the list.
func (l *waiterQueue) chooseAll(chosen *chosenTasks) {
	for w := l.first; w != nil; w = l.first {
		chosen.add(l.choose(w))
	}
}

// call has w try for itself; w stays in the list, in which only the first waiter is ever
// called. A Mutex works so: its word says whether the first waiter has been called, and the
// list need not move if that waiter finds the mutex locked. A Chan, which may have as many
// waiters called as it has messages, takes them off the list instead; see chanSide. It
// returns the task to wake, nil if w was called before. mu is held.
func (l *waiterQueue) call(w *waiter) *task {
	if w.phase == waiterCalled {
		return nil
	}
	w.phase = waiterCalled
	return w.t
}

// leave takes w off the list, if it is in the list, and returns the phase that it had. mu
// is held. If w was called or chosen, the caller must take the lock, permits or message for
// which it was, or pass them on.
func (l *waiterQueue) leave(w *waiter) (was waiterPhase) {
	was = w.phase
	if was == waiterIn || was == waiterCalled {
		l.unlink(w)
	}
	w.phase, w.passed, w.t = waiterOut, 0, nil
	return was
}

func (l *waiterQueue) unlink(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.prev, w.next = nil, nil
	l.n--
}

// wakeChosen wakes t, if there is one. It is called when no lock is held. Looking for the
// caller's worker costs little beside the wake of another worker's thread.
func wakeChosen(t *task) {
	if t != nil {
		t.wake(callersWorker())
	}
}

// chosenTasks collects the tasks to wake after the lock.
type chosenTasks struct {
	few  [4]*task
	n    int
	more []*task
}

func (c *chosenTasks) add(t *task) {
	switch {
	case t == nil:
	case c.n < len(c.few):
		c.few[c.n] = t
		c.n++
	default:
		c.more = append(c.more, t)
	}
}

// wake is called when no lock is held.
func (c *chosenTasks) wake() { c.wakeFrom(nil) }

// wakeFrom is wake by code that runs on the thread of the worker from, which may
// be nil.
func (c *chosenTasks) wakeFrom(from *worker) {
	if c.n > 0 && from == nil {
		from = callersWorker()
	}
	for _, t := range c.few[:c.n] {
		t.wake(from)
	}
	for _, t := range c.more {
		t.wake(from)
	}
}
