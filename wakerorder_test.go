package async

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// turnsOf is a kind of event for which many tasks wait at the same time. Each event is for one of
// them.
type turnsOf struct {
	wait  func(cx *Context) error // waits for an event and takes it
	event func()                  // makes one more event
}

// manyWait returns the kinds of events for which many tasks may wait at once, by name.
func manyWait(t *testing.T, rt Spawner, n int) map[string]turnsOf {
	t.Helper()
	one := make([]byte, 1)
	listen := func(network, address string) Listener {
		ln, err := BlockOn(rt, func(cx *Context) (Listener, error) { return Listen(cx, network, address) })
		require.NoError(t, err)
		t.Cleanup(func() { ln.Close() })
		return ln
	}
	accept := func(ln Listener) turnsOf {
		return turnsOf{
			func(cx *Context) error {
				c, err := ln.Accept(cx)
				if err == nil {
					c.Close()
				}
				return err
			},
			func() {
				c, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
				require.NoError(t, err)
				t.Cleanup(func() { c.Close() })
			},
		}
	}
	read := func(r Reader, fd int32) turnsOf {
		return turnsOf{
			func(cx *Context) error { _, err := r.Read(cx, make([]byte, 1)); return err },
			func() {
				_, err := unix.Write(int(fd), one)
				require.NoError(t, err)
			},
		}
	}
	closeAtEnd := func(all ...io.Closer) {
		t.Cleanup(func() {
			for _, c := range all {
				c.Close()
			}
		})
	}

	r, w, err := Pipe()
	require.NoError(t, err)
	full, drain, err := Pipe()
	require.NoError(t, err)
	full, drain = drain, full
	page := make([]byte, os.Getpagesize())
	for err == nil {
		_, err = unix.Write(int(full.src.fd), page)
	}
	t.Cleanup(func() {
		for _, f := range []*File{r, w, full, drain} {
			f.discard()
		}
	})
	a, b, err := SocketPair()
	require.NoError(t, err)
	closeAtEnd(a, b)
	tcp := listen("tcp", "127.0.0.1:0")
	mine := accept(tcp)
	got := Spawn(rt, func(cx *Context) (*TCPConn, error) { return tcp.(*TCPListener).AcceptTCP(cx) })
	peer, err := net.Dial("tcp", tcp.Addr().String())
	require.NoError(t, err)
	stream, err := join(t, got)
	require.NoError(t, err)
	udp, err := ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	from, err := net.Dial("udp4", udp.LocalAddr().String())
	require.NoError(t, err)
	closeAtEnd(peer, stream, udp, from)

	set := new(JoinSet[int])
	ends := make(chan *probe, n)
	for range n {
		p := new(probe)
		set.Add(SpawnFuture(rt, p))
		ends <- p
	}
	signals := Signals(syscall.SIGUSR2)
	t.Cleanup(func() { signals.Close() })

	return map[string]turnsOf{
		"Accept, TCP":  mine,
		"Accept, unix": accept(listen("unix", t.TempDir()+"/s")),
		"Read, pipe":   read(r, w.src.fd),
		"Read, unix":   read(a, b.src.fd),
		"Read, TCP": {
			func(cx *Context) error { _, err := stream.Read(cx, make([]byte, 1)); return err },
			func() { _, err := peer.Write(one); require.NoError(t, err) },
		},
		"ReadFrom, UDP": {
			func(cx *Context) error { _, _, err := udp.ReadFrom(cx, make([]byte, 1)); return err },
			func() { _, err := from.Write(one); require.NoError(t, err) },
		},
		"Write, pipe": {
			func(cx *Context) error { _, err := full.Write(cx, page); return err },
			func() {
				into := make([]byte, len(page)) // page is being written
				eventually(t, func() bool { n, _ := unix.Read(int(drain.src.fd), into); return n > 0 })
			},
		},
		"JoinSet": {
			func(cx *Context) error { _, err := set.Next(cx); return err },
			func() { p := <-ends; eventually(t, func() bool { return p.polls.Load() > 0 }); p.resolve(nil) },
		},
		"Signals": {
			func(cx *Context) error { _, err := signals.Next(cx); return err },
			func() { signals.note(syscall.SIGUSR2) },
		},
	}
}

