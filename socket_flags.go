//go:build darwin || netbsd || openbsd

package async

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Systems that open descriptors first and set flags afterwards, or for which
// x/sys/unix has no accept4. The lock keeps a fork from coming between.

func openSocket(family, kind int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(family, kind, 0)
	return fd, prepare(fd, err)
}

func acceptSocket(fd int) (int, unix.Sockaddr, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n, sa, err := unix.Accept(fd)
	return n, sa, prepare(n, err)
}

func openSocketPair(kind int) (fds [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if fds, err = unix.Socketpair(unix.AF_UNIX, kind, 0); err != nil {
		return fds, err
	}
	if err = prepare(fds[0], nil); err != nil {
		unix.Close(fds[1])
		return fds, err
	}
	if err = prepare(fds[1], nil); err != nil {
		unix.Close(fds[0])
	}
	return fds, err
}

func prepare(fd int, err error) error {
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
