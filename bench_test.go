package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The workloads of the announcement, each with goroutines, with plain futures and with
// straight-line tasks. One operation is the whole workload. The sizes are the sizes in the harness
// of the Rust peers.
const (
	chainLength = 1000
	pingPairs   = 1000
	spawnCount  = 10000
	yieldTasks  = 200
	yieldTimes  = 1000
)

func benchRuntime(b *testing.B) *Runtime { return benchRuntimeOf(b, 2) }

func benchRuntimeOf(b *testing.B, workers int) *Runtime {
	return benchRuntimeWith(b, Config{Workers: workers})
}

func benchRuntimeWith(b *testing.B, cfg Config) *Runtime {
	rt, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { rt.Shutdown(context.Background()) })
	return rt
}

// benchOn measures work on a worker of a new runtime. work starts one workload, and calls done when
// the workload has ended.
func benchOn(b *testing.B, work func(cx *Context, done func())) {
	rt := benchRuntime(b)
	over := make(chan struct{})
	done := func() { over <- struct{}{} }
	b.ReportAllocs()
	for b.Loop() {
		SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
			work(cx, done)
			return None{}, nil
		}))
		<-over
	}
}

// countdown calls done once add has been called n times.
func countdown(n int, done func()) func() {
	var left atomic.Int64
	left.Store(int64(n))
	return func() {
		if left.Add(-1) == 0 {
			done()
		}
	}
}

func BenchmarkChainedSpawn(b *testing.B) {
	b.Run("goroutines", func(b *testing.B) {
		over := make(chan struct{})
		var link func(left int)
		link = func(left int) {
			if left == 1 {
				over <- struct{}{}
				return
			}
			go link(left - 1)
		}
		b.ReportAllocs()
		for b.Loop() {
			go link(chainLength)
			<-over
		}
	})
	b.Run("futures", func(b *testing.B) {
		benchOn(b, func(cx *Context, done func()) {
			SpawnFuture(cx, &chainLink{left: chainLength, done: done})
		})
	})
	b.Run("straight", func(b *testing.B) {
		var link func(left int, done func()) func(cx *Context) error
		link = func(left int, done func()) func(cx *Context) error {
			return func(cx *Context) error {
				if left == 1 {
					done()
				} else {
					Go(cx, link(left-1, done))
				}
				return nil
			}
		}
		benchOn(b, func(cx *Context, done func()) { Go(cx, link(chainLength, done)) })
	})
}

type chainLink struct {
	left int
	done func()
}

func (l *chainLink) Poll(cx *Context) (None, error) {
	if l.left == 1 {
		l.done()
	} else {
		SpawnFuture(cx, &chainLink{l.left - 1, l.done})
	}
	return None{}, nil
}

func BenchmarkSpawnMany(b *testing.B) {
	b.Run("goroutines", func(b *testing.B) {
		over := make(chan struct{})
		b.ReportAllocs()
		for b.Loop() {
			count := countdown(spawnCount, func() { over <- struct{}{} })
			for range spawnCount {
				go count()
			}
			<-over
		}
	})
	b.Run("futures", func(b *testing.B) {
		rt := benchRuntime(b)
		over := make(chan struct{})
		b.ReportAllocs()
		for b.Loop() {
			count := countdown(spawnCount, func() { over <- struct{}{} })
			f := PollFunc(func(*Context) (None, error) { count(); return None{}, nil })
			for range spawnCount {
				SpawnFuture(rt, f)
			}
			<-over
		}
	})
	b.Run("futures-by-task", func(b *testing.B) {
		benchOn(b, func(cx *Context, done func()) {
			count := countdown(spawnCount, done)
			f := PollFunc(func(*Context) (None, error) { count(); return None{}, nil })
			for range spawnCount {
				SpawnFuture(cx, f)
			}
		})
	})
	b.Run("straight-by-task", func(b *testing.B) {
		benchOn(b, func(cx *Context, done func()) {
			count := countdown(spawnCount, done)
			f := func(*Context) error { count(); return nil }
			for range spawnCount {
				Go(cx, f)
			}
		})
	})
}

