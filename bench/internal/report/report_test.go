package report

import (
	"bytes"
	"strings"
	"testing"

	"example.com/async/bench/internal/raw"
)

// rows returns two rounds of one workload and one server, in which straight-line code
// has lost to tokio and won against package net.
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
	text := string(collect(rows()).markdown())
	contains(t, text,
		"`go run . -rounds 2`",
		"left out: smol (its program could not be built)",
		// 300/400 and 500/800 to goroutines; 300/100 and 500/125 to tokio.
		"| straight | 400 | 300 to 500 | 0.69 (2/2) | **LOST** to tokio: 3.50 (2/2) | 800 |",
		"| goroutines | 600 | 400 to 800 |  |  | 1,200 |",
		"| straight | 12.0 | 8.00 to 16.0 | 0.80 (2/2) | net: 0.80 (2/2) |",
		"**LOST** straight 1.38 (2/2)", // p99: 1500/1000 and 2500/2000
		"gnet failed in round 1: hung up",
		"more than 15 % in 4 of 10",
	)
}

// Where more is better, the ratio is turned round, so that less is always better.
func TestRatiosOfRatesAreTurnedRound(t *testing.T) {
	text := string(collect(rows()).markdown())
	contains(t, text, "| 45,000 | 30,000 to 60,000 | 0.83 (2/2) |")
}

func TestNothingIsPrintedThatWasNotMeasured(t *testing.T) {
	res := collect(rows())
	text := string(res.markdown())
	for _, not := range []string{"ping_pong", "evio", "memory-idle.svg", "LOST to c"} {
		if strings.Contains(text, not) {
			t.Errorf("the report has %q, which was not measured", not)
		}
	}
	if plots := res.plots(); len(plots) != 0 {
		t.Errorf("there are plots of single points: %+v", plots)
	}
}

func TestPrint(t *testing.T) {
	var b bytes.Buffer
	if err := Print(&b, rows(), true); err != nil {
		t.Fatal(err)
	}
	contains(t, b.String(), "work/chained_spawn", "600", "400  0.69 (2/2)", "LOST to tokio: 3.50 (2/2)")
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
	plots := collect(rows).plots()
	if len(plots) != 2 || len(plots[0].Series) != 1 {
		t.Fatalf("want the CPU and the p99 of one subject against load, got %+v", plots)
	}
	s := plots[0].Series[0]
	first, last := s.Points[0], s.Points[2]
	if !s.Ours || first.X != 500 || first.Y != 30.5 || first.Min != 30 || first.Max != 31 || last.X != 45_000 {
		t.Errorf("the series is %+v", s)
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
