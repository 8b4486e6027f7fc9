package async

import "net"

// register makes events come, if they don't yet: to the worker that runs the caller,
// which takes them over from the lobby, or else there. Another runtime keeps them until
// it has ended.
func (s *pollFD) register(cx *Context) error {
	registered, home := s.state.has(fdRegistered), s.owner.Load()
	if registered && (home == nil || !home.shared && !home.closed.Load()) {
		return nil
	}
	w, rt := cx.here(), cx.taskWorker().rt
	if registered && home.fds != &rt.fds {
		if !home.closed.Load() {
			return nil
		}
		if err := s.leaveClosed(home); err != nil {
			return err
		}
		registered = false
	}
	switch {
	case registered && (w == nil || !home.shared):
		return nil
	case registered:
		return s.move(home, &w.reactor, fdMoved)
	case w == nil:
		return s.registerShared(rt)
	default:
		return s.registerWith(&w.reactor)
	}
}

// registerShared makes them come to the lobby of rt, or, if there are no descriptors for
// that, to a worker.
func (s *pollFD) registerShared(rt *Runtime) error {
	r, err := rt.shared.acquire()
	switch {
	case err == nil:
		return s.registerWith(r)
	case err == ErrShutdown:
		return err
	default:
		return s.registerWith(&rt.assignConn(false).reactor)
	}
}

// moveToShared makes them come to the lobby of rt, if they come to a worker of it.
func (s *pollFD) moveToShared(rt *Runtime) {
	home := s.owner.Load()
	if home == nil || home.shared || home.fds != &rt.fds {
		return
	}
	if r, err := rt.shared.acquire(); err == nil {
		s.move(home, r, fdMoved)
	}
}

// registerWith makes them come to r.
func (s *pollFD) registerWith(r *reactor) error {
	if !s.state.claim(fdRegistered) {
		return nil
	}
	if !s.state.beginUse(0) {
		return net.ErrClosed
	}
	err := r.fds.set(int(s.fd), s)
	if err == nil {
		err = s.setOwner(r)
	}
	if err != nil {
		s.dropOwner(r)
		return err
	}
	s.endRegistration()
	return nil
}

// setOwner registers s with r, and makes that its home.
func (s *pollFD) setOwner(r *reactor) error {
	if err := r.register(int(s.fd)); err != nil {
		return err
	}
	s.owner.Store(r)
	return nil
}

// endRegistration ends a use of s in which it got a home.
func (s *pollFD) endRegistration() {
	r := s.owner.Load()
	s.endUse(0)
	if r != nil && r.closed.Load() {
		s.notifyAll() // who waits has seen no home, nor has whoever has closed r
	}
}

// move makes them come to another reactor of the same runtime. None is lost: what is
// ready when a descriptor is registered is an event. mark is fdMoved, or 0 if from cannot tell late.
func (s *pollFD) move(from, to *reactor, mark uint32) error {
	mine, err := s.takeOwnership(from, mark)
	switch {
	case !mine:
		return err
	case s.setOwner(to) != nil && s.setOwner(from) != nil:
		s.dropOwner(from) // who waits registers it anew, or learns why that fails
	default:
		s.endRegistration()
	}
	return nil
}

// leaveClosed makes s forget a reactor that is closed.
func (s *pollFD) leaveClosed(r *reactor) error {
	mine, err := s.takeOwnership(r, fdMoved)
	if mine {
		s.dropOwner(r)
	}
	return err
}

// takeOwnership takes the home out, in a use of s that the caller ends. If somebody else has
// done that it reports false, and all is left to them.
func (s *pollFD) takeOwnership(r *reactor, mark uint32) (mine bool, err error) {
	if !s.state.beginUse(mark) {
		return false, net.ErrClosed
	}
	if !s.owner.CompareAndSwap(r, nil) {
		s.endUse(0)
		return false, nil
	}
	r.unregister(int(s.fd))
	return true, nil
}

// dropOwner ends a use of s in which it could not be registered.
func (s *pollFD) dropOwner(r *reactor) {
	r.fds.set(int(s.fd), nil)
	s.owner.Store(nil)
	s.endUse(fdRegistered)
	s.notifyAll() // those who relied on this try for themselves
}

// accepts reports whether s is registered with r, or with none for a moment: then its
// event may come before its home is known. Else r tells late, or of somebody who had
// the same number before, and nobody needs to hear that: whatever is ready when a
// descriptor is registered is an event.
func (s *pollFD) accepts(r *reactor) bool {
	home := s.owner.Load()
	return home == r || home == nil
}

// ownedAlwaysBy reports whether s is registered with r and no other reactor can tell an event late, after a read
// of what it was about.
func (s *pollFD) ownedAlwaysBy(r *reactor) bool {
	return s.owner.Load() == r && !s.state.has(fdMoved)
}

// unregister ends the registration.
func (s *pollFD) unregister() {
	if r := s.owner.Load(); r != nil {
		r.fds.set(int(s.fd), nil)
		r.unregister(int(s.fd))
	}
}

// moveToActive moves s from the reactor of the worker on which cx's task is about to wait for it, if it may move.
//
// No event of s has been fetched there and not told yet: only the goroutine that runs this fetches events of that
// reactor, and it tells all before it polls a task. So unlike other moves this one needs no fdMoved.
func (s *pollFD) moveToActive(cx *Context, home *reactor) {
	w, t := cx.here(), cx.t
	if w == nil || home != &w.reactor || !t.movable() {
		return
	}
	if to := w.activeOwner(s.fd); to != nil {
		s.move(home, &to.reactor, 0)
	}
}
