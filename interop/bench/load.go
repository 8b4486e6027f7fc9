package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is a script that makes wrk print one line: the number of requests, the duration of the run
// in microseconds, latencies in microseconds, and the number of failures.
const report = `
done = function(summary, latency)
	local e = summary.errors
	io.write(string.format("figures %d %d %d %d %d %d\n", summary.requests, summary.duration,
		latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
		e.connect + e.read + e.write + e.status + e.timeout))
end
`

// figures is the result of one run of one server.
type figures struct {
	rate           float64 // requests per second
	cpu            float64 // microseconds of the server's CPU time per request
	p50, p99, p999 float64 // latency in microseconds
}

// load is the report of a load generator about one run. Times are in microseconds.
type load struct {
	requests, took, p50, p99, p999, failed float64
}

var columns = []struct {
	title string
	of    func(figures) float64
}{
	{"requests/s", func(f figures) float64 { return f.rate }},
	{"CPU µs", func(f figures) float64 { return f.cpu }},
	{"p50 µs", func(f figures) float64 { return f.p50 }},
	{"p99 µs", func(f figures) float64 { return f.p99 }},
	{"p99.9 µs", func(f figures) float64 { return f.p999 }},
}

func compareLoad(o options) error {
	chosen := slices.DeleteFunc(slices.Clone(servers), func(s server) bool {
		return !s.load || !o.only.MatchString(s.name())
	})
	if len(chosen) == 0 {
		return nil
	}
	for _, program := range []string{"wrk", "h2load"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: run bench.sh", program)
		}
	}
	kind := "wrk, closed loop"
	if o.rate > 0 {
		kind = fmt.Sprintf("h2load, %d requests/s", o.rate)
	}
	fmt.Printf("%s, %d connections; %d rounds of %v each, servers in turn\n", kind, o.conns, o.rounds, o.time)
	runs := make([][]figures, len(chosen))
	for round := range o.rounds {
		for i, s := range chosen {
			f, err := measure(s, o)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			runs[i] = append(runs[i], f)
			fmt.Printf("round %d/%d  %-24s %7.0f requests/s  %6.1f µs CPU/request  p99 %6.0f µs\n",
				round+1, o.rounds, s.name(), f.rate, f.cpu, f.p99)
		}
	}
	printLoad(chosen, runs)
	return nil
}

// measure starts a server, puts it under load and stops it.
func measure(s server, o options) (f figures, err error) {
	p, err := start(s)
	if err != nil {
		return f, err
	}
	defer p.stop()
	if _, err = o.load(s, p, time.Second); err != nil { // warm-up
		return f, err
	}
	before, err := p.used(askCPU)
	if err != nil {
		return f, err
	}
	l, err := o.load(s, p, o.time)
	if err != nil {
		return f, err
	}
	after, err := p.used(askCPU)
	if err != nil {
		return f, err
	}
	if l.failed > 0 || l.requests == 0 {
		return f, fmt.Errorf("of %.0f requests %.0f failed", l.requests, l.failed)
	}
	return figures{
		rate: l.requests / l.took * 1e6,
		cpu:  float64((after.cpu - before.cpu).Microseconds()) / l.requests,
		p50:  l.p50, p99: l.p99, p999: l.p999,
	}, nil
}

// load puts the server under load for the time d.
func (o options) load(s server, p *process, d time.Duration) (load, error) {
	if o.rate > 0 {
		return o.h2load(s, p, d)
	}
	return o.wrk(s, p, d)
}

// wrk runs wrk with one thread, which leaves the other processors to the server.
func (o options) wrk(s server, p *process, d time.Duration) (l load, err error) {
	script, err := os.CreateTemp("", "wrk-*.lua")
	if err != nil {
		return l, err
	}
	defer os.Remove(script.Name())
	_, err = script.WriteString(report)
	if err := errors.Join(err, script.Close()); err != nil {
		return l, err
	}
	out, err := run("wrk", "-t1", fmt.Sprint("-c", o.conns), fmt.Sprintf("-d%ds", int(d.Seconds())), "-s", script.Name(), s.url(p))
	if err != nil {
		return l, err
	}
	_, line, _ := strings.Cut(out, "figures ")
	if _, err = fmt.Sscan(line, &l.requests, &l.took, &l.p50, &l.p99, &l.p999, &l.failed); err != nil {
		return l, fmt.Errorf("wrk printed no figures: %s", out)
	}
	return l, nil
}

// url returns the URL of the process.
func (s server) url(p *process) string {
	scheme := "http"
	if strings.HasSuffix(s.protocol, "-tls") {
		scheme = "https"
	}
	return scheme + "://" + p.addr + "/"
}

// run runs a program and returns its output.
func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return string(out), err
}

// printLoad prints medians. For a server that is not on package net it also prints the median of
// the ratios to the server on package net, round by round.
func printLoad(chosen []server, runs [][]figures) {
	fmt.Printf("\nmedians; in brackets the median of the rounds' ratios to the same on net, and how many of the rounds were below 1\n")
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "server\t")
	for _, c := range columns {
		fmt.Fprint(t, c.title, "\t")
	}
	fmt.Fprintln(t, "CPU, least to most\t")
	for i, s := range chosen {
		base := slices.IndexFunc(chosen, func(b server) bool { return b.protocol == s.protocol && b.on == "net" })
		fmt.Fprint(t, s.name(), "\t")
		for _, c := range columns {
			fmt.Fprintf(t, "%.1f", median(each(runs[i], c.of)))
			if base >= 0 && base != i {
				ratios := quotients(each(runs[i], c.of), each(runs[base], c.of))
				fmt.Fprintf(t, " (%.2f, %d/%d)", median(ratios), below(ratios), len(ratios))
			}
			fmt.Fprint(t, "\t")
		}
		cpu := each(runs[i], func(f figures) float64 { return f.cpu })
		fmt.Fprintf(t, "%.1f to %.1f\t\n", slices.Min(cpu), slices.Max(cpu))
	}
	t.Flush()
	fmt.Println()
	for _, on := range []string{"net", "tasks", "goroutines"} {
		fmt.Printf("%-11s %s\n", on, what[on])
	}
}

func each(runs []figures, of func(figures) float64) (xs []float64) {
	for _, f := range runs {
		xs = append(xs, of(f))
	}
	return xs
}

func quotients(xs, ys []float64) (qs []float64) {
	for i := range xs {
		qs = append(qs, xs[i]/ys[i])
	}
	return qs
}

func below(ratios []float64) (n int) {
	for _, r := range ratios {
		if r < 1 {
			n++
		}
	}
	return n
}

func median(xs []float64) float64 {
	xs = slices.Sorted(slices.Values(xs))
	return (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
}
