package async

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// platformPoller is the contract that a platform file (reactor_linux.go, reactor_bsd.go) supplies,
// with the type poller. All other code about readiness exists once, in this package: unparking the
// worker or goroutine that waits, the table of descriptors, and the choice of the task that an
// event wakes. A poller knows descriptors, and no task, timer, waker or mutex.
//
// Readiness is edge-triggered unless arm says otherwise: the poller reports an event once, after
// the descriptor has become ready. Spurious events are harmless. Only the goroutine that serves the
// poller calls wait and serveFromNetpoller. Any goroutine may call the other methods.
type platformPoller interface {
	// open makes the poller usable. If it fails, it leaves nothing open.
	open() error

	// add registers fd for reading and writing until remove. If fd is already ready, that is an
	// event. add fails with one of pollRefusals if fd is of a kind that cannot be waited for.
	add(fd int) error

	// arm registers fd for the directions in want, which may be empty, and with the caller's mode.
	// If again is set, fd is registered already and arm replaces the registration. A one-shot
	// registration may report each direction once.
	arm(fd int, want Readiness, mode PollMode, again bool) error

	// remove ends the registration. It is called before close(2). Events that were fetched before
	// may still be reported.
	remove(fd int) error

	// wait fills events and returns their number. It returns at once if there is an event, and
	// otherwise at the timeout or earlier. A negative timeout means no timeout. If keepP is set,
	// Go's scheduler does not learn of the wait on platforms where this is possible, so the thread
	// keeps its P. A signal ends the wait without an error.
	wait(events []fdEvent, timeout time.Duration, keepP bool) (int, error)

	// joinNetpoller registers the poller with Go's netpoller, for serveFromNetpoller. It reports
	// whether the platform supports this and the system has accepted it.
	joinNetpoller() (ok bool)

	// serveFromNetpoller calls look whenever there may be events, until look reports that the
	// service is over, or until the poller is closed. Between two calls the goroutine waits like a
	// goroutine that reads from a connection of package net.
	serveFromNetpoller(look func() (over bool))

	// close frees the poller.
	close() error
}

var _ platformPoller = (*poller)(nil)

// fdEvent says that a descriptor has become ready.
type fdEvent struct {
	fd    int
	ready Readiness
}

// eventsPerWait is the largest number of events that one wait takes from the kernel.
const eventsPerWait = 128

// reactor is a poller and a pipe that wakes the server of this poller. The server is a worker, or
// the goroutine of the shared reactor, or in a Poller the caller of Wait.
//
// mu is held by every goroutine but the server while it uses the descriptors of the poller and of
// the pipe. So no system call reaches a descriptor that was closed and has a new file behind the
// same number. close locks mu, and is called when the server no longer waits.
type reactor struct {
	poller
	fds          *fdTable // the descriptors whose events are dispatched; nil in a Poller
	shared       bool     // it belongs to a sharedReactor
	events       [eventsPerWait]fdEvent
	wakeR, wakeW int
	registered   atomic.Int32 // the number of descriptors that are registered
	rebalances   atomic.Bool  // some of its descriptors are to move to other workers; see activeSet

	mu     lockOf[reactor] // see above
	closed atomic.Bool     // set once, under mu
}

// open makes the reactor usable. If it fails, it leaves nothing open. fds is nil if no event is
// dispatched.
func (r *reactor) open(fds *fdTable) error {
	r.fds = fds
	if err := r.poller.open(); err != nil {
		return err
	}
	var p [2]int
	if err := openPipe(&p); err != nil {
		r.poller.close()
		return err
	}
	r.wakeR, r.wakeW = p[0], p[1]
	if err := r.poller.add(r.wakeR); err != nil {
		r.close()
		return err
	}
	return nil
}

// openPipe opens a non-blocking pipe that child processes do not inherit. ForkLock keeps another
// goroutine from starting a process before the flags are set.
func openPipe(p *[2]int) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := unix.Pipe(p[:]); err != nil {
		return os.NewSyscallError("pipe", err)
	}
	for _, fd := range p {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(p[0])
			unix.Close(p[1])
			return os.NewSyscallError("setnonblock", err)
		}
	}
	return nil
}

// close closes the poller and the pipe. Later calls do nothing.
func (r *reactor) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed.Swap(true) {
		return
	}
	r.poller.close()
	unix.Close(r.wakeR)
	unix.Close(r.wakeW)
}

// wake ends the wait of the server of r. If the pipe is full, the write fails: then the server has
// not yet read an earlier wake, which serves as well.
func (r *reactor) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed.Load() {
		sys.Write(r.wakeW, []byte{0})
	}
}

