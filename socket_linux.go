package async

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func setDeferAccept(fd int, d time.Duration) error {
	return setSocketOption(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, wholeSeconds(d))
}

// mptcpInfo is MPTCP_INFO of linux/mptcp.h.
const mptcpInfo = 1

// multipath reports whether a connection uses Multipath TCP. The socket keeps its
// protocol also if the peer knew plain TCP only; its options of that level do not
// work then.
func multipath(fd int) (bool, error) {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || proto != unix.IPPROTO_MPTCP {
		return false, os.NewSyscallError("getsockopt", err)
	}
	_, err = unix.GetsockoptInt(fd, unix.SOL_MPTCP, mptcpInfo)
	return err == nil, nil
}
