//go:build !darwin

package async

import "golang.org/x/sys/unix"

// msgCloexec is a flag of recvMsg that some systems return among the flags of the message. Package
// net does not show it to the caller, so this package removes it.
const msgCloexec = unix.MSG_CMSG_CLOEXEC

// recvMsg is recvmsg(2), without blocking. The kernel marks received descriptors close-on-exec.
func recvMsg(fd int, p, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	return unix.Recvmsg(fd, p, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
}