func BenchmarkYieldMany(b *testing.B) {
	b.Run("goroutines", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var wg sync.WaitGroup
			for range yieldTasks {
				wg.Go(func() {
					for range yieldTimes {
						runtime.Gosched()
					}
				})
			}
			wg.Wait()
		}
	})
	b.Run("futures", func(b *testing.B) {
		benchOn(b, func(cx *Context, done func()) {
			count := countdown(yieldTasks, done)
			for range yieldTasks {
				SpawnFuture(cx, &yielder{left: yieldTimes, done: count})
			}
		})
	})
	b.Run("straight", func(b *testing.B) {
		benchOn(b, func(cx *Context, done func()) {
			count := countdown(yieldTasks, done)
			for range yieldTasks {
				Go(cx, func(cx *Context) error {
					for range yieldTimes {
						Yield(cx)
					}
					count()
					return nil
				})
			}
		})
	})
}

// yielder is a loop over YieldFuture, written as a state machine.
type yielder struct {
	left int
	now  yieldOnce
	done func()
}

func (y *yielder) Poll(cx *Context) (None, error) {
	for y.left > 0 {
		if _, err := y.now.Poll(cx); err != nil {
			return None{}, err
		}
		y.now = yieldOnce{}
		y.left--
	}
	y.done()
	return None{}, nil
}

// oneshot is a channel for one message without data: the workload needs only the wake.
type oneshot struct{ slot wakerSlot }

func (o *oneshot) send(cx *Context) { o.slot.fire(cx.here()) }

func (o *oneshot) Poll(cx *Context) (None, error) {
	if o.slot.join(cx.waker(waitsFuture)) {
		return None{}, ErrPending
	}
	return None{}, nil
}

func BenchmarkPingPong(b *testing.B) {
	b.Run("goroutines", func(b *testing.B) {
		over := make(chan struct{})
		b.ReportAllocs()
		for b.Loop() {
			count := countdown(pingPairs, func() { over <- struct{}{} })
			for range pingPairs {
				go func() {
					ping, pong := make(chan struct{}, 1), make(chan struct{}, 1)
					go func() {
						<-ping
						pong <- struct{}{}
					}()
					ping <- struct{}{}
					<-pong
					count()
				}()
			}
			<-over
		}
	})
	b.Run("futures", func(b *testing.B) {
		benchOn(b, func(cx *Context, done func()) {
			count := countdown(pingPairs, done)
			for range pingPairs {
				SpawnFuture(cx, &pinger{done: count})
			}
		})
	})
	b.Run("straight", func(b *testing.B) {
		benchOn(b, func(cx *Context, done func()) {
			count := countdown(pingPairs, done)
			for range pingPairs {
				Go(cx, func(cx *Context) error {
					ping, pong := new(oneshot), new(oneshot)
					Go(cx, func(cx *Context) error {
						Await(cx, ping)
						pong.send(cx)
						return nil
					})
					ping.send(cx)
					Await(cx, pong)
					count()
					return nil
				})
			}
		})
	})
}

type pinger struct {
	begun      bool
	ping, pong *oneshot
	done       func()
}

func (p *pinger) Poll(cx *Context) (None, error) {
	if !p.begun {
		p.begun = true
		p.ping, p.pong = new(oneshot), new(oneshot)
		SpawnFuture(cx, &ponger{p.ping, p.pong})
		p.ping.send(cx)
	}
	if _, err := p.pong.Poll(cx); err != nil {
		return None{}, err
	}
	p.done()
	return None{}, nil
}

type ponger struct{ ping, pong *oneshot }

func (p *ponger) Poll(cx *Context) (None, error) {
	if _, err := p.ping.Poll(cx); err != nil {
		return None{}, err
	}
	p.pong.send(cx)
	return None{}, nil
}

