package async

import (
	"net"

	"golang.org/x/sys/unix"
)

// An operation on a descriptor tries, registers for an event, and tries again. One function (tryOp,
// with wait) does this for all operations of the package. An operation has a mark: the bit
// fdNotReadable or fdNotWritable of its direction, or 0 for an operation that need not be about the
// data of the direction, for example a function of the user.
//
// One try:
//
//  1. If the deadline has passed, fail. If the mark says that the direction is not ready, skip the
//     system call and continue with step 5.
//  2. Begin a use and set the mark, in one compare-and-swap.
//  3. Make the system call, again after EINTR.
//  4. End the use. The mark stays set after EAGAIN, and after a call that has proved that nothing
//     is left. Every other call clears it, and then passes the wake on (passOn): the next waiter
//     may find more. If the call did not return EAGAIN, its result is final.
//  5. Make sure that the descriptor has an owner (register), join the slot of the direction, and
//     then look at the state: closed, registered, mark, owner, deadline (wait). If the slot has
//     recorded an event, consume it and go to step 2. If the state has changed so that a try may
//     succeed, go to step 2, too. Otherwise the operation is pending.
//
// An event records itself in the slot and wakes the first waiter. The owner is edge-triggered:
// after EAGAIN there is an event before a call can succeed, and it occurs once.
//
// The races that this closes:
//
//  1. Data arrives between EAGAIN and step 5. The event is recorded in the slot. Step 5 consumes it
//     and tries again. If no reactor has the descriptor yet, step 5 registers it, and a descriptor
//     that is ready when it is registered is an event.
//  2. Another operation takes some of the data and leaves the rest. Suppose that operation A gets
//     EAGAIN, then data arrives, and then operation B consumes the event and reads a part. If A set
//     the mark after its system call, the mark would now hide the rest, for which there is no
//     further event. But A has set the mark before, and B clears it after. A finds it clear in step
//     5 and tries again.
//  3. An operation begins to wait because the mark was set by a use that is still in its system
//     call. That use then clears the mark and calls passOn. The operation joins the slot and then
//     reads the mark. So it sees the mark clear, or passOn wakes it.
//  4. The descriptor is closed, the registration fails, the owner is closed, or the deadline
//     changes. The caller that changes one of these does so first and then notifies the slot. The
//     operation joins the slot and then looks at them. So it sees the change, or is notified.
//  5. An operation with mark 0 consumes an event. The event may be about data for the other
//     operations, so the mark of the direction is cleared for them (clearNotReady).

// pollOp does op in the form of a Poll. If the kernel reports EAGAIN, it keeps the waker of cx and
// returns ErrPending. op must not block. Its result exhausted says that op has proved that dir is
// not ready now.
func (s *pollFD) pollOp(cx *Context, dir *direction, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	return s.pollOpFor(cx, dir, s.notReadyBit(dir), op)
}

// pollOpFor is pollOp with any mark. With a mark of 0 op is done even if dir is known to be not
// ready, and its result says nothing about dir.
func (s *pollFD) pollOpFor(cx *Context, dir *direction, mark uint32, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	if !cx.spend() {
		return 0, ErrPending
	}
	n, err := s.tryOp(cx, dir, mark, op)
	return n, cx.unspent(err)
}

// await repeats op until it succeeds or fails, and suspends the calling straight-line code or
// goroutine while the kernel reports EAGAIN. It waits in order in dir.waiters; see wakerSlot for
// the calls withdraw, waitInOrder and leave. If cx is cancelled first, await returns errAbandoned.
func (s *pollFD) await(cx *Context, dir *direction, op func(fd int) (n int, exhausted bool, err error)) (n int, err error) {
	t, mark, over := cx.beginAwait(), s.notReadyBit(dir), false
	defer func() {
		if !over { // also if Shutdown unwinds the code
			dir.waiters.leave(t, callersWorker())
		}
	}()
	for again := false; cx.proceed(t); again = true {
		if again {
			dir.waiters.withdraw(t)
		}
		if n, err = s.tryOp(cx, dir, mark, op); err != ErrPending {
			over = err == nil
			return n, err
		}
		cx.giveBack()
		dir.waiters.waitInOrder(t)
		t.wait()
	}
	return 0, errAbandoned
}

// tryOp is pollOpFor for a caller that has taken the operation off the budget. It does steps 1 to 5
// at the head of this file. It is the only function that handles EAGAIN and EINTR of descriptors.
func (s *pollFD) tryOp(cx *Context, dir *direction, mark uint32, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	if dir.expired(cx) {
		return 0, s.deadlineError()
	}
	if s.notReady(mark) {
		if waits, err := s.wait(cx, dir, mark, false); waits || err != nil {
			return 0, err
		}
	}
	for {
		if !s.state.beginUse(mark) {
			return 0, net.ErrClosed
		}
		if dir == &s.wr {
			raceRelease()
		}
		n, exhausted, err := op(int(s.fd))
		for err == unix.EINTR {
			n, exhausted, err = op(int(s.fd))
		}
		if dir == &s.rd && err == nil {
			raceAcquire()
		}
		again := err == unix.EAGAIN
		if again || exhausted && err == nil {
			s.endUse(0)
		} else {
			s.endUse(mark)
		}
		// A task that began to wait because this use had set the mark may try now. So may the next
		// waiter, if there is more.
		if !again && !s.notReady(mark) {
			dir.waiters.passOn(cx.here())
		}
		if !again {
			return n, err
		}
		if waits, err := s.wait(cx, dir, mark, true); waits || err != nil {
			return 0, err
		}
		if mark == 0 {
			s.clearNotReady(dir) // race 5
		}
	}
}

