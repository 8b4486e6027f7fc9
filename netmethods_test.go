package async

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/async/internal/sys"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// netTwins are the forms for code that uses package net, each with its counterpart there.
var netTwins = []struct{ form, std any }{
	{new(netTCPConn), new(net.TCPConn)},
	{new(boundTCPConn), new(net.TCPConn)},
	{new(netUDPConn), new(net.UDPConn)},
	{new(boundUDPConn), new(net.UDPConn)},
	{new(netUnixConn), new(net.UnixConn)},
	{new(boundUnixConn), new(net.UnixConn)},
	{new(netUnixDatagram), new(net.UnixConn)},
	{new(boundUnixDatagram), new(net.UnixConn)},
	{new(netTCPListener), new(net.TCPListener)},
	{new(netUnixListener), new(net.UnixListener)},
}

// netMissing says why a form lacks a method of its counterpart.
var netMissing = map[string]string{
	"*net.TCPListener.AcceptTCP":   "it returns a *net.TCPConn, which only package net makes",
	"*net.UnixListener.AcceptUnix": "it returns a *net.UnixConn, which only package net makes",
}

// The form has every exported method of the type of package net, with the same signature, unless
// the method is on the list.
func TestNetFormsHaveTheMethodsOfPackageNet(t *testing.T) {
	for _, twin := range netTwins {
		form, std := reflect.ValueOf(twin.form), reflect.ValueOf(twin.std)
		for i := range std.NumMethod() {
			name := std.Type().Method(i).Name
			want, got := std.Method(i).Type(), form.MethodByName(name)
			if why, ok := netMissing[std.Type().String()+"."+name]; ok {
				assert.False(t, got.IsValid(), "%T has %s; the list says that it does not: %s", twin.form, name, why)
			} else if assert.True(t, got.IsValid(), "%T lacks %s%s", twin.form, name, strings.TrimPrefix(want.String(), "func")) {
				assert.True(t, want == got.Type(), "%T.%s is %s, that of package net %s", twin.form, name, got.Type(), want)
			}
		}
	}
	for name := range netMissing {
		known := false
		for _, twin := range netTwins {
			of, method, _ := cutLast(name, ".")
			known = known || reflect.TypeOf(twin.std).String() == of && reflect.ValueOf(twin.std).MethodByName(method).IsValid()
		}
		assert.True(t, known, "%s is on the list, and package net does not have it", name)
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// netTCP and netUnix are the methods of the types of package net that the tests use.
type netTCP interface {
	net.Conn
	syscall.Conn
	io.ReaderFrom
	io.WriterTo
	CloseRead() error
	CloseWrite() error
	File() (*os.File, error)
	MultipathTCP() (bool, error)
	SetKeepAliveConfig(net.KeepAliveConfig) error
	SetKeepAlivePeriod(time.Duration) error
}

type netUnix interface {
	net.Conn
	net.PacketConn
	syscall.Conn
	ReadFromUnix(p []byte) (int, *net.UnixAddr, error)
	ReadMsgUnix(p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
	WriteToUnix(p []byte, addr *net.UnixAddr) (int, error)
	WriteMsgUnix(p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
	CloseRead() error
	CloseWrite() error
}

// sameAsPackageNet runs fn over package net and over both forms. The results must be
// the same.
func sameAsPackageNet(t *testing.T, fn func(t *testing.T, api netAPI) []string) {
	var want []string
	dir := netDir(t) // errors contain its name
	t.Run("package net", func(t *testing.T) { want = fn(t, netStdAPI(dir)) })
	for name, run := range netFormAPIs {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			run(t, rt, dir, func(api netAPI) { assert.Equal(t, want, fn(t, api)) })
		})
	}
}

// said describes the result of a call that has moved n bytes from or to addr. For an error it has
// all facts that netErrorFacts returns.
func said(call string, n int, addr any, err error) string {
	if err == nil {
		return fmt.Sprintf("%s: %d bytes, %v", call, n, addr)
	}
	return fmt.Sprintf("%s: %d bytes, %v", call, n, netErrorFacts(err))
}

// whose returns the name of addr among the known addresses.
func whose(addr any, known map[string]string) string {
	if v := reflect.ValueOf(addr); addr == nil || v.Kind() == reflect.Pointer && v.IsNil() {
		return fmt.Sprintf("%T", addr)
	}
	s := fmt.Sprint(addr)
	if name, ok := known[s]; ok {
		s = name
	}
	return fmt.Sprintf("%T %s", addr, s)
}

// recvCall is one way to receive a message.
type recvCall[C any] struct {
	name string
	recv func(c C, p []byte) (n int, from any, err error)
}

// sendCall is one way to send a message, to addr, or to the peer if that is nil.
type sendCall[C, A any] struct {
	name string
	send func(c C, p []byte, addr A) (int, error)
}

var udpReceives = []recvCall[netUDP]{
	{"Read", func(c netUDP, p []byte) (int, any, error) { n, err := c.Read(p); return n, nil, err }},
	{"ReadFrom", func(c netUDP, p []byte) (int, any, error) { n, a, err := c.ReadFrom(p); return n, a, err }},
	{"ReadFromUDP", func(c netUDP, p []byte) (int, any, error) { n, a, err := c.ReadFromUDP(p); return n, a, err }},
	{"ReadFromUDPAddrPort", func(c netUDP, p []byte) (int, any, error) { n, a, err := c.ReadFromUDPAddrPort(p); return n, a, err }},
	{"ReadMsgUDP", func(c netUDP, p []byte) (int, any, error) {
		n, oobn, _, a, err := c.ReadMsgUDP(p, make([]byte, 64))
		return n + oobn, a, err
	}},
	{"ReadMsgUDPAddrPort", func(c netUDP, p []byte) (int, any, error) {
		n, oobn, _, a, err := c.ReadMsgUDPAddrPort(p, make([]byte, 64))
		return n + oobn, a, err
	}},
}

var udpSends = []sendCall[netUDP, *net.UDPAddr]{
	{"Write", func(c netUDP, p []byte, _ *net.UDPAddr) (int, error) { return c.Write(p) }},
	{"WriteTo", func(c netUDP, p []byte, a *net.UDPAddr) (int, error) { return c.WriteTo(p, a) }},
	{"WriteTo of no address", func(c netUDP, p []byte, a *net.UDPAddr) (int, error) { return c.WriteTo(p, nil) }},
	{"WriteToUDP", func(c netUDP, p []byte, a *net.UDPAddr) (int, error) { return c.WriteToUDP(p, a) }},
	{"WriteToUDPAddrPort", func(c netUDP, p []byte, a *net.UDPAddr) (int, error) { return c.WriteToUDPAddrPort(p, a.AddrPort()) }},
	{"WriteMsgUDP", func(c netUDP, p []byte, a *net.UDPAddr) (int, error) {
		n, _, err := c.WriteMsgUDP(p, nil, a)
		return n, err
	}},
	{"WriteMsgUDPAddrPort", func(c netUDP, p []byte, a *net.UDPAddr) (int, error) {
		n, _, err := c.WriteMsgUDPAddrPort(p, nil, a.AddrPort())
		return n, err
	}},
}

var unixReceives = []recvCall[netUnix]{
	{"Read", func(c netUnix, p []byte) (int, any, error) { n, err := c.Read(p); return n, nil, err }},
	{"ReadFrom", func(c netUnix, p []byte) (int, any, error) { n, a, err := c.ReadFrom(p); return n, a, err }},
	{"ReadFromUnix", func(c netUnix, p []byte) (int, any, error) { n, a, err := c.ReadFromUnix(p); return n, a, err }},
	{"ReadMsgUnix", func(c netUnix, p []byte) (int, any, error) {
		n, oobn, _, a, err := c.ReadMsgUnix(p, make([]byte, 64))
		return n + oobn, a, err
	}},
}

var unixSends = []sendCall[netUnix, *net.UnixAddr]{
	{"Write", func(c netUnix, p []byte, _ *net.UnixAddr) (int, error) { return c.Write(p) }},
	{"WriteTo", func(c netUnix, p []byte, a *net.UnixAddr) (int, error) { return c.WriteTo(p, a) }},
	{"WriteTo of no address", func(c netUnix, p []byte, a *net.UnixAddr) (int, error) { return c.WriteTo(p, nil) }},
	{"WriteToUnix", func(c netUnix, p []byte, a *net.UnixAddr) (int, error) { return c.WriteToUnix(p, a) }},
	{"WriteMsgUnix", func(c netUnix, p []byte, a *net.UnixAddr) (int, error) {
		n, _, err := c.WriteMsgUnix(p, nil, a)
		return n, err
	}},
}

// receives produces each result that a receive can have, with each of the calls. open returns a
// connection, a function that sends a message to it, and the names of addresses.
func receives[C net.Conn](t *testing.T, calls []recvCall[C], open func() (c C, send func(p string), known map[string]string)) (all []string) {
	for _, call := range calls {
		c, send, known := open()
		recv := func(what string, size int) {
			p := make([]byte, size)
			n, from, err := call.recv(c, p)
			if err != nil {
				n = 0 // package net does not always return the same here
			}
			all = append(all, said(call.name+" "+what, n, fmt.Sprintf("%q from %s", p[:n], whose(from, known)), err))
		}
		send("message")
		recv("a message", 64)
		send("long message")
		recv("a part", 4)
		switch c.LocalAddr().Network() {
		case "unix": // a stream has no messages
			recv("the rest", 64)
		default:
			send("message")
			recv("without a buffer", 0)
			if call.name == "Read" {
				recv("after that", 64)
			}
			fallthrough
		case "unixpacket":
			send("")
			recv("an empty message", 64)
		}
		send("message")
		assert.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
		recv("too late", 64)
		assert.NoError(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
		recv("in time", 64)
		at := whileWaiting(t, c, func() error { return c.SetReadDeadline(time.Unix(1, 0)) })
		recv("while the deadline passes", 64)
		at()
		assert.NoError(t, c.SetReadDeadline(time.Time{}))
		at = whileWaiting(t, c, c.Close)
		recv("while it is closed", 64)
		at()
		recv("closed", 64)
	}
	return all
}

// whileWaiting calls end once a call waits to read from c. Package net does not report that a call
// waits, so end is called at once there. The returned function waits until end has been called.
func whileWaiting(t *testing.T, c net.Conn, end func() error) func() {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if own, ok := c.(interface{ pollFD() *pollFD }); ok {
			assert.True(t, within(patience, func() bool { return directionWaits(&own.pollFD().rd) }), "a call waits")
		}
		assert.NoError(t, end())
	}()
	return func() { <-ended }
}

func TestNetFormsReceiveUDP(t *testing.T) {
	for network, address := range map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0", "udp": ":0"} {
		t.Run(network, func(t *testing.T) {
			sameAsPackageNet(t, func(t *testing.T, api netAPI) []string {
				return receives(t, udpReceives, func() (netUDP, func(string), map[string]string) {
					c, err := api.listenPacket(network, address)
					assert.NoError(t, err)
					peer, err := net.Dial("udp", c.LocalAddr().String())
					assert.NoError(t, err)
					t.Cleanup(func() { peer.Close() })
					return c.(netUDP), func(p string) { peer.Write([]byte(p)) }, map[string]string{peer.LocalAddr().String(): "the peer"}
				})
			})
		})
	}
}

func TestNetFormsReceiveUnix(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket"} {
		for _, end := range []string{"dialled", "accepted"} {
			t.Run(network+" "+end, func(t *testing.T) {
				sameAsPackageNet(t, func(t *testing.T, api netAPI) []string {
					return receives(t, unixReceives, func() (netUnix, func(string), map[string]string) {
						a, b := netUnixPair(t, api, network)
						if end == "accepted" {
							a, b = b, a
						}
						return a, func(p string) { unixSendRaw(t, b, p) }, map[string]string{
							api.path("listener"): "the listener", api.path("client"): "the client",
						}
					})
				})
			})
		}
	}
	t.Run("unixgram", func(t *testing.T) {
		sameAsPackageNet(t, func(t *testing.T, api netAPI) []string {
			return receives(t, unixReceives, func() (netUnix, func(string), map[string]string) {
				c, peer := netUnixgrams(t, api)
				to := c.LocalAddr().(*net.UnixAddr)
				return c, func(p string) { peer.WriteToUnix([]byte(p), to) }, map[string]string{peer.LocalAddr().String(): "the peer"}
			})
		})
	})
}

