package async

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A Resolver looks up names, like [net.Resolver], except that its calls wait through a [Context].
// The zero value is like [DefaultResolver]. Any number of tasks and goroutines may use a Resolver
// at the same time. It must not be copied after its first use.
//
// A look-up calls the net.Resolver on a goroutine of the pool of blocking calls. Cancelling the
// look-up ends the wait at once, and its result is dropped. If Go's own resolver is used (see
// package net), it then also stops waiting for its server. A look-up of the C library goes on to
// its end, and [Runtime.Shutdown] waits for it.
//
// The errors of all methods are the errors of net.Resolver:
//
//   - A [*net.DNSError], which wraps cx.Err() if cx is cancelled.
//   - A [net.UnknownNetworkError] of [Resolver.LookupIP] and [Resolver.LookupNetIP].
//   - A [*net.AddrError] of [Resolver.LookupPort], for a number that is not a port and for an
//     unknown network.
//
// A look-up has the values of the context that the task of the caller is under (see
// [Spawner.Under]). So Dial gets them in its ctx, and the hooks DNSStart and DNSDone of
// [net/http/httptrace] are called, on a goroutine outside the workers. If the look-up is cancelled,
// DNSDone may be called after the look-up has returned.
type Resolver struct {
	// PreferGo, StrictErrors and Dial are the fields of [net.Resolver]. Dial is called on a
	// goroutine outside the workers, where it may block. The connection that it returns is closed
	// when the look-up ends.
	PreferGo     bool
	StrictErrors bool
	Dial         func(ctx context.Context, network, address string) (net.Conn, error)

	once sync.Once
	std  *net.Resolver
}

// DefaultResolver is the [Resolver] of the functions of this package that look up names.
var DefaultResolver = &Resolver{}

// resolver returns the net.Resolver that does the work. A nil r is DefaultResolver.
func (r *Resolver) resolver() *net.Resolver {
	if r == nil {
		r = DefaultResolver
	}
	r.once.Do(func() {
		r.std = &net.Resolver{PreferGo: r.PreferGo, StrictErrors: r.StrictErrors, Dial: r.dial}
	})
	return r.std
}

// lookupFamily returns the addresses of a host. If family is AF_INET or AF_INET6, it asks name
// servers only for addresses of this family. If family is 0, it asks for both.
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

// zoned returns the addresses ips, which are of one family, with their zones. Package net returns
// zones only from a look-up of both families, which all is. So zoned calls all if there is a
// link-local address of IPv6. Such addresses come from files and from multicast DNS, and hardly
// ever from a name server, so the second look-up is rare.
func zoned(ips []net.IP, all func() ([]net.IPAddr, error)) []net.IPAddr {
	needsZone := func(ip net.IP) bool { return ip.To4() == nil && ip.IsLinkLocalUnicast() }
	if slices.ContainsFunc(ips, needsZone) {
		if found, err := all(); err == nil {
			return found // the caller drops the addresses of the other family
		}
	}
	addrs := make([]net.IPAddr, len(ips))
	for i, ip := range ips {
		addrs[i].IP = ip
	}
	return addrs
}

// dial connects to a name server. It closes the connection at the end of ctx, because package net
// does not notice this end while it waits for an answer.
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
// *net.DNSError that wraps cx.Err(), as package net wraps the error of its context.
func lookUp[T any](cx *Context, name string, f func(ctx context.Context) (T, error)) (T, error) {
	v, err := runLookup(cx, f)
	if err != nil && err == cx.Err() {
		err = &net.DNSError{UnwrapErr: err, Err: err.Error(), Name: name, IsTimeout: err == context.DeadlineExceeded}
	}
	return v, err
}

// LookupHost returns the addresses of a host. For errors and cancelling see [Resolver]. The
// function [LookupHost] is this method of [DefaultResolver].
func (r *Resolver) LookupHost(cx *Context, host string) (addrs []string, err error) {
	return lookUp(cx, host, func(ctx context.Context) ([]string, error) { return r.resolver().LookupHost(ctx, host) })
}

// LookupIPAddr returns the addresses of a host, in the order in which to try them. For errors and
// cancelling see [Resolver].
func (r *Resolver) LookupIPAddr(cx *Context, host string) ([]net.IPAddr, error) {
	return lookUp(cx, host, func(ctx context.Context) ([]net.IPAddr, error) { return r.resolver().LookupIPAddr(ctx, host) })
}

// LookupIP returns the addresses of a host. The network is "ip4" or "ip6" for addresses of one
// family, and "ip" for both. For errors and cancelling see [Resolver]. The function [LookupIP] is
// this method of [DefaultResolver] with "ip".
func (r *Resolver) LookupIP(cx *Context, network, host string) ([]net.IP, error) {
	return lookUp(cx, host, func(ctx context.Context) ([]net.IP, error) { return r.resolver().LookupIP(ctx, network, host) })
}

// LookupNetIP is [Resolver.LookupIP] with results of type [net/netip.Addr].
func (r *Resolver) LookupNetIP(cx *Context, network, host string) ([]netip.Addr, error) {
	return lookUp(cx, host, func(ctx context.Context) ([]netip.Addr, error) {
		return r.resolver().LookupNetIP(ctx, network, host)
	})
}

// LookupPort returns the port of a service: 443 for "https" of "tcp", for example. It asks no
// server; the first call may read a file. For errors and cancelling see [Resolver]. The function
// [LookupPort] is this method of [DefaultResolver].
func (r *Resolver) LookupPort(cx *Context, network, service string) (port int, err error) {
	return lookUp(cx, network+"/"+service, func(ctx context.Context) (int, error) {
		return r.resolver().LookupPort(ctx, network, service)
	})
}

