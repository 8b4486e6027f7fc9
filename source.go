package async

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Source is any descriptor that the system can wait for: for example a pipe, a terminal, a serial
// port, an eventfd, inotify, a netlink socket, or the socket of a C library. The caller supplies
// the system calls that read and write it: [Source.ReadWith] and [Source.WriteWith] make them, and
// wait while they would block. A Source is made by [NewSource] and must be closed or detached.
//
// Any number of tasks and goroutines may use a Source concurrently. As with a [TCPConn], the worker
// of the task that first has to wait for the Source serves it. No worker serves it while only
// goroutines wait.
//
// Errors are not wrapped. They are
//
//   - the errors of the caller's functions;
//   - cx.Err() if cx is cancelled;
//   - [os.ErrClosed] after [Source.Close] or [Source.Detach];
//   - [ErrPending] of PollReadable and PollWritable;
//   - [ErrShutdown] of calls that would wait while the workers end;
//   - an [*os.SyscallError] for a failure of the system.
type Source struct{ src pollFD }

// NewSource returns a [Source] of fd. fd belongs to the Source, whose Close closes it, until
// [Source.Detach]. NewSource makes fd non-blocking. Do not give fd to a second Source, nor to other
// code that waits for it edge-triggered in the same runtime.
//
// Another process that shares the open file may make it blocking again. A system call of the
// caller's functions may then block a worker. To prevent this, pass the call a flag such as
// MSG_DONTWAIT where it accepts such a flag.
//
// The error wraps [ErrNotPollable] if the system cannot wait for descriptors of this kind. fd is
// unchanged then. Other errors are [*os.SyscallError].
func NewSource(fd int) (*Source, error) {
	if err := checkPollable(fd); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("setnonblock", err)
	}
	s := new(Source)
	s.src.open(fd)
	return s, nil
}

