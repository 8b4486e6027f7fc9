package async

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/async/internal/sys"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// tcpWays are the kinds of code that can await.
var tcpWays = []struct {
	name string
	run  func(rt *Runtime, fn func(cx *Context) error) error
}{
	{"task", runTask},
	{"goroutine", runBlockOn},
}

// tcpEcho is the plain future of an echo server's connection.
type tcpEcho struct {
	c      PollConn
	buf    [64]byte
	off, n int
}

func (e *tcpEcho) Poll(cx *Context) (None, error) {
	for {
		for e.off < e.n {
			m, err := e.c.PollWrite(cx, e.buf[e.off:e.n])
			e.off += m
			if err != nil {
				return e.end(err)
			}
		}
		n, err := e.c.PollRead(cx, e.buf[:])
		if err != nil {
			return e.end(err)
		}
		e.off, e.n = 0, n
	}
}

func (e *tcpEcho) end(err error) (None, error) {
	if err == ErrPending {
		return None{}, err
	}
	if err == io.EOF {
		err = nil
	}
	return None{}, errors.Join(err, e.c.Close())
}

func (e *tcpEcho) Cancel() { e.c.Close() }

// tcpAsk is the plain future of a client: it sends messages one by one and
// wants each of them back.
type tcpAsk struct {
	c        PollConn
	messages []string
	sent     int
	got      []byte
}

func (a *tcpAsk) Poll(cx *Context) (None, error) {
	for len(a.messages) > 0 {
		m := a.messages[0]
		for a.sent < len(m) {
			n, err := a.c.PollWrite(cx, []byte(m[a.sent:]))
			a.sent += n
			if err != nil {
				return None{}, err
			}
		}
		for len(a.got) < len(m) {
			buf := make([]byte, len(m)-len(a.got))
			n, err := a.c.PollRead(cx, buf)
			a.got = append(a.got, buf[:n]...)
			if err != nil {
				return None{}, err
			}
		}
		if string(a.got) != m {
			return None{}, fmt.Errorf("got %q, want %q", a.got, m)
		}
		a.messages, a.sent, a.got = a.messages[1:], 0, nil
	}
	return None{}, a.c.Close()
}

// tcpMessages are of lengths around those of tcpEcho's buffer and beyond.
func tcpMessages(id int) (ms []string) {
	for _, n := range []int{1, 2, 63, 64, 65, 1000, 40000} {
		ms = append(ms, strings.Repeat(strconv.Itoa(id), n)[:n])
	}
	return ms
}

func tcpAskAll(c net.Conn, messages []string) error {
	defer c.Close()
	for _, m := range messages {
		if _, err := io.WriteString(c, m); err != nil {
			return err
		}
		got := make([]byte, len(m))
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if string(got) != m {
			return fmt.Errorf("got %q, want %q", got, m)
		}
	}
	return nil
}

func TestTCPEcho(t *testing.T) {
	const conns = 4
	type server func(t *testing.T, rt *Runtime, ln *TCPListener)
	type client func(rt *Runtime, addr string, messages []string) error

	copyBack := func(cx *Context, c Conn) error {
		defer c.Close()
		_, err := io.Copy(BindConn(cx, c), BindConn(cx, c))
		return err
	}
	servers := map[string]server{
		"task": func(t *testing.T, rt *Runtime, ln *TCPListener) {
			assert.NoError(t, runTask(rt, func(cx *Context) error {
				var hs []*JoinHandle[None]
				for range conns {
					c, err := ln.Accept(cx)
					if err != nil {
						return err
					}
					hs = append(hs, Go(cx, func(cx *Context) error { return copyBack(cx, c) }))
				}
				for _, h := range hs {
					if _, err := h.Join(cx); err != nil {
						return err
					}
				}
				return nil
			}))
		},
		"future": func(t *testing.T, rt *Runtime, ln *TCPListener) {
			var hs []*JoinHandle[None]
			_, err := joinOrCancel(SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
				for len(hs) < conns {
					c, err := ln.PollAccept(cx)
					if err != nil {
						return None{}, err
					}
					hs = append(hs, SpawnFuture(cx, &tcpEcho{c: c.(PollConn)}))
				}
				return None{}, nil
			})))
			assert.NoError(t, err)
			for _, h := range hs {
				_, err := joinOrCancel(h)
				assert.NoError(t, err)
			}
		},
		"goroutine": func(t *testing.T, rt *Runtime, ln *TCPListener) {
			var wg sync.WaitGroup
			for range conns {
				wg.Go(func() {
					assert.NoError(t, runBlockOn(rt, func(cx *Context) error {
						c, err := ln.Accept(cx)
						if err != nil {
							return err
						}
						return copyBack(cx, c)
					}))
				})
			}
			wg.Wait()
		},
	}
	clients := map[string]client{
		"task": func(rt *Runtime, addr string, messages []string) error {
			return runTask(rt, func(cx *Context) error {
				c, err := Dial(cx, "tcp", addr)
				if err != nil {
					return err
				}
				return tcpAskAll(BindConn(cx, c), messages)
			})
		},
		"future": func(rt *Runtime, addr string, messages []string) error {
			return runTask(rt, func(cx *Context) error {
				c, err := Dial(cx, "tcp", addr)
				if err != nil {
					return err
				}
				_, err = SpawnFuture(cx, &tcpAsk{c: c.(PollConn), messages: messages}).Join(cx)
				return err
			})
		},
		"goroutine": func(rt *Runtime, addr string, messages []string) error {
			return runBlockOn(rt, func(cx *Context) error {
				c, err := Dial(cx, "tcp", addr)
				if err != nil {
					return err
				}
				return tcpAskAll(BindConn(cx, c), messages)
			})
		},
		"net": func(_ *Runtime, addr string, messages []string) error {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return err
			}
			c.SetDeadline(time.Now().Add(patience))
			return tcpAskAll(c, messages)
		},
	}
	for sname, serve := range servers {
		for cname, ask := range clients {
			t.Run(sname+" serves "+cname, func(t *testing.T) {
				rt := newTestRuntime(t, Config{Workers: 2})
				ln := tcpListen(t)
				var wg sync.WaitGroup
				for i := range conns {
					wg.Go(func() { assert.NoError(t, ask(rt, ln.Addr().String(), tcpMessages(i))) })
				}
				serve(t, rt, ln)
				wg.Wait()
			})
		}
	}
}

func TestTCPServesNetClientsLineByLine(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := tcpListen(t)
	server := Go(rt, func(cx *Context) error {
		c, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		defer c.Close()
		std := BindConn(cx, c)
		w := bufio.NewWriter(std)
		for lines := bufio.NewScanner(std); lines.Scan(); {
			fmt.Fprintf(w, "<%s>\n", lines.Text())
			if err := w.Flush(); err != nil {
				return err
			}
		}
		return nil
	})
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	for i := range 100 {
		fmt.Fprintf(c, "line %d\n", i)
		got, err := r.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("<line %d>\n", i), got)
	}
	c.Close()
	_, err = joinOrCancel(server)
	require.NoError(t, err)
}

func TestTCPTLS(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	cert, pool := tcpCertificate(t)
	a, b := tcpPair(t, rt)
	server := Go(rt, func(cx *Context) error {
		c := tls.Server(BindConn(cx, b), &tls.Config{Certificates: []tls.Certificate{cert}})
		if _, err := io.Copy(c, c); err != nil {
			return err
		}
		return c.Close()
	})
	client := Go(rt, func(cx *Context) error {
		c := tls.Client(BindConn(cx, a), &tls.Config{RootCAs: pool, ServerName: "async.test"})
		for _, m := range tcpMessages(7) {
			if _, err := io.WriteString(c, m); err != nil {
				return err
			}
			got := make([]byte, len(m))
			if _, err := io.ReadFull(c, got); err != nil {
				return err
			}
			if string(got) != m {
				return errors.New("the echo differs")
			}
		}
		if err := c.CloseWrite(); err != nil {
			return err
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			return fmt.Errorf("got %d, %v after the close notification", n, err)
		}
		return c.Close()
	})
	_, err := joinOrCancel(client)
	require.NoError(t, err)
	_, err = joinOrCancel(server)
	require.NoError(t, err)
}

// tcpCertificate returns a self-signed certificate for async.test.
func tcpCertificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"async.test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTCPHalfClose(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := tcpPair(t, rt)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if err := tcpWrite(cx, a, "question"); err != nil {
			return err
		}
		if err := a.CloseWrite(); err != nil {
			return err
		}
		if err := tcpExpect(cx, b, "question"); err != nil {
			return err
		}
		for range 3 { // a read after the end returns the end again
			if err := tcpExpectEOF(cx, b); err != nil {
				return err
			}
		}
		for i := range 3 {
			answer := fmt.Sprintf("answer %d", i)
			if err := tcpWrite(cx, b, answer); err != nil {
				return err
			}
			if err := tcpExpect(cx, a, answer); err != nil {
				return err
			}
		}
		if err := b.CloseWrite(); err != nil {
			return err
		}
		return tcpExpectEOF(cx, a)
	}))
}

func TestTCPCloseWriteWakesReader(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := tcpPair(t, rt)
	h := Go(rt, func(cx *Context) error { return tcpExpectEOF(cx, b) })
	eventually(t, func() bool { return directionWaits(&b.src.rd) })
	require.NoError(t, a.CloseWrite())
	_, err := joinOrCancel(h)
	require.NoError(t, err)
}