// LookupAddr returns the names of an address. For errors and cancelling see [Resolver]. The
// function [LookupAddr] is this method of [DefaultResolver].
func (r *Resolver) LookupAddr(cx *Context, addr string) (names []string, err error) {
	return lookUp(cx, addr, func(ctx context.Context) ([]string, error) { return r.resolver().LookupAddr(ctx, addr) })
}

// LookupCNAME returns the canonical name of a host. For errors and cancelling see [Resolver]. The
// function [LookupCNAME] is this method of [DefaultResolver].
func (r *Resolver) LookupCNAME(cx *Context, host string) (cname string, err error) {
	return lookUp(cx, host, func(ctx context.Context) (string, error) { return r.resolver().LookupCNAME(ctx, host) })
}

// LookupMX returns the mail servers of a domain, in the order of preference. It may return results
// together with an error: records with invalid names are left out, and the error reports them. For
// errors and cancelling see [Resolver]. The function [LookupMX] is this method of
// [DefaultResolver].
func (r *Resolver) LookupMX(cx *Context, name string) ([]*net.MX, error) {
	return lookUp(cx, name, func(ctx context.Context) ([]*net.MX, error) { return r.resolver().LookupMX(ctx, name) })
}

// LookupNS returns the name servers of a domain. It may return results together with an error, as
// [Resolver.LookupMX] does. The function [LookupNS] is this method of [DefaultResolver].
func (r *Resolver) LookupNS(cx *Context, name string) ([]*net.NS, error) {
	return lookUp(cx, name, func(ctx context.Context) ([]*net.NS, error) { return r.resolver().LookupNS(ctx, name) })
}

// LookupTXT returns the TXT records of a domain. For errors and cancelling see [Resolver]. The
// function [LookupTXT] is this method of [DefaultResolver].
func (r *Resolver) LookupTXT(cx *Context, name string) ([]string, error) {
	return lookUp(cx, name, func(ctx context.Context) ([]string, error) { return r.resolver().LookupTXT(ctx, name) })
}

// LookupSRV returns the servers of a service of a domain, in the order in which to try them. It
// looks up the name _service._proto.name, or name itself if service and proto are empty. It may
// return results together with an error, as [Resolver.LookupMX] does. The function [LookupSRV] is
// this method of [DefaultResolver].
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

// LookupHost returns the addresses of a host. It is [Resolver.LookupHost] of [DefaultResolver]. The
// error is a [*net.DNSError]; it wraps cx.Err() if cx is cancelled.
func LookupHost(cx *Context, host string) (addrs []string, err error) {
	return DefaultResolver.LookupHost(cx, host)
}

// LookupIP returns the addresses of a host, of both families. It is [Resolver.LookupIP] of
// [DefaultResolver] with network "ip". The error is a [*net.DNSError]; it wraps cx.Err() if cx is
// cancelled.
func LookupIP(cx *Context, host string) ([]net.IP, error) {
	return DefaultResolver.LookupIP(cx, "ip", host)
}

// LookupPort returns the port of a service: 443 for "https" of "tcp", for example. It is
// [Resolver.LookupPort] of [DefaultResolver]. The error is a [*net.DNSError], which wraps cx.Err()
// if cx is cancelled. For a number that is not a port, or an unknown network, it is a
// [*net.AddrError].
func LookupPort(cx *Context, network, service string) (port int, err error) {
	return DefaultResolver.LookupPort(cx, network, service)
}

// LookupAddr returns the names of an address. It is [Resolver.LookupAddr] of [DefaultResolver]. The
// error is a [*net.DNSError]; it wraps cx.Err() if cx is cancelled.
func LookupAddr(cx *Context, addr string) (names []string, err error) {
	return DefaultResolver.LookupAddr(cx, addr)
}

// LookupCNAME returns the canonical name of a host. It is [Resolver.LookupCNAME] of
// [DefaultResolver]. The error is a [*net.DNSError]; it wraps cx.Err() if cx is cancelled.
func LookupCNAME(cx *Context, host string) (cname string, err error) {
	return DefaultResolver.LookupCNAME(cx, host)
}

// LookupMX returns the mail servers of a domain. It is [Resolver.LookupMX] of [DefaultResolver].
// The error is a [*net.DNSError]; it wraps cx.Err() if cx is cancelled.
func LookupMX(cx *Context, name string) ([]*net.MX, error) {
	return DefaultResolver.LookupMX(cx, name)
}

// LookupNS returns the name servers of a domain. It is [Resolver.LookupNS] of [DefaultResolver].
// The error is a [*net.DNSError]; it wraps cx.Err() if cx is cancelled.
func LookupNS(cx *Context, name string) ([]*net.NS, error) {
	return DefaultResolver.LookupNS(cx, name)
}

// LookupTXT returns the TXT records of a domain. It is [Resolver.LookupTXT] of [DefaultResolver].
// The error is a [*net.DNSError]; it wraps cx.Err() if cx is cancelled.
func LookupTXT(cx *Context, name string) ([]string, error) {
	return DefaultResolver.LookupTXT(cx, name)
}

// LookupSRV returns the servers of a service. It is [Resolver.LookupSRV] of [DefaultResolver]. The
// error is a [*net.DNSError]; it wraps cx.Err() if cx is cancelled.
func LookupSRV(cx *Context, service, proto, name string) (cname string, addrs []*net.SRV, err error) {
	return DefaultResolver.LookupSRV(cx, service, proto, name)
}
