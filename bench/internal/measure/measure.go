package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"

	"example.com/async/bench/internal/proc"
	"example.com/async/bench/internal/suite"
	"example.com/async/bench/internal/usage"
)

// patience is how long one sample may take in addition to the measured time. Workloads of a million
// tasks need most of this time.
const patience = 90 * time.Second

// Take takes one sample of a subject, whose program must have been built.
func (b *Bench) Take(ctx context.Context, r suite.Row, s *suite.Subject) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(3*b.seconds(r)*float64(time.Second))+patience)
	defer cancel()
	begin := time.Now()
	busy, stolen, err := usage.MachineBusy()
	if err != nil {
		return nil, err
	}
	// Each function returns its metrics, and the CPU time of all processes that it has started.
	take := map[suite.Kind]func(context.Context, suite.Row, *suite.Subject) (map[string]float64, time.Duration, error){
		suite.Work: b.takeWork, suite.Echo: b.takeEcho, suite.Idle: b.takeIdle, suite.Profile: b.takePerf, suite.Counts: b.takePerf,
	}[r.Kind]
	metrics, mine, err := take(ctx, r, s)
	if err != nil {
		return nil, err
	}
	busyAfter, stolenAfter, err := usage.MachineBusy()
	if err != nil {
		return nil, err
	}
	// The CPU time of other processes during the sample, in percent of one processor. The system
	// counts the time of the machine in steps of 10 ms per processor, so the difference may be
	// negative.
	wall := time.Since(begin)
	metrics["other_cpu_pct"] = 100 * (busyAfter - busy - mine).Seconds() / wall.Seconds()
	metrics["stolen_pct"] = 100 * (stolenAfter - stolen).Seconds() / wall.Seconds()
	return metrics, nil
}

// seconds returns how long a measurement of the row lasts: the time of the run, or longer if the
// row needs more time for its number of requests.
func (b *Bench) seconds(r suite.Row) float64 {
	if r.Rate == 0 {
		return b.Seconds
	}
	return max(b.Seconds, float64(r.Requests)/r.Rate)
}

// Expected returns an estimate of the time that a sample of the row takes.
func (b *Bench) Expected(r suite.Row) time.Duration {
	seconds := b.seconds(r) + b.Seconds/4
	switch r.Kind {
	case suite.Work:
	case suite.Idle:
		seconds = 2
	default:
		seconds += 0.5 // starting and stopping the processes, opening the connections
	}
	return time.Duration(seconds * float64(time.Second))
}

// takeWork runs a workload in a process of its own.
func (b *Bench) takeWork(ctx context.Context, r suite.Row, s *suite.Subject) (map[string]float64, time.Duration, error) {
	args := append(b.arguments(s, "work", fmt.Sprintf("-seconds=%g", b.Seconds)), r.Workload)
	out, p, err := proc.Run(ctx, b.paths[s.Program.Name], args)
	if err != nil {
		return nil, 0, err
	}
	metrics, err := parseMetrics(out)
	return metrics, p.CPU(), err
}

func parseMetrics(line string) (map[string]float64, error) {
	metrics := make(map[string]float64)
	if err := json.Unmarshal([]byte(line), &metrics); err != nil {
		return nil, fmt.Errorf("no metrics in %q: %w", line, err)
	}
	return metrics, nil
}

// A pair is a server and the load generator that is connected to the server.
type pair struct {
	server, load *proc.Process
	addr         netip.AddrPort
	cpu          time.Duration // CPU time of the processes that have ended
}

