package main

import (
	"net"
	"os"
	"testing"
	"time"
)

// The comparison starts its own executable again as a server. In a test the executable is the test,
// so TestMain calls main for a server.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-listen" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestEveryServerUnderLoad(t *testing.T) {
	for _, l := range []load{
		{conns: 8, size: 100, time: 200 * time.Millisecond},
		{conns: 8, size: 100, time: 200 * time.Millisecond, rate: 1000},
	} {
		for _, s := range servers {
			f, err := underLoad(s.name, l)
			if err != nil {
				t.Errorf("%s: %v", s.name, err)
				continue
			}
			if f.rate <= 0 || f.cpu <= 0 || f.p50 <= 0 || f.p50 > f.p99 {
				t.Errorf("%s: these figures cannot be: %+v", s.name, f)
			}
			if l.rate > 0 && f.rate > 1.2*float64(l.rate) {
				t.Errorf("%s: %.0f requests/s instead of %d", s.name, f.rate, l.rate)
			}
		}
	}
}

func TestEveryServerWhileIdle(t *testing.T) {
	for _, s := range servers {
		bytes, err := whileIdle(s.name, 500)
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		} else if bytes < 50 || bytes > 100_000 {
			t.Errorf("%s: an idle connection takes %.0f bytes, which cannot be", s.name, bytes)
		}
	}
}

// The latency of a request counts from the time at which the request was due, also if the request
// was sent late because the previous answer was late.
func TestLatencyCountsFromTheDueTime(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		buf := make([]byte, 1)
		for i := 0; ; i++ {
			if _, err := theirs.Read(buf); err != nil {
				return
			}
			if i == 0 {
				time.Sleep(100 * time.Millisecond)
			}
			theirs.Write(buf)
		}
	}()
	now := time.Now()
	l := load{conns: 1, size: 1, rate: 100}
	got, err := l.client(ours, 0, now, now.Add(60*time.Millisecond)) // one is due each 10 ms
	if err != nil {
		t.Fatal(err)
	}
	latencies := got.latency
	if len(latencies) != 6 {
		t.Fatalf("%d requests instead of 6: %v", len(latencies), latencies)
	}
	for i, d := range latencies {
		if least := 100*time.Millisecond - time.Duration(i)*10*time.Millisecond; d < least {
			t.Errorf("request %d has a latency of %v, but was due %v before its answer at least", i, d, least)
		}
	}
}

func TestCompareRefusesNonsense(t *testing.T) {
	good := plan{closed: load{conns: 1, size: 1, time: time.Second}, idle: 1, rounds: 1}
	good.partial = good.closed
	good.partial.rate = 1
	for name, change := range map[string]func(*plan){
		"no connections":       func(p *plan) { p.closed.conns = 0 },
		"too many connections": func(p *plan) { p.closed.conns = 1 << 20 },
		"no bytes":             func(p *plan) { p.partial.size = 0 },
		"too many bytes":       func(p *plan) { p.closed.size = bufferSize + 1 },
		"no time":              func(p *plan) { p.closed.time = 0 },
		"no rate":              func(p *plan) { p.partial.rate = 0 },
		"a negative rate":      func(p *plan) { p.partial.rate = -1 },
		"no rounds":            func(p *plan) { p.rounds = 0 },
		"too many idle ones":   func(p *plan) { p.idle = 100_000 },
		"no idle connections":  func(p *plan) { p.idle = 0 },
	} {
		p := good
		change(&p)
		if p.check() == nil {
			t.Error(name, "is accepted")
		}
	}
	if err := good.check(); err != nil {
		t.Error(err)
	}
}

func TestQuantile(t *testing.T) {
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(i+1)*time.Microsecond)
	}
	for q, want := range map[float64]float64{0.001: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := quantile(all, q); got != want {
			t.Errorf("the quantile %v of 1 to 100 µs is %v", q, got)
		}
	}
}
