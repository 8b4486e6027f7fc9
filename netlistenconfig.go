package async

import (
	"net"
	"syscall"
	"time"
)

// ListenConfig is how to listen; the zero value is how Listen and ListenPacket
// do. Its methods may be called by any number of tasks and goroutines.
//
// Errors are *net.OpError. It wraps a *net.DNSError if a name in the address is
// not found, and cx.Err() if cx is cancelled while a name is looked up.
type ListenConfig struct {
	// Control, if not nil, is called after the socket was made and before it is
	// bound, with the network (its family added: "tcp4") and the address. It runs
	// on the caller's worker and must not block. An error that it returns fails the
	// listen.
	Control func(network, address string, c syscall.RawConn) error

	// KeepAlive is after how long a silence accepted connections are probed. Zero
	// is 15 s; negative is never.
	KeepAlive time.Duration

	// Backlog is how many connections the system keeps that were not accepted
	// yet. Zero is as many as it will.
	Backlog int

	// ReusePort lets several sockets be bound to the same address. On Linux,
	// FreeBSD and DragonFly the system shares new connections and messages out
	// among them; see ListenEach.
	ReusePort bool

	// DeferAccept, if not zero, hands out a connection of TCP only once the
	// client has sent data, or after this time, in whole seconds, rounded
	// up. Linux alone has it; elsewhere Listen fails with
	// errors.ErrUnsupported.
	DeferAccept time.Duration
}

func (lc *ListenConfig) setup() *socketSetup {
	return &socketSetup{
		control: lc.Control, keepAlive: lc.KeepAlive, backlog: lc.Backlog,
		reusePort: lc.ReusePort, deferAccept: lc.DeferAccept,
	}
}

// Listen announces on a local address; see the function Listen. cx is used
// while the address is resolved.
func (lc *ListenConfig) Listen(cx *Context, network, address string) (Listener, error) {
	t, a, err := resolveHost(cx, network, address)
	if err != nil {
		return nil, err
	}
	return lc.listen(t, a)
}

func (lc *ListenConfig) listen(t *dialTarget, a net.Addr) (Listener, error) {
	switch t.net.proto {
	case "tcp":
		l, err := lc.setup().listenTCP(t.net.name, a.(*net.TCPAddr))
		if err != nil {
			return nil, err
		}
		return l, nil
	case "unix":
		l, err := lc.setup().listenUnix(t.net.name, a.(*net.UnixAddr))
		if err != nil {
			return nil, err
		}
		return l, nil
	}
	return nil, t.unexpected(a)
}

// unexpected returns the error for a network that does not know this way to listen.
func (t *dialTarget) unexpected(a net.Addr) error {
	return wrapOp(t.op, t.net, nil, a, &net.AddrError{Err: "unexpected address type", Addr: t.text})
}

// ListenEach announces on one address with n listeners, each with a queue of
// its own, among which the system shares out new connections: one listener for each
// worker, if n is the number of workers. So that accepting takes no time of other
// workers, accept from each listener in a task on a worker of its own (see
// Runtime.Workers), which hands connections to tasks of Local(cx). ListenEach sets
// ReusePort. If the address leaves the port open, all listeners get the same port.
// Networks are those of TCP.
func (lc *ListenConfig) ListenEach(cx *Context, network, address string, n int) (ls []Listener, err error) {
	each := *lc
	each.ReusePort = true
	defer func() {
		if err != nil {
			for _, l := range ls {
				l.Close()
			}
			ls = nil
		}
	}()
	t, a, err := resolveHost(cx, network, address)
	if err != nil {
		return nil, err
	}
	if t.net.proto != "tcp" {
		return nil, t.unexpected(a)
	}
	for range n {
		l, err := each.listen(t, a)
		if err != nil {
			return ls, err
		}
		ls = append(ls, l)
		a = &net.TCPAddr{IP: ipOf(a), Port: l.Addr().(*net.TCPAddr).Port, Zone: a.(*net.TCPAddr).Zone}
	}
	return ls, nil
}

// ListenPacket opens a socket for messages on a local address; see the
// function ListenPacket. cx is used while the address is resolved.
func (lc *ListenConfig) ListenPacket(cx *Context, network, address string) (PacketConn, error) {
	t, a, err := resolveHost(cx, network, address)
	if err != nil {
		return nil, err
	}
	switch t.net.proto {
	case "udp":
		c, err := lc.setup().listenUDP(network, a.(*net.UDPAddr))
		if err != nil {
			return nil, err
		}
		return c, nil
	case "unixgram":
		c, err := lc.setup().listenUnixgram(network, a.(*net.UnixAddr))
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	return nil, t.unexpected(a)
}
