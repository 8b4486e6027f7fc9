package async

import (
	"os"
	"time"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// poller is epoll.
type poller struct {
	fd     int
	file   *os.File                       // the same descriptor, once joinNetpoller was called
	coarse bool                           // the kernel has no epoll_pwait2, so timeouts are whole milliseconds
	ready  [eventsPerWait]unix.EpollEvent // for the caller of wait only
}

// pollRefusals are the system's errors for descriptors that cannot be waited for.
var pollRefusals = []error{unix.EPERM}

func (p *poller) open() (err error) {
	p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return os.NewSyscallError("epoll_create1", err)
}

// add includes EPOLLPRI: urgent data cuts a read short, so such a read does not prove that no data
// is left (see fdHungUp).
func (p *poller) add(fd int) error {
	return p.control(unix.EPOLL_CTL_ADD, fd, toEpoll(Readable|Writable, EdgeTriggered)|unix.EPOLLPRI)
}

func (p *poller) arm(fd int, want Readiness, mode PollMode, again bool) error {
	op := unix.EPOLL_CTL_ADD
	if again {
		op = unix.EPOLL_CTL_MOD
	}
	return p.control(op, fd, toEpoll(want, mode))
}

func (p *poller) control(op, fd int, bits uint32) error {
	e := unix.EpollEvent{Events: bits, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, op, fd, &e))
}

func toEpoll(want Readiness, mode PollMode) (bits uint32) {
	if want&Readable != 0 {
		bits |= unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if want&Writable != 0 {
		bits |= unix.EPOLLOUT
	}
	switch {
	// A hang-up is reported even if it was not asked for. A registration for nothing is
	// edge-triggered, so that the hang-up is reported once only.
	case mode == EdgeTriggered, want == 0:
		bits |= unix.EPOLLET
	case mode == OnceTriggered:
		bits |= unix.EPOLLONESHOT
	}
	return bits
}

func (p *poller) remove(fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil))
}

func (p *poller) close() error {
	if p.file != nil {
		return p.file.Close()
	}
	return unix.Close(p.fd)
}

// wait takes a signal (EINTR) to be a wait without events.
func (p *poller) wait(events []fdEvent, timeout time.Duration, keepP bool) (int, error) {
	n, errno := p.kernelWait(p.ready[:min(len(events), len(p.ready))], timeout, keepP)
	switch errno {
	case 0:
	case unix.EINTR:
		return 0, nil
	default:
		return 0, os.NewSyscallError("epoll_wait", errno)
	}
	for i, e := range p.ready[:n] {
		events[i] = fdEvent{fd: int(e.Fd), ready: fromEpoll(e.Events)}
	}
	return int(n), nil
}

// joinNetpoller registers p with Go's netpoller. An epoll can be watched by another epoll. It fails
// if the outer epoll has no room.
func (p *poller) joinNetpoller() (ok bool) {
	if p.file == nil {
		// Package os would take a blocking descriptor for a file that cannot be polled.
		unix.SetNonblock(p.fd, true)
		p.file = os.NewFile(uintptr(p.fd), "epoll")
	}
	// A deadline can be set only if Go's netpoller has accepted the file.
	return p.file.SetReadDeadline(time.Time{}) == nil
}

// serveFromNetpoller uses RawConn.Read, which calls its function again after each event of p.
func (p *poller) serveFromNetpoller(look func() (over bool)) {
	if conn, err := p.file.SyscallConn(); err == nil {
		conn.Read(func(uintptr) bool { return look() })
	}
}

// kernelWait is the system call of wait. It uses epoll_pwait2, whose timeout is in nanoseconds. If
// that fails once, it uses epoll_pwait from then on, whose timeout is in milliseconds.
func (p *poller) kernelWait(ready []unix.EpollEvent, timeout time.Duration, keepP bool) (n uintptr, errno unix.Errno) {
	if timeout > 0 && !p.coarse {
		n, errno = sys.EpollPwait2(p.fd, ready, timeout, keepP)
		if errno == 0 || errno == unix.EINTR {
			return n, errno
		}
		// The kernel is older than Linux 5.11, or a sandbox forbids the call.
		p.coarse = true
	}
	return sys.EpollPwait(p.fd, ready, milliseconds(timeout), keepP)
}

// milliseconds converts a timeout. It rounds up, so that no wait ends before the timer for which it
// waits is due.
func milliseconds(d time.Duration) int {
	if d < 0 {
		return -1
	}
	d = min(d, (1<<31-1)*time.Millisecond)
	return int((d + time.Millisecond - 1) / time.Millisecond)
}

// fromEpoll converts the bits of an event. Urgent data makes a descriptor readable. A hang-up or an
// error makes both directions ready, because calls do not wait then.
func fromEpoll(bits uint32) (r Readiness) {
	if bits&unix.EPOLLIN != 0 {
		r |= Readable
	}
	if bits&unix.EPOLLOUT != 0 {
		r |= Writable
	}
	if bits&unix.EPOLLPRI != 0 {
		r |= Readable | urgent
	}
	if bits&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		r |= Readable | Writable | HungUp
	}
	return r
}
