package async

import (
	"context"
	"io"
	"net"
	"strings"
	"syscall"
)

// The types below are the form for code that starts goroutines of its own and knows
// only package net: a driver, net/http, grpc. Their calls park the calling
// goroutine, and the shared reactor waits for it.
//
// Each form embeds the type that it is a form of, and defines every method of
// that type's twin in package net with the signature of package net; a test
// compares the method sets. So no promoted method that takes a cx stands
// under a name of package net.

// NetConn returns c as a net.Conn for goroutines. It serves goroutines as c itself
// serves tasks, and is as complete as the connections of package net: any number of
// goroutines may use it at once; concurrent Reads are served one after the
// other, and so are concurrent Writes, each as a whole; deadlines and Close end
// calls that are under way; errors are *net.OpError. It has every method of
// *net.TCPConn if c is a *TCPConn, of *net.UDPConn if c is a *UDPConn, and of
// *net.UnixConn if c is a *UnixConn or a *UnixDatagram, with the signatures of
// package net. Over any other PacketConn it is a net.PacketConn. WriteTo on the form
// of a *UnixConn always fails with net.ErrWriteToConnected; package net asks the
// system if the connection was accepted.
//
// Only the runtime of s counts: no worker waits for connections that goroutines read. If
// a task waits for c, too, its worker waits from then on, for both, and a goroutine is
// woken at the price of another switch of threads.
//
// A call on a connection of another package is a BlockOn of the connection's own method, which
// costs more, and for which Shutdown waits as for other functions of BlockOn.
//
// Each Write goes out as a whole only among the Writes of one such net.Conn: two
// net.Conns of the same c know nothing of each other.
//
// Read and Write panic in a task, whose worker they could block, also where they
// would not have to wait: there, [BindConn](cx, c) is the net.Conn to use. Both forms
// and c itself may be used side by side; only the order in which several readers or
// writers come is then left to chance.
func NetConn(s Spawner, c Conn) net.Conn {
	rt := handOver(s, c)
	switch c := c.(type) {
	case *TCPConn:
		n := &netTCPConn{TCPConn: c}
		n.sides.init(rt)
		return n
	case *UnixConn:
		n := &netUnixConn{UnixConn: c}
		n.sides.init(rt)
		return n
	case *UDPConn:
		n := &netUDPConn{UDPConn: c}
		n.sides.init(rt)
		return n
	case *UnixDatagram:
		n := &netUnixDatagram{UnixDatagram: c}
		n.sides.init(rt)
		return n
	case PacketConn:
		n := &netPacketConn{PacketConn: c}
		n.sides.init(rt)
		return n
	case writeCloser:
		n := &netWriteCloser{netConn{Conn: c}, c}
		n.sides.init(rt)
		return n
	default:
		n := &netConn{Conn: c}
		n.sides.init(rt)
		return n
	}
}

// NetListener returns ln as a net.Listener for goroutines. It has the methods of
// *net.TCPListener or *net.UnixListener, except AcceptTCP and AcceptUnix, whose
// results are types of package net. Its connections are those that NetConn
// returns, and only the runtime of s counts. Any number of goroutines may accept
// at once. Accept fails with ErrShutdown once the runtime's Shutdown has begun,
// and panics in a task, whose worker it would block: there, call ln.Accept(cx).
func NetListener(s Spawner, ln Listener) net.Listener {
	rt := handOver(s, ln)
	switch ln := ln.(type) {
	case *TCPListener:
		n := &netTCPListener{listener: &ln.listener, of: ln}
		n.side.init(rt)
		return n
	case *UnixListener:
		n := &netUnixListener{listener: &ln.listener, of: ln}
		n.side.init(rt)
		return n
	default:
		n := &netListener{Listener: ln}
		n.side.init(rt)
		return n
	}
}

// ListenNet is Listen for goroutines: net.Listen on rt. See NetListener.
func (rt *Runtime) ListenNet(network, address string) (net.Listener, error) {
	mustNotBlock("Runtime.ListenNet", "async.Listen(cx, ...)")
	ln, err := BlockOn(rt, func(cx *Context) (Listener, error) { return Listen(cx, network, address) })
	if err != nil {
		return nil, outerOp("listen", network, err)
	}
	return NetListener(rt, ln), nil
}

// DialNet is Dial for goroutines: the DialContext of a net.Dialer, on rt. It
// fits the fields of that name in net/http, and the like in drivers. The end of
// ctx ends the dialling, and has no effect on the connection afterwards. See
// NetConn.
func (rt *Runtime) DialNet(ctx context.Context, network, address string) (net.Conn, error) {
	mustNotBlock("Runtime.DialNet", "async.Dial(cx, ...)")
	c, err := BlockOn(rt.Under(ctx), func(cx *Context) (Conn, error) { return Dial(cx, network, address) })
	if err != nil {
		return nil, outerOp("dial", network, err)
	}
	return NetConn(rt, c), nil
}

// handOver moves a connection or listener that goroutines will use to the shared reactor, if
// its type is of this package and a worker of the runtime of s owns it. handOver returns this
// runtime.
func handOver(s Spawner, what any) *Runtime {
	rt, _ := s.spawner()
	if of, ok := what.(interface{ pollFD() *pollFD }); ok {
		of.pollFD().moveToShared(rt)
	}
	return rt
}

