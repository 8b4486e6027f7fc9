package async

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Conn is a connection like a [net.Conn], except that its calls wait through a [Context]. Any
// number of tasks and goroutines may use it at the same time. To use it with code that takes a
// net.Conn, see [BindConn] and, for goroutines outside the pool, [NetConn].
//
// To limit one Read or Write use [Context.WithTimeout]. To limit all of them use SetDeadline.
//
// The errors of the connections of this package are [*net.OpError]. They wrap
//
//   - [net.ErrClosed] after Close,
//   - [os.ErrDeadlineExceeded] after a deadline,
//   - cx.Err() if cx is cancelled. A Read that is cancelled loses no data. A Write that is
//     cancelled returns how many bytes it has written.
//
// The end of the data is [io.EOF], which is not wrapped.
//
// A type outside this package may implement Conn: to count, to limit or to encrypt, for example.
// Embed a Conn in the type and override the methods that change. All functions of this package that
// take a Conn then call these methods. Embed the interface and not a [*TCPConn]: the types of this
// package have more methods than Conn, and the new type would promote all of them. One of these
// methods is worth having: if the new type has a method PollReadable(cx *Context) error, as TCPConn
// has, a connection needs no stack while it waits in [Serve].
type Conn interface {
	Reader
	Writer

	// Close closes the connection. Reads and Writes that wait, and later ones, fail with
	// [net.ErrClosed].
	Close() error

	// LocalAddr returns the address of this end of the connection.
	LocalAddr() net.Addr

	// RemoteAddr returns the address of the peer.
	RemoteAddr() net.Addr

	// SetDeadline is SetReadDeadline and SetWriteDeadline with the same t. It fails with
	// [net.ErrClosed] after Close, as they do.
	SetDeadline(t time.Time) error

	// SetReadDeadline sets the time after which Reads fail with [os.ErrDeadlineExceeded]. It also
	// applies to Reads that wait now. The zero time means no deadline.
	SetReadDeadline(t time.Time) error

	// SetWriteDeadline sets the time after which Writes fail with [os.ErrDeadlineExceeded]. Such a
	// Write may have written part of the data; it returns how much. The zero time means no
	// deadline.
	SetWriteDeadline(t time.Time) error
}

// A PollConn is a [Conn] that can also be polled, in the Poll of a plain [Future]. All connections
// of this package are PollConns:
//
//	c, err := ln.Accept(cx)
//	...
//	async.SpawnFuture(cx, &echo{conn: c.(async.PollConn)})
type PollConn interface {
	Conn
	PollReader
	PollWriter
}

// A Listener is like a [net.Listener], except that Accept waits through a [Context]. Any number of
// tasks and goroutines may accept at the same time. To serve the connections use [Serve], or range
// over [Incoming]. [NetListener] makes a net.Listener of it.
//
// A type outside this package may implement Listener by embedding one and overriding Accept.
type Listener interface {
	// Accept waits for the next connection and returns it. Cancelling an Accept loses no
	// connection: the next Accept returns it. The errors of the listeners of this package are
	// [*net.OpError]. They wrap [net.ErrClosed] after Close, cx.Err() if cx is cancelled, and
	// [ErrShutdown] once [Runtime.Shutdown] has begun.
	Accept(cx *Context) (Conn, error)

	// Close closes the listener. Accepts that wait, and later ones, fail with [net.ErrClosed].
	// Connections that were accepted stay open.
	Close() error

	// Addr returns the address on which the listener listens.
	Addr() net.Addr
}

// Listen returns a listener on a local address, like [net.Listen]. The network is "tcp", "tcp4",
// "tcp6", "unix" or "unixpacket". Port 0 lets the system choose a port, which [Listener.Addr]
// returns.
//
// Listen waits only if the address contains a name: [DefaultResolver] then looks it up, off the
// worker. The error is a [*net.OpError]. It wraps a [*net.DNSError] if the look-up fails, and
// cx.Err() if cx is cancelled during the look-up. For options use [ListenConfig].
func Listen(cx *Context, network, address string) (Listener, error) {
	return new(ListenConfig).Listen(cx, network, address)
}

// ListenPacket returns a socket for messages on a local address, like [net.ListenPacket]. The
// network is "udp", "udp4", "udp6" or "unixgram". It waits, fails and is cancelled as [Listen] is.
func ListenPacket(cx *Context, network, address string) (PacketConn, error) {
	return new(ListenConfig).ListenPacket(cx, network, address)
}

