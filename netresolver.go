package async

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A Resolver looks up names, as net.Resolver does: it asks a net.Resolver, on a goroutine
// of the runtime's blocking pool, and the caller waits through its Context.
// Cancelling a look-up ends the wait; results that it has found are dropped. The
// zero value is like DefaultResolver. It must not be copied after its first
// use; any number of tasks and goroutines may use it at once.
//
// Errors are those of net.Resolver: *net.DNSError, which wraps cx.Err() if cx is cancelled;
// a net.UnknownNetworkError of LookupIP and LookupNetIP, and a *net.AddrError of LookupPort
// for a number that is not a port, or for an unknown network.
//
// If Go's own resolver is used (see package net), a look-up that was cancelled
// no longer waits for its server. A look-up of the C library goes on to its end,
// and Runtime.Shutdown waits for it.
//
// A look-up has the values of the context that the caller's task is Under: the ctx
// of Dial has them, and the hooks DNSStart and DNSDone of net/http/httptrace are
// called, on a goroutine outside the workers. If the look-up is cancelled, DNSDone
// may be called after it has returned.
type Resolver struct {
	// PreferGo, StrictErrors and Dial are those of net.Resolver. Dial is called
	// on a goroutine outside the workers, where it may block. The connection that it
	// returns is closed when the look-up ends.
	PreferGo     bool
	StrictErrors bool
	Dial         func(ctx context.Context, network, address string) (net.Conn, error)

	once sync.Once
	std  *net.Resolver
}

// DefaultResolver is the Resolver of the functions of this package that look up
// names.
var DefaultResolver = &Resolver{}

// resolver returns the net.Resolver that does the work.
func (r *Resolver) resolver() *net.Resolver {
	if r == nil {
		r = DefaultResolver
	}
	r.once.Do(func() {
		r.std = &net.Resolver{PreferGo: r.PreferGo, StrictErrors: r.StrictErrors, Dial: r.dial}
	})
	return r.std
}

// lookupFamily returns the addresses of a host. If the family is AF_INET or
// AF_INET6, name servers are asked for addresses of that family only; if it is 0,
// for both.
func (r *Resolver) lookupFamily(ctx context.Context, family int, host string) ([]net.IPAddr, error) {
	all := func() ([]net.IPAddr, error) { return r.resolver().LookupIPAddr(ctx, host) }
	network := "ip4"
	switch family {
	case 0:
		return all()
	case unix.AF_INET6:
		network = "ip6"
	}
	ips, err := r.resolver().LookupIP(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return zoned(ips, all), nil
}

// zoned returns addresses of one family with their zones. Package net returns zones
// only in a look-up of both families, which all is, so that one is made if there is a
// link-local address. Such addresses come from files and from multicast DNS, hardly
// ever from a name server.
func zoned(ips []net.IP, all func() ([]net.IPAddr, error)) []net.IPAddr {
	needsZone := func(ip net.IP) bool { return ip.To4() == nil && ip.IsLinkLocalUnicast() }
	if slices.ContainsFunc(ips, needsZone) {
		if found, err := all(); err == nil {
			return found // the caller leaves out the other family
		}
	}
	addrs := make([]net.IPAddr, len(ips))
	for i, ip := range ips {
		addrs[i].IP = ip
	}
	return addrs
}

// dial connects to a server. It closes the connection at the end of ctx, for which
// package net does not look while it waits for an answer.
func (r *Resolver) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dial := r.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	c, err := dial(ctx, network, address)
	if err == nil {
		context.AfterFunc(ctx, func() { c.Close() })
	}
	return c, err
}

// lookUp runs f, which looks up name, as runLookup does. If cx is cancelled, the error is a
// *net.DNSError that wraps cx.Err(), as that of net.Resolver wraps the error of its context.
func lookUp[T any](cx *Context, name string, f func(ctx context.Context) (T, error)) (T, error) {
	v, err := runLookup(cx, f)
	if err != nil && err == cx.Err() {
		err = &net.DNSError{UnwrapErr: err, Err: err.Error(), Name: name, IsTimeout: err == context.DeadlineExceeded}
	}
	return v, err
}

// LookupHost returns the addresses of a host.
func (r *Resolver) LookupHost(cx *Context, host string) (addrs []string, err error) {
	return lookUp(cx, host, func(ctx context.Context) ([]string, error) { return r.resolver().LookupHost(ctx, host) })
}

// LookupIPAddr returns the addresses of a host, in the order in which to try them.
func (r *Resolver) LookupIPAddr(cx *Context, host string) ([]net.IPAddr, error) {
	return lookUp(cx, host, func(ctx context.Context) ([]net.IPAddr, error) { return r.resolver().LookupIPAddr(ctx, host) })
}

// LookupIP returns the addresses of a host of one network: "ip", "ip4" or
// "ip6".
func (r *Resolver) LookupIP(cx *Context, network, host string) ([]net.IP, error) {
	return lookUp(cx, host, func(ctx context.Context) ([]net.IP, error) { return r.resolver().LookupIP(ctx, network, host) })
}

// LookupNetIP is LookupIP with results of type netip.Addr.
func (r *Resolver) LookupNetIP(cx *Context, network, host string) ([]netip.Addr, error) {
	return lookUp(cx, host, func(ctx context.Context) ([]netip.Addr, error) {
		return r.resolver().LookupNetIP(ctx, network, host)
	})
}