// netUnixPair returns the ends of a connection. Both ends have names.
func netUnixPair(t *testing.T, api netAPI, network string) (dialled, accepted netUnix) {
	ln, err := api.listen(network, api.path("listener"))
	assert.NoError(t, err)
	defer ln.Close()
	os.Remove(api.path("client"))
	a, err := api.dialFrom(&net.UnixAddr{Name: api.path("client"), Net: network}, network, api.path("listener"))
	assert.NoError(t, err)
	b, err := ln.Accept()
	assert.NoError(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(netUnix), b.(netUnix)
}

// unixSendRaw sends a message, which may be empty, without the methods of c that send.
func unixSendRaw(t *testing.T, c syscall.Conn, p string) {
	raw, err := c.SyscallConn()
	assert.NoError(t, err)
	assert.NoError(t, raw.Control(func(fd uintptr) {
		assert.NoError(t, unix.Sendto(int(fd), []byte(p), 0, nil))
	}))
}

// netUnixgrams returns a socket of the api and a socket of package net.
func netUnixgrams(t *testing.T, api netAPI) (netUnix, *net.UnixConn) {
	for _, name := range []string{"gram", "peer"} {
		os.Remove(api.path(name))
	}
	c, err := api.listenPacket("unixgram", api.path("gram"))
	assert.NoError(t, err)
	peer, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: api.path("peer"), Net: "unixgram"})
	assert.NoError(t, err)
	t.Cleanup(func() { c.Close(); peer.Close() })
	return c.(netUnix), peer
}

