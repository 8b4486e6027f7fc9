//go:build !darwin

package async

import "golang.org/x/sys/unix"

// msgCloexec is a flag of recvMsg that comes back among the flags of the message.
const msgCloexec = unix.MSG_CMSG_CLOEXEC

func recvMsg(fd int, p, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	return unix.Recvmsg(fd, p, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
}