// serve starts a server.
func (b *Bench) serve(ctx context.Context, s *suite.Subject, busy int) (*pair, error) {
	server, err := proc.Start(ctx, b.paths[s.Program.Name], b.arguments(s, "echo", fmt.Sprintf("-busy=%d", busy)))
	if err != nil {
		return nil, err
	}
	p := &pair{server: server}
	if p.addr, err = server.Address(); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// connect starts the load generator of p with some flags, and waits until it is ready.
func (b *Bench) connect(ctx context.Context, p *pair, flags ...string) (err error) {
	flags = append(flags, "-addr="+p.addr.String(), "-size="+strconv.Itoa(suite.RequestBytes))
	// Preemption signals would only disturb the generator, in which one goroutine runs.
	if p.load, err = proc.Start(ctx, b.load, flags, "GODEBUG=asyncpreemptoff=1"); err != nil {
		return err
	}
	line, err := p.load.Line()
	if err == nil && line != "ready" {
		err = fmt.Errorf("the load generator said %q", line)
	}
	return err
}

// measure lets the generator run and returns its metrics.
func (p *pair) measure() (map[string]float64, error) {
	if err := p.load.Tell("go"); err != nil {
		return nil, err
	}
	line, err := p.load.Line()
	if err != nil {
		return nil, err
	}
	return parseMetrics(line)
}

// disconnect ends the load generator.
func (p *pair) disconnect() error {
	if p.load == nil {
		return nil
	}
	err := p.load.Stop()
	p.cpu += p.load.CPU()
	p.load = nil
	return err
}

// stop ends both processes.
func (p *pair) stop() error {
	err := errors.Join(p.disconnect(), p.server.Stop())
	p.cpu += p.server.CPU()
	return err
}

// loadFlags returns the flags of the generator for a row.
func (b *Bench) loadFlags(r suite.Row) []string {
	return []string{
		fmt.Sprintf("-conns=%d", r.Conns), fmt.Sprintf("-rate=%g", r.Rate),
		fmt.Sprintf("-seconds=%g", b.seconds(r)), fmt.Sprintf("-warm=%g", b.Seconds/4),
	}
}

func (b *Bench) takeEcho(ctx context.Context, r suite.Row, s *suite.Subject) (map[string]float64, time.Duration, error) {
	return b.withServer(ctx, r, s, func(p *pair) (map[string]float64, error) {
		if err := b.connect(ctx, p, b.loadFlags(r)...); err != nil {
			return nil, err
		}
		return measureEcho(p)
	})
}

// withServer starts a server, calls measure, and stops the server.
func (b *Bench) withServer(ctx context.Context, r suite.Row, s *suite.Subject, measure func(p *pair) (map[string]float64, error)) (map[string]float64, time.Duration, error) {
	p, err := b.serve(ctx, s, r.Busy)
	if err != nil {
		return nil, 0, err
	}
	metrics, err := measure(p)
	err = errors.Join(err, p.stop())
	return metrics, p.cpu, err
}

func measureEcho(p *pair) (map[string]float64, error) {
	before, err := usage.CPU(p.server.PID())
	if err != nil {
		return nil, err
	}
	metrics, err := p.measure()
	if err != nil {
		return nil, err
	}
	after, err := usage.CPU(p.server.PID())
	if err != nil {
		return nil, err
	}
	resident, err := usage.Resident(p.server.PID())
	if err != nil {
		return nil, err
	}
	requests, err := answered(metrics)
	if err != nil {
		return nil, err
	}
	metrics["cpu_us"] = float64((after - before).Nanoseconds()) / 1e3 / requests
	metrics["rss_bytes"] = float64(resident)
	return metrics, nil
}

// answered returns how many requests were answered. It returns an error if a request was not
// answered or got a wrong answer.
func answered(metrics map[string]float64) (float64, error) {
	if metrics["errors"] > 0 || metrics["requests"] == 0 {
		return 0, fmt.Errorf("%.0f requests were answered, and there were %.0f errors", metrics["requests"], metrics["errors"])
	}
	return metrics["requests"], nil
}

// takeIdle measures the memory that idle connections add to a server. The server has served a few
// connections before. After more connections the idle connections would use memory that the server
// already has.
func (b *Bench) takeIdle(ctx context.Context, r suite.Row, s *suite.Subject) (map[string]float64, time.Duration, error) {
	return b.withServer(ctx, r, s, func(p *pair) (map[string]float64, error) {
		if err := b.useIdle(ctx, p, 10); err != nil {
			return nil, err
		}
		if err := p.disconnect(); err != nil {
			return nil, err
		}
		time.Sleep(200 * time.Millisecond) // the server has closed the connections by then
		before, err := collected(p.server)
		if err != nil {
			return nil, err
		}
		if err := b.useIdle(ctx, p, r.Conns); err != nil {
			return nil, err
		}
		grown, err := usage.Resident(p.server.PID())
		if err != nil {
			return nil, err
		}
		after, err := collected(p.server)
		if err != nil {
			return nil, err
		}
		return map[string]float64{
			"bytes":             float64(after-before) / float64(r.Conns),
			"bytes_uncollected": float64(grown-before) / float64(r.Conns),
			"rss_bytes":         float64(after),
		}, nil
	})
}

// useIdle opens n connections, uses each of them twice, and leaves them open.
func (b *Bench) useIdle(ctx context.Context, p *pair, n int) error {
	if err := b.connect(ctx, p, fmt.Sprintf("-idle=%d", n)); err != nil {
		return err
	}
	if _, err := p.measure(); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond) // all connections wait for input by then
	return nil
}

// collected returns the resident memory of a server after the server has returned unused memory to
// the system.
func collected(server *proc.Process) (int64, error) {
	if err := server.Tell("collect"); err != nil {
		return 0, err
	}
	line, err := server.Line()
	if err != nil {
		return 0, err
	}
	if line != "collected" {
		return 0, fmt.Errorf("the server said %q instead of having collected", line)
	}
	return usage.Resident(server.PID())
}

// takePerf measures the metrics of perf, per request.
func (b *Bench) takePerf(ctx context.Context, r suite.Row, s *suite.Subject) (map[string]float64, time.Duration, error) {
	return b.withServer(ctx, r, s, func(p *pair) (map[string]float64, error) {
		if err := b.connect(ctx, p, b.loadFlags(r)...); err != nil {
			return nil, err
		}
		attach := func() (*proc.Perf, error) { return proc.Counts(ctx, p.server.PID()) }
		if r.Kind == suite.Profile {
			attach = func() (*proc.Perf, error) { return proc.Profile(ctx, p.server.PID(), b.dir) }
		}
		perf, err := attach()
		if err != nil {
			return nil, err
		}
		var load map[string]float64
		if err = perf.Begin(); err == nil {
			load, err = p.measure()
		}
		seen, perfErr := perf.Stop()
		p.cpu += perf.CPU()
		if err := errors.Join(err, perfErr); err != nil {
			return nil, err
		}
		requests, err := answered(load)
		if err != nil {
			return nil, err
		}
		for name := range seen {
			seen[name] /= requests
		}
		seen["requests"] = requests
		for _, mode := range []string{"", "_user", "_kernel"} {
			if ns, ok := seen["profile"+mode+"_ns"]; ok {
				seen["profile"+mode+"_samples"] = math.Round(ns * requests / proc.SamplePeriod)
			}
		}
		return seen, nil
	})
}