// sends sends to each of the addresses by each of the calls. It also sends messages, one of them
// empty, to the address to, where recv receives them.
func sends[C net.Conn, A any](t *testing.T, calls []sendCall[C, A], c C, to A, recv func() string, addrs map[string]A) (all []string) {
	for _, call := range calls {
		send := func(what, p string, a A) {
			n, err := call.send(c, []byte(p), a)
			got := ""
			if err == nil {
				got = fmt.Sprintf("%q came", recv())
			}
			all = append(all, said(call.name+" "+what, n, got, err))
		}
		send("a message", "message", to)
		send("an empty message", "", to)
		for _, name := range slices.Sorted(maps.Keys(addrs)) {
			send("to "+name, "message", addrs[name])
		}
		assert.NoError(t, c.SetWriteDeadline(time.Unix(1, 0)))
		send("too late", "message", to)
		assert.NoError(t, c.SetWriteDeadline(time.Time{}))
	}
	assert.NoError(t, c.Close())
	for _, call := range calls {
		n, err := call.send(c, []byte("message"), to)
		all = append(all, said(call.name+" closed", n, "", err))
	}
	return all
}

// receiveText returns a function that receives the next message.
func receiveText(t *testing.T, c net.PacketConn) func() string {
	return func() string {
		p := make([]byte, 64)
		assert.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
		n, _, err := c.ReadFrom(p)
		assert.NoError(t, err)
		return string(p[:n])
	}
}

