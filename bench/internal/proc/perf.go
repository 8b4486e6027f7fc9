package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Perf watches a process with the perf program of Linux.
type Perf struct {
	perf   *Process
	file   string
	stop   func(p *Perf) error
	finish func(p *Perf) (map[string]float64, error)
	ctx    context.Context
	cpu    time.Duration // CPU time of perf itself
}

// samplesPerSecond is how often the profile samples a processor that runs the process. It is not a
// round number, so that the samples are not in step with timers.
const samplesPerSecond = 4999

// SamplePeriod is the CPU time in nanoseconds between two samples of a profile.
const SamplePeriod = 1e9 / samplesPerSecond

// counted has the events that Counts counts, and the names of their metrics.
var counted = []struct{ event, metric string }{
	{"raw_syscalls:sys_enter", "syscalls"},
	{"syscalls:sys_enter_futex", "futex"},
	{"context-switches", "switches"},
	{"cpu-migrations", "migrations"},
}

// HavePerf returns nil if perf can profile and count on this machine.
func HavePerf(ctx context.Context, dir string) error {
	args := append([]string{"stat", "-x,"}, countedEvents()...)
	_, p, err := Run(ctx, "perf", append(args, "--", "true"))
	if err != nil {
		return fmt.Errorf("perf does not count here: %w", err)
	}
	if _, err := parseCounts(p.ErrorOutput()); err != nil {
		return fmt.Errorf("perf does not count here: %w", err)
	}
	_, _, err = Run(ctx, "perf", []string{"record", "-q", "-e", "cpu-clock", "-F", "100", "-o", filepath.Join(dir, "perf.data"), "--", "true"})
	if err != nil {
		return fmt.Errorf("perf does not profile here: %w", err)
	}
	return nil
}

// Profile attaches a profiler to the process. The profiler samples the process from [Perf.Begin] to
// [Perf.Stop]. Stop returns the metrics "profile_user_ns", "profile_kernel_ns" and their sum
// "profile_ns": the number of samples in each mode, times [SamplePeriod].
func Profile(ctx context.Context, pid int, dir string) (*Perf, error) {
	file := filepath.Join(dir, "perf.data")
	// An interrupted perf record sometimes leaves no samples in its file.
	stop := func(p *Perf) error { return p.command("stop") }
	return attach(ctx, &Perf{file: file, stop: stop, finish: (*Perf).finishProfile}, "record", "-q", "-e", "cpu-clock",
		"-F", strconv.Itoa(samplesPerSecond), "-o", file, "-p", strconv.Itoa(pid))
}

// Counts attaches counters to the process, for example of system calls. The counters count from
// [Perf.Begin] to [Perf.Stop]. Stop returns the metrics "syscalls", "futex", "switches" and
// "migrations".
func Counts(ctx context.Context, pid int) (*Perf, error) {
	args := append([]string{"stat", "-x,"}, countedEvents()...)
	// perf stat has no command to stop. It writes its results when it is interrupted.
	stop := func(p *Perf) error { return p.perf.Interrupt() }
	return attach(ctx, &Perf{stop: stop, finish: (*Perf).finishCounts}, append(args, "-p", strconv.Itoa(pid))...)
}

func countedEvents() []string {
	var events []string
	for _, c := range counted {
		events = append(events, c.event)
	}
	return []string{"-e", strings.Join(events, ",")}
}

// attach starts perf with its events disabled. perf reads commands from its standard input, and
// acknowledges each command on its standard output.
func attach(ctx context.Context, p *Perf, args ...string) (*Perf, error) {
	var err error
	p.ctx = ctx
	p.perf, err = Start(ctx, "perf", append(args, "-D", "-1", "--control", "fd:0,1"))
	return p, err
}

// command sends a command to perf, and returns when perf has acknowledged the command.
func (p *Perf) command(word string) error {
	if err := p.perf.Tell(word); err != nil {
		return err
	}
	line, err := p.perf.Line()
	// An acknowledgement is followed by a zero byte, which is read at the beginning of the next
	// line.
	if err == nil && strings.Trim(line, "\x00") != "ack" {
		err = fmt.Errorf("perf answered %q to %q", line, word)
	}
	return err
}

// Begin starts sampling or counting. It returns when perf has attached to all threads of the
// process.
func (p *Perf) Begin() error { return p.command("enable") }

// Stop ends sampling or counting, and returns the metrics.
func (p *Perf) Stop() (map[string]float64, error) {
	if err := p.command("disable"); err != nil {
		return nil, errors.Join(err, p.perf.Stop())
	}
	if err := p.stop(p); err != nil {
		return nil, errors.Join(fmt.Errorf("stopping perf: %w", err), p.perf.Stop())
	}
	// An interrupted perf returns a failure, although it has written its results.
	stopped := p.perf.Stop()
	p.cpu += p.perf.CPU()
	metrics, err := p.finish(p)
	if err != nil {
		return nil, errors.Join(err, stopped)
	}
	return metrics, nil
}

// CPU returns the CPU time that perf has used. It may be called after Stop.
func (p *Perf) CPU() time.Duration { return p.cpu }

// Kernel addresses have the highest bit set, on every 64-bit architecture of Linux.
const kernelHalf = 1 << 63

func (p *Perf) finishProfile() (map[string]float64, error) {
	defer os.Remove(p.file)
	out, script, err := Run(p.ctx, "perf", []string{"script", "-i", p.file, "-F", "ip"})
	if err != nil {
		return nil, err
	}
	p.cpu += script.CPU()
	return parseProfile(out)
}

// parseProfile counts the instruction pointers that perf script prints.
func parseProfile(out string) (map[string]float64, error) {
	var user, kernel float64
	for field := range strings.FieldsSeq(out) {
		ip, err := strconv.ParseUint(field, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("perf script printed %q: %w", field, err)
		}
		if ip >= kernelHalf {
			kernel++
		} else {
			user++
		}
	}
	return map[string]float64{
		"profile_ns": (user + kernel) * SamplePeriod, "profile_user_ns": user * SamplePeriod, "profile_kernel_ns": kernel * SamplePeriod,
	}, nil
}

func (p *Perf) finishCounts() (map[string]float64, error) { return parseCounts(p.perf.ErrorOutput()) }

// parseCounts reads lines of the form "value,unit,event,...".
func parseCounts(out string) (map[string]float64, error) {
	metrics := make(map[string]float64)
	for line := range strings.Lines(out) {
		fields := strings.Split(line, ",")
		for _, c := range counted {
			if len(fields) > 2 && fields[2] == c.event {
				v, err := strconv.ParseFloat(fields[0], 64)
				if err != nil {
					return nil, fmt.Errorf("perf stat printed %q", line)
				}
				metrics[c.metric] = v
			}
		}
	}
	if len(metrics) != len(counted) {
		return nil, fmt.Errorf("perf stat printed no count of some event: %q", out)
	}
	return metrics, nil
}
