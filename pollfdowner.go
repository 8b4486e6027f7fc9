package async

import "net"

// The owner, the registration and the move of a descriptor are one state. It consists of
//
//   - the bits fdRegistered, fdMoved and fdClosed, and the number of uses, in pollFD.state;
//   - pollFD.owner;
//   - the entry of the descriptor in the fdTable of a runtime, which all reactors of this runtime
//     share;
//   - the registration with the poller of a reactor.
//
// The states are:
//
//	               fdRegistered  owner        table entry  poller
//	unregistered   clear         nil          none         none
//	moving         set           nil          (changes)    (changes)
//	owned          set           r            s            with r
//	owner closed   set           r, closed    s            none: it was closed with r
//	closed         (fdClosed)    (not used)   none         none
//
// "moving" is also the state during a first registration, and during dropOwner. "closed" is final.
// fdRegistered and owner keep their last values there.
//
// First registration, by registerWith(r):
//
//  1. Set fdRegistered by an atomic Or. Only the caller that changed the bit continues. Every other
//     caller relies on it.
//  2. Begin a use, so that the descriptor is neither closed nor detached until step 6. If the
//     pollFD is closed this fails with net.ErrClosed.
//  3. Set the table entry, so that dispatch finds s as soon as there is an event.
//  4. Add the descriptor to the poller, under r.mu (reactor.register). If r is closed this fails
//     with ErrShutdown.
//  5. Store r in owner.
//  6. End the use, and notify all waiters if r is closed by now (endRegistration).
//
// If step 3 or 4 fails, dropOwner follows.
//
// Move from the owner r to another reactor of the same runtime, by move:
//
//  1. Begin a use and set fdMoved, in one compare-and-swap. moveToActive does not set fdMoved.
//  2. Change owner from r to nil by a compare-and-swap. Only the caller that succeeds continues.
//     Until it has stored an owner or has called dropOwner, no other caller changes owner or the
//     registration. Every other caller ends its use and relies on this move.
//  3. Remove the descriptor from the poller of r, under r.mu, unless r is closed
//     (reactor.unregister). The table entry stays.
//  4. Do steps 4 and 5 of the registration with the new reactor. If that fails, do them with r
//     again.
//  5. End the use, and notify all waiters if the owner is closed by now (endRegistration).
//
// If both reactors fail in step 4, dropOwner follows.
//
// dropOwner clears the table entry, stores nil in owner, then clears fdRegistered and ends the use
// in one compare-and-swap, and then notifies all waiters. The first waiter that looks again
// registers the descriptor anew, or gets the error.
//
// If the owner is closed, a waiter gets ErrShutdown (wait). There are two exceptions, both in
// register. First, a task that a worker runs moves the descriptor away from a closed shared reactor
// of its own runtime. Second, if the owner is a closed reactor of another runtime, leaveClosed does
// steps 1 to 3 of a move and then dropOwner, and a first registration follows.
//
// Close and detach: close sets fdClosed by an atomic Or. detach sets it by a compare-and-swap that
// fails while there is a use. unregister clears the table entry and removes the descriptor from the
// poller, if the poller is open. It runs when fdClosed is set and there is no use: in detach, or in
// release before close(2).
//
// Events: dispatch of a reactor r looks the descriptor up in the table. It ignores the event if
// there is no entry, or if the owner is neither r nor nil (accepts). Ignoring an event of another
// reactor loses nothing: if the descriptor is ready when it is added to a poller, that is an event.
//
// The races that this closes:
//
//  1. Two callers register or move at the same time. The Or of fdRegistered or the compare-and-swap
//     of owner lets one of them do it.
//  2. An event is dispatched between the steps 4 and 5 of a registration. The table entry is set
//     and the owner is nil, so the event is accepted.
//  3. The former owner has fetched an event before a move and dispatches it after the move. The
//     event is ignored. If the descriptor is moving again or has returned to that reactor, the
//     event is accepted, perhaps after a read of the data that caused it. It is spurious then: it
//     wakes a task that finds EAGAIN. pollReady with waited set returns after an event without
//     asking the kernel. It is called so only by a task that began to wait while fdMoved was clear
//     (ownedAlwaysBy). moveToActive leaves fdMoved clear, since there is no such event before it.
//  4. A registration or a move fails while tasks wait for its events. A waiter joins its slot and
//     then reads fdRegistered. dropOwner clears fdRegistered and then notifies the slots. So the
//     waiter sees the bit clear and registers, or is notified.
//  5. The reactor r is closed while it becomes the owner. The closer (worker.exit or
//     sharedReactor.run) sets r.closed and then notifies the waiters of the descriptors whose owner
//     is r. The caller that registers stores r in owner and then reads r.closed (endRegistration).
//     So at least one of the two notifies. A waiter joins its slot and then reads owner and
//     r.closed. So it sees that r is closed, or is notified.
//  6. The descriptor is closed or detached during a registration or a move. The registration is a
//     use from step 2 on, the move from step 1 on. So unregister does not run at the same time, and
//     sees the result. A registration or a move that begins its use after fdClosed was set fails
//     with net.ErrClosed and adds nothing to a poller.
//  7. The number of a closed descriptor is used again. unregister precedes close(2), so the table
//     entry and the registration are gone before another pollFD sets its own. An event of the old
//     descriptor that was fetched before may find the new pollFD. The event is ignored unless the
//     new pollFD has the same reactor as owner, or no owner at this moment. Then it is spurious.