func TestNetFormsSendUDP(t *testing.T) {
	for network, host := range map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0"} {
		addrs := map[string]*net.UDPAddr{
			"nobody":           nil,
			"the other family": {IP: map[string]net.IP{"udp4": net.IPv6loopback, "udp6": {192, 0, 2, 1}}[network], Port: 9},
			"no IP at all":     {IP: net.IP{1, 2, 3}, Port: 9},
		}
		if network == "udp6" { // the result depends on the system
			delete(addrs, "the other family")
		}
		t.Run(network, func(t *testing.T) {
			sameAsPackageNet(t, func(t *testing.T, api netAPI) []string {
				c, err := api.listenPacket(network, host)
				assert.NoError(t, err)
				peer, err := net.ListenPacket(network, host)
				assert.NoError(t, err)
				defer peer.Close()
				to := peer.LocalAddr().(*net.UDPAddr)
				return sends(t, udpSends, c.(netUDP), to, receiveText(t, peer), addrs)
			})
		})
		t.Run(network+" dialled", func(t *testing.T) {
			sameAsPackageNet(t, func(t *testing.T, api netAPI) []string {
				peer, err := net.ListenPacket(network, host)
				assert.NoError(t, err)
				defer peer.Close()
				c, err := api.dial(network, peer.LocalAddr().String())
				assert.NoError(t, err)
				to := peer.LocalAddr().(*net.UDPAddr)
				return sends(t, udpSends, c.(netUDP), to, receiveText(t, peer), addrs)
			})
		})
	}
}

