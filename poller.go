package async

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Poller is epoll or kqueue in one form: for programs with a loop of their own
// that need readiness and nothing else of this package. It starts no goroutine
// and needs no Runtime.
//
// Descriptors are added with a key of the caller's, and Wait reports that key. All
// methods may be called from any goroutine, also while Wait waits; calls of
// Wait wait for each other. Events may be spurious: an event that was fetched before
// a Modify, or of a descriptor that has been closed, may still come. The system
// call then returns EAGAIN.
//
// Errors are *os.SyscallError, and os.ErrClosed after Close, which is not wrapped.
type Poller struct {
	r        reactor
	waiting  chan None   // capacity 1: full while a Wait waits
	notified atomic.Bool // since the last Wait
	closing  atomic.Bool

	fds map[int]*polled // guarded by r.mu
}

// polled is a descriptor in a Poller.
type polled struct {
	key   any
	want  Readiness
	mode  PollMode
	spent bool // one-shot, and reported; kqueue would report each direction once
}

// PollEvent says that a descriptor is ready.
type PollEvent struct {
	FD    int
	Key   any // that of Add or Modify
	Ready Readiness
}

// NewPoller opens a Poller. It needs three descriptors, and must be closed. The
// error is an *os.SyscallError.
func NewPoller() (*Poller, error) {
	p := &Poller{waiting: newChan[None](1), fds: map[int]*polled{}}
	if err := p.r.open(nil); err != nil {
		return nil, err
	}
	return p, nil
}

// Add has Wait report when fd is ready for the directions in want, with key. If it is
// ready already, Wait reports it. A want of nothing is for later: see Modify.
//
// fd should be non-blocking. Delete it before it is closed. The error wraps
// ErrNotPollable for a descriptor that cannot be waited for, and on some systems EEXIST
// for a descriptor that has been added.
func (p *Poller) Add(fd int, key any, want Readiness, mode PollMode) error {
	return p.arm(fd, polled{key: key, want: want, mode: mode}, false)
}

// Modify replaces the arguments that Add was given for fd, as if it were added anew: a
// direction that is ready now is reported, also if it has been. It fails with ENOENT if fd has
// not been added.
func (p *Poller) Modify(fd int, key any, want Readiness, mode PollMode) error {
	return p.arm(fd, polled{key: key, want: want, mode: mode}, true)
}

func (p *Poller) arm(fd int, as polled, again bool) error {
	as.want &= Readable | Writable
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.r.closed.Load() {
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

// Delete has Wait report nothing more of fd. It fails with ENOENT if fd has not
// been added.
func (p *Poller) Delete(fd int) error {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.r.closed.Load() {
		return os.ErrClosed
	}
	if _, known := p.fds[fd]; !known {
		return os.NewSyscallError("delete", unix.ENOENT)
	}
	delete(p.fds, fd)
	return p.r.poller.remove(fd)
}

// Wait waits until descriptors are ready, or Notify is called, or the timeout
// has passed, for ever if it is negative. Time for which another Wait waits
// counts too. It fills events and returns how many there are. Events that do not fit are
// left for the next Wait. One descriptor may be in two events, one for each
// direction.
//
// It fails with os.ErrClosed once Close has been called. It panics if there is
// no room for an event, and in a task, whose worker it would block, unless the
// timeout is 0.
func (p *Poller) Wait(events []PollEvent, timeout time.Duration) (n int, err error) {
	if len(events) == 0 {
		panic("async: Poller.Wait needs room for an event")
	}
	if timeout != 0 {
		mustNotBlock("Poller.Wait", "a Source")
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

// beginUse makes the caller the only Wait that waits. It reports false if other calls have
// waited for all of the timeout.
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

func (p *Poller) endUse() { <-p.waiting }

func (p *Poller) closedErr() error {
	if p.closing.Load() {
		return os.ErrClosed
	}
	return nil
}

// translate fills events with those of from that the caller wants. woken says that
// Notify was called, and Close was not.
func (p *Poller) translate(events []PollEvent, from []fdEvent) (n int, woken bool) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	for _, e := range from {
		if e.fd == p.r.wakeR {
			// In this order: a Notify in between is answered by this Wait.
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

// Notify ends the Wait that waits, or the next Wait if none waits. Several calls
// before that have the effect of one call.
func (p *Poller) Notify() error {
	if err := p.closedErr(); err != nil {
		return err
	}
	if !p.notified.Swap(true) {
		p.r.wake()
	}
	return nil
}

// Close ends the Wait that waits and frees the resources that the Poller has of the system.
// Descriptors that were added stay open.
func (p *Poller) Close() error {
	if p.waiting == nil || p.closing.Swap(true) {
		return os.ErrClosed
	}
	p.r.wake()
	p.beginUse(-1) // no Wait is in the kernel
	defer p.endUse()
	p.r.close()
	return nil
}

// pollable returns ErrNotPollable if err says that the system refuses fd, else err.
func pollable(fd int, err error) error {
	for _, refusal := range pollRefusals {
		if errors.Is(err, refusal) {
			return fmt.Errorf("%w: %d", ErrNotPollable, fd)
		}
	}
	return err
}
