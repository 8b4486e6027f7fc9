package async

import (
	"context"
	"io"
	"net"
	"strings"
	"syscall"
)

// The types below are forms of connections and listeners for code that starts goroutines of its own
// and uses only package net: database drivers, net/http and grpc, for example. A call parks the
// calling goroutine, and the shared reactor waits for the event.
//
// Each form embeds the type that it is a form of. It defines every method of the counterpart of
// that type in package net, with the signature of package net; a test compares the method sets
// (TestNetFormsHaveTheMethodsOfPackageNet). So no promoted method that takes a cx has the name of a
// method of package net.

// NetConn returns c as a [net.Conn] for goroutines outside the pool. A call that has to wait parks
// the calling goroutine. In a task use [BindConn](cx, c) instead: Read and Write of a NetConn could
// block the worker, so they panic in a task, even if they would not have to wait.
//
// The result is as complete as the connections of package net:
//
//   - Any number of goroutines may use it at the same time. Concurrent Reads are served one after
//     the other. So are concurrent Writes, each of them as a whole.
//   - Deadlines and Close end calls that wait. Close closes c, and one of the two must be closed. To
//     limit one call, set a deadline before it.
//   - Errors other than [io.EOF] are [*net.OpError]. They wrap [ErrShutdown] if the runtime of s
//     ends while a call waits.
//   - It has every method of [*net.TCPConn] if c is a [*TCPConn], of [*net.UDPConn] if c is a
//     [*UDPConn], and of [*net.UnixConn] if c is a [*UnixConn] or a [*UnixDatagram], with the
//     signatures of package net. For any other [PacketConn] it is a [net.PacketConn]. If any other
//     c has a method CloseWrite() error, the result has it, too.
//
// One method differs: WriteTo on the form of a *UnixConn always fails, with
// [net.ErrWriteToConnected] if the address is a [*net.UnixAddr]. For a connection that was
// accepted, package net asks the system instead.
//
// NetConn uses only the runtime of s. Its name, context or group have no effect on the calls. No
// worker waits for a connection that only goroutines use. If a task waits for c, too, the worker of
// the task waits for both from then on. To wake a goroutine then costs one more switch of threads.
//
// If c is a connection of another package, each call is a [BlockOn] of the method of c, and returns
// its error. That costs more, and [Runtime.Shutdown] waits for the call as it does for other
// functions of BlockOn.
//
// The result, c itself and the result of BindConn may be used side by side. The order in which
// concurrent readers or writers are served is then undefined, and their Writes may be mixed. This
// also applies to two results of NetConn for the same c.
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

// NetListener returns ln as a [net.Listener] for goroutines outside the pool. Accept parks the
// calling goroutine, and returns connections in the form of [NetConn]. Any number of goroutines may
// accept at the same time. In a task call ln.Accept(cx) instead: Accept of a NetListener would
// block the worker, so it panics.
//
// The result has the methods of [*net.TCPListener] if ln is a [*TCPListener], and of
// [*net.UnixListener] if ln is a [*UnixListener]. AcceptTCP and AcceptUnix are missing, since their
// results are types of package net.
//
// The errors of Accept are [*net.OpError]. They wrap [net.ErrClosed] after Close, and [ErrShutdown]
// once [Runtime.Shutdown] has begun. A listener of another package has errors of its own.
// NetListener uses only the runtime of s.
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

// ListenNet is [Listen] for goroutines outside the pool: it returns the listener in the form of
// [NetListener]. Its signature is the signature of [net.Listen]. The error is a [*net.OpError]; it
// wraps [ErrShutdown] once [Runtime.Shutdown] has begun. ListenNet panics in a task.
func (rt *Runtime) ListenNet(network, address string) (net.Listener, error) {
	mustNotBlock("Runtime.ListenNet", "async.Listen(cx, ...)")
	ln, err := BlockOn(rt, func(cx *Context) (Listener, error) { return Listen(cx, network, address) })
	if err != nil {
		return nil, outerOp("listen", network, err)
	}
	return NetListener(rt, ln), nil
}