func TestNetFormsSendUnix(t *testing.T) {
	addrsOf := func(api netAPI) map[string]*net.UnixAddr {
		return map[string]*net.UnixAddr{
			"nobody":             nil,
			"a missing file":     {Name: api.path("none"), Net: "unixgram"},
			"an unknown network": {Name: api.path("none"), Net: "unix5"},
		}
	}
	t.Run("unixgram", func(t *testing.T) {
		sameAsPackageNet(t, func(t *testing.T, api netAPI) []string {
			c, peer := netUnixgrams(t, api)
			return sends(t, unixSends, c, peer.LocalAddr().(*net.UnixAddr), receiveText(t, peer), addrsOf(api))
		})
	})
	t.Run("unixgram dialled", func(t *testing.T) {
		sameAsPackageNet(t, func(t *testing.T, api netAPI) []string {
			_, peer := netUnixgrams(t, api)
			c, err := api.dial("unixgram", peer.LocalAddr().String())
			assert.NoError(t, err)
			// Package net refuses WriteMsgUnix here even without an address; this package sends.
			calls := slices.DeleteFunc(slices.Clone(unixSends), func(call sendCall[netUnix, *net.UnixAddr]) bool {
				return call.name == "WriteMsgUnix"
			})
			return sends(t, calls, c.(netUnix), peer.LocalAddr().(*net.UnixAddr), receiveText(t, peer), addrsOf(api))
		})
	})
	t.Run("unix dialled", func(t *testing.T) {
		sameAsPackageNet(t, func(t *testing.T, api netAPI) []string {
			a, b := netUnixPair(t, api, "unix")
			recv := func() string {
				p := make([]byte, 64)
				b.SetReadDeadline(time.Now().Add(patience))
				n, err := b.Read(p)
				assert.NoError(t, err)
				return string(p[:n])
			}
			calls := []sendCall[netUnix, *net.UnixAddr]{}
			for _, call := range unixSends {
				empty := call
				empty.send = func(c netUnix, p []byte, a *net.UnixAddr) (int, error) {
					n, err := call.send(c, p, a)
					if len(p) == 0 && err == nil { // a stream carries no empty message
						unixSendRaw(t, c, "anything")
					}
					return n, err
				}
				calls = append(calls, empty)
			}
			return sends(t, calls, a, nil, recv, addrsOf(api))
		})
	})
}

