//go:build !race

// The counts would include allocations of the race detector.

package async

import (
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The cost of operations is counted in numbers that do not depend on the machine. A change that
// adds an allocation or a poll fails here. A change that saves some must lower the number. For
// system calls see TestSystemCalls.

// cost is the cost of one operation.
type cost struct {
	allocs float64
	polls  float64 // of all tasks of the operation
}

// countedOps are operations of one task on one worker, n of them.
var countedOps = []struct {
	name string
	run  func(cx *Context, n int)
	cost cost
}{
	{"spawn a future and await it", func(cx *Context, n int) {
		one := ReadyFuture(1)
		for range n {
			Await(cx, SpawnFuture(cx, one))
		}
	}, cost{allocs: 1, polls: 2}},
	{"spawn straight-line code and await it", func(cx *Context, n int) {
		for range n {
			Await(cx, Spawn(cx, func(*Context) (int, error) { return 1, nil }))
		}
	}, cost{allocs: 1, polls: 2}},
	{"Yield", func(cx *Context, n int) {
		for range n {
			Yield(cx)
		}
	}, cost{polls: 1}},
	{"a future that yields", func(cx *Context, n int) {
		Await(cx, SpawnFuture(cx, &yieldTask{left: n}))
	}, cost{allocs: 0, polls: 1}},
	{"Mutex", func(cx *Context, n int) {
		var m Mutex
		for range n {
			m.Lock(cx)
			m.Unlock()
		}
	}, cost{}},
	{"a Mutex that another task holds", func(cx *Context, n int) {
		var m Mutex
		other := Go(cx, func(cx *Context) error { return takeTurns(cx, &m, n) })
		takeTurns(cx, &m, n)
		Await(cx, other)
	}, cost{allocs: 0.4, polls: 4}},
	{"a message of a Chan with room", func(cx *Context, n int) {
		c := NewChan[int](1)
		for i := range n {
			c.Send(cx, i)
			c.Recv(cx)
		}
	}, cost{polls: 1.0 / 64}}, // its budget of 128 operations
	{"a message of a rendezvous", func(cx *Context, n int) {
		c := NewChan[int](0)
		other := Go(cx, func(cx *Context) error {
			for range n {
				c.Recv(cx)
			}
			return nil
		})
		for i := range n {
			c.Send(cx, i)
		}
		Await(cx, other)
	}, cost{polls: 1}},
	{"Launch", func(cx *Context, n int) {
		for range n {
			Launch(cx, doNothing)
			Yield(cx)
		}
	}, cost{polls: 2}},
	{"LaunchFuture", func(cx *Context, n int) {
		f := PollFunc(func(*Context) (None, error) { return None{}, nil })
		for range n {
			LaunchFuture(cx, f)
			Yield(cx)
		}
	}, cost{polls: 2}},
	{"a Oneshot to another task", func(cx *Context, n int) {
		for range n {
			o := new(Oneshot[int])
			Go(cx, func(cx *Context) error { return o.Send(1) })
			o.Recv(cx)
		}
	}, cost{allocs: 3, polls: 2}},
	{"Select of two Chans, one ready", func(cx *Context, n int) {
		a, b := NewChan[int](1), NewChan[int](1)
		onA, onB := OnRecv(a), OnRecv(b)
		cases := []Case{onA, onB}
		for i := range n {
			a.Send(cx, i)
			Select(cx, cases...)
		}
	}, cost{polls: 1.0 / 64}},
	{"a Sleep that is over", func(cx *Context, n int) {
		for range n {
			Sleep(cx, 0)
		}
	}, cost{polls: 1.0 / 128}},
}

func doNothing(*Context) error { return nil }

// yieldTask yields until left is 0.
type yieldTask struct{ left int }

func (y *yieldTask) Poll(cx *Context) (None, error) {
	if y.left--; y.left < 0 {
		return None{}, nil
	}
	cx.here().yield(cx.t)
	return None{}, ErrPending
}

// takeTurns locks m n times and awaits while it holds it.
func takeTurns(cx *Context, m *Mutex, n int) error {
	for range n {
		m.Lock(cx)
		Yield(cx)
		m.Unlock()
	}
	return nil
}

func TestCountsOfTasks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1})
	for _, op := range countedOps {
		var got cost
		_, err := join(t, Go(rt, func(cx *Context) error {
			op.run(cx, 200) // makes the coroutines, queues and buffers
			got = costOf(func() uint64 { return cx.t.w.counts[countPolls] }, 10_000, func(n int) { op.run(cx, n) })
			return nil
		}))
		require.NoError(t, err)
		requireCost(t, op.name, op.cost, got)
	}
}

// requireCost compares costs. The tolerance is for polls that are counted a round late, and for
// allocations that the Go runtime makes now and then.
func requireCost(t *testing.T, name string, want, got cost) {
	t.Helper()
	assert.InDelta(t, want.allocs, got.allocs, 0.02, "allocations: %s", name)
	assert.InDelta(t, want.polls, got.polls, 0.02, "polls: %s", name)
}

