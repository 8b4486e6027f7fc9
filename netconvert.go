package async

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// FileConn returns a connection of the socket that f is, as net.FileConn does.
// It has a descriptor of its own: f stays as it is, and both must be closed.
// It fails with ENOTSOCK if f is no socket, and with EINVAL if it is a
// listener. As usual, a TCP connection has TCP_NODELAY and keep-alive on from
// then on. To go back, use File and net.FileConn. The error is a *net.OpError;
// it wraps os.ErrClosed if f is closed.
func FileConn(f *os.File) (Conn, error) {
	c, err := fromFile[Conn](f)
	if tcp, ok := c.(*TCPConn); ok {
		setTCPDefaults(int(tcp.src.fd), 0)
	}
	return c, err
}

// FileListener is FileConn for listeners, as net.FileListener. Connections
// that arrive from then on have TCP_NODELAY and keep-alive on, as usual, also
// those that are accepted through f. The two share whether they are non-blocking:
// where f is made blocking, the next Accept makes both non-blocking again. The
// error is that of FileConn.
func FileListener(f *os.File) (Listener, error) { return fromFile[Listener](f) }

// FilePacketConn is FileConn for sockets of messages, as net.FilePacketConn. The
// error is that of FileConn.
func FilePacketConn(f *os.File) (PacketConn, error) { return fromFile[PacketConn](f) }

// FromConn takes a connection over from package net, or from another type that has
// a SyscallConn. On success c has been closed, so that code that still uses it gets an
// error, and the Conn that is returned goes on in its place, without c's deadlines. On
// failure c is as it was. The error is a *net.OpError; it wraps errors.ErrUnsupported if c
// has no descriptor, as a *tls.Conn has none, and net.ErrClosed if c is closed.
func FromConn(c net.Conn) (Conn, error) { return takeOver[Conn](c) }

// FromListener is FromConn for listeners. The file of a unix-domain listener
// stays, and is removed by the Close of the Listener that is returned. The error is
// that of FromConn.
func FromListener(l net.Listener) (Listener, error) { return takeOver[Listener](l) }

// FromPacketConn is FromConn for sockets of messages. The error is that of
// FromConn.
func FromPacketConn(c net.PacketConn) (PacketConn, error) { return takeOver[PacketConn](c) }

// fileAddr is the address in an error about a file, descriptor or value that has no address.
type fileAddr string

func (fileAddr) Network() string  { return "file+net" }
func (a fileAddr) String() string { return string(a) }

func fileError(what string, err error) error {
	return wrapOp("file", unnamed(fileAddr("").Network()), nil, fileAddr(what), err)
}

func fromFile[S any](f *os.File) (s S, err error) {
	s, err = fromDuplicate[S](f)
	if err != nil {
		return s, fileError(f.Name(), err)
	}
	return s, nil
}

// fromFD returns a connection or listener of a socket's descriptor, which on success belongs to it, is non-blocking and
// not inherited by children. On failure fd is as it was: ENOTSOCK if it is no socket, EINVAL if it is of another kind.
func fromFD[S any](fd int) (s S, err error) {
	if s, err = socketOf[S](fd); err != nil {
		return s, fileError(fmt.Sprintf("fd %d", fd), err)
	}
	return s, nil
}

var errNoDescriptor = fmt.Errorf("async: it has no SyscallConn, so its descriptor can't be reached: %w", errors.ErrUnsupported)

func takeOver[S any](old interface{ Close() error }) (s S, err error) {
	c, ok := old.(syscall.Conn)
	if !ok {
		return s, fileError(fmt.Sprintf("%T", old), errNoDescriptor)
	}
	if s, err = fromDuplicate[S](c); err != nil {
		return s, fileError(fmt.Sprintf("%T", old), err)
	}
	type unlinker interface{ SetUnlinkOnClose(bool) }
	if from, ok := old.(unlinker); ok {
		if to, ok := any(s).(unlinker); ok {
			from.SetUnlinkOnClose(false)
			to.SetUnlinkOnClose(true)
		}
	}
	old.Close()
	return s, nil
}

// fromDuplicate makes a socket of a duplicate of c's descriptor.
func fromDuplicate[S any](c syscall.Conn) (s S, err error) {
	fd, err := duplicateFile(c)
	if err != nil {
		return s, err
	}
	if s, err = socketOf[S](fd); err != nil {
		unix.Close(fd)
	}
	return s, err
}

// socketOf makes an S of a descriptor, if the socket is of that type.
func socketOf[S any](fd int) (s S, err error) {
	n, listens, err := networkOfFD(fd)
	if err != nil {
		return s, err
	}
	var made any
	if listens {
		made = n.listenerOf(fd)
	} else {
		made = n.connOf(fd)
	}
	s, ok := made.(S)
	if !ok {
		return s, unix.EINVAL
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return s, os.NewSyscallError("setnonblock", err)
	}
	unix.CloseOnExec(fd)
	if listens && n.proto == "tcp" {
		setTCPDefaults(fd, 0)
	}
	return s, nil
}

// networkOfFD asks the system for the network of a descriptor, and whether it listens.
func networkOfFD(fd int) (n *network, listens bool, err error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, false, os.NewSyscallError("getsockopt", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, false, os.NewSyscallError("getsockname", err)
	}
	family := -1
	switch sa.(type) {
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		family = 0
	case *unix.SockaddrUnix:
		family = unix.AF_UNIX
	}
	if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil {
		listens = v != 0
	}
	for i := range networks {
		if n := &networks[i]; n.family == family && n.kind == kind {
			return n, listens, nil
		}
	}
	return nil, false, unix.EPROTONOSUPPORT
}

// listenerOf makes a listener of a socket that listens.
func (n *network) listenerOf(fd int) Listener {
	if n.proto == "tcp" {
		l := new(TCPListener)
		l.init(fd, n)
		l.src.markShared()
		return l
	}
	l := new(UnixListener)
	l.init(fd, n)
	l.src.markShared()
	l.SetUnlinkOnClose(false)
	return l
}

// connOf makes a connection of a socket that does not listen.
func (n *network) connOf(fd int) Conn {
	c, base := n.newConn()
	base.init(fd, n, nil, nil)
	base.src.markShared()
	base.named(nil)
	return c
}
