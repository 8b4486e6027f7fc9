package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// echoOnce is a Handler that echoes one byte per call, so that more data may be left. It does not
// keep the connection once the peer has closed it.
func echoOnce(cx *Context, c Conn) (keep bool, err error) {
	var p [1]byte
	n, err := c.Read(cx, p[:])
	if err == io.EOF {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = c.Write(cx, p[:n])
	return true, err
}

// startServe serves ln in a task and returns its handle.
func startServe(rt *Runtime, s *Server, ln Listener) *JoinHandle[None] {
	return Go(rt, func(cx *Context) error { return s.Serve(cx, ln) })
}

// dials returns n connections to ln. They are closed at the end of the test.
func dials(t testing.TB, ln Listener, n int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		t.Cleanup(func() { c.Close() })
		conns[i] = c
	}
	return conns
}

// asks sends s and requires that the server sends it back.
func asks(t testing.TB, c net.Conn, s string) {
	t.Helper()
	_, err := c.Write([]byte(s))
	require.NoError(t, err)
	p := make([]byte, len(s))
	_, err = io.ReadFull(c, p)
	require.NoError(t, err)
	require.Equal(t, s, string(p))
}

// requireEnd requires that the peer has closed c.
func requireEnd(t testing.TB, c net.Conn) {
	t.Helper()
	n, err := c.Read(make([]byte, 1))
	require.Zero(t, n)
	require.Error(t, err)
	require.False(t, errors.Is(err, context.DeadlineExceeded), "the peer has not closed: %v", err)
	var ne net.Error
	require.False(t, errors.As(err, &ne) && ne.Timeout(), "the peer has not closed: %v", err)
}

func TestServeKeepsConnectionsWithoutStacks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	stopActiveSet(rt)
	ln := tcpListen(t)
	server := startServe(rt, &Server{Handler: echoOnce}, ln)
	conns := dials(t, ln, 100)
	for range 3 {
		for i, c := range conns {
			asks(t, c, fmt.Sprint("message ", i))
		}
	}
	eventually(t, func() bool { m := rt.Metrics(); return m.Coroutines-m.CoroutinesFree == 1 }, "only Serve's task has a coroutine")
	require.Less(t, rt.Metrics().Coroutines, 20)
	eventually(t, func() bool {
		waits := 0
		for _, info := range rt.Tasks() {
			if info.Kind == "straight" && info.State == "waiting" && info.Waits == "read" && strings.Contains(info.Where, "Handler") {
				waits++
			}
		}
		return waits == len(conns)
	})
	for _, w := range rt.workers {
		require.Greater(t, w.reactor.registered.Load(), int32(30), "the load is spread")
	}
	require.NoError(t, ln.Close())
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
	for _, c := range conns {
		requireEnd(t, c)
	}
}

// If the task that accepts stays on its worker, its connections stay there, too.
func TestServeOnAWorker(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for i, on := range rt.Workers() {
		ln := tcpListen(t)
		server := Go(on, func(cx *Context) error { return Serve(cx, ln, echoOnce) })
		for _, c := range dials(t, ln, 10) {
			asks(t, c, "a")
		}
		require.EqualValues(t, 11, rt.workers[i].reactor.registered.Load())
		require.Zero(t, rt.workers[1-i].reactor.registered.Load())
		conns := 0
		for _, waits := range rt.workers[i].waiting.all() {
			if _, ok := waits.body.(*servedConn); ok {
				conns++
				require.False(t, waits.movable(), "another worker may run a connection")
			}
		}
		require.Positive(t, conns)
		require.NoError(t, ln.Close())
		_, err := joinOrCancel(server)
		require.ErrorIs(t, err, net.ErrClosed)
	}
}

func TestServeUnix(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln, err := ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(t.TempDir(), "s")})
	require.NoError(t, err)
	defer ln.Close()
	server := startServe(rt, &Server{Handler: echoOnce}, ln)
	c, err := net.Dial("unix", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	asks(t, c, "several bytes")
	eventually(t, func() bool { m := rt.Metrics(); return m.Coroutines-m.CoroutinesFree == 1 })
	require.NoError(t, ln.Close())
	_, err = joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
	requireEnd(t, c)
}

