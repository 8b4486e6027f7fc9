package async

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Source is any descriptor that can be waited for: a pipe, a terminal or a
// serial port, an eventfd, inotify, a netlink socket, the socket of a C library.
// The caller chooses the system calls that read and write it: ReadWith and
// WriteWith take the system call, and make it when it will not block.
//
// Any number of tasks and goroutines may use a Source at once, and like a
// TCPConn it is served by the worker of the task that first has to wait for it,
// and by no worker as long as only goroutines wait for it.
// Its errors are not wrapped: those that the functions of ReadWith, WriteWith and
// Control return, cx.Err() if cx is cancelled, os.ErrClosed after Close or Detach,
// ErrPending of polls, and ErrShutdown for waits once the workers end. A failure of
// the system is an *os.SyscallError. It must be closed or detached.
type Source struct{ src pollFD }

// NewSource returns a Source of fd, which belongs to it until Detach: Close
// closes it. It makes fd non-blocking. If another process that shares the open file makes
// it blocking again, a system call of the caller's may block a worker: pass the call a
// flag such as MSG_DONTWAIT where it has such a flag. fd must not be given to two Sources, nor
// to anything else that waits for it edge-triggered in the same runtime.
//
// The error wraps ErrNotPollable if fd is of a kind that cannot be waited for; fd is
// then left alone. Other errors are *os.SyscallError.
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

// newSourceOf returns a Source of the descriptor behind c: an *os.File, a
// connection of package net. The Source has a duplicate, so that each is closed
// by itself. They share the open file that they read from and write to, and whether it is
// non-blocking.
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

// checkPollable finds out whether fd can be waited for, by doing so once. No worker is
// known yet, and to fail at the first wait would be late.
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

// PollReadable returns nil if there is data to read, or the end, or a
// failure, and ErrPending if not. Where several tasks read, another may be faster.
func (s *Source) PollReadable(cx *Context) error {
	return sourceError(s.src.pollReady(cx, &s.src.rd, false))
}

// PollWritable returns nil if there is room to write, or a failure, and
// ErrPending if not.
func (s *Source) PollWritable(cx *Context) error {
	return sourceError(s.src.pollReady(cx, &s.src.wr, false))
}

// Readable waits until PollReadable returns nil. Cancelling it loses nothing.
func (s *Source) Readable(cx *Context) error {
	return s.awaitReady(cx, &s.src.rd)
}

// Writable waits until PollWritable returns nil. Cancelling it loses nothing.
func (s *Source) Writable(cx *Context) error {
	return s.awaitReady(cx, &s.src.wr)
}

func (s *Source) awaitReady(cx *Context, dir *direction) error {
	_, err := awaitInOrder(cx, &dir.waiters, func(cx *Context) (None, error) { return None{}, s.src.pollReady(cx, dir, false) })
	return sourceError(awaitedError(cx, err))
}

// ReadWith calls read with the descriptor and returns its results, unless
// the error is or wraps EAGAIN: then it waits until there may be data to
// read, and calls it again. It does the same at once after EINTR. read must not block,
// and must not keep the descriptor; Close waits for it. read need not take all
// data that is there. Cancelling a ReadWith that waits loses nothing.
func (s *Source) ReadWith(cx *Context, read func(fd int) (n int, err error)) (int, error) {
	return s.with(cx, &s.src.rd, read)
}

// WriteWith is ReadWith for the other direction: it waits for room to write.
func (s *Source) WriteWith(cx *Context, write func(fd int) (n int, err error)) (int, error) {
	return s.with(cx, &s.src.wr, write)
}

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

// sourceError returns os.ErrClosed for net.ErrClosed, since a Source need not be of the network.
func sourceError(err error) error {
	if err == net.ErrClosed {
		return os.ErrClosed
	}
	return err
}

// Control calls f with the descriptor, which stays open meanwhile, and returns
// f's error. f must not block.
func (s *Source) Control(f func(fd int) error) error { return sourceError(s.src.control(f)) }

// setDeadline sets the time after which waits, under way or not, fail with
// os.ErrDeadlineExceeded; the zero time means never.
func (s *Source) setDeadline(t time.Time) error { return s.setDeadlines(t, &s.src.rd, &s.src.wr) }

// setReadDeadline is SetDeadline for Readable and ReadWith.
func (s *Source) setReadDeadline(t time.Time) error { return s.setDeadlines(t, &s.src.rd) }

// setWriteDeadline is SetDeadline for Writable and WriteWith.
func (s *Source) setWriteDeadline(t time.Time) error { return s.setDeadlines(t, &s.src.wr) }

func (s *Source) setDeadlines(t time.Time, dirs ...*direction) error {
	if err := s.src.checkOpen(); err != nil {
		return sourceError(err)
	}
	for _, dir := range dirs {
		dir.setDeadline(t)
	}
	return nil
}

// Close closes the descriptor, as soon as no call uses it. Operations that wait fail with
// os.ErrClosed.
func (s *Source) Close() error { return sourceError(s.src.close()) }

// Detach ends the Source like Close, and returns the descriptor, which stays
// open, and non-blocking. Operations that wait fail with os.ErrClosed. If another goroutine
// is in a call of ReadWith, WriteWith or Control that uses the descriptor at
// this moment, nothing happens and Detach returns ErrSourceInUse. Calls that only
// wait do not prevent Detach, except at the moment when a call begins to wait.
func (s *Source) Detach() (fd int, err error) {
	if err := s.src.detach(); err != nil {
		return -1, sourceError(err)
	}
	return int(s.src.fd), nil
}

// duplicateFD returns another descriptor of the open file of fd, which children do not
// inherit.
func duplicateFD(fd int) (int, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return dup, os.NewSyscallError("fcntl", err)
}
