package async

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Poller reports which descriptors are ready, with epoll or kqueue. It is for programs with a
// loop of their own that need readiness and nothing else of this package: it starts no goroutine
// and needs no [Runtime]. Tasks use a [Source] instead. A Poller is made by [NewPoller] and must be
// closed.
//
// The program adds descriptors with a key. [Poller.Wait] reports the key and the directions that
// are ready. An event may be spurious: it may have been fetched before a [Poller.Modify], or belong
// to a descriptor that has been closed. The system call then returns EAGAIN.
//
// All methods may be called concurrently, from any goroutine, also while Wait waits. Of several
// calls of Wait, one waits for events at a time and the others wait for it.
//
// Errors of the system are [*os.SyscallError]. After [Poller.Close], and of the zero Poller, all
// methods return [os.ErrClosed] itself, not wrapped.
type Poller struct {
	r        reactor
	waiting  chan None   // capacity 1; full while a Wait waits
	notified atomic.Bool // Notify was called since the last Wait
	closing  atomic.Bool // Close was called

	fds map[int]*polled // guarded by r.mu
}

// polled is a descriptor in a Poller.
type polled struct {
	key   any
	want  Readiness
	mode  PollMode
	spent bool // one-shot and reported; without this kqueue would report each direction once
}

// PollEvent says that a descriptor is ready; see [Poller.Wait].
type PollEvent struct {
	FD    int       // the descriptor that was added
	Key   any       // the key of the last Add or Modify
	Ready Readiness // the directions that are ready, and perhaps [HungUp]
}

// NewPoller returns a new [Poller]. It opens three descriptors, which [Poller.Close] closes. The
// error is an [*os.SyscallError].
func NewPoller() (*Poller, error) {
	p := &Poller{waiting: newChan[None](1), fds: map[int]*polled{}}
	if err := p.r.open(nil); err != nil {
		return nil, err
	}
	return p, nil
}

// Add makes [Poller.Wait] report fd, with key, when fd is ready for a direction in want. If fd is
// ready already, Wait reports it. An empty want reports no direction, and at most [HungUp], until
// [Poller.Modify] sets one. mode says how often Wait reports fd; see [PollMode].
//
// fd should be non-blocking. Call [Poller.Delete] before you close fd. The error wraps
// [ErrNotPollable] if descriptors of this kind cannot be waited for. Add fd once only: on some
// systems the error is EEXIST then. After Close the error is [os.ErrClosed].
func (p *Poller) Add(fd int, key any, want Readiness, mode PollMode) error {
	return p.arm(fd, polled{key: key, want: want, mode: mode}, false)
}

// Modify replaces the arguments of [Poller.Add] for fd, as if fd were added anew: a direction that
// is ready now is reported, even if it was reported before. It fails with ENOENT if fd was not
// added, and with [os.ErrClosed] after Close.
func (p *Poller) Modify(fd int, key any, want Readiness, mode PollMode) error {
	return p.arm(fd, polled{key: key, want: want, mode: mode}, true)
}

// arm is Add, or Modify if again is set.
func (p *Poller) arm(fd int, as polled, again bool) error {
	as.want &= Readable | Writable
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.waiting == nil || p.r.closed.Load() {
		return os.ErrClosed
	}
	if _, known := p.fds[fd]; again && !known {
		return os.NewSyscallError("modify", unix.ENOENT)
	}
	if err := p.r.poller.arm(fd, as.want, as.mode, again); err != nil {
		return pollable(fd, err)
	}
	p.fds[fd] = &as
	return nil
}

// Delete ends the reports about fd. It fails with ENOENT if fd was not added, and with
// [os.ErrClosed] after Close.
func (p *Poller) Delete(fd int) error {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.waiting == nil || p.r.closed.Load() {
		return os.ErrClosed
	}
	if _, known := p.fds[fd]; !known {
		return os.NewSyscallError("delete", unix.ENOENT)
	}
	delete(p.fds, fd)
	return p.r.poller.remove(fd)
}

