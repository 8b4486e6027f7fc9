//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package async

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// poller is kqueue. It ignores keepP: a wait of which the Go scheduler does not learn is not
// possible, since some of these systems accept system calls from their C library only.
type poller struct {
	fd    int
	ready [eventsPerWait]unix.Kevent_t // for the caller of wait only
}

// pollRefusals are the errors of these systems for devices that cannot be waited for.
var pollRefusals = []error{unix.EPERM, unix.EINVAL, unix.ENODEV, unix.EOPNOTSUPP}

func (p *poller) open() (err error) {
	if p.fd, err = unix.Kqueue(); err != nil {
		return os.NewSyscallError("kqueue", err)
	}
	unix.CloseOnExec(p.fd)
	return nil
}

func (p *poller) add(fd int) error { return p.change(fd, unix.EV_ADD|unix.EV_CLEAR) }

// remove deletes the filters of both directions. If one of them does not exist, because arm has
// registered one direction only, it deletes each by itself.
func (p *poller) remove(fd int) error {
	err := p.change(fd, unix.EV_DELETE)
	if errors.Is(err, unix.ENOENT) {
		err = nil
		for _, filter := range kqueueFilters {
			if one := p.changeOne(fd, filter, unix.EV_DELETE); !errors.Is(one, unix.ENOENT) {
				err = errors.Join(err, one)
			}
		}
	}
	return err
}

// arm registers each direction by itself. A registration keeps its mode until it is removed, so arm
// removes an existing registration first.
func (p *poller) arm(fd int, want Readiness, mode PollMode, again bool) error {
	if again {
		if err := p.remove(fd); err != nil {
			return err
		}
	}
	flags := unix.EV_ADD
	switch mode {
	case EdgeTriggered:
		flags |= unix.EV_CLEAR
	case OnceTriggered:
		flags |= unix.EV_ONESHOT
	}
	for r, filter := range kqueueFilters {
		if want&r == 0 {
			continue
		}
		if err := p.changeOne(fd, filter, flags); err != nil {
			return err
		}
	}
	return nil
}

// kqueueFilters maps each direction to its filter.
var kqueueFilters = map[Readiness]int{Readable: unix.EVFILT_READ, Writable: unix.EVFILT_WRITE}

// changeOne changes the filter of one direction.
func (p *poller) changeOne(fd, filter, flags int) error {
	var changes [1]unix.Kevent_t
	unix.SetKevent(&changes[0], fd, filter, flags)
	_, err := unix.Kevent(p.fd, changes[:], nil, nil)
	return os.NewSyscallError("kevent", err)
}

// change changes the filters of both directions in one system call.
func (p *poller) change(fd, flags int) error {
	var changes [2]unix.Kevent_t
	unix.SetKevent(&changes[0], fd, unix.EVFILT_READ, flags)
	unix.SetKevent(&changes[1], fd, unix.EVFILT_WRITE, flags)
	_, err := unix.Kevent(p.fd, changes[:], nil, nil)
	return os.NewSyscallError("kevent", err)
}

func (p *poller) close() error { return unix.Close(p.fd) }

// wait limits the timeout to longestWait. It takes a signal (EINTR) to be a wait without events.
func (p *poller) wait(events []fdEvent, timeout time.Duration, keepP bool) (int, error) {
	var ts *unix.Timespec
	if timeout >= 0 {
		t := unix.NsecToTimespec(int64(min(timeout, longestWait)))
		ts = &t
	}
	n, err := unix.Kevent(p.fd, nil, p.ready[:min(len(events), len(p.ready))], ts)
	if err == unix.EINTR {
		return 0, nil
	}
	for i := range max(n, 0) {
		events[i] = fromKevent(&p.ready[i])
	}
	return max(n, 0), os.NewSyscallError("kevent", err)
}

// joinNetpoller reports false. Go's netpoller accepts non-blocking descriptors only on these
// systems, and a kqueue cannot be made non-blocking.
func (p *poller) joinNetpoller() (ok bool) { return false }

// serveFromNetpoller is never called; see joinNetpoller.
func (p *poller) serveFromNetpoller(func() (over bool)) {}

// longestWait is a timeout that every kqueue accepts. A wait that ends early is harmless.
const longestWait = 24 * time.Hour

// fromKevent converts an event. At the end of the data both directions are ready, because calls do
// not wait then.
func fromKevent(k *unix.Kevent_t) fdEvent {
	e := fdEvent{fd: int(k.Ident), ready: Writable}
	if k.Filter == unix.EVFILT_READ {
		e.ready = Readable
	}
	if k.Flags&unix.EV_EOF != 0 {
		e.ready = Readable | Writable | HungUp
	}
	return e
}
