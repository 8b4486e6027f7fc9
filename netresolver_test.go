package async

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A look-up has the same results and the same errors as in package net.
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
			require.NoError(t, runTask(rt, func(cx *Context) error {
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

// The functions of the package ask the resolver of the system. Here they ask for results that need
// no server.
func TestLookupFunctions(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
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

// Cancelling ends the wait, even if the server does not answer, and the look-up ends soon. With a
// cancelled Context no server is asked.
func TestResolverCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s := newDNS(t, true, nil)
	r := s.resolver()
	h := Go(rt, func(cx *Context) error { _, err := r.LookupHost(cx, "host.test."); return err })
	eventually(t, func() bool { return s.queries.Load() > 0 })
	h.Cancel()
	_, err := joinOrCancel(h)
	require.ErrorIs(t, err, context.Canceled)

	h = Go(rt, func(cx *Context) error {
		cx, cancel := cx.WithTimeout(1)
		defer cancel()
		_, err := r.LookupHost(cx, "host.test.")
		return err
	})
	_, err = joinOrCancel(h)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	d := Dialer{Resolver: r}
	asked := s.queries.Load()
	h = Go(rt, func(cx *Context) error { _, err := d.Dial(cx, "tcp", "host.test.:80"); return err })
	eventually(t, func() bool { return s.queries.Load() > asked })
	h.Cancel()
	_, err = joinOrCancel(h)
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

// With a network of one family, name servers are asked only for addresses of that family. The
// results and errors are those of package net, and several addresses have the same order.
func TestLookupsAskForTheFamilyOfTheNetwork(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s := newDNS(t, false, map[string][]dnsRecord{
		"both.test.":      dnsAddrs("127.0.0.1", "::1", "127.0.0.2"),
		"four.test.":      dnsAddrs("127.0.0.1"),
		"six.test.":       dnsAddrs("::1"),
		"mapped.test.":    dnsAddrs("::ffff:127.0.0.1"),
		"wildcard.test.":  dnsAddrs("::"),
		"wildcard4.test.": dnsAddrs("0.0.0.0"),
		"link.test.":      dnsAddrs("fe80::1", "127.0.0.1"),
		"empty.test.":     nil,
	})
	s.asDefault(t)
	var tried []string
	refused := errors.New("refused by Control")
	control := func(network, address string, c syscall.RawConn) error {
		tried = append(tried, network+" "+address)
		return refused
	}
	ctx := context.Background()
	stdDialer, ownDialer := net.Dialer{Control: control}, Dialer{Control: control}
	stdConfig, ownConfig := net.ListenConfig{Control: control}, ListenConfig{Control: control}
	stdConfig.SetMultipathTCP(false)
	stdDial := func(network, address string) error { _, err := stdDialer.Dial(network, address); return err }
	stdListen := func(network, address string) error { _, err := stdConfig.Listen(ctx, network, address); return err }
	for name, c := range map[string]struct {
		proto string
		std   func(network, address string) error
		own   func(cx *Context, network, address string) error
	}{
		"Dial": {"tcp", stdDial, func(cx *Context, network, address string) error {
			_, err := ownDialer.Dial(cx, network, address)
			return err
		}},
		"Dial of UDP": {"udp", stdDial, func(cx *Context, network, address string) error {
			_, err := ownDialer.Dial(cx, network, address)
			return err
		}},
		"DialFuture": {"tcp", stdDial, func(cx *Context, network, address string) error {
			_, err := SpawnFuture(cx, ownDialer.DialFuture(network, address)).Join(cx)
			return err
		}},
		"DialNet": {"udp", func(network, address string) error {
			c, err := net.Dial(network, address)
			if err == nil {
				c.Close()
			}
			return err
		}, func(cx *Context, network, address string) error {
			_, err := SpawnBlocking(cx, func() (None, error) {
				c, err := rt.DialNet(ctx, network, address)
				if err == nil {
					c.Close()
				}
				return None{}, err
			}).Join(cx)
			return err
		}},
		"Listen": {"tcp", stdListen, func(cx *Context, network, address string) error {
			_, err := ownConfig.Listen(cx, network, address)
			return err
		}},
		"ListenEach": {"tcp", stdListen, func(cx *Context, network, address string) error {
			_, err := ownConfig.ListenEach(cx, network, address, 2)
			return err
		}},
		"ListenPacket": {"udp", func(network, address string) error {
			_, err := stdConfig.ListenPacket(ctx, network, address)
			return err
		}, func(cx *Context, network, address string) error {
			_, err := ownConfig.ListenPacket(cx, network, address)
			return err
		}},
	} {
		for _, family := range []string{"", "4", "6"} {
			for host := range s.records {
				network, address := c.proto+family, host+":80"
				what := fmt.Sprintf("%s %s %s", name, network, address)
				if host == "link.test." && name == "DialNet" {
					continue // without a zone it depends on chance whether either of the two finds the address
				}
				tried = nil
				want := c.std(network, address)
				wantTried, wantAsked := tried, s.questions()
				tried = nil
				require.NoError(t, runTask(rt, func(cx *Context) error {
					got := c.own(cx, network, address)
					assert.Equal(t, want == nil, got == nil, "%s: %v", what, got)
					if want != nil && got != nil {
						assert.Equal(t, netErrorFacts(want), netErrorFacts(got), what)
					}
					return nil
				}))
				asked := s.questions()
				if host == "link.test." {
					asked = slices.DeleteFunc(asked, func(q string) bool { return family == "6" && q == "link.test. 1" }) // see zoned
				}
				assert.Equal(t, wantAsked, asked, what)
				if family == "" { // families take turns here, but not in package net
					slices.Sort(wantTried)
					slices.Sort(tried)
				}
				assert.Equal(t, wantTried, tried, what)
			}
		}
	}
}

// Addresses that are useful only with their zone are looked up by the method that returns zones.
func TestLookupsOfOneFamilyKnowZones(t *testing.T) {
	local, global := net.ParseIP("fe80::1"), net.ParseIP("2001:db8::1")
	both := []net.IPAddr{{IP: net.IPv4(127, 0, 0, 1)}, {IP: local, Zone: "lo"}}
	failed := errors.New("failed")
	never := func() ([]net.IPAddr, error) { panic("asked") }

	require.Equal(t, []net.IPAddr{{IP: global}}, zoned([]net.IP{global}, never))
	v4 := net.IPv4(169, 254, 0, 1) // link-local, too, but only IPv6 has zones
	require.Equal(t, []net.IPAddr{{IP: v4}}, zoned([]net.IP{v4}, never))
	require.Equal(t, both, zoned([]net.IP{global, local}, func() ([]net.IPAddr, error) { return both, nil }))
	require.Equal(t, []net.IPAddr{{IP: local}}, zoned([]net.IP{local}, func() ([]net.IPAddr, error) { return nil, failed }))
}