// BenchmarkNeighbours measures how much a runtime slows down the rest of the program. The rest of
// the program is:
//
//   - a goroutine that sleeps for 100 microseconds;
//   - a garbage collection of an empty heap, and of a heap of one gibibyte;
//   - a request to a server of net/http.
//
// Each is measured in these programs:
//
//   - "without": no runtime;
//   - "served-by-net": no runtime; connections of package net have the load of "served";
//   - "idle": a runtime whose tasks have ended;
//   - "served": a runtime whose workers a socket wakes every 4 milliseconds, so that the workers
//     spend all their time in waits that keep the P;
//   - the others: a runtime whose workers receive data all the time.
//
// "idle" and "served" are also measured with Config.SharedProcs.
func BenchmarkNeighbours(b *testing.B) {
	for _, work := range []struct {
		name string
		do   func(b *testing.B) func()
	}{
		{"sleep-100us", func(*testing.B) func() { return func() { time.Sleep(100 * time.Microsecond) } }},
		{"gc", func(*testing.B) func() { return runtime.GC }},
		{"gc-1GiB", collectMuch},
		{"http", requestOverHTTP},
	} {
		b.Run(work.name, func(b *testing.B) {
			do := work.do(b)
			measure := func(b *testing.B) {
				var took []time.Duration
				for b.Loop() {
					begun := time.Now()
					do()
					took = append(took, time.Since(begun))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
			}
			b.Run("without", measure)
			b.Run("served-by-net", func(b *testing.B) {
				serveSlowly(b, nil)
				measure(b)
			})
			for _, cfg := range []Config{{Workers: 2}, {Workers: 2, SharedProcs: true}} {
				mode := ""
				if cfg.SharedProcs {
					mode = "-shared"
				}
				b.Run("idle"+mode, func(b *testing.B) {
					benchRuntimeWith(b, cfg).bringProcs()
					measure(b)
				})
				b.Run("served"+mode, func(b *testing.B) {
					serveSlowly(b, benchRuntimeWith(b, cfg))
					measure(b)
				})
			}
			for _, size := range []int{64 << 10, 1 << 20} {
				b.Run(fmt.Sprintf("reading-%dKiB", size>>10), func(b *testing.B) {
					receiveMuch(b, benchRuntime(b), size)
					measure(b)
				})
			}
		})
	}
}

// collectMuch returns a function that collects a heap of one gibibyte: objects of 64 bytes, each
// with a pointer.
func collectMuch(b *testing.B) func() {
	type object struct {
		next *object
		_    [56]byte
	}
	all := make([]*object, 1<<24)
	for i := range all {
		all[i] = &object{next: all[i/2]}
	}
	b.Cleanup(func() { runtime.KeepAlive(all) })
	return runtime.GC
}

// requestOverHTTP returns a function that makes a request to a server of net/http in this process.
func requestOverHTTP(b *testing.B) func() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	b.Cleanup(server.Close)
	return func() {
		r, err := server.Client().Get(server.URL)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
}

// receiveMuch makes each worker of rt receive continuously, with a buffer of size bytes, from a
// peer that always has data to send.
func receiveMuch(b *testing.B, rt *Runtime, size int) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	var senders sync.WaitGroup
	b.Cleanup(senders.Wait)
	for _, on := range rt.Workers() {
		Go(on, func(cx *Context) error {
			c, err := Dial(cx, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			for buf := make([]byte, size); ; {
				if _, err := c.Read(cx, buf); err != nil {
					return nil
				}
			}
		})
		c, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		senders.Go(func() {
			for buf := make([]byte, 1<<20); err == nil; {
				_, err = c.Write(buf)
			}
		})
	}
}

// serveSlowly gives each worker of rt a connection on which data arrives every 4 ms. If rt is nil,
// two goroutines get such a connection each.
func serveSlowly(b *testing.B, rt *Runtime) {
	var served atomic.Int32
	conns := int32(2)
	var addr net.Addr
	if rt != nil {
		conns = int32(len(rt.workers))
		addr = acceptInTasks(b, rt, &served)
	} else {
		addr = acceptInGoroutines(b, &served)
	}
	stop := make(chan struct{})
	var senders sync.WaitGroup
	b.Cleanup(func() { close(stop); senders.Wait() })
	for range conns {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			b.Fatal(err)
		}
		senders.Go(func() {
			defer c.Close()
			tick := time.NewTicker(4 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					c.Write([]byte{0})
				case <-stop:
					return
				}
			}
		})
	}
	eventually(b, func() bool { return served.Load() == conns })
}

func acceptInTasks(b *testing.B, rt *Runtime, served *atomic.Int32) net.Addr {
	ln, err := ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	Go(rt, func(cx *Context) error {
		for c, err := range Incoming(ln).All(cx) {
			if err != nil {
				return nil
			}
			Go(cx, func(cx *Context) error {
				defer c.Close()
				served.Add(1)
				for buf := make([]byte, 1); ; {
					if _, err := c.Read(cx, buf); err != nil {
						return nil
					}
				}
			})
		}
		return nil
	})
	return ln.Addr()
}

