package async

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a look-up finds, and how it fails, is what package net's does.
func TestResolverFindsWhatPackageNetFinds(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s := newDNS(t, false, map[string][]dnsRecord{
		"host.test.":                dnsAddrs("127.0.0.7", "127.0.0.8", "::7"),
		"empty.test.":               nil,
		"alias.test.":               {{dnsCNAME, dnsName("host.test.")}},
		"mail.test.":                {{dnsMX, append(dnsUint16(20), dnsName("b.test.")...)}, {dnsMX, append(dnsUint16(10), dnsName("a.test.")...)}},
		"bad.test.":                 {{dnsMX, append(dnsUint16(20), dnsName("b.test.")...)}, {dnsMX, append(dnsUint16(10), dnsName("not a name.test.")...)}},
		"ns.test.":                  {{dnsNS, dnsName("a.test.")}},
		"txt.test.":                 {{dnsTXT, append([]byte{5}, "hello"...)}},
		"_sip._udp.test.":           {{dnsSRV, append(dnsUint16(1, 2, 5060), dnsName("host.test.")...)}},
		"7.113.0.203.in-addr.arpa.": {{dnsPTR, dnsName("host.test.")}},
	})
	own, std := s.resolver(), &net.Resolver{PreferGo: true, Dial: s.dial}
	type result struct {
		found any
		err   error
	}
	ctx := context.Background()
	of := func(found any, err error) result { return result{found, err} }
	for name, c := range map[string]struct {
		own func(cx *Context) result
		std func() result
	}{
		"host": {
			func(cx *Context) result { return of(own.LookupHost(cx, "host.test.")) },
			func() result { return of(std.LookupHost(ctx, "host.test.")) },
		},
		"a literal": {
			func(cx *Context) result { return of(own.LookupHost(cx, "::1")) },
			func() result { return of(std.LookupHost(ctx, "::1")) },
		},
		"no such host": {
			func(cx *Context) result { return of(own.LookupHost(cx, "none.test.")) },
			func() result { return of(std.LookupHost(ctx, "none.test.")) },
		},
		"no address": {
			func(cx *Context) result { return of(own.LookupIPAddr(cx, "empty.test.")) },
			func() result { return of(std.LookupIPAddr(ctx, "empty.test.")) },
		},
		"no name": {
			func(cx *Context) result { return of(own.LookupHost(cx, "")) },
			func() result { return of(std.LookupHost(ctx, "")) },
		},
		"IPAddr": {
			func(cx *Context) result { return of(own.LookupIPAddr(cx, "host.test.")) },
			func() result { return of(std.LookupIPAddr(ctx, "host.test.")) },
		},
		"IP": {
			func(cx *Context) result { return of(own.LookupIP(cx, "ip4", "host.test.")) },
			func() result { return of(std.LookupIP(ctx, "ip4", "host.test.")) },
		},
		"IP of an unknown network": {
			func(cx *Context) result { return of(own.LookupIP(cx, "tcp", "host.test.")) },
			func() result { return of(std.LookupIP(ctx, "tcp", "host.test.")) },
		},
		"NetIP": {
			func(cx *Context) result { return of(own.LookupNetIP(cx, "ip6", "host.test.")) },
			func() result { return of(std.LookupNetIP(ctx, "ip6", "host.test.")) },
		},
		"Addr": {
			func(cx *Context) result { return of(own.LookupAddr(cx, "203.0.113.7")) },
			func() result { return of(std.LookupAddr(ctx, "203.0.113.7")) },
		},
		"Addr of nobody": {
			func(cx *Context) result { return of(own.LookupAddr(cx, "203.0.113.8")) },
			func() result { return of(std.LookupAddr(ctx, "203.0.113.8")) },
		},
		"CNAME": {
			func(cx *Context) result { return of(own.LookupCNAME(cx, "host.test.")) },
			func() result { return of(std.LookupCNAME(ctx, "host.test.")) },
		},
		"MX": {
			func(cx *Context) result { return of(own.LookupMX(cx, "mail.test.")) },
			func() result { return of(std.LookupMX(ctx, "mail.test.")) },
		},
		"MX, some of them bad": {
			func(cx *Context) result { return of(own.LookupMX(cx, "bad.test.")) },
			func() result { return of(std.LookupMX(ctx, "bad.test.")) },
		},
		"NS": {
			func(cx *Context) result { return of(own.LookupNS(cx, "ns.test.")) },
			func() result { return of(std.LookupNS(ctx, "ns.test.")) },
		},
		"TXT": {
			func(cx *Context) result { return of(own.LookupTXT(cx, "txt.test.")) },
			func() result { return of(std.LookupTXT(ctx, "txt.test.")) },
		},
		"SRV": {
			func(cx *Context) result {
				name, addrs, err := own.LookupSRV(cx, "sip", "udp", "test.")
				return of([]any{name, addrs}, err)
			},
			func() result {
				name, addrs, err := std.LookupSRV(ctx, "sip", "udp", "test.")
				return of([]any{name, addrs}, err)
			},
		},
		"Port": {
			func(cx *Context) result { return of(own.LookupPort(cx, "tcp", "https")) },
			func() result { return of(std.LookupPort(ctx, "tcp", "https")) },
		},
		"Port of nothing": {
			func(cx *Context) result { return of(own.LookupPort(cx, "tcp", "no-such-service")) },
			func() result { return of(std.LookupPort(ctx, "tcp", "no-such-service")) },
		},
		"Port of an unknown network": {
			func(cx *Context) result { return of(own.LookupPort(cx, "ip", "https")) },
			func() result { return of(std.LookupPort(ctx, "ip", "https")) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := c.std()
			require.NoError(t, tcpRun(rt, func(cx *Context) error {
				got := c.own(cx)
				assert.Equal(t, want.found, got.found)
				if want.err == nil {
					return got.err
				}
				if got.err == nil {
					return errors.New("no error")
				}
				assert.Equal(t, netErrorFacts(want.err), netErrorFacts(got.err))
				return nil
			}))
		})
	}
}