// A Handler may return while data is left in the kernel. It is called again for this data.
func TestServeCallsAgainForWhatIsThereAlready(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := tcpListen(t)
	var calls atomic.Int32
	server := startServe(rt, &Server{Handler: func(cx *Context, c Conn) (bool, error) {
		calls.Add(1)
		var p [4]byte // exactly one message: the read does not show whether there is more
		if _, err := io.ReadFull(BindConn(cx, c), p[:]); err != nil {
			return false, nil
		}
		_, err := c.Write(cx, p[:])
		return true, err
	}}, ln)
	c := dials(t, ln, 1)[0]
	for range 200 {
		asks(t, c, "1234abcd5678efgh")
	}
	require.GreaterOrEqual(t, calls.Load(), int32(800))
	c.Close()
	require.NoError(t, ln.Close())
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
}

// The shared reactor may report an event late for a connection that was registered with it: for
// data that the Handler has read before. The Handler is not called for this event.
func TestServeAsksForLateEvents(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	conns := make(chan *TCPConn, 10)
	server := startServe(rt, &Server{Handler: func(cx *Context, c Conn) (bool, error) {
		if c.(*TCPConn).PollReadable(cx) == ErrPending {
			t.Error("it is called for nothing")
		}
		NetConn(cx, c)
		keep, err := echoOnce(cx, c)
		conns <- c.(*TCPConn)
		return keep, err
	}}, ln)
	c := dials(t, ln, 1)[0]
	for range 100 {
		asks(t, c, "x")
		s := &receive(t, conns).src
		eventually(t, func() bool { return s.owner.Load() == &rt.workers[0].reactor && directionWaits(&s.rd) })
		late := []fdEvent{{fd: int(s.fd), ready: Readable}}
		rt.shared.reactor.Load().dispatch(nil, late)
		eventually(t, func() bool { return directionWaits(&s.rd) })
	}
	c.Close()
	require.NoError(t, ln.Close())
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestServeDrainsAtShutdown(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := tcpListen(t)
	server := startServe(rt, &Server{Handler: echoThree}, ln)
	conns := dials(t, ln, 20)
	for _, c := range conns {
		asks(t, c, "abc")
	}
	busy := conns[:5]
	for _, c := range busy {
		asks(t, c, "a") // the Handler waits for two more bytes
	}
	over := later(func() (int, error) { return 0, rt.Shutdown(t.Context()) })
	for _, c := range conns[5:] {
		requireEnd(t, c)
	}
	for _, c := range busy {
		asks(t, c, "bc")
		requireEnd(t, c)
	}
	require.NoError(t, soon(t, over).err)
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, ErrShutdown)
}

// echoThree echoes three bytes, each as soon as it has arrived.
func echoThree(cx *Context, c Conn) (keep bool, err error) {
	for range 3 {
		if keep, err = echoOnce(cx, c); !keep || err != nil {
			break
		}
	}
	return keep, err
}

func TestServeCancelled(t *testing.T) {
	for name, grace := range map[string]time.Duration{"at once": 0, "soon": time.Millisecond, "late": time.Hour} {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			ln := tcpListen(t)
			ends := make(chan error, 1)
			server := startServe(rt, &Server{Grace: grace, Handler: func(cx *Context, c Conn) (bool, error) {
				_, err := echoThree(cx, c)
				ends <- err
				return err == nil, err
			}}, ln)
			conns := dials(t, ln, 2)
			asks(t, conns[0], "abc")
			require.NoError(t, soon(t, ends))
			asks(t, conns[1], "a")
			server.Cancel()
			requireEnd(t, conns[0])
			if grace == time.Hour {
				asks(t, conns[1], "bc")
				require.NoError(t, soon(t, ends))
			} else {
				require.ErrorIs(t, soon(t, ends), context.Canceled)
			}
			requireEnd(t, conns[1])
			_, err := joinOrCancel(server)
			require.ErrorIs(t, err, context.Canceled)
			// The listener is left open.
			require.NoError(t, ln.Close())
		})
	}
}

func TestServeMaxConns(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := tcpListen(t)
	var now atomic.Int32
	var tooMany atomic.Bool
	server := startServe(rt, &Server{MaxConns: 3, SpeaksFirst: true, Handler: func(cx *Context, c Conn) (bool, error) {
		if now.Add(1) > 3 {
			tooMany.Store(true)
		}
		defer now.Add(-1)
		if err := tcpWrite(cx, c, "hello"); err != nil {
			return false, err
		}
		return false, tcpExpect(cx, c, "bye")
	}}, ln)
	var wg sync.WaitGroup
	for _, c := range dials(t, ln, 20) {
		wg.Go(func() {
			p := make([]byte, 5)
			if _, err := io.ReadFull(c, p); assertNo(t, err) {
				runtime.Gosched()
				_, err = c.Write([]byte("bye"))
				assertNo(t, err)
			}
		})
	}
	wg.Wait()
	require.False(t, tooMany.Load())

	// Serve notices Shutdown while MaxConns connections are open.
	full := dials(t, ln, 3)
	for _, c := range full {
		_, err := io.ReadFull(c, make([]byte, 5))
		require.NoError(t, err)
	}
	over := later(func() (int, error) { return 0, rt.Shutdown(t.Context()) })
	eventually(t, rt.draining.Load)
	for _, c := range full {
		_, err := c.Write([]byte("bye"))
		require.NoError(t, err)
	}
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, ErrShutdown)
	require.NoError(t, soon(t, over).err)
}

func TestServeMaxConnsCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := tcpListen(t)
	server := startServe(rt, &Server{MaxConns: 1, Handler: echoOnce}, ln)
	c := dials(t, ln, 1)[0]
	asks(t, c, "x")
	eventually(t, func() bool { return waiting(server) })
	server.Cancel()
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, context.Canceled)
	requireEnd(t, c)
}

func TestServeIdleTimeout(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := tcpListen(t)
	failed := make(chan error, 1)
	slow := make(chan struct{})
	server := startServe(rt, &Server{
		IdleTimeout: 20 * time.Millisecond,
		Failed:      func(_ Conn, err error) { failed <- err },
		Handler: func(cx *Context, c Conn) (bool, error) {
			keep, err := echoOnce(cx, c)
			if err != nil || !keep {
				return keep, err
			}
			if _, err := Await(cx, SpawnBlocking(cx, func() (None, error) { <-slow; return None{}, nil })); err != nil {
				return false, err
			}
			return echoOnce(cx, c) // at any time: the deadline only limits the wait between calls
		},
	}, ln)
	conns := dials(t, ln, 2)
	requireEnd(t, conns[1]) // it has sent nothing
	var c net.Conn
	eventually(t, func() bool { // until a connection sends before it has been idle for too long
		c = dials(t, ln, 1)[0]
		c.Write([]byte("a"))
		n, _ := c.Read(make([]byte, 1))
		return n == 1
	})
	require.NoError(t, runTask(rt, func(cx *Context) error { return Sleep(cx, 30*time.Millisecond) }))
	close(slow)
	asks(t, c, "b")
	requireEnd(t, c)
	require.NoError(t, ln.Close())
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
	require.Empty(t, failed, "an idle connection is no failure")
}

// A caller that closes a connection between two calls ends it: there is no further call.
func TestServeConnClosedByOthers(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	var calls atomic.Int32
	conns := make(chan Conn, 1)
	server := startServe(rt, &Server{NewHandler: func(c Conn) Handler {
		conns <- c
		return func(cx *Context, c Conn) (bool, error) {
			calls.Add(1)
			return echoOnce(cx, c)
		}
	}}, ln)
	client := dials(t, ln, 1)[0]
	asks(t, client, "x")
	eventually(t, func() bool { m := rt.Metrics(); return m.Coroutines-m.CoroutinesFree == 1 }, "only Serve's task has a coroutine")
	require.NoError(t, soon(t, conns).Close())
	requireEnd(t, client)
	require.NoError(t, ln.Close())
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
	require.EqualValues(t, 1, calls.Load())
}

func TestServeHandlerOfEachConnection(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := tcpListen(t)
	server := startServe(rt, &Server{NewHandler: func(c Conn) Handler {
		n := 0
		return func(cx *Context, same Conn) (bool, error) {
			if same != c {
				return false, errors.New("another connection")
			}
			if _, err := c.Read(cx, make([]byte, 8)); err != nil {
				return false, nil
			}
			n++
			return true, tcpWrite(cx, c, fmt.Sprint(n))
		}
	}}, ln)
	conns := dials(t, ln, 5)
	for i := 1; i < 5; i++ {
		for _, c := range conns {
			_, err := c.Write([]byte("?"))
			require.NoError(t, err)
			p := make([]byte, 1)
			_, err = io.ReadFull(c, p)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), string(p))
		}
	}
	require.NoError(t, ln.Close())
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
}

