package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// handshakes is the time in microseconds, from the first request, in which answers are late because
// other connections are still in their TLS handshakes. Latencies of this time are not counted.
const handshakes = 200_000

// h2load sends HTTP/1.1 requests at a fixed rate, so that the latencies of all servers are measured
// under the same load. The rate does not depend on the answers, unless a connection still waits for
// its previous answer. h2load writes a line for each request.
func (o options) h2load(s server, p *process, d time.Duration) (l load, err error) {
	dir, err := os.MkdirTemp("", "h2load-")
	if err != nil {
		return l, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "requests")
	if _, err = run("h2load", "--h1", "-t1", fmt.Sprint("-c", o.conns), "-m1", fmt.Sprint("--rps=", o.rate/o.conns),
		"-D", fmt.Sprint(int(d.Seconds())), "--log-file="+path, s.url(p)); err != nil {
		return l, err
	}
	log, err := os.ReadFile(path)
	if err != nil {
		return l, err
	}
	var times []float64
	began := 0.0
	for line := range bytes.Lines(log) {
		// The columns are the time at which the request began, its status, and its duration.
		columns := strings.Split(strings.TrimSpace(string(line)), "\t")
		if len(columns) < 3 {
			return l, fmt.Errorf("h2load wrote a line that says %q", line)
		}
		at, err1 := strconv.ParseFloat(columns[0], 64)
		took, err2 := strconv.ParseFloat(columns[2], 64)
		if err := errors.Join(err1, err2); err != nil {
			return l, err
		}
		if columns[1] != "200" {
			l.failed++
		}
		l.requests++
		if began == 0 {
			began = at
		}
		if at-began > handshakes {
			times = append(times, took)
		}
	}
	if len(times) == 0 {
		return l, nil
	}
	slices.Sort(times)
	at := func(q float64) float64 { return times[int(q*float64(len(times)-1))] }
	l.took = float64(d.Microseconds())
	l.p50, l.p99, l.p999 = at(0.5), at(0.99), at(0.999)
	return l, nil
}
