//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package async

import (
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

func (p *poller) open() (err error) {
	if p.fd, err = unix.Kqueue(); err != nil {
		return os.NewSyscallError("kqueue", err)
	}
	unix.CloseOnExec(p.fd)
	return nil
}

func (p *poller) add(fd int) error { return p.change(fd, unix.EV_ADD|unix.EV_CLEAR) }

func (p *poller) remove(fd int) error { return p.change(fd, unix.EV_DELETE) }

func (p *poller) change(fd, flags int) error {
	var changes [2]unix.Kevent_t
	unix.SetKevent(&changes[0], fd, unix.EVFILT_READ, flags)
	unix.SetKevent(&changes[1], fd, unix.EVFILT_WRITE, flags)
	_, err := unix.Kevent(p.fd, changes[:], nil, nil)
	return os.NewSyscallError("kevent", err)
}

func (p *poller) close() error { return unix.Close(p.fd) }

func (p *poller) wait(events []event, timeout time.Duration, keepP bool) (int, error) {
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

// longestWait is a time that every kqueue accepts. To end a wait early is
// harmless.
const longestWait = 24 * time.Hour

func fromKevent(k *unix.Kevent_t) event {
	e := event{fd: int(k.Ident), ready: writable}
	if k.Filter == unix.EVFILT_READ {
		e.ready = readable
	}
	if k.Flags&unix.EV_EOF != 0 {
		e.ready = readable | writable | hungUp
	}
	return e
}