// Many tasks wait for one descriptor, or one set. Each event wakes the tasks that it can serve, and
// at most a few that find nothing: n events cost a number of polls that grows with n, and not with
// n times n.
func TestManyWaitersOneEvent(t *testing.T) {
	const n, perEvent = 100, 5
	var polls atomic.Int64
	rt := newTestRuntime(t, Config{Workers: 2, Tuning: Tuning{Hooks: Hooks{BeforePoll: func(t Task) {
		if t.Name == "waiter" {
			polls.Add(1)
		}
	}}}})
	for name, x := range manyWait(t, rt, n) {
		t.Run(name, func(t *testing.T) {
			served := make(chan error, n)
			var hs []*JoinHandle[None]
			for range n {
				h := Go(rt.Named("waiter"), func(cx *Context) error {
					err := x.wait(cx)
					served <- err
					return err
				})
				hs = append(hs, h)
			}
			for _, h := range hs {
				eventually(t, func() bool { return waiting(h) })
			}
			before := polls.Load()
			for range n {
				x.event()
				require.NoError(t, receive(t, served))
			}
			for _, h := range hs {
				join(t, h)
			}
			require.LessOrEqual(t, polls.Load()-before, int64(perEvent*n), "polls for %d events beside as many tasks", n)
		})
	}
}

// If events arrive faster than one task can handle them, more tasks are woken.
func TestManyWaitersManyEvents(t *testing.T) {
	const n = 50
	rt := newTestRuntime(t, Config{Workers: 2})
	for name, x := range manyWait(t, rt, n) {
		t.Run(name, func(t *testing.T) {
			var hs []*JoinHandle[None]
			for range n {
				hs = append(hs, Go(rt, x.wait))
			}
			for _, h := range hs {
				eventually(t, func() bool { return waiting(h) })
			}
			events := n
			if name == "Signals" {
				events = 1 // a signal that is pending already is not added
			}
			for range events {
				x.event()
			}
			left := func() (n int) {
				for _, h := range hs {
					if _, err := h.TryJoin(); err == ErrPending {
						n++
					}
				}
				return n
			}
			eventually(t, func() bool { return left() == n-events }, "all events are served")
			for _, h := range hs {
				h.Cancel()
				join(t, h)
			}
		})
	}
}

// A task that was chosen and gives up before it has tried passes its turn on to the next task. The
// tasks wait on a worker that is kept busy, so that none of them can try before it is cancelled.
// The other worker serves the descriptor.
func TestTurnIsPassedOn(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	kept, serves := Spawner(workerSpawner{rt.workers[0]}), Spawner(workerSpawner{rt.workers[1]})
	for name, x := range manyWait(t, serves, 1) {
		t.Run(name, func(t *testing.T) {
			wait := func(s Spawner) *JoinHandle[None] {
				h := Go(s, x.wait)
				eventually(t, func() bool { return waiting(h) })
				return h
			}
			first := wait(serves) // registers the descriptor there
			first.Cancel()
			join(t, first)
			// The first of these tasks is alone in the slot at first, so each event wakes it. An
			// event chooses one of the others.
			hs := []*JoinHandle[None]{wait(kept), wait(kept), wait(kept)}
			hold, held := make(chan None), make(chan None)
			Go(kept, func(*Context) error { close(held); <-hold; return nil })
			receive(t, held)
			x.event()
			eventually(t, func() bool { return !waiting(hs[0]) && !waiting(hs[1]) })
			hs[0].Cancel()
			hs[1].Cancel()
			close(hold)
			_, err := join(t, hs[2])
			require.NoError(t, err)
			for _, h := range hs[:2] {
				_, err := join(t, h)
				require.ErrorIs(t, err, context.Canceled)
			}
		})
	}
}

