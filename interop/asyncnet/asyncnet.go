// Package asyncnet has the functions and types of packages net and crypto/tls that make connections
// and listeners, with the same names, on the connections of package async. TestSuites replaces
// package net by asyncnet in the code of other projects.
//
// Addresses, errors and interfaces are the types of package net. Where package net has a pointer to
// a struct, for example *net.TCPConn, this package has an interface with the methods of that type,
// so that a type assertion fails if a connection of package async lacks one of them. Raw sockets,
// the networks "ip", are connections of package net.
package asyncnet

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/async"
)

// LogVariable is the environment variable that names a log file. Each call that dials a connection
// or opens a listener or a packet socket appends a line: "dial", "listen", "file" or "pipe", a
// space, and the network.
const LogVariable = "ASYNCNET_LOG"

var logFile = sync.OnceValues(func() (*os.File, error) {
	name := os.Getenv(LogVariable)
	if name == "" {
		return nil, nil // for example in a process that a test has started with an environment of its own
	}
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
})

// note appends a line to the log.
func note(call, network string) {
	f, err := logFile()
	if f != nil {
		_, err = fmt.Fprintln(f, call, network)
	}
	if err != nil {
		panic(err) // a missing line would make the count too low
	}
}

// TCPConn is *net.TCPConn.
type TCPConn interface {
	net.Conn
	syscall.Conn
	io.ReaderFrom
	io.WriterTo
	CloseRead() error
	CloseWrite() error
	File() (*os.File, error)
	MultipathTCP() (bool, error)
	SetKeepAlive(keepalive bool) error
	SetKeepAliveConfig(config net.KeepAliveConfig) error
	SetKeepAlivePeriod(d time.Duration) error
	SetLinger(sec int) error
	SetNoDelay(noDelay bool) error
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
}

