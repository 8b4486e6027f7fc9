package async

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// netEvents collects the calls of the hooks of httptrace.
type netEvents struct {
	mu  sync.Mutex
	all []string
}

func (e *netEvents) add(args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
}

// take returns the events since the last call.
func (e *netEvents) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.all
	e.all = nil
	return all
}

// in returns a context with all hooks that package net calls.
func (e *netEvents) in(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectStart: func(network, addr string) { e.add("ConnectStart", network, addr) },
		ConnectDone:  func(network, addr string, err error) { e.add("ConnectDone", network, addr, err) },
		DNSStart:     func(i httptrace.DNSStartInfo) { e.add("DNSStart", i.Host) },
		DNSDone:      func(i httptrace.DNSDoneInfo) { e.add("DNSDone", i.Addrs, i.Err) },
	})
}

type traceKey struct{}

// netTraceHost has the hosts that a test of hooks dials. It is like eyeballs, but no connect hangs.
func netTraceHost(t *testing.T) (s *dnsServer, port string) {
	ln := tcpListen(t)
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	s = newDNS(t, false, map[string][]dnsRecord{
		"one.test.":           dnsAddrs("127.0.0.1"),
		"refuses-first.test.": dnsAddrs("127.0.0.2", "127.0.0.1"),
		"refuses.test.":       dnsAddrs("127.0.0.2", "127.0.0.3"),
		"five.test.":          {{dnsTXT, append([]byte{5}, "hello"...)}},
	})
	s.asDefault(t)
	return s, port
}

// A dial under a context that has hooks of httptrace calls them as package net does.
func TestDialCallsTheHooksOfPackageNet(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	_, port := netTraceHost(t)
	events := new(netEvents)
	ctx := events.in(context.Background())
	closed := func(c interface{ Close() error }, err error) error {
		if err == nil {
			c.Close()
		}
		return err
	}
	ways := map[string]func(network, address string) error{
		"DialNet": func(network, address string) error {
			c, err := rt.DialNet(ctx, network, address)
			return closed(c, err)
		},
		"a task": func(network, address string) error {
			_, err := joinOrCancel(Go(rt.Under(ctx), func(cx *Context) error {
				c, err := Dial(cx, network, address)
				return closed(c, err)
			}))
			return err
		},
		"a derived Context": func(network, address string) error {
			_, err := joinOrCancel(Go(rt.Under(ctx), func(cx *Context) error {
				cx, cancel := cx.WithoutCancel().WithTimeout(time.Hour)
				defer cancel()
				c, err := new(Dialer).Dial(cx, network, address)
				return closed(c, err)
			}))
			return err
		},
		"a plain future": func(network, address string) error {
			c, err := joinOrCancel(SpawnFuture(rt.Under(ctx), DialFuture(network, address)))
			return closed(c, err)
		},
	}
	dir := netDir(t)
	ul, err := net.Listen("unix", dir+"/s")
	require.NoError(t, err)
	defer ul.Close()
	for _, c := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:" + port},
		{"tcp", ":" + port},
		{"tcp", "[::]:" + port},
		{"tcp4", "[::]:" + port},
		{"tcp", "127.0.0.2:" + port},
		{"tcp", "one.test.:" + port},
		{"tcp4", "one.test.:" + port},
		{"tcp6", "one.test.:" + port},
		{"tcp4", "refuses-first.test.:" + port},
		{"tcp4", "refuses.test.:" + port},
		{"tcp", "none.test.:" + port},
		{"tcp", "127.0.0.1"},
		{"tcp5", "127.0.0.1:" + port},
		{"udp", "127.0.0.1:" + port},
		{"udp", "one.test.:" + port},
		{"unix", dir + "/s"},
		{"unix", dir + "/none"},
		{"unixgram", dir + "/s"},
	} {
		std := net.Dialer{FallbackDelay: time.Hour}
		conn, err := std.DialContext(ctx, c.network, c.address)
		err = closed(conn, err)
		want := events.take()
		for name, dial := range ways {
			got := dial(c.network, c.address)
			assert.Equal(t, err == nil, got == nil, "%s %v: %v", name, c, got)
			assert.Equal(t, want, events.take(), "%s %v", name, c)
		}
	}
}

