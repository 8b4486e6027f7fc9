package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// plan has the loads of a comparison, and how often each server is measured.
type plan struct {
	closed, partial load
	idle            int // connections
	rounds          int
}

func (p plan) check() error {
	for _, l := range []load{p.closed, p.partial} {
		if err := l.check(); err != nil {
			return err
		}
	}
	switch {
	case p.partial.rate == 0:
		return errors.New("-rate must be 1 to 1000000")
	case p.rounds < 1 || p.rounds > 100:
		return errors.New("-rounds must be 1 to 100")
	case p.idle < 1 || p.idle > 20_000:
		return errors.New("-idle must be 1 to 20000")
	}
	return nil
}

// figures holds the measurements of one server in one round.
type figures map[string]float64

// The names of the figures. CPU is the CPU time of the server for one request. A name that ends in
// a space is a figure of the fixed rate, which the table prints without the space.
const (
	closedRate  = "requests/s"
	closedCPU   = "CPU µs"
	closedP99   = "p99 µs"
	partialCPU  = "CPU µs "
	partialP50  = "p50 µs "
	partialP99  = "p99 µs "
	partialLate = "late µs"
	idleBytes   = "bytes"
)

// columns are the figures of the table, by load.
var columns = []struct{ load, figure, form string }{
	{"closed loop", closedRate, "%.0f"},
	{"", closedCPU, "%.1f"},
	{"", closedP99, "%.0f"},
	{"fixed rate", partialCPU, "%.1f"},
	{"", partialP50, "%.0f"},
	{"", partialP99, "%.0f"},
	{"idle", idleBytes, "%.0f"},
}

// compare measures every server, round by round, and prints a table.
func compare(p plan) error {
	fmt.Printf("echo of %d bytes on %d connections: a closed loop, and a fixed rate of %d requests/s;\n"+
		"and %d idle connections. The client shares the processors with the server.\n\n",
		p.closed.size, p.closed.conns, p.partial.rate, p.idle)
	rounds := make([][]figures, len(servers))
	for round := range p.rounds {
		for i := range servers {
			i = (i + round) % len(servers) // another server is the first in each round
			progress("round %d of %d: %s", round+1, p.rounds, servers[i].name)
			f, err := measure(servers[i].name, p)
			if err != nil {
				return fmt.Errorf("%s: %w", servers[i].name, err)
			}
			rounds[i] = append(rounds[i], f)
		}
	}
	progress("")
	printTable(p, rounds)
	fmt.Println()
	for _, s := range servers {
		fmt.Printf("%-8s  %s\n", s.name, s.what)
	}
	fmt.Println()
	fmt.Println(reading(p, rounds))
	return nil
}

// progress replaces the line of progress on the standard error.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "\r%-60s\r", fmt.Sprintf(format, args...))
}

func printTable(p plan, rounds [][]figures) {
	fmt.Printf("medians of %d rounds; CPU is the server's, for a request; bytes are of memory, for a connection\n", p.rounds)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	loads, titles := []string{""}, []string{"server"}
	for _, c := range columns {
		loads, titles = append(loads, c.load), append(titles, strings.TrimSpace(c.figure))
	}
	fmt.Fprintln(t, strings.Join(loads, "\t")+"\t")
	fmt.Fprintln(t, strings.Join(titles, "\t")+"\t")
	for i, s := range servers {
		row := []string{s.name}
		for _, c := range columns {
			row = append(row, fmt.Sprintf(c.form, median(rounds[i], c.figure)))
		}
		fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
	}
	t.Flush()
	fmt.Printf("At the fixed rate the client itself was late by %.0f µs in the median, which the latencies contain.\n",
		median(slices.Concat(rounds...), partialLate))
}

func median(rounds []figures, figure string) float64 {
	var xs []float64
	for _, f := range rounds {
		xs = append(xs, f[figure])
	}
	slices.Sort(xs)
	return (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
}

// reading returns a sentence that compares straight-line tasks and Serve with package net.
func reading(p plan, rounds [][]figures) string {
	of := func(server, figure string) string {
		ours, net := rounds[indexOf(server)], rounds[indexOf("net")]
		var ratios []figures
		less := 0
		for i := range ours {
			ratio := ours[i][figure] / net[i][figure]
			ratios = append(ratios, figures{"": ratio})
			if ratio < 1 {
				less++
			}
		}
		return fmt.Sprintf("%.2f (below 1 in %d of %d)", median(ratios, ""), less, len(ratios))
	}
	return fmt.Sprintf("What to read from it, as ratios to net, round by round: straight-line tasks take %s of the CPU time at the\n"+
		"fixed rate, and %s in the closed loop, where they answer %s of the requests;\n"+
		"an idle connection takes %s of the memory, and with serve %s.",
		of("straight", partialCPU), of("straight", closedCPU), of("straight", closedRate), of("straight", idleBytes), of("serve", idleBytes))
}

// measure measures all figures of a server.
func measure(name string, p plan) (figures, error) {
	closed, err := underLoad(name, p.closed)
	if err != nil {
		return nil, err
	}
	partial, err := underLoad(name, p.partial)
	if err != nil {
		return nil, err
	}
	idle, err := whileIdle(name, p.idle)
	return figures{
		closedRate: closed.rate, closedCPU: closed.cpu, closedP99: closed.p99,
		partialCPU: partial.cpu, partialP50: partial.p50, partialP99: partial.p99, partialLate: partial.late,
		idleBytes: idle,
	}, err
}

// outcome has the figures of a server under one load: rate in requests per second, the other
// figures in microseconds.
type outcome struct{ rate, cpu, p50, p99, late float64 }

// underLoad starts a server, puts it under load and stops it.
func underLoad(name string, l load) (o outcome, err error) {
	p, err := startServer(name)
	if err != nil {
		return o, err
	}
	defer p.stop()
	conns, err := dialAll(p.addr, l.conns)
	if err != nil {
		return o, err
	}
	defer closeAll(conns)
	if _, err := l.run(conns, l.time/10); err != nil { // warm-up
		return o, err
	}
	before, err := p.usage(false)
	if err != nil {
		return o, err
	}
	began := time.Now()
	all, err := l.run(conns, l.time)
	if err != nil {
		return o, err
	}
	took := time.Since(began)
	after, err := p.usage(false)
	if err != nil {
		return o, err
	}
	n := float64(len(all.latency))
	o = outcome{
		rate: n / took.Seconds(),
		cpu:  float64(after.cpu-before.cpu) / float64(time.Microsecond) / n,
		p50:  quantile(all.latency, 0.5), p99: quantile(all.latency, 0.99),
	}
	if len(all.late) > 0 {
		o.late = quantile(all.late, 0.5)
	}
	return o, nil
}

// whileIdle returns how many bytes of memory an idle connection takes. It opens n connections,
// sends one request on each, and divides the growth of the memory by n.
func whileIdle(name string, n int) (bytes float64, err error) {
	p, err := startServer(name)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	memory := func(conns int) (bytes int64, closeConns func(), err error) {
		all, err := dialAll(p.addr, conns)
		closeConns = func() { closeAll(all) }
		for i, c := range all {
			if err == nil {
				_, err = load{conns: 1, size: 64}.client(c, i, time.Now(), time.Time{})
			}
		}
		if err != nil {
			return 0, closeConns, err
		}
		u, err := p.usage(true)
		return u.memory, closeConns, err
	}
	// The first connection allocates everything that does not depend on n.
	before, closeOne, err := memory(1)
	defer closeOne()
	if err != nil {
		return 0, err
	}
	after, closeMany, err := memory(n)
	defer closeMany()
	return float64(after-before) / float64(n), err
}