// LookupPort returns the port of a service: of "https" for "tcp", for example.
// It looks into a file the first time, and asks no server.
func (r *Resolver) LookupPort(cx *Context, network, service string) (port int, err error) {
	return lookUp(cx, network+"/"+service, func(ctx context.Context) (int, error) {
		return r.resolver().LookupPort(ctx, network, service)
	})
}

// LookupAddr returns the names of an address.
func (r *Resolver) LookupAddr(cx *Context, addr string) (names []string, err error) {
	return lookUp(cx, addr, func(ctx context.Context) ([]string, error) { return r.resolver().LookupAddr(ctx, addr) })
}

// LookupCNAME returns the canonical name of a host.
func (r *Resolver) LookupCNAME(cx *Context, host string) (cname string, err error) {
	return lookUp(cx, host, func(ctx context.Context) (string, error) { return r.resolver().LookupCNAME(ctx, host) })
}

// LookupMX returns a domain's mail servers, in order of preference. As with
// net.Resolver, there may be results together with an error.
func (r *Resolver) LookupMX(cx *Context, name string) ([]*net.MX, error) {
	return lookUp(cx, name, func(ctx context.Context) ([]*net.MX, error) { return r.resolver().LookupMX(ctx, name) })
}

// LookupNS returns a domain's name servers; see LookupMX for errors.
func (r *Resolver) LookupNS(cx *Context, name string) ([]*net.NS, error) {
	return lookUp(cx, name, func(ctx context.Context) ([]*net.NS, error) { return r.resolver().LookupNS(ctx, name) })
}

// LookupTXT returns a domain's texts.
func (r *Resolver) LookupTXT(cx *Context, name string) ([]string, error) {
	return lookUp(cx, name, func(ctx context.Context) ([]string, error) { return r.resolver().LookupTXT(ctx, name) })
}

// LookupSRV returns the servers of a service, in the order in which to try
// them; see LookupMX for errors.
func (r *Resolver) LookupSRV(cx *Context, service, proto, name string) (cname string, addrs []*net.SRV, err error) {
	type found struct {
		cname string
		addrs []*net.SRV
	}
	target := name
	if service != "" || proto != "" {
		target = "_" + service + "._" + proto + "." + name
	}
	f, err := lookUp(cx, target, func(ctx context.Context) (f found, err error) {
		f.cname, f.addrs, err = r.resolver().LookupSRV(ctx, service, proto, name)
		return f, err
	})
	return f.cname, f.addrs, err
}

// LookupHost is DefaultResolver.LookupHost. The error is a *net.DNSError; it wraps
// cx.Err() if cx is cancelled.
func LookupHost(cx *Context, host string) (addrs []string, err error) {
	return DefaultResolver.LookupHost(cx, host)
}

// LookupIP returns the addresses of a host. The error is a *net.DNSError; it wraps
// cx.Err() if cx is cancelled.
func LookupIP(cx *Context, host string) ([]net.IP, error) {
	return DefaultResolver.LookupIP(cx, "ip", host)
}

// LookupPort is DefaultResolver.LookupPort. The error is a *net.DNSError, which wraps
// cx.Err() if cx is cancelled, or a *net.AddrError for a number that is not a port, or for
// an unknown network.
func LookupPort(cx *Context, network, service string) (port int, err error) {
	return DefaultResolver.LookupPort(cx, network, service)
}

// LookupAddr is DefaultResolver.LookupAddr. The error is a *net.DNSError; it wraps
// cx.Err() if cx is cancelled.
func LookupAddr(cx *Context, addr string) (names []string, err error) {
	return DefaultResolver.LookupAddr(cx, addr)
}

// LookupCNAME is DefaultResolver.LookupCNAME. The error is a *net.DNSError; it wraps
// cx.Err() if cx is cancelled.
func LookupCNAME(cx *Context, host string) (cname string, err error) {
	return DefaultResolver.LookupCNAME(cx, host)
}

// LookupMX is DefaultResolver.LookupMX. The error is a *net.DNSError; it wraps cx.Err()
// if cx is cancelled.
func LookupMX(cx *Context, name string) ([]*net.MX, error) {
	return DefaultResolver.LookupMX(cx, name)
}

// LookupNS is DefaultResolver.LookupNS. The error is a *net.DNSError; it wraps cx.Err()
// if cx is cancelled.
func LookupNS(cx *Context, name string) ([]*net.NS, error) {
	return DefaultResolver.LookupNS(cx, name)
}

// LookupTXT is DefaultResolver.LookupTXT. The error is a *net.DNSError; it wraps cx.Err()
// if cx is cancelled.
func LookupTXT(cx *Context, name string) ([]string, error) {
	return DefaultResolver.LookupTXT(cx, name)
}

// LookupSRV is DefaultResolver.LookupSRV. The error is a *net.DNSError; it wraps cx.Err()
// if cx is cancelled.
func LookupSRV(cx *Context, service, proto, name string) (cname string, addrs []*net.SRV, err error) {
	return DefaultResolver.LookupSRV(cx, service, proto, name)
}