// DialNet is [Dial] for goroutines outside the pool: it returns the connection in the form of
// [NetConn]. Its signature is the signature of [net.Dialer.DialContext], so it fits the field
// DialContext of [net/http.Transport], and similar fields of database drivers.
//
// The end of ctx ends the dial, and has no effect on the connection afterwards. The error is a
// [*net.OpError]. It wraps ctx.Err() if ctx ends first, and [ErrShutdown] once [Runtime.Shutdown]
// has begun. DialNet panics in a task.
func (rt *Runtime) DialNet(ctx context.Context, network, address string) (net.Conn, error) {
	mustNotBlock("Runtime.DialNet", "async.Dial(cx, ...)")
	c, err := BlockOn(rt.Under(ctx), func(cx *Context) (Conn, error) { return Dial(cx, network, address) })
	if err != nil {
		return nil, outerOp("dial", network, err)
	}
	return NetConn(rt, c), nil
}

// handOver prepares a connection or listener for use by goroutines, and returns the runtime of s.
// If its type is of this package and a worker of this runtime owns it, the shared reactor becomes
// the owner.
func handOver(s Spawner, what any) *Runtime {
	rt, _ := s.spawner()
	if of, ok := what.(interface{ pollFD() *pollFD }); ok {
		of.pollFD().moveToShared(rt)
	}
	return rt
}

// outerOp makes a [*net.OpError] of an error of BlockOn itself, which has not called the function.
// Other errors are one already.
func outerOp(op, network string, err error) error {
	if _, ok := err.(*net.OpError); ok {
		return err
	}
	return &net.OpError{Op: op, Net: network, Err: err}
}

// netConn is the result of NetConn for a connection of another package.
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

// netWriteCloser is the result of NetConn for a writeCloser of another package.
type netWriteCloser struct {
	netConn
	c writeCloser
}

func (c *netWriteCloser) CloseWrite() error { return c.c.CloseWrite() }

// netTCPConn is the result of NetConn for a TCPConn.
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

// netUnixConn is the result of NetConn for a UnixConn.
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

// ReadMsgUnix wraps io.EOF at the end of the stream, as package net does.
func (c *netUnixConn) ReadMsgUnix(p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	n, oobn, flags, addr, err = c.sides.readMsgUnix(c.UnixConn, p, oob)
	return n, oobn, flags, addr, c.wrapEnd(err)
}

func (c *netUnixConn) WriteMsgUnix(p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return c.sides.writeMsgUnix(c.UnixConn, p, oob, addr)
}

// copyFrom is the ReadFrom of form, a form of c. It writes to the connection.
func (c *TCPConn) copyFrom(form io.Writer, r io.Reader) (int64, error) {
	n, err := copyPooled(form, r)
	return n, c.wrap("readfrom", err)
}

// copyTo is the WriteTo of form, a form of c. It reads from the connection.
func (c *TCPConn) copyTo(w io.Writer, form io.Reader) (int64, error) {
	n, err := copyPooled(w, form)
	return n, c.wrap("writeto", err)
}

// copyPooled is io.Copy with a buffer from a pool. It hides the methods ReadFrom and WriteTo of
// both sides: a method of this name is the caller, so io.Copy would call it again without end.
func copyPooled(w io.Writer, r io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[copyChunk]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf[:])
}

// netListener is the result of NetListener for a listener of another package.
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

// netTCPListener is the result of NetListener for a TCPListener. It embeds the part that all
// listeners share, and not the TCPListener, whose AcceptTCP takes a cx.
type netTCPListener struct {
	*listener
	of   *TCPListener
	side netSide
}

func (l *netTCPListener) Accept() (net.Conn, error) { return l.side.accept(l.of) }

// netUnixListener is the result of NetListener for a UnixListener; see netTCPListener.
type netUnixListener struct {
	*listener
	of   *UnixListener
	side netSide
}