func acceptInGoroutines(b *testing.B, served *atomic.Int32) net.Addr {
	return acceptEach(b, func(c net.Conn) {
		served.Add(1)
		for buf := make([]byte, 1); ; {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	})
}

// acceptEach returns the address of a listener of package net. handle is called for each
// connection, in a goroutine.
func acceptEach(b *testing.B, handle func(c net.Conn)) net.Addr {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return ln.Addr()
}

// BenchmarkBlocking passes calls to a pool and waits for their results, one at a time and many at
// once. The pools are SpawnBlocking, and goroutines that receive functions from a channel.
func BenchmarkBlocking(b *testing.B) {
	for _, flight := range []int{1, 1000} {
		b.Run(fmt.Sprintf("async/in-flight=%d", flight), func(b *testing.B) {
			rt := benchRuntime(b)
			b.ReportAllocs()
			_, err := Go(rt, func(cx *Context) error {
				hs := make([]*JoinHandle[int], flight)
				for b.Loop() {
					for i := range hs {
						hs[i] = SpawnBlocking(cx, func() (int, error) { return i, nil })
					}
					for _, h := range hs {
						if _, err := h.Join(cx); err != nil {
							return err
						}
					}
				}
				return nil
			}).JoinBlocking(b.Context())
			if err != nil {
				b.Fatal(err)
			}
		})
		b.Run(fmt.Sprintf("goroutines/in-flight=%d", flight), func(b *testing.B) { handCalls(b, flight) })
		// A caller that is locked to its thread, as a worker is, costs two wakes of threads per
		// call.
		b.Run(fmt.Sprintf("locked-goroutine/in-flight=%d", flight), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			handCalls(b, flight)
		})
	}
}

// handCalls makes goroutines call functions that they receive from a channel.
func handCalls(b *testing.B, flight int) {
	calls := make(chan func())
	defer close(calls)
	for range min(flight, 512) {
		go func() {
			for f := range calls {
				f()
			}
		}()
	}
	b.ReportAllocs()
	answers := make(chan int, flight)
	for b.Loop() {
		for i := range flight {
			calls <- func() { answers <- i }
		}
		for range flight {
			<-answers
		}
	}
}

// BenchmarkCancelHandles cancels many waiting tasks, one after the other, and waits until all have
// ended. The time per task must not grow with the number of tasks. With 100,000 stacks it does
// grow, because the garbage collector scans the stacks: with GOGC=off the growth disappears.
func BenchmarkCancelHandles(b *testing.B) {
	future := func(cx *Context) *JoinHandle[None] { return SpawnFuture(cx, SleepFuture(time.Hour)) }
	straight := func(cx *Context) *JoinHandle[None] {
		return Go(cx, func(cx *Context) error { return Sleep(cx, time.Hour) })
	}
	for _, tasks := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("futures/tasks=%d", tasks), func(b *testing.B) { cancelHandles(b, tasks, future) })
		b.Run(fmt.Sprintf("straight/tasks=%d", tasks), func(b *testing.B) { cancelHandles(b, tasks, straight) })
	}
}