// Wait waits until a descriptor is ready, until [Poller.Notify] is called, or until the timeout has
// passed. A negative timeout means no limit, and 0 means that Wait does not wait. The time in which
// another Wait has its turn counts towards the timeout.
//
// Wait fills events and returns their number, which is 0 after Notify or the timeout. Events that
// do not fit are returned by the next Wait. A descriptor that is ready for both directions may fill
// one event or two. After [Poller.Close], also if it is called while Wait waits, the error is
// [os.ErrClosed].
//
// Wait panics if events is empty. It also panics in a task, whose worker it would block, unless the
// timeout is 0: tasks use a [Source].
func (p *Poller) Wait(events []PollEvent, timeout time.Duration) (n int, err error) {
	if len(events) == 0 {
		panic("async: Poller.Wait needs room for an event")
	}
	if timeout != 0 {
		mustNotBlock("Poller.Wait", "a Source")
	}
	if err := p.closedErr(); err != nil {
		return 0, err
	}
	until, left := nanosAfter(timeout), timeout
	if !p.beginUse(timeout) {
		return 0, p.closedErr()
	}
	defer p.endUse()
	for {
		if timeout > 0 {
			left = time.Duration(max(until-nanosHere(), 0))
		}
		if err := p.closedErr(); err != nil {
			return 0, err
		}
		some, err := p.r.poller.wait(p.r.events[:min(len(events), eventsPerWait)], left, false)
		if err != nil {
			return 0, err
		}
		n, woken := p.translate(events, p.r.events[:some])
		if n > 0 || woken || timeout >= 0 && nanosHere() >= until {
			return n, nil
		}
	}
}

// beginUse makes the caller the only Wait that waits. It reports false if other calls have waited
// until the timeout.
func (p *Poller) beginUse(timeout time.Duration) bool {
	select {
	case p.waiting <- None{}:
		return true
	default:
	}
	var late <-chan time.Time
	switch {
	case timeout == 0:
		return false
	case timeout > 0:
		late = afterOutsideBubble(timeout)
	}
	select {
	case p.waiting <- None{}:
		return true
	case <-late:
		return false
	}
}

// endUse lets the next Wait wait.
func (p *Poller) endUse() { <-p.waiting }

// closedErr returns os.ErrClosed once Close was called, and for the zero Poller.
func (p *Poller) closedErr() error {
	if p.waiting == nil || p.closing.Load() {
		return os.ErrClosed
	}
	return nil
}

// translate fills events with the events of from that the caller of Add wants. woken reports that
// Notify was called and Close was not.
func (p *Poller) translate(events []PollEvent, from []fdEvent) (n int, woken bool) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	for _, e := range from {
		if e.fd == p.r.wakeR {
			// In this order: a Notify between the two lines writes nothing, because notified is
			// still set, and this Wait answers it. In the other order its byte could be read here,
			// and notified would stay set: no later Notify would write.
			p.r.emptyPipe()
			p.notified.Store(false)
			woken = true
			continue
		}
		d := p.fds[e.fd]
		if d == nil || d.spent {
			continue
		}
		if ready := e.ready & (d.want | HungUp); ready != 0 {
			d.spent = d.mode == OnceTriggered
			events[n] = PollEvent{FD: e.fd, Key: d.key, Ready: ready}
			n++
		}
	}
	return n, woken && !p.closing.Load()
}

// Notify ends the [Poller.Wait] that waits now, or the next Wait if none waits. Several calls
// before that have the effect of one call. It fails only with [os.ErrClosed], after Close.
func (p *Poller) Notify() error {
	if err := p.closedErr(); err != nil {
		return err
	}
	if !p.notified.Swap(true) {
		p.r.wake()
	}
	return nil
}

// Close closes the Poller. A [Poller.Wait] that waits returns [os.ErrClosed]. Close waits until
// Wait has left the kernel. Descriptors that were added stay open. A second Close returns
// [os.ErrClosed].
func (p *Poller) Close() error {
	if p.waiting == nil || p.closing.Swap(true) {
		return os.ErrClosed
	}
	p.r.wake()
	p.beginUse(-1) // no Wait is in the kernel from here on
	defer p.endUse()
	p.r.close()
	return nil
}

// pollable returns an error that wraps ErrNotPollable if err says that the system refuses fd. It
// returns err otherwise.
func pollable(fd int, err error) error {
	for _, refusal := range pollRefusals {
		if errors.Is(err, refusal) {
			return fmt.Errorf("%w: %d", ErrNotPollable, fd)
		}
	}
	return err
}
