package main

import (
	"fmt"
	"net/netip"
	"syscall"
)

// dial opens connection number i. Every 4,096 connections get another loopback address: if most
// ports of an address are in use, the kernel takes long to find a free port.
func dial(to netip.AddrPort, i int) (fd int, err error) {
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	defer func() {
		if err != nil {
			syscall.Close(fd)
		}
	}()
	const bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT: connect chooses the port
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindAddressNoPort, 1); err != nil {
		return 0, fmt.Errorf("IP_BIND_ADDRESS_NO_PORT: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(1 + i/4096)}}); err != nil {
		return 0, fmt.Errorf("bind: %w", err)
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return 0, fmt.Errorf("TCP_NODELAY: %w", err)
	}
	return fd, nil
}

// drop closes a connection with a reset, which leaves no port in TIME_WAIT. Errors are ignored: the
// connection is no longer needed.
func drop(fd int) {
	syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	syscall.Close(fd)
}

// idleConns has connections that have each exchanged a request and are idle.
type idleConns struct {
	fds  []int
	size int
}

// openIdle opens n connections and exchanges a request on each. It opens them in batches that are
// smaller than any listen backlog.
func openIdle(to netip.AddrPort, n, size int) (*idleConns, error) {
	const batch = 100
	idle := &idleConns{size: size}
	for len(idle.fds) < n {
		first := len(idle.fds)
		for len(idle.fds) < min(n, first+batch) {
			fd, err := dial(to, len(idle.fds))
			if err != nil {
				idle.close()
				return nil, fmt.Errorf("connection %d of %d: %w", len(idle.fds)+1, n, err)
			}
			idle.fds = append(idle.fds, fd)
			if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 10}); err != nil {
				idle.close()
				return nil, fmt.Errorf("SO_RCVTIMEO: %w", err)
			}
		}
		if err := idle.exchangeOn(first, len(idle.fds), 0); err != nil {
			idle.close()
			return nil, err
		}
	}
	return idle, nil
}

// exchange sends request number k on every connection and receives the answers.
func (idle *idleConns) exchange(k uint64) error {
	const batch = 100
	for first := 0; first < len(idle.fds); first += batch {
		if err := idle.exchangeOn(first, min(first+batch, len(idle.fds)), k); err != nil {
			return err
		}
	}
	return nil
}

func (idle *idleConns) exchangeOn(first, end int, k uint64) error {
	out, in := pattern(idle.size), make([]byte, idle.size)
	for i := first; i < end; i++ {
		stamp(out, i, k)
		for off := 0; off < len(out); {
			n, err := syscall.Write(idle.fds[i], out[off:])
			if err != nil {
				return fmt.Errorf("writing on idle connection %d: %w", i, err)
			}
			off += n
		}
	}
	for i := first; i < end; i++ {
		for off := 0; off < len(in); {
			n, err := syscall.Read(idle.fds[i], in[off:])
			if err != nil {
				return fmt.Errorf("reading from idle connection %d: %w", i, err)
			}
			if n == 0 {
				return fmt.Errorf("the server has closed idle connection %d", i)
			}
			off += n
		}
		if stamp(out, i, k); string(in) != string(out) {
			return fmt.Errorf("a wrong echo on idle connection %d", i)
		}
	}
	return nil
}

func (idle *idleConns) close() {
	for _, fd := range idle.fds {
		drop(fd)
	}
}
