package async

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// wrapped counts the bytes that have passed through the methods of a wrapper.
type wrapped struct{ read, wrote atomic.Int64 }

// tlsLike embeds the interface. It transforms the data that it reads and writes, and reads ahead.
type tlsLike struct {
	Conn
	*wrapped
	ahead []byte
}

func (c *tlsLike) Read(cx *Context, p []byte) (int, error) {
	if len(c.ahead) == 0 {
		buf := make([]byte, 64)
		n, err := c.Conn.Read(cx, buf)
		if err != nil {
			return 0, err
		}
		c.ahead = buf[:n]
	}
	n := copy(p[:min(len(p), 2)], c.ahead)
	c.ahead = c.ahead[n:]
	for i := range n {
		p[i]++
	}
	c.read.Add(int64(n))
	return n, nil
}

func (c *tlsLike) Write(cx *Context, p []byte) (int, error) {
	sealed := make([]byte, len(p))
	for i := range p {
		sealed[i] = p[i] + 2
	}
	n, err := c.Conn.Write(cx, sealed)
	c.wrote.Add(int64(n))
	return n, err
}

// counting embeds a connection of this package, and so has all other methods of that connection.
type counting struct {
	*TCPConn
	*wrapped
}

func (c *counting) Read(cx *Context, p []byte) (int, error) {
	n, err := c.TCPConn.Read(cx, p)
	c.read.Add(int64(n))
	return n, err
}

func (c *counting) Write(cx *Context, p []byte) (int, error) {
	n, err := c.TCPConn.Write(cx, p)
	c.wrote.Add(int64(n))
	return n, err
}

// limiting reads and writes at most one byte in each call to the connection.
type limiting struct {
	Conn
	*wrapped
}

func (c *limiting) Read(cx *Context, p []byte) (int, error) {
	n, err := c.Conn.Read(cx, p[:min(len(p), 1)])
	c.read.Add(int64(n))
	return n, err
}

func (c *limiting) Write(cx *Context, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.Conn.Write(cx, p[n:n+1])
		c.wrote.Add(int64(m))
		n += m
	}
	return n, err
}

var wrappers = map[string]struct {
	wrap func(c Conn, w *wrapped) Conn
	adds byte // to each byte that is echoed
}{
	"TLS-like": {func(c Conn, w *wrapped) Conn { return &tlsLike{Conn: c, wrapped: w} }, 3},
	"counting": {func(c Conn, w *wrapped) Conn { return &counting{c.(*TCPConn), w} }, 0},
	"limiting": {func(c Conn, w *wrapped) Conn { return &limiting{c, w} }, 0},
}

// wrappingListener has the methods of a TCPListener, and an Accept of its own.
type wrappingListener struct {
	*TCPListener
	wrap func(c Conn) Conn
}

func (l *wrappingListener) Accept(cx *Context) (Conn, error) {
	c, err := l.TCPListener.Accept(cx)
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}

