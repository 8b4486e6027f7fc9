package async

// gate is a limit, and those who wait for room below it, in the order in which
// they came. Its lock also guards what is limited.
type gate struct {
	waitlist
	reserved int // places of those who were chosen and have not come yet
}

// letIn chooses those for whom there is room: fits reports whether one more may
// come, besides those for whom places are reserved. mu is held.
func (g *gate) letIn(fits func() bool, chosen *chosenTasks) {
	for w := g.first; w != nil && fits(); w = g.first {
		g.reserved++
		chosen.add(g.choose(w))
	}
}

// entering is the future of a place.
type entering struct {
	gate   *gate
	fits   func() bool
	enter  func() // takes the place, under the lock
	reason waitReason
	w      waiter
}

func (e *entering) Poll(cx *Context) (None, error) {
	t, g := cx.waker(e.reason), e.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case e.w.phase == waiterChosen:
		g.reserved--
	case e.w.phase == waiterIn, !e.fits(), g.first != nil:
		g.join(&e.w, t)
		return None{}, ErrPending
	}
	g.leave(&e.w)
	e.enter()
	return None{}, nil
}

// Cancel implements canceller.
func (e *entering) Cancel() {
	var chosen chosenTasks
	e.gate.mu.Lock()
	if e.gate.leave(&e.w) == waiterChosen {
		e.gate.reserved--
	}
	e.gate.letIn(e.fits, &chosen)
	e.gate.mu.Unlock()
	chosen.wake()
}