// outerOp makes an *net.OpError of an error of BlockOn itself.
func outerOp(op, network string, err error) error {
	if _, ok := err.(*net.OpError); ok {
		return err
	}
	return &net.OpError{Op: op, Net: network, Err: err}
}

// netConn is NetConn's result for connections of other packages.
type netConn struct {
	Conn
	sides netSides
}

func (c *netConn) Read(p []byte) (int, error) {
	return c.sides.rd.call("Read of a NetConn", func(cx *Context) (int, error) { return c.Conn.Read(cx, p) })
}

func (c *netConn) Write(p []byte) (int, error) {
	return c.sides.wr.call("Write of a NetConn", func(cx *Context) (int, error) { return c.Conn.Write(cx, p) })
}

// netWriteCloser is NetConn's result for a writeCloser of another package.
type netWriteCloser struct {
	netConn
	c writeCloser
}

func (c *netWriteCloser) CloseWrite() error { return c.c.CloseWrite() }

// netTCPConn is NetConn's result for a TCPConn.
type netTCPConn struct {
	*TCPConn
	sides netSides
}

var _ interface {
	syscall.Conn
	io.ReaderFrom
	io.WriterTo
} = (*netTCPConn)(nil)

func (c *netTCPConn) Read(p []byte) (int, error)  { return c.sides.rd.read(c.TCPConn, p) }
func (c *netTCPConn) Write(p []byte) (int, error) { return c.sides.wr.write(c.TCPConn, p) }

func (c *netTCPConn) ReadFrom(r io.Reader) (int64, error) { return c.copyFrom(c, r) }
func (c *netTCPConn) WriteTo(w io.Writer) (int64, error)  { return c.copyTo(w, c) }

func (c *netTCPConn) SyscallConn() (syscall.RawConn, error) { return c.sides.rawConn(&c.conn) }

// netUnixConn is NetConn's result for a UnixConn.
type netUnixConn struct {
	*UnixConn
	sides netSides
}

var _ interface {
	net.PacketConn
	syscall.Conn
} = (*netUnixConn)(nil)

func (c *netUnixConn) Read(p []byte) (int, error)  { return c.sides.rd.read(c.UnixConn, p) }
func (c *netUnixConn) Write(p []byte) (int, error) { return c.sides.wr.write(c.UnixConn, p) }

func (c *netUnixConn) SyscallConn() (syscall.RawConn, error) { return c.sides.rawConn(&c.conn) }

func (c *netUnixConn) ReadFrom(p []byte) (int, net.Addr, error) {
	return c.sides.readFrom(c.pollReadFromUnix, p)
}

func (c *netUnixConn) ReadFromUnix(p []byte) (int, *net.UnixAddr, error) {
	return asUnixAddr(c.ReadFrom(p))
}

func (c *netUnixConn) WriteTo(p []byte, addr net.Addr) (int, error)          { return c.refuseTo(addr) }
func (c *netUnixConn) WriteToUnix(p []byte, addr *net.UnixAddr) (int, error) { return c.refuseTo(addr) }

func (c *netUnixConn) ReadMsgUnix(p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	n, oobn, flags, addr, err = c.sides.readMsgUnix(c.UnixConn, p, oob)
	return n, oobn, flags, addr, c.wrapEnd(err)
}

func (c *netUnixConn) WriteMsgUnix(p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return c.sides.writeMsgUnix(c.UnixConn, p, oob, addr)
}

// copyFrom is the ReadFrom of a form of c, which writes to the connection.
func (c *TCPConn) copyFrom(form io.Writer, r io.Reader) (int64, error) {
	n, err := copyPooled(form, r)
	return n, c.wrap("readfrom", err)
}

// copyTo is the WriteTo of a form of c, which reads from the connection.
func (c *TCPConn) copyTo(w io.Writer, form io.Reader) (int64, error) {
	n, err := copyPooled(w, form)
	return n, c.wrap("writeto", err)
}

// copyPooled is io.Copy without its allocation, and without asking either side
// to do the copying, since that is the caller.
func copyPooled(w io.Writer, r io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[copyChunk]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf[:])
}

// netListener is NetListener's result for listeners of other packages.
type netListener struct {
	Listener
	side netSide
}

func (l *netListener) Accept() (net.Conn, error) {
	rt := l.side.lock(acceptOfNetListener, insteadOfNetListener).t.w.rt
	defer l.side.mu.Unlock()
	c, err := BlockOn(rt, l.Listener.Accept)
	if err == ErrShutdown {
		err = &net.OpError{Op: "accept", Err: err}
	}
	if err != nil {
		return nil, err
	}
	return NetConn(rt, c), nil
}

// netTCPListener is NetListener's result for a TCPListener. It has those of its methods
// that all listeners share, and not AcceptTCP, which takes a cx.
type netTCPListener struct {
	*listener
	of   *TCPListener
	side netSide
}

func (l *netTCPListener) Accept() (net.Conn, error) { return l.side.accept(l.of) }

