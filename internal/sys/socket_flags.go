//go:build darwin || netbsd || openbsd

package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// On these systems a descriptor is opened first, and gets its flags afterwards, or x/sys/unix has
// no accept4. The lock prevents a fork between the two steps, which would pass the descriptor to
// the child.

// Socket opens a socket that does not block and that child processes do not inherit.
func Socket(family, kind int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(family, kind, 0)
	return fd, setDescriptorFlags(fd, err)
}

// Accept accepts a connection. Its socket does not block and is not inherited.
func Accept(fd int) (int, unix.Sockaddr, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n, sa, err := unix.Accept(fd)
	return n, sa, setDescriptorFlags(n, err)
}

// SocketPair opens two connected sockets of the unix domain. They do not block and are not
// inherited.
func SocketPair(kind int) (fds [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if fds, err = unix.Socketpair(unix.AF_UNIX, kind, 0); err != nil {
		return fds, err
	}
	if err = setDescriptorFlags(fds[0], nil); err != nil {
		unix.Close(fds[1])
		return fds, err
	}
	if err = setDescriptorFlags(fds[1], nil); err != nil {
		unix.Close(fds[0])
	}
	return fds, err
}

// setDescriptorFlags sets the flags of a descriptor that a call has just returned with err. It
// closes the descriptor if that fails.
func setDescriptorFlags(fd int, err error) error {
	if err != nil {
		return err
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	return nil
}