// The end of a stream is reported as by package net: the error is wrapped by the methods that also
// return an address.
func TestNetFormsAtTheEnd(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket"} {
		t.Run(network, func(t *testing.T) {
			sameAsPackageNet(t, func(t *testing.T, api netAPI) (all []string) {
				a, b := netUnixPair(t, api, network)
				assert.NoError(t, b.CloseWrite())
				for _, call := range unixReceives {
					n, from, err := call.recv(a, make([]byte, 8))
					all = append(all, said(call.name, n, whose(from, nil), err), fmt.Sprintf("is io.EOF: %v", err == io.EOF))
				}
				return all
			})
		})
	}
	t.Run("unixgram", func(t *testing.T) {
		sameAsPackageNet(t, func(t *testing.T, api netAPI) (all []string) {
			c, peer := netUnixgrams(t, api)
			toPeer := peer.LocalAddr().(*net.UnixAddr)
			toThis := c.LocalAddr().(*net.UnixAddr)
			for range unixReceives {
				_, err := peer.WriteToUnix([]byte("message"), toThis)
				assert.NoError(t, err)
			}
			assert.NoError(t, c.CloseRead())
			_, err := peer.WriteToUnix([]byte("message"), toThis)
			all = append(all, said("the peer's WriteToUnix", 0, "", err))
			for _, call := range unixReceives {
				n, from, err := call.recv(c, make([]byte, 8))
				all = append(all, said(call.name, n, whose(from, map[string]string{toPeer.Name: "the peer"}), err))
			}
			at := whileWaiting(t, c, func() error { return c.SetReadDeadline(time.Unix(1, 0)) })
			_, err = c.Read(make([]byte, 8))
			all = append(all, said("Read while nothing is left", 0, "", err))
			at()
			assert.NoError(t, c.CloseWrite())
			for _, call := range unixSends {
				n, err := call.send(c, []byte("message"), toPeer)
				all = append(all, said(call.name, n, "", err))
			}
			assert.NoError(t, c.Close())
			return append(all, said("CloseRead", 0, "", c.CloseRead()), said("CloseWrite", 0, "", c.CloseWrite()))
		})
	})
}

