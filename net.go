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

// A Conn is a net.Conn whose calls wait through a Context. Any number of tasks and
// goroutines may use it at once. The errors of the connections of this package are *net.OpError:
// they wrap net.ErrClosed after Close, os.ErrDeadlineExceeded after a deadline, and cx.Err() if
// cx is cancelled. The end is io.EOF, as it is.
//
// To limit one Read or Write use [Context.WithTimeout]; to limit all of them, SetDeadline.
//
// A type of your own may implement Conn by embedding one and overriding some methods: to
// count, to limit, to encrypt. All functions of this package that take a Conn then use these
// methods. The types of this package have more methods than Conn, which such a type should
// not promote unless it means to: so embed the interface, and not a *TCPConn. One of them is
// worth a method of the type: a connection that has PollReadable(cx *Context) error, as
// TCPConn has, needs no stack while it waits in [Serve].
type Conn interface {
	Reader
	Writer

	// Close closes the connection. Reads and writes return net.ErrClosed.
	Close() error

	LocalAddr() net.Addr
	RemoteAddr() net.Addr

	// SetDeadline, SetReadDeadline and SetWriteDeadline are those of
	// net.Conn: operations that are under way or begin after t fail with
	// os.ErrDeadlineExceeded; the zero time means never.
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// A PollConn is a Conn that can be polled, for plain futures. All connections of this package
// are PollConns:
//
//	c, err := ln.Accept(cx)
//	...
//	async.SpawnFuture(cx, &echo{conn: c.(async.PollConn)})
type PollConn interface {
	Conn
	PollReader
	PollWriter
}

// A Listener is a net.Listener that waits through a Context. Any number of tasks and
// goroutines may accept at once. Like Conn it may be implemented by embedding a Listener and
// overriding Accept.
type Listener interface {
	// Accept waits for the next connection. Cancelling it loses no connection. The
	// errors of the listeners of this package are *net.OpError, as those of a Conn.
	Accept(cx *Context) (Conn, error)

	// Close closes the listener. Accepts return net.ErrClosed.
	Close() error

	Addr() net.Addr
}

// Listen announces on a local address, as net.Listen does: networks "tcp",
// "tcp4", "tcp6", "unix" and "unixpacket". Names in the address are resolved
// by Go's resolver, off the worker. The error is a *net.OpError; it wraps cx.Err() if cx is
// cancelled while a name is looked up.
func Listen(cx *Context, network, address string) (Listener, error) {
	return new(ListenConfig).Listen(cx, network, address)
}

// ListenPacket opens a socket for messages on a local address, as
// net.ListenPacket does: networks "udp", "udp4", "udp6" and "unixgram". Its errors are those
// of Listen.
func ListenPacket(cx *Context, network, address string) (PacketConn, error) {
	return new(ListenConfig).ListenPacket(cx, network, address)
}

// Dial connects to an address, as net.Dial does: networks "tcp", "tcp4", "tcp6",
// "udp", "udp4", "udp6", "unix", "unixpacket" and "unixgram". An empty host, or a host
// that is 0.0.0.0 or ::, is this host. It is the Dial of the zero Dialer, and has its errors.
func Dial(cx *Context, network, address string) (Conn, error) {
	return new(Dialer).Dial(cx, network, address)
}

// DialFuture returns Dial as a future. An Await of it that is cancelled returns cx.Err() as it is.
func DialFuture(network, address string) Future[Conn] {
	return new(Dialer).DialFuture(network, address)
}

var errMissingAddress = errors.New("missing address")

// dialTarget is an address as a program has written it.
type dialTarget struct {
	net     *network
	op      string
	text    string
	host    string // to be looked up, if list is nil
	service string // the same; empty if port is known
	port    int
	list    []net.Addr
}

// parseDialTarget takes an address apart. An empty host is the wildcard address for
// a listener and this host for a dialler. It looks nothing up: names of hosts and
// of services may be in files, or elsewhere in the net.
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
		t.port, err = net.DefaultResolver.LookupPort(context.Background(), name, port) // it only checks a number
	}
	if err != nil {
		return t, t.wrap(err)
	}
	if ips := t.literal(); ips != nil && t.service == "" {
		return t, t.found(ips)
	}
	return t, nil
}

// isName reports whether the port of an address is not a number.
func isName(port string) bool {
	if port != "" && (port[0] == '+' || port[0] == '-') {
		port = port[1:]
	}
	return strings.Trim(port, "0123456789") != ""
}

// literal returns the host as an address, if it is not a name. The IP of an empty
// host is nil.
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

// lookup returns a future of the arguments for t.resolved.
func (t *dialTarget) lookup(r *Resolver) *lookupFuture[resolution] {
	t = &dialTarget{op: t.op, net: t.net, host: t.host, service: t.service, port: t.port} // the task goes on with its own
	return &lookupFuture[resolution]{f: func(ctx context.Context) (found resolution, err error) {
		if t.op == "dial" {
			ctx = withoutConnectHooks(ctx) // a connection to a name server is no attempt
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

// resolution is the result of the look-ups for a dialTarget.
type resolution struct {
	port int
	ips  []net.IPAddr
}

// resolved sets the addresses to those that have been looked up.
func (t *dialTarget) resolved(found resolution, err error) error {
	if err != nil {
		return t.wrap(err)
	}
	t.port = found.port
	return t.found(found.ips)
}

// found sets the addresses to those among ips that are the network's. It returns an
// error if there is none.
func (t *dialTarget) found(ips []net.IPAddr) error {
	if len(ips) == 1 && ips[0].IP.Equal(net.IPv6unspecified) {
		// As in package net: this host may be reachable by IPv4 alone, and a
		// listener on both families calls itself ::.
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

func (t *dialTarget) wrap(err error) error { return wrapOp(t.op, t.net, nil, nil, err) }

// resolveHost returns the address that a program wants to listen on. Of a name with
// several addresses it is an address of IPv4 if there is one, as in package net.
func resolveHost(cx *Context, network, address string) (*dialTarget, net.Addr, error) {
	cx.spendOrYield() // an address that is no name takes no waiting
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

// ipOf returns the IP of an address; nil if it has none.
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

// runLookup runs f in the pool of blocking calls and waits for it. If cx is
// cancelled it does not wait for f, which should return soon once its context
// is cancelled; its result is then dropped. The context of f has the values of cx.
func runLookup[T any](cx *Context, f func(ctx context.Context) (T, error)) (T, error) {
	return Await(cx, &lookupFuture[T]{f: f})
}

// lookupFuture is the future of runLookup.
type lookupFuture[T any] struct {
	f      func(ctx context.Context) (T, error)
	h      *JoinHandle[lookupAnswer[T]]
	cancel context.CancelFunc
}

// lookupAnswer is the result of f. To the blocking call, an error of f's is a result like
// others: it is not reported elsewhere if the caller has given up, whenever that was.
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
		o.cancel()
	}
	return a.v, err
}

// Cancel implements canceler.
func (o *lookupFuture[T]) Cancel() {
	if o.h != nil {
		o.cancel()
		o.h.Cancel()
	}
}