// wrappedEchoes are the ways to make a connection and to use it. Each accepts one connection of ln
// and echoes until its end.
var wrappedEchoes = map[string]func(t *testing.T, rt *Runtime, ln Listener) error{
	"Accept, Read, Write": inOneTask(echoAccepted(func(cx *Context, c Conn) error {
		for {
			if keep, err := echoOnce(cx, c); !keep || err != nil {
				return err
			}
		}
	})),
	"BindConn": inOneTask(echoAccepted(func(cx *Context, c Conn) error {
		b := BindConn(cx, c)
		_, err := io.Copy(b, b)
		return err
	})),
	"BindReader, BindWriter": inOneTask(echoAccepted(func(cx *Context, c Conn) error {
		_, err := io.Copy(BindWriter(cx, c), BindReader(cx, c))
		return err
	})),
	"Copy":  inOneTask(echoAccepted(func(cx *Context, c Conn) error { _, err := Copy(cx, c, c); return err })),
	"CopyN": inOneTask(echoAccepted(func(cx *Context, c Conn) error { _, err := CopyN(cx, c, c, 1000); return err })),
	"a process": inOneTask(echoAccepted(func(cx *Context, c Conn) error {
		cmd := Command("cat")
		cmd.Stdin, cmd.Stdout = BindConn(cx, c), BindConn(cx, c)
		return cmd.Run(cx)
	})),
	"Serve": func(t *testing.T, rt *Runtime, ln Listener) error {
		ends := make(chan error, 1)
		server := startServe(rt, &Server{Handler: func(cx *Context, c Conn) (bool, error) {
			keep, err := echoOnce(cx, c)
			if !keep || err != nil {
				ends <- err
			}
			return keep, err
		}}, ln)
		err := receive(t, ends)
		server.Cancel()
		_, serveErr := joinOrCancel(server)
		return errors.Join(err, expect(errors.Is(serveErr, ErrServerClosed), "Serve: %v", serveErr))
	},
	"NetConn": func(t *testing.T, rt *Runtime, ln Listener) error {
		c, err := BlockOn(rt, ln.Accept)
		if err != nil {
			return err
		}
		return echoNet(NetConn(rt, c))
	},
	"NetListener": func(t *testing.T, rt *Runtime, ln Listener) error {
		c, err := NetListener(rt, ln).Accept()
		if err != nil {
			return err
		}
		return echoNet(c)
	},
	"Incoming.All": inOneTask(func(cx *Context, ln Listener) error {
		for c, err := range Incoming(ln).All(cx) {
			if err != nil {
				return err
			}
			return echoAndClose(cx, c)
		}
		return io.ErrUnexpectedEOF
	}),
	"Incoming in Select": inOneTask(func(cx *Context, ln Listener) error {
		never := NewChan[int](1)
		next := OnNext(Incoming(ln))
		if i, err := Select(cx, OnRecv(never), next); i != 1 || err != nil {
			return errors.Join(err, expect(false, "case %d", i))
		}
		c, err := next.Result()
		if err != nil {
			return err
		}
		return echoAndClose(cx, c)
	}),
	"Incoming, polled": inOneTask(func(cx *Context, ln Listener) error {
		in := Incoming(ln)
		c, err := SpawnFuture(cx, PollFunc(in.PollNext)).Join(cx)
		if err != nil {
			return err
		}
		return echoAndClose(cx, c)
	}),
}

// inOneTask runs f in a task.
func inOneTask(f func(cx *Context, ln Listener) error) func(t *testing.T, rt *Runtime, ln Listener) error {
	return func(t *testing.T, rt *Runtime, ln Listener) error {
		return runTask(rt, func(cx *Context) error { return f(cx, ln) })
	}
}

// echoAccepted accepts a connection for echo.
func echoAccepted(echo func(cx *Context, c Conn) error) func(cx *Context, ln Listener) error {
	return func(cx *Context, ln Listener) error {
		c, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		defer c.Close()
		return echo(cx, c)
	}
}

func echoAndClose(cx *Context, c Conn) error {
	defer c.Close()
	_, err := Copy(cx, c, c)
	return err
}

func echoNet(c net.Conn) error {
	defer c.Close()
	_, err := io.Copy(c, c)
	return err
}

// Every way to make a connection and to use it calls the methods of a type that wraps the
// connection.
func TestWrappersAreRespected(t *testing.T) {
	sent := strings.Repeat("0123456789", 100)
	for kind, w := range wrappers {
		for path, echo := range wrappedEchoes {
			t.Run(strings.ReplaceAll(kind+", "+path, " ", "_"), func(t *testing.T) {
				rt := newTestRuntime(t, Config{Workers: 2})
				counts := new(wrapped)
				ln := &wrappingListener{tcpListen(t), func(c Conn) Conn { return w.wrap(c, counts) }}
				got := make(chan string, 1)
				client := later(func() (int, error) {
					c, err := net.Dial("tcp", ln.Addr().String())
					if err != nil {
						return 0, err
					}
					defer c.Close()
					if _, err := io.WriteString(c, sent); err != nil {
						return 0, err
					}
					if err := c.(*net.TCPConn).CloseWrite(); err != nil {
						return 0, err
					}
					b, err := io.ReadAll(c)
					got <- string(b)
					return 0, err
				})
				require.NoError(t, echo(t, rt, ln))
				require.NoError(t, soon(t, client).err)
				want := []byte(sent)
				for i := range want {
					want[i] += w.adds
				}
				require.Equal(t, string(want), receive(t, got))
				require.EqualValues(t, len(sent), counts.read.Load(), "bytes read by the wrapper")
				require.EqualValues(t, len(sent), counts.wrote.Load(), "bytes written by it")
			})
		}
	}
}