func TestTCPCloseRead(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := tcpPair(t, rt)
	h := Go(rt, func(cx *Context) error { return tcpExpectEOF(cx, a) })
	eventually(t, func() bool { return directionWaits(&a.src.rd) })
	require.NoError(t, a.CloseRead())
	_, err := joinOrCancel(h)
	require.NoError(t, err, "a read under way ends")
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if err := tcpExpectEOF(cx, a); err != nil {
			return err
		}
		if err := tcpWrite(cx, a, "still writing"); err != nil {
			return err
		}
		return tcpExpect(cx, b, "still writing")
	}))
}

// tcpShrink makes the buffers of a connection small, so that a write of any
// size fills them.
func tcpShrink(t testing.TB, cs ...*TCPConn) {
	t.Helper()
	for _, c := range cs {
		require.NoError(t, c.setOption(unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10))
		require.NoError(t, c.setOption(unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10))
	}
}

// tcpPattern fills p with the bytes at offset off of an endless sequence
// that does not repeat soon.
func tcpPattern(p []byte, off int, seed byte) {
	for i := range p {
		x := uint32(off + i)
		p[i] = byte(x*2654435761>>24) ^ byte(x>>16) ^ seed
	}
}

// tcpReceive reads total bytes and the end, and compares them with the pattern.
func tcpReceive(cx *Context, c Conn, total int, seed byte) error {
	got, want := make([]byte, 30000), make([]byte, 30000)
	for off := 0; ; {
		n, err := c.Read(cx, got)
		tcpPattern(want[:n], off, seed)
		if !bytes.Equal(got[:n], want[:n]) {
			return fmt.Errorf("wrong data between %d and %d", off, off+n)
		}
		off += n
		if err == io.EOF && off == total {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", off, total, err)
		}
	}
}

func TestTCPLargeTransferBothWays(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := tcpPair(t, rt)
	tcpShrink(t, a, b)
	total := 8 << 20
	if testing.Short() {
		total = 2 << 20
	}
	const chunk = 200_000 // not a divisor of total, and more than the buffers hold

	var partial, pending int
	poller := SpawnFuture(rt, tcpSender(a, total, chunk, 1, &partial, &pending))
	eventually(t, func() bool { return waiting(poller) }, "nobody reads, so the buffers are full")
	writer := Go(rt, func(cx *Context) error {
		p := make([]byte, chunk)
		for off := 0; off < total; off += chunk {
			p := p[:min(chunk, total-off)]
			tcpPattern(p, off, 2)
			if n, err := b.Write(cx, p); n != len(p) || err != nil {
				return fmt.Errorf("wrote %d of %d: %w", n, len(p), err)
			}
		}
		return b.CloseWrite()
	})
	atB := Go(rt, func(cx *Context) error { return tcpReceive(cx, b, total, 1) })
	atA := Go(rt, func(cx *Context) error { return tcpReceive(cx, a, total, 2) })
	for _, h := range []*JoinHandle[None]{poller, writer, atA, atB} {
		_, err := joinOrCancel(h)
		assert.NoError(t, err)
	}
	require.Positive(t, partial+pending, "no write was partial or had to wait: the buffers were not full")
}

// tcpSender is a plain future that sends the pattern and closes the writing side.
func tcpSender(c *TCPConn, total, chunk int, seed byte, partial, pending *int) Future[None] {
	off := 0
	p := make([]byte, chunk)
	return PollFunc(func(cx *Context) (None, error) {
		for off < total {
			p := p[:min(chunk, total-off)]
			tcpPattern(p, off, seed)
			n, err := c.PollWrite(cx, p)
			off += n
			if err == ErrPending {
				*pending++
			}
			if err != nil {
				return None{}, err
			}
			if n < len(p) {
				*partial++
			}
		}
		return None{}, c.CloseWrite()
	})
}

// tcpTimeout returns an error unless err is a timeout, as package net defines it, and the deadline
// has passed.
func tcpTimeout(err error, deadline time.Time) error {
	var ne net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		return fmt.Errorf("got %v, want a timeout", err)
	}
	if time.Now().Before(deadline) {
		return errors.New("the deadline was not waited for")
	}
	return nil
}

func TestTCPDeadlines(t *testing.T) {
	const soon = 20 * time.Millisecond
	for _, way := range tcpWays {
		t.Run(way.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			a, b := tcpPair(t, rt)
			ln := tcpListen(t)
			buf, large := make([]byte, 8), make([]byte, 64<<20)
			cases := []struct {
				name string
				fn   func(cx *Context) error
			}{
				{"read", func(cx *Context) error {
					d := time.Now().Add(soon)
					a.SetReadDeadline(d)
					_, err := a.Read(cx, buf)
					return tcpTimeout(err, d)
				}},
				{"the deadline stays in force", func(cx *Context) error {
					_, err := a.Read(cx, buf)
					return tcpTimeout(err, time.Time{})
				}},
				{"a past deadline hides data, and clearing it gives them back", func(cx *Context) error {
					if err := tcpWrite(cx, b, "here"); err != nil {
						return err
					}
					a.SetReadDeadline(time.Unix(1, 0))
					if n, err := a.Read(cx, buf); n != 0 || tcpTimeout(err, time.Time{}) != nil {
						return fmt.Errorf("got %d, %v", n, err)
					}
					a.SetReadDeadline(time.Time{})
					return tcpExpect(cx, a, "here")
				}},
				{"reads have their own", func(cx *Context) error {
					a.SetReadDeadline(time.Unix(1, 0))
					defer a.SetReadDeadline(time.Time{})
					if err := tcpWrite(cx, a, "out"); err != nil {
						return err
					}
					return tcpExpect(cx, b, "out")
				}},
				{"both at once", func(cx *Context) error {
					a.SetDeadline(time.Unix(1, 0))
					defer a.SetDeadline(time.Time{})
					_, err := a.Read(cx, buf)
					_, err2 := a.Write(cx, buf)
					return errors.Join(tcpTimeout(err, time.Time{}), tcpTimeout(err2, time.Time{}))
				}},
				{"accept", func(cx *Context) error {
					d := time.Now().Add(soon)
					ln.SetDeadline(d)
					defer ln.SetDeadline(time.Time{})
					_, err := ln.Accept(cx)
					return tcpTimeout(err, d)
				}},
				{"a deadline that is not reached", func(cx *Context) error {
					a.SetDeadline(time.Now().Add(time.Hour))
					defer a.SetDeadline(time.Time{})
					if err := tcpWrite(cx, b, "in time"); err != nil {
						return err
					}
					return tcpExpect(cx, a, "in time")
				}},
				{"write", func(cx *Context) error {
					d := time.Now().Add(soon)
					b.SetWriteDeadline(d)
					n, err := b.Write(cx, large)
					if n == len(large) {
						return errors.New("nothing read, and all of it was written")
					}
					return tcpTimeout(err, d)
				}},
			}
			for _, c := range cases { // the cases use the same connection, one after the other
				assert.NoError(t, way.run(rt, c.fn), c.name)
			}
		})
	}
}

func TestTCPDeadlineMovedDuringRead(t *testing.T) {
	const never = time.Hour
	for _, way := range tcpWays {
		t.Run(way.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			a, b := tcpPair(t, rt)

			// begin starts a read that waits, under the given deadline.
			begin := func(deadline time.Time) (result chan error) {
				require.NoError(t, a.SetReadDeadline(deadline))
				result = make(chan error, 1)
				go func() {
					result <- way.run(rt, func(cx *Context) error { return tcpExpect(cx, a, "late") })
				}()
				eventually(t, func() bool { return directionWaits(&a.src.rd) || len(result) > 0 })
				return result
			}

			t.Run("sooner", func(t *testing.T) {
				result := begin(time.Now().Add(never))
				d := time.Now().Add(10 * time.Millisecond)
				require.NoError(t, a.SetReadDeadline(d))
				require.NoError(t, tcpTimeout(<-result, d))
			})
			t.Run("into the past", func(t *testing.T) {
				result := begin(time.Time{})
				require.NoError(t, a.SetReadDeadline(time.Unix(1, 0)))
				require.NoError(t, tcpTimeout(<-result, time.Time{}))
			})
			t.Run("later", func(t *testing.T) {
				// The first deadline must not have passed when the test moves it. On a busy machine
				// this takes a few tries, each with more time than the last.
				for d := 25 * time.Millisecond; ; d *= 2 {
					first := time.Now().Add(d)
					result := begin(first)
					require.NoError(t, a.SetReadDeadline(time.Now().Add(never)))
					if time.Now().After(first) {
						require.Less(t, d, patience)
						a.SetReadDeadline(time.Unix(1, 0))
						<-result
						continue
					}
					eventually(t, func() bool { return time.Since(first) > 5*time.Millisecond })
					_, err := BlockOn(rt, func(cx *Context) (int, error) { return b.Write(cx, []byte("late")) })
					require.NoError(t, err)
					require.NoError(t, <-result)
					return
				}
			})
		})
	}
}

