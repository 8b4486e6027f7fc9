package async

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// rawConn gives a socket's descriptor to callers that make system calls of their
// own. It waits through cx; if that is nil, it can't wait.
type rawConn struct {
	src          *pollFD
	net          *network
	laddr, raddr net.Addr
	cx           *Context
}

var errRawWait = fmt.Errorf("async: SyscallConn of an unbound socket cannot wait; that of the result of BindConn can: %w", errors.ErrUnsupported)

// Control calls f with the descriptor, which stays open meanwhile.
func (r *rawConn) Control(f func(fd uintptr)) error {
	r.src.markShared()
	return r.wrap("raw-control", nil, r.laddr, r.src.control(func(fd int) error { f(uintptr(fd)); return nil }))
}

// Read calls f until it returns true, each time after there may be more to
// read. f must go on until the system returns EAGAIN before it returns false.
func (r *rawConn) Read(f func(fd uintptr) (done bool)) error {
	return r.wrap("raw-read", r.laddr, r.raddr, r.until(&r.src.rd, f))
}

// Write is Read for writing.
func (r *rawConn) Write(f func(fd uintptr) (done bool)) error {
	return r.wrap("raw-write", r.laddr, r.raddr, r.until(&r.src.wr, f))
}

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

func (r *rawConn) wrap(op string, source, addr net.Addr, err error) error {
	if err == nil {
		return nil
	}
	return wrapOp(op, r.net, source, addr, err)
}

// rawListener is the descriptor of a listener. Its Read and Write fail at once, as
// in package net: connections are not taken from a listener by reading.
type rawListener struct{ rawConn }

func (*rawListener) Read(func(fd uintptr) (done bool)) error  { return syscall.EINVAL }
func (*rawListener) Write(func(fd uintptr) (done bool)) error { return syscall.EINVAL }

// SyscallConn returns the socket for system calls of the caller's. The RawConn
// cannot wait: its Read and Write call the function once and fail with
// errors.ErrUnsupported if that reports that it is not done. The SyscallConn of
// the connection that BindConn returns waits.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.rawConn(nil) }

func (c *conn) rawConn(cx *Context) (syscall.RawConn, error) {
	if err := c.src.checkOpen(); err != nil {
		return nil, c.wrap("raw", err)
	}
	return &rawConn{src: &c.src, net: c.net, laddr: c.laddr, raddr: c.raddr, cx: cx}, nil
}

// File returns a duplicate of the socket as a file, for net.FileConn or for a
// child process. The connection stays open, and both must be closed.
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

// file duplicates the descriptor.
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
