package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// registered returns how many descriptors the workers of rt wait for.
func registered(rt *Runtime) (n int) {
	for _, w := range rt.workers {
		n += int(w.reactor.registered.Load())
	}
	return n
}

// Descriptors for which goroutines wait are registered with the shared reactor, for all calls that
// goroutines use.
func TestSharedReactorServesGoroutines(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	require.Nil(t, rt.shared.reactor.Load(), "no goroutine needs it yet")
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
	require.Equal(t, 5, rt.shared.registered())
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
	require.Zero(t, rt.shared.registered())
}

// A task that waits takes a connection over from the shared reactor. A goroutine that waits
// for the connection is still woken. NetConn gives the connection back, even while a task waits.
func TestTaskTakesOverFromSharedReactor(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b, err := SocketPair()
	require.NoError(t, err)
	defer a.Close()
	defer b.Close()
	shared := func() *reactor { return rt.shared.reactor.Load() }
	c, peer := NetConn(rt, a), NetConn(rt, b)

	onGoroutine := later(func() (int, error) { return c.Read(make([]byte, 1)) })
	waits(t, c, 0)
	require.True(t, a.src.owner.Load() == shared())
	inTask := Spawn(rt, func(cx *Context) (int, error) { return a.Read(cx, make([]byte, 1)) })
	eventually(t, func() bool { return waiting(inTask) })
	require.True(t, a.src.owner.Load() == &rt.workers[0].reactor)
	require.EqualValues(t, 1, registered(rt))
	require.Zero(t, rt.shared.registered())
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
	eventually(t, func() bool { // an event that was fetched earlier may make the task look again
		NetConn(rt, a)
		return a.src.owner.Load() == shared() && registered(rt) == 0
	})
	_, err = peer.Write([]byte("x"))
	require.NoError(t, err)
	n, err = join(t, inTask)
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// No event is lost while a connection moves back and forth between a worker and the shared reactor.
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
				if a.src.owner.Load() != rt.shared.reactor.Load() && i == 0 {
					moved++
				}
				NetConn(rt, a)
			}
		}()
	}
	rounds := 5_000
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
	require.Equal(t, 1, rt.shared.registered())
}

// A connection ends, in several ways, while it moves back and forth. All its waiters get the error,
// and no poller keeps it.
func TestSourceMovesAndEnds(t *testing.T) {
	const conns = 8
	ends := map[string]struct {
		end  func(rt *Runtime, a, b *UnixConn)
		want error
	}{
		"closed":     {func(_ *Runtime, a, _ *UnixConn) { a.Close() }, net.ErrClosed},
		"peer ended": {func(_ *Runtime, _, b *UnixConn) { b.CloseWrite() }, io.EOF},
		"shutdown":   {func(rt *Runtime, _, _ *UnixConn) { rt.Shutdown(ended()) }, ErrShutdown},
	}
	for name, test := range ends {
		t.Run(name, func(t *testing.T) {
			times := 20
			if testing.Short() {
				times = 5
			}
			for range times {
				rt := newTestRuntime(t, Config{Workers: 2})
				var over atomic.Bool
				var movers sync.WaitGroup
				var pairs [conns][2]*UnixConn
				var reads []<-chan answer
				var tasks []*JoinHandle[int]
				for i := range pairs {
					a, b, err := SocketPair()
					require.NoError(t, err)
					pairs[i] = [2]*UnixConn{a, b}
					c := NetConn(rt, a)
					for range 2 {
						reads = append(reads, later(func() (int, error) { return c.Read(make([]byte, 1)) }))
						tasks = append(tasks, Spawn(rt, func(cx *Context) (int, error) {
							for {
								if n, err := a.Read(cx, make([]byte, 1)); n > 0 || err != nil {
									return n, err
								}
							}
						}))
					}
					movers.Go(func() {
						for !over.Load() {
							NetConn(rt, a)
							a.src.notifyAll() // so that the tasks take it back
							runtime.Gosched()
						}
					})
				}
				for _, h := range tasks {
					eventually(t, func() bool { return waiting(h) || h.state.done() })
				}
				for _, p := range pairs {
					test.end(rt, p[0], p[1])
				}
				for _, read := range reads {
					require.ErrorIs(t, soon(t, read).err, test.want)
				}
				for _, h := range tasks {
					_, err := join(t, h)
					if test.want == ErrShutdown {
						require.ErrorIs(t, err, context.Canceled)
					} else {
						require.ErrorIs(t, err, test.want)
					}
				}
				over.Store(true)
				movers.Wait()
				for _, p := range pairs {
					fd := int(p[0].src.fd)
					p[0].Close()
					require.Nil(t, rt.fds.get(fd))
					p[1].Close()
				}
				if test.want != ErrShutdown {
					require.Zero(t, registered(rt))
					require.Zero(t, rt.shared.registered())
				}
				rt.Shutdown(ended())
			}
		})
	}
}