// Some programs use a deadline that is centuries away to mean "none".
func TestTCPFarDeadline(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	c, d := tcpPair(t, rt)
	for _, deadline := range []time.Time{
		time.Now().Add(math.MaxInt64),
		time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		require.NoError(t, a.SetReadDeadline(deadline))
		var polls int
		h := SpawnFuture(rt, PollFunc(func(cx *Context) (int, error) {
			polls++
			return a.PollRead(cx, make([]byte, 8))
		}))
		eventually(t, func() bool { return directionWaits(&a.src.rd) })
		require.NoError(t, runTask(rt, func(cx *Context) error { // for many turns of the only worker
			for range 100 {
				if err := errors.Join(tcpWrite(cx, c, "x"), tcpExpect(cx, d, "x")); err != nil {
					return err
				}
			}
			return tcpWrite(cx, b, "data")
		}))
		n, err := joinOrCancel(h)
		require.NoError(t, err)
		require.Equal(t, 4, n)
		require.Less(t, polls, 50, "the read was woken again and again, for nothing")
	}
}

func TestTCPFarContextDeadline(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	h := Go(rt, func(cx *Context) error {
		cx, cancel := cx.WithTimeout(math.MaxInt64)
		defer cancel()
		return tcpExpect(cx, a, "data")
	})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for range 50 {
			if err := Yield(cx); err != nil {
				return err
			}
		}
		return tcpWrite(cx, b, "data")
	}))
	_, err := joinOrCancel(h)
	require.NoError(t, err)
}

// tcpAPI is the functions of package net, or those of this package bound to a task.
type tcpAPI struct {
	dial    func(network, address string) (net.Conn, error)
	dialFor func(timeout time.Duration, address string) (net.Conn, error) // negative: cancelled
	listen  func(network, address string) (net.Listener, error)
}

func tcpStdAPI() tcpAPI {
	return tcpAPI{
		dial:   net.Dial,
		listen: net.Listen,
		dialFor: func(timeout time.Duration, address string) (net.Conn, error) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if timeout < 0 {
				cancel()
			} else {
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
	}
}

type tcpBoundListener struct {
	*TCPListener
	cx *Context
}

func (l tcpBoundListener) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept(l.cx)
	if err != nil {
		return nil, err
	}
	return BindConn(l.cx, c), nil
}

func tcpOwnAPI(cx *Context) tcpAPI {
	bind := func(cx *Context, c Conn, err error) (net.Conn, error) {
		if err != nil {
			return nil, err
		}
		return BindConn(cx, c), nil
	}
	return tcpAPI{
		dial: func(network, address string) (net.Conn, error) {
			c, err := Dial(cx, network, address)
			return bind(cx, c, err)
		},
		listen: func(network, address string) (net.Listener, error) {
			ln, err := Listen(cx, network, address)
			if err != nil {
				return nil, err
			}
			return tcpBoundListener{ln.(*TCPListener), cx}, nil
		},
		dialFor: func(timeout time.Duration, address string) (net.Conn, error) {
			cx, cancel := cx.WithCancel()
			defer cancel()
			if timeout < 0 {
				cancel()
			} else {
				cx, cancel = cx.WithTimeout(timeout)
				defer cancel()
			}
			c, err := Dial(cx, "tcp", address)
			return bind(cx, c, err)
		},
	}
}

// pair returns the ends of a connection. Both are closed at the end of the case.
func (api tcpAPI) pair(network string, fn func(a, b net.Conn) error) error {
	ln, err := api.listen(network, "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("setup: %v", err)
	}
	defer ln.Close()
	a, err := api.dial(network, ln.Addr().String())
	if err != nil {
		return fmt.Errorf("setup: %v", err)
	}
	defer a.Close()
	b, err := ln.Accept()
	if err != nil {
		return fmt.Errorf("setup: %v", err)
	}
	defer b.Close()
	return fn(a, b)
}

func (api tcpAPI) dialErr(network, address string) error {
	c, err := api.dial(network, address)
	if err == nil {
		c.Close()
	}
	return err
}

func (api tcpAPI) listenErr(network, address string) error {
	ln, err := api.listen(network, address)
	if err == nil {
		ln.Close()
	}
	return err
}

// refused dials an address whose listener is closed. If the dial succeeds, another process has been
// given the port meanwhile, and refused tries another port.
func (api tcpAPI) refused(network string) error {
	for {
		ln, err := api.listen(network, "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("setup: %v", err)
		}
		ln.Close()
		if err := api.dialErr(network, ln.Addr().String()); err != nil {
			return err
		}
	}
}

// Mistakes and failures give the same errors as in package net, in all facts that a program can
// find out about an error. The texts are equal except for ports.
func TestTCPErrorsAreThoseOfPackageNet(t *testing.T) {
	full := tcpFullBacklog(t)
	buf := make([]byte, 8)
	read := func(c net.Conn) error { _, err := c.Read(buf); return err }
	write := func(c net.Conn) error { _, err := c.Write(buf); return err }
	reset := func(a, b net.Conn) error {
		if err := b.(interface{ SetLinger(int) error }).SetLinger(0); err != nil {
			return fmt.Errorf("setup: %v", err)
		}
		b.Close()
		return read(a)
	}
	type halfCloser interface {
		CloseRead() error
		CloseWrite() error
		SetNoDelay(bool) error
	}
	type deadliner interface{ SetDeadline(time.Time) error }
	contexts := map[string]bool{"dial cancelled": true, "dial timeout": true, "dial late": true}

	cases := map[string]func(api tcpAPI) error{
		"dial unknown network":       func(api tcpAPI) error { return api.dialErr("tcp5", "127.0.0.1:1") },
		"dial empty network":         func(api tcpAPI) error { return api.dialErr("", "127.0.0.1:1") },
		"dial empty address":         func(api tcpAPI) error { return api.dialErr("tcp", "") },
		"dial missing port":          func(api tcpAPI) error { return api.dialErr("tcp", "127.0.0.1") },
		"dial too many colons":       func(api tcpAPI) error { return api.dialErr("tcp", "::1:80") },
		"dial missing bracket":       func(api tcpAPI) error { return api.dialErr("tcp", "[::1:80") },
		"dial bad port":              func(api tcpAPI) error { return api.dialErr("tcp", "127.0.0.1:no-such-port") },
		"dial large port":            func(api tcpAPI) error { return api.dialErr("tcp", "127.0.0.1:65536") },
		"dial huge port":             func(api tcpAPI) error { return api.dialErr("tcp", "127.0.0.1:99999999999999999999") },
		"dial negative port":         func(api tcpAPI) error { return api.dialErr("tcp", "127.0.0.1:-1") },
		"dial port 0":                func(api tcpAPI) error { return api.dialErr("tcp", "127.0.0.1:0") },
		"dial bad host":              func(api tcpAPI) error { return api.dialErr("tcp", "no host:80") },
		"dial bad bracketed host":    func(api tcpAPI) error { return api.dialErr("tcp", "[1:2:3:zz zz]:80") },
		"dial tcp4 with IPv6":        func(api tcpAPI) error { return api.dialErr("tcp4", "[::1]:80") },
		"dial tcp6 with IPv4":        func(api tcpAPI) error { return api.dialErr("tcp6", "127.0.0.1:80") },
		"listen unknown network":     func(api tcpAPI) error { return api.listenErr("tcp5", "127.0.0.1:0") },
		"listen missing port":        func(api tcpAPI) error { return api.listenErr("tcp", "127.0.0.1") },
		"listen bad port":            func(api tcpAPI) error { return api.listenErr("tcp", "127.0.0.1:no-such-port") },
		"listen large port":          func(api tcpAPI) error { return api.listenErr("tcp", "127.0.0.1:65536") },
		"listen bad host":            func(api tcpAPI) error { return api.listenErr("tcp", "no host:0") },
		"listen tcp4 with IPv6":      func(api tcpAPI) error { return api.listenErr("tcp4", "[::1]:0") },
		"listen elsewhere":           func(api tcpAPI) error { return api.listenErr("tcp", "203.0.113.1:0") },
		"listen elsewhere with tcp4": func(api tcpAPI) error { return api.listenErr("tcp4", "203.0.113.1:0") },

		"dial cancelled": func(api tcpAPI) error { _, err := api.dialFor(-1, full); return err },
		"dial timeout":   func(api tcpAPI) error { _, err := api.dialFor(5*time.Millisecond, full); return err },
		"dial late":      func(api tcpAPI) error { _, err := api.dialFor(0, full); return err },

		"dial refused":           func(api tcpAPI) error { return api.refused("tcp") },
		"dial refused with tcp4": func(api tcpAPI) error { return api.refused("tcp4") },
		"listen in use": func(api tcpAPI) error {
			ln, err := api.listen("tcp", "127.0.0.1:0")
			if err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			defer ln.Close()
			return api.listenErr("tcp", ln.Addr().String())
		},
		"accept closed": func(api tcpAPI) error {
			ln, err := api.listen("tcp", "127.0.0.1:0")
			if err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			ln.Close()
			_, err = ln.Accept()
			return err
		},
		"accept timeout": func(api tcpAPI) error {
			ln, err := api.listen("tcp", "127.0.0.1:0")
			if err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			defer ln.Close()
			ln.(deadliner).SetDeadline(time.Unix(1, 0))
			_, err = ln.Accept()
			return err
		},
		"listener closed twice": func(api tcpAPI) error {
			ln, err := api.listen("tcp", "127.0.0.1:0")
			if err != nil {
				return fmt.Errorf("setup: %v", err)
			}
			ln.Close()
			return ln.Close()
		},
		"read closed": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { a.Close(); return read(a) })
		},
		"read closed of tcp4": func(api tcpAPI) error {
			return api.pair("tcp4", func(a, b net.Conn) error { a.Close(); return read(a) })
		},
		"read closed, accepted by tcp4": func(api tcpAPI) error {
			return api.pair("tcp4", func(a, b net.Conn) error { b.Close(); return read(b) })
		},
		"write closed": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { a.Close(); return write(a) })
		},
		"closed twice": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { a.Close(); return a.Close() })
		},
		"read reset": func(api tcpAPI) error { return api.pair("tcp", reset) },
		"read the end": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { b.Close(); return read(a) })
		},
		"read nothing": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { a.Close(); _, err := a.Read(nil); return err })
		},
		"write nothing": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { a.Close(); _, err := a.Write(nil); return err })
		},
		"read timeout": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error {
				a.SetReadDeadline(time.Now().Add(time.Millisecond))
				return read(a)
			})
		},
		"write timeout": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error {
				a.SetWriteDeadline(time.Unix(1, 0))
				return write(a)
			})
		},
		"read after a reset": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { reset(a, b); return read(a) })
		},
		"write after a reset": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { reset(a, b); return write(a) })
		},
		"write after CloseWrite": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { a.(halfCloser).CloseWrite(); return write(a) })
		},
		"deadline of a closed connection": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { a.Close(); return a.SetDeadline(time.Time{}) })
		},
		"option of a closed connection": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { a.Close(); return a.(halfCloser).SetNoDelay(true) })
		},
		"CloseWrite of a closed connection": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { a.Close(); return a.(halfCloser).CloseWrite() })
		},
		"CloseRead of a closed connection": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { a.Close(); return a.(halfCloser).CloseRead() })
		},
		"CloseRead of a reset connection": func(api tcpAPI) error {
			return api.pair("tcp", func(a, b net.Conn) error { reset(a, b); return a.(halfCloser).CloseRead() })
		},
	}
	for name, fn := range cases {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			want := fn(tcpStdAPI())
			require.Error(t, want)
			require.NotContains(t, want.Error(), "setup")
			got := runTask(rt, func(cx *Context) error { return fn(tcpOwnAPI(cx)) })
			require.Error(t, got)
			wantFacts, gotFacts := tcpErrorFacts(want), tcpErrorFacts(got)
			if contexts[name] {
				// When a context ends, package net returns errors of its own, and not always the
				// same ones.
				for _, f := range []string{"text", "is i/o timeout", "is context deadline exceeded"} {
					delete(wantFacts, f)
					delete(gotFacts, f)
				}
			}
			assert.Equal(t, wantFacts, gotFacts)
		})
	}
}

