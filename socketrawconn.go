package async

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// rawConn implements syscall.RawConn: it passes the descriptor of a socket to functions of the
// program's, which make system calls that this package does not have. It waits through cx. A
// rawConn without a cx cannot wait.
//
// Each method marks the descriptor as shared (pollFD.markShared), because the function may change
// the socket behind the back of this package, or keep a duplicate of the descriptor.
type rawConn struct {
	src          *pollFD
	net          *network
	laddr, raddr net.Addr
	cx           *Context
}

var errRawWait = fmt.Errorf("async: SyscallConn of an unbound socket cannot wait; that of the result of BindConn can: %w", errors.ErrUnsupported)

// Control calls f with the descriptor, which stays open until f returns.
func (r *rawConn) Control(f func(fd uintptr)) error {
	r.src.markShared()
	return r.wrap("raw-control", nil, r.laddr, r.src.control(func(fd int) error { f(uintptr(fd)); return nil }))
}

// Read calls f until f returns true: first at once, then after each event that says there may be
// data. f must read until the system returns EAGAIN before it returns false, since the next event
// is only for new data.
func (r *rawConn) Read(f func(fd uintptr) (done bool)) error {
	return r.wrap("raw-read", r.laddr, r.raddr, r.until(&r.src.rd, f))
}

// Write is Read for the other direction.
func (r *rawConn) Write(f func(fd uintptr) (done bool)) error {
	return r.wrap("raw-write", r.laddr, r.raddr, r.until(&r.src.wr, f))
}

// until calls f until it returns true, or once if r has no cx. The calls are a raw callback: they
// say nothing about the readiness of the direction for other operations, so the tasks that wait
// here do not wait in order.
func (r *rawConn) until(dir *direction, f func(fd uintptr) bool) error {
	if r.cx == nil {
		r.src.markShared()
		return r.src.control(func(fd int) error {
			if !f(uintptr(fd)) {
				return errRawWait
			}
			return nil
		})
	}
	l := rawCallback{s: r.src, dir: dir, f: untilDone(f)}
	_, err := await(r.cx, l.poll)
	if err == errAbandoned {
		dir.waiters.leave(r.cx.t, r.cx.here())
		err = r.cx.Err()
	}
	return err
}

// wrap wraps an error in a *net.OpError, as the RawConn of package net does.
func (r *rawConn) wrap(op string, source, addr net.Addr, err error) error {
	if err == nil {
		return nil
	}
	return wrapOp(op, r.net, source, addr, err)
}

// rawListener is the rawConn of a listener. As in package net, its Read and Write fail at once: a
// program cannot read from a listener.
type rawListener struct{ rawConn }

func (*rawListener) Read(func(fd uintptr) (done bool)) error  { return syscall.EINVAL }
func (*rawListener) Write(func(fd uintptr) (done bool)) error { return syscall.EINVAL }

// SyscallConn returns the socket for system calls that this package does not have, as in package
// net (see [net.TCPConn.SyscallConn]). It differs in that the [syscall.RawConn] cannot wait,
// because it has no cx: its Read and Write call the function once, and fail with
// [errors.ErrUnsupported] if the function returns false. A SyscallConn of the result of [BindConn]
// or [NetConn] can wait. The error is a [*net.OpError].
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.rawConn(nil) }

// rawConn returns a RawConn that waits through cx; cx may be nil.
func (c *conn) rawConn(cx *Context) (syscall.RawConn, error) {
	if err := c.src.checkOpen(); err != nil {
		return nil, c.wrap("raw", err)
	}
	return &rawConn{src: &c.src, net: c.net, laddr: c.laddr, raddr: c.raddr, cx: cx}, nil
}

// File returns a duplicate of the socket as a file, as in package net (see [net.TCPConn.File]): for
// [net.FileConn], or for a child process. The connection stays open, and the program must close
// both. The error is a [*net.OpError].
func (c *conn) File() (*os.File, error) {
	name := c.net.title() + ":"
	if c.laddr != nil {
		name += c.laddr.String()
	}
	if c.raddr != nil {
		name += "->" + c.raddr.String()
	}
	f, err := c.src.file(name)
	return f, c.wrap("file", err)
}

// file returns a duplicate of the descriptor as an *os.File with this name.
func (s *pollFD) file(name string) (f *os.File, err error) {
	s.markShared()
	err = s.control(func(fd int) error {
		dup, err := duplicateFD(fd)
		if err == nil {
			f = os.NewFile(uintptr(dup), name)
		}
		return err
	})
	return f, err
}
