package report

import (
	"bytes"
	"strings"
	"testing"

	"example.com/async/bench/internal/raw"
)

// rows returns two rounds of one workload and one server. Straight-line code has lost to tokio, and
// has won against package net.
func rows() raw.Rows {
	rows := raw.Rows{Runs: []raw.Run{{
		Command: "go run . -rounds 2", Rounds: 2, Seconds: 1, Workers: 2,
		Machine: map[string]string{"processors": "2"}, LeftOut: map[string]string{"smol": "its program could not be built"},
	}}}
	add := func(row, subject string, metrics ...map[string]float64) {
		for round, m := range metrics {
			rows.Samples = append(rows.Samples, raw.Sample{Row: row, Subject: subject, Round: round, Metrics: m})
		}
	}
	ns := func(x float64) map[string]float64 { return map[string]float64{"ns": x, "cpu_ns": 2 * x} }
	add("work/chained_spawn", "goroutines", ns(400_000), ns(800_000))
	add("work/chained_spawn", "straight", ns(300_000), ns(500_000))
	add("work/chained_spawn", "tokio", ns(100_000), ns(125_000))
	echo := func(cpu, p99, rate float64) map[string]float64 {
		return map[string]float64{"cpu_us": cpu, "p50_us": p99 / 2, "p99_us": p99, "requests_s": rate, "other_cpu_pct": 20}
	}
	add("echo/closed/64", "net", echo(10, 1000, 50_000), echo(20, 2000, 25_000))
	add("echo/closed/64", "straight", echo(8, 1500, 60_000), echo(16, 2500, 30_000))
	rows.Samples = append(rows.Samples, raw.Sample{Row: "echo/closed/64", Subject: "gnet", Error: "hung up"})
	return rows
}

func contains(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
}

func TestMarkdown(t *testing.T) {
	text := string(New(rows()).Markdown())
	contains(t, text,
		"`go run . -rounds 2`",
		"left out: smol (its program could not be built)",
		// The ratios to goroutines are 300/400 and 500/800, and the ratios to tokio 300/100 and
		// 500/125.
		"| straight | 400 (300 to 500) | 0.69 (2/2) | **LOST** to tokio: 3.50 (2/2) | 800 (600 to 1,000) |",
		"| goroutines | 600 (400 to 800) |  |  | 1,200 (800 to 1,600) |",
		"| straight | 12.0 (8.00 to 16.0) | 0.80 (2/2) | net: 0.80 (2/2) |",
		"| gnet (failed 1 of 1) | - |",
		"`go run . -rows '^echo/closed/64$' -rounds 2 -seconds 1 -workers 2`",
		"**LOST** to net: 1.38 (2/2)",  // p99: 1500/1000 and 2500/2000
		"**LOST** straight 1.38 (2/2)", // the same ratio in the table of all rows
		"gnet failed in round 1: hung up",
		"more than 15 % in 4 of 10",
	)
}

// If more is better, the ratio is inverted, so that a smaller ratio is always better.
func TestRatiosOfRatesAreTurnedRound(t *testing.T) {
	text := string(New(rows()).Markdown())
	contains(t, text, "| 45,000 (30,000 to 60,000) | 0.83 (2/2) |")
}

func TestNothingIsPrintedThatWasNotMeasured(t *testing.T) {
	res := New(rows())
	text := string(res.Markdown())
	for _, not := range []string{"ping_pong", "evio", "memory-idle.svg", "LOST to c"} {
		if strings.Contains(text, not) {
			t.Errorf("the report has %q, which was not measured", not)
		}
	}
	if plots := res.Plots(); len(plots) != 0 {
		t.Errorf("there are plots of single points: %+v", plots)
	}
}

func TestPrint(t *testing.T) {
	var b bytes.Buffer
	if err := New(rows()).Print(&b, true); err != nil {
		t.Fatal(err)
	}
	contains(t, b.String(), "work/chained_spawn", "600", "400  0.69 (2/2)", "LOST to tokio: 3.50 (2/2)", "gnet failed in round 1: hung up")
}

