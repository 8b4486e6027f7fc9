package async

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// parkedRuntime returns a runtime, and for each worker one end of a connection. A task of this
// worker echoes at the other end.
func parkedRuntime(t testing.TB, workers int) (rt *Runtime, peers []int) {
	t.Helper()
	rt = newTestRuntime(t, Config{Workers: workers})
	require.True(t, rt.idle.usable)
	peers = make([]int, workers)
	for have := 0; have < workers; {
		peer, c, err := SocketPair()
		require.NoError(t, err)
		t.Cleanup(func() { peer.Close() })
		fd := int(peer.src.fd)
		require.NoError(t, unix.SetNonblock(fd, false))
		begun := make(chan *worker, 1)
		Go(rt, func(cx *Context) error { // each task starts on the next worker, unless this worker is slow
			begun <- cx.here()
			defer c.Close()
			for buf := make([]byte, 16); ; {
				n, err := c.Read(cx, buf)
				if err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if _, err = c.Write(cx, buf[:n]); err != nil {
					return err
				}
			}
		})
		w := soon(t, begun)
		echoByte(t, fd)
		eventually(t, func() bool { return w.reactor.registered.Load() > 0 })
		if peers[w.index] == 0 {
			peers[w.index] = fd
			have++
		}
	}
	return rt, peers
}

// echoByte writes a byte to peer and reads it back.
func echoByte(t testing.TB, peer int) {
	t.Helper()
	_, err := unix.Write(peer, []byte("x"))
	require.NoError(t, err)
	n, err := unix.Read(peer, make([]byte, 16))
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// allPark waits until all workers are parked.
func allPark(t testing.TB, rt *Runtime) {
	t.Helper()
	eventually(t, func() bool { return parkedWorkers(rt) == len(rt.workers) })
}

// Idle workers park. All kinds of work unpark them.
func TestIdleWorkersPark(t *testing.T) {
	rt, peers := parkedRuntime(t, 2)
	for range 5 {
		for name, wake := range map[string]func(){
			"event": func() { echoByte(t, peers[0]) },
			"events for both": func() {
				for _, p := range peers {
					_, err := unix.Write(p, []byte("x"))
					require.NoError(t, err)
				}
				for _, p := range peers {
					_, err := unix.Read(p, make([]byte, 1))
					require.NoError(t, err)
				}
			},
			"task": func() {
				_, err := Go(rt, func(*Context) error { return nil }).JoinBlocking(context.Background())
				require.NoError(t, err)
			},
			"task of another worker": func() {
				_, err := Go(rt, func(cx *Context) error {
					_, err := Await(cx, Go(rt, func(*Context) error { return nil }))
					return err
				}).JoinBlocking(context.Background())
				require.NoError(t, err)
			},
		} {
			allPark(t, rt)
			rt.workers[0].unparkWithoutP() // spurious: the worker parks again
			wake()
			t.Log(name)
		}
	}
	h := Go(rt, func(cx *Context) error { return Sleep(cx, 4*keepP) })
	allPark(t, rt)
	_, err := h.JoinBlocking(context.Background())
	require.NoError(t, err)
	allPark(t, rt)
	require.NoError(t, rt.Shutdown(ended()))
}

// A worker is unparked by its events also while another worker keeps its P. Then perhaps no thread
// waits in Go's netpoller.
func TestParkedBesideOneThatIsNot(t *testing.T) {
	rt, peers := parkedRuntime(t, 2)
	for range 10 {
		allPark(t, rt)
		for range 3 {
			echoByte(t, peers[0])
		}
		require.NotEqual(t, 2, parkedWorkers(rt))
		echoByte(t, peers[1])
	}
}

// No event is lost if events arrive at about the moment when the workers park.
func TestEventsAtTheMomentOfParking(t *testing.T) {
	rt, peers := parkedRuntime(t, 2)
	times := 200
	if testing.Short() {
		times = 50
	}
	for i := range times {
		about := keepP + time.Duration(rand.IntN(400)-200)*time.Microsecond
		h := Go(rt, func(cx *Context) error { return Sleep(cx, time.Duration(rand.Int64N(int64(4*keepP)))) })
		for begun := time.Now(); time.Since(begun) < about; {
		}
		echoByte(t, peers[i%2])
		if i%4 == 0 {
			_, err := h.JoinBlocking(context.Background())
			require.NoError(t, err)
		}
	}
	require.NoError(t, rt.Shutdown(ended()))
}

// Workers that are parked can be stopped, also when they have just parked.
func TestShutdownOfParkedWorkers(t *testing.T) {
	for i := range 20 {
		rt, _ := parkedRuntime(t, 2)
		if i%2 == 0 {
			allPark(t, rt)
		} else {
			eventually(t, func() bool { return parkedWorkers(rt) > 0 })
		}
		require.NoError(t, rt.Shutdown(ended()))
	}
}

// A worker that parks while Shutdown closes the idle watch does not stay parked.
func TestParkedWorkerEndsWithIdleWatch(t *testing.T) {
	rt := new(Runtime)
	w := newWorker(rt, 0)
	require.NoError(t, w.reactor.open(&rt.fds))
	defer w.reactor.close()
	require.NoError(t, rt.idle.open([]*worker{w}))
	go rt.idle.run()
	done := make(chan None)
	go func() { defer close(done); w.parkWithoutP(-1) }()
	eventually(t, w.withoutP.Load)
	rt.idle.close()
	<-done
	w.parkWithoutP(-1) // returns at once
}

// A worker that unparks a second worker does not keep its P, since the second worker is in the
// queue of that P.
func TestWorkerUnparksAnother(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	rt, _ := parkedRuntime(t, 2)
	allPark(t, rt)
	var before, parked, after bool
	_, err := Go(rt, func(cx *Context) error {
		w := cx.here()
		other := rt.workers[1-w.index]
		before, parked = w.madeRunnable, other.withoutP.Load()
		other.unpark()
		after = w.madeRunnable
		return nil
	}).JoinBlocking(context.Background())
	require.NoError(t, err)
	require.Equal(t, []bool{false, true, true}, []bool{before, parked, after})
}

// BenchmarkUnpark measures how long it takes to unpark a worker while all workers are parked, and
// while another worker keeps its P.
func BenchmarkUnpark(b *testing.B) {
	for _, beside := range []bool{false, true} {
		b.Run(fmt.Sprintf("beside=%t", beside), func(b *testing.B) {
			rt, peers := parkedRuntime(b, 2)
			b.StopTimer()
			b.ResetTimer()
			for range b.N {
				allPark(b, rt)
				if beside {
					echoByte(b, peers[0])
				}
				b.StartTimer()
				echoByte(b, peers[1])
				b.StopTimer()
			}
		})
	}
}
