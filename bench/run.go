package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/async/bench/internal/machine"
	"example.com/async/bench/internal/measure"
	"example.com/async/bench/internal/proc"
	"example.com/async/bench/internal/raw"
	"example.com/async/bench/internal/report"
	"example.com/async/bench/internal/suite"
)

// options has the flags of the command run.
type options struct {
	rounds, workers int
	seconds         float64
	quick, verbose  bool
	more            bool
	rows, subjects  *regexp.Regexp
	out, lock       string
}

func parseOptions(args []string) (o options, err error) {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 10, "how often each subject is measured")
	flags.Float64Var(&o.seconds, "seconds", 2, "how long each measurement lasts")
	flags.IntVar(&o.workers, "workers", runtime.NumCPU(), "workers, loops or threads of each subject")
	flags.BoolVar(&o.quick, "quick", false, "measure only the rows of the small table, and only goroutines, net and the library")
	flags.BoolVar(&o.verbose, "v", false, "print a table for each row, too, as when rows or subjects are chosen")
	flags.StringVar(&o.out, "out", "", "write the raw rows to this `file`, which must not exist")
	flags.BoolVar(&o.more, "append", false, "append to the file of -out if it exists")
	flags.StringVar(&o.lock, "lock", "", "hold an flock on this `file` during each sample, so that other work can run between two samples, under flock(1)")
	rows := flags.String("rows", "", "measure only the rows whose name matches this `regexp`")
	subjects := flags.String("subjects", "", "measure only the subjects whose whole name matches this `regexp`, and baselines")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err1, err2 error
	o.rows, err1 = regexp.Compile(*rows)
	o.subjects, err2 = regexp.Compile("^(?:" + *subjects + ")$")
	if *subjects == "" {
		o.subjects = regexp.MustCompile("")
	}
	o.verbose = o.verbose || *rows+*subjects != ""
	switch {
	case errors.Join(err1, err2) != nil:
		return o, errors.Join(err1, err2)
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.rounds < 1 || o.rounds > 1000:
		return o, errors.New("-rounds must be 1 to 1000")
	case o.seconds < 0.05 || o.seconds > 60:
		return o, errors.New("-seconds must be 0.05 to 60")
	case o.workers < 1 || o.workers > 1024:
		return o, errors.New("-workers must be 1 to 1024")
	}
	return o, nil
}

// plan returns the rows that the options choose. Each row has only the subjects that the options
// choose, and all baselines of the row.
func (o options) plan() []suite.Row {
	var rows []suite.Row
	for _, r := range suite.Rows {
		if o.quick && !r.Quick || !o.rows.MatchString(r.Name) {
			continue
		}
		r.Subjects = slices.DeleteFunc(slices.Clone(r.Subjects), func(name string) bool {
			s := suite.SubjectNamed(name)
			if s.Group == suite.Baseline {
				return false
			}
			return o.quick && (s.Group != suite.Ours || s.Workers > 0) || !o.subjects.MatchString(name)
		})
		if len(r.Subjects) > 1 || o.subjects.MatchString(r.Baseline) {
			rows = append(rows, r)
		}
	}
	return rows
}

func run(ctx context.Context, args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	rows := o.plan()
	if len(rows) == 0 {
		return errors.New("no row and subject match; bench list prints them")
	}
	if err := raiseFileLimit(); err != nil {
		return err
	}
	b, err := measure.New(ctx, o.seconds, o.workers)
	if err != nil {
		return err
	}
	defer b.Close()
	out := o.out
	if out == "" {
		out = filepath.Join(b.Dir(), "raw.jsonl")
	}
	rows, leftOut, err := prepare(ctx, b, rows)
	if err != nil {
		return err
	}
	w, err := raw.Create(out, o.more, raw.Run{
		Started: time.Now().UTC().Format(time.RFC3339),
		Command: strings.Join(append([]string{"go run ."}, os.Args[1:]...), " "),
		Rounds:  o.rounds, Seconds: o.seconds, Workers: o.workers,
		Machine: machine.Describe(), Versions: machine.Versions(ctx, programs(rows)), LeftOut: leftOut,
	})
	if err != nil {
		return err
	}
	defer w.Close()
	failures, err := measureAll(ctx, b, o, rows, w)
	all, readErr := raw.ReadFiles(out)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	// An interrupted run prints the samples that it has taken.
	if len(all.Samples) > 0 {
		err = errors.Join(err, report.New(all).Print(os.Stdout, o.verbose))
	}
	if o.out != "" {
		fmt.Printf("\nraw rows: %s\n", o.out)
	}
	if err == nil && failures > 0 {
		err = fmt.Errorf("%d measurements failed", failures)
	}
	return err
}