// In whichever way a Handler fails, its connection is closed, and the other connections go on.
func TestServeHandlersThatFail(t *testing.T) {
	unhandled := make(chan error, 10)
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: func(_ Task, err error) { unhandled <- err }})
	ln := tcpListen(t)
	failed := make(chan error, 10)
	var closed atomic.Int32
	server := startServe(rt, &Server{
		Failed: func(c Conn, err error) {
			if c.SetDeadline(time.Time{}) != nil {
				closed.Add(1)
			}
			failed <- err
		},
		Handler: func(cx *Context, c Conn) (bool, error) {
			var p [1]byte
			if _, err := c.Read(cx, p[:]); err != nil {
				return false, nil
			}
			switch p[0] {
			case 'e':
				return true, errors.New("the Handler's own")
			case 'p':
				panic("the Handler panics")
			case 'g':
				runtime.Goexit()
			case 'c':
				c.Close()
			}
			return true, tcpWrite(cx, c, "ok")
		},
	}, ln)
	for range 3 {
		conns := dials(t, ln, 5)
		for i, what := range []string{"e", "p", "g", "c", "x"} {
			_, err := conns[i].Write([]byte(what))
			require.NoError(t, err)
			if what != "x" {
				requireEnd(t, conns[i])
			}
		}
		_, err := io.ReadFull(conns[4], make([]byte, 2))
		require.NoError(t, err)
		own, panics, exits := 0, 0, 0
		for range 4 {
			var p *PanicError
			switch err := soon(t, failed); {
			case errors.As(err, &p):
				panics++
			case err == ErrGoexit:
				exits++
			case err.Error() == "the Handler's own":
				own++
			}
		}
		require.Equal(t, []int{1, 1, 1}, []int{own, panics, exits})
	}
	require.EqualValues(t, 12, closed.Load())
	require.NoError(t, ln.Close())
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, rt.Shutdown(ended()))
	var panics, exits int
	for range 6 {
		err := soon(t, unhandled)
		var p *PanicError
		if errors.As(err, &p) {
			require.Equal(t, "the Handler panics", p.Value)
			panics++
		} else {
			require.ErrorIs(t, err, ErrGoexit)
			exits++
		}
	}
	require.Equal(t, []int{3, 3}, []int{panics, exits})
}

// forcedCollections returns how many garbage collections the program itself has forced.
func forcedCollections() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumForcedGC
}

// A Handler that panics or calls Goexit is reported at once to Failed and to Config.Unhandled, without
// a collection and before Shutdown, since there is no handle of a connection's task. If Failed
// panics or calls Goexit, that is reported to Config.Unhandled.
func TestServeReportsPanicsAtOnce(t *testing.T) {
	type report struct {
		task Task
		err  error
	}
	unhandled := make(chan report, 10)
	rt := newTestRuntime(t, Config{Workers: 2, Unhandled: func(t Task, err error) { unhandled <- report{t, err} }})
	ln := tcpListen(t)
	failed := make(chan error, 10)
	server := startServe(rt, &Server{
		Failed: func(c Conn, err error) {
			failed <- err
			var p *PanicError
			errors.As(err, &p)
			switch {
			case p != nil && p.Value == "and Failed panics" || err.Error() == "returned, and Failed panics":
				panic("Failed panics")
			case p != nil && p.Value == "and Failed exits":
				runtime.Goexit()
			}
		},
		Handler: func(cx *Context, c Conn) (bool, error) {
			var p [100]byte
			n, err := c.Read(cx, p[:])
			if err != nil {
				return false, nil
			}
			switch what := string(p[:n]); what {
			case "returned, and Failed panics":
				return false, errors.New(what)
			case "exits":
				runtime.Goexit()
			default:
				panicsHere(what)
			}
			return false, nil
		},
	}, ln)
	collections := forcedCollections()
	for what, want := range map[string]struct{ failed, unhandled string }{
		"panics":                      {"panicsHere (task_test.go:", "panicsHere (task_test.go:"},
		"exits":                       {ErrGoexit.Error(), ErrGoexit.Error()},
		"and Failed panics":           {"panicsHere (task_test.go:", "Failed panics"},
		"and Failed exits":            {"panicsHere (task_test.go:", ErrGoexit.Error()},
		"returned, and Failed panics": {"returned, and Failed panics", "Failed panics"},
	} {
		c := dials(t, ln, 1)[0]
		_, err := c.Write([]byte(what))
		require.NoError(t, err)
		requireEnd(t, c)
		require.ErrorContains(t, soon(t, failed), want.failed, what)
		got := soon(t, unhandled)
		require.ErrorContains(t, got.err, want.unhandled, what)
		require.NotZero(t, got.task.ID)
		if want.unhandled == "Failed panics" {
			require.ErrorContains(t, got.err, fmt.Sprintf("task %d panicked at %s.TestServeReportsPanicsAtOnce.func", got.task.ID, packagePath))
			if want.failed != what {
				require.ErrorContains(t, got.err, want.failed, "the first error is lost")
			}
		}
	}
	require.Equal(t, collections, forcedCollections())
	require.NoError(t, ln.Close())
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, rt.Shutdown(ended()))
	require.Empty(t, unhandled, "reported again")
	require.Empty(t, failed, "told again")
}

