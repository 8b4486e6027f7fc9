package async

import (
	"net"
	"os"
	"sync/atomic"
	"time"

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

// attempt does op. If the kernel reports EAGAIN, it registers the waker of cx and returns ErrPending. op
// must not block, and reports whether it has proved that h is exhausted, so that only an event can help.
func (s *pollFD) attempt(cx *Context, dir *direction, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	return s.try(cx, dir, s.notReadyBit(dir), op)
}

// try is attempt. With a mark of 0 op may be about something else than the data of h:
// it is done whatever is known of h, and what it finds says nothing about h.
func (s *pollFD) try(cx *Context, dir *direction, mark uint32, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	if !cx.spend() {
		return 0, ErrPending
	}
	n, err := s.tryOnce(cx, dir, mark, op)
	return n, cx.unspent(err)
}

// await repeats op until it succeeds or fails, and suspends the calling straight-line code or goroutine
// while the kernel reports EAGAIN. It waits in h.waiters as a Poll does; see wakerSlot. If cx is
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
		if n, err = s.tryOnce(cx, dir, mark, op); err != ErrPending {
			over = err == nil
			return n, err
		}
		cx.giveBack()
		dir.waiters.takeTurn(t)
		t.wait()
	}
	return 0, errAbandoned
}

// tryOnce is try without the budget: the caller has spent the operation. It is the one function of the
// package that handles EAGAIN and EINTR.
func (s *pollFD) tryOnce(cx *Context, dir *direction, mark uint32, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
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
			// and so may the next one if there is more.
			dir.waiters.passOn(cx.here())
		}
		if !again {
			return n, err
		}
		if waits, err := s.wait(cx, dir, mark, true); waits || err != nil {
			return 0, err
		}
		if mark == 0 {
			s.clearNotReady(dir) // the event that was consumed is for others, too
		}
	}
}

// rawCallback is one call for which a function of the user's gets the descriptor.
type rawCallback struct {
	s   *pollFD
	dir *direction
	f   func(fd int) (n int, err error)
}

// poll is attempt with that function, which may be about something else than data.
func (c *rawCallback) poll(cx *Context) (int, error) { return c.s.try(cx, c.dir, 0, c.call) }

// call ends the use of the descriptor also if the function does not return.
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

// untilDone makes a function for a loan of one that says whether it is done.
func untilDone(f func(fd uintptr) (done bool)) func(fd int) (int, error) {
	return func(fd int) (int, error) {
		if f(uintptr(fd)) {
			return 0, nil
		}
		return 0, unix.EAGAIN
	}
}

// pollReady returns nil if h is ready: there is something to read, or room to
// write, or the end. It asks the kernel, unless an event has come and waited
// says that this must be for something new: since pollReady last returned
// ErrPending, on the worker that fetches the events, nobody has used h.
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
			return err // what ended the wait was Close
		}
		s.clearNotReady(dir) // so that whoever acts on this asks the kernel
		return nil
	}
	_, err := s.attempt(cx, dir, func(fd int) (int, bool, error) {
		return 0, false, fdReadyNow(fd, events)
	})
	return err
}

// fdReadyNow is a use of a descriptor for attempt: EAGAIN if fd is not ready for
// what is asked.
func fdReadyNow(fd int, events int16) error {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	n, err := unix.Poll(fds[:], 0)
	if n == 0 && err == nil {
		err = unix.EAGAIN
	}
	return err
}

// endUse ends a use of the descriptor; see fdState.endUse.
func (s *pollFD) endUse(mark uint32) {
	if s.state.endUse(mark) {
		s.release()
	}
}

// clearNotReady has the next attempt ask the kernel whatever is known of h.
func (s *pollFD) clearNotReady(dir *direction) {
	if mark := s.notReadyBit(dir); s.state.has(mark) && s.state.beginUse(0) {
		s.endUse(mark)
	}
}