// Files arrive with a message, whichever method reads it.
func TestNetFormsCarryAncillaryData(t *testing.T) {
	sameAsPackageNet(t, func(t *testing.T, api netAPI) (all []string) {
		a, b := netUnixPair(t, api, "unix")
		n, oobn, err := a.WriteMsgUnix([]byte("file"), unix.UnixRights(0), nil)
		all = append(all, said("WriteMsgUnix", n+oobn, "", err))
		oob := make([]byte, 64)
		n, oobn, flags, _, err := b.ReadMsgUnix(make([]byte, 8), oob)
		fds := sentIn(oob[:oobn])
		for _, fd := range fds {
			unix.Close(fd)
		}
		all = append(all, said("ReadMsgUnix", n, fmt.Sprint(len(fds), oobn, flags&unix.MSG_CTRUNC), err))

		c, err := api.listenPacket("udp4", "127.0.0.1:0")
		assert.NoError(t, err)
		defer c.Close()
		u := c.(netUDP)
		raw, err := u.SyscallConn()
		assert.NoError(t, err)
		assert.NoError(t, raw.Control(func(fd uintptr) { sys.SetOption(int(fd), unix.IPPROTO_IP, unix.IP_RECVTTL, 1) }))
		to := c.LocalAddr().(*net.UDPAddr)
		_, _, err = u.WriteMsgUDP([]byte("ttl"), nil, to)
		assert.NoError(t, err)
		n, oobn, flags, from, err := u.ReadMsgUDP(make([]byte, 2), oob)
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		return append(all, said("ReadMsgUDP", n, fmt.Sprint(len(msgs), flags, from.Port == to.Port), err))
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TCP connections copy from any reader and to any writer, with the errors of package net.
func TestNetFormsCopy(t *testing.T) {
	sameAsPackageNet(t, func(t *testing.T, api netAPI) (all []string) {
		pair := func() (a, b netTCP) {
			ln, err := api.listen("tcp4", "127.0.0.1:0")
			assert.NoError(t, err)
			defer ln.Close()
			c, err := api.dial("tcp4", ln.Addr().String())
			assert.NoError(t, err)
			d, err := ln.Accept()
			assert.NoError(t, err)
			t.Cleanup(func() { c.Close(); d.Close() })
			return c.(netTCP), d.(netTCP)
		}
		failed := errors.New("failed")
		a, b := pair()
		n, err := a.ReadFrom(strings.NewReader("through ReadFrom"))
		all = append(all, said("ReadFrom", int(n), "", err))
		n, err = a.ReadFrom(readerFunc(func([]byte) (int, error) { return 0, failed }))
		all = append(all, said("ReadFrom a failure", int(n), "", err))
		n, err = a.ReadFrom(strings.NewReader(""))
		all = append(all, said("ReadFrom nothing", int(n), "", err))
		assert.NoError(t, a.CloseWrite())
		n, err = a.ReadFrom(strings.NewReader("too late"))
		all = append(all, said("ReadFrom after CloseWrite", int(n), "", err))
		var buf bytes.Buffer
		n, err = b.WriteTo(&buf)
		all = append(all, said("WriteTo", int(n), buf.String(), err))
		n, err = b.WriteTo(&buf)
		all = append(all, said("WriteTo at the end", int(n), "", err))

		_, err = b.Write([]byte("answer"))
		assert.NoError(t, err)
		n, err = a.WriteTo(writerFunc(func(p []byte) (int, error) { return 0, failed }))
		all = append(all, said("WriteTo a failure", int(n), "", err))
		assert.NoError(t, a.SetReadDeadline(time.Unix(1, 0)))
		n, err = a.WriteTo(io.Discard)
		all = append(all, said("WriteTo too late", int(n), "", err))
		assert.NoError(t, a.SetReadDeadline(time.Time{}))
		at := whileWaiting(t, a, a.Close)
		n, err = a.WriteTo(io.Discard)
		at()
		all = append(all, said("WriteTo while it is closed", int(n), "", err))
		n, err = a.ReadFrom(strings.NewReader("closed"))
		all = append(all, said("ReadFrom closed", int(n), "", err))

		// From one connection to another.
		c, d := pair()
		e, f := pair()
		_, err = c.Write([]byte("relayed"))
		assert.NoError(t, err)
		assert.NoError(t, c.CloseWrite())
		m, err := io.Copy(e, d)
		all = append(all, said("io.Copy", int(m), "", err))
		assert.NoError(t, e.Close())
		text, err := io.ReadAll(f)
		return append(all, said("relayed", len(text), string(text), err))
	})
}

// A connection that another program has made may be a connection of Multipath TCP.
func TestNetFormsMultipathTCP(t *testing.T) {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(true)
	ln, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	for _, multipath := range []bool{false, true} {
		d := net.Dialer{}
		d.SetMultipathTCP(multipath)
		std, err := d.Dial("tcp4", ln.Addr().String())
		require.NoError(t, err)
		defer std.Close()
		peer, err := ln.Accept()
		require.NoError(t, err)
		defer peer.Close()
		for _, c := range []*net.TCPConn{std.(*net.TCPConn), peer.(*net.TCPConn)} {
			f, err := c.File()
			require.NoError(t, err)
			defer f.Close()
			want, err := c.MultipathTCP()
			require.NoError(t, err)
			own, err := FileConn(f)
			require.NoError(t, err)
			defer own.Close()
			got, err := own.(*TCPConn).MultipathTCP()
			require.NoError(t, err)
			require.Equal(t, want, got, "dialled as multipath: %v", multipath)
		}
	}
	rt := newTestRuntime(t, Config{Workers: 1})
	a, _ := tcpPair(t, rt)
	got, err := NetConn(rt, a).(netTCP).MultipathTCP()
	require.NoError(t, err)
	require.False(t, got)
	require.NoError(t, a.Close())
	_, err = a.MultipathTCP()
	require.ErrorIs(t, err, net.ErrClosed)
}

// The RawConn of a listener is for Control only. Its Read and Write fail at once and do not call
// the function.
func TestRawConnOfListeners(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	std, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	tcp := tcpListen(t)
	un, err := ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(netDir(t), "s"), Net: "unix"})
	require.NoError(t, err)
	for name, ln := range map[string]interface {
		syscall.Conn
		io.Closer
	}{
		"package net":     std.(*net.TCPListener),
		"TCP":             tcp,
		"TCP, goroutines": NetListener(rt, tcpListen(t)).(*netTCPListener),
		"unix":            un,
		"unix, goroutines": func() *netUnixListener {
			ln, err := rt.ListenNet("unix", filepath.Join(netDir(t), "s"))
			require.NoError(t, err)
			return ln.(*netUnixListener)
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := ln.SyscallConn()
			require.NoError(t, err)
			called := 0
			count := func(uintptr) bool { called++; return true }
			require.Equal(t, syscall.EINVAL, raw.Read(count))
			require.Equal(t, syscall.EINVAL, raw.Write(count))
			require.NoError(t, raw.Control(func(fd uintptr) {
				v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
				require.NoError(t, err)
				require.NotZero(t, v)
			}))
			require.NoError(t, ln.Close())
			require.Equal(t, syscall.EINVAL, raw.Read(count))
			require.Equal(t, syscall.EINVAL, raw.Write(count))
			require.Zero(t, called)
			require.ErrorIs(t, raw.Control(func(uintptr) { called++ }), net.ErrClosed)
			require.Zero(t, called)
		})
	}
}

