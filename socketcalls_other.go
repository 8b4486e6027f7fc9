//go:build !linux

package async

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// This file has the functions of socketcalls_linux.go for the other systems, made of system calls
// that all systems have. The functions for Linux make one system call each and do not allocate;
// some of these make more calls or allocate.

// sendFlags is the flags of every call that sends. MSG_DONTWAIT makes the call not block, also if
// another process has made the descriptor blocking.
const sendFlags = unix.MSG_DONTWAIT

// recv receives into p, without blocking.
func recv(fd int, p []byte, flags int) (int, error) {
	n, _, err := unix.Recvfrom(fd, p, flags|unix.MSG_DONTWAIT)
	return n, err
}

// recvFrom is recv, and returns the sender, too.
func recvFrom(fd int, p []byte, flags int) (n int, from netip.AddrPort, err error) {
	n, sa, err := unix.Recvfrom(fd, p, flags|unix.MSG_DONTWAIT)
	return n, addrPortOf(sa), err
}

// provesEmpty returns false: on these systems no read proves that the socket is empty, because a
// read stops at urgent data and the poller does not report urgent data.
func provesEmpty([]byte, int) bool { return false }

// send sends p to the peer, without blocking.
func send(fd int, p []byte) (int, error) { return unix.SendmsgN(fd, p, nil, nil, sendFlags) }

// sendTo sends p to an address, without blocking. The caller has checked that a socket of this
// family can send to it; see reachable.
func sendTo(fd int, p []byte, v6 bool, to netip.AddrPort) error {
	sa, err := sockaddrOf(to, v6)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, p, sendFlags, sa)
}

// recvBatch receives as many messages as are available, at most len(ms), one system call for each.
// EAGAIN after the first message ends the batch. So does another error: it reports that an earlier
// send has failed, and is lost.
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

// sendBatch sends as many messages as the system has room for, one system call for each. A failure
// after the first message ends the batch without an error; the next call begins with this message,
// and fails again.
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

// maxBatch is the largest number of messages that one poll of ReadBatch or WriteBatch receives or
// sends. It bounds the time for which this poll keeps the worker.
const maxBatch = 64