// notReadyBit returns the bit that says that h is exhausted.
func (s *pollFD) notReadyBit(dir *direction) uint32 {
	if dir == &s.wr {
		return fdNotWritable
	}
	return fdNotReadable
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

// keepNonblocking has the descriptor, for which the caller has a use, not block the
// call that follows. It is for calls that cannot be told so themselves, such as accept
// and splice. The process that made the descriptor blocking finds it non-blocking again. If that
// happens once more between this and the call, the call blocks: nothing can be done
// about that moment.
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

// wait takes a place for cx's task among those who wait for an event. It
// returns true and ErrPending if the caller must wait; false if it should try,
// because there has been an event, which is consumed, or because the half has been
// found not to be exhausted. tried says that the kernel has just said that it is.
func (s *pollFD) wait(cx *Context, dir *direction, mark uint32, tried bool) (waits bool, err error) {
	for {
		if err := s.register(cx); err != nil {
			return false, err
		}
		if !dir.waiters.join(cx.waker(s.waitReason(dir))) {
			return false, nil
		}
		// Whoever changed one of these may have looked into the slot before
		// the task stood there.
		bits := s.state.bits.Load()
		switch {
		case !fdUsable(bits):
			return false, net.ErrClosed
		case bits&fdRegistered == 0:
			continue // somebody else's try has failed
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

// waitReason says what those wait for who wait for h.
func (s *pollFD) waitReason(dir *direction) waitReason {
	if dir == &s.wr {
		return waitsWrite
	}
	return waitsRead
}

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

// notifyAll makes all who wait look again.
func (s *pollFD) notifyAll() {
	s.rd.waiters.notifyAll(nil)
	s.wr.waiters.notifyAll(nil)
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

// unregister ends the registration.
func (s *pollFD) unregister() {
	if r := s.owner.Load(); r != nil {
		r.fds.set(int(s.fd), nil)
		r.unregister(int(s.fd))
	}
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

// ioDeadline is the deadline of one half. The timer is set when somebody waits, and
// moved only if it would fire too late: a deadline that is put off before each
// read costs nothing but the clock.
type ioDeadline struct {
	dir *direction
	at  atomic.Int64 // 0: none

	mu     lockOf[ioDeadline]
	alarm  alarm
	closed bool
}

// setDeadline sets the time after which operations fail; zero is none.
func (dir *direction) setDeadline(t time.Time) {
	l := dir.deadline.Load()
	if l == nil {
		if t.IsZero() {
			return
		}
		dir.deadline.CompareAndSwap(nil, &ioDeadline{dir: dir})
		l = dir.deadline.Load()
	}
	at := int64(0)
	if !t.IsZero() {
		at = max(nanosAt(t), 1)
	}
	l.at.Store(at)
	dir.waiters.notifyAll(nil) // who waits must look at the new deadline
}

// expired reports whether the deadline has passed.
func (dir *direction) expired(cx *Context) bool {
	l := dir.deadline.Load()
	if l == nil {
		return false
	}
	at := l.at.Load()
	return at != 0 && cx.nanos() >= at
}

// arm sees to it that those who wait are woken at the deadline.
func (dir *direction) arm(cx *Context) {
	l := dir.deadline.Load()
	if l == nil {
		return
	}
	at := l.at.Load()
	if at == 0 {
		return
	}
	w := cx.here()
	l.mu.Lock()
	defer l.mu.Unlock()
	if armed := l.alarm.armedAt(w); !l.closed && (armed < 0 || armed > tickAfter(at)) {
		l.alarm.set(w, at, l)
	}
}

// expire implements expirer.
func (l *ioDeadline) expire(w *worker) { l.dir.waiters.notifyAll(w) }

// end wakes those who wait, for the last time.
func (dir *direction) end() {
	dir.waiters.fire(nil)
	if l := dir.deadline.Load(); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.closed = true
		l.alarm.stop(nil)
	}
}
