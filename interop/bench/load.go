package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report makes wrk print what is needed in one line: requests, microseconds
// that the run took, latencies in microseconds, and what failed.
const report = `
done = function(summary, latency)
	local e = summary.errors
	io.write(string.format("figures %d %d %d %d %d %d\n", summary.requests, summary.duration,
		latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
		e.connect + e.read + e.write + e.status + e.timeout))
end
`

// figures is what one run of one server gave.
type figures struct {
	rate           float64 // requests per second
	cpu            float64 // microseconds of the server's CPU time per request
	p50, p99, p999 float64 // latency in microseconds
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
	if _, err := exec.LookPath("wrk"); err != nil {
		return errors.New("wrk is not installed: run bench.sh")
	}
	script, err := os.CreateTemp("", "wrk-*.lua")
	if err != nil {
		return err
	}
	defer os.Remove(script.Name())
	_, err = script.WriteString(report)
	if err := errors.Join(err, script.Close()); err != nil {
		return err
	}
	fmt.Printf("wrk, closed loop, %d connections; %d rounds of %v each, servers in turn\n", o.conns, o.rounds, o.time)
	runs := make([][]figures, len(chosen))
	for round := range o.rounds {
		for i, s := range chosen {
			f, err := measure(s, o, script.Name())
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
func measure(s server, o options, script string) (f figures, err error) {
	p, err := start(s)
	if err != nil {
		return f, err
	}
	defer p.stop()
	if _, err = wrk(s, p, o.conns, time.Second, script); err != nil { // warm-up
		return f, err
	}
	before, err := p.used(askCPU)
	if err != nil {
		return f, err
	}
	out, err := wrk(s, p, o.conns, o.time, script)
	if err != nil {
		return f, err
	}
	after, err := p.used(askCPU)
	if err != nil {
		return f, err
	}
	var n, took, failed float64
	_, line, _ := strings.Cut(out, "figures ")
	if _, err = fmt.Sscan(line, &n, &took, &f.p50, &f.p99, &f.p999, &failed); err != nil {
		return f, fmt.Errorf("wrk printed no figures: %s", out)
	}
	if failed > 0 || n == 0 {
		return f, fmt.Errorf("of %.0f requests %.0f failed", n, failed)
	}
	f.rate = n / took * 1e6
	f.cpu = float64((after.cpu - before.cpu).Microseconds()) / n
	return f, nil
}

// wrk runs it with one thread, which leaves the server the other processors.
func wrk(s server, p *process, conns int, d time.Duration, script string) (string, error) {
	scheme := "http"
	if strings.HasSuffix(s.protocol, "-tls") {
		scheme = "https"
	}
	var out bytes.Buffer
	cmd := exec.Command("wrk", "-t1", fmt.Sprint("-c", conns), fmt.Sprintf("-d%ds", int(d.Seconds())),
		"-s", script, scheme+"://"+p.addr+"/")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("wrk: %w: %s", err, out.String())
	}
	return out.String(), nil
}

// printLoad prints medians, and beside those that are not on package net the
// median of the rounds' ratios to it.
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
