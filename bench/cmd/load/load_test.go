package main

import (
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"
)

// The load waits in raw system calls, and a garbage collection has to wait for the end of such a
// call. Therefore the program turns the collector off. The tests turn it off, too: their servers
// allocate in the same process.
func TestMain(m *testing.M) {
	debug.SetGCPercent(-1)
	os.Exit(m.Run())
}

// serveWith listens, and handles each connection with handle, until the test ends.
func serveWith(t *testing.T, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
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
	return netip.MustParseAddrPort(ln.Addr().String())
}

// against runs one phase against a server.
func against(t *testing.T, conns, size int, rate float64, d time.Duration, handle func(net.Conn)) *load {
	t.Helper()
	l, err := newLoad(serveWith(t, handle), conns, size, rate)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.phase(d); err != nil {
		t.Fatal(err)
	}
	return l
}

// echo echoes the result of change for each piece of data. If the result is nil, it closes the
// connection.
func echo(change func(total int, p []byte) []byte) func(net.Conn) {
	return func(c net.Conn) {
		buf := make([]byte, 4096)
		for total := 0; ; {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			out := change(total, buf[:n])
			if out == nil {
				return
			}
			total += n
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	}
}

func unchanged(_ int, p []byte) []byte { return p }

func TestNoErrorsFromAnHonestServer(t *testing.T) {
	for _, test := range []struct {
		rate float64
		size int
	}{{0, 8}, {0, 64}, {0, 1024}, {0, 200_000}, {2000, 8}, {2000, 64}, {2000, 1024}, {100, 200_000}} {
		l := against(t, 4, test.size, test.rate, 200*time.Millisecond, echo(unchanged))
		if l.errors != 0 || l.done == 0 || l.flying != 0 || l.latency.Count() != l.done+l.late {
			t.Errorf("%+v: %d errors, %d done, %d in flight, %d latencies", test, l.errors, l.done, l.flying, l.latency.Count())
		}
		if want := uint64(test.rate / 5); test.rate > 0 && l.done+l.late != want {
			t.Errorf("%+v: %d answered, want %d", test, l.done+l.late, want)
		}
	}
}

func TestFaultsAreErrors(t *testing.T) {
	first := func() func(int, []byte) []byte {
		var first []byte
		return func(_ int, p []byte) []byte {
			if first == nil {
				first = append(first, p...)
			}
			return first
		}
	}
	faults := map[string]func() func(int, []byte) []byte{
		"a wrong byte": func() func(int, []byte) []byte {
			return func(total int, p []byte) []byte { p[len(p)-1] ^= byte(total / 640 & 1); return p }
		},
		"the first answer again": first,
		"too many bytes": func() func(int, []byte) []byte {
			return func(_ int, p []byte) []byte { return append(p, p...) }
		},
		"a hang-up": func() func(int, []byte) []byte {
			return func(total int, p []byte) []byte {
				if total > 640 {
					return nil
				}
				return p
			}
		},
	}
	for name, change := range faults {
		for _, rate := range []float64{0, 1000} {
			if l := against(t, 1, 64, rate, 200*time.Millisecond, echo(change())); l.errors == 0 {
				t.Errorf("%s at rate %v: no error, %d done", name, rate, l.done)
			}
		}
	}
}

// A server stops one of two connections for 100 ms. At 1,000 requests per second, 50 of 500
// requests are due in this time on this connection, and wait for 0 to 100 ms. A load with
// coordinated omission would measure one slow request, and a 95th percentile of less than a
// millisecond.
func TestEveryRequestOfAPauseIsLate(t *testing.T) {
	var paused atomic.Bool
	l := against(t, 2, 64, 1000, 500*time.Millisecond, echo(func(total int, p []byte) []byte {
		if total > 64*50 && paused.CompareAndSwap(false, true) {
			time.Sleep(100 * time.Millisecond)
		}
		return p
	}))
	p95, longest := l.latency.Quantile(0.95), l.latency.Max()
	if p95 < 30e6 || p95 > 75e6 || longest < 95e6 || l.errors != 0 {
		t.Errorf("p95 %d ns (want about 50 ms), longest %d ns, %d errors", p95, longest, l.errors)
	}
}

// A request that a server never answers is lost. Its latency is at least the time for which the
// load has waited.
func TestSilenceIsLoss(t *testing.T) {
	l := against(t, 2, 64, 100, 300*time.Millisecond, echo(func(total int, p []byte) []byte {
		if total >= 64*10 {
			time.Sleep(5 * time.Second)
		}
		return p
	}))
	if l.errors < 8 || l.errors+l.done+l.late != 30 || l.latency.Count() != 30 || l.latency.Max() < int64(grace) {
		t.Errorf("%d errors, %d done, %d late, %d latencies, longest %d ns", l.errors, l.done, l.late, l.latency.Count(), l.latency.Max())
	}
}

// The load itself is delayed for 50 ms. The lag shows this delay, and the latencies contain it.
func TestLagIsThatOfTheLoad(t *testing.T) {
	l, err := newLoad(serveWith(t, echo(unchanged)), 2, 64, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	l.start = l.now() - int64(50*time.Millisecond) // as if the phase had begun 50 ms ago
	l.end = l.start + int64(time.Second)
	l.nextTime = l.start
	l.follow()
	if n := l.lag.Count(); n < 50 || n > 128 {
		t.Errorf("%d requests were overdue, want about 50", n)
	}
	if first := l.lag.Max(); first < int64(50*time.Millisecond) {
		t.Errorf("the first request is late by %d ns, want 50 ms or more", first)
	}
	for deadline := time.Now().Add(5 * time.Second); l.flying > 0 && time.Now().Before(deadline); {
		l.receive(0)
		l.receive(1)
		time.Sleep(time.Millisecond)
	}
	if l.latency.Max() < int64(50*time.Millisecond) || l.service.Quantile(0.1) > int64(25*time.Millisecond) {
		t.Errorf("the longest latency is %d ns, want 50 ms or more; the shortest service times are %d ns, want much less", l.latency.Max(), l.service.Quantile(0.1))
	}
}

// A server stops for 200 ms. In this time 400 requests are due, more than may be in flight. The
// load still handles each request at the time at which it is due: the service times and the
// latencies show the pause, and the lag does not.
func TestLagDoesNotContainTheDelayOfTheServer(t *testing.T) {
	paused := false
	l := against(t, 1, 64, 2000, 300*time.Millisecond, echo(func(total int, p []byte) []byte {
		if total > 64*20 && !paused {
			paused = true
			time.Sleep(200 * time.Millisecond)
		}
		return p
	}))
	if lag, latency := l.lag.Quantile(0.5), l.latency.Quantile(0.5); lag > 10e6 || latency < 30e6 || l.service.Max() < 190e6 {
		t.Errorf("median lag %d ns, median latency %d ns, longest service time %d ns", lag, latency, l.service.Max())
	}
	if l.lag.Count() != 600 {
		t.Errorf("%d requests have a lag, want each of 600 once", l.lag.Count())
	}
}

// The work of a server at the first use of a connection has ended before the load begins.
func TestEachConnectionIsUsedOnceBeforeTheLoad(t *testing.T) {
	var bytes atomic.Int64
	l, err := newLoad(serveWith(t, echo(func(_ int, p []byte) []byte { bytes.Add(int64(len(p))); return p })), 250, 64, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if got := bytes.Load(); got != 250*64 {
		t.Errorf("%d bytes were exchanged on 250 connections, want 64 on each", got)
	}
}

func TestAQuantileThatIsNotDeterminedIsNoMetric(t *testing.T) {
	m := against(t, 2, 64, 2000, 300*time.Millisecond, echo(unchanged)).metrics(300 * time.Millisecond)
	if _, ok := m["p50_us"]; !ok || m["requests"] != 600 {
		t.Errorf("no median of 600 requests: %v", m)
	}
	if p99, ok := m["p99_us"]; ok {
		t.Errorf("6 requests are above the 99th percentile, which is said to be %v", p99)
	}
}

func TestThePhaseAllocatesNothingPerRequest(t *testing.T) {
	for _, rate := range []float64{0, 2000} {
		l, err := newLoad(serveWith(t, echo(unchanged)), 4, 64, rate)
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		if err := l.phase(10 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		n := testing.AllocsPerRun(3, func() {
			if err := l.phase(50 * time.Millisecond); err != nil {
				t.Error(err)
			}
		})
		if n > 3 {
			t.Errorf("rate %v: %v allocations in 50 ms", rate, n)
		}
	}
}

func TestIdleConnectionsAreChecked(t *testing.T) {
	idle, err := openIdle(serveWith(t, echo(unchanged)), 250, 64)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.close()
	if err := idle.exchange(1); err != nil {
		t.Error(err)
	}
	wrong := echo(func(total int, p []byte) []byte { p[0] ^= 1; return p })
	if _, err := openIdle(serveWith(t, wrong), 1, 64); err == nil {
		t.Error("a wrong echo on an idle connection is not noticed")
	}
}
