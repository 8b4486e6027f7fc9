package async

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkNetConn measures a request and its answer on servers with a goroutine for each
// connection: on package net, and on NetConn. The clients are on package net.
//
// The benchmark shows whether goroutines have to wait for Ps that workers keep. The program has as
// many Ps as workers, or one P more, before the runtime adds its Ps. The cases are:
//
//   - "net": package net, in a program without a runtime;
//   - "alone": NetConn, in a program without tasks; in all further cases the workers have some
//     work;
//   - "shared": with Config.SharedProcs, so that the runtime adds no Ps;
//   - "own": with the Ps that the runtime adds;
//   - "two": the same beside a second runtime, which adds Ps of its own;
//   - "http": the same beside a server of net/http that answers a request every millisecond.
//     Compare it with "net-http", which is "net" beside this server.
func BenchmarkNetConn(b *testing.B) {
	const workers = 2
	for _, conns := range []int{1, 16, 256} {
		for _, procs := range []int{workers, workers + 1} {
			bench := func(name string, listen func(b *testing.B) net.Listener) {
				b.Run(fmt.Sprintf("conns=%d/procs=%d/%s", conns, procs, name), func(b *testing.B) {
					before := runtime.GOMAXPROCS(procs)
					b.Cleanup(func() { runtime.GOMAXPROCS(before) }) // runs after the cleanups of the runtime
					benchNetEcho(b, listen(b), conns)
				})
			}
			for _, name := range []string{"net", "net-http"} {
				bench(name, func(b *testing.B) net.Listener {
					if name == "net-http" {
						answerOverHTTP(b)
					}
					ln, err := net.Listen("tcp", "127.0.0.1:0")
					require.NoError(b, err)
					return ln
				})
			}
			for _, name := range []string{"alone", "shared", "own", "two", "http"} {
				bench(name, func(b *testing.B) net.Listener {
					rt := newTestRuntime(b, Config{Workers: workers, SharedProcs: name == "shared"})
					if name != "alone" {
						serveSlowly(b, rt)
					}
					switch name {
					case "two":
						serveSlowly(b, newTestRuntime(b, Config{Workers: workers}))
					case "http":
						answerOverHTTP(b)
					}
					ln, err := rt.ListenNet("tcp", "127.0.0.1:0")
					require.NoError(b, err)
					return ln
				})
			}
		}
	}
}

// answerOverHTTP starts a server of net/http, and a client that makes a request every millisecond.
func answerOverHTTP(b *testing.B) {
	ask := requestOverHTTP(b)
	stop := make(chan None)
	var asks sync.WaitGroup
	asks.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				ask()
			case <-stop:
				return
			}
		}
	})
	b.Cleanup(func() { close(stop); asks.Wait() })
}

// benchNetEcho runs conns clients, each in a closed loop of requests and answers. Together they
// make b.N requests.
func benchNetEcho(b *testing.B, ln net.Listener, conns int) {
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				p := make([]byte, 64)
				for {
					n, err := c.Read(p)
					if err != nil {
						return
					}
					c.Write(p[:n])
				}
			})
		}
	})
	clients := make([]net.Conn, conns)
	for i := range clients {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(b, err)
		clients[i] = c
	}
	times := make([][]time.Duration, conns)
	var asked sync.WaitGroup
	cpu := processTime(b)
	b.ResetTimer()
	for i, c := range clients {
		n := b.N / conns
		if i < b.N%conns {
			n++
		}
		asked.Go(func() {
			p := make([]byte, 64)
			for range n {
				begun := time.Now()
				c.Write(p)
				if _, err := io.ReadFull(c, p); err != nil {
					b.Error(err)
					return
				}
				times[i] = append(times[i], time.Since(begun))
			}
		})
	}
	asked.Wait()
	b.StopTimer()
	cpu = processTime(b) - cpu
	all := slices.Concat(times...)
	slices.Sort(all)
	at := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) }
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(at(0.5), "p50-µs")
	b.ReportMetric(at(0.99), "p99-µs")
	b.ReportMetric(at(0.999), "p999-µs")
	for _, c := range clients {
		c.Close()
	}
	ln.Close()
	served.Wait()
}

// processTime is the processor time that the process has used.
func processTime(b *testing.B) time.Duration {
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
