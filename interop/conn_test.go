package interop

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"example.com/async"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

// newRuntime starts a runtime that is shut down when the test ends. The test fails if it leaves
// goroutines or descriptors behind.
func newRuntime(t testing.TB) *async.Runtime {
	t.Helper()
	leavesNothing(t)
	rt, err := async.New(async.Config{Workers: 2, Grace: 10 * time.Second, Stalled: func(async.Stall) {}})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := rt.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return rt
}

// networks has the networks on which the tests run, with the addresses to listen on.
var networks = []struct {
	name string
	addr func(t testing.TB) string
}{
	{"tcp", func(testing.TB) string { return "127.0.0.1:0" }},
	{"unix", func(t testing.TB) string { return filepath.Join(t.TempDir(), "socket") }},
}

// forms has the ways in which code that uses net.Conn can use a connection.
var forms = []struct {
	name string
	wrap func(rt *async.Runtime, c async.Conn) net.Conn
}{
	{"goroutines", func(rt *async.Runtime, c async.Conn) net.Conn { return async.NetConn(rt, c) }},
	{"goroutines-other-maker", func(rt *async.Runtime, c async.Conn) net.Conn { return async.NetConn(rt, otherConn{c}) }},
	{"bound-in-tasks", func(rt *async.Runtime, c async.Conn) net.Conn { return taskConn{c, rt} }},
	{"bound-in-BlockOn", func(rt *async.Runtime, c async.Conn) net.Conn { return blockOnConn{c, rt} }},
}

// otherConn hides the type of a connection, like a Conn of another package.
type otherConn struct{ async.Conn }

// taskConn makes each call on the bound form of the connection, in a task of its own.
type taskConn struct {
	async.Conn
	rt *async.Runtime
}

func (c taskConn) Read(p []byte) (int, error) {
	return c.do(func(bound net.Conn) (int, error) { return bound.Read(p) })
}

func (c taskConn) Write(p []byte) (int, error) {
	return c.do(func(bound net.Conn) (int, error) { return bound.Write(p) })
}

// do makes a call in a task. It returns n also if there is an error: the result of a task has both.
func (c taskConn) do(call func(net.Conn) (int, error)) (int, error) {
	return async.Spawn(c.rt, func(cx *async.Context) (int, error) {
		return call(async.BindConn(cx, c.Conn))
	}).JoinBlocking(context.Background())
}

// blockOnConn makes each call on the bound form, with BlockOn on the goroutine of the caller.
type blockOnConn struct {
	async.Conn
	rt *async.Runtime
}

func (c blockOnConn) Read(p []byte) (int, error) {
	return async.BlockOn(c.rt, func(cx *async.Context) (int, error) { return async.BindConn(cx, c.Conn).Read(p) })
}

func (c blockOnConn) Write(p []byte) (int, error) {
	return async.BlockOn(c.rt, func(cx *async.Context) (int, error) { return async.BindConn(cx, c.Conn).Write(p) })
}

// pair returns the two ends of a connection.
func pair(rt *async.Runtime, network, addr string) (a, b async.Conn, err error) {
	_, err = async.Go(rt, func(cx *async.Context) error {
		ln, err := async.Listen(cx, network, addr)
		if err != nil {
			return err
		}
		defer ln.Close()
		if a, err = async.Dial(cx, network, ln.Addr().String()); err != nil {
			return err
		}
		b, err = ln.Accept(cx)
		return err
	}).JoinBlocking(context.Background())
	return a, b, err
}

// each runs test on every form of the connections of every network, and of the connections of
// SocketPair.
func each(t *testing.T, test func(t *testing.T, makePipe nettest.MakePipe)) {
	pairs := map[string]func(*async.Runtime) (a, b async.Conn, err error){
		"socketpair": func(*async.Runtime) (async.Conn, async.Conn, error) { return async.SocketPair() },
	}
	for _, network := range networks {
		pairs[network.name] = func(rt *async.Runtime) (async.Conn, async.Conn, error) {
			return pair(rt, network.name, network.addr(t))
		}
	}
	for name, pair := range pairs {
		for _, form := range forms {
			t.Run(name+"/"+form.name, func(t *testing.T) {
				rt := newRuntime(t)
				test(t, func() (c1, c2 net.Conn, stop func(), err error) {
					a, b, err := pair(rt)
					if err != nil {
						return nil, nil, nil, err
					}
					return form.wrap(rt, a), form.wrap(rt, b), func() { a.Close(); b.Close() }, nil
				})
			})
		}
	}
}

func TestConn(t *testing.T) {
	each(t, func(t *testing.T, makePipe nettest.MakePipe) { nettest.TestConn(t, makePipe) })
}

// A listener behaves like a listener of package net: for example, Accept always returns a
// connection or an error.
func TestListener(t *testing.T) {
	for _, network := range networks {
		t.Run(network.name, func(t *testing.T) {
			rt := newRuntime(t)
			ln, err := rt.ListenNet(network.name, network.addr(t))
			require.NoError(t, err)
			std, err := net.Listen(network.name, network.addr(t))
			require.NoError(t, err)
			defer std.Close()
			require.Equal(t, std.Addr().Network(), ln.Addr().Network())
			require.IsType(t, std.Addr(), ln.Addr())

			type accepted struct {
				c   net.Conn
				err error
			}
			results := make(chan accepted, 100)
			const acceptors, conns = 8, 20
			for range acceptors {
				go func() {
					for {
						c, err := ln.Accept()
						results <- accepted{c, err}
						if err != nil {
							return
						}
					}
				}()
			}
			for range conns {
				c, err := net.Dial(network.name, ln.Addr().String())
				require.NoError(t, err)
				defer c.Close()
				r := <-results
				require.NoError(t, r.err)
				require.NotNil(t, r.c)
				require.IsType(t, c.LocalAddr(), r.c.RemoteAddr())
				require.Equal(t, c.LocalAddr().String(), r.c.RemoteAddr().String())
				require.Equal(t, c.RemoteAddr().String(), r.c.LocalAddr().String())
				require.NoError(t, r.c.Close())
			}
			require.NoError(t, ln.Close())
			for range acceptors {
				r := <-results
				require.Nil(t, r.c)
				require.ErrorIs(t, r.err, net.ErrClosed)
				var op *net.OpError
				require.True(t, errors.As(r.err, &op))
			}
			require.ErrorIs(t, ln.Close(), net.ErrClosed)
		})
	}
}