// wait is step 5: it makes cx's task one of the waiters for an event of dir. It returns true and
// ErrPending if the caller must wait. It returns false if the caller should try, because it has
// consumed an event, or because dir is no longer known to be not ready. tried says that the kernel
// has just returned EAGAIN.
func (s *pollFD) wait(cx *Context, dir *direction, mark uint32, tried bool) (waits bool, err error) {
	for {
		if err := s.register(cx); err != nil {
			return false, err
		}
		if !dir.waiters.join(cx.waker(s.waitReason(dir))) {
			return false, nil
		}
		// The caller that changed one of these may have looked into the slot before the task was
		// there.
		bits := s.state.bits.Load()
		switch {
		case !fdUsable(bits):
			return false, net.ErrClosed
		case bits&fdRegistered == 0:
			continue // the registration by another caller has failed
		case mark != 0 && bits&mark == 0, !tried && !fdNotReady(bits, mark):
			return false, nil
		}
		if r := s.owner.Load(); r != nil {
			if r.closed.Load() {
				return false, ErrShutdown
			}
			if r.rebalances.Load() {
				s.moveToActive(cx, r)
			}
		}
		dir.arm(cx)
		return true, ErrPending
	}
}

// waitReason returns the reason for which the waiters of dir wait, for TaskInfo.
func (s *pollFD) waitReason(dir *direction) waitReason {
	if dir == &s.wr {
		return waitsWrite
	}
	return waitsRead
}

// clearNotReady clears the mark of dir, so that the next operation asks the kernel. It clears the
// bit in a use, because endUse is the transition that clears bits.
func (s *pollFD) clearNotReady(dir *direction) {
	if mark := s.notReadyBit(dir); s.state.has(mark) && s.state.beginUse(0) {
		s.endUse(mark)
	}
}

// notReadyBit returns the mark of dir.
func (s *pollFD) notReadyBit(dir *direction) uint32 {
	if dir == &s.wr {
		return fdNotWritable
	}
	return fdNotReadable
}

// keepNonblocking makes the descriptor non-blocking for the system call that follows, if other code
// may have made it blocking. The caller has a use of the descriptor. It is for calls that have no
// flag against blocking, such as accept and splice. The process that made the descriptor blocking
// then finds it non-blocking. If a process makes it blocking once more before the call, the call
// blocks. This cannot be prevented.
func (s *pollFD) keepNonblocking(fd int) error {
	if !s.state.has(fdShared) {
		return nil
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_NONBLOCK == 0 {
		err = unix.SetNonblock(fd, true)
	}
	return err
}

// pollReady returns nil if dir is ready: if there is data to read, room to write, the end of the
// data, or an error of the descriptor. Otherwise it keeps the waker of cx and returns ErrPending.
//
// It asks the kernel, with one exception: if waited is set and the mark says that dir is not ready,
// it waits for an event, and trusts the event. The caller sets waited if the event must be for
// something new: since pollReady last returned ErrPending, no other call has used dir, and the
// caller runs on the worker that fetches the events (ownedAlwaysBy).
func (s *pollFD) pollReady(cx *Context, dir *direction, waited bool) error {
	mark, events := s.notReadyBit(dir), int16(unix.POLLIN)
	if dir == &s.wr {
		events = unix.POLLOUT
	}
	if waited && s.notReady(mark) && !dir.expired(cx) {
		if !cx.spend() {
			return ErrPending
		}
		if waits, err := s.wait(cx, dir, mark, false); waits || err != nil {
			return cx.unspent(err)
		}
		if err := s.checkOpen(); err != nil {
			return err // close has fired the slot
		}
		s.clearNotReady(dir) // the next operation asks the kernel
		return nil
	}
	_, err := s.pollOp(cx, dir, func(fd int) (int, bool, error) {
		return 0, false, fdReadyNow(fd, events)
	})
	return err
}

// fdReadyNow is an operation for pollOp. It returns EAGAIN if fd is ready for none of the events.
func fdReadyNow(fd int, events int16) error {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	n, err := unix.Poll(fds[:], 0)
	if n == 0 && err == nil {
		err = unix.EAGAIN
	}
	return err
}

// rawCallback is an operation in which a function of the user gets the descriptor.
type rawCallback struct {
	s   *pollFD
	dir *direction
	f   func(fd int) (n int, err error)
}

// poll is pollOp with this function. Its mark is 0, since the function may be about something else
// than the data of the direction.
func (c *rawCallback) poll(cx *Context) (int, error) { return c.s.pollOpFor(cx, c.dir, 0, c.call) }

// call calls the function. If the function panics or calls runtime.Goexit, tryOp does not end the
// use of the descriptor, so call does. It then notifies all waiters, since this operation may have
// been woken for an event that it did not use.
func (c *rawCallback) call(fd int) (n int, exhausted bool, err error) {
	c.s.markShared()
	returned := false
	defer func() {
		if !returned {
			c.s.endUse(0)
			c.dir.waiters.notifyAll(nil)
		}
	}()
	n, err = c.f(fd)
	returned = true
	return n, false, err
}

// untilDone converts a function that reports whether it is done, as syscall.RawConn has, to the
// function of a rawCallback.
func untilDone(f func(fd uintptr) (done bool)) func(fd int) (int, error) {
	return func(fd int) (int, error) {
		if f(uintptr(fd)) {
			return 0, nil
		}
		return 0, unix.EAGAIN
	}
}
