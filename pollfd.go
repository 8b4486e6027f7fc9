package async

import (
	"net"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// pollFD is a non-blocking descriptor and those who wait for it. It is
// registered with the poller of the worker whose task waits first, so that a
// connection comes to where its task is; there it stays until it is closed, handed
// over to goroutines, or moved with its task (see activeSet). As long as only those wait, it is in the lobby.
//
// Any number of tasks and goroutines may use a source at once. The descriptor
// is closed when none of them is in a system call with it, so that none can
// reach whoever gets its number next.
type pollFD struct {
	fd    int32
	state fdState
	owner atomic.Pointer[reactor] // where it is registered; nil for a moment while it moves
	rd    direction
	wr    direction
}

// direction is one direction of a source.
//
// What Read, Write, Accept and the like find is true for all tasks that wait in
// them: such a task waits for its turn. System calls of the user's need not agree
// about what is ready, and neither do writes to different receivers: tasks that
// wait for these are woken by each event.
type direction struct {
	waiters  wakerSlot                  // fired by the poller's events
	deadline atomic.Pointer[ioDeadline] // nil: there never was a deadline
}

// fdState is a few facts about a source, and, in the upper bits, how many
// uses of its descriptor are under way. Each method is one transition.
type fdState struct{ bits atomic.Uint32 }

const (
	// fdClosed is set once, by Close: no use begins anymore. The
	// descriptor then belongs to whoever ends the last use, or to Close if
	// there is none, to be closed.
	fdClosed uint32 = 1 << iota

	// fdRegistered is set by whoever registers the source with a poller,
	// before it does, and cleared again only if that fails.
	fdRegistered

	// fdNotReadable is set while a read is under way, and stays set if the kernel
	// has said EAGAIN, or if the read has proved that nothing is left (see
	// emptied): there will be an event before there is more. It saves the system
	// call that would only say EAGAIN. Every other read clears it. (Setting it
	// afterwards instead would miss what came between the system call and that.)
	fdNotReadable

	// fdNotWritable is the same for writes, but only EAGAIN proves that there is no
	// room: a write also stops short at memory that cannot be read.
	fdNotWritable

	// fdHungUp is set when the poller has said that nothing more will
	// come, or that there is urgent data, which cuts reads short. There may be
	// no further event, so fdNotReadable means nothing from then on, and reads
	// go on until the end.
	fdHungUp

	// fdShared is set once others may have the descriptor: it was duplicated,
	// inherited, or lent to a function of the user's. They may have made it
	// blocking, or have given it a protocol of its own (kernel TLS). So calls that
	// cannot be told not to wait look first (see keepNonblocking), and no read
	// proves that nothing is left.
	fdShared

	// fdMoved is set before the source changes its poller other than by rehome, and stays, also if that
	// fails. The former owner may have fetched an event before, and tell late.
	fdMoved

	// fdOpen is set by open, and stays: the zero source is as good as closed, and
	// descriptor 0 is not its.
	fdOpen

	// fdUse is one use.
	fdUse
)

// open makes the zero source that of fd.
func (s *pollFD) open(fd int) {
	s.fd = int32(fd)
	s.state.bits.Store(fdOpen)
}

func newPollFD(fd int) *pollFD {
	s := new(pollFD)
	s.open(fd)
	return s
}

// fdUsable reports whether a source with these bits is open and was not closed.
func fdUsable(bits uint32) bool { return bits&(fdOpen|fdClosed) == fdOpen }

// beginUse begins a use, and sets mark. It reports false if the source is closed.
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

// close closes the source for further uses. first is false if it was closed
// before; last reports whether the descriptor is the caller's to close.
func (s *fdState) close() (first, last bool) {
	old := s.bits.Or(fdClosed)
	first = fdUsable(old)
	return first, first && old < fdUse
}

// detach closes the source for further uses if there is none, so that the
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

// claim sets a bit and reports whether the caller was the one who did.
func (s *fdState) claim(bit uint32) bool { return s.bits.Or(bit)&bit == 0 }

// endUse ends a use of the descriptor; see fdState.endUse.
func (s *pollFD) endUse(mark uint32) {
	if s.state.endUse(mark) {
		s.release()
	}
}

// notReady reports whether only an event can help.
func (s *pollFD) notReady(mark uint32) bool { return fdNotReady(s.state.bits.Load(), mark) }

func fdNotReady(bits, mark uint32) bool {
	return bits&mark != 0 && (mark == fdNotWritable || bits&(fdHungUp|fdShared) == 0)
}

// markShared notes that others may have the descriptor from now on.
func (s *pollFD) markShared() {
	if !s.state.has(fdShared) {
		s.state.claim(fdShared)
	}
}

// notifyAll makes all who wait look again.
func (s *pollFD) notifyAll() {
	s.rd.waiters.notifyAll(nil)
	s.wr.waiters.notifyAll(nil)
}

// ready wakes those who wait for what has happened. w is the worker that runs
// the caller.
func (s *pollFD) ready(r Readiness, w *worker) {
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
// closed, somebody else may get the number.
func (s *pollFD) release() error {
	s.unregister()
	return os.NewSyscallError("close", unix.Close(int(s.fd)))
}

// checkOpen is an operation that has nothing to do: it fails only if the source is
// closed.
func (s *pollFD) checkOpen() error {
	if !fdUsable(s.state.bits.Load()) {
		return net.ErrClosed
	}
	return nil
}

// deadlineError is why an operation fails whose deadline has passed.
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