var tcpPort = regexp.MustCompile(`(127\.0\.0\.1|\]):\d{4,5}`)

// tcpErrorFacts returns the facts that a program can find out about an error.
func tcpErrorFacts(err error) map[string]any {
	facts := map[string]any{"text": tcpPort.ReplaceAllString(err.Error(), "$1:port")}
	for _, target := range []error{
		io.EOF, net.ErrClosed, os.ErrClosed, os.ErrDeadlineExceeded, context.Canceled, context.DeadlineExceeded,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.EADDRINUSE, syscall.EADDRNOTAVAIL,
		syscall.EINVAL, syscall.ENOTCONN,
	} {
		facts["is "+target.Error()] = errors.Is(err, target)
	}
	var (
		op      *net.OpError
		sys     *os.SyscallError
		addr    *net.AddrError
		dns     *net.DNSError
		network net.UnknownNetworkError
		netErr  net.Error
	)
	if errors.As(err, &op) {
		facts["op"], facts["net"] = op.Op, op.Net
		facts["source"], facts["addr"] = fmt.Sprintf("%T", op.Source), fmt.Sprintf("%T", op.Addr)
	}
	if errors.As(err, &sys) {
		facts["syscall"] = sys.Syscall
	}
	if errors.As(err, &dns) {
		facts["not found"] = dns.IsNotFound
	}
	facts["address error"] = errors.As(err, &addr)
	facts["unknown network"] = errors.As(err, &network)
	if errors.As(err, &netErr) {
		facts["timeout"] = netErr.Timeout()
	}
	return facts
}

// An operation that has failed once fails every time. It never waits for an event that will not
// happen.
func TestTCPBrokenConnectionFailsEveryTime(t *testing.T) {
	for name, breakIt := range map[string]func(t *testing.T, a, b *TCPConn){
		"reset": func(t *testing.T, a, b *TCPConn) {
			b.SetLinger(0)
			b.Close()
			eventually(t, func() bool { // until then writes succeed
				return a.src.control(func(fd int) error { return fdReadyNow(fd, unix.POLLIN) }) == nil
			}, "the reset comes")
		},
		"CloseWrite": func(_ *testing.T, a, b *TCPConn) { a.CloseWrite() },
	} {
		for _, waitFirst := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, registered: %v", name, waitFirst), func(t *testing.T) {
				rt := newTestRuntime(t, Config{Workers: 1})
				a, b := tcpPair(t, rt)
				if waitFirst {
					require.NoError(t, runTask(rt, func(cx *Context) error {
						a.SetReadDeadline(time.Now().Add(time.Millisecond))
						_, err := a.Read(cx, make([]byte, 1))
						a.SetReadDeadline(time.Time{})
						return tcpTimeout(err, time.Time{})
					}))
				}
				breakIt(t, a, b)
				require.NoError(t, runTask(rt, func(cx *Context) error {
					for i := range 10 {
						if n, err := a.Write(cx, []byte("x")); n != 0 || err == nil || errors.Is(err, context.Canceled) {
							return fmt.Errorf("write %d: %d, %v", i, n, err)
						}
					}
					return nil
				}))
			})
		}
	}
	t.Run("reads after a reset", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1})
		a, b := tcpPair(t, rt)
		b.SetLinger(0)
		b.Close()
		require.NoError(t, runTask(rt, func(cx *Context) error {
			for i := range 10 {
				if n, err := a.Read(cx, make([]byte, 1)); n != 0 || err == nil || errors.Is(err, context.Canceled) {
					return fmt.Errorf("read %d: %d, %v", i, n, err)
				}
			}
			return nil
		}))
	})
}

func TestTCPDialByName(t *testing.T) {
	for _, way := range tcpWays {
		t.Run(way.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			ln := tcpListen(t)
			require.NoError(t, way.run(rt, func(cx *Context) error {
				// The listener is on IPv4 alone. Dial finds the address of the name at which the
				// listener is.
				_, port, _ := net.SplitHostPort(ln.Addr().String())
				a, err := Dial(cx, "tcp", net.JoinHostPort("localhost", port))
				if err != nil {
					return err
				}
				defer a.Close()
				b, err := ln.Accept(cx)
				if err != nil {
					return err
				}
				defer b.Close()
				if err := tcpWrite(cx, a, "by name"); err != nil {
					return err
				}
				return tcpExpect(cx, b, "by name")
			}))
		})
	}
}

func TestTCPDialWithoutHostIsThisHost(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for _, host := range []string{"", "0.0.0.0"} {
			c, err := Dial(cx, "tcp", fmt.Sprintf("%s:%d", host, ln.Addr().(*net.TCPAddr).Port))
			if err != nil {
				return err
			}
			c.Close()
		}
		return nil
	}))
}

// tcpFullBacklog returns the address of a listener that accepts nothing and
// whose backlog is full, so that a connect hangs.
func tcpFullBacklog(t *testing.T) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	unix.CloseOnExec(fd)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(fd, 0))
	sa, err := unix.Getsockname(fd)
	require.NoError(t, err)
	for range 4 {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		require.NoError(t, err)
		unix.CloseOnExec(c)
		t.Cleanup(func() { unix.Close(c) })
		require.NoError(t, unix.SetNonblock(c, true))
		if err := unix.Connect(c, sa); err != nil {
			require.ErrorIs(t, err, unix.EINPROGRESS)
		}
	}
	eventually(t, func() bool { return fdReadyNow(fd, unix.POLLIN) == nil }, "one has come into the backlog")
	return (&network{kind: unix.SOCK_STREAM}).addr(sa).String()
}

func TestTCPDialThatHangs(t *testing.T) {
	full := tcpFullBacklog(t)
	for _, way := range tcpWays {
		t.Run(way.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			deadline := time.Now().Add(20 * time.Millisecond)
			err := way.run(rt, func(cx *Context) error {
				cx, cancel := cx.WithDeadline(deadline)
				defer cancel()
				_, err := Dial(cx, "tcp", full)
				return err
			})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.False(t, time.Now().Before(deadline))

			dialling := make(chan context.CancelFunc, 1)
			result := make(chan error, 1)
			go func() {
				result <- way.run(rt, func(cx *Context) error {
					cx, cancel := cx.WithCancel()
					dialling <- cancel
					_, err := Dial(cx, "tcp", full)
					return err
				})
			}()
			(<-dialling)()
			require.ErrorIs(t, <-result, context.Canceled)
		})
	}
	t.Run("JoinHandle.Cancel", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1})
		h := Go(rt, func(cx *Context) error {
			_, err := Dial(cx, "tcp", full)
			return err
		})
		eventually(t, func() bool { return rt.workers[0].reactor.registered.Load() > 0 })
		h.Cancel()
		_, err := joinOrCancel(h)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, rt.workers[0].reactor.registered.Load())
	})
}

