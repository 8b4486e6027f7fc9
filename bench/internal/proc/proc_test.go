package proc

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAProcessAnswersAndStops(t *testing.T) {
	p, err := Start(t.Context(), "cat", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Tell("127.0.0.1:80"); err != nil {
		t.Fatal(err)
	}
	if addr, err := p.Address(); err != nil || addr.Port() != 80 {
		t.Errorf("%v, %v", addr, err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

func TestTheEndOfTheContextKills(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, err := Start(ctx, "sleep", []string{"60"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := p.Stop(); err == nil {
		t.Error("a process that was killed has ended well")
	}
}

// The processes that a process has started are killed together with the process: for example, the
// compilers that cargo runs take minutes. A child that stays alive would keep the standard output
// open, and Stop would wait for the child.
func TestTheEndOfTheContextKillsChildren(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p, err := Start(ctx, "sh", []string{"-c", "sleep 60 & echo started; wait"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Line(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	cancel()
	if err := p.Stop(); err == nil || time.Since(begin) > 5*time.Second {
		t.Errorf("killing took %v, and ended with %v", time.Since(begin), err)
	}
}

// An error with the standard error of a process may be made while the process writes more to
// standard error.
func TestAProcessMaySpeakWhileItsErrorsAreRead(t *testing.T) {
	p, err := Start(t.Context(), "sh", []string{"-c", "for i in 1 2 3 4 5 6 7 8 9; do echo $i >&2; done; exec >&-; cat"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Line(); err == nil {
		t.Error("a line came from a process that has closed its output")
	}
	p.Stop()
}

// The counters do not count events before Begin and after Stop.
func TestCountsAreThoseOfTheMeasurement(t *testing.T) {
	if err := HavePerf(t.Context(), t.TempDir()); err != nil {
		t.Skip(err)
	}
	p, err := Counts(t.Context(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	calls := func(n int) {
		for range n {
			syscall.Getppid()
		}
	}
	calls(100_000)
	if err := p.Begin(); err != nil {
		t.Fatal(err)
	}
	calls(10_000)
	metrics, err := p.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if got := metrics["syscalls"]; got < 10_000 || got > 20_000 {
		t.Errorf("%v system calls were counted, want 10,000 and a few", got)
	}
}

func TestAProfileHasTheSamplesOfTheMeasurement(t *testing.T) {
	if err := HavePerf(t.Context(), t.TempDir()); err != nil {
		t.Skip(err)
	}
	for range 5 {
		p, err := Profile(t.Context(), os.Getpid(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Begin(); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); time.Since(begin) < 100*time.Millisecond; {
		}
		metrics, err := p.Stop()
		if err != nil {
			t.Fatal(err)
		}
		if ns := metrics["profile_ns"]; ns < 10e6 || ns > 1e9 {
			t.Errorf("computing for 100 ms is profiled as %v ns", ns)
		}
	}
}

func TestAFailureSaysWhatTheProcessSaid(t *testing.T) {
	_, _, err := Run(t.Context(), "sh", []string{"-c", "echo the reason >&2; exit 3"})
	if err == nil || !strings.Contains(err.Error(), "the reason") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("the error is %v", err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var b tail
	for range 3 {
		b.Write([]byte(strings.Repeat("x", tailSize)))
	}
	b.Write([]byte("end"))
	if got := b.all(); len(got) != tailSize || !strings.HasSuffix(got, "xend") {
		t.Errorf("%d bytes are kept", len(got))
	}
}

func TestParseCounts(t *testing.T) {
	const out = `8520,,raw_syscalls:sys_enter,1000000,100.00,,
2000,,syscalls:sys_enter_futex,1000000,100.00,,
4040,,context-switches,1000000,100.00,4.0,K/sec
7,,cpu-migrations,1000000,100.00,,
`
	got, err := parseCounts(out)
	if err != nil || got["syscalls"] != 8520 || got["futex"] != 2000 || got["switches"] != 4040 || got["migrations"] != 7 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", strings.Replace(out, "7,,cpu", "<not supported>,,cpu", 1)} {
		if got, err := parseCounts(bad); err == nil {
			t.Errorf("%q is accepted: %v", bad, got)
		}
	}
}

func TestParseProfile(t *testing.T) {
	got, err := parseProfile("     4012ab\n ffffffff810000aa \n 7f1200001234\n")
	if err != nil {
		t.Fatal(err)
	}
	if got["profile_user_ns"] != 2*SamplePeriod || got["profile_kernel_ns"] != SamplePeriod || got["profile_ns"] != 3*SamplePeriod {
		t.Errorf("%v", got)
	}
	if _, err := parseProfile("not a number"); err == nil {
		t.Error("nonsense is accepted")
	}
}
