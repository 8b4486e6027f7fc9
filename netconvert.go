package async

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// FileConn returns a connection of the socket of f, like [net.FileConn]. The connection has a
// descriptor of its own: to close the connection does not close f, and both must be closed. To go
// back, use the method File of the connection and net.FileConn.
//
// The settings of the socket are shared. A TCP connection has TCP_NODELAY and keep-alive on from
// then on, like all connections of this package. The socket is non-blocking from then on.
//
// The error is a [*net.OpError]. It wraps ENOTSOCK if f is not a socket, EINVAL if the socket
// listens, and [os.ErrClosed] if f is closed.
func FileConn(f *os.File) (Conn, error) {
	c, err := fromFile[Conn](f)
	if tcp, ok := c.(*TCPConn); ok {
		setTCPDefaults(int(tcp.src.fd), 0)
	}
	return c, err
}

// FileListener is [FileConn] for listeners, like [net.FileListener], with the same errors: EINVAL
// if the socket does not listen. Connections that arrive from then on have TCP_NODELAY and
// keep-alive on, also if they are accepted through f.
//
// The listener and f share whether they are non-blocking. If f is made blocking, the next Accept
// makes both non-blocking again.
func FileListener(f *os.File) (Listener, error) { return fromFile[Listener](f) }

// FilePacketConn is [FileConn] for sockets of messages, like [net.FilePacketConn]. The errors are
// the same: EINVAL if the socket is of another kind.
func FilePacketConn(f *os.File) (PacketConn, error) { return fromFile[PacketConn](f) }

// FromConn takes a connection over from package net, or from another type that has a method
// SyscallConn. If it succeeds it closes c, so that code that still uses c gets an error. The Conn
// that it returns is the same connection, without the deadlines of c. If it fails, c is unchanged.
// To go the other way use [BindConn] or [NetConn].
//
// The error is a [*net.OpError]. It wraps [errors.ErrUnsupported] if c has no descriptor (a
// [*crypto/tls.Conn] has none, for example), and [net.ErrClosed] if c is closed.
func FromConn(c net.Conn) (Conn, error) { return takeOver[Conn](c) }

// FromListener is [FromConn] for listeners, with the same errors. The file of a unix-domain
// listener stays; Close of the Listener that FromListener returns removes it.
func FromListener(l net.Listener) (Listener, error) { return takeOver[Listener](l) }

// FromPacketConn is [FromConn] for sockets of messages, with the same errors.
func FromPacketConn(c net.PacketConn) (PacketConn, error) { return takeOver[PacketConn](c) }

// fileAddr is the address in an error of this file: the name of a file, the number of a descriptor,
// or the type of a value.
type fileAddr string

func (fileAddr) Network() string  { return "file+net" }
func (a fileAddr) String() string { return string(a) }

// fileError returns err as a [*net.OpError] about the file, descriptor or value that what names.
func fileError(what string, err error) error {
	return wrapOp("file", unnamed(fileAddr("").Network()), nil, fileAddr(what), err)
}

// fromFile makes a connection or listener of a duplicate of f.
func fromFile[S any](f *os.File) (s S, err error) {
	s, err = fromDuplicate[S](f)
	if err != nil {
		return s, fileError(f.Name(), err)
	}
	return s, nil
}

// fromFD makes a connection or listener of the socket fd. On success fd belongs to the result, is
// non-blocking and is not inherited by children. On failure fd is unchanged. The error is ENOTSOCK
// if fd is not a socket, and EINVAL if the socket is of another kind.
func fromFD[S any](fd int) (s S, err error) {
	if s, err = socketOf[S](fd); err != nil {
		return s, fileError(fmt.Sprintf("fd %d", fd), err)
	}
	return s, nil
}

var errNoDescriptor = fmt.Errorf("async: it has no SyscallConn, so its descriptor can't be reached: %w", errors.ErrUnsupported)

// takeOver makes a connection or listener of a duplicate of the descriptor of old, and then closes
// old.
func takeOver[S any](old interface{ Close() error }) (s S, err error) {
	c, ok := old.(syscall.Conn)
	if !ok {
		return s, fileError(fmt.Sprintf("%T", old), errNoDescriptor)
	}
	if s, err = fromDuplicate[S](c); err != nil {
		return s, fileError(fmt.Sprintf("%T", old), err)
	}
	// The Close of old would remove the file of a unix-domain listener. The new listener removes it
	// instead.
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

// fromDuplicate makes an S of a duplicate of the descriptor of c.
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

// socketOf makes an S of the socket fd, or fails with EINVAL if the socket is of another kind. It
// changes settings of the socket only after the checks, so that on failure the socket is unchanged.
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

// networkOfFD asks the system for the network of a socket, and whether it listens. Sockets of IPv4
// and IPv6 have the networks of both families, "tcp" and "udp". The error is EPROTONOSUPPORT for a
// socket that belongs to none of the networks.
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

// listenerOf makes a listener of a socket that listens. Its Close does not remove the file of a
// unix-domain socket, as in package net: the program that has bound the socket removes it.
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