// The functions of the package ask the system's resolver. Here they ask for
// what it knows without asking anybody.
func TestLookupFunctions(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, tcpRun(rt, func(cx *Context) error {
		for name, same := range map[string]func() (own, std any, ownErr, stdErr error){
			"LookupHost": func() (any, any, error, error) {
				a, e := LookupHost(cx, "127.0.0.9")
				b, f := net.LookupHost("127.0.0.9")
				return a, b, e, f
			},
			"LookupIP": func() (any, any, error, error) {
				a, e := LookupIP(cx, "127.0.0.9")
				b, f := net.LookupIP("127.0.0.9")
				return a, b, e, f
			},
			"LookupPort": func() (any, any, error, error) {
				a, e := LookupPort(cx, "udp", "domain")
				b, f := net.LookupPort("udp", "domain")
				return a, b, e, f
			},
			"LookupAddr": func() (any, any, error, error) {
				a, e := LookupAddr(cx, "no address")
				b, f := net.LookupAddr("no address")
				return a, b, e, f
			},
			"LookupCNAME": func() (any, any, error, error) {
				a, e := LookupCNAME(cx, "no name")
				b, f := net.LookupCNAME("no name")
				return a, b, e, f
			},
			"LookupMX": func() (any, any, error, error) {
				a, e := LookupMX(cx, "no name")
				b, f := net.LookupMX("no name")
				return a, b, e, f
			},
			"LookupNS": func() (any, any, error, error) {
				a, e := LookupNS(cx, "no name")
				b, f := net.LookupNS("no name")
				return a, b, e, f
			},
			"LookupTXT": func() (any, any, error, error) {
				a, e := LookupTXT(cx, "no name")
				b, f := net.LookupTXT("no name")
				return a, b, e, f
			},
			"LookupSRV": func() (any, any, error, error) {
				a, as, e := LookupSRV(cx, "x", "tcp", "no name")
				b, bs, f := net.LookupSRV("x", "tcp", "no name")
				return []any{a, as}, []any{b, bs}, e, f
			},
		} {
			own, std, ownErr, stdErr := same()
			if own, std := fmt.Sprint(own, ownErr), fmt.Sprint(std, stdErr); own != std {
				return fmt.Errorf("%s: %s, but package net: %s", name, own, std)
			}
		}
		return nil
	}))
}

// Promises: cancelling ends the wait, though the server is silent, and the
// look-up ends soon; a cancelled Context asks nobody.
func TestResolverCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s := newDNS(t, true, nil)
	r := s.resolver()
	h := Go(rt, func(cx *Context) error { _, err := r.LookupHost(cx, "host.test."); return err })
	eventually(t, func() bool { return s.queries.Load() > 0 })
	h.Cancel()
	_, err := tcpJoin(h)
	require.ErrorIs(t, err, context.Canceled)

	h = Go(rt, func(cx *Context) error {
		cx, cancel := cx.WithTimeout(1)
		defer cancel()
		_, err := r.LookupHost(cx, "host.test.")
		return err
	})
	_, err = tcpJoin(h)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	d := Dialer{Resolver: r}
	asked := s.queries.Load()
	h = Go(rt, func(cx *Context) error { _, err := d.Dial(cx, "tcp", "host.test.:80"); return err })
	eventually(t, func() bool { return s.queries.Load() > asked })
	h.Cancel()
	_, err = tcpJoin(h)
	require.ErrorIs(t, err, context.Canceled)
	eventually(t, func() bool {
		for _, i := range rt.calls.infos() {
			if i.State == "blocking" {
				runtime.Gosched()
				return false
			}
		}
		return true
	}, "the look-ups end")
}
