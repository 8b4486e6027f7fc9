package async

// An admission is a FIFO limit: a caller that finds no room waits in the list, and callers are
// admitted in the order in which they arrived. The lock of the list also guards the state that is
// limited.
//
// A waiter is chosen when there is room for it. This room is reserved until the waiter is polled
// and takes it, or is given up and passes it on. So a caller that arrives in between cannot take
// it.
type admission struct {
	waitlist
	reserved int // how many waiters were chosen and have not taken their room yet
}

// admit chooses waiters while there is room. fits reports whether there is room for one more,
// besides the room that is reserved. mu is held.
func (g *admission) admit(fits func() bool, chosen *chosenTasks) {
	for w := g.first; w != nil && fits(); w = g.first {
		g.reserved++
		chosen.add(g.choose(w))
	}
}

// admissionFuture is the future of a caller's admission: when it is ready, its caller has the room.
type admissionFuture struct {
	admission *admission
	hasRoom   func() bool // besides the reserved room; called under the lock
	admit     func()      // takes the room; called under the lock
	reason    waitReason
	w         waiter
}

func (e *admissionFuture) Poll(cx *Context) (None, error) {
	t, g := cx.waker(e.reason), e.admission
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case e.w.phase == waiterChosen:
		g.reserved--
	case e.w.phase == waiterIn, !e.hasRoom(), g.first != nil:
		g.join(&e.w, t)
		return None{}, ErrPending
	}
	g.leave(&e.w)
	e.admit()
	return None{}, nil
}

// Cancel implements canceler. It passes the room on, if the waiter was chosen.
func (e *admissionFuture) Cancel() {
	var chosen chosenTasks
	e.admission.mu.Lock()
	if e.admission.leave(&e.w) == waiterChosen {
		e.admission.reserved--
	}
	e.admission.admit(e.hasRoom, &chosen)
	e.admission.mu.Unlock()
	chosen.wake()
}
