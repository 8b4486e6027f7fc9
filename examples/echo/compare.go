package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// plan is what is compared.
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
	case p.rounds < 1 || p.rounds > 100:
		return fmt.Errorf("-rounds must be 1 to 100")
	case p.idle < 1 || p.idle > 100_000:
		return fmt.Errorf("-idle must be 1 to 100000")
	}
	return nil
}

// figures is what came of a server under a load; of which the medians are taken.
type figures struct {
	rate     float64 // requests per second
	cpu      float64 // microseconds of the server's CPU time for a request
	p50, p99 float64 // latency in microseconds
	bytes    float64 // of memory for an idle connection
}

// column is one figure, of one of the loads.
type column struct {
	title string
	load  int
	of    func(figures) float64
	form  string
}

const (
	closedLoop = iota
	partialLoad
	idleConns
	loads
)

var columns = []column{
	{"requests/s", closedLoop, func(f figures) float64 { return f.rate }, "%.0f"},
	{"CPU µs", closedLoop, func(f figures) float64 { return f.cpu }, "%.1f"},
	{"p99 µs", closedLoop, func(f figures) float64 { return f.p99 }, "%.0f"},
	{"CPU µs", partialLoad, func(f figures) float64 { return f.cpu }, "%.1f"},
	{"p50 µs", partialLoad, func(f figures) float64 { return f.p50 }, "%.0f"},
	{"p99 µs", partialLoad, func(f figures) float64 { return f.p99 }, "%.0f"},
	{"bytes", idleConns, func(f figures) float64 { return f.bytes }, "%.0f"},
}

// compare measures every server, round by round, and prints a table.
func compare(p plan) error {
	fmt.Printf("echo of %d bytes on %d connections: as fast as they can (closed loop), and %d requests/s;\n"+
		"then %d idle connections. The client shares the processors with the server.\n\n",
		p.closed.size, p.closed.conns, p.partial.rate, p.idle)
	var runs [loads][][]figures
	for i := range runs {
		runs[i] = make([][]figures, len(servers))
	}
	for round := range p.rounds {
		for i, s := range servers {
			progress("round %d of %d: %s", round+1, p.rounds, s.name)
			for what, l := range []load{closedLoop: p.closed, partialLoad: p.partial} {
				f, err := underLoad(s.name, l)
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				runs[what][i] = append(runs[what][i], f)
			}
		}
	}
	for i, s := range servers {
		progress("%d idle connections: %s", p.idle, s.name)
		f, err := whileIdle(s.name, p.idle)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		runs[idleConns][i] = append(runs[idleConns][i], f)
	}
	progress("")

	medians := make([][]float64, len(servers))
	for i := range servers {
		for _, c := range columns {
			medians[i] = append(medians[i], median(runs[c.load][i], c.of))
		}
	}
	table(p, medians)
	fmt.Println()
	for _, s := range servers {
		fmt.Printf("%-8s  %s\n", s.name, s.what)
	}
	fmt.Println()
	fmt.Println(reading(p, medians))
	return nil
}

// progress replaces the line of progress on the standard error.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "\r%-60s\r", fmt.Sprintf(format, args...))
}

func table(p plan, medians [][]float64) {
	fmt.Printf("medians of %d rounds; CPU is the server's, for a request\n", p.rounds)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	headings := []string{closedLoop: "closed loop", partialLoad: fmt.Sprintf("%d/s", p.partial.rate), idleConns: "idle"}
	row := []string{""}
	for i, c := range columns {
		heading := ""
		if i == 0 || columns[i-1].load != c.load {
			heading = headings[c.load]
		}
		row = append(row, heading)
	}
	fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
	row = []string{"server"}
	for _, c := range columns {
		row = append(row, c.title)
	}
	fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
	for i, s := range servers {
		row = []string{s.name}
		for j, c := range columns {
			row = append(row, fmt.Sprintf(c.form, medians[i][j]))
		}
		fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
	}
	t.Flush()
}

// reading says in a sentence what the table shows of the first server, straight-line tasks,
// beside the last, package net.
func reading(p plan, medians [][]float64) string {
	ours, net := medians[0], medians[len(medians)-1]
	ratio := func(load int, title string) float64 {
		for i, c := range columns {
			if c.load == load && c.title == title {
				return ours[i] / net[i]
			}
		}
		panic("no such column: " + title)
	}
	return fmt.Sprintf("Read it so: beside net, straight-line tasks take %.2f of the CPU time at %d requests/s and %.2f in the closed loop, where they\n"+
		"answer %.2f of the requests; an idle connection takes %.2f of the memory, and with serve, which keeps nothing for it, %.2f.",
		ratio(partialLoad, "CPU µs"), p.partial.rate, ratio(closedLoop, "CPU µs"), ratio(closedLoop, "requests/s"),
		ratio(idleConns, "bytes"), medians[serveIndex][len(columns)-1]/net[len(columns)-1])
}

func median(runs []figures, of func(figures) float64) float64 {
	var xs []float64
	for _, f := range runs {
		xs = append(xs, of(f))
	}
	slices.Sort(xs)
	return (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
}

// underLoad starts a server, puts it under load and stops it.
func underLoad(name string, l load) (f figures, err error) {
	p, err := startServer(name)
	if err != nil {
		return f, err
	}
	defer p.stop()
	conns, err := dialAll(p.addr, l.conns)
	if err != nil {
		return f, err
	}
	defer closeAll(conns)
	if _, err := l.run(conns, l.time/10); err != nil { // warm-up
		return f, err
	}
	before, err := p.usage(false)
	if err != nil {
		return f, err
	}
	began := time.Now()
	latencies, err := l.run(conns, l.time)
	if err != nil {
		return f, err
	}
	took := time.Since(began)
	after, err := p.usage(false)
	if err != nil {
		return f, err
	}
	n := float64(len(latencies))
	at := func(q float64) float64 {
		return float64(latencies[min(int(q*n), len(latencies)-1)]) / float64(time.Microsecond)
	}
	return figures{
		rate: n / took.Seconds(),
		cpu:  float64(after.cpu-before.cpu) / float64(time.Microsecond) / n,
		p50:  at(0.5), p99: at(0.99),
	}, nil
}

// whileIdle measures what n idle connections take, each of which was used once.
func whileIdle(name string, n int) (f figures, err error) {
	p, err := startServer(name)
	if err != nil {
		return f, err
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
	before, closeOne, err := memory(1) // which brings all that does not depend on n
	defer closeOne()
	if err != nil {
		return f, err
	}
	after, closeMany, err := memory(n)
	defer closeMany()
	return figures{bytes: float64(after-before) / float64(n)}, err
}