// register makes sure that s has an owner, before the caller waits:
//
//   - If s is not registered, it is registered with the reactor of the worker that runs the caller,
//     or with the shared reactor if no worker runs it.
//   - The reactor of a worker remains the owner, also if another worker runs the caller.
//   - A worker takes s over from the shared reactor of its runtime, since events reach its tasks
//     more cheaply from its own reactor.
//   - If another caller is moving s, register relies on this move.
//   - A reactor of another runtime remains the owner until it is closed. Then s is registered anew.
//   - A closed reactor of the caller's runtime remains the owner, unless a worker can take s over
//     from it as above. wait then fails with ErrShutdown.
func (s *pollFD) register(cx *Context) error {
	registered, owner := s.state.has(fdRegistered), s.owner.Load()
	if registered && (owner == nil || !owner.shared && !owner.closed.Load()) {
		return nil
	}
	w, rt := cx.here(), cx.taskWorker().rt
	if registered && owner.fds != &rt.fds {
		if !owner.closed.Load() {
			return nil
		}
		if err := s.leaveClosed(owner); err != nil {
			return err
		}
		registered = false
	}
	switch {
	case registered && (w == nil || !owner.shared):
		return nil
	case registered:
		return s.move(owner, &w.reactor, fdMoved)
	case w == nil:
		return s.registerShared(rt)
	default:
		return s.registerWith(&w.reactor)
	}
}

// registerShared registers s with the shared reactor of rt. If the shared reactor cannot be opened,
// for example because there are no free descriptors, it registers s with the reactor of a worker.
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

// moveToShared moves s to the shared reactor of rt, if a worker of rt is the owner.
func (s *pollFD) moveToShared(rt *Runtime) {
	owner := s.owner.Load()
	if owner == nil || owner.shared || owner.fds != &rt.fds {
		return
	}
	if r, err := rt.shared.acquire(); err == nil {
		s.move(owner, r, fdMoved)
	}
}

// registerWith registers s with r, unless s is registered. The steps are at the head of this file.
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

// setOwner does steps 4 and 5 of a registration with r.
func (s *pollFD) setOwner(r *reactor) error {
	if err := r.register(int(s.fd)); err != nil {
		return err
	}
	s.owner.Store(r)
	return nil
}

// endRegistration ends the use of s in which s got an owner.
func (s *pollFD) endRegistration() {
	r := s.owner.Load()
	s.endUse(0)
	if r != nil && r.closed.Load() {
		s.notifyAll() // race 5
	}
}

// move moves s to another reactor of the same runtime. No event is lost: if a descriptor is ready
// when it is registered, that is an event. mark is fdMoved, or 0 if from cannot report an event
// late.
func (s *pollFD) move(from, to *reactor, mark uint32) error {
	mine, err := s.takeOwnership(from, mark)
	switch {
	case !mine:
		return err
	case s.setOwner(to) != nil && s.setOwner(from) != nil:
		s.dropOwner(from) // a waiter registers s anew, or gets the error
	default:
		s.endRegistration()
	}
	return nil
}

// leaveClosed makes s unregistered if r, which is closed, is still its owner.
func (s *pollFD) leaveClosed(r *reactor) error {
	mine, err := s.takeOwnership(r, fdMoved)
	if mine {
		s.dropOwner(r)
	}
	return err
}

// takeOwnership does steps 1 to 3 of a move. If mine is true, the caller ends the use. If mine is
// false and err is nil, r is no longer the owner: another caller has moved s or is moving it.
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

// dropOwner ends a use of s in which s could not be registered. r is any reactor of the runtime.
func (s *pollFD) dropOwner(r *reactor) {
	r.fds.set(int(s.fd), nil)
	s.owner.Store(nil)
	s.endUse(fdRegistered)
	s.notifyAll() // race 4
}

// accepts reports whether an event of s from r is dispatched. It is if r is the owner, or if there
// is no owner at this moment, since an event may occur before the owner is stored. Every other
// event is late, or belongs to a descriptor that had the same number before. Ignoring it loses
// nothing: if a descriptor is ready when it is registered, that is an event.
func (s *pollFD) accepts(r *reactor) bool {
	owner := s.owner.Load()
	return owner == r || owner == nil
}

// ownedAlwaysBy reports whether r is the owner and no other reactor can report an event late, after
// a read of the data that caused the event.
func (s *pollFD) ownedAlwaysBy(r *reactor) bool {
	return s.owner.Load() == r && !s.state.has(fdMoved)
}

// unregister ends the registration for good. The pollFD is closed and has no use.
func (s *pollFD) unregister() {
	if r := s.owner.Load(); r != nil {
		r.fds.set(int(s.fd), nil)
		r.unregister(int(s.fd))
	}
}

// moveToActive moves s to another worker's reactor, if s may move. cx's task is about to wait for s
// on the worker whose reactor is the owner.
//
// Unlike other moves this one needs no fdMoved: no event of s has been fetched there that is not
// yet dispatched. Only the goroutine that runs this code fetches events of that reactor, and it
// dispatches all of them before it polls a task.
func (s *pollFD) moveToActive(cx *Context, owner *reactor) {
	w, t := cx.here(), cx.t
	if w == nil || owner != &w.reactor || !t.movable() {
		return
	}
	if to := w.activeOwner(s.fd); to != nil {
		s.move(owner, &to.reactor, 0)
	}
}