// netUnixListener is NetListener's result for a UnixListener; see
// netTCPListener.
type netUnixListener struct {
	*listener
	of   *UnixListener
	side netSide
}

func (l *netUnixListener) Accept() (net.Conn, error)    { return l.side.accept(l.of) }
func (l *netUnixListener) Close() error                 { return l.of.Close() }
func (l *netUnixListener) SetUnlinkOnClose(unlink bool) { l.of.SetUnlinkOnClose(unlink) }

// netSides is the two directions of a connection for goroutines.
type netSides struct{ rd, wr netSide }

func (s *netSides) init(rt *Runtime) {
	s.rd.init(rt)
	s.wr.init(rt)
}

// netSide is one direction of a connection for goroutines. One goroutine at a time
// polls, and parks while the poll is pending; the others wait for mu. If a deadline
// or Close ends the call of the parked goroutine, it ends the calls of the others in
// turn. The connection sees a netSide as one waker, for ever, so that waiting
// allocates nothing.
type netSide struct {
	mu lockOf[netSide]
	parker
}

func (s *netSide) init(rt *Runtime) {
	s.token = newChan[struct{}](1)
	s.kind, s.body, s.w, s.cx.t = kindExternal, s, rt.workers[0], &s.task
}

// lock makes the caller the goroutine that polls. It returns the Context to poll with.
func (s *netSide) lock(what, instead string) *Context {
	mustNotBlock(what, instead)
	s.mu.Lock()
	return &s.cx
}

// What a task has to use instead of the forms for goroutines.
const (
	insteadOfNetConn     = "the net.Conn of BindConn(cx, c)"
	acceptOfNetListener  = "Accept of a NetListener"
	insteadOfNetListener = "the listener's Accept(cx)"
)

// call runs f, a method of a connection of another package, with a Context for the calling
// goroutine. Other goroutines wait for mu meanwhile.
func (s *netSide) call(what string, f func(cx *Context) (int, error)) (int, error) {
	rt := s.lock(what, insteadOfNetConn).t.w.rt
	defer s.mu.Unlock()
	n, err := BlockOn(rt, f)
	if err == ErrShutdown { // BlockOn has not called f
		op, _, _ := strings.Cut(strings.ToLower(what), " ")
		err = &net.OpError{Op: op, Err: err}
	}
	return n, err
}

func (s *netSide) read(c PollReader, p []byte) (int, error) {
	cx := s.lock("Read of a NetConn", insteadOfNetConn)
	defer s.mu.Unlock()
	for {
		n, err := c.PollRead(cx, p)
		if err != ErrPending {
			return n, err
		}
		s.park()
	}
}

func (s *netSide) write(c PollWriter, p []byte) (n int, err error) {
	cx := s.lock("Write of a NetConn", insteadOfNetConn)
	defer s.mu.Unlock()
	for {
		m, err := c.PollWrite(cx, p[n:])
		n += m
		if err == ErrPending {
			s.park()
		} else if err != nil || n == len(p) {
			return n, err
		}
	}
}

// until calls poll until it is not pending.
func (s *netSide) until(what string, poll func(cx *Context) error) error {
	cx := s.lock(what, insteadOfNetConn)
	defer s.mu.Unlock()
	for {
		if err := poll(cx); err != ErrPending {
			return err
		}
		s.park()
	}
}

// acceptPoller is a listener of this package.
type acceptPoller interface {
	PollAccept(cx *Context) (Conn, error)
}

func (s *netSide) accept(ln acceptPoller) (net.Conn, error) {
	cx := s.lock(acceptOfNetListener, insteadOfNetListener)
	defer s.mu.Unlock()
	for {
		c, err := ln.PollAccept(cx)
		if err == nil {
			return NetConn(s.w.rt, c), nil
		}
		if err != ErrPending {
			return nil, err
		}
		s.park()
	}
}

// netRawConn is the syscall.RawConn of a connection for goroutines.
type netRawConn struct {
	rawConn
	sides *netSides
}

func (s *netSides) rawConn(c *conn) (syscall.RawConn, error) {
	if err := c.src.checkOpen(); err != nil {
		return nil, c.wrap("raw", err)
	}
	return &netRawConn{rawConn{src: &c.src, net: c.net, laddr: c.laddr, raddr: c.raddr}, s}, nil
}

func (r *netRawConn) Read(f func(fd uintptr) (done bool)) error {
	return r.wrap("raw-read", r.laddr, r.raddr, r.sides.rd.raw(r.src, &r.src.rd, f))
}

func (r *netRawConn) Write(f func(fd uintptr) (done bool)) error {
	return r.wrap("raw-write", r.laddr, r.raddr, r.sides.wr.raw(r.src, &r.src.wr, f))
}

// raw calls f, and again after each event, until f says that it is done.
func (s *netSide) raw(src *pollFD, dir *direction, f func(fd uintptr) (done bool)) error {
	l := rawCallback{s: src, dir: dir, f: untilDone(f)}
	return s.until("RawConn of a NetConn", func(cx *Context) error {
		_, err := l.poll(cx)
		return err
	})
}