// Serve works on a goroutine with connections of another package, which wait in their Handler.
func TestServeInBlockOnAndOtherConns(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	tcp := tcpListen(t)
	done := make(chan error, 1)
	go func() {
		_, err := BlockOn(rt, func(cx *Context) (None, error) {
			return None{}, Serve(cx, otherListener{tcp}, echoOnce)
		})
		done <- err
	}()
	for _, c := range dials(t, tcp, 5) {
		asks(t, c, "several bytes")
		require.NoError(t, c.Close())
	}
	require.NoError(t, tcp.Close())
	require.ErrorIs(t, soon(t, done), net.ErrClosed)
}

// A connection of another package is always in a call. Its Handler must be cancelled to end it, and
// IdleTimeout has no effect on it.
func TestServeDrainsOtherConns(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	tcp := tcpListen(t)
	var calls atomic.Int32
	server := startServe(rt, &Server{IdleTimeout: time.Nanosecond, Grace: time.Hour, Handler: func(cx *Context, c Conn) (bool, error) {
		calls.Add(1)
		return echoOnce(cx, c)
	}}, otherListener{tcp})
	c := dials(t, tcp, 1)[0]
	asks(t, c, "a")
	eventually(t, func() bool { return calls.Load() == 2 })
	server.Cancel()
	require.False(t, within(10*time.Millisecond, server.state.done), "it waits for the Handler")
	eventually(t, func() bool { // each message ends a call
		c.Write([]byte("b"))
		_, err := c.Read(make([]byte, 1))
		return err != nil
	})
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, context.Canceled)
}

// aheadConn is a connection with a buffer. Its PollReadable also returns nil if the buffer holds
// data.
type aheadConn struct {
	*TCPConn
	asked *atomic.Int32
	ahead []byte
}

func (c *aheadConn) PollReadable(cx *Context) error {
	c.asked.Add(1)
	if len(c.ahead) > 0 {
		return nil
	}
	return c.TCPConn.PollReadable(cx)
}

func (c *aheadConn) Read(cx *Context, p []byte) (n int, err error) {
	if len(c.ahead) == 0 {
		buf := make([]byte, 64)
		if n, err = c.TCPConn.Read(cx, buf); err != nil {
			return 0, err
		}
		c.ahead = buf[:n]
	}
	n = copy(p, c.ahead)
	c.ahead = c.ahead[n:]
	return n, nil
}

type aheadListener struct {
	Listener
	asked atomic.Int32
}

func (l *aheadListener) Accept(cx *Context) (Conn, error) {
	c, err := l.Listener.Accept(cx)
	if err != nil {
		return nil, err
	}
	return &aheadConn{TCPConn: c.(*TCPConn), asked: &l.asked}, nil
}

