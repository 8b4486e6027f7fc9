package async

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// A Conn is a net.Conn whose calls wait through a Context, and can be polled.
// Any number of tasks and goroutines may use it at once.
type Conn interface {
	Reader
	Writer

	// PollRead reads what is there, without waiting.
	PollRead(cx *Context, p []byte) (n int, err error)

	// PollWrite writes as much of p as it can, without waiting; n may be less
	// than len(p) without an error.
	PollWrite(cx *Context, p []byte) (n int, err error)

	// Close closes the connection. Whoever reads or writes gets net.ErrClosed.
	Close() error

	LocalAddr() net.Addr
	RemoteAddr() net.Addr

	// SetDeadline, SetReadDeadline and SetWriteDeadline are those of
	// net.Conn: operations that are under way or begin after t fail with
	// os.ErrDeadlineExceeded; the zero time means never.
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error

	// WithContext returns the connection as a net.Conn whose calls wait
	// through cx. It may be used where cx may be used.
	WithContext(cx *Context) net.Conn
}

// A Listener is a net.Listener that waits through a Context, and can be
// polled. Any number of tasks and goroutines may accept at once.
type Listener interface {
	// Accept waits for the next connection.
	Accept(cx *Context) (Conn, error)

	// PollAccept returns the next connection, without waiting.
	PollAccept(cx *Context) (Conn, error)

	// Close closes the listener. Whoever accepts gets net.ErrClosed.
	Close() error

	Addr() net.Addr

	// Incoming returns the stream of connections.
	Incoming() *Incoming
}

// Listen announces on a local address, as net.Listen does: networks "tcp",
// "tcp4" and "tcp6". Names in the address are resolved by Go's resolver, off
// the worker.
func Listen(cx *Context, network, address string) (Listener, error) {
	laddr, err := resolveOne(cx, "listen", network, address)
	if err != nil {
		return nil, err
	}
	ln, err := ListenTCP(network, laddr)
	if err != nil {
		return nil, err
	}
	return ln, nil
}

// Dial connects to an address, as net.Dial does: networks "tcp", "tcp4" and
// "tcp6". Names are resolved by Go's resolver, off the worker, and their
// addresses tried in turn. The deadline and the cancellation of cx end it;
// nothing is left open then.
func Dial(cx *Context, network, address string) (Conn, error) {
	addrs, err := resolve(cx, "dial", network, address)
	if err != nil {
		return nil, err
	}
	var first error
	for _, a := range addrs {
		c, err := DialTCP(cx, network, nil, a)
		if err == nil {
			return c, nil
		}
		if cx.ended() {
			return nil, err
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// resolveOne is resolve for a listener, which prefers IPv4 as package net does.
func resolveOne(cx *Context, op, network, address string) (*net.TCPAddr, error) {
	addrs, err := resolve(cx, op, network, address)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if a.IP.To4() != nil {
			return a, nil
		}
	}
	return addrs[0], nil
}

// resolve returns the addresses that a host and port stand for; at least one,
// or an error. An empty host is the wildcard address for a listener and this
// host for a dialler.
func resolve(cx *Context, op, network, address string) ([]*net.TCPAddr, error) {
	fail := func(err error) ([]*net.TCPAddr, error) {
		return nil, &net.OpError{Op: op, Net: network, Err: err}
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return fail(net.UnknownNetworkError(network))
	}
	if address == "" {
		if op == "dial" {
			return fail(errMissingAddress)
		}
		return []*net.TCPAddr{{}}, nil
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return fail(err)
	}
	port, err := net.DefaultResolver.LookupPort(cx, network, service) // numbers and well-known names: no query
	if err != nil {
		return fail(err)
	}
	if host == "" {
		return []*net.TCPAddr{{Port: port}}, nil
	}
	ips, err := lookup(cx, host)
	if err != nil {
		return fail(err)
	}
	var addrs []*net.TCPAddr
	for _, ip := range ips {
		if v4 := ip.IP.To4() != nil; network == "tcp" || v4 == (network == "tcp4") {
			addrs = append(addrs, &net.TCPAddr{IP: ip.IP, Port: port, Zone: ip.Zone})
		}
	}
	if len(addrs) == 0 {
		return fail(&net.AddrError{Err: "no suitable address found", Addr: host})
	}
	return addrs, nil
}

var errMissingAddress = errors.New("missing address")

// lookup resolves a host name on a goroutine, unless it is an address.
func lookup(cx *Context, host string) ([]net.IPAddr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []net.IPAddr{{IP: a.AsSlice(), Zone: a.Zone()}}, nil
	}
	return offload(cx, func(ctx context.Context) ([]net.IPAddr, error) {
		return net.DefaultResolver.LookupIPAddr(ctx, host)
	})
}

// offload runs f in the pool of blocking calls and waits for it. If cx is
// cancelled it does not wait for f, which should return soon once its context
// is cancelled; its result is then dropped.
func offload[T any](cx *Context, f func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return Await(cx, SpawnBlocking(cx, func() (T, error) {
		v, err := f(ctx)
		if err != nil && ctx.Err() != nil {
			err = ctx.Err() // nobody waits, and nothing has failed
		}
		return v, err
	}))
}