// Dial connects to an address, like [net.Dial], and returns the connection. The network is "tcp",
// "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixpacket" or "unixgram". If the host is empty,
// 0.0.0.0 or ::, Dial connects to this host.
//
// Dial is [Dialer.Dial] of the zero [Dialer]. It has the same errors, and cancelling it leaves no
// connection open. To limit its time use [Context.WithTimeout], or a Dialer with a Timeout.
func Dial(cx *Context, network, address string) (Conn, error) {
	return new(Dialer).Dial(cx, network, address)
}

// DialFuture returns the future of [Dial]: the same result and errors. One error differs: an
// [Await] of the future that is cancelled returns cx.Err(), not wrapped. Giving the future up
// before it is ready leaves no connection open.
func DialFuture(network, address string) Future[Conn] {
	return new(Dialer).DialFuture(network, address)
}

var errMissingAddress = errors.New("missing address")

// dialTarget is the address that a program has passed to a dial or a listen, in these steps:
//
//  1. parseDialTarget splits the address. It sets list if there is no name to look up.
//  2. Otherwise list is nil. The caller polls or awaits the future that lookup returns.
//  3. resolved takes the result of that future, and sets list.
//
// After that list is not nil, and has at least one address.
type dialTarget struct {
	net     *network
	op      string // "dial" or "listen"
	text    string // the address as the program has written it
	host    string // a name, an IP address, or empty
	service string // the port as a name, to be looked up; empty if port is set
	port    int
	list    []net.Addr // in the order in which a dial tries them
}

// parseDialTarget splits an address. An empty host means the wildcard address for a listener, and
// this host for a dial. parseDialTarget looks no name up, since that may take long: names of hosts
// and services may be in files or on a name server.
func parseDialTarget(op, name, address string) (t dialTarget, err error) {
	t = dialTarget{op: op, text: address}
	if t.net, err = networkOf(name, "tcp", "udp", "unix", "unixgram"); err != nil {
		t.net = unnamed(name)
		return t, t.wrap(err)
	}
	switch {
	case address == "" && op == "dial":
		return t, t.wrap(errMissingAddress)
	case t.net.family == unix.AF_UNIX:
		t.list = []net.Addr{&net.UnixAddr{Name: address, Net: name}}
		return t, nil
	case address == "":
		t.list = []net.Addr{t.net.ipAddr(nil, 0, "")}
		return t, nil
	}
	host, port, err := net.SplitHostPort(address)
	t.host = host
	if isName(port) {
		t.service = port
	} else if err == nil {
		// For a number, LookupPort only checks the range; it does not wait.
		t.port, err = net.DefaultResolver.LookupPort(context.Background(), name, port)
	}
	if err != nil {
		return t, t.wrap(err)
	}
	if ips := t.literal(); ips != nil && t.service == "" {
		return t, t.found(ips)
	}
	return t, nil
}

// isName reports whether the port of an address is the name of a service. As in package net, a
// number may have a sign, and an empty port is the number 0.
func isName(port string) bool {
	if port != "" && (port[0] == '+' || port[0] == '-') {
		port = port[1:]
	}
	return strings.Trim(port, "0123456789") != ""
}

// literal returns the host as an address, or nil if the host is a name. For an empty host it
// returns an address whose IP is nil.
func (t *dialTarget) literal() []net.IPAddr {
	if t.host == "" {
		return []net.IPAddr{{}}
	}
	ip, err := netip.ParseAddr(t.host)
	if err != nil {
		return nil
	}
	return []net.IPAddr{{IP: ip.AsSlice(), Zone: ip.Zone()}}
}

// lookup returns a future of the arguments of t.resolved. A nil r is DefaultResolver.
func (t *dialTarget) lookup(r *Resolver) *lookupFuture[resolution] {
	// The look-up reads a copy, because it may still run after the task has given it up.
	t = &dialTarget{op: t.op, net: t.net, host: t.host, service: t.service, port: t.port}
	return &lookupFuture[resolution]{f: func(ctx context.Context) (found resolution, err error) {
		if t.op == "dial" {
			// A connection to a name server is not an attempt of this dial.
			ctx = withoutConnectHooks(ctx)
		}
		found = resolution{t.port, t.literal()}
		if t.service != "" {
			found.port, err = r.resolver().LookupPort(ctx, t.net.name, t.service)
		}
		if err == nil && found.ips == nil {
			found.ips, err = r.lookupFamily(ctx, t.net.family, t.host)
		}
		return found, err
	}}
}

