package async

// A waitlist is the queue of the tasks that wait for a mutex, a permit, a message or another thing
// that a primitive hands out. All primitives wait here, so the steps that are easy to get wrong are
// only here. A primitive guards its own state with the lock of the list, mu.
//
// A waiter is served in one of two ways. To choose a waiter is to take it off the list and to give
// it the thing that it waits for. To call a waiter is to wake its task, which then tries for
// itself; the waiter stays in the list. (A Chan and a pubsubTopic do both in part: they take a
// waiter that they call off the list, since they may call several at once; see chanSide.)
//
// Waiting, by the Poll of a future:
//
//  1. Lock mu. If the waiter was chosen, the task has the thing: leave the list, and the future is
//     ready.
//  2. If the thing is there, and no other waiter must be served first: take it, leave the list, and
//     the future is ready. A waiter that was called tries here.
//  3. Otherwise join: at the end of the list, or at the old place if the waiter is in the list.
//     Unlock mu, and return ErrPending.
//
// Serving, by code that makes the thing available:
//
//  1. Lock mu and change the state of the primitive.
//  2. Choose or call the first waiter, or several, and collect their tasks.
//  3. Unlock mu and wake these tasks. A wake may call a function of the user's (NewWaker), so no
//     lock may be held.
//
// Giving up, by the Cancel of a future:
//
//  1. Lock mu. Leave the list; leave returns the phase that the waiter had.
//  2. If the waiter was in the list and not called, nothing else is to be done.
//  3. If it was chosen or called, the primitive passes its turn on: it takes the thing back, and
//     does steps 2 and 3 of serving for the next waiter. (A waiter that was chosen together with
//     all others, by byAll, has nothing to pass on.)
//
// The races that this closes:
//
//  1. A waiter is given up at the moment at which it is served. Both happen under mu. Either the
//     waiter has left and another one is served, or leave says that it was served and the turn is
//     passed on. So no permit or message is lost.
//  2. A waiter is chosen between step 3 of waiting and the end of the poll. Its task is not idle
//     yet. The wake sets taskNotified, so the task is polled again; see task.go.
//  3. A waiter is given up after it was chosen, and before its task is woken. The wake is spurious
//     then.
//
// To join, to leave, to choose and to call cost the same however many tasks wait.

// waitlist is a waiterQueue with its lock. The zero value is empty.
type waitlist struct {
	mu lockOf[waitlist] // also guards the state of the primitive
	waiterQueue
}

// waiterQueue is a waitlist without its lock, for a primitive that has several queues under one
// lock.
type waiterQueue struct {
	first, last *waiter
	n           int // how many waiters are in the list
}

// A waiter is one place in a waitlist. It belongs to one future, which uses it again if the future
// is polled anew after it was ready.
type waiter struct {
	_          noCopy
	t          *task // woken when the waiter is chosen or called; guarded by mu, as are the other fields
	prev, next *waiter
	phase      waiterPhase

	// The data that the primitive keeps with a waiter.
	want   int64 // for example, how many permits
	passed int   // how often other callers were served before it
}

// noCopy makes go vet report copies of a struct that has it as a field. It is for a struct that
// must not be copied, because other code keeps a pointer to it.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// waiterPhase is the state of a waiter.
type waiterPhase uint8

const (
	waiterOut    waiterPhase = iota // not in the list, and not chosen
	waiterIn                        // in the list
	waiterCalled                    // in the list, and called: woken to try for itself
	waiterChosen                    // taken off the list: was given the thing, or was called
)

// How a waiter was chosen, in the field want, for primitives that have both ways.
const (
	byAll int64 = iota // together with all waiters: its turn is not passed on
	byOne              // alone: its turn is passed on to the next waiter
)

// join puts w at the end of the list. If w is in the list, it stays at its place, and t becomes the
// task to wake. A waiter that was called and joins has found nothing, and waits to be called again.
// mu is held.
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

// joinFirst puts w, which was taken off the list, at the front. mu is held.
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

// choose takes w off the list: it was given the thing that it waits for. In a Chan or a pubsubTopic
// it is called instead. choose returns the task to wake after mu is unlocked. mu is held.
func (l *waiterQueue) choose(w *waiter) *task {
	l.unlink(w)
	w.phase = waiterChosen
	return w.t
}

// chooseAll chooses all waiters. mu is held.
func (l *waiterQueue) chooseAll(chosen *chosenTasks) {
	for w := l.first; w != nil; w = l.first {
		chosen.add(l.choose(w))
	}
}

// call marks w, the first waiter, as called, and leaves it in the list. It returns the task to wake
// after mu is unlocked, or nil if w has been called already. mu is held.
//
// A Mutex works so: its state word says whether the first waiter has been called, and the list does
// not change if this waiter finds the mutex locked.
func (l *waiterQueue) call(w *waiter) *task {
	if w.phase == waiterCalled {
		return nil
	}
	w.phase = waiterCalled
	return w.t
}

// leave takes w off the list, if it is there, and returns the phase that w had. If w was called or
// chosen, the caller must take the thing for which w waited, or pass the turn on. mu is held.
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

// wakeChosen wakes t, unless t is nil. No lock is held. It looks for the caller's worker, which
// costs little beside the wake of another worker's thread.
func wakeChosen(t *task) {
	if t != nil {
		t.wake(callersWorker())
	}
}

// chosenTasks collects tasks under a lock, to wake them after it. It allocates nothing for up to
// four.
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

// wake wakes the tasks. No lock is held.
func (c *chosenTasks) wake() { c.wakeFrom(nil) }

// wakeFrom is wake for code that runs on the thread of the worker from, or does not know its worker
// if from is nil.
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