// If a connection or a listener is closed, by a goroutine or by another task, each waiter gets
// net.ErrClosed.
func TestTCPCloseWakesWaiters(t *testing.T) {
	buf := make([]byte, 64<<20)
	for _, way := range tcpWays {
		for _, closer := range tcpWays {
			t.Run(way.name+" waits, "+closer.name+" closes", func(t *testing.T) {
				rt := newTestRuntime(t, Config{Workers: 2})
				check := func(dir *direction, shut func() error, wait func(cx *Context) error) {
					t.Helper()
					const waiters = 3
					result := make(chan error, waiters)
					for range waiters {
						go func() { result <- way.run(rt, wait) }()
					}
					eventually(t, func() bool { return directionWaits(dir) })
					require.NoError(t, closer.run(rt, func(*Context) error { return shut() }))
					for range waiters {
						err := <-result
						assert.ErrorIs(t, err, net.ErrClosed)
						assert.IsType(t, (*net.OpError)(nil), err)
					}
					assert.ErrorIs(t, shut(), net.ErrClosed)
				}
				a, b := tcpPair(t, rt)
				ln := tcpListen(t)
				check(&a.src.rd, a.Close, func(cx *Context) error { _, err := a.Read(cx, make([]byte, 1)); return err })
				check(&ln.src.rd, ln.Close, func(cx *Context) error { _, err := ln.Accept(cx); return err })
				_ = b
				c, _ := tcpPair(t, rt)
				check(&c.src.wr, c.Close, func(cx *Context) error { _, err := c.Write(cx, buf); return err })
			})
		}
	}
}

// Close closes the descriptor at once, and not only when the last waiter has looked again.
func TestTCPCloseFreesDescriptorAtOnce(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	cx, wakes := newPollCx(t, rt)
	_, err := a.PollRead(cx, make([]byte, 1))
	require.ErrorIs(t, err, ErrPending)
	var before, after unix.Stat_t
	require.NoError(t, unix.Fstat(int(a.src.fd), &before))
	require.Same(t, &a.src, rt.fds.get(int(a.src.fd)))
	require.NoError(t, a.Close())
	if err := unix.Fstat(int(a.src.fd), &after); err == nil { // another descriptor may have the number already
		require.NotEqual(t, before.Ino, after.Ino)
	} else {
		require.Equal(t, unix.EBADF, err)
	}
	require.Nil(t, rt.fds.get(int(a.src.fd)), "the runtime no longer refers to it")
	require.Positive(t, wakes.Load())
	_, err = a.PollRead(cx, make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, runTask(rt, func(cx *Context) error { return tcpExpectEOF(cx, b) }))
}

func TestTCPManyAcceptOnOneListener(t *testing.T) {
	const acceptors, clients = 4, 200
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := tcpListen(t)
	var served atomic.Int64
	var hs []*JoinHandle[None]
	for range acceptors {
		hs = append(hs, Go(rt, func(cx *Context) error {
			for {
				c, err := ln.Accept(cx)
				if errors.Is(err, net.ErrClosed) {
					return nil
				}
				if err != nil {
					return err
				}
				served.Add(1)
				c.Close()
			}
		}))
	}
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for range clients {
			c, err := Dial(cx, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			if err := tcpExpectEOF(cx, c); err != nil {
				return err
			}
			c.Close()
		}
		return nil
	}))
	require.EqualValues(t, clients, served.Load())
	ln.Close()
	for _, h := range hs {
		_, err := joinOrCancel(h)
		require.NoError(t, err)
	}
}

// Several tasks each accept one connection and no more. There are as many connections as tasks.
// Each task gets a connection, though one event may stand for several connections.
func TestTCPEachAcceptorGetsOne(t *testing.T) {
	const acceptors = 4
	rt := newTestRuntime(t, Config{Workers: 2})
	rounds := 500
	if testing.Short() {
		rounds = 100
	}
	for range rounds {
		ln := tcpListen(t)
		var hs []*JoinHandle[None]
		for range acceptors {
			hs = append(hs, Go(rt, func(cx *Context) error {
				c, err := ln.Accept(cx)
				if err != nil {
					return err
				}
				return c.Close()
			}))
		}
		require.NoError(t, runTask(rt, func(cx *Context) error {
			for range acceptors {
				c, err := Dial(cx, "tcp", ln.Addr().String())
				if err != nil {
					return err
				}
				defer c.Close()
			}
			return nil
		}))
		for _, h := range hs {
			_, err := joinOrCancel(h)
			require.NoError(t, err)
		}
		ln.Close()
	}
}

func TestTCPManyReadersOfOneConnection(t *testing.T) {
	const readers, size = 4, 1 << 18
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := tcpPair(t, rt)
	var counts [256]atomic.Int64
	var hs []*JoinHandle[None]
	for range readers {
		hs = append(hs, Go(rt, func(cx *Context) error {
			buf := make([]byte, 1000)
			for {
				n, err := a.Read(cx, buf)
				for _, c := range buf[:n] {
					counts[c].Add(1)
				}
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
			}
		}))
	}
	require.NoError(t, runTask(rt, func(cx *Context) error {
		p := make([]byte, size)
		for i := range p {
			p[i] = byte(i)
		}
		for len(p) > 0 {
			n := min(len(p), 1+len(p)%3000)
			if _, err := b.Write(cx, p[:n]); err != nil {
				return err
			}
			p = p[n:]
		}
		return b.CloseWrite()
	}))
	for _, h := range hs {
		_, err := joinOrCancel(h)
		require.NoError(t, err)
	}
	for i := range counts {
		require.EqualValues(t, size/256, counts[i].Load(), "byte %d", i)
	}
}

// tcpSource returns a pollFD of one end of a pair of sockets, and the other end.
func tcpSource(t *testing.T) (s *pollFD, peer int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		require.NoError(t, unix.SetNonblock(fd, true))
	}
	s = newPollFD(fds[0])
	t.Cleanup(func() { s.close(); unix.Close(fds[1]) })
	return s, fds[1]
}

// tcpReadOp reads into p, as PollRead does; seen counts the system calls.
func tcpReadOp(p []byte, seen *int) func(fd int) (int, bool, error) {
	return func(fd int) (int, bool, error) {
		*seen++
		n, err := unix.Read(fd, p)
		return n, n < len(p), err
	}
}

func tcpPost(t *testing.T, fd int, s string) {
	t.Helper()
	n, err := unix.Write(fd, []byte(s))
	require.NoError(t, err)
	require.Equal(t, len(s), n)
}

func TestTCPShortReadIsOneSystemCall(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s, peer := tcpSource(t)
	cx, wakes := newPollCx(t, rt)
	calls, buf := 0, make([]byte, 64)
	read := func() (int, error) { return s.pollOp(cx, &s.rd, tcpReadOp(buf, &calls)) }

	_, err := read()
	require.ErrorIs(t, err, ErrPending)
	eventually(t, func() bool { return s.wr.waiters.p.Load() == slotFired }, "the event of the registration is over")
	calls = 0
	for i := range 100 {
		tcpPost(t, peer, "message")
		eventually(t, func() bool { return wakes.Load() > int32(i) })
		n, err := read()
		require.NoError(t, err)
		require.Equal(t, 7, n)
		_, err = read()
		require.ErrorIs(t, err, ErrPending)
		require.Equal(t, i+1, calls)
	}
	require.EqualValues(t, 100, wakes.Load(), "one wake for each message")
}

// After a read that filled its buffer there may be more data, and there is no event for it.
func TestTCPFullReadGoesOn(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s, peer := tcpSource(t)
	cx, wakes := newPollCx(t, rt)
	calls, buf := 0, make([]byte, 4)
	read := func() (int, error) { return s.pollOp(cx, &s.rd, tcpReadOp(buf, &calls)) }
	_, err := read()
	require.ErrorIs(t, err, ErrPending)
	tcpPost(t, peer, "12345678")
	eventually(t, func() bool { return wakes.Load() > 0 })
	for range 2 {
		n, err := read()
		require.NoError(t, err)
		require.Equal(t, 4, n)
	}
	_, err = read()
	require.ErrorIs(t, err, ErrPending)
}

// Two tasks wait, and there is one event. The first task takes a part of the data at a moment when
// the second task has just found none. The rest of the data is for the second task, and there will
// be no event for it.
func TestTCPEventIsForAllWaiters(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s, peer := tcpSource(t)
	cxA, wakesA := newPollCx(t, rt)
	cxB, wakesB := newPollCx(t, rt)
	calls, one := 0, make([]byte, 1)
	readB := func() (int, error) { return s.pollOp(cxB, &s.rd, tcpReadOp(one, &calls)) }
	_, err := s.pollOp(cxA, &s.rd, tcpReadOp(one, &calls))
	require.ErrorIs(t, err, ErrPending)
	_, err = readB()
	require.ErrorIs(t, err, ErrPending)
	tcpPost(t, peer, "ab")
	eventually(t, func() bool { return wakesA.Load() > 0 && wakesB.Load() > 0 })

	wakesB.Store(0)
	var errB error
	_, err = s.pollOp(cxA, &s.rd, func(fd int) (int, bool, error) {
		_, errB = readB()
		return tcpReadOp(one, &calls)(fd)
	})
	require.NoError(t, err)
	if errB == ErrPending {
		eventually(t, func() bool { return wakesB.Load() > 0 }, "B is woken for what A has left")
		_, errB = readB()
	}
	require.NoError(t, errB)
}