// UDPConn is *net.UDPConn.
type UDPConn interface {
	net.Conn
	net.PacketConn
	syscall.Conn
	File() (*os.File, error)
	ReadFromUDP(p []byte) (n int, addr *net.UDPAddr, err error)
	ReadFromUDPAddrPort(p []byte) (n int, addr netip.AddrPort, err error)
	ReadMsgUDP(p, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	ReadMsgUDPAddrPort(p, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	WriteMsgUDP(p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
	WriteMsgUDPAddrPort(p, oob []byte, addr netip.AddrPort) (n, oobn int, err error)
	WriteToUDP(p []byte, addr *net.UDPAddr) (int, error)
	WriteToUDPAddrPort(p []byte, addr netip.AddrPort) (int, error)
}

// UnixConn is *net.UnixConn.
type UnixConn interface {
	net.Conn
	net.PacketConn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
	File() (*os.File, error)
	ReadFromUnix(p []byte) (int, *net.UnixAddr, error)
	ReadMsgUnix(p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	WriteMsgUnix(p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
	WriteToUnix(p []byte, addr *net.UnixAddr) (int, error)
}

// TCPListener is *net.TCPListener without AcceptTCP, which returns a *net.TCPConn.
type TCPListener interface {
	net.Listener
	syscall.Conn
	File() (*os.File, error)
	SetDeadline(t time.Time) error
}

// UnixListener is *net.UnixListener without AcceptUnix, which returns a *net.UnixConn.
type UnixListener interface {
	TCPListener
	SetUnlinkOnClose(unlink bool)
}

// The types of package net have the methods of the interfaces.
var (
	_ TCPConn      = (*net.TCPConn)(nil)
	_ UDPConn      = (*net.UDPConn)(nil)
	_ UnixConn     = (*net.UnixConn)(nil)
	_ TCPListener  = (*net.TCPListener)(nil)
	_ UnixListener = (*net.UnixListener)(nil)
)

// runtime is started here and not by the first call, which a goroutine of a bubble of
// testing/synctest may make. The runtime would work, but New in a bubble costs a garbage collection
// and leaves a goroutine behind.
var runtime = async.Default()

// isRaw reports whether network is one of raw IP, which package async does not have.
func isRaw(network string) bool { return strings.HasPrefix(network, "ip") }

// block runs fn with BlockOn on the goroutine of the caller, and cancels fn when ctx ends.
func block[T any](ctx context.Context, fn func(cx *async.Context) (T, error)) (T, error) {
	return async.BlockOn(runtime.Under(ctx), fn)
}

// as returns the form of c for goroutines. It fails if this form lacks a method of T.
func as[T net.Conn](c async.Conn, err error) (form T, _ error) {
	if err != nil {
		return form, err
	}
	n := async.NetConn(runtime, c)
	form, ok := n.(T)
	if !ok {
		return form, fmt.Errorf("asyncnet: %T does not implement %v", n, reflect.TypeFor[T]())
	}
	return form, nil
}

// asListener is the function as for listeners.
func asListener[T net.Listener](ln async.Listener, err error) (form T, _ error) {
	if err != nil {
		return form, err
	}
	n := async.NetListener(runtime, ln)
	form, ok := n.(T)
	if !ok {
		return form, fmt.Errorf("asyncnet: %T does not implement %v", n, reflect.TypeFor[T]())
	}
	return form, nil
}

// Listen is net.Listen.
func Listen(network, address string) (net.Listener, error) {
	note("listen", network)
	return runtime.ListenNet(network, address)
}

// ListenTCP is net.ListenTCP.
func ListenTCP(network string, laddr *net.TCPAddr) (TCPListener, error) {
	note("listen", network)
	ln, err := async.ListenTCP(network, laddr)
	return asListener[TCPListener](ln, err)
}

// ListenUnix is net.ListenUnix.
func ListenUnix(network string, laddr *net.UnixAddr) (UnixListener, error) {
	note("listen", network)
	ln, err := async.ListenUnix(network, laddr)
	return asListener[UnixListener](ln, err)
}

// ListenPacket is net.ListenPacket.
func ListenPacket(network, address string) (net.PacketConn, error) {
	return new(ListenConfig).ListenPacket(context.Background(), network, address)
}

// ListenUDP is net.ListenUDP.
func ListenUDP(network string, laddr *net.UDPAddr) (UDPConn, error) {
	note("listen", network)
	c, err := async.ListenUDP(network, laddr)
	return as[UDPConn](c, err)
}

// ListenUnixgram is net.ListenUnixgram.
func ListenUnixgram(network string, laddr *net.UnixAddr) (UnixConn, error) {
	note("listen", network)
	c, err := async.ListenUnixgram(network, laddr)
	return as[UnixConn](c, err)
}

// ListenConfig is net.ListenConfig.
type ListenConfig struct {
	Control         func(network, address string, c syscall.RawConn) error
	KeepAlive       time.Duration
	KeepAliveConfig net.KeepAliveConfig // ignored
}

func (lc *ListenConfig) async() *async.ListenConfig {
	return &async.ListenConfig{Control: lc.Control, KeepAlive: lc.KeepAlive}
}

// Listen is net.ListenConfig.Listen.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	note("listen", network)
	ln, err := block(ctx, func(cx *async.Context) (async.Listener, error) {
		return lc.async().Listen(cx, network, address)
	})
	return asListener[net.Listener](ln, err)
}

// ListenPacket is net.ListenConfig.ListenPacket.
func (lc *ListenConfig) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	if isRaw(network) {
		return (&net.ListenConfig{Control: lc.Control}).ListenPacket(ctx, network, address)
	}
	note("listen", network)
	pc, err := block(ctx, func(cx *async.Context) (async.PacketConn, error) {
		return lc.async().ListenPacket(cx, network, address)
	})
	if err != nil {
		return nil, err
	}
	return async.NetConn(runtime, pc).(net.PacketConn), nil
}

// Dial is net.Dial.
func Dial(network, address string) (net.Conn, error) { return new(Dialer).Dial(network, address) }

// DialTimeout is net.DialTimeout.
func DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	return (&Dialer{Timeout: timeout}).Dial(network, address)
}

// DialTCP is net.DialTCP.
func DialTCP(network string, laddr, raddr *net.TCPAddr) (TCPConn, error) {
	note("dial", network)
	c, err := block(context.Background(), func(cx *async.Context) (*async.TCPConn, error) {
		return async.DialTCP(cx, network, laddr, raddr)
	})
	return as[TCPConn](c, err)
}

// DialUDP is net.DialUDP.
func DialUDP(network string, laddr, raddr *net.UDPAddr) (UDPConn, error) {
	note("dial", network)
	c, err := async.DialUDP(network, laddr, raddr)
	return as[UDPConn](c, err)
}

// Dialer is net.Dialer.
type Dialer struct {
	Timeout         time.Duration
	Deadline        time.Time
	LocalAddr       net.Addr
	DualStack       bool
	FallbackDelay   time.Duration
	KeepAlive       time.Duration
	KeepAliveConfig net.KeepAliveConfig // ignored
	Resolver        *net.Resolver       // ignored
	Cancel          <-chan struct{}     // ignored
	Control         func(network, address string, c syscall.RawConn) error
	ControlContext  func(ctx context.Context, network, address string, c syscall.RawConn) error
}

// Dial is net.Dialer.Dial.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext is net.Dialer.DialContext. A Dialer without options calls Runtime.DialNet.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if isRaw(network) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	note("dial", network)
	if d.isPlain() {
		return runtime.DialNet(ctx, network, address)
	}
	dialer := async.Dialer{
		Timeout:       d.Timeout,
		Deadline:      d.Deadline,
		LocalAddr:     d.LocalAddr,
		FallbackDelay: d.FallbackDelay,
		KeepAlive:     d.KeepAlive,
		Control:       d.Control,
	}
	if control := d.ControlContext; control != nil {
		dialer.Control = func(network, address string, c syscall.RawConn) error {
			return control(ctx, network, address, c)
		}
	}
	c, err := block(ctx, func(cx *async.Context) (async.Conn, error) { return dialer.Dial(cx, network, address) })
	return as[net.Conn](c, err)
}

func (d *Dialer) isPlain() bool {
	return d.Timeout == 0 && d.Deadline.IsZero() && d.LocalAddr == nil && d.FallbackDelay == 0 &&
		d.KeepAlive == 0 && d.Control == nil && d.ControlContext == nil
}

// FileConn is net.FileConn.
func FileConn(f *os.File) (net.Conn, error) {
	note("file", "conn")
	c, err := async.FileConn(f)
	return as[net.Conn](c, err)
}

// FileListener is net.FileListener.
func FileListener(f *os.File) (net.Listener, error) {
	note("file", "listener")
	ln, err := async.FileListener(f)
	return asListener[net.Listener](ln, err)
}

// FilePacketConn is net.FilePacketConn. For a raw socket the result is a connection of package net.
func FilePacketConn(f *os.File) (net.PacketConn, error) {
	note("file", "packet")
	c, err := async.FilePacketConn(f)
	if err != nil {
		return net.FilePacketConn(f)
	}
	return async.NetConn(runtime, c).(net.PacketConn), nil
}

// Pipe replaces net.Pipe in suites that use few other connections. It returns a pair of connected
// unix-domain sockets. Unlike the ends of a net.Pipe, the sockets have buffers.
func Pipe() (net.Conn, net.Conn) {
	note("pipe", "unix")
	a, b, err := async.SocketPair()
	if err != nil {
		panic(err)
	}
	return async.NetConn(runtime, a), async.NetConn(runtime, b)
}

// ListenTLS is tls.Listen.
func ListenTLS(network, address string, config *tls.Config) (net.Listener, error) {
	ln, err := Listen(network, address)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(ln, config), nil
}

// DialTLS is tls.Dial.
func DialTLS(network, address string, config *tls.Config) (*tls.Conn, error) {
	return DialTLSWithDialer(new(Dialer), network, address, config)
}

// DialTLSWithDialer is tls.DialWithDialer.
func DialTLSWithDialer(dialer *Dialer, network, address string, config *tls.Config) (*tls.Conn, error) {
	ctx := context.Background()
	if dialer.Timeout != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dialer.Timeout)
		defer cancel()
	}
	c, err := (&TLSDialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), nil
}

// TLSDialer is tls.Dialer.
type TLSDialer struct {
	NetDialer *Dialer
	Config    *tls.Config
}

// Dial is tls.Dialer.Dial.
func (d *TLSDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext is tls.Dialer.DialContext.
func (d *TLSDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := d.NetDialer
	if dialer == nil {
		dialer = new(Dialer)
	}
	c, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config := d.Config
	if config == nil {
		config = new(tls.Config)
	}
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = strings.Cut(address, ":")
		if host, _, err := net.SplitHostPort(address); err == nil {
			config.ServerName = host
		}
	}
	secured := tls.Client(c, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return secured, nil
}
