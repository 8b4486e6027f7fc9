package async

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const msgCloexec = 0

// The lock keeps a fork from coming between the descriptors and their flags.
func recvMsg(fd int, p, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n, oobn, flags, from, err = unix.Recvmsg(fd, p, oob, unix.MSG_DONTWAIT)
	if err == nil {
		fds, _ := descriptorsIn(oob[:oobn])
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
	}
	return n, oobn, flags, from, err
}
