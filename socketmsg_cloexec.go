//go:build !darwin

package async

import "golang.org/x/sys/unix"

// msgCloexec is the flag that recvMsg passes to recvmsg(2). Some systems return it among the flags
// of the message. The methods of UDPConn remove it, because package net does not pass it for UDP.
// The methods for unix-domain sockets keep it, as package net does.
const msgCloexec = unix.MSG_CMSG_CLOEXEC

// recvMsg is recvmsg(2), without blocking. The kernel marks received descriptors close-on-exec.
func recvMsg(fd int, p, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	return unix.Recvmsg(fd, p, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
}