// A form of the library that does less work than the rivals is shown and not compared. So is a
// profile of few samples.
func TestWhatCannotBeComparedHasNoRatio(t *testing.T) {
	rows := raw.Rows{Runs: []raw.Run{{Rounds: 1}}}
	add := func(row, subject string, metrics map[string]float64) {
		rows.Samples = append(rows.Samples, raw.Sample{Row: row, Subject: subject, Metrics: metrics})
	}
	add("work/mutex_contention", "goroutines", map[string]float64{"ns": 1000})
	add("work/mutex_contention", "inside", map[string]float64{"ns": 2000})
	for subject, ns := range map[string]float64{"net": 10, "straight": 20} {
		add("profile/500", subject, map[string]float64{
			"profile_ns": ns, "profile_samples": 300, "profile_user_ns": ns, "profile_user_samples": 199, "profile_kernel_ns": ns,
		})
	}
	contains(t, string(New(rows).Markdown()), "| inside | 2.00 |  |  |", "| straight | 20.0 | 2.00 (1/1) | **LOST** to net: 2.00 (1/1) | 20.0 |  |  | 20.0 |  |  | 199 |")
}

// A rival whose figure is 0 has won.
func TestARatioToZeroIsALoss(t *testing.T) {
	rows := raw.Rows{Runs: []raw.Run{{Rounds: 1}}}
	for subject, futex := range map[string]float64{"net": 0, "straight": 0.5} {
		rows.Samples = append(rows.Samples, raw.Sample{Row: "counts/500", Subject: subject, Metrics: map[string]float64{"syscalls": 4, "futex": futex}})
	}
	contains(t, string(New(rows).Markdown()), "| straight | 4.00 | 1.00 (1/1) | net: 1.00 (1/1) | 0.50 | ∞ (1/1) | **LOST** to net: ∞ (1/1) |")
}

func TestPlots(t *testing.T) {
	rows := rows()
	for _, load := range []struct {
		row  string
		rate float64
	}{{"echo/500/64", 500}, {"echo/5000/64", 5000}} {
		for round := range 2 {
			rows.Samples = append(rows.Samples, raw.Sample{Row: load.row, Subject: "straight", Round: round, Metrics: map[string]float64{
				"cpu_us": 30 + float64(round), "p99_us": 100, "requests_s": load.rate,
			}})
		}
	}
	plots := New(rows).Plots()
	if len(plots) != 2 || len(plots[0].Series) != 1 {
		t.Fatalf("want the CPU and the p99 of one subject against load, got %+v", plots)
	}
	s := plots[0].Series[0]
	first, last := s.Points[0], s.Points[2]
	if !s.Ours || first.X != 500 || first.Y != 30.5 || first.Min != 30 || first.Max != 31 || last.X != 45_000 {
		t.Errorf("the series is %+v", s)
	}
}

// The plot of a row has the best rival, also if this rival is not one of the subjects that are in
// every plot.
func TestPlotsHaveTheBestRival(t *testing.T) {
	rows := rows()
	for row, rate := range map[string]float64{"echo/500/64": 500, "echo/closed/64": 90_000} {
		rows.Samples = append(rows.Samples, raw.Sample{Row: row, Subject: "evio", Metrics: map[string]float64{"cpu_us": 1, "requests_s": rate}})
	}
	plots := New(rows).Plots()
	if len(plots) != 1 || plots[0].Series[0].Name != "evio" || len(plots[0].Series[0].Points) != 2 {
		t.Errorf("want the line of evio, got %+v", plots)
	}
}

func TestNumbers(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0.00", 0.126: "0.13", 9.994: "9.99", 9.996: "10.0", 99.94: "99.9", 99.96: "100", 999.4: "999", 1234.5: "1,235", 1234567: "1,234,567", -4321: "-4,321",
	} {
		if got := number(x); got != want {
			t.Errorf("number(%v) = %q, want %q", x, got, want)
		}
	}
}
