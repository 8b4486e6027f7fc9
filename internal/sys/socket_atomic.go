//go:build dragonfly || freebsd || linux

package sys

import "golang.org/x/sys/unix"

// Systems that open descriptors non-blocking and close-on-exec in one call.

// Socket opens a socket that does not block and that children do not inherit.
func Socket(family, kind int) (int, error) {
	return unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}

// Accept accepts a connection, as such a socket.
func Accept(fd int) (int, unix.Sockaddr, error) {
	return unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
}

// SocketPair opens two such sockets of the unix domain that are connected.
func SocketPair(kind int) ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}