// A look-up calls the hooks, too, and the Dial of a Resolver gets the values of the context.
func TestLookupsCallTheHooksOfPackageNet(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	s, _ := netTraceHost(t)
	events := new(netEvents)
	ctx := context.WithValue(events.in(context.Background()), traceKey{}, "value")
	// Several queries are sent at the same time and repeated, so only their kinds are compared.
	kinds := func() []string {
		all := events.take()
		slices.Sort(all)
		return slices.Compact(all)
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		events.add("Dial", ctx.Value(traceKey{}))
		return s.dial(ctx, network, address)
	}
	std, own := &net.Resolver{PreferGo: true, Dial: dial}, &Resolver{PreferGo: true, Dial: dial}
	for name, c := range map[string]struct {
		std func() error
		own func(cx *Context) error
	}{
		"LookupHost": {
			func() error { _, err := std.LookupHost(ctx, "one.test."); return err },
			func(cx *Context) error { _, err := own.LookupHost(cx, "one.test."); return err },
		},
		"LookupIPAddr": {
			func() error { _, err := std.LookupIPAddr(ctx, "one.test."); return err },
			func(cx *Context) error { _, err := own.LookupIPAddr(cx, "one.test."); return err },
		},
		"LookupIP": {
			func() error { _, err := std.LookupIP(ctx, "ip4", "one.test."); return err },
			func(cx *Context) error { _, err := own.LookupIP(cx, "ip4", "one.test."); return err },
		},
		"LookupNetIP": {
			func() error { _, err := std.LookupNetIP(ctx, "ip6", "one.test."); return err },
			func(cx *Context) error { _, err := own.LookupNetIP(cx, "ip6", "one.test."); return err },
		},
		"LookupTXT": {
			func() error { _, err := std.LookupTXT(ctx, "five.test."); return err },
			func(cx *Context) error { _, err := own.LookupTXT(cx, "five.test."); return err },
		},
		"LookupCNAME": {
			func() error { _, err := std.LookupCNAME(ctx, "one.test."); return err },
			func(cx *Context) error { _, err := own.LookupCNAME(cx, "one.test."); return err },
		},
		"LookupPort": {
			func() error { _, err := std.LookupPort(ctx, "tcp", "https"); return err },
			func(cx *Context) error { _, err := own.LookupPort(cx, "tcp", "https"); return err },
		},
		"Dial": { // a connection for the look-up is not an attempt
			func() error {
				d := net.Dialer{Resolver: std}
				c, err := d.DialContext(ctx, "udp4", "one.test.:9")
				if err == nil {
					c.Close()
				}
				return err
			},
			func(cx *Context) error {
				d := Dialer{Resolver: own}
				c, err := d.Dial(cx, "udp4", "one.test.:9")
				if err == nil {
					c.Close()
				}
				return err
			},
		},
		"Listen": {
			func() error {
				ln, err := new(net.ListenConfig).Listen(ctx, "tcp4", "one.test.:0")
				if err == nil {
					ln.Close()
				}
				return err
			},
			func(cx *Context) error {
				ln, err := Listen(cx, "tcp4", "one.test.:0")
				if err == nil {
					ln.Close()
				}
				return err
			},
		},
	} {
		err := c.std()
		want := kinds()
		if name != "LookupPort" {
			assert.NotEmpty(t, want, name)
		}
		_, got := joinOrCancel(Go(rt.Under(ctx), c.own))
		assert.Equal(t, err == nil, got == nil, "%s: %v", name, got)
		assert.Equal(t, want, kinds(), name)
	}
}

