package proc

import (
	"context"
	"strings"
	"testing"
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
	const period = 1e9 / samplesPerSecond
	if got["profile_user_ns"] != 2*period || got["profile_kernel_ns"] != period || got["profile_ns"] != 3*period {
		t.Errorf("%v", got)
	}
	if _, err := parseProfile("not a number"); err == nil {
		t.Error("nonsense is accepted")
	}
}