// A type that embeds a connection of this package has its own PollReadable.
func TestServeAsksTheOuterType(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	tcp := tcpListen(t)
	ln := &aheadListener{Listener: tcp}
	server := startServe(rt, &Server{Handler: echoOnce}, ln)
	c := dials(t, tcp, 1)[0]
	asks(t, c, "several bytes")
	require.Positive(t, ln.asked.Load())
	require.NoError(t, tcp.Close())
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestMisuseServeWithoutHandler(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	_, err := joinOrCancel(startServe(rt, new(Server), ln))
	requireTaskMisuse(t, err, "a Server needs a Handler")

	server := startServe(rt, &Server{NewHandler: func(Conn) Handler { return nil }}, ln)
	c := dials(t, ln, 1)[0]
	requireEnd(t, c)
	_, err = joinOrCancel(server)
	requireTaskMisuse(t, err, "NewHandler has returned no Handler")
}

// The cx of a Handler cannot be used after the Handler has returned.
func TestMisuseServeContextAfterTheCall(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	leaked := make(chan *Context, 10)
	server := startServe(rt, &Server{Handler: func(cx *Context, c Conn) (bool, error) {
		leaked <- cx
		return echoOnce(cx, c)
	}}, ln)
	c := dials(t, ln, 1)[0]
	asks(t, c, "x")
	cx := soon(t, leaked)
	eventually(t, func() bool { m := rt.Metrics(); return m.Coroutines-m.CoroutinesFree == 1 })
	requireMisuse(t, misuse(func() { Sleep(cx, 1) }), "on a goroutine that is not its own")
	// This also holds on the coroutine on which the Handler ran before.
	_, err := joinOrCancel(Go(rt, func(*Context) error { return Sleep(cx, 1) }))
	requireTaskMisuse(t, err, "on a goroutine that is not its own")
	require.NoError(t, ln.Close())
	_, err = joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
}

// Shutdown unwinds a Handler that ignores the cancellation, and its connection is closed.
func TestServeUnwound(t *testing.T) {
	rt, err := New(Config{Workers: 2, Grace: 10 * time.Millisecond, Stalled: func(Stall) {}})
	require.NoError(t, err)
	ln := tcpListen(t)
	never := NeverFuture[None]()
	begun, unwound := make(chan struct{}), make(chan struct{})
	server := startServe(rt, &Server{Handler: func(cx *Context, c Conn) (bool, error) {
		defer close(unwound)
		close(begun)
		for {
			Await(cx, never) // fails at once after the cancellation, and yields now and then
		}
	}}, ln)
	conns := dials(t, ln, 2)
	eventually(t, func() bool { return rt.Metrics().Sources == 3 }, "both are accepted")
	_, err = conns[0].Write([]byte("x"))
	require.NoError(t, err)
	soon(t, begun)
	var se *ShutdownError
	require.ErrorAs(t, rt.Shutdown(ended()), &se)
	soon(t, unwound)
	requireEnd(t, conns[0])
	requireEnd(t, conns[1])
	_, err = joinOrCancel(server)
	require.Error(t, err)
}

// Connections begin, send and end at random. Each answer is right, and all connections end.
func TestServeUnderLoad(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ln := tcpListen(t)
	var opened atomic.Int64
	server := startServe(rt, &Server{MaxConns: 16, NewHandler: func(Conn) Handler {
		opened.Add(1)
		return echoOnce
	}}, ln)
	const clients, rounds = 24, 12
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range rounds {
				c, err := net.Dial("tcp", ln.Addr().String())
				if !assertNo(t, err) {
					return
				}
				c.SetDeadline(time.Now().Add(patience))
				assertNo(t, tcpAskAll(c, []string{"some", "bytes", "again", "and", "again"}[:rand.N(6)]))
			}
		})
	}
	wg.Wait()
	server.Cancel()
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, context.Canceled)
	require.LessOrEqual(t, opened.Load(), int64(clients*rounds))
	require.Zero(t, rt.Metrics().Sources-1, "all but the listener's")
}

// A call of a Handler allocates nothing. A connection that waits takes little memory.
func TestServeCosts(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1}) // a report allocates
	ln := tcpListen(t)
	p := make([]byte, 64)
	server := startServe(rt, &Server{Handler: func(cx *Context, c Conn) (bool, error) {
		n, err := c.Read(cx, p)
		if err != nil {
			return false, nil
		}
		_, err = c.Write(cx, p[:n])
		return true, err
	}}, ln)
	c := dials(t, ln, 1)[0]
	q := make([]byte, 64)
	ask := func() {
		c.Write(q)
		c.Read(q)
	}
	for range 100 {
		ask()
	}
	const rounds = 2000
	before := mallocs()
	for range rounds {
		ask()
	}
	require.Less(t, mallocs()-before, uint64(rounds/4), "the rest is the runtime's own")
	require.LessOrEqual(t, servedSize, uintptr(192), "bytes of a connection's task")
	c.Close()
	require.NoError(t, ln.Close())
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// PollReadable of a connection, as Serve uses it.
func TestTCPReadable(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	cx, wakes := newPollCx(t, rt)
	require.Equal(t, ErrPending, a.PollReadable(cx))
	require.Equal(t, ErrPending, a.PollReadable(cx))
	require.NoError(t, runTask(rt, func(cx *Context) error { return tcpWrite(cx, b, "xy") }))
	eventually(t, func() bool { return wakes.Load() > 0 })
	for range 3 { // it stays readable until a read
		require.NoError(t, a.PollReadable(cx))
	}
	var p [2]byte
	n, err := a.PollRead(cx, p[:1])
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.NoError(t, a.PollReadable(cx))
	n, err = a.PollRead(cx, p[:])
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, ErrPending, a.PollReadable(cx), "an event that was for what has been read does not count")

	h := Go(rt, func(cx *Context) error { return a.Readable(cx) })
	eventually(t, func() bool { return waiting(h) })
	require.NoError(t, a.SetReadDeadline(time.Unix(1, 0)))
	_, err = joinOrCancel(h)
	require.NoError(t, tcpTimeout(err, time.Unix(1, 0)))
	require.NoError(t, a.SetReadDeadline(time.Time{}))
	h = Go(rt, func(cx *Context) error { return a.Readable(cx) })
	eventually(t, func() bool { return waiting(h) })
	h.Cancel()
	_, err = joinOrCancel(h)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, b.Close())
	require.NoError(t, runTask(rt, a.Readable), "the end")
	require.NoError(t, a.Close())
	require.ErrorIs(t, runTask(rt, a.Readable), net.ErrClosed)
}