// ConnectDone is called exactly once for each attempt that has begun, and before the dial returns.
// This is so if the attempt has lost, was given up, or its time has passed.
func TestDialEndsEachAttemptForTheHooks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	e := newEyeballs(t)
	hangs, accepts, refuses := net.JoinHostPort(e.hangs, e.port), net.JoinHostPort(e.accepts, e.port), net.JoinHostPort(e.refuses, e.port)
	events := new(netEvents)
	begun := func() bool {
		events.mu.Lock()
		defer events.mu.Unlock()
		return slices.Contains(events.all, "ConnectStart tcp "+hangs)
	}
	connects := func() []string {
		return slices.DeleteFunc(events.take(), func(s string) bool { return strings.HasPrefix(s, "DNS") })
	}
	under := rt.Under(events.in(context.Background()))
	ends := func(addr string, err error) string {
		return fmt.Sprint("ConnectDone tcp ", addr, " ", &net.OpError{Op: "dial", Net: "tcp", Addr: &net.UnixAddr{Name: addr}, Err: err})
	}
	dial := func(d *Dialer, name string) *JoinHandle[string] {
		return Spawn(under, func(cx *Context) (string, error) { return reached(cx, d, e.addr(name)) })
	}

	d := e.dialer()
	d.FallbackDelay = time.Millisecond
	got, err := joinOrCancel(dial(d, "hangs-first"))
	require.NoError(t, err)
	require.Equal(t, e.accepts, got)
	require.Equal(t, []string{
		"ConnectStart tcp " + hangs, "ConnectStart tcp " + accepts,
		"ConnectDone tcp " + accepts + " <nil>", ends(hangs, context.Canceled),
	}, connects())

	h := dial(d, "hangs")
	eventually(t, begun)
	h.Cancel()
	_, err = joinOrCancel(h)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{"ConnectStart tcp " + hangs, ends(hangs, context.Canceled)}, connects())

	f := SpawnFuture(under, d.DialFuture("tcp", e.addr("hangs")))
	eventually(t, begun)
	f.Cancel()
	_, err = joinOrCancel(f)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{"ConnectStart tcp " + hangs, ends(hangs, context.Canceled)}, connects())

	var op *net.OpError
	for op == nil || op.Addr == nil { // unless the look-up takes all of the time
		d.Timeout += 20 * time.Millisecond
		connects()
		_, err = joinOrCancel(dial(d, "hangs"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorAs(t, err, &op)
	}
	require.Equal(t, []string{"ConnectStart tcp " + hangs, ends(hangs, context.DeadlineExceeded)}, connects())

	d.Timeout, d.FallbackDelay = 3*time.Second, -1 // of which the first is given 2
	_, err = joinOrCancel(dial(d, "hangs-refuses"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, []string{
		"ConnectStart tcp " + hangs, ends(hangs, context.DeadlineExceeded),
		"ConnectStart tcp " + refuses, ends(refuses, fmt.Errorf("connect: %w", syscall.ECONNREFUSED)),
	}, connects())
	require.Zero(t, sources(rt))
}

// Hooks that are not set are not called. A context without hooks costs no more allocations than a
// context without values.
func TestDialWithoutHooks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	require.NotNil(t, netTraceKey(), "package net no longer asks for its hooks in the way that is known here")
	ctx := context.WithValue(context.Background(), traceKey{}, "value")
	only := func(h httptrace.ClientTrace) context.Context { return httptrace.WithClientTrace(ctx, &h) }
	calls := 0
	for name, c := range map[string]struct {
		ctx   context.Context
		calls int
	}{
		"no hooks":      {ctx, 0},
		"of others":     {only(httptrace.ClientTrace{GetConn: func(string) { calls++ }}), 0},
		"DNSStart":      {only(httptrace.ClientTrace{DNSStart: func(httptrace.DNSStartInfo) { calls++ }}), 0},
		"ConnectStart":  {only(httptrace.ClientTrace{ConnectStart: func(string, string) { calls++ }}), 1},
		"ConnectDone":   {only(httptrace.ClientTrace{ConnectDone: func(string, string, error) { calls++ }}), 1},
		"another's key": {context.WithValue(ctx, netTraceKey(), "no hooks"), 0},
		"a nil pointer": {context.WithValue(ctx, netTraceKey(), (*netEvents)(nil)), 0},
		"other fields":  {context.WithValue(ctx, netTraceKey(), &struct{ ConnectStart int }{}), 0},
	} {
		calls = 0
		_, err := joinOrCancel(Go(rt.Under(c.ctx), func(cx *Context) error {
			conn, err := Dial(cx, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			return conn.Close()
		}))
		require.NoError(t, err, name)
		require.Equal(t, c.calls, calls, name)
	}
	for _, s := range []Spawner{rt, rt.Under(ctx)} {
		_, err := joinOrCancel(Go(s, func(cx *Context) error {
			if n := testing.AllocsPerRun(1000, func() { cx.connectHooks() }); n != 0 {
				return fmt.Errorf("%v allocations", n)
			}
			return nil
		}))
		require.NoError(t, err)
	}
}

// A hook that panics fails the task, as Control does. The sockets of all attempts are closed, and
// so is the connection that the dial would have returned.
func TestDialHookPanics(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	e := newEyeballs(t)
	d := e.dialer()
	d.FallbackDelay = time.Millisecond
	for name, h := range map[string]httptrace.ClientTrace{
		"ConnectStart": {ConnectStart: func(string, string) { panic("hook") }},
		"ConnectDone of the one that has won": {ConnectDone: func(_, _ string, err error) {
			if err == nil {
				panic("hook")
			}
		}},
		"ConnectDone of the one that has lost": {ConnectDone: func(_, _ string, err error) {
			if err != nil {
				panic("hook")
			}
		}},
	} {
		under := rt.Under(httptrace.WithClientTrace(context.Background(), &h))
		var panicked *PanicError
		_, err := joinOrCancel(Go(under, func(cx *Context) error {
			_, err := d.Dial(cx, "tcp", e.addr("hangs-first"))
			return errors.Join(errors.New("the hook was not called"), err)
		}))
		require.ErrorAs(t, err, &panicked, name)
		_, err = joinOrCancel(SpawnFuture(under, d.DialFuture("tcp", e.addr("hangs-first"))))
		require.ErrorAs(t, err, &panicked, name)
		require.Zero(t, sources(rt), name)
	}
}