// newSourceOf returns a Source of the descriptor of c, which is an *os.File or a connection of
// package net. The Source has a duplicate of the descriptor, so the two are closed separately. They
// share the open file: its position or connection, and whether it is non-blocking.
func newSourceOf(c syscall.Conn) (*Source, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var (
		fd     int
		failed error
	)
	if err := raw.Control(func(own uintptr) { fd, failed = duplicateFD(int(own)) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, failed
	}
	s, err := NewSource(fd)
	if err != nil {
		unix.Close(fd)
	}
	return s, err
}

// checkPollable returns an error if fd cannot be waited for. It tries this once with a poller of
// its own. The Source has no worker yet, and an error at the first wait would be late.
func checkPollable(fd int) error {
	if fd < 0 {
		return pollable(fd, os.NewSyscallError("fcntl", unix.EBADF))
	}
	var p poller
	if err := p.open(); err != nil {
		return err
	}
	defer p.close()
	return pollable(fd, p.add(fd))
}

// PollReadable returns nil if there is data to read, the end of the data, or a failure that a read
// would return. Otherwise it keeps cx's waker and returns [ErrPending]. If several tasks read,
// another task may take the data first.
func (s *Source) PollReadable(cx *Context) error {
	return sourceError(s.src.pollReady(cx, &s.src.rd, false))
}

// PollWritable returns nil if there is room to write, or a failure that a write would return.
// Otherwise it keeps cx's waker and returns [ErrPending].
func (s *Source) PollWritable(cx *Context) error {
	return sourceError(s.src.pollReady(cx, &s.src.wr, false))
}

// Readable waits until [Source.PollReadable] returns nil. Cancelling it loses nothing. Its errors
// are listed at [Source].
func (s *Source) Readable(cx *Context) error {
	return s.awaitReady(cx, &s.src.rd)
}

// Writable waits until [Source.PollWritable] returns nil. Cancelling it loses nothing. Its errors
// are listed at [Source].
func (s *Source) Writable(cx *Context) error {
	return s.awaitReady(cx, &s.src.wr)
}

// awaitReady is Readable or Writable. Its waiters wait in order; see wakerSlot.
func (s *Source) awaitReady(cx *Context, dir *direction) error {
	_, err := awaitInOrder(cx, &dir.waiters, func(cx *Context) (None, error) { return None{}, s.src.pollReady(cx, dir, false) })
	return sourceError(awaitedError(cx, err))
}

// ReadWith calls read with the descriptor and returns the results of read. If the error of read is
// or wraps EAGAIN, ReadWith waits until there may be data to read and calls read again. If the
// error is or wraps EINTR, it calls read again at once.
//
// read must not block and must not keep the descriptor: [Source.Close] does not close the
// descriptor before read returns. read need not take all data that is there. If cx is cancelled
// before ReadWith is called or while it waits, ReadWith returns cx.Err(), does not call read again,
// and loses nothing. The other errors are listed at [Source].
func (s *Source) ReadWith(cx *Context, read func(fd int) (n int, err error)) (int, error) {
	return s.with(cx, &s.src.rd, read)
}

// WriteWith is [Source.ReadWith] for the other direction: it waits for room to write.
func (s *Source) WriteWith(cx *Context, write func(fd int) (n int, err error)) (int, error) {
	return s.with(cx, &s.src.wr, write)
}

// with is ReadWith or WriteWith. It takes an error that wraps EAGAIN or EINTR to be this errno
// itself, which is the only form that pollFD.tryOp looks for. Its waiters do not wait in order:
// functions of the caller need not agree about readiness, so each event wakes all of them.
func (s *Source) with(cx *Context, dir *direction, do func(fd int) (int, error)) (int, error) {
	l := rawCallback{s: &s.src, dir: dir, f: func(fd int) (int, error) {
		n, err := do(fd)
		for _, errno := range []error{unix.EAGAIN, unix.EINTR} {
			if errors.Is(err, errno) {
				err = errno
			}
		}
		return n, err
	}}
	n, err := await(cx, l.poll)
	if err == errAbandoned {
		dir.waiters.leave(cx.t, cx.here())
		err = cx.Err()
	}
	return n, sourceError(err)
}

// sourceError returns os.ErrClosed instead of net.ErrClosed, because a Source need not be of the
// network.
func sourceError(err error) error {
	if err == net.ErrClosed {
		return os.ErrClosed
	}
	return err
}

// Control calls f with the descriptor, which stays open until f returns, and returns the error of
// f. f must not block. It fails with [os.ErrClosed] if the Source is closed.
func (s *Source) Control(f func(fd int) error) error { return sourceError(s.src.control(f)) }

// setDeadline sets the time after which calls that wait, now or later, fail with
// os.ErrDeadlineExceeded. The zero time means that there is no deadline.
func (s *Source) setDeadline(t time.Time) error { return s.setDeadlines(t, &s.src.rd, &s.src.wr) }

// setReadDeadline is setDeadline for Readable and ReadWith.
func (s *Source) setReadDeadline(t time.Time) error { return s.setDeadlines(t, &s.src.rd) }

// setWriteDeadline is setDeadline for Writable and WriteWith.
func (s *Source) setWriteDeadline(t time.Time) error { return s.setDeadlines(t, &s.src.wr) }

// setDeadlines is setDeadline for some directions.
func (s *Source) setDeadlines(t time.Time, dirs ...*direction) error {
	if err := s.src.checkOpen(); err != nil {
		return sourceError(err)
	}
	for _, dir := range dirs {
		dir.setDeadline(t)
	}
	return nil
}

// Close closes the descriptor as soon as no call uses it. Calls that wait return [os.ErrClosed]. A
// second Close returns [os.ErrClosed], too. An [*os.SyscallError] is an error of close(2).
func (s *Source) Close() error { return sourceError(s.src.close()) }

// Detach ends the Source without closing the descriptor, and returns the descriptor, which stays
// open and non-blocking. Calls that wait return [os.ErrClosed]. A closed or detached Source returns
// [os.ErrClosed], and fd is -1.
//
// If another goroutine is in the function of a [Source.ReadWith], [Source.WriteWith] or
// [Source.Control] at this moment, nothing happens and Detach returns [ErrSourceInUse]. A call that
// only waits does not prevent Detach, except for the moment in which it begins to wait.
func (s *Source) Detach() (fd int, err error) {
	if err := s.src.detach(); err != nil {
		return -1, sourceError(err)
	}
	return int(s.src.fd), nil
}

// duplicateFD returns another descriptor of the open file of fd. Child processes do not inherit it.
func duplicateFD(fd int) (int, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return dup, os.NewSyscallError("fcntl", err)
}
