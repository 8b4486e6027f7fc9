//go:build !linux

package async

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// The functions of socketcalls_linux.go, by the system calls that all systems have. Those on Linux
// take one system call each and do not allocate.

// sendFlags is the flags of every call that sends, beside its own: not to block,
// also if another process has made the descriptor blocking.
const sendFlags = unix.MSG_DONTWAIT

// recv receives into p. It does not block.
func recv(fd int, p []byte, flags int) (int, error) {
	n, _, err := unix.Recvfrom(fd, p, flags|unix.MSG_DONTWAIT)
	return n, err
}

// recvFrom is recv that returns the sender, too.
func recvFrom(fd int, p []byte, flags int) (n int, from netip.AddrPort, err error) {
	n, sa, err := unix.Recvfrom(fd, p, flags|unix.MSG_DONTWAIT)
	return n, addrPortOf(sa), err
}

// provesEmpty reports that no read proves that all has been taken: on these systems the poller does
// not report urgent data, where a read stops.
func provesEmpty([]byte, int) bool { return false }

// send sends p to the peer. It does not block.
func send(fd int, p []byte) (int, error) { return unix.SendmsgN(fd, p, nil, nil, sendFlags) }

// sendTo sends p to an address that a socket of this family can send to. It does not
// block.
func sendTo(fd int, p []byte, v6 bool, to netip.AddrPort) error {
	sa, err := sockaddrOf(to, v6)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, p, sendFlags, sa)
}

// recvBatch receives as many messages as are there, up to len(ms). A failure
// after the first message belongs to an earlier send, and is dropped.
func recvBatch(fd int, ms []Message, flags int) (int, error) {
	for i := range ms {
		m := &ms[i]
		n, nn, got, sa, err := unix.RecvmsgBuffers(fd, m.Buffers, m.OOB, flags|unix.MSG_DONTWAIT)
		if err != nil && i == 0 {
			return 0, err
		} else if err != nil {
			return i, nil
		}
		m.N, m.NN, m.Flags = n, nn, got
		m.from(addrPortOf(sa))
	}
	return len(ms), nil
}

// sendBatch sends as many messages as there is room for. The next call meets a failure after
// the first message again.
func sendBatch(fd int, ms []Message, v6 bool, flags int) (int, error) {
	for i := range ms {
		m := &ms[i]
		to, err := m.to(v6)
		var sa unix.Sockaddr
		if err == nil && to.IsValid() {
			sa, err = sockaddrOf(to, v6)
		}
		n := 0
		if err == nil {
			n, err = unix.SendmsgBuffers(fd, m.Buffers, m.OOB, sa, flags|sendFlags)
		}
		if err != nil && i == 0 {
			return 0, err
		} else if err != nil {
			return i, nil
		}
		m.N, m.NN = n, len(m.OOB)
	}
	return len(ms), nil
}

// maxBatch is how many messages are worth one use of the socket.
const maxBatch = 64
