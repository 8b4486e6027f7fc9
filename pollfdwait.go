package async

import (
	"net"

	"golang.org/x/sys/unix"
)

// pollOp does op. If the kernel reports EAGAIN, it registers the waker of cx and returns ErrPending. op
// must not block, and reports whether it has proved that dir is not ready, so that only an event can help.
func (s *pollFD) pollOp(cx *Context, dir *direction, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	return s.pollOpFor(cx, dir, s.notReadyBit(dir), op)
}

// pollOpFor is pollOp for any mark. With a mark of 0 op may be about something else than the data of dir:
// it is done whatever is known of dir, and its result says nothing about dir.
func (s *pollFD) pollOpFor(cx *Context, dir *direction, mark uint32, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	if !cx.spend() {
		return 0, ErrPending
	}
	n, err := s.tryOp(cx, dir, mark, op)
	return n, cx.unspent(err)
}

// await repeats op until it succeeds or fails, and suspends the calling straight-line code or goroutine
// while the kernel reports EAGAIN. It waits in dir.waiters as a Poll does; see wakerSlot. If cx is
// cancelled first, await returns errAbandoned.
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

// tryOp is pollOpFor without the budget: the caller has spent the operation. It handles EAGAIN and EINTR for all
// operations on descriptors.
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
		if !again && !s.notReady(mark) {
			// A task that began to wait because this use had set the mark may try,
			// and so may the next waiter if there is more.
			dir.waiters.passOn(cx.here())
		}
		if !again {
			return n, err
		}
		if waits, err := s.wait(cx, dir, mark, true); waits || err != nil {
			return 0, err
		}
		if mark == 0 {
			s.clearNotReady(dir) // the event that was consumed is for other tasks, too
		}
	}
}

// wait makes cx's task one of the waiters for an event of dir. It returns true and
// ErrPending if the caller must wait; false if it should try, because there has been
// an event, which is consumed, or because dir is not known to be not ready.
// tried says that the kernel has just returned EAGAIN.
func (s *pollFD) wait(cx *Context, dir *direction, mark uint32, tried bool) (waits bool, err error) {
	for {
		if err := s.register(cx); err != nil {
			return false, err
		}
		if !dir.waiters.join(cx.waker(s.waitReason(dir))) {
			return false, nil
		}
		// The caller that changed one of these may have looked into the slot
		// before the task stood there.
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

// waitReason returns the reason for which the waiters of dir wait.
func (s *pollFD) waitReason(dir *direction) waitReason {
	if dir == &s.wr {
		return waitsWrite
	}
	return waitsRead
}

// clearNotReady makes the next attempt ask the kernel, whatever is known of dir.
func (s *pollFD) clearNotReady(dir *direction) {
	if mark := s.notReadyBit(dir); s.state.has(mark) && s.state.beginUse(0) {
		s.endUse(mark)
	}
}

// notReadyBit returns the bit that says that dir is not ready.
func (s *pollFD) notReadyBit(dir *direction) uint32 {
	if dir == &s.wr {
		return fdNotWritable
	}
	return fdNotReadable
}

// keepNonblocking makes the descriptor, for which the caller has a use, non-blocking for the
// call that follows. It is for calls that have no flag for this, such as accept
// and splice. The process that made the descriptor blocking finds it non-blocking again. If a process
// makes it blocking once more between this and the call, the call blocks. That cannot be prevented.
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

// pollReady returns nil if dir is ready: there is data to read, or room to
// write, or the end. It asks the kernel, unless an event has come and waited
// says that the event must be for something new: since pollReady last returned
// ErrPending, on the worker that fetches the events, no other call has used dir.
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
			return err // close ended the wait
		}
		s.clearNotReady(dir) // so that the next operation asks the kernel
		return nil
	}
	_, err := s.pollOp(cx, dir, func(fd int) (int, bool, error) {
		return 0, false, fdReadyNow(fd, events)
	})
	return err
}

// fdReadyNow is an operation for attempt: it returns EAGAIN if fd is not ready for
// one of the events.
func fdReadyNow(fd int, events int16) error {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	n, err := unix.Poll(fds[:], 0)
	if n == 0 && err == nil {
		err = unix.EAGAIN
	}
	return err
}

// rawCallback is one operation in which a function of the user's gets the descriptor.
type rawCallback struct {
	s   *pollFD
	dir *direction
	f   func(fd int) (n int, err error)
}

// poll is try with that function, which may be about something else than data.
func (c *rawCallback) poll(cx *Context) (int, error) { return c.s.pollOpFor(cx, c.dir, 0, c.call) }

// call calls the function, and ends the use of the descriptor also if that does not return.
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

// untilDone makes the function of a rawCallback from a function that reports whether it is done.
func untilDone(f func(fd uintptr) (done bool)) func(fd int) (int, error) {
	return func(fd int) (int, error) {
		if f(uintptr(fd)) {
			return 0, nil
		}
		return 0, unix.EAGAIN
	}
}
