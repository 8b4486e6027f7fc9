//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package async

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// poller is kqueue. It has no way to wait without telling the Go scheduler:
// some of these systems allow no system call but through their C library.
type poller struct {
	fd    int
	ready [eventsPerWait]unix.Kevent_t
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

func (p *poller) remove(fd int) error {
	err := p.change(fd, unix.EV_DELETE)
	if errors.Is(err, unix.ENOENT) { // arm has registered one direction
		err = nil
		for _, filter := range kqueueFilters {
			if one := p.changeOne(fd, filter, unix.EV_DELETE); !errors.Is(one, unix.ENOENT) {
				err = errors.Join(err, one)
			}
		}
	}
	return err
}

// arm registers each direction by itself. A registration keeps its mode for
// as long as it exists, so it is removed first.
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

// kqueueFilters are kqueue's filters for the directions.
var kqueueFilters = map[Readiness]int{Readable: unix.EVFILT_READ, Writable: unix.EVFILT_WRITE}

func (p *poller) changeOne(fd, filter, flags int) error {
	var changes [1]unix.Kevent_t
	unix.SetKevent(&changes[0], fd, filter, flags)
	_, err := unix.Kevent(p.fd, changes[:], nil, nil)
	return os.NewSyscallError("kevent", err)
}

func (p *poller) change(fd, flags int) error {
	var changes [2]unix.Kevent_t
	unix.SetKevent(&changes[0], fd, unix.EVFILT_READ, flags)
	unix.SetKevent(&changes[1], fd, unix.EVFILT_WRITE, flags)
	_, err := unix.Kevent(p.fd, changes[:], nil, nil)
	return os.NewSyscallError("kevent", err)
}

func (p *poller) close() error { return unix.Close(p.fd) }

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

// joinNetpoller: Go's kqueue wants descriptors to be non-blocking, and a kqueue cannot be.
func (p *poller) joinNetpoller() (ok bool) { return false }

func (p *poller) serveFromNetpoller(func() (over bool)) {}

// longestWait is a time that every kqueue accepts. To end a wait early is
// harmless.
const longestWait = 24 * time.Hour

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