// A descriptor that cannot be registered with the new reactor stays with its owner. If the owner
// cannot register it again either, it has no owner. Then the waiter is woken and registers it.
func TestSourceMoveFails(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	shared, err := rt.shared.acquire()
	require.NoError(t, err)
	open := func() *reactor {
		r := new(reactor)
		require.NoError(t, r.open(&rt.fds))
		t.Cleanup(r.close)
		return r
	}
	closed, from := open(), open()
	closed.close()
	a, b, err := SocketPair()
	require.NoError(t, err)
	defer b.Close()
	s := &a.src
	require.NoError(t, s.registerWith(from))
	require.False(t, s.state.has(fdMoved))
	require.NoError(t, s.move(from, closed, fdMoved))
	require.True(t, s.owner.Load() == from)
	require.EqualValues(t, 1, from.registered.Load())
	require.Zero(t, closed.registered.Load())

	require.NoError(t, s.move(shared, closed, fdMoved), "it is not the owner")
	require.True(t, s.owner.Load() == from)
	require.EqualValues(t, 1, from.registered.Load())
	require.Zero(t, shared.registered.Load())

	cx, wakes := newPollCx(t, rt)
	require.True(t, s.rd.waiters.join(cx.waker(waitsRead)))
	from.close()
	require.NoError(t, s.move(from, closed, fdMoved))
	require.EqualValues(t, 1, wakes.Load())
	require.Nil(t, s.owner.Load())
	require.Nil(t, rt.fds.get(int(s.fd)))
	require.False(t, s.state.has(fdRegistered))
	require.Equal(t, ErrPending, a.PollReadable(cx))
	require.True(t, s.owner.Load() == shared)

	require.NoError(t, a.Close())
	require.Zero(t, shared.registered.Load())
	require.Equal(t, net.ErrClosed, s.move(shared, from, fdMoved))
}

// An event from a reactor that does not own the descriptor is ignored: it is late, or it belongs to
// a descriptor that had the same number before.
func TestEventsOfFormerOwnersAreIgnored(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	shared, err := rt.shared.acquire()
	require.NoError(t, err)
	a, b, err := SocketPair()
	require.NoError(t, err)
	defer a.Close()
	defer b.Close()
	worker := new(reactor)
	require.NoError(t, worker.open(&rt.fds))
	defer worker.close()
	require.NoError(t, a.src.registerWith(worker))
	require.True(t, a.src.ownedAlwaysBy(worker))
	cx, wakes := newPollCx(t, rt)
	require.True(t, a.src.rd.waiters.join(cx.waker(waitsRead)))
	late := []fdEvent{{fd: int(a.src.fd), ready: Readable | HungUp}}
	shared.dispatch(nil, late)
	require.Zero(t, wakes.Load())
	require.False(t, a.src.state.has(fdHungUp))
	worker.dispatch(nil, late)
	require.EqualValues(t, 1, wakes.Load())

	require.NoError(t, a.src.move(worker, shared, fdMoved))
	require.False(t, a.src.ownedAlwaysBy(shared))
}

// The goroutine of the shared reactor, which stays, does not have the labels of the first caller. A
// descriptor that was registered there no longer counts once the runtime has ended.
func TestSharedReactorGoroutineHasNoLabels(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b, err := SocketPair()
	require.NoError(t, err)
	defer b.Close()
	cx, wakes := newPollCx(t, rt)
	pprof.Do(t.Context(), pprof.Labels("request", "first"), func(context.Context) {
		require.Equal(t, ErrPending, a.PollReadable(cx))
	})
	_, err = unix.Write(int(b.src.fd), []byte("x"))
	require.NoError(t, err)
	eventually(t, func() bool { return wakes.Load() > 0 }) // its goroutine runs
	require.Empty(t, profileLabels(t, "(*sharedReactor).run"))
	require.Equal(t, 1, rt.Metrics().Sources)
	require.NoError(t, rt.Shutdown(ended()))
	require.NoError(t, a.Close())
	require.Zero(t, rt.Metrics().Sources)
}