// resolution is the result of the look-ups of a dialTarget.
type resolution struct {
	port int
	ips  []net.IPAddr
}

// resolved sets port and list to the result of the look-ups.
func (t *dialTarget) resolved(found resolution, err error) error {
	if err != nil {
		return t.wrap(err)
	}
	t.port = found.port
	return t.found(found.ips)
}

// found sets list to the addresses among ips that belong to the network. It returns an error if
// there is no such address.
func (t *dialTarget) found(ips []net.IPAddr) error {
	if len(ips) == 1 && ips[0].IP.Equal(net.IPv6unspecified) {
		// As in package net, a dial to :: then also tries 0.0.0.0. A listener on both families has
		// the address ::, and this host may be reachable by IPv4 alone.
		ips = []net.IPAddr{ips[0], {IP: net.IPv4zero}}
	}
	for _, ip := range ips {
		family := unix.AF_INET6
		if ip.IP.To4() != nil {
			family = unix.AF_INET
		}
		if len(ip.IP) == 0 || t.net.family == 0 || t.net.family == family {
			t.list = append(t.list, t.net.ipAddr(ip.IP, t.port, ip.Zone))
		}
	}
	if len(t.list) == 0 {
		host, _, _ := net.SplitHostPort(t.text)
		return t.wrap(&net.AddrError{Err: "no suitable address found", Addr: host})
	}
	return nil
}

// wrap returns err as a [*net.OpError] that names no address.
func (t *dialTarget) wrap(err error) error { return wrapOp(t.op, t.net, nil, nil, err) }

// resolveHost returns the address on which a program wants to listen. If a name has several
// addresses, resolveHost prefers an address of IPv4, as package net does.
func resolveHost(cx *Context, network, address string) (*dialTarget, net.Addr, error) {
	// An address without a name needs no wait, so other tasks get their turn here.
	cx.spendOrYield()
	t, err := parseDialTarget("listen", network, address)
	if err != nil {
		return nil, nil, err
	}
	if t.list == nil {
		if err := t.resolved(Await(cx, t.lookup(nil))); err != nil {
			return nil, nil, err
		}
	}
	for _, a := range t.list {
		if isIPv4(a) {
			return &t, a, nil
		}
	}
	return &t, t.list[0], nil
}

// ipOf returns the IP of an address, or nil if the address has none.
func ipOf(a net.Addr) net.IP {
	switch a := a.(type) {
	case *net.TCPAddr:
		if a != nil {
			return a.IP
		}
	case *net.UDPAddr:
		if a != nil {
			return a.IP
		}
	}
	return nil
}

func isIPv4(a net.Addr) bool { return ipOf(a).To4() != nil }

// runLookup runs f in the pool of blocking calls, and waits for its result. The ctx of f has the
// values of cx. If cx is cancelled, runLookup cancels ctx and returns cx.Err() without waiting for
// f. f should return soon after that; its result is dropped.
func runLookup[T any](cx *Context, f func(ctx context.Context) (T, error)) (T, error) {
	return Await(cx, &lookupFuture[T]{f: f})
}

// lookupFuture is the future of runLookup. Its first poll submits the call.
type lookupFuture[T any] struct {
	f      func(ctx context.Context) (T, error)
	h      *JoinHandle[lookupAnswer[T]] // nil before the first poll
	cancel context.CancelFunc           // ends the ctx of f
}

// lookupAnswer is the result of f. An error of f is part of it, so the blocking call never fails. A
// call that fails after its caller has given it up is reported to Config.Unhandled. The failure of
// a look-up that was given up must not be reported.
type lookupAnswer[T any] struct {
	v   T
	err error
}

func (o *lookupFuture[T]) Poll(cx *Context) (T, error) {
	if o.h == nil {
		ctx, cancel := context.WithCancel(cx.values())
		f := o.f
		o.cancel = cancel
		o.h = spawnCall(cx, func() (lookupAnswer[T], error) {
			v, err := f(ctx)
			return lookupAnswer[T]{v, err}, nil
		}, false)
	}
	a, err := o.h.Poll(cx)
	if err == nil {
		err = a.err
	}
	if err != ErrPending {
		o.cancel() // the call has ended; this releases ctx
	}
	return a.v, err
}

// Cancel implements canceler. The call is not run if it has not begun; otherwise the end of ctx
// makes f return.
func (o *lookupFuture[T]) Cancel() {
	if o.h != nil {
		o.cancel()
		o.h.Cancel()
	}
}