// emptyPipe reads all bytes from the pipe, so that the next write is an event again.
func (r *reactor) emptyPipe() {
	var buf [64]byte
	for {
		if n, _ := sys.Read(r.wakeR, buf[:]); n < len(buf) {
			return
		}
	}
}

// wait returns the events that there are, after at most the timeout. The slice is valid until the
// next call.
func (r *reactor) wait(timeout time.Duration, keepP bool) []fdEvent {
	n, err := r.poller.wait(r.events[:], timeout, keepP)
	mustWait(err)
	return r.events[:n]
}

// mustWait panics if a wait has failed. The arguments of a wait are always valid, so it fails only
// if other code has closed the descriptor of the poller. To continue would then be a busy loop.
func mustWait(err error) {
	if err != nil {
		panic(fmt.Sprintf("async: the poller has failed; was its descriptor closed? %v", err))
	}
}

// poll dispatches the events that there are now, without waiting.
func (r *reactor) poll(w *worker) {
	r.dispatch(w, r.wait(0, true))
}

// dispatch wakes the waiters for the events. It ignores an event of a descriptor that is not
// registered, or that another reactor owns (see pollFD.accepts). w is the worker that runs the
// caller, or nil.
func (r *reactor) dispatch(w *worker, events []fdEvent) {
	for _, e := range events {
		if e.fd == r.wakeR {
			r.emptyPipe()
		} else if s := r.fds.get(e.fd); s != nil && s.accepts(r) {
			s.wakeReady(e.ready, w)
		}
	}
}

// register adds fd to the poller. It fails with ErrShutdown if r is closed.
func (r *reactor) register(fd int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed.Load() {
		return ErrShutdown
	}
	err := r.poller.add(fd)
	if err == nil {
		r.registered.Add(1)
	}
	return err
}

// unregister removes fd from the poller, unless r is closed: close has then ended all
// registrations.
func (r *reactor) unregister(fd int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed.Load() {
		r.poller.remove(fd)
	}
	r.registered.Add(-1)
}

// fdTable maps a descriptor to its pollFD. Descriptors are small numbers without gaps, so the table
// is an array, in chunks that are allocated when they are first used and never freed. A lookup
// takes no lock.
//
// The number of a closed descriptor may be in use again when an old event is dispatched. dispatch
// then finds the new pollFD, and accepts the event if the new pollFD has the same reactor as owner,
// or no owner at this moment. For the new pollFD the event is spurious. If the old event was a
// hang-up, it sets fdHungUp of the new pollFD for good: its tasks then make the system calls that
// fdNotReadable would have saved.
type fdTable struct {
	mu     lockOf[fdTable] // held while a chunk is added
	chunks [fdChunks]atomic.Pointer[fdChunk]
}

const (
	fdsPerChunk = 1 << 12
	fdChunks    = 1 << 10
	maxFds      = fdsPerChunk * fdChunks // 4 million
)

// fdChunk is a part of the table.
type fdChunk [fdsPerChunk]atomic.Pointer[pollFD]

// errFdTooLarge is returned by set for a descriptor that the table cannot hold.
var errFdTooLarge = errors.New("async: file descriptor is above 4194303")

// get returns the pollFD of a descriptor, or nil.
func (t *fdTable) get(fd int) *pollFD {
	if c := t.chunks[fd/fdsPerChunk].Load(); c != nil {
		return c[fd%fdsPerChunk].Load()
	}
	return nil
}

// notifyAll wakes the waiters for all descriptors that r owns, so that they look again. If r is nil
// it wakes the waiters for all descriptors.
func (t *fdTable) notifyAll(r *reactor) {
	for i := range t.chunks {
		c := t.chunks[i].Load()
		if c == nil {
			continue
		}
		for j := range c {
			if s := c[j].Load(); s != nil && (r == nil || s.owner.Load() == r) {
				s.notifyAll()
			}
		}
	}
}

// set sets the pollFD of a descriptor; nil removes the entry.
func (t *fdTable) set(fd int, s *pollFD) error {
	if fd >= maxFds {
		return errFdTooLarge
	}
	c := t.chunks[fd/fdsPerChunk].Load()
	if c == nil {
		t.mu.Lock()
		if c = t.chunks[fd/fdsPerChunk].Load(); c == nil {
			c = new(fdChunk)
			t.chunks[fd/fdsPerChunk].Store(c)
		}
		t.mu.Unlock()
	}
	c[fd%fdsPerChunk].Store(s)
	return nil
}
