package async

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// registered returns how many descriptors the workers of rt wait for.
func registered(rt *Runtime) (n int) {
	for _, w := range rt.workers {
		n += int(w.reactor.sources.Load())
	}
	return n
}

// Whatever goroutines wait for is waited for in the lobby, by whichever way they
// have come.
func TestLobbyServesGoroutines(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	require.Nil(t, rt.lobby.reactor.Load(), "nobody needs it yet")
	ln, err := rt.ListenNet("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	accepted := make(chan net.Conn)
	go func() { c, _ := ln.Accept(); accepted <- c }()
	parked(t, &ln.(*netTCPListener).src.rd)
	a, err := rt.DialNet(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	defer a.Close()
	b := receive(t, accepted)
	defer b.Close()
	x, y, err := SocketPair()
	require.NoError(t, err)
	defer x.Close()
	defer y.Close()

	reads := []<-chan answer{
		later(func() (int, error) { return a.Read(make([]byte, 1)) }),
		later(func() (int, error) { return b.Read(make([]byte, 1)) }),
		later(func() (int, error) {
			return BlockOn(rt.Workers()[1], func(cx *Context) (int, error) { return x.Read(cx, make([]byte, 1)) })
		}),
	}
	waits(t, a, 0)
	waits(t, b, 0)
	parked(t, &x.src.rd)
	cx, wakes := newPollCx(t, rt)
	require.Equal(t, ErrPending, y.PollReadable(cx))
	require.Zero(t, registered(rt))
	require.Equal(t, 5, rt.lobby.sources())
	require.Equal(t, 5, rt.Metrics().Sources)

	for i, write := range []func([]byte) (int, error){
		b.Write, a.Write,
		func(p []byte) (int, error) {
			return BlockOn(rt, func(cx *Context) (int, error) { return y.Write(cx, p) })
		},
	} {
		_, err := write([]byte("x"))
		require.NoError(t, err)
		require.Equal(t, answer{n: 1}, soon(t, reads[i]))
	}
	_, err = NetConn(rt, x).Write([]byte("x"))
	require.NoError(t, err)
	eventually(t, func() bool { return wakes.Load() > 0 })
	require.NoError(t, y.PollReadable(cx))
	for _, c := range []io.Closer{a, b, x, y, ln} {
		require.NoError(t, c.Close())
	}
	require.Zero(t, rt.lobby.sources())
}

// A task that waits takes a connection over from the lobby, where a goroutine waits for
// it that is woken all the same; NetConn gives it back, though a task waits.
func TestTaskTakesOverFromTheLobby(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b, err := SocketPair()
	require.NoError(t, err)
	defer a.Close()
	defer b.Close()
	lobby := func() *reactor { return rt.lobby.reactor.Load() }
	c, peer := NetConn(rt, a), NetConn(rt, b)

	onGoroutine := later(func() (int, error) { return c.Read(make([]byte, 1)) })
	waits(t, c, 0)
	require.True(t, a.src.home.Load() == lobby())
	inTask := Spawn(rt, func(cx *Context) (int, error) { return a.Read(cx, make([]byte, 1)) })
	eventually(t, func() bool { return waiting(inTask) })
	require.True(t, a.src.home.Load() == &rt.workers[0].reactor)
	require.EqualValues(t, 1, registered(rt))
	require.Zero(t, rt.lobby.sources())
	require.True(t, rt.fds.get(int(a.src.fd)) == &a.src)
	_, err = peer.Write([]byte("x"))
	require.NoError(t, err)
	_, err = peer.Write([]byte("y"))
	require.NoError(t, err)
	require.Equal(t, answer{n: 1}, soon(t, onGoroutine))
	n, err := join(t, inTask)
	require.NoError(t, err)
	require.Equal(t, 1, n)

	inTask = Spawn(rt, func(cx *Context) (int, error) { return a.Read(cx, make([]byte, 1)) })
	eventually(t, func() bool { return waiting(inTask) })
	eventually(t, func() bool { // an event that was fetched before may have the task look again
		NetConn(rt, a)
		return a.src.home.Load() == lobby() && registered(rt) == 0
	})
	_, err = peer.Write([]byte("x"))
	require.NoError(t, err)
	n, err = join(t, inTask)
	require.NoError(t, err)
	require.Equal(t, 1, n)

	// With another runtime it is not moved: the table of descriptors is one runtime's.
	other := newTestRuntime(t, Config{Workers: 1})
	home := a.src.home.Load()
	NetConn(other, a)
	_, err = tcpJoin(Go(other, func(cx *Context) error {
		if err := a.PollReadable(cx); err != ErrPending {
			return err
		}
		return nil
	}))
	require.NoError(t, err)
	require.True(t, a.src.home.Load() == home)
}

// No event is lost while a connection goes to and fro between a worker and the lobby.
func TestSourceMovesWhileInUse(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	a, b, err := SocketPair()
	require.NoError(t, err)
	defer b.Close()
	peer := NetConn(rt, b)
	echo := Spawn(rt, func(cx *Context) (n int, err error) {
		p := make([]byte, 1)
		for {
			if _, err = a.Read(cx, p); err != nil {
				return n, err
			}
			if _, err = a.Write(cx, p); err != nil {
				return n, err
			}
			n++
		}
	})
	var over atomic.Bool
	var moved int
	movers := [2]chan None{make(chan None), make(chan None)}
	for i, done := range movers {
		go func() {
			defer close(done)
			for !over.Load() {
				if a.src.home.Load() != rt.lobby.reactor.Load() && i == 0 {
					moved++
				}
				NetConn(rt, a)
			}
		}()
	}
	rounds := 20_000
	if testing.Short() {
		rounds = 2_000
	}
	peer.SetDeadline(time.Now().Add(2 * patience))
	p := make([]byte, 1)
	for range rounds {
		_, err := peer.Write(p)
		require.NoError(t, err)
		_, err = io.ReadFull(peer, p)
		require.NoError(t, err)
	}
	over.Store(true)
	for _, done := range movers {
		receive(t, done)
	}
	require.Greater(t, moved, 10)
	require.NoError(t, a.Close())
	_, err = join(t, echo)
	require.ErrorIs(t, err, net.ErrClosed)
	require.Zero(t, registered(rt))
	require.Equal(t, 1, rt.lobby.sources())
}

// What cannot be registered where it should go stays where it is, and if that is no
// longer possible either, who waits tries for himself.
func TestSourceMoveFails(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	lobby, err := rt.lobby.enter(rt)
	require.NoError(t, err)
	open := func() *reactor {
		r := new(reactor)
		require.NoError(t, r.open(&rt.fds, false))
		t.Cleanup(r.close)
		return r
	}
	closed, from := open(), open()
	closed.close()
	fd, _ := testSocketpair(t)
	s := &source{fd: int32(fd)}
	require.NoError(t, s.registerAt(from))
	require.NoError(t, s.move(from, closed))
	require.True(t, s.home.Load() == from)
	require.EqualValues(t, 1, from.sources.Load())
	require.Zero(t, closed.sources.Load())

	require.NoError(t, s.move(lobby, from), "it is not there")
	require.True(t, s.home.Load() == from)

	// Closed between the two registrations, as by a Shutdown.
	cx, wakes := newPollCx(t, rt)
	require.True(t, s.rd.waiters.join(cx.waker(waitsRead)))
	require.True(t, from.unregister(fd))
	from.close()
	s.state.begin(0)
	s.homeless(from)
	require.EqualValues(t, 1, wakes.Load())
	require.Nil(t, s.home.Load())
	require.Nil(t, rt.fds.get(fd))
	require.False(t, s.state.has(sourceRegistered))
	require.NoError(t, s.register(cx))
	require.True(t, s.home.Load() == lobby)
	s.forget()

	require.True(t, s.state.claim(sourceClosed))
	require.Equal(t, net.ErrClosed, s.move(lobby, from))
}

// Who comes to the lobby while the runtime ends is not left waiting there.
func TestLobbyEntersAtShutdown(t *testing.T) {
	for range 50 {
		rt := newTestRuntime(t, Config{Workers: 1})
		var all sync.WaitGroup
		begin := make(chan None)
		for range 4 {
			a, b := testSocketpair(t)
			s := &source{fd: int32(a)}
			op := reader(make([]byte, 1))
			woken := make(chan None, 1)
			cx := NewContext(rt, NewWaker(func() { notify(woken) }))
			all.Go(func() {
				<-begin
				for {
					if _, err := s.attempt(cx, &s.rd, op.call); err != ErrPending {
						if err != ErrShutdown {
							t.Error(err)
						}
						return
					}
					select {
					case <-woken:
					case <-time.After(patience):
						t.Error("nobody wakes it")
						return
					}
				}
			})
			_ = b
		}
		close(begin)
		require.NoError(t, rt.Shutdown(ended()))
		all.Wait()
	}
}

// Without descriptors for the lobby, goroutines learn it, and can go on later.
func TestLobbyWithoutDescriptors(t *testing.T) {
	if os.Getenv(faultsChild) == "" {
		faultsStart(t, "alone").finish()
		return
	}
	faultsLimit(t, 64)
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b, err := SocketPair()
	require.NoError(t, err)
	defer a.Close()
	defer b.Close()
	c, peer := NetConn(rt, a), NetConn(rt, b)
	free := faultsExhaust(t)
	for range 3 {
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.EMFILE)
		requireOp(t, err, "read", c)
	}
	free(64)
	read := later(func() (int, error) { return c.Read(make([]byte, 1)) })
	waits(t, c, 0)
	_, err = peer.Write([]byte("x"))
	require.NoError(t, err)
	require.Equal(t, answer{n: 1}, soon(t, read))
}

// Each reports all events, as a poller of goroutines.
func TestPollerEach(t *testing.T) {
	var p poller
	require.NoError(t, p.open(true))
	eachEvent(t, &p)
}

// eachEvent has p report what happens to a socket, and closes it.
func eachEvent(t *testing.T, p *poller) {
	a, b := testSocketpair(t)
	require.NoError(t, p.add(a))
	got, done := make(chan Readiness), make(chan error)
	go func() {
		done <- p.each(make([]event, 1), func(events []event) (more bool) {
			for _, e := range events {
				got <- e.ready
				more = more || e.ready&HungUp == 0
			}
			return more || len(events) == 0
		})
	}()
	require.Zero(t, receive(t, got)&Readable)
	for range 3 {
		mustWrite(t, b, "x")
		require.NotZero(t, receive(t, got)&Readable)
	}
	require.NoError(t, unix.Shutdown(b, unix.SHUT_RDWR))
	for r := Readiness(0); r&HungUp == 0; {
		r = receive(t, got)
	}
	require.NoError(t, receive(t, done))
	require.NoError(t, p.close())
}