// Tasks read from one pipe, a byte at a time, and are cancelled all the time. Each byte is read
// once, and no task sleeps while there is one.
func TestReadTurnsExactlyOnce(t *testing.T) {
	const tasks, bytes, burst = 8, 6_000, 50
	rt := newTestRuntime(t, Config{Workers: 2})
	r, w, err := Pipe()
	require.NoError(t, err)
	defer r.discard()
	defer w.discard()
	read := make(chan None, bytes)
	var hs []*JoinHandle[int]
	for i := range tasks {
		hs = append(hs, Spawn(rt, func(cx *Context) (n int, err error) {
			for k := i; ; k++ {
				in, cancel := cx.WithCancel()
				switch k % 4 {
				case 0:
					Go(cx, func(*Context) error { cancel(); return nil })
				case 1:
					// This code polls by hand, and does not poll again.
					if _, err := r.PollRead(cx, make([]byte, 1)); err == nil {
						read <- None{}
						n++
					}
				}
				_, err := r.Read(in, make([]byte, 1))
				cancel()
				switch {
				case err == nil:
					read <- None{}
					n++
				case err == io.EOF:
					return n, nil
				case cx.Err() != nil:
					return n, err
				}
			}
		}))
	}
	for range bytes / burst {
		_, err := unix.Write(int(w.src.fd), make([]byte, burst))
		require.NoError(t, err)
		for range burst {
			receive(t, read)
		}
	}
	w.discard()
	total := 0
	for _, h := range hs {
		n, err := join(t, h)
		require.NoError(t, err)
		total += n
	}
	require.Equal(t, bytes, total)
}

// An end of file, a deadline and Close wake all tasks that wait for a descriptor.
func TestCloseAndDeadlineWakeAllWaiters(t *testing.T) {
	const n = 20
	for name, tell := range map[string]struct {
		end  func(r, w *UnixConn)
		want error
	}{
		"the end":  {func(r, w *UnixConn) { w.Close() }, io.EOF},
		"deadline": {func(r, w *UnixConn) { r.SetReadDeadline(time.Now()) }, os.ErrDeadlineExceeded},
		"Close":    {func(r, w *UnixConn) { r.Close() }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			r, w, err := SocketPair()
			require.NoError(t, err)
			defer r.Close()
			defer w.Close()
			var hs []*JoinHandle[None]
			for i := range n {
				h := Go(rt, func(cx *Context) error {
					if i%2 == 0 {
						return r.Readable(cx)
					}
					_, err := r.Read(cx, make([]byte, 1))
					return err
				})
				eventually(t, func() bool { return waiting(h) })
				hs = append(hs, h)
			}
			tell.end(r, w)
			for i, h := range hs {
				_, err := join(t, h)
				if name == "the end" && i%2 == 0 {
					require.NoError(t, err, "it is readable")
				} else {
					require.ErrorIs(t, err, tell.want, fmt.Sprint(i))
				}
			}
		})
	}
}

// The result of one system call of the user's says nothing about another call. So an event wakes
// all tasks that wait in ReadWith, and one of the tasks that wait in order.
func TestSourceEventWakesAllCalls(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b, err := SocketPair()
	require.NoError(t, err)
	defer a.Close()
	defer b.Close()
	s, err := newSourceOf(fileOf(t, a))
	require.NoError(t, err)
	defer s.Close()
	var calls [3]atomic.Int32
	var hs []*JoinHandle[int]
	for i := range calls {
		h := Spawn(rt, func(cx *Context) (int, error) {
			return s.ReadWith(cx, func(fd int) (int, error) {
				if calls[i].Add(1); i < len(calls)-1 {
					return 0, unix.EAGAIN // the data that this call wants is not there
				}
				return unix.Read(fd, make([]byte, 1))
			})
		})
		eventually(t, func() bool { return waiting(h) })
		hs = append(hs, h)
	}
	var readable []*JoinHandle[None]
	for range 3 {
		h := Go(rt, func(cx *Context) error { return s.Readable(cx) })
		eventually(t, func() bool { return waiting(h) })
		readable = append(readable, h)
	}
	_, err = unix.Write(int(b.src.fd), make([]byte, 10))
	require.NoError(t, err)
	_, err = join(t, hs[2])
	require.NoError(t, err)
	for _, h := range readable {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	for i := range calls {
		eventually(t, func() bool { return calls[i].Load() >= 2 }, i)
	}
	for _, h := range hs[:2] {
		h.Cancel()
		_, err := join(t, h)
		require.ErrorIs(t, err, context.Canceled)
	}
}

func fileOf(t *testing.T, c *UnixConn) *os.File {
	f, err := c.File()
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}