// costOf returns the cost of one of n operations. polls returns the count of polls.
func costOf(polls func() uint64, n int, run func(n int)) cost {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties pools
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begun := polls()
	run(n)
	ended := polls()
	runtime.ReadMemStats(&after)
	return cost{
		allocs: float64(after.Mallocs-before.Mallocs) / float64(n),
		polls:  float64(ended-begun) / float64(n),
	}
}

// echoForms are an echo in each of the forms that the library offers. Each serves c until c ends.
var echoForms = []struct {
	name  string
	serve func(rt *Runtime, c Conn, served func()) (ended <-chan struct{}) // served is called after each request
	cost  cost                                                             // of a request
}{
	{"straight-line code", func(rt *Runtime, c Conn, served func()) <-chan struct{} {
		return Go(rt, func(cx *Context) error {
			defer c.Close()
			buf := make([]byte, 4096)
			for {
				n, err := c.Read(cx, buf)
				if err != nil {
					return nil
				}
				if _, err := c.Write(cx, buf[:n]); err != nil {
					return err
				}
				served()
			}
		}).Done()
	}, cost{polls: 1}},
	{"a future", func(rt *Runtime, c Conn, served func()) <-chan struct{} {
		return SpawnFuture(rt, &echoFuture{c: c.(PollConn), buf: make([]byte, 4096), served: served}).Done()
	}, cost{polls: 1}},
	{"Serve", func(rt *Runtime, c Conn, served func()) <-chan struct{} {
		ended := make(chan struct{})
		ln := &oneConnListener{c: c, ended: ended}
		buf := make([]byte, 4096)
		server := &Server{Handler: func(cx *Context, c Conn) (bool, error) {
			n, err := c.Read(cx, buf)
			if err != nil {
				close(ended)
				return false, nil
			}
			_, err = c.Write(cx, buf[:n])
			served()
			return true, err
		}}
		Go(rt, func(cx *Context) error { return server.Serve(cx, ln) })
		return ended
	}, cost{polls: 1}},
	{"goroutines", func(rt *Runtime, c Conn, served func()) <-chan struct{} {
		ended := make(chan struct{})
		nc := NetConn(rt, c)
		go func() {
			defer close(ended)
			defer nc.Close()
			buf := make([]byte, 4096)
			for {
				n, err := nc.Read(buf)
				if err != nil {
					return
				}
				nc.Write(buf[:n])
				served()
			}
		}()
		return ended
	}, cost{}},
}

// echoFuture is an echo of messages that fit in buf and in the socket.
type echoFuture struct {
	c      PollConn
	buf    []byte
	served func()
}

func (e *echoFuture) Poll(cx *Context) (None, error) {
	for {
		n, err := e.c.PollRead(cx, e.buf)
		if err == io.EOF {
			return None{}, e.c.Close()
		}
		if err != nil {
			return None{}, err
		}
		if _, err := e.c.PollWrite(cx, e.buf[:n]); err != nil {
			return None{}, err
		}
		e.served()
	}
}

// oneConnListener has one connection, and then waits.
type oneConnListener struct {
	c     Conn
	taken bool
	ended <-chan struct{}
}

func (l *oneConnListener) Accept(cx *Context) (Conn, error) { return Await(cx, PollFunc(l.PollAccept)) }
func (l *oneConnListener) PollAccept(cx *Context) (Conn, error) {
	if l.taken {
		return NeverFuture[Conn]().Poll(cx)
	}
	l.taken = true
	return l.c, nil
}
func (l *oneConnListener) Close() error   { return nil }
func (l *oneConnListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// echoes is an echo in one of the forms, on the only worker of rt. requests is its client.
func echoes(t *testing.T, rt *Runtime, form int, served func()) (requests func(n int), end func()) {
	var c Conn
	var file *os.File
	_, err := BlockOn(rt, func(cx *Context) (None, error) {
		ln, err := Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return None{}, err
		}
		defer ln.Close()
		peer, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return None{}, err
		}
		defer peer.Close()
		if file, err = peer.(*net.TCPConn).File(); err != nil {
			return None{}, err
		}
		c, err = ln.Accept(cx)
		return None{}, err
	})
	require.NoError(t, err)
	fd := int(file.Fd())
	require.NoError(t, unix.SetNonblock(fd, false)) // so that the client costs nothing
	ended := echoForms[form].serve(rt, c, served)
	requests = func(n int) {
		var buf [64]byte
		for range n {
			_, err := unix.Write(fd, buf[:])
			if _, rerr := unix.Read(fd, buf[:]); err != nil || rerr != nil {
				t.Fatal(err, rerr)
			}
		}
	}
	return requests, func() {
		require.NoError(t, file.Close())
		receive(t, ended)
	}
}

func TestCountsOfAnEcho(t *testing.T) {
	for i, form := range echoForms {
		rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Grace: time.Millisecond})
		requests, end := echoes(t, rt, i, func() {})
		requests(200)
		got := costOf(func() uint64 {
			polls, err := join(t, Spawn(rt, func(cx *Context) (uint64, error) { return cx.t.w.counts[countPolls], nil }))
			require.NoError(t, err)
			return polls
		}, 5000, requests)
		assert.LessOrEqual(t, got.allocs, form.cost.allocs+0.02, form.name)
		assert.LessOrEqual(t, got.polls, form.cost.polls+0.02, form.name) // fewer if the next request arrives in time
		end()
	}
}