// A task finds no more data. Before it has stored this in the descriptor, more data arrives, and
// another task takes a part of it. The stored state is then out of date. It must not make a task
// wait.
func TestTCPLateNoteOfEmptiness(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s, peer := tcpSource(t)
	cxA, wakesA := newPollCx(t, rt)
	cxB, _ := newPollCx(t, rt)
	calls, buf, one := 0, make([]byte, 8), make([]byte, 1)
	_, err := s.pollOp(cxA, &s.rd, tcpReadOp(buf, &calls))
	require.ErrorIs(t, err, ErrPending)
	tcpPost(t, peer, "first")
	eventually(t, func() bool { return wakesA.Load() > 0 })

	_, err = s.pollOp(cxA, &s.rd, func(fd int) (int, bool, error) {
		n, exhausted, err := tcpReadOp(buf, &calls)(fd)
		tcpPost(t, peer, "second")
		eventually(t, func() bool { return s.rd.waiters.p.Load() == slotFired })
		_, errB := s.pollOp(cxB, &s.rd, tcpReadOp(one, &calls))
		require.NoError(t, errB)
		return n, exhausted, err
	})
	require.NoError(t, err)
	n, err := s.pollOp(cxA, &s.rd, tcpReadOp(buf, &calls))
	require.NoError(t, err, "the rest is there")
	require.Equal(t, "econd", string(buf[:n]))
}

// A task finds no data. Data arrives before the task has begun to wait.
func TestTCPEventBetweenTryAndWait(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s, peer := tcpSource(t)
	cx, wakes := newPollCx(t, rt)
	calls, buf := 0, make([]byte, 8)
	_, err := s.pollOp(cx, &s.rd, tcpReadOp(buf, &calls))
	require.ErrorIs(t, err, ErrPending)
	s.rd.waiters.fire(nil) // a spurious event, so that the next read makes a system call
	wakes.Store(0)
	posted := false
	read := func(fd int) (int, bool, error) {
		n, exhausted, err := tcpReadOp(buf, &calls)(fd)
		if !posted {
			posted = true
			require.ErrorIs(t, err, unix.EAGAIN)
			tcpPost(t, peer, "data")
			eventually(t, func() bool { return s.rd.waiters.p.Load() == slotFired })
		}
		return n, exhausted, err
	}
	n, err := s.pollOp(cx, &s.rd, read)
	if err == ErrPending {
		eventually(t, func() bool { return wakes.Load() > 0 }, "somebody is woken for the data")
		n, err = s.pollOp(cx, &s.rd, read)
	}
	require.NoError(t, err)
	require.Equal(t, "data", string(buf[:n]))
}

// A task finds no data. Before it has begun to wait, two bytes arrive, and another task takes the
// first byte. The second byte is for the task that waits.
func TestTCPWaitAfterOthersEvent(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s, peer := tcpSource(t)
	cxA, wakesA := newPollCx(t, rt)
	cxB, _ := newPollCx(t, rt)
	calls, one := 0, make([]byte, 1)
	_, err := s.pollOp(cxA, &s.rd, tcpReadOp(one, &calls))
	require.ErrorIs(t, err, ErrPending)
	s.rd.waiters.fire(nil) // a spurious event, so that task A makes a system call
	first := true
	readA := func(fd int) (int, bool, error) {
		n, exhausted, err := tcpReadOp(one, &calls)(fd)
		if first {
			first = false
			require.ErrorIs(t, err, unix.EAGAIN)
			tcpPost(t, peer, "ab")
			eventually(t, func() bool { return s.rd.waiters.p.Load() == slotFired })
			_, errB := s.pollOp(cxB, &s.rd, tcpReadOp(make([]byte, 1), &calls))
			require.NoError(t, errB)
			wakesA.Store(0)
		}
		return n, exhausted, err
	}
	_, err = s.pollOp(cxA, &s.rd, readA)
	if err == ErrPending {
		eventually(t, func() bool { return wakesA.Load() > 0 }, "A is woken for what B has left")
		_, err = s.pollOp(cxA, &s.rd, readA)
	}
	require.NoError(t, err)
	require.Equal(t, "b", string(one))
}

// Cancelling a read loses no data, however close together the cancellation and the arrival of the
// data are.
func TestTCPCancelledReadLosesNothing(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	count := 2000
	if testing.Short() {
		count = 300
	}
	for name, giveUp := range map[string]func(cx *Context, i int, c *TCPConn, p []byte) (int, error){
		"WithTimeout": func(cx *Context, i int, c *TCPConn, p []byte) (int, error) {
			cx, cancel := cx.WithTimeout(time.Duration(i%50) * time.Microsecond)
			defer cancel()
			return c.Read(cx, p)
		},
		"WithCancel": func(cx *Context, i int, c *TCPConn, p []byte) (int, error) {
			cx, cancel := cx.WithCancel()
			if i%8 == 0 {
				cancel() // the goroutine below is often too late
			}
			go cancel()
			return c.Read(cx, p)
		},
		"JoinHandle.Cancel": func(cx *Context, i int, c *TCPConn, p []byte) (int, error) {
			h := Spawn(cx, func(cx *Context) (int, error) {
				if i%8 == 0 {
					Sleep(cx, time.Hour) // the Cancel below is often too late
				}
				return c.Read(cx, p)
			})
			for range i % 4 {
				if err := Yield(cx); err != nil {
					return 0, err
				}
			}
			h.Cancel()
			return h.Join(cx)
		},
		"SetReadDeadline": func(cx *Context, i int, c *TCPConn, p []byte) (int, error) {
			c.SetReadDeadline(time.Now().Add(time.Duration(i%50) * time.Microsecond))
			n, err := c.Read(cx, p)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = context.DeadlineExceeded
			}
			return n, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := tcpPair(t, rt)
			var given atomic.Int64
			writer := Go(rt, func(cx *Context) error {
				for i := range count {
					if _, err := b.Write(cx, []byte{byte(i)}); err != nil {
						return err
					}
					for range i % 8 {
						Yield(cx)
					}
					// The writes are only a little ahead of the reads, so that most reads begin
					// when there is no data.
					for int64(i) > given.Load()+4 {
						if err := Yield(cx); err != nil {
							return err
						}
					}
				}
				return nil
			})
			var cancelled int
			reader := Go(rt, func(cx *Context) error {
				var got byte
				p := make([]byte, 3)
				for i := 0; int(given.Load()) < count; i++ {
					n, err := giveUp(cx, i, a, p)
					for _, c := range p[:n] {
						if c != got {
							return fmt.Errorf("got byte %d, want %d", c, got)
						}
						got++
					}
					given.Add(int64(n))
					switch {
					case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
						cancelled++
						if cx.Err() != nil {
							return err
						}
					case err != nil:
						return err
					}
				}
				return nil
			})
			_, err := joinOrCancel(reader)
			assert.NoError(t, err)
			_, err = joinOrCancel(writer)
			assert.NoError(t, err)
			assert.Positive(t, cancelled)
		})
	}
}

func TestTCPCancelledWriteSaysHowMuch(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := tcpPair(t, rt)
	const total = 32 << 20 // bytes; more than the buffers hold
	p := make([]byte, total)
	tcpPattern(p, 0, 3)
	h := Spawn(rt, func(cx *Context) (int, error) { return a.Write(cx, p) })
	eventually(t, func() bool { return directionWaits(&a.src.wr) })
	h.Cancel()
	n, err := joinOrCancel(h)
	require.ErrorIs(t, err, context.Canceled)
	require.Positive(t, n)
	require.Less(t, n, total)

	rest := Go(rt, func(cx *Context) error {
		if _, err := a.Write(cx, p[n:]); err != nil {
			return err
		}
		return a.CloseWrite()
	})
	require.NoError(t, runTask(rt, func(cx *Context) error { return tcpReceive(cx, b, total, 3) }))
	_, err = joinOrCancel(rest)
	require.NoError(t, err)
}

func TestCancelledAcceptLosesNothing(t *testing.T) {
	unix, err := ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(netDir(t), "s"), Net: "unix"})
	require.NoError(t, err)
	defer unix.Close()
	for _, ln := range []Listener{tcpListen(t), unix} {
		t.Run(ln.Addr().Network(), func(t *testing.T) { cancelledAccept(t, ln) })
	}
}