// The errors of a RawConn name the same things as the errors of package net.
func TestNetFormsRawConnErrors(t *testing.T) {
	sameAsPackageNet(t, func(t *testing.T, api netAPI) (all []string) {
		ln, err := api.listen("tcp4", "127.0.0.1:0")
		assert.NoError(t, err)
		defer ln.Close()
		c, err := api.dial("tcp4", ln.Addr().String())
		assert.NoError(t, err)
		raw, err := c.(syscall.Conn).SyscallConn()
		assert.NoError(t, err)
		never := func(uintptr) bool { t.Error("it was called"); return true }
		assert.NoError(t, c.SetDeadline(time.Unix(1, 0)))
		all = append(all, said("Read", 0, "", raw.Read(never)), said("Write", 0, "", raw.Write(never)))
		assert.NoError(t, c.Close())
		return append(all, said("Read", 0, "", raw.Read(never)), said("Write", 0, "", raw.Write(never)),
			said("Control", 0, "", raw.Control(func(uintptr) { t.Error("it was called") })))
	})
}

// The methods of the form of a listener do the same as the methods of the listener.
func TestNetListenerMethods(t *testing.T) {
	sameAsPackageNet(t, func(t *testing.T, api netAPI) (all []string) {
		for _, keep := range []bool{false, true} {
			ln, err := api.listen("unix", api.path("s"))
			assert.NoError(t, err)
			l, ok := ln.(interface {
				net.Listener
				SetDeadline(time.Time) error
				SetUnlinkOnClose(bool)
				File() (*os.File, error)
			})
			if !ok {
				l = boundUnlinker{ln.(netBoundListener)}
			}
			l.SetUnlinkOnClose(!keep)
			assert.NoError(t, l.SetDeadline(time.Unix(1, 0)))
			_, err = l.Accept()
			all = append(all, said("Accept", 0, "", err))
			f, err := l.File()
			assert.NoError(t, err)
			assert.NoError(t, f.Close())
			all = append(all, said("Close", 0, l.Addr().Network(), l.Close()), said("Close again", 0, "", l.Close()))
			_, err = os.Stat(api.path("s"))
			all = append(all, fmt.Sprint("the file is there: ", err == nil))
			os.Remove(api.path("s"))
		}
		return all
	})
}

// boundUnlinker adds to a listener that the tests bind to a task.
type boundUnlinker struct{ netBoundListener }

func (l boundUnlinker) SetUnlinkOnClose(on bool) { l.Listener.(*UnixListener).SetUnlinkOnClose(on) }
func (l boundUnlinker) File() (*os.File, error)  { return l.Listener.(*UnixListener).File() }
