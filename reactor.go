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

// platformPoller is what a platform supplies, in reactor_linux.go and
// reactor_bsd.go: the type poller. Everything else about readiness (waking
// the worker or goroutine that waits, the table of descriptors, which task an event wakes)
// is here, once. A poller knows descriptors, and nothing of tasks.
//
// Readiness is edge-triggered unless arm says otherwise: an event is reported
// once, after the descriptor has become ready; and spurious events are harmless.
// wait and serveFromNetpoller are called by the goroutine that serves the poller only; the
// other methods from anywhere.
type platformPoller interface {
	// open makes the poller usable. On failure nothing is left open.
	open() error

	// add registers fd for reading and writing, until remove. If fd is ready
	// already, that is an event. It fails with unix.EPERM if fd is of a kind
	// that cannot be waited for.
	add(fd int) error

	// arm is add for the directions in want only, or for none, and with a mode
	// of the caller's. With again fd is registered already, and this replaces
	// the registration. The directions of a one-shot registration may each be
	// reported once.
	arm(fd int, want Readiness, mode PollMode, again bool) error

	// remove ends the registration. It comes before close(2), and events that
	// have been fetched by then may still be reported.
	remove(fd int) error

	// wait fills events and returns how many there are: at once if there are
	// any, or after the timeout, or before; for ever if it is negative. With
	// keepP the Go scheduler is not told of the wait where the platform can
	// do that. A signal ends the wait without an error.
	wait(events []fdEvent, timeout time.Duration, keepP bool) (int, error)

	// joinNetpoller registers the poller with Go's netpoller, once, for serveFromNetpoller. It reports
	// whether the platform can do that.
	joinNetpoller() (ok bool)

	// serveFromNetpoller calls look whenever there may be events, until that reports that all is over, or the
	// poller is closed. Between two calls the goroutine waits like a goroutine that reads from a
	// connection of package net.
	serveFromNetpoller(look func() (over bool))

	close() error
}

var _ platformPoller = (*poller)(nil)

// fdEvent says that a descriptor has become ready.
type fdEvent struct {
	fd    int
	ready Readiness
}

// eventsPerWait is how many events a worker takes from the kernel at once.
const eventsPerWait = 128

// reactor is a poller that a worker, or the goroutine of the shared reactor, serves, and
// the pipe that wakes this server.
type reactor struct {
	poller
	fds          *fdTable // the descriptors whose events are dispatched; nil in a Poller
	shared       bool     // that of a sharedReactor
	events       [eventsPerWait]fdEvent
	wakeR, wakeW int
	registered   atomic.Int32 // how many descriptors are registered
	rebalances   atomic.Bool  // some of them are to move to other workers; see activeSet

	mu     lockOf[reactor] // held to use the descriptors, so that none is used after close
	closed atomic.Bool
}

// open makes the reactor usable, or leaves nothing behind. fds is nil if nothing is
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

// openPipe opens a non-blocking pipe that children do not inherit.
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

// wake ends the wait of the server of r. If the pipe is full, it has been woken.
func (r *reactor) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed.Load() {
		sys.Write(r.wakeW, []byte{0})
	}
}

// emptyPipe empties the pipe.
func (r *reactor) emptyPipe() {
	var buf [64]byte
	for {
		if n, _ := sys.Read(r.wakeR, buf[:]); n < len(buf) {
			return
		}
	}
}

// wait returns the events, after at most the timeout.
func (r *reactor) wait(timeout time.Duration, keepP bool) []fdEvent {
	n, err := r.poller.wait(r.events[:], timeout, keepP)
	mustWait(err)
	return r.events[:n]
}

// mustWait panics if a wait has failed. The arguments are always right, so it fails only
// if other code has closed the descriptor of the poller, and going on would spin.
func mustWait(err error) {
	if err != nil {
		panic(fmt.Sprintf("async: the poller has failed; was its descriptor closed? %v", err))
	}
}

// poll dispatches the events that are there now.
func (r *reactor) poll(w *worker) {
	r.dispatch(w, r.wait(0, true))
}

// dispatch wakes the waiters for the events. It ignores an event of a descriptor that is not
// registered, or not with r (see accepts). w is the worker that runs the caller.
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

func (r *reactor) unregister(fd int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed.Load() {
		r.poller.remove(fd)
	}
	r.registered.Add(-1)
}

// fdTable finds the pollFD of a descriptor. Descriptors are small numbers
// without gaps, so it is an array, in pieces. A lookup takes no lock. An event
// of a descriptor that was closed and reused since the event was fetched finds the
// new pollFD if that is registered with the same reactor, or just about to be. For the
// new pollFD it is spurious: if it was a hang-up, a task reads once more than needed
// where it could have known the socket to be empty.
type fdTable struct {
	mu     lockOf[fdTable]
	chunks [fdChunks]atomic.Pointer[fdChunk]
}

const (
	fdsPerChunk = 1 << 12
	fdChunks    = 1 << 10
	maxFds      = fdsPerChunk * fdChunks // 4 million
)

type fdChunk [fdsPerChunk]atomic.Pointer[pollFD]

var errFdTooLarge = errors.New("async: file descriptor is above 4194303")

func (t *fdTable) get(fd int) *pollFD {
	if c := t.chunks[fd/fdsPerChunk].Load(); c != nil {
		return c[fd%fdsPerChunk].Load()
	}
	return nil
}

// notifyAll makes the waiters for descriptors of r look again, or those of any reactor if r
// is nil.
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
