package async

import (
	"net"
	"syscall"
	"time"
)

// A ListenConfig says how to listen. The zero value listens as [Listen] and [ListenPacket] do. Any
// number of tasks and goroutines may call its methods at the same time.
//
// The methods wait only if the address contains a name: [DefaultResolver] then looks it up, off the
// worker. Errors are [*net.OpError]. They wrap a [*net.DNSError] if the look-up fails, and cx.Err()
// if cx is cancelled during the look-up. No socket is open then.
type ListenConfig struct {
	// Control, if not nil, is called after the socket is made and before it is bound. Its arguments
	// are the network with its family, for example "tcp4", and the address. It runs on the worker
	// of the caller and must not block. If it returns an error, the method fails, and its error
	// wraps this error.
	Control func(network, address string, c syscall.RawConn) error

	// KeepAlive is how long an accepted TCP connection is silent before the system probes it. 0
	// means 15 s. If it is negative, the system does not probe.
	KeepAlive time.Duration

	// Backlog is how many connections that are not accepted yet the system keeps. 0 means the limit
	// of the system.
	Backlog int

	// ReusePort lets several sockets be bound to the same address. On Linux, FreeBSD and DragonFly
	// the system distributes new connections and messages among them; see
	// [ListenConfig.ListenEach].
	ReusePort bool

	// DeferAccept, if not zero, delays Accept of a TCP connection until the client has sent data,
	// or until this time has passed. The system takes whole seconds; the time is rounded up. On
	// systems other than Linux, Listen then fails with [errors.ErrUnsupported].
	DeferAccept time.Duration
}

// setup returns the settings of lc for a socket.
func (lc *ListenConfig) setup() *socketSetup {
	return &socketSetup{
		control: lc.Control, keepAlive: lc.KeepAlive, backlog: lc.Backlog,
		reusePort: lc.ReusePort, deferAccept: lc.DeferAccept,
	}
}

// Listen returns a listener on a local address. For the networks see the function [Listen], for
// errors and cancelling see [ListenConfig].
func (lc *ListenConfig) Listen(cx *Context, network, address string) (Listener, error) {
	t, a, err := resolveHost(cx, network, address)
	if err != nil {
		return nil, err
	}
	return lc.listen(t, a)
}

// listen opens a listener on a, without waiting. On failure it returns a nil interface, and not a
// nil pointer in one.
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

// unexpected returns the error for a network on which the method cannot listen.
func (t *dialTarget) unexpected(a net.Addr) error {
	return wrapOp(t.op, t.net, nil, a, &net.AddrError{Err: "unexpected address type", Addr: t.text})
}

// ListenEach returns n listeners on one address. Each has a queue of its own, and the system
// distributes new connections among them. ListenEach sets ReusePort. The network is "tcp", "tcp4"
// or "tcp6". If the port is 0, all listeners have the same port. If one of them cannot be opened,
// ListenEach closes the others and returns the error. For errors and cancelling see [ListenConfig].
//
// It is for one listener per worker. A task on each worker (see [Runtime.Workers]) accepts from one
// listener, and serves the connections in tasks of Local(cx). Then no connection and no accept
// takes the time of another worker.
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

// ListenPacket returns a socket for messages on a local address. For the networks see the function
// [ListenPacket], for errors and cancelling see [ListenConfig].
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