func cancelHandles(b *testing.B, tasks int, spawn func(cx *Context) *JoinHandle[None]) {
	// A collection of so many stacks would be reported as a stall.
	rt, err := New(Config{Workers: 2, Stall: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer rt.Shutdown(context.Background())
	hs := make([]*JoinHandle[None], tasks)
	for b.Loop() {
		b.StopTimer()
		Go(rt, func(cx *Context) error {
			for i := range hs {
				if hs[i] = spawn(cx); i%1000 == 0 {
					Yield(cx)
				}
			}
			return nil
		}).JoinBlocking(b.Context())
		for rt.Metrics().Timers < tasks { // until all wait
			runtime.Gosched()
		}
		b.StartTimer()
		for _, h := range hs {
			h.Cancel()
		}
		for _, h := range hs {
			if _, err := h.JoinBlocking(b.Context()); !errors.Is(err, context.Canceled) {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(tasks), "ns/task")
}

// BenchmarkRoundTrip starts a task from a goroutine and waits for the task: one wake of a worker
// and one wake of a goroutine. It also measures workers that have a descriptor. A worker without a
// descriptor parks in a call that the Go scheduler is aware of.
func BenchmarkRoundTrip(b *testing.B) {
	b.Run("goroutine", func(b *testing.B) {
		for range b.N {
			done := make(chan struct{})
			go func() { close(done) }()
			<-done
		}
	})
	for _, descriptors := range []bool{false, true} {
		start := func(b *testing.B) *Runtime {
			rt := newTestRuntime(b, Config{Workers: 2})
			if descriptors {
				for range 2 {
					x, y, err := SocketPair()
					if err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { x.Close(); y.Close() })
					Go(rt, func(cx *Context) error {
						y.Read(cx, make([]byte, 1)) // until it is closed
						return nil
					})
				}
			}
			b.ResetTimer()
			return rt
		}
		b.Run(fmt.Sprintf("join/descriptors=%t", descriptors), func(b *testing.B) {
			rt := start(b)
			for range b.N {
				if _, err := Go(rt, func(*Context) error { return nil }).JoinBlocking(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("BlockOn/descriptors=%t", descriptors), func(b *testing.B) {
			rt := start(b)
			for range b.N {
				_, err := BlockOn(rt, func(cx *Context) (None, error) {
					return Await(cx, Go(rt, func(*Context) error { return nil }))
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRamp opens connections at a low load, at which few workers are active, and then sends as
// many requests as the server can answer, with 50 microseconds of work for each request. One second
// after the load has risen, it measures for half a second: the share of this time for which the
// busiest and the idlest worker were awake, and the requests per second. The clients share the
// processors.
func BenchmarkRamp(b *testing.B) {
	const conns, clients = 2000, 8
	work := func() {
		for begun := nanos(); nanos()-begun < int64(50*time.Microsecond); {
		}
	}
	for _, form := range []struct {
		name  string
		serve func(cx *Context, ln Listener) error
	}{
		{"serve", func(cx *Context, ln Listener) error {
			return Serve(cx, ln, func(cx *Context, c Conn) (bool, error) {
				var buf [1]byte
				if _, err := c.Read(cx, buf[:]); err != nil {
					return false, nil
				}
				work()
				_, err := c.Write(cx, buf[:])
				return true, err
			})
		}},
		{"straight", acceptAll(func(cx *Context, c Conn) {
			Launch(cx, func(cx *Context) error {
				defer c.Close()
				for buf := make([]byte, 1); ; {
					if _, err := c.Read(cx, buf); err != nil {
						return nil
					}
					work()
					if _, err := c.Write(cx, buf); err != nil {
						return nil
					}
				}
			})
		})},
	} {
		b.Run(form.name, func(b *testing.B) {
			for range b.N {
				ramp(b, form.serve, conns, clients)
			}
		})
	}
}

func ramp(b *testing.B, serve func(cx *Context, ln Listener) error, conns, clients int) {
	rt := benchRuntime(b)
	ln, err := ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	Launch(rt, func(cx *Context) error { serve(cx, ln); return nil })
	all := make([]net.Conn, conns)
	for i := range all {
		if all[i], err = net.Dial("tcp", ln.Addr().String()); err != nil {
			b.Fatal(err)
		}
		defer all[i].Close()
		time.Sleep(200 * time.Microsecond) // the low load
	}
	var over atomic.Bool
	var requests atomic.Int64
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			var buf [1]byte
			for !over.Load() {
				c := all[rand.IntN(conns/clients)*clients+i]
				if _, err := c.Write(buf[:]); err != nil {
					return
				}
				if _, err := io.ReadFull(c, buf[:]); err != nil {
					return
				}
				requests.Add(1)
			}
		})
	}
	time.Sleep(time.Second)
	rested := func() (all []int64) {
		for _, w := range rt.workers {
			all = append(all, w.totals(nanos(), false).parked)
		}
		return all
	}
	begun, before, done := nanos(), rested(), requests.Load()
	time.Sleep(500 * time.Millisecond)
	elapsed, after := float64(nanos()-begun), rested()
	b.ReportMetric(float64(requests.Load()-done)/elapsed*1e9, "requests/s")
	least, most := 1., 0.
	for i := range after {
		share := 1 - float64(after[i]-before[i])/elapsed
		least, most = min(least, share), max(most, share)
	}
	b.ReportMetric(most, "busiest")
	b.ReportMetric(least, "idlest")
	over.Store(true)
	group.Wait()
}