// A method that a wrapper has stays visible: the writing side can be closed through the forms for
// the standard library, if the wrapper has CloseWrite.
func TestWrappersCloseWrite(t *testing.T) {
	type closer interface{ CloseWrite() error }
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	with, without := &counting{a, new(wrapped)}, &limiting{b, new(wrapped)}
	runInTask(t, rt, func(cx *Context) error {
		for _, c := range []net.Conn{BindConn(cx, without), NetConn(rt, without)} {
			_, has := c.(closer)
			require.False(t, has, "%T", c)
		}
		_, has := NetConn(rt, with).(closer)
		require.True(t, has)
		require.NoError(t, BindConn(cx, with).(closer).CloseWrite())
		_, err := b.Read(cx, make([]byte, 1))
		require.Equal(t, io.EOF, err)
		return nil
	})
}

// If a stream is given up while the Accept of a listener of another package has a connection, the
// stream keeps the connection. The Accept ends with the stream.
func TestIncomingOfAWrapperGivenUp(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := &wrappingListener{tcpListen(t), func(c Conn) Conn { return otherConn{c} }}
	in := Incoming(ln)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for range 3 {
			gone, cancel := cx.WithCancel()
			room := NewChan[None](1)
			room.TrySend(None{})
			if i, err := SelectInOrder(cx, OnNext(in), OnRecv(room)); i != 1 || err != nil {
				return errors.Join(err, expect(false, "case %d", i))
			}
			cancel()
			for _, err := range in.All(gone) {
				if !errors.Is(err, gone.Err()) {
					return err
				}
			}
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			for accepted, err := range in.All(cx) {
				if err != nil {
					return err
				}
				if _, ok := accepted.(otherConn); !ok {
					return expect(false, "%T", accepted)
				}
				accepted.Close()
				break
			}
		}
		return nil
	}))
	eventually(t, func() bool { return len(rt.Tasks()) == 0 })
}

// Close of the stream closes a connection that was accepted when the stream was given up.
func TestIncomingCloses(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for name, wrap := range map[string]func(c Conn) Conn{"wrapped": func(c Conn) Conn { return otherConn{c} }} {
		accepted := make(chan Conn, 1)
		ln := &wrappingListener{tcpListen(t), func(c Conn) Conn { accepted <- c; return wrap(c) }}
		in := Incoming(ln)
		require.NoError(t, runTask(rt, func(cx *Context) error {
			if i := trySelect(cx, OnNext(in)); i != -1 {
				return expect(false, "case %d", i)
			}
			c, err := Dial(cx, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			for len(accepted) == 0 { // the Accept may have been given up before it began
				if _, err := in.PollNext(cx); err != ErrPending {
					return expect(false, "PollNext: %v", err)
				}
				if err := Yield(cx); err != nil {
					return err
				}
			}
			if err := in.Close(); err != nil {
				return err
			}
			_, end := c.Read(cx, make([]byte, 1))
			_, after := Await(cx, PollFunc(in.PollNext))
			n := 0
			for range in.All(cx) {
				n++
			}
			return errors.Join(expect(end == io.EOF, "the client reads %v", end), expect(after == io.EOF && n == 0, "after Close: %v, %d", after, n),
				expect(in.Close() == ErrClosed, "a second Close"))
		}), name)
	}
	require.Contains(t, misuse(func() { Incoming(nil) }), "an IncomingStream that was not made by Incoming")
}
