package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVectoredWritesAndReads(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := tcpPair(t, rt)
	tcpShrink(t, a, b)
	const buffers, each = 3000, 1500 // more than one call takes; more bytes than the system holds
	total := buffers * each
	writer := Go(rt, func(cx *Context) error {
		var bufs net.Buffers
		for i := range buffers {
			p := make([]byte, each)
			tcpPattern(p, i*each, 5)
			bufs = append(bufs, p, nil)
		}
		n, err := a.WriteBuffers(cx, &bufs)
		if n != int64(total) || err != nil || len(bufs) != 0 {
			return fmt.Errorf("wrote %d, %v, and %d buffers are left", n, err, len(bufs))
		}
		return a.CloseWrite()
	})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		got, want := make([]byte, 3000), make([]byte, 3000)
		for off := 0; ; {
			n, err := b.ReadBuffers(cx, net.Buffers{got[:7], nil, got[7:1000], got[1000:]})
			tcpPattern(want, off, 5)
			if string(got[:n]) != string(want[:n]) {
				return fmt.Errorf("wrong data between %d and %d", off, off+int(n))
			}
			off += int(n)
			if err == io.EOF && off == total {
				return nil
			}
			if err != nil {
				return fmt.Errorf("after %d of %d bytes: %w", off, total, err)
			}
		}
	}))
	_, err := joinOrCancel(writer)
	require.NoError(t, err)
}

// A cancelled WriteBuffers removes the data that it has written from the buffers. So the rest can
// be written later.
func TestVectoredWriteCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := unixPair(t)
	const total = 8 << 20
	whole := make([]byte, total)
	tcpPattern(whole, 0, 6)
	bufs := net.Buffers{whole[:3], whole[3 : total/2], nil, whole[total/2:]}
	h := Spawn(rt, func(cx *Context) (int64, error) { return a.WriteBuffers(cx, &bufs) })
	eventually(t, func() bool { return directionWaits(&a.src.wr) })
	h.Cancel()
	n, err := joinOrCancel(h)
	require.ErrorIs(t, err, context.Canceled)
	left := 0
	for _, p := range bufs {
		left += len(p)
	}
	require.EqualValues(t, total, n+int64(left))
	rest := Go(rt, func(cx *Context) error {
		if _, err := a.WriteBuffers(cx, &bufs); err != nil {
			return err
		}
		return a.CloseWrite()
	})
	require.NoError(t, runTask(rt, func(cx *Context) error { return tcpReceive(cx, b, total, 6) }))
	_, err = joinOrCancel(rest)
	require.NoError(t, err)
}

func TestVectoredNothing(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := unixPair(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		empty := net.Buffers{nil, {}}
		if n, err := a.WriteBuffers(cx, &empty); n != 0 || err != nil || len(empty) != 0 {
			return fmt.Errorf("%d, %v, %d left", n, err, len(empty))
		}
		if n, err := b.ReadBuffers(cx, net.Buffers{nil}); n != 0 || err != nil {
			return fmt.Errorf("%d, %v", n, err)
		}
		if n, err := b.pollReadBuffers(cx, net.Buffers{make([]byte, 1)}); n != 0 || err != ErrPending {
			return fmt.Errorf("%d, %v", n, err)
		}
		a.Close()
		if n, err := b.ReadBuffers(cx, net.Buffers{make([]byte, 1)}); n != 0 || err != io.EOF {
			return fmt.Errorf("%d, %v", n, err)
		}
		some := net.Buffers{[]byte("x")}
		if _, err := b.WriteBuffers(cx, &some); !errors.Is(err, syscall.EPIPE) {
			return err
		}
		b.Close()
		if _, err := b.WriteBuffers(cx, &some); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}))
}

func TestVectoredPartOfOneCall(t *testing.T) {
	many := make(net.Buffers, maxBuffers+1)
	for i := range many {
		many[i] = []byte{1}
	}
	some, size := oneCall(many)
	require.Len(t, some, maxBuffers)
	require.Equal(t, maxBuffers, size)
	some, size = oneCall(nil)
	require.Empty(t, some)
	require.Zero(t, size)
}

func TestTCPTTLPeekAndBuffers(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
			ln, err := Listen(cx, "tcp", address)
			if err != nil {
				return err
			}
			defer ln.Close()
			port := ln.Addr().(*net.TCPAddr).Port
			host, _, _ := net.SplitHostPort(address)
			c, err := Dial(cx, "tcp", net.JoinHostPort(host, fmt.Sprint(port)))
			if err != nil {
				return err
			}
			defer c.Close()
			d, err := ln.Accept(cx)
			if err != nil {
				return err
			}
			defer d.Close()
			for _, c := range []Conn{c, d} {
				tc := c.(*TCPConn)
				if err := tc.SetTTL(7); err != nil {
					return err
				}
				if n, err := tc.TTL(); n != 7 || err != nil {
					return fmt.Errorf("TTL %d, %v", n, err)
				}
				if err := errors.Join(tc.SetReadBuffer(64<<10), tc.SetWriteBuffer(64<<10)); err != nil {
					return err
				}
			}
			if err := tcpWrite(cx, c, "peek"); err != nil {
				return err
			}
			p := make([]byte, 2)
			for range 2 {
				if n, err := d.(*TCPConn).Peek(cx, p); string(p[:n]) != "pe" || err != nil {
					return fmt.Errorf("%q, %v", p[:n], err)
				}
			}
			if err := tcpExpect(cx, d, "peek"); err != nil {
				return err
			}
			if n, err := d.(*TCPConn).pollPeek(cx, p); n != 0 || err != ErrPending {
				return fmt.Errorf("%d, %v", n, err)
			}
			c.Close()
			if n, err := d.(*TCPConn).Peek(cx, p); n != 0 || err != io.EOF {
				return fmt.Errorf("%d, %v", n, err)
			}
		}
		return nil
	}))
}

// Polling does not allocate, and neither do reads and writes that await.
func TestStreamAllocations(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	p := []byte("message")
	q := make([]byte, len(p)) // a full read proves nothing, so the next read makes a call
	require.NoError(t, runBlockOn(rt, func(cx *Context) error {
		var failed error
		for name, f := range map[string]func() (int, error){
			"poll": func() (n int, err error) {
				a.PollWrite(cx, p)
				for n, err = b.PollRead(cx, q); err == ErrPending; n, err = b.PollRead(cx, q) {
					runtime.Gosched() // the data has not arrived yet
				}
				return n, err
			},
			"wait": func() (int, error) { a.Write(cx, p); return b.Read(cx, q) },
		} {
			allocs := testing.AllocsPerRun(100, func() {
				if n, err := f(); n != len(p) || err != nil {
					failed = fmt.Errorf("%s: %d, %w", name, n, err)
				}
			})
			assert.Zero(t, allocs, name)
		}
		return failed
	}))
}
