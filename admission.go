package async

// admission is a limit, and those who wait for room below it, in the order in which
// they came. Its lock also guards what is limited.
type admission struct {
	waitlist
	reserved int // places of those who were chosen and have not come yet
}

// admit chooses those for whom there is room: fits reports whether one more may
// come, besides those for whom places are reserved. mu is held.
func (g *admission) admit(fits func() bool, chosen *chosenTasks) {
	for w := g.first; w != nil && fits(); w = g.first {
		g.reserved++
		chosen.add(g.choose(w))
	}
}

// admissionFuture is the future of a place.
type admissionFuture struct {
	admission *admission
	hasRoom   func() bool
	admit     func() // takes the place, under the lock
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

// Cancel implements canceller.
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
