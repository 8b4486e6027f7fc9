//go:build dragonfly || freebsd || linux

package sys

import "golang.org/x/sys/unix"

// On these systems one call opens a descriptor and sets its flags.

// Socket opens a socket that does not block and that child processes do not inherit.
func Socket(family, kind int) (int, error) {
	return unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}

// Accept accepts a connection. Its socket does not block and is not inherited.
func Accept(fd int) (int, unix.Sockaddr, error) {
	return unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
}

// SocketPair opens two connected sockets of the unix domain. They do not block and are not
// inherited.
func SocketPair(kind int) ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}
