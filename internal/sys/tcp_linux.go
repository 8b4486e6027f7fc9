package sys

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SetDeferAccept makes a listener accept a connection only when its first data has arrived, or
// after d.
func SetDeferAccept(fd int, d time.Duration) error {
	return SetOption(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, WholeSeconds(d))
}

// mptcpInfo is MPTCP_INFO of linux/mptcp.h.
const mptcpInfo = 1

// Multipath reports whether a connection uses Multipath TCP. The protocol of the socket does not
// tell: it stays IPPROTO_MPTCP even if the peer supports only plain TCP. But then the options of
// that level fail.
func Multipath(fd int) (bool, error) {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || proto != unix.IPPROTO_MPTCP {
		return false, os.NewSyscallError("getsockopt", err)
	}
	_, err = unix.GetsockoptInt(fd, unix.SOL_MPTCP, mptcpInfo)
	return err == nil, nil
}