func (l *netUnixListener) Accept() (net.Conn, error)    { return l.side.accept(l.of) }
func (l *netUnixListener) Close() error                 { return l.of.Close() }
func (l *netUnixListener) SetUnlinkOnClose(unlink bool) { l.of.SetUnlinkOnClose(unlink) }

// netSides is the two directions of a connection that goroutines use.
type netSides struct{ rd, wr netSide }

func (s *netSides) init(rt *Runtime) {
	s.rd.init(rt)
	s.wr.init(rt)
}

// netSide is one direction of a connection, or the accepting of a listener, for goroutines. Any
// number of goroutines call it, but it is one waker for the connection. So the connection has one
// waiter per netSide, which is a part of the netSide, and waiting allocates nothing.
//
// The protocol of a call, for example of read:
//
//  1. Lock mu. So one goroutine at a time polls; the other goroutines wait for mu.
//  2. Poll with cx. If the poll is pending, the task of the netSide now stands in the slot of the
//     direction.
//  3. Park: take the token out of the channel. A wake calls poll of the parker on the thread of the
//     waker. It puts the token into the channel, unless one is there.
//  4. Poll again. When the result is final, unlock mu and return.
//
// The races that this closes:
//
//  1. The waker runs between steps 2 and 3. The token stays in the channel, so park returns at
//     once.
//  2. A call has ended, and its wake is late or its token is left over. The next call that parks
//     takes that token, polls once more and parks again. Such a wake is spurious.
//  3. A deadline or Close ends the call of the goroutine that is parked. The other goroutines were
//     not in the slot, and are not woken. Each of them locks mu in turn, polls, and gets the same
//     error.
type netSide struct {
	mu lockOf[netSide] // held by the goroutine that polls
	parker
}

// init prepares s. A task of kindExternal is never queued: no worker polls it. It has a worker all
// the same, since the runtime of a task is known by its worker.
func (s *netSide) init(rt *Runtime) {
	s.token = newChan[struct{}](1)
	s.kind, s.body, s.w, s.cx.t = kindExternal, s, rt.workers[0], &s.task
}

// lock makes the caller the goroutine that polls, and returns the Context to poll with. It panics
// in a task: what is the call that it has made, and instead the call that it should make.
func (s *netSide) lock(what, instead string) *Context {
	mustNotBlock(what, instead)
	s.mu.Lock()
	return &s.cx
}

// Texts of the panics in a task; see netSide.lock.
const (
	insteadOfNetConn     = "the net.Conn of BindConn(cx, c)"
	acceptOfNetListener  = "Accept of a NetListener"
	insteadOfNetListener = "the listener's Accept(cx)"
)

// call runs f, a method of a connection of another package, with a Context of the calling
// goroutine. It holds mu, so that each Write is a whole here, too. The first word of the parameter
// what is the name of the operation.
func (s *netSide) call(what string, f func(cx *Context) (int, error)) (int, error) {
	rt := s.lock(what, insteadOfNetConn).t.w.rt
	defer s.mu.Unlock()
	n, err := BlockOn(rt, f)
	if err == ErrShutdown { // of BlockOn, which has not called f
		op, _, _ := strings.Cut(strings.ToLower(what), " ")
		err = &net.OpError{Op: op, Err: err}
	}
	return n, err
}

// read is the Read of a form.
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

// write is the Write of a form. It holds mu until all of p is written, so that no other Write of
// this form sends data in between. An empty p is polled once.
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

// until calls poll until its error is final, and parks while it is pending. poll stores its other
// results itself. until is for operations that are one system call, such as to send a message.
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

// accept is the Accept of a form.
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

// netRawConn is the syscall.RawConn of a connection that goroutines use. Its Read and Write wait.
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

// raw calls f, and again after each event, until f reports that it is done.
func (s *netSide) raw(src *pollFD, dir *direction, f func(fd uintptr) (done bool)) error {
	l := rawCallback{s: src, dir: dir, f: untilDone(f)}
	return s.until("RawConn of a NetConn", func(cx *Context) error {
		_, err := l.poll(cx)
		return err
	})
}
