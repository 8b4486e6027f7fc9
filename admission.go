package async

// admission is a FIFO limit: callers that find no room wait in its list, and are admitted
// in the order in which they came. Its lock also guards the state that is limited.
type admission struct {
	waitlist
	reserved int // room that is kept for waiters that were chosen and have not come yet
}

// admit chooses waiters as long as there is room for them. fits reports whether there is
// room for one more, besides the room that is reserved. mu is held.
func (g *admission) admit(fits func() bool, chosen *chosenTasks) {
	for w := g.first; w != nil && fits(); w = g.first {
		g.reserved++
		chosen.add(g.choose(w))
	}
}

// admissionFuture is the future that is ready once its caller has been admitted.
type admissionFuture struct {
	admission *admission
	hasRoom   func() bool
	admit     func() // takes the room, under the lock
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

// Cancel implements canceler.
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