// Two runtimes do not take a connection from each other: each has a table of its own.
func TestSourceOfAnotherRuntime(t *testing.T) {
	rt, other := newTestRuntime(t, Config{Workers: 1}), newTestRuntime(t, Config{Workers: 1})
	a, b, err := SocketPair()
	require.NoError(t, err)
	defer a.Close()
	defer b.Close()
	poll := func(cx *Context) (None, error) {
		if err := a.PollReadable(cx); err != ErrPending {
			return None{}, fmt.Errorf("ready: %w", err)
		}
		return None{}, nil
	}
	for _, onWorker := range []bool{false, true} {
		if onWorker {
			runInTask(t, rt, func(cx *Context) error { _, err := poll(cx); return err })
			require.True(t, a.src.owner.Load() == &rt.workers[0].reactor)
		} else {
			_, err = BlockOn(rt, poll)
			require.NoError(t, err)
			require.True(t, a.src.owner.Load() == rt.shared.reactor.Load())
		}
		owner := a.src.owner.Load()
		NetConn(other, a)
		_, err = BlockOn(other, poll)
		require.NoError(t, err)
		runInTask(t, other, func(cx *Context) error { _, err := poll(cx); return err })
		require.True(t, a.src.owner.Load() == owner)
	}
}

// A connection outlives the runtime that has waited for it, and all its waiters of another
// runtime still get its events.
func TestSourceOutlivesItsRuntime(t *testing.T) {
	for _, inTask := range []bool{false, true} {
		rt, other := newTestRuntime(t, Config{Workers: 1}), newTestRuntime(t, Config{Workers: 1})
		a, b, err := SocketPair()
		require.NoError(t, err)
		defer a.Close()
		defer b.Close()
		first := Spawn(rt, func(cx *Context) (int, error) { return a.Read(cx, make([]byte, 1)) })
		eventually(t, func() bool { return waiting(first) })
		_, err = NetConn(rt, b).Write([]byte("x"))
		require.NoError(t, err)
		join(t, first)
		if !inTask {
			NetConn(rt, a) // to the shared reactor
		}
		c := NetConn(other, a)
		reads := make(chan answer, 2)
		go func() {
			n, err := c.Read(make([]byte, 1))
			reads <- answer{n, err}
		}()
		waits(t, c, 0)
		if inTask {
			h := Spawn(other, func(cx *Context) (int, error) { return a.Read(cx, make([]byte, 1)) })
			eventually(t, func() bool { return waiting(h) })
			go func() {
				n, err := h.JoinBlocking(context.Background())
				reads <- answer{n, err}
			}()
		}
		owner := a.src.owner.Load()
		require.True(t, owner.fds == &rt.fds)
		require.NoError(t, rt.Shutdown(ended()))
		eventually(t, func() bool { r := a.src.owner.Load(); return r != nil && r.fds == &other.fds })
		require.Zero(t, owner.registered.Load())
		require.Nil(t, rt.fds.get(int(a.src.fd)))
		_, err = NetConn(other, b).Write([]byte("y"))
		require.NoError(t, err)
		require.Equal(t, answer{n: 1}, soon(t, reads))
		if inTask {
			_, err = NetConn(other, b).Write([]byte("z"))
			require.NoError(t, err)
			require.Equal(t, answer{n: 1}, soon(t, reads))
		}
	}
}