func cancelledAccept(t *testing.T, ln Listener) {
	rt := newTestRuntime(t, Config{Workers: 2})
	clients := 500
	if testing.Short() {
		clients = 100
	}
	server := Spawn(rt, func(cx *Context) (cancelled int, err error) {
		for i, served := 0, 0; served < clients; i++ {
			var c Conn
			if i%2 == 0 {
				h := Spawn(cx, ln.Accept)
				for range i / 2 % 4 {
					Yield(cx)
				}
				h.Cancel()
				c, err = h.Join(cx)
			} else {
				short, cancel := cx.WithTimeout(time.Duration(i/2%40) * time.Microsecond) // the first deadlines have passed already
				c, err = ln.Accept(short)
				cancel()
			}
			switch {
			case err == nil:
				served++
				c.Close()
			case cx.Err() == nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
				cancelled++
			default:
				return cancelled, err
			}
		}
		return cancelled, nil
	})
	client := Go(rt, func(cx *Context) error {
		for range clients {
			c, err := Dial(cx, ln.Addr().Network(), ln.Addr().String())
			if err != nil {
				return err
			}
			err = tcpExpectEOF(cx, c)
			c.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
	_, err := joinOrCancel(client)
	assert.NoError(t, err)
	cancelled, err := joinOrCancel(server)
	assert.NoError(t, err)
	assert.Positive(t, cancelled)
}

// A waiter that leaves the slot does not remove another waiter: the other waiter is still woken.
func TestTCPCancelOneOfTwoReaders(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for range 50 {
		a, b := tcpPair(t, rt)
		one := Go(rt, func(cx *Context) error { return tcpExpect(cx, a, "x") })
		two := Go(rt, func(cx *Context) error { return tcpExpect(cx, a, "x") })
		eventually(t, func() bool { return directionWaits(&a.src.rd) })
		one.Cancel()
		_, err := BlockOn(rt, func(cx *Context) (int, error) { return b.Write(cx, []byte("x")) })
		require.NoError(t, err)
		_, err = joinOrCancel(one)
		if err == nil {
			two.Cancel() // the first had the data before it was cancelled
			_, err = joinOrCancel(two)
			require.ErrorIs(t, err, context.Canceled)
		} else {
			require.ErrorIs(t, err, context.Canceled)
			_, err = joinOrCancel(two)
			require.NoError(t, err)
		}
		a.Close()
		b.Close()
	}
}

func tcpOption(t *testing.T, c *TCPConn, level, name int) (v int) {
	t.Helper()
	require.NoError(t, c.src.control(func(fd int) (err error) {
		v, err = unix.GetsockoptInt(fd, level, name)
		return err
	}))
	return v
}

func TestTCPOptions(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	dialled, accepted := tcpPair(t, rt)
	for name, c := range map[string]*TCPConn{"dialled": dialled, "accepted": accepted} {
		t.Run(name, func(t *testing.T) {
			require.NotZero(t, tcpOption(t, c, unix.IPPROTO_TCP, unix.TCP_NODELAY))
			require.NotZero(t, tcpOption(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE))

			require.NoError(t, c.SetNoDelay(false))
			require.Zero(t, tcpOption(t, c, unix.IPPROTO_TCP, unix.TCP_NODELAY))
			require.NoError(t, c.SetNoDelay(true))
			require.NotZero(t, tcpOption(t, c, unix.IPPROTO_TCP, unix.TCP_NODELAY))

			require.NoError(t, c.SetKeepAlive(false))
			require.Zero(t, tcpOption(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE))
			require.NoError(t, c.SetKeepAlive(true))
			require.NotZero(t, tcpOption(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE))

			if err := c.SetKeepAlivePeriod(1500 * time.Millisecond); runtime.GOOS == "openbsd" {
				require.Error(t, err)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, 2, sys.WholeSeconds(1500*time.Millisecond))

			require.NoError(t, c.SetLinger(5))
			require.NoError(t, c.SetLinger(-1))
		})
	}
}

// Programs that the process starts do not inherit accepted descriptors.
func TestTCPDescriptorsAreCloseOnExec(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	dialled, accepted := tcpPair(t, rt)
	ln := tcpListen(t)
	for name, s := range map[string]*pollFD{"dialled": &dialled.src, "accepted": &accepted.src, "listener": &ln.src} {
		require.NoError(t, s.control(func(fd int) error {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			assert.NotZero(t, flags&unix.FD_CLOEXEC, name)
			return err
		}))
	}
}

func TestTCPLingerZeroResets(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := tcpPair(t, rt)
	h := Go(rt, func(cx *Context) error { _, err := b.Read(cx, make([]byte, 1)); return err })
	eventually(t, func() bool { return directionWaits(&b.src.rd) })
	require.NoError(t, a.SetLinger(0))
	require.NoError(t, a.Close())
	_, err := joinOrCancel(h)
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

func TestTCPCloseSendsWhatWasWritten(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if err := errors.Join(tcpWrite(cx, a, "farewell"), a.Close()); err != nil {
			return err
		}
		if err := tcpExpect(cx, b, "farewell"); err != nil {
			return err
		}
		return tcpExpectEOF(cx, b)
	}))
}

// Data and the end arrive with one event. After a short read there will be no second event, and the
// next read must find the end.
func TestTCPDataAndEndInOneEvent(t *testing.T) {
	for _, registered := range []bool{true, false} {
		t.Run(fmt.Sprintf("registered: %v", registered), func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			a, b := tcpPair(t, rt)
			if registered {
				cx, _ := newPollCx(t, rt)
				_, err := a.PollRead(cx, make([]byte, 1))
				require.ErrorIs(t, err, ErrPending)
			}
			_, err := BlockOn(rt, func(cx *Context) (None, error) {
				return None{}, errors.Join(tcpWrite(cx, b, "last words"), b.Close())
			})
			require.NoError(t, err)
			if registered {
				eventually(t, func() bool { return a.src.state.has(fdHungUp) })
			}
			require.NoError(t, runTask(rt, func(cx *Context) error {
				buf := make([]byte, 100)
				if n, err := a.Read(cx, buf); string(buf[:n]) != "last words" || err != nil {
					return fmt.Errorf("read %q, %v", buf[:n], err)
				}
				return tcpExpectEOF(cx, a)
			}))
		})
	}
}

func TestTCPIncoming(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := tcpListen(t)
	const clients = 10
	dial := Go(rt, func(cx *Context) error {
		for range clients {
			c, err := Dial(cx, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			c.Close()
		}
		return nil
	})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		n := 0
		for c, err := range Incoming(ln).All(cx) {
			if err != nil {
				return err
			}
			c.Close()
			if n++; n == clients/2 {
				break // another loop accepts the rest
			}
		}
		var end error
		for c, err := range Incoming(ln).All(cx) {
			if err != nil {
				end = err
				continue // the loop ends by itself
			}
			c.Close()
			if n++; n == clients {
				ln.Close()
			}
		}
		if n != clients || !errors.Is(end, net.ErrClosed) {
			return fmt.Errorf("%d connections, then %v", n, end)
		}
		_, err := Incoming(ln).PollNext(cx)
		if !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("PollNext of a closed listener: %v", err)
		}
		return nil
	}))
	_, err := joinOrCancel(dial)
	require.NoError(t, err)
}

func TestTCPAddresses(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	type listenOn struct{ network, address, dial string }
	cases := []listenOn{
		{"tcp", "127.0.0.1:0", "127.0.0.1"},
		{"tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"tcp4", "0.0.0.0:0", "127.0.0.1"},
		{"tcp", "0.0.0.0:0", "127.0.0.1"},
		{"tcp4", ":0", "127.0.0.1"},
		{"tcp", ":0", "127.0.0.1"},
		{"tcp", "localhost:0", "127.0.0.1"},
		{"tcp", "127.0.0.1:", "127.0.0.1"},
	}
	if ln, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		ln.Close()
		cases = append(cases,
			listenOn{"tcp", "[::1]:0", "::1"},
			listenOn{"tcp6", "[::1]:0", "::1"},
			listenOn{"tcp6", "[::]:0", "::1"},
			listenOn{"tcp6", ":0", "::1"},
			listenOn{"tcp", ":0", "::1"},
			listenOn{"tcp", "[::]:0", "::1"},
			listenOn{"tcp", "[::]:0", "127.0.0.1"},
		)
	}
	for _, c := range cases {
		t.Run(c.network+" "+c.address+" from "+c.dial, func(t *testing.T) {
			std, err := net.Listen(c.network, c.address)
			require.NoError(t, err)
			defer std.Close()
			require.NoError(t, runTask(rt, func(cx *Context) error {
				ln, err := Listen(cx, c.network, c.address)
				if err != nil {
					return err
				}
				defer ln.Close()
				at := ln.Addr().(*net.TCPAddr)
				want := std.Addr().(*net.TCPAddr)
				if !at.IP.Equal(want.IP) || (at.IP.To4() == nil) != (want.IP.To4() == nil) || at.Port == 0 {
					return fmt.Errorf("the listener's address is %v, where package net's is %v", at, want)
				}
				if at.Network() != "tcp" {
					return fmt.Errorf("the network is %q", at.Network())
				}
				target := net.JoinHostPort(c.dial, strconv.Itoa(at.Port))
				a, err := Dial(cx, c.network, target)
				if err != nil {
					return err
				}
				defer a.Close()
				b, err := ln.Accept(cx)
				if err != nil {
					return err
				}
				defer b.Close()
				for _, pair := range [][2]string{
					{a.RemoteAddr().String(), target},
					{b.LocalAddr().String(), target},
					{b.RemoteAddr().String(), a.LocalAddr().String()},
				} {
					if pair[0] != pair[1] {
						return fmt.Errorf("addresses %v and %v differ", pair[0], pair[1])
					}
				}
				return nil
			}))
		})
	}
}