const servedSize = unsafe.Sizeof(servedConn{})

// If Serve is asked to end, in any of the ways, its error wraps ErrServerClosed and the reason. If
// the listener fails, the error does not wrap ErrServerClosed.
func TestServeReturnsErrServerClosed(t *testing.T) {
	for name, c := range map[string]struct {
		ask    func(rt *Runtime, ln *TCPListener, server *JoinHandle[None], stop func())
		reason error
	}{
		"closed":      {func(_ *Runtime, ln *TCPListener, _ *JoinHandle[None], _ func()) { ln.Close() }, net.ErrClosed},
		"its handle":  {func(_ *Runtime, _ *TCPListener, server *JoinHandle[None], _ func()) { server.Cancel() }, context.Canceled},
		"its Context": {func(_ *Runtime, _ *TCPListener, _ *JoinHandle[None], stop func()) { stop() }, context.Canceled},
		"Shutdown":    {func(rt *Runtime, _ *TCPListener, _ *JoinHandle[None], _ func()) { rt.Shutdown(t.Context()) }, ErrShutdown},
	} {
		for _, full := range []bool{false, true} {
			t.Run(strings.ReplaceAll(fmt.Sprint(name, ", full ", full), " ", "_"), func(t *testing.T) {
				rt := newTestRuntime(t, Config{Workers: 2})
				ln := tcpListen(t)
				stops := make(chan func(), 1)
				s := &Server{Handler: echoOnce}
				if full {
					s.MaxConns = 1
				}
				server := Go(rt, func(cx *Context) error {
					cx, stop := cx.WithCancel()
					stops <- stop
					return s.Serve(cx, ln)
				})
				if full {
					asks(t, dials(t, ln, 1)[0], "a")
				}
				eventually(t, func() bool { return waiting(server) })
				c.ask(rt, ln, server, receive(t, stops))
				_, err := joinOrCancel(server)
				require.ErrorIs(t, err, ErrServerClosed)
				require.ErrorIs(t, err, c.reason)
			})
		}
	}
	// The listener fails, and then Serve is asked to end while it drains. Its error is the error of
	// the listener.
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := &failingListener{Listener: tcpListen(t), fails: make(chan struct{})}
	began := make(chan struct{})
	server := startServe(rt, &Server{Grace: time.Hour, SpeaksFirst: true, Handler: func(cx *Context, c Conn) (bool, error) {
		close(began)
		_, err := c.Read(cx, make([]byte, 1))
		return false, err
	}}, ln)
	c := dials(t, ln.Listener.(*TCPListener), 1)[0]
	receive(t, began)
	close(ln.fails)
	eventually(t, func() bool { return ln.failed.Load() && waiting(server) })
	server.Cancel()
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	_, err = joinOrCancel(server)
	require.Equal(t, io.ErrNoProgress, err)
}

// Closing the listener ends Serve while MaxConns Handlers wait for the drain.
func TestServeFullAndClosed(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for name, wrap := range map[string]func(ln *TCPListener) Listener{
		"TCP":     func(ln *TCPListener) Listener { return ln },
		"wrapped": func(ln *TCPListener) Listener { return &wrappingListener{ln, func(c Conn) Conn { return c }} },
	} {
		t.Run(name, func(t *testing.T) {
			ln := tcpListen(t)
			began := make(chan struct{})
			server := startServe(rt, &Server{MaxConns: 1, SpeaksFirst: true, Handler: func(cx *Context, _ Conn) (bool, error) {
				close(began)
				return false, Draining(cx)
			}}, wrap(ln))
			dials(t, ln, 1)
			receive(t, began)
			eventually(t, func() bool { return waiting(server) })
			require.NoError(t, ln.Close())
			_, err := joinOrCancel(server)
			require.ErrorIs(t, err, ErrServerClosed)
			require.ErrorIs(t, err, net.ErrClosed)
		})
	}
}

