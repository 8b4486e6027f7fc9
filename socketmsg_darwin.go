package async

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Darwin has no MSG_CMSG_CLOEXEC.
const msgCloexec = 0

// recvMsg is recvmsg(2), without blocking. It marks received descriptors close-on-exec itself. It
// holds the fork lock meanwhile: a child that is forked between recvmsg and fcntl would inherit
// them.
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
