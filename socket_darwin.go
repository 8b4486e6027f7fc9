package async

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Darwin opens first and sets flags afterwards; the lock keeps a fork from
// coming between.

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

func setKeepAlivePeriod(fd int, d time.Duration) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPALIVE, wholeSeconds(d)); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return setOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, wholeSeconds(d))
}
