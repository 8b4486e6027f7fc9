package async

import (
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// source is a non-blocking descriptor and those who wait for it. It is
// registered with the poller of the worker whose task waits first, so that a
// connection comes to where its task is; there it stays until it is closed, handed
// over to goroutines, or moved with its task (see gathering). As long as only those wait, it is in the lobby.
//
// Any number of tasks and goroutines may use a source at once. The descriptor
// is closed when none of them is in a system call with it, so that none can
// reach whoever gets its number next.
type source struct {
	fd    int32
	state sourceState
	home  atomic.Pointer[reactor] // where it is registered; nil for a moment while it moves
	rd    half
	wr    half
}

// half is one direction of a source.
//
// What Read, Write, Accept and the like find is true for all tasks that wait in
// them: such a task waits for its turn. System calls of the user's need not agree
// about what is ready, and neither do writes to different receivers: tasks that
// wait for these are woken by each event.
type half struct {
	waiters wakerSlot             // fired by the poller's events
	limit   atomic.Pointer[limit] // nil: there never was a deadline
}

// sourceState is a few facts about a source, and, in the upper bits, how many
// uses of its descriptor are under way. Each method is one transition.
type sourceState struct{ bits atomic.Uint32 }

const (
	// sourceClosed is set once, by Close: no use begins anymore. The
	// descriptor then belongs to whoever ends the last use, or to Close if
	// there is none, to be closed.
	sourceClosed uint32 = 1 << iota

	// sourceRegistered is set by whoever registers the source with a poller,
	// before it does, and cleared again only if that fails.
	sourceRegistered

	// sourceDrained is set while a read is under way, and stays set if the kernel
	// has said EAGAIN, or if the read has proved that nothing is left (see
	// emptied): there will be an event before there is more. It saves the system
	// call that would only say EAGAIN. Every other read clears it. (Setting it
	// afterwards instead would miss what came between the system call and that.)
	sourceDrained

	// sourceFull is the same for writes, but only EAGAIN proves that there is no
	// room: a write also stops short at memory that cannot be read.
	sourceFull

	// sourceHungUp is set when the poller has said that nothing more will
	// come, or that there is urgent data, which cuts reads short. There may be
	// no further event, so sourceDrained means nothing from then on, and reads
	// go on until the end.
	sourceHungUp

	// sourceShared is set once others may have the descriptor: it was duplicated,
	// inherited, or lent to a function of the user's. They may have made it
	// blocking, or have given it a protocol of its own (kernel TLS). So calls that
	// cannot be told not to wait look first (see keepNonblocking), and no read
	// proves that nothing is left.
	sourceShared

	// sourceMoved is set before the source changes its poller other than by rehome, and stays, also if that
	// fails. The former owner may have fetched an event before, and tell late.
	sourceMoved

	// sourceOpen is set by open, and stays: the zero source is as good as closed, and
	// descriptor 0 is not its.
	sourceOpen

	// sourceUse is one use.
	sourceUse
)

// open makes the zero source that of fd.
func (s *source) open(fd int) {
	s.fd = int32(fd)
	s.state.bits.Store(sourceOpen)
}

func newSource(fd int) *source {
	s := new(source)
	s.open(fd)
	return s
}

// usable reports whether a source with these bits is open and was not closed.
func usable(bits uint32) bool { return bits&(sourceOpen|sourceClosed) == sourceOpen }

// begin begins a use, and sets mark. It reports false if the source is closed.
func (s *sourceState) begin(mark uint32) bool {
	for {
		old := s.bits.Load()
		if !usable(old) {
			return false
		}
		if s.bits.CompareAndSwap(old, (old|mark)+sourceUse) {
			return true
		}
	}
}

// finish ends a use, and clears mark. It reports whether the descriptor is now
// the caller's to close.
func (s *sourceState) finish(mark uint32) (last bool) {
	for {
		old := s.bits.Load()
		next := (old - sourceUse) &^ mark
		if s.bits.CompareAndSwap(old, next) {
			return next&sourceClosed != 0 && next < sourceUse
		}
	}
}

// close closes the source for further uses. first is false if it was closed
// before; last reports whether the descriptor is the caller's to close.
func (s *sourceState) close() (first, last bool) {
	old := s.bits.Or(sourceClosed)
	first = usable(old)
	return first, first && old < sourceUse
}

// detach closes the source for further uses if there is none, so that the
// descriptor is the caller's to keep. first is false if it was closed before.
func (s *sourceState) detach() (first, unused bool) {
	for {
		old := s.bits.Load()
		if first, unused = usable(old), old < sourceUse; !first || !unused {
			return first, unused
		}
		if s.bits.CompareAndSwap(old, old|sourceClosed) {
			return true, true
		}
	}
}

func (s *sourceState) has(bit uint32) bool { return s.bits.Load()&bit != 0 }

// claim sets a bit and reports whether the caller was the one who did.
func (s *sourceState) claim(bit uint32) bool { return s.bits.Or(bit)&bit == 0 }

// attempt does op. If the kernel reports EAGAIN, it registers the waker of cx and returns ErrPending. op
// must not block, and reports whether it has proved that h is exhausted, so that only an event can help.
func (s *source) attempt(cx *Context, h *half, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	return s.try(cx, h, s.markOf(h), op)
}

// try is attempt. With a mark of 0 op may be about something else than the data of h:
// it is done whatever is known of h, and what it finds says nothing about h.
func (s *source) try(cx *Context, h *half, mark uint32, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	if !cx.spend() {
		return 0, ErrPending
	}
	n, err := s.tryOnce(cx, h, mark, op)
	return n, cx.unspent(err)
}

// await repeats op until it succeeds or fails, and suspends the calling straight-line code or goroutine
// while the kernel reports EAGAIN. It waits in h.waiters as a Poll does; see wakerSlot. If cx is
// cancelled first, await returns errAbandoned.
func (s *source) await(cx *Context, h *half, op func(fd int) (n int, exhausted bool, err error)) (n int, err error) {
	t, mark, over := cx.beginAwait(), s.markOf(h), false
	defer func() {
		if !over { // also if Shutdown unwinds the code
			h.waiters.leave(t, callersWorker())
		}
	}()
	for again := false; cx.proceed(t); again = true {
		if again {
			h.waiters.withdraw(t)
		}
		if n, err = s.tryOnce(cx, h, mark, op); err != ErrPending {
			over = err == nil
			return n, err
		}
		cx.giveBack()
		h.waiters.takeTurn(t)
		t.wait()
	}
	return 0, errAbandoned
}

// tryOnce is try without the budget: the caller has spent the operation. It is the one function of the
// package that handles EAGAIN and EINTR.
func (s *source) tryOnce(cx *Context, h *half, mark uint32, op func(fd int) (n int, exhausted bool, err error)) (int, error) {
	if h.expired(cx) {
		return 0, s.late()
	}
	if s.exhausted(mark) {
		if waits, err := s.wait(cx, h, mark, false); waits || err != nil {
			return 0, err
		}
	}
	for {
		if !s.state.begin(mark) {
			return 0, net.ErrClosed
		}
		if h == &s.wr {
			raceRelease()
		}
		n, exhausted, err := op(int(s.fd))
		for err == unix.EINTR {
			n, exhausted, err = op(int(s.fd))
		}
		if h == &s.rd && err == nil {
			raceAcquire()
		}
		again := err == unix.EAGAIN
		if again || exhausted && err == nil {
			s.use(0)
		} else {
			s.use(mark)
		}
		if !again && !s.exhausted(mark) {
			// A task that began to wait because this use had set the mark may try,
			// and so may the next one if there is more.
			h.waiters.passOn(cx.here())
		}
		if !again {
			return n, err
		}
		if waits, err := s.wait(cx, h, mark, true); waits || err != nil {
			return 0, err
		}
		if mark == 0 {
			s.doubt(h) // the event that was consumed is for others, too
		}
	}
}

// loan is one call for which a function of the user's gets the descriptor.
type loan struct {
	s *source
	h *half
	f func(fd int) (n int, err error)
}

// poll is attempt with that function, which may be about something else than data.
func (l *loan) poll(cx *Context) (int, error) { return l.s.try(cx, l.h, 0, l.lend) }

// lend ends the use of the descriptor also if the function does not return.
func (l *loan) lend(fd int) (n int, exhausted bool, err error) {
	l.s.share()
	returned := false
	defer func() {
		if !returned {
			l.s.use(0)
			l.h.waiters.stir(nil)
		}
	}()
	n, err = l.f(fd)
	returned = true
	return n, false, err
}

// until makes a function for a loan of one that says whether it is done.
func until(f func(fd uintptr) (done bool)) func(fd int) (int, error) {
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
func (s *source) pollReady(cx *Context, h *half, waited bool) error {
	mark, events := s.markOf(h), int16(unix.POLLIN)
	if h == &s.wr {
		events = unix.POLLOUT
	}
	if waited && s.exhausted(mark) && !h.expired(cx) {
		if !cx.spend() {
			return ErrPending
		}
		if waits, err := s.wait(cx, h, mark, false); waits || err != nil {
			return cx.unspent(err)
		}
		if err := s.idle(); err != nil {
			return err // what ended the wait was Close
		}
		s.doubt(h) // so that whoever acts on this asks the kernel
		return nil
	}
	_, err := s.attempt(cx, h, func(fd int) (int, bool, error) {
		return 0, false, readyNow(fd, events)
	})
	return err
}

// readyNow is a use of a descriptor for attempt: EAGAIN if fd is not ready for
// what is asked.
func readyNow(fd int, events int16) error {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	n, err := unix.Poll(fds[:], 0)
	if n == 0 && err == nil {
		err = unix.EAGAIN
	}
	return err
}

// use ends a use of the descriptor; see sourceState.finish.
func (s *source) use(mark uint32) {
	if s.state.finish(mark) {
		s.release()
	}
}

// doubt has the next attempt ask the kernel whatever is known of h.
func (s *source) doubt(h *half) {
	if mark := s.markOf(h); s.state.has(mark) && s.state.begin(0) {
		s.use(mark)
	}
}

// markOf returns the bit that says that h is exhausted.
func (s *source) markOf(h *half) uint32 {
	if h == &s.wr {
		return sourceFull
	}
	return sourceDrained
}

// exhausted reports whether only an event can help.
func (s *source) exhausted(mark uint32) bool { return exhausted(s.state.bits.Load(), mark) }

func exhausted(bits, mark uint32) bool {
	return bits&mark != 0 && (mark == sourceFull || bits&(sourceHungUp|sourceShared) == 0)
}

// share notes that others may have the descriptor from now on.
func (s *source) share() {
	if !s.state.has(sourceShared) {
		s.state.claim(sourceShared)
	}
}

// keepNonblocking has the descriptor, for which the caller has a use, not block the
// call that follows. It is for calls that cannot be told so themselves, such as accept
// and splice. The process that made the descriptor blocking finds it non-blocking again. If that
// happens once more between this and the call, the call blocks: nothing can be done
// about that moment.
func (s *source) keepNonblocking(fd int) error {
	if !s.state.has(sourceShared) {
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
func (s *source) wait(cx *Context, h *half, mark uint32, tried bool) (waits bool, err error) {
	for {
		if err := s.register(cx); err != nil {
			return false, err
		}
		if !h.waiters.join(cx.waker(s.reason(h))) {
			return false, nil
		}
		// Whoever changed one of these may have looked into the slot before
		// the task stood there.
		bits := s.state.bits.Load()
		switch {
		case !usable(bits):
			return false, net.ErrClosed
		case bits&sourceRegistered == 0:
			continue // somebody else's try has failed
		case mark != 0 && bits&mark == 0, !tried && !exhausted(bits, mark):
			return false, nil
		}
		if r := s.home.Load(); r != nil {
			if r.closed.Load() {
				return false, ErrShutdown
			}
			if r.moves.Load() {
				s.rehome(cx, r)
			}
		}
		h.arm(cx)
		return true, ErrPending
	}
}

// reason says what those wait for who wait for h.
func (s *source) reason(h *half) waitReason {
	if h == &s.wr {
		return waitsWrite
	}
	return waitsRead
}

// register makes events come, if they don't yet: to the worker that runs the caller,
// which takes them over from the lobby, or else there. Another runtime keeps them until
// it has ended.
func (s *source) register(cx *Context) error {
	registered, home := s.state.has(sourceRegistered), s.home.Load()
	if registered && (home == nil || !home.shared && !home.closed.Load()) {
		return nil
	}
	w, rt := cx.here(), cx.home().rt
	if registered && home.fds != &rt.fds {
		if !home.closed.Load() {
			return nil
		}
		if err := s.leave(home); err != nil {
			return err
		}
		registered = false
	}
	switch {
	case registered && (w == nil || !home.shared):
		return nil
	case registered:
		return s.move(home, &w.reactor, sourceMoved)
	case w == nil:
		return s.registerOutside(rt)
	default:
		return s.registerAt(&w.reactor)
	}
}

// registerOutside makes them come to the lobby of rt, or, if there are no descriptors for
// that, to a worker.
func (s *source) registerOutside(rt *Runtime) error {
	r, err := rt.lobby.enter()
	switch {
	case err == nil:
		return s.registerAt(r)
	case err == ErrShutdown:
		return err
	default:
		return s.registerAt(&rt.placeConn(false).reactor)
	}
}

// handOver makes them come to the lobby of rt, if they come to a worker of it.
func (s *source) handOver(rt *Runtime) {
	home := s.home.Load()
	if home == nil || home.shared || home.fds != &rt.fds {
		return
	}
	if r, err := rt.lobby.enter(); err == nil {
		s.move(home, r, sourceMoved)
	}
}

// registerAt makes them come to r.
func (s *source) registerAt(r *reactor) error {
	if !s.state.claim(sourceRegistered) {
		return nil
	}
	if !s.state.begin(0) {
		return net.ErrClosed
	}
	err := r.fds.set(int(s.fd), s)
	if err == nil {
		err = s.settle(r)
	}
	if err != nil {
		s.homeless(r)
		return err
	}
	s.settled()
	return nil
}

// settle registers s with r, and makes that its home.
func (s *source) settle(r *reactor) error {
	if err := r.register(int(s.fd)); err != nil {
		return err
	}
	s.home.Store(r)
	return nil
}

// settled ends a use of s in which it got a home.
func (s *source) settled() {
	r := s.home.Load()
	s.use(0)
	if r != nil && r.closed.Load() {
		s.stir() // who waits has seen no home, nor has whoever has closed r
	}
}

// move makes them come to another reactor of the same runtime. None is lost: what is
// ready when a descriptor is registered is an event. mark is sourceMoved, or 0 if from cannot tell late.
func (s *source) move(from, to *reactor, mark uint32) error {
	mine, err := s.takeFrom(from, mark)
	switch {
	case !mine:
		return err
	case s.settle(to) != nil && s.settle(from) != nil:
		s.homeless(from) // who waits registers it anew, or learns why that fails
	default:
		s.settled()
	}
	return nil
}

// leave makes s forget a reactor that is closed.
func (s *source) leave(r *reactor) error {
	mine, err := s.takeFrom(r, sourceMoved)
	if mine {
		s.homeless(r)
	}
	return err
}

// takeFrom takes the home out, in a use of s that the caller ends. If somebody else has
// done that it reports false, and all is left to them.
func (s *source) takeFrom(r *reactor, mark uint32) (mine bool, err error) {
	if !s.state.begin(mark) {
		return false, net.ErrClosed
	}
	if !s.home.CompareAndSwap(r, nil) {
		s.use(0)
		return false, nil
	}
	r.unregister(int(s.fd))
	return true, nil
}

// homeless ends a use of s in which it could not be registered.
func (s *source) homeless(r *reactor) {
	r.fds.set(int(s.fd), nil)
	s.home.Store(nil)
	s.use(sourceRegistered)
	s.stir() // those who relied on this try for themselves
}

// stir makes all who wait look again.
func (s *source) stir() {
	s.rd.waiters.stir(nil)
	s.wr.waiters.stir(nil)
}

// comesTo reports whether s is registered with r, or with none for a moment: then its
// event may come before its home is known. Else r tells late, or of somebody who had
// the same number before, and nobody needs to hear that: whatever is ready when a
// descriptor is registered is an event.
func (s *source) comesTo(r *reactor) bool {
	home := s.home.Load()
	return home == r || home == nil
}

// staysWith reports whether s is registered with r and no other reactor can tell an event late, after a read
// of what it was about.
func (s *source) staysWith(r *reactor) bool {
	return s.home.Load() == r && !s.state.has(sourceMoved)
}

// ready wakes those who wait for what has happened. w is the worker that runs
// the caller.
func (s *source) ready(r Readiness, w *worker) {
	if r&(HungUp|urgent) != 0 && !s.state.has(sourceHungUp) {
		s.state.claim(sourceHungUp)
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
func (s *source) close() error {
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
func (s *source) detach() error {
	switch first, unused := s.state.detach(); {
	case !first:
		return net.ErrClosed
	case !unused:
		return ErrSourceInUse
	}
	s.forget()
	s.rd.end()
	s.wr.end()
	return nil
}

// release gives the descriptor back, once. The order matters: as soon as it is
// closed, somebody else may get the number.
func (s *source) release() error {
	s.forget()
	return os.NewSyscallError("close", unix.Close(int(s.fd)))
}

// forget ends the registration.
func (s *source) forget() {
	if r := s.home.Load(); r != nil {
		r.fds.set(int(s.fd), nil)
		r.unregister(int(s.fd))
	}
}

// idle is an operation that has nothing to do: it fails only if the source is
// closed.
func (s *source) idle() error {
	if !usable(s.state.bits.Load()) {
		return net.ErrClosed
	}
	return nil
}

// late is why an operation fails whose deadline has passed.
func (s *source) late() error {
	if err := s.idle(); err != nil {
		return err
	}
	return os.ErrDeadlineExceeded
}

// control calls f with the descriptor, which stays open meanwhile.
func (s *source) control(f func(fd int) error) error {
	if !s.state.begin(0) {
		return net.ErrClosed
	}
	defer s.use(0)
	return f(int(s.fd))
}

// limit is the deadline of one half. The timer is set when somebody waits, and
// moved only if it would fire too late: a deadline that is put off before each
// read costs nothing but the clock.
type limit struct {
	h  *half
	at atomic.Int64 // 0: none

	mu     lockOf[limit]
	alarm  alarm
	closed bool
}

// setDeadline sets the time after which operations fail; zero is none.
func (h *half) setDeadline(t time.Time) {
	l := h.limit.Load()
	if l == nil {
		if t.IsZero() {
			return
		}
		h.limit.CompareAndSwap(nil, &limit{h: h})
		l = h.limit.Load()
	}
	at := int64(0)
	if !t.IsZero() {
		at = max(nanosAt(t), 1)
	}
	l.at.Store(at)
	h.waiters.stir(nil) // who waits must look at the new deadline
}

// expired reports whether the deadline has passed.
func (h *half) expired(cx *Context) bool {
	l := h.limit.Load()
	if l == nil {
		return false
	}
	at := l.at.Load()
	return at != 0 && cx.nanos() >= at
}

// arm sees to it that those who wait are woken at the deadline.
func (h *half) arm(cx *Context) {
	l := h.limit.Load()
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
func (l *limit) expire(w *worker) { l.h.waiters.stir(w) }

// end wakes those who wait, for the last time.
func (h *half) end() {
	h.waiters.fire(nil)
	if l := h.limit.Load(); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.closed = true
		l.alarm.stop(nil)
	}
}