// prepare builds the programs of the rows, and returns the rows and subjects that can be measured
// on this machine. It leaves out, with a reason, rivals whose program cannot be built, and rows
// that need perf if perf does not work.
func prepare(ctx context.Context, b *measure.Bench, rows []suite.Row) ([]suite.Row, map[string]string, error) {
	leftOut := make(map[string]string)
	// The error may name directories, so it is not written to the raw rows.
	leave := func(names []string, why string, err error) {
		fmt.Fprintf(os.Stderr, "left out: %s, %s: %v\n", strings.Join(names, ", "), why, err)
		for _, name := range names {
			leftOut[name] = why
		}
	}
	if slices.ContainsFunc(rows, needsPerf) {
		if err := proc.HavePerf(ctx, b.Dir()); err != nil {
			leave([]string{"the rows with perf"}, "perf does not work here", err)
			rows = slices.DeleteFunc(rows, needsPerf)
		}
	}
	var missing []*suite.Program
	for _, p := range programs(rows) {
		fmt.Fprintf(os.Stderr, "building %s\n", p.Name)
		err := b.Build(ctx, p)
		switch {
		case ctx.Err() != nil:
			return nil, nil, context.Cause(ctx)
		case err != nil && p.Required:
			return nil, nil, fmt.Errorf("building %s: %w", p.Name, err)
		case err != nil:
			leave(formsOf(p, rows), "the program "+p.Name+" could not be built", err)
			missing = append(missing, p)
		}
	}
	for i := range rows {
		rows[i].Subjects = slices.DeleteFunc(rows[i].Subjects, func(name string) bool {
			return slices.Contains(missing, suite.SubjectNamed(name).Program)
		})
	}
	return rows, leftOut, nil
}

// formsOf returns the names of the subjects in the rows that are forms of a program.
func formsOf(p *suite.Program, rows []suite.Row) []string {
	var names []string
	for _, s := range suite.Subjects {
		if s.Program == p && slices.ContainsFunc(rows, func(r suite.Row) bool { return slices.Contains(r.Subjects, s.Name) }) {
			names = append(names, s.Name)
		}
	}
	return names
}

func needsPerf(r suite.Row) bool { return r.Kind == suite.Profile || r.Kind == suite.Counts }

// programs returns the programs of the subjects in the rows.
func programs(rows []suite.Row) []*suite.Program {
	var all []*suite.Program
	for _, r := range rows {
		for _, name := range r.Subjects {
			if p := suite.SubjectNamed(name).Program; !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	return all
}

// measureAll takes every sample, round by round, and returns how many failed. In each round the
// subjects of a row are measured one after the other: if the machine is slow for minutes, it is
// slow for all of them. The order is drawn anew for each round, so that no subject always follows
// the same subject.
func measureAll(ctx context.Context, b *measure.Bench, o options, rows []suite.Row, w *raw.Writer) (failures int, err error) {
	quiet, err := newQuiet(o.lock)
	if err != nil {
		return 0, err
	}
	defer quiet.close()
	var left time.Duration
	for _, r := range rows {
		left += time.Duration(len(r.Subjects)*r.RoundsOf(o.rounds)) * b.Expected(r)
	}
	fmt.Fprintf(os.Stderr, "the measurements will take about %v\n", left.Round(time.Second))
	done, begin := time.Duration(0), time.Now()
	for round := range o.rounds {
		random := rand.New(rand.NewPCG(1, uint64(round))) // the seed makes the orders the same in each run
		for _, r := range rows {
			if round >= r.RoundsOf(o.rounds) {
				continue
			}
			for i, place := range random.Perm(len(r.Subjects)) {
				name := r.Subjects[place]
				s := raw.Sample{Row: r.Name, Subject: name, Round: round}
				if err := quiet.begin(); err != nil {
					return failures, err
				}
				s.Metrics, err = b.Take(ctx, r, suite.SubjectNamed(name))
				quiet.end()
				if ctx.Err() != nil {
					return failures, context.Cause(ctx)
				}
				if err != nil {
					failures++
					s.Metrics, s.Error = nil, err.Error()
					fmt.Fprintf(os.Stderr, "%s of %s failed: %v\n", r.Name, name, err)
				}
				if err := w.Add(s); err != nil {
					return failures, err
				}
				done, left = done+b.Expected(r), left-b.Expected(r)
				real := time.Since(begin).Seconds() / done.Seconds()
				progress(fmt.Sprintf("round %d of %d, %s (about %v left)", round+1, o.rounds, r.Name,
					time.Duration(real*float64(left)).Round(time.Second)), i == len(r.Subjects)-1)
			}
		}
	}
	fmt.Fprintln(os.Stderr)
	return failures, nil
}

// progress rewrites one line if the output is a terminal. Otherwise it writes a line after the last
// subject of a row.
func progress(line string, last bool) {
	switch info, err := os.Stderr.Stat(); {
	case err == nil && info.Mode()&os.ModeCharDevice != 0:
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s", line)
	case last:
		fmt.Fprintln(os.Stderr, line)
	}
}

// raiseFileLimit allows this process and its children as many descriptors as the idle connections
// need.
func raiseFileLimit() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("setrlimit", err)
	}
	return nil
}