// failingListener is a listener whose second Accept fails, once fails is closed.
type failingListener struct {
	Listener
	fails  chan struct{}
	failed atomic.Bool
	once   bool
}

func (l *failingListener) Accept(cx *Context) (Conn, error) {
	if !l.once {
		l.once = true
		return l.Listener.Accept(cx)
	}
	RecvFrom(cx, l.fails)
	l.failed.Store(true)
	return nil, io.ErrNoProgress
}

// A Handler that waits for another event can detect that its Server drains, in each of the ways. A
// Handler of another Server does not detect it.
func TestHandlerSeesItsServerDrain(t *testing.T) {
	for name, waits := range map[string]func(cx *Context) error{
		"Draining":       Draining,
		"DrainingFuture": func(cx *Context) error { _, err := Await(cx, DrainingFuture()); return err },
		"Select": func(cx *Context) error {
			i, err := Select(cx, OnRecv(NewChan[int](1)), OnFuture(DrainingFuture()))
			return errors.Join(err, expect(i == 1, "case %d", i))
		},
		"IsDraining": func(cx *Context) error {
			for !IsDraining(cx) {
				if err := Yield(cx); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			var calls, others atomic.Int32
			handler := func(n *atomic.Int32) Handler {
				return func(cx *Context, c Conn) (bool, error) {
					if _, err := c.Read(cx, make([]byte, 1)); err != nil {
						return false, err
					}
					if IsDraining(cx) {
						return false, errors.New("it drains already")
					}
					n.Add(1)
					err := waits(cx)
					if err == nil {
						_, err = c.Write(cx, []byte("bye"))
					}
					return true, err // the connection is closed all the same
				}
			}
			failed := func(_ Conn, err error) { t.Error(err) }
			ln, other := tcpListen(t), tcpListen(t)
			server := startServe(rt, &Server{Grace: time.Hour, Handler: handler(&calls), Failed: failed}, ln)
			beside := startServe(rt, &Server{Grace: time.Hour, Handler: handler(&others), Failed: failed}, other)
			conns, otherConns := dials(t, ln, 3), dials(t, other, 1)
			for _, c := range append(conns, otherConns...) {
				_, err := c.Write([]byte("a"))
				require.NoError(t, err)
			}
			eventually(t, func() bool { return calls.Load() == 3 && others.Load() == 1 })
			server.Cancel()
			for _, c := range conns {
				b, err := io.ReadAll(c)
				require.NoError(t, err)
				require.Equal(t, "bye", string(b))
			}
			_, err := joinOrCancel(server)
			require.ErrorIs(t, err, ErrServerClosed)
			require.True(t, within(time.Millisecond, func() bool { return !beside.state.done() }))
			over := later(func() (int, error) { return 0, rt.Shutdown(t.Context()) })
			b, err := io.ReadAll(otherConns[0])
			require.NoError(t, err)
			require.Equal(t, "bye", string(b))
			require.NoError(t, soon(t, over).err)
			_, err = joinOrCancel(beside)
			require.ErrorIs(t, err, ErrShutdown)
		})
	}
}

// The Handlers have the values of the contexts that Serve is under. The end of such a context ends
// Serve, and the Handlers only after Grace.
func TestServeUnderAContext(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), underKey("who"), "me"))
	defer cancel()
	ctx, cancelDeadline := context.WithTimeout(ctx, time.Hour)
	defer cancelDeadline()
	ln := tcpListen(t)
	ends := make(chan error, 1)
	s := &Server{Grace: time.Hour, Handler: func(cx *Context, c Conn) (bool, error) {
		_, timed := cx.Deadline()
		keep, err := echoThree(cx, c)
		ends <- errors.Join(err, expect(!timed, "it has a deadline"), expect(cx.Value(underKey("who")) == "me", "no value"))
		return keep, err
	}}
	server := Go(rt.Under(ctx), func(cx *Context) error {
		cx, stop := cx.WithTimeout(time.Minute)
		defer stop()
		return s.Serve(cx, ln)
	})
	c := dials(t, ln, 1)[0]
	asks(t, c, "a")
	cancel()
	eventually(t, func() bool { return server.state.cancelled() })
	asks(t, c, "bc")
	require.NoError(t, soon(t, ends))
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, ErrServerClosed)
	require.ErrorIs(t, err, context.Canceled)
}