func TestTCPListenWithoutAddress(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	std, err := net.Listen("tcp", "")
	require.NoError(t, err)
	std.Close()
	require.NoError(t, runTask(rt, func(cx *Context) error {
		ln, err := Listen(cx, "tcp", "")
		if err != nil {
			return fmt.Errorf("package net listens on any port, but: %w", err)
		}
		return ln.Close()
	}))
}

func TestTCPListenerDeadlineAfterClose(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	require.NoError(t, ln.Close())
	require.ErrorIs(t, ln.SetDeadline(time.Now()), net.ErrClosed)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if _, err := ln.Accept(cx); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}))
}

func TestTCPDialFromLocalAddress(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		c, err := DialTCP(cx, "tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, ln.Addr().(*net.TCPAddr))
		if err != nil {
			return err
		}
		c.Close()
		if _, err := DialTCP(cx, "tcp", nil, nil); err == nil {
			return errors.New("no address, and no error")
		}
		if _, err := DialTCP(cx, "tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1 << 16}); err == nil {
			return errors.New("port 65536, and no error")
		}
		if _, err := DialTCP(cx, "tcp", nil, &net.TCPAddr{IP: net.IP{1, 2, 3}, Port: 1}); err == nil {
			return errors.New("an address of three bytes, and no error")
		}
		if _, err := DialTCP(cx, "tcp", &net.TCPAddr{IP: net.IPv4(203, 0, 113, 1)}, ln.Addr().(*net.TCPAddr)); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return fmt.Errorf("from somebody else's address: %v", err)
		}
		return nil
	}))
}

// The kernel completes connections before they are accepted. Their number is the limit of the
// system, and not a constant of the package.
func TestTCPBacklogIsTheSystemsLimit(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	clients := 400
	limit, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		clients = 100 // the limit is 128 on other systems
	} else if n, _ := strconv.Atoi(strings.TrimSpace(string(limit))); n < clients {
		clients = n
	}
	ln := tcpListen(t)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		cx, cancel := cx.WithTimeout(patience / 2)
		defer cancel()
		for i := range clients {
			c, err := Dial(cx, "tcp", ln.Addr().String())
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			defer c.Close()
		}
		return nil
	}))
}

// The next socket that is opened has the number of the descriptor that was closed, while tasks
// still wait for the previous connection and its last events have not been dispatched. Promises:
//
//  1. No task reads data that was sent to another connection.
//  2. Each waiter of a connection that is closed gets net.ErrClosed.
//  3. Each task that waits for the new connection is woken when there is data for it.
func TestTCPReusedDescriptor(t *testing.T) {
	const loops = 4
	rounds := 1500
	if testing.Short() {
		rounds = 250
	}
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := tcpListen(t)

	// The server answers each eight bytes with the same eight bytes, twice.
	server := Go(rt, func(cx *Context) error {
		for {
			c, err := ln.Accept(cx)
			if err != nil {
				return err
			}
			Go(cx, func(cx *Context) error {
				defer c.Close()
				var p [16]byte
				for {
					if _, err := io.ReadFull(BindConn(cx, c), p[:8]); err != nil {
						return nil // the clients end their connections in every way
					}
					copy(p[8:], p[:8])
					if _, err := c.Write(cx, p[:]); err != nil {
						return nil
					}
				}
			})
		}
	})

	var mu sync.Mutex
	numbers := map[int32]int{}
	client := func(cx *Context, loop, round int) error {
		c, err := DialTCP(cx, "tcp", nil, ln.Addr().(*net.TCPAddr))
		if err != nil {
			return err
		}
		mu.Lock()
		numbers[c.src.fd]++
		mu.Unlock()
		var id [8]byte
		binary.BigEndian.PutUint64(id[:], uint64(loop)<<32|uint64(round))
		want := string(id[:]) + string(id[:])
		if err := errors.Join(tcpWrite(cx, c, string(id[:])), tcpExpect(cx, c, want)); err != nil {
			return err
		}
		waiter := Go(rt, func(cx *Context) error {
			got := make([]byte, 16)
			for {
				n, err := c.Read(cx, got)
				if n > 0 && !strings.HasPrefix(want, string(got[:n])) && !strings.HasSuffix(want, string(got[:n])) {
					return fmt.Errorf("%x belongs to another connection than %x", got[:n], want)
				}
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						return err
					}
					return nil
				}
			}
		})
		if round%2 == 0 {
			for !directionWaits(&c.src.rd) {
				if err := Yield(cx); err != nil {
					return err
				}
			}
		}
		if round%3 == 0 {
			c.SetLinger(0)
		}
		if round%4 < 2 { // an answer comes at about the time of Close
			if err := tcpWrite(cx, c, string(id[:])); err != nil {
				return err
			}
		}
		if err := c.Close(); err != nil {
			return err
		}
		if round%5 == 0 {
			return nil // a waiter that fails is reported, and one that hangs makes Shutdown hang
		}
		_, err = waiter.Join(cx)
		return err
	}
	var hs []*JoinHandle[None]
	for loop := range loops {
		hs = append(hs, Go(rt, func(cx *Context) error {
			for round := range rounds {
				if err := client(cx, loop, round); err != nil {
					return fmt.Errorf("round %d: %w", round, err)
				}
			}
			return nil
		}))
	}
	for _, h := range hs {
		_, err := joinOrCancel(h)
		assert.NoError(t, err)
	}
	ln.Close()
	_, err := joinOrCancel(server)
	assert.ErrorIs(t, err, net.ErrClosed)
	assert.Less(t, len(numbers), loops*rounds/10, "the descriptors were not reused, so nothing was tested")
}

func TestTCPTwoRuntimes(t *testing.T) {
	first := newTestRuntime(t, Config{Workers: 1})
	t.Run("beside it", func(t *testing.T) {
		second := newTestRuntime(t, Config{Workers: 2})
		ln := tcpListen(t)
		server := Go(second, func(cx *Context) error {
			for range 2 {
				c, err := ln.Accept(cx)
				if err != nil {
					return err
				}
				_, err = io.Copy(BindConn(cx, c), BindConn(cx, c))
				c.Close()
				if err != nil {
					return err
				}
			}
			return nil
		})
		for i := range 2 {
			require.NoError(t, runTask(first, func(cx *Context) error {
				c, err := Dial(cx, "tcp", ln.Addr().String())
				if err != nil {
					return err
				}
				return tcpAskAll(BindConn(cx, c), tcpMessages(i))
			}))
		}
		_, err := joinOrCancel(server)
		require.NoError(t, err)
	})
	// The second runtime has ended, and the first goes on.
	a, b := tcpPair(t, first)
	h := Go(first, func(cx *Context) error { return tcpExpect(cx, a, "alive") })
	require.NoError(t, runTask(first, func(cx *Context) error { return tcpWrite(cx, b, "alive") }))
	_, err := joinOrCancel(h)
	require.NoError(t, err)
}

// A connection may move from one runtime to another, if the first has not ended.
func TestTCPConnectionOfAnotherRuntime(t *testing.T) {
	first := newTestRuntime(t, Config{Workers: 1})
	second := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, first)
	for range 20 {
		h := Go(second, func(cx *Context) error { return tcpExpect(cx, a, "over there") })
		eventually(t, func() bool { return directionWaits(&a.src.rd) })
		require.NoError(t, runTask(first, func(cx *Context) error { return tcpWrite(cx, b, "over there") }))
		_, err := joinOrCancel(h)
		require.NoError(t, err)
		a, b = b, a
	}
}

// A connection on which there is always data to read does not keep its
// worker from other tasks.
func TestTCPAlwaysReadyConnectionYields(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	const size = 20 * operationsPerPoll
	var others int
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if _, err := b.Write(cx, make([]byte, size)); err != nil {
			return err
		}
		other := Go(cx, func(cx *Context) error {
			for {
				if err := Yield(cx); err != nil {
					return nil
				}
				others++
			}
		})
		one := make([]byte, 1)
		for range size {
			if _, err := a.Read(cx, one); err != nil {
				return err
			}
		}
		other.Cancel()
		_, err := other.Join(cx)
		return err
	}))
	require.GreaterOrEqual(t, others, size/operationsPerPoll-2)
}

// A read that is woken spuriously makes a system call, and waits again.
func TestTCPSpuriousWakes(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b := tcpPair(t, rt)
	h := Go(rt, func(cx *Context) error { return tcpExpect(cx, a, "real") })
	for range 100 {
		eventually(t, func() bool { return directionWaits(&a.src.rd) })
		a.src.rd.waiters.fire(nil)
	}
	require.NoError(t, runTask(rt, func(cx *Context) error { return tcpWrite(cx, b, "real") }))
	_, err := joinOrCancel(h)
	require.NoError(t, err)
}

// The runtime does not keep a task that has accepted a connection and has ended: the failure of
// such a task is reported when its handle is garbage.
func TestTCPAcceptorIsForgotten(t *testing.T) {
	r := new(reports)
	rt := newTestRuntime(t, Config{Workers: 1, Unhandled: r.add})
	ln := tcpListen(t)
	id := spawnAndForget(rt, func(cx *Context) error {
		c, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		c.Close()
		return errors.New("failed")
	})
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	eventually(t, func() bool { runtime.GC(); return len(r.of(id)) > 0 })
}
