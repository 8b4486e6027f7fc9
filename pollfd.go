package async

import (
	"net"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// pollFD is a non-blocking descriptor and the waiters for it.
//
// It is registered with one reactor, its owner. The owner is the reactor of the worker whose task
// waits first, so the events of a connection arrive at the worker of its task. A descriptor for
// which only goroutines wait is registered with the shared reactor. It stays with its owner until
// it is closed, is moved to the shared reactor for goroutines, or moves with its task (see
// activeSet). The protocol is at the head of pollfdowner.go. How a task waits for readiness is at
// the head of pollfdwait.go.
//
// Any number of tasks and goroutines may use a pollFD at the same time. Each system call with the
// descriptor is a use, which state counts. The descriptor is closed when it has no use, so no
// system call reaches a descriptor that was closed and has a new file behind the same number.
type pollFD struct {
	fd    int32
	state fdState
	owner atomic.Pointer[reactor] // where it is registered; nil before that, and while it moves
	rd    direction               // reading
	wr    direction               // writing
}

// direction is one direction of a descriptor: reading or writing.
//
// Tasks that wait in Read, Write, Accept and similar calls wait in order: if one of them finds the
// descriptor not ready, it is not ready for the others either. So an event wakes only the first.
// This is not true of system calls of the user, and of writes to different receivers. Each event
// wakes all tasks that wait for these.
type direction struct {
	waiters  wakerSlot                  // fired by the events of the owner
	deadline atomic.Pointer[ioDeadline] // nil if there never was a deadline
}

// fdState is the state of a pollFD in one word. The lower bits are the constants below. The upper
// bits count the uses of the descriptor that are under way. Each method is one transition, and no
// other code changes the word. open stores fdOpen; after that:
//
//	beginUse   adds a use and sets a bit, unless the pollFD is closed
//	endUse     removes a use and clears a bit; tells the last user of a closed pollFD to close(2)
//	close      sets fdClosed; tells the caller to close(2) if there is no use
//	detach     sets fdClosed if there is no use
//	claim      sets a bit, and reports whether this call changed it
type fdState struct{ bits atomic.Uint32 }

const (
	// fdClosed is set once, by close or detach. No use begins afterwards. After close, the caller
	// that ends the last use closes the descriptor, or close itself if there is no use. After
	// detach the descriptor belongs to the caller of detach.
	fdClosed uint32 = 1 << iota

	// fdRegistered is set by the caller that registers the descriptor with a poller, before it does
	// so. Only dropOwner clears it: when that registration or a move has failed, or when the owner
	// is a closed reactor of another runtime.
	fdRegistered

	// fdNotReadable says that a read would return EAGAIN, and that there will be an event before a
	// read can succeed. It saves the system call. A read sets it when it begins, and it stays set
	// if the kernel returned EAGAIN, or if the read has proved that no data is left (see
	// provesEmpty). Every other read clears it when it ends. See pollfdwait.go for the reason why
	// it is not set after the system call.
	fdNotReadable

	// fdNotWritable is the same for writes. Only EAGAIN proves that there is no room: a write is
	// also short if it reaches memory that cannot be read.
	fdNotWritable

	// fdHungUp is set when the poller has reported that no more data will arrive, or that there is
	// urgent data, which cuts reads short. Perhaps no further event follows. So fdNotReadable means
	// nothing from then on, and reads ask the kernel until the end.
	fdHungUp

	// fdShared is set once other code may have the descriptor: it was duplicated, inherited, or
	// passed to a function of the user. That code may have made it blocking, or have given it a
	// protocol of its own (kernel TLS). So system calls that have no flag against blocking check
	// first (see keepNonblocking), and no read proves that no data is left.
	fdShared

	// fdMoved is set before the owner changes, except by moveToActive. It stays set, even if the
	// move fails. The former owner may have fetched an event before the move and may report it
	// after the move.
	fdMoved

	// fdOpen is set by open, and stays set. The zero pollFD has no fdOpen and counts as closed:
	// descriptor 0 does not belong to it.
	fdOpen

	// fdUse is one use. It must be the last constant, since the count occupies all bits from here.
	fdUse
)

// open makes the zero pollFD a pollFD of fd. No other goroutine uses it yet.
func (s *pollFD) open(fd int) {
	s.fd = int32(fd)
	s.state.bits.Store(fdOpen)
}

func newPollFD(fd int) *pollFD {
	s := new(pollFD)
	s.open(fd)
	return s
}

// fdUsable reports whether a pollFD with these bits was opened, and was neither closed nor detached
// since.
func fdUsable(bits uint32) bool { return bits&(fdOpen|fdClosed) == fdOpen }

// beginUse begins a use and sets the bit mark. It reports false if the pollFD is closed.
func (s *fdState) beginUse(mark uint32) bool {
	for {
		old := s.bits.Load()
		if !fdUsable(old) {
			return false
		}
		if s.bits.CompareAndSwap(old, (old|mark)+fdUse) {
			return true
		}
	}
}

// endUse ends a use and clears the bit mark. If last is true, the pollFD is closed and this was the
// last use: the caller closes the descriptor.
func (s *fdState) endUse(mark uint32) (last bool) {
	for {
		old := s.bits.Load()
		next := (old - fdUse) &^ mark
		if s.bits.CompareAndSwap(old, next) {
			return next&fdClosed != 0 && next < fdUse
		}
	}
}

// close makes every later beginUse fail. first is false if the pollFD was closed before. If last is
// true, there is no use: the caller closes the descriptor. Otherwise the caller that ends the last
// use does.
func (s *fdState) close() (first, last bool) {
	old := s.bits.Or(fdClosed)
	first = fdUsable(old)
	return first, first && old < fdUse
}

// detach makes every later beginUse fail if there is no use, and leaves the descriptor to the
// caller. If there is a use, unused is false and nothing changes. first is false if the pollFD was
// closed before.
func (s *fdState) detach() (first, unused bool) {
	for {
		old := s.bits.Load()
		if first, unused = fdUsable(old), old < fdUse; !first || !unused {
			return first, unused
		}
		if s.bits.CompareAndSwap(old, old|fdClosed) {
			return true, true
		}
	}
}

// has reports whether a bit is set.
func (s *fdState) has(bit uint32) bool { return s.bits.Load()&bit != 0 }

// claim sets a bit. It reports whether this call changed the bit.
func (s *fdState) claim(bit uint32) bool { return s.bits.Or(bit)&bit == 0 }

// endUse ends a use of the descriptor and clears the bit mark. It closes the descriptor if the
// pollFD is closed and this was the last use.
func (s *pollFD) endUse(mark uint32) {
	if s.state.endUse(mark) {
		s.release()
	}
}

// notReady reports whether an operation on the direction of mark can succeed only after an event.
func (s *pollFD) notReady(mark uint32) bool { return fdNotReady(s.state.bits.Load(), mark) }

// fdNotReady is notReady for the given bits. A mark of 0 is never not ready.
func fdNotReady(bits, mark uint32) bool {
	return bits&mark != 0 && (mark == fdNotWritable || bits&(fdHungUp|fdShared) == 0)
}

// markShared sets fdShared. It reads first, since the bit is set already in most calls.
func (s *pollFD) markShared() {
	if !s.state.has(fdShared) {
		s.state.claim(fdShared)
	}
}

// notifyAll wakes all waiters of both directions, so that they look again.
func (s *pollFD) notifyAll() {
	s.rd.waiters.notifyAll(nil)
	s.wr.waiters.notifyAll(nil)
}

// wakeReady wakes the waiters of the directions that are ready. w is the worker that runs the
// caller, or nil.
func (s *pollFD) wakeReady(r Readiness, w *worker) {
	if r&(HungUp|urgent) != 0 && !s.state.has(fdHungUp) {
		s.state.claim(fdHungUp)
	}
	if r&Readable != 0 {
		s.rd.waiters.fireOne(w)
	}
	if r&Writable != 0 {
		s.wr.waiters.fireOne(w)
	}
}

// close makes every present and future operation fail with net.ErrClosed. The descriptor is closed
// as soon as no system call uses it. A second close returns net.ErrClosed.
func (s *pollFD) close() error {
	first, last := s.state.close()
	if !first {
		return net.ErrClosed
	}
	s.rd.end()
	s.wr.end()
	if last {
		return s.release()
	}
	return nil
}

// detach makes every present and future operation fail with net.ErrClosed, and leaves the
// descriptor open for the caller. It fails with ErrSourceInUse if a system call uses the
// descriptor.
func (s *pollFD) detach() error {
	switch first, unused := s.state.detach(); {
	case !first:
		return net.ErrClosed
	case !unused:
		return ErrSourceInUse
	}
	s.unregister()
	s.rd.end()
	s.wr.end()
	return nil
}

// release closes the descriptor. It is called once. unregister comes first: as soon as the
// descriptor is closed, another file may get its number.
func (s *pollFD) release() error {
	s.unregister()
	return os.NewSyscallError("close", unix.Close(int(s.fd)))
}

// checkOpen returns net.ErrClosed if the pollFD is closed, and nil otherwise.
func (s *pollFD) checkOpen() error {
	if !fdUsable(s.state.bits.Load()) {
		return net.ErrClosed
	}
	return nil
}

// deadlineError returns the error of an operation whose deadline has passed. net.ErrClosed takes
// precedence.
func (s *pollFD) deadlineError() error {
	if err := s.checkOpen(); err != nil {
		return err
	}
	return os.ErrDeadlineExceeded
}

// control calls f with the descriptor, which stays open until f returns.
func (s *pollFD) control(f func(fd int) error) error {
	if !s.state.beginUse(0) {
		return net.ErrClosed
	}
	defer s.endUse(0)
	return f(int(s.fd))
}
