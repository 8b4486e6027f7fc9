//go:build !linux

package async

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// What rawsys_linux.go does in one system call without allocating, by what all
// systems have.

// recvFrom receives into p, and the sender into from if that is not nil.
func recvFrom(fd int, p []byte, flags int, from *netip.AddrPort) (int, error) {
	n, sa, err := unix.Recvfrom(fd, p, flags)
	if err == nil && from != nil {
		*from = addrPortOf(sa)
	}
	return n, err
}

// sendTo sends p to an address that a socket of this family can send to.
func sendTo(fd int, p []byte, v6 bool, to netip.AddrPort) error {
	sa, err := sockaddrOf(to, v6)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, p, 0, sa)
}

// recvBatch receives as many messages as are there, up to len(ms). A failure
// after the first message is some earlier sending's, and dropped.
func recvBatch(fd int, ms []Message, flags int) (int, error) {
	for i := range ms {
		m := &ms[i]
		n, nn, got, sa, err := unix.RecvmsgBuffers(fd, m.Buffers, m.OOB, flags)
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

// sendBatch sends as many messages as there is room for. A failure after the
// first is met again by the next call.
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
			n, err = unix.SendmsgBuffers(fd, m.Buffers, m.OOB, sa, flags)
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
