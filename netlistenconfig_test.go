package async

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestListenConfigReusePort(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		shared := ListenConfig{ReusePort: true}
		a, err := shared.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer a.Close()
		b, err := shared.Listen(cx, "tcp", a.Addr().String())
		if err != nil {
			return err
		}
		defer b.Close()
		if _, err := Listen(cx, "tcp", a.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("without ReusePort: %v", err)
		}
		x, err := shared.ListenPacket(cx, "udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer x.Close()
		y, err := shared.ListenPacket(cx, "udp", x.LocalAddr().String())
		if err != nil {
			return err
		}
		return y.Close()
	}))
}

// There is one accept queue for each worker. The system distributes the connections, and each is
// accepted and served on the worker of the listener that has got it.
func TestListenEach(t *testing.T) {
	const workers, clients = 3, 90
	rt := newTestRuntime(t, Config{Workers: workers})
	var served [workers]atomic.Int32
	var lns []Listener
	require.NoError(t, runTask(rt, func(cx *Context) (err error) {
		lns, err = new(ListenConfig).ListenEach(cx, "tcp", "127.0.0.1:0", len(cx.Runtime().Workers()))
		return err
	}))
	require.Len(t, lns, workers)
	var acceptors []*JoinHandle[None]
	for i, s := range rt.Workers() {
		require.Equal(t, lns[0].Addr().String(), lns[i].Addr().String())
		acceptors = append(acceptors, Go(s.Named(fmt.Sprint("acceptor ", i)), func(cx *Context) error {
			if cx.Task().Name != fmt.Sprint("acceptor ", i) {
				return errors.New("it lost its name")
			}
			for {
				c, err := lns[i].Accept(cx)
				if err != nil {
					return nil
				}
				Go(Local(cx), func(cx *Context) error {
					defer c.Close()
					if cx.here() != rt.workers[i] || cx.here().index != i {
						return errors.New("served by another worker")
					}
					served[i].Add(1)
					return tcpWrite(cx, c, "x")
				})
			}
		}))
	}
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for range clients {
			c, err := Dial(cx, "tcp", lns[0].Addr().String())
			if err != nil {
				return err
			}
			err = errors.Join(tcpExpect(cx, c, "x"), tcpExpectEOF(cx, c), c.Close())
			if err != nil {
				return err
			}
		}
		return nil
	}))
	for _, l := range lns {
		require.NoError(t, l.Close())
	}
	total := int32(0)
	for i := range served {
		_, err := joinOrCancel(acceptors[i])
		require.NoError(t, err)
		n := served[i].Load()
		total += n
		if runtime.GOOS == "linux" {
			assert.Positive(t, n, "by chance once in 10^16 times")
		}
	}
	require.EqualValues(t, clients, total)
}

func TestListenEachFails(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		var addr *net.AddrError
		if ls, err := new(ListenConfig).ListenEach(cx, "unix", filepath.Join(netDir(t), "s"), 2); ls != nil || !errors.As(err, &addr) {
			return fmt.Errorf("unix: %v, %v", ls, err)
		}
		n := 0
		lc := ListenConfig{Control: func(string, string, syscall.RawConn) error {
			if n++; n == 3 {
				return os.ErrPermission
			}
			return nil
		}}
		if ls, err := lc.ListenEach(cx, "tcp", "127.0.0.1:0", 3); ls != nil || !errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("%v, %v", ls, err)
		}
		return nil
	}))
}

// Tasks of Workers stay on their worker, also plain futures. They are refused once the runtime
// drains.
func TestWorkersKeepTheirTasks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 3})
	all := rt.Workers()
	require.Len(t, all, 3)
	for i, s := range all {
		for range 20 {
			h := SpawnFuture(s, PollFunc(func(cx *Context) (int, error) { return cx.here().index, nil }))
			got, err := joinOrCancel(h)
			require.NoError(t, err)
			require.Equal(t, i, got)
		}
		h := Spawn(rt, func(cx *Context) (int, error) { // from a task on any worker
			return Spawn(s, func(cx *Context) (int, error) {
				inner := Spawn(Local(cx), func(cx *Context) (int, error) { return cx.here().index, nil })
				return inner.Join(cx)
			}).Join(cx)
		})
		got, err := joinOrCancel(h)
		require.NoError(t, err)
		require.Equal(t, i, got)
	}
	require.NoError(t, rt.Shutdown(ended()))
	_, err := joinOrCancel(Go(all[0], func(cx *Context) error { return nil }))
	require.ErrorIs(t, err, ErrShutdown)
}

func TestListenConfigBacklog(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		lc := ListenConfig{Backlog: 1}
		ln, err := lc.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		d := Dialer{Timeout: 50 * time.Millisecond}
		for range 64 { // the kernel may take more connections until it has counted the first
			c, err := d.Dial(cx, "tcp", ln.Addr().String())
			if errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			if err != nil {
				return err
			}
			defer c.Close()
		}
		return errors.New("64 connections in a backlog of one")
	}))
}

func TestListenConfigDeferAccept(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		lc := ListenConfig{DeferAccept: 90 * time.Second}
		ln, err := lc.Listen(cx, "tcp", "127.0.0.1:0")
		if runtime.GOOS != "linux" {
			if !errors.Is(err, errors.ErrUnsupported) {
				return fmt.Errorf("another system: %v", err)
			}
			return nil
		}
		if err != nil {
			return err
		}
		defer ln.Close()
		a, err := Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer a.Close()
		if _, err := ln.(*TCPListener).PollAccept(cx); err != ErrPending {
			return fmt.Errorf("before there is data: %v", err)
		}
		if err := tcpWrite(cx, a, "data"); err != nil {
			return err
		}
		b, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		defer b.Close()
		return tcpExpect(cx, b, "data")
	}))
}

func TestListenConfigControlAndKeepAlive(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		var seen []string
		lc := ListenConfig{
			KeepAlive: -1,
			Control: func(network, address string, c syscall.RawConn) (err error) {
				seen = append(seen, network, address)
				c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 23456) })
				return err
			},
		}
		dir := netDir(t)
		ln, err := lc.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		ul, err := lc.Listen(cx, "unix", filepath.Join(dir, "s"))
		if err != nil {
			return err
		}
		defer ul.Close()
		uc, err := lc.ListenPacket(cx, "udp", "[::1]:0")
		if err != nil {
			return err
		}
		defer uc.Close()
		gc, err := lc.ListenPacket(cx, "unixgram", filepath.Join(dir, "g"))
		if err != nil {
			return err
		}
		defer gc.Close()
		assert.Equal(t, []string{
			"tcp4", "127.0.0.1:0", "unix", filepath.Join(dir, "s"), "udp6", "[::1]:0", "unixgram", filepath.Join(dir, "g"),
		}, seen)

		a, b, err := netConnect(cx, ln)
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		assert.Zero(t, tcpOption(t, b.(*TCPConn), unix.SOL_SOCKET, unix.SO_KEEPALIVE))
		assert.NotZero(t, tcpOption(t, b.(*TCPConn), unix.IPPROTO_TCP, unix.TCP_NODELAY))

		lc.Control = func(string, string, syscall.RawConn) error { return os.ErrPermission }
		_, err = lc.Listen(cx, "unix", filepath.Join(dir, "t"))
		var op *net.OpError
		if !errors.Is(err, os.ErrPermission) || !errors.As(err, &op) || op.Op != "listen" {
			return fmt.Errorf("Control has refused, but: %v", err)
		}
		assert.NoFileExists(t, filepath.Join(dir, "t"))
		return nil
	}))
}