// NetConn and NetListener take over descriptors of all types that a task has waited for.
func TestNetFormsTakeOverFromTasks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	tcp, peer := tcpPair(t, rt)
	defer peer.Close()
	a, b, err := SocketPair()
	require.NoError(t, err)
	defer b.Close()
	udp, err := ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	c, d, err := DatagramPair()
	require.NoError(t, err)
	defer d.Close()
	ln := tcpListen(t)
	all := []interface {
		io.Closer
		pollFD() *pollFD
	}{tcp, a, udp, c, ln}
	for _, c := range all {
		s := c.pollFD()
		runInTask(t, rt, func(cx *Context) error {
			if err := s.pollReady(cx, &s.rd, false); err != ErrPending {
				return fmt.Errorf("ready: %w", err)
			}
			return nil
		})
		require.True(t, s.owner.Load() == &rt.workers[0].reactor)
		if ln, ok := c.(Listener); ok {
			NetListener(rt, ln)
		} else {
			NetConn(rt, c.(Conn))
		}
		require.True(t, s.owner.Load() == rt.shared.reactor.Load(), "%T", c)
	}
	require.Zero(t, registered(rt))
	for _, c := range all {
		c.Close()
	}
	require.Zero(t, rt.shared.registered())
}

// The worker of a task that has taken over a connection also wakes goroutines that wait for it.
func TestWorkerWakesGoroutines(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	defer b.Close()
	c := NetConn(rt, a)
	runInTask(t, rt, func(cx *Context) error {
		if err := a.PollReadable(cx); err != ErrPending {
			return fmt.Errorf("ready: %w", err)
		}
		return nil
	})
	for range 100 {
		read := later(func() (int, error) { return c.Read(make([]byte, 1)) })
		waits(t, c, 0)
		require.True(t, a.src.owner.Load() == &rt.workers[0].reactor)
		_, err := NetConn(rt, b).Write([]byte("x"))
		require.NoError(t, err)
		require.Equal(t, answer{n: 1}, soon(t, read))
	}
}

// A goroutine that begins to wait for the shared reactor while the runtime ends gets an error.
func TestSharedReactorAtShutdown(t *testing.T) {
	for range 50 {
		rt := newTestRuntime(t, Config{Workers: 1})
		var all sync.WaitGroup
		begin := make(chan None)
		for range 4 {
			a, b, err := SocketPair()
			require.NoError(t, err)
			woken := make(chan None, 1)
			cx := NewContext(rt, NewWaker(func() { notifyChan(woken) }))
			all.Go(func() {
				defer b.Close()
				defer a.Close()
				<-begin
				for {
					err := a.PollReadable(cx)
					if err != ErrPending {
						if !errors.Is(err, ErrShutdown) {
							t.Error(err)
						}
						return
					}
					select {
					case <-woken:
					case <-time.After(patience):
						t.Error("no wake came")
						return
					}
				}
			})
		}
		close(begin)
		require.NoError(t, rt.Shutdown(ended()))
		all.Wait()
	}
}

// A blocking call panics in the function of a Waker that the shared reactor calls.
func TestSharedReactorAndBlockingWakers(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var conns [4][2]*UnixConn
	for i := range conns {
		a, b, err := SocketPair()
		require.NoError(t, err)
		defer a.Close()
		defer b.Close()
		conns[i] = [2]*UnixConn{a, b}
	}
	panics := make(chan any, len(conns))
	for _, pair := range conns {
		cx := NewContext(rt, NewWaker(func() {
			defer func() { panics <- recover() }()
			BlockOn(rt, func(*Context) (None, error) { return None{}, nil })
		}))
		require.Equal(t, ErrPending, pair[0].PollReadable(cx))
	}
	for _, pair := range conns {
		mustWriteConn(t, pair[1])
	}
	for range conns {
		require.Contains(t, receive(t, panics), "BlockOn was called in the function of a Waker")
	}
}

func mustWriteConn(t *testing.T, c *UnixConn) {
	n, err := unix.Write(int(c.src.fd), []byte("x"))
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// A worker serves goroutines while there are no descriptors left to open the shared reactor.
func TestSharedReactorWithoutDescriptors(t *testing.T) {
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
	readOne := func(owner *reactor) {
		read := later(func() (int, error) { return c.Read(make([]byte, 1)) })
		waits(t, c, 0)
		if owner == nil {
			owner = rt.shared.reactor.Load()
		}
		require.True(t, a.src.owner.Load() == owner)
		_, err := peer.Write([]byte("x"))
		require.NoError(t, err)
		require.Equal(t, answer{n: 1}, soon(t, read))
	}
	readOne(&rt.workers[0].reactor)
	NetConn(rt, a)
	require.Nil(t, rt.shared.reactor.Load())
	readOne(&rt.workers[0].reactor)
	free(64)
	NetConn(rt, a)
	readOne(nil)
}
