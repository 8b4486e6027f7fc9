package async

import (
	"net"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// pollFD is a non-blocking descriptor and the waiters for it. It is registered with the
// poller of the worker whose task waits first, so that the events of a connection come to
// the worker of its task. There it stays until it is closed, moved to the shared reactor
// for goroutines, or moved with its task (see activeSet). As long as only goroutines wait
// for it, it is registered with the shared reactor. See pollfdowner.go.
//
// Any number of tasks and goroutines may use a pollFD at once. The descriptor
// is closed when none of them is in a system call with it, so that no system call
// can reach the descriptor that gets its number next.
type pollFD struct {
	fd    int32
	state fdState
	owner atomic.Pointer[reactor] // where it is registered; nil before that, and while it moves
	rd    direction
	wr    direction
}

// direction is one direction of a descriptor: reading or writing.
//
// The result of a Read, Write, Accept and the like holds for all tasks that wait in
// such calls: these tasks wait in order. System calls of the user's need not agree
// about readiness, and neither do writes to different receivers: tasks that
// wait for these are woken by each event.
type direction struct {
	waiters  wakerSlot                  // fired by the poller's events
	deadline atomic.Pointer[ioDeadline] // nil: there never was a deadline
}

// fdState is a few facts about a pollFD, and, in the upper bits, the number of uses of
// its descriptor that are under way. Each method is one transition.
type fdState struct{ bits atomic.Uint32 }

const (
	// fdClosed is set once, by close or detach: no use begins afterwards. After
	// close, the caller that ends the last use closes the descriptor; close itself
	// does so if there is no use. After detach the descriptor belongs to the caller.
	fdClosed uint32 = 1 << iota

	// fdRegistered is set by the caller that registers the descriptor with a poller,
	// before it does so. Only dropOwner clears it: if that or a move fails, or to
	// leave a closed reactor of another runtime.
	fdRegistered

	// fdNotReadable is set while a read is under way, and stays set if the kernel
	// has returned EAGAIN, or if the read has proved that no data is left (see
	// provesEmpty): there will be an event before there is more. It saves the system
	// call that would only return EAGAIN. Every other read clears it. (Setting it
	// afterwards instead would miss data that came between the system call and that.)
	fdNotReadable

	// fdNotWritable is the same for writes, but only EAGAIN proves that there is no
	// room: a write also stops short at memory that cannot be read.
	fdNotWritable

	// fdHungUp is set when the poller has reported that no more data will
	// come, or that there is urgent data, which cuts reads short. There may be
	// no further event, so fdNotReadable means nothing from then on, and reads
	// go on until the end.
	fdHungUp

	// fdShared is set once other code may have the descriptor: it was duplicated,
	// inherited, or passed to a function of the user's. That code may have made it
	// blocking, or have given it a protocol of its own (kernel TLS). So calls that
	// cannot be told not to wait check first (see keepNonblocking), and no read
	// proves that no data is left.
	fdShared

	// fdMoved is set before the owner changes other than by moveToActive, and stays set, also if that
	// fails. The former owner may have fetched an event before, and report it late.
	fdMoved

	// fdOpen is set by open, and stays set: the zero pollFD counts as closed, and
	// descriptor 0 does not belong to it.
	fdOpen

	// fdUse is one use.
	fdUse
)

// open makes the zero pollFD that of fd.
func (s *pollFD) open(fd int) {
	s.fd = int32(fd)
	s.state.bits.Store(fdOpen)
}

func newPollFD(fd int) *pollFD {
	s := new(pollFD)
	s.open(fd)
	return s
}

// fdUsable reports whether a pollFD with these bits is open and was not closed.
func fdUsable(bits uint32) bool { return bits&(fdOpen|fdClosed) == fdOpen }

// beginUse begins a use, and sets mark. It reports false if the pollFD is closed.
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

// endUse ends a use, and clears mark. It reports whether the descriptor is now
// the caller's to close.
func (s *fdState) endUse(mark uint32) (last bool) {
	for {
		old := s.bits.Load()
		next := (old - fdUse) &^ mark
		if s.bits.CompareAndSwap(old, next) {
			return next&fdClosed != 0 && next < fdUse
		}
	}
}

// close closes the pollFD for further uses. first is false if it was closed
// before; last reports whether the descriptor is the caller's to close.
func (s *fdState) close() (first, last bool) {
	old := s.bits.Or(fdClosed)
	first = fdUsable(old)
	return first, first && old < fdUse
}

// detach closes the pollFD for further uses if there is none, so that the
// descriptor is the caller's to keep. first is false if it was closed before.
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

func (s *fdState) has(bit uint32) bool { return s.bits.Load()&bit != 0 }

// claim sets a bit and reports whether this call changed it.
func (s *fdState) claim(bit uint32) bool { return s.bits.Or(bit)&bit == 0 }

// endUse ends a use of the descriptor; see fdState.endUse.
func (s *pollFD) endUse(mark uint32) {
	if s.state.endUse(mark) {
		s.release()
	}
}

// notReady reports whether only an event can make an operation succeed.
func (s *pollFD) notReady(mark uint32) bool { return fdNotReady(s.state.bits.Load(), mark) }

func fdNotReady(bits, mark uint32) bool {
	return bits&mark != 0 && (mark == fdNotWritable || bits&(fdHungUp|fdShared) == 0)
}

// markShared notes that other code may have the descriptor from now on.
func (s *pollFD) markShared() {
	if !s.state.has(fdShared) {
		s.state.claim(fdShared)
	}
}

// notifyAll makes all waiters of both directions look again.
func (s *pollFD) notifyAll() {
	s.rd.waiters.notifyAll(nil)
	s.wr.waiters.notifyAll(nil)
}

// wakeReady wakes the waiters of the directions that are ready. w is the worker that
// runs the caller.
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

// close makes every present and future operation fail with net.ErrClosed, and
// closes the descriptor once no system call uses it.
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

// detach is close, except that the descriptor stays open for the caller.
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

// release gives the descriptor back, once. The order matters: as soon as it is
// closed, another descriptor may get the number.
func (s *pollFD) release() error {
	s.unregister()
	return os.NewSyscallError("close", unix.Close(int(s.fd)))
}

// checkOpen is an operation that has nothing to do: it fails only if the pollFD is
// closed.
func (s *pollFD) checkOpen() error {
	if !fdUsable(s.state.bits.Load()) {
		return net.ErrClosed
	}
	return nil
}

// deadlineError returns the error of an operation whose deadline has passed.
func (s *pollFD) deadlineError() error {
	if err := s.checkOpen(); err != nil {
		return err
	}
	return os.ErrDeadlineExceeded
}

// control calls f with the descriptor, which stays open meanwhile.
func (s *pollFD) control(f func(fd int) error) error {
	if !s.state.beginUse(0) {
		return net.ErrClosed
	}
	defer s.endUse(0)
	return f(int(s.fd))
}
