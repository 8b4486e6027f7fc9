package async

// waitlist is the queue of those who wait for a mutex, a permit, a message or
// whatever else a primitive hands out. All primitives wait here, and here alone
// stands what is easily got wrong:
//
//   - whoever is chosen is taken off the list under the lock and woken after it;
//   - a waiter that is given up is asked, under the same lock, whether it had
//     been chosen by then, and its primitive then gives what it was handed to
//     the next one: the baton is passed on.
//
// Joining, leaving and choosing cost the same however many wait.
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

// waiter is one place in a waitlist, and the part of a future that its list
// knows. A waiter belongs to one future and is used again when that is polled
// anew after an end.
type waiter struct {
	_          noCopy
	t          *task // woken when it is chosen; guarded by the list, like the rest
	prev, next *waiter
	phase      waiterPhase

	// What the primitive keeps with a waiter.
	want   int64 // how much, or what
	passed int   // how often it had to let others go before
}

// noCopy has go vet find copies of what contains it: of a node that others point to.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// waiterPhase says what a waiter may expect.
type waiterPhase uint8

const (
	waiterOut    waiterPhase = iota // not in the list, and nothing was handed to it
	waiterIn                        // in the list
	waiterCalled                    // in the list, and woken to try for itself
	waiterChosen                    // taken off the list, and handed what it wanted; in a Chan, only to try for it
)

// What has chosen a waiter, for primitives that have both: it is kept in want.
const (
	byAll int64 = iota // was for all who waited: no baton
	byOne              // was for this waiter, and else for the next one
)

// join puts w at the end of the list, or, if it is in it, makes t the task to
// wake. If w had been called it waits to be called again. mu is held.
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

// choose takes w off the list: it has been handed what it wanted, or (in a Chan, which
// counts those that it has called) may try for itself. The caller wakes the task that is
// returned once mu, which is held, is unlocked.
func (l *waiterQueue) choose(w *waiter) *task {
	l.unlink(w)
	w.phase = waiterChosen
	return w.t
}

// chooseAll takes all off the list.
func (l *waiterQueue) chooseAll(chosen *chosenTasks) {
	for w := l.first; w != nil; w = l.first {
		chosen.add(l.choose(w))
	}
}

// call has w try for itself; it stays in the list, in which only the first is ever
// called. A Mutex works so: its word says whether the first has been called, and the
// list need not move if that comes in vain. A Chan, which may have as many called as it
// has messages, takes them off instead; see chanSide. It returns the task to wake, nil
// if w was called before. mu is held.
func (l *waiterQueue) call(w *waiter) *task {
	if w.phase == waiterCalled {
		return nil
	}
	w.phase = waiterCalled
	return w.t
}

// leave takes w off the list, if it is in it, and returns what it was: out,
// in, called or chosen. mu is held. If w was called or chosen, what it was
// called for or handed is for the caller to take, or to pass on.
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

// wakeChosen wakes t, if there is one. It is called when no lock is held. Looking for
// the worker costs little beside what the wake of another one's thread costs.
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
