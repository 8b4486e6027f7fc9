package report

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"example.com/async/bench/internal/raw"
	"example.com/async/bench/internal/stats"
	"example.com/async/bench/internal/suite"
)

// Markdown returns the report as Markdown.
func (res Results) Markdown() []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, `# Results

This file is written by `+"`go run ./cmd/report`"+` from raw rows; no figure in it was entered by hand. README.md says how to measure again.

**How to read it.** A figure is the median of the rounds, with the smallest and the largest in brackets; "-" stands where it was not measured, or where a quantile has fewer than 10
requests above it. Absolute figures change from machine to machine and from run to run. What can be compared are ratios of measurements of the same round, in which the subjects of a row are
measured one after the other, in an order that is drawn anew: "0.80 (9/10)" is the median of these ratios, which lay below 1 in 9 of 10 rounds. Two subjects are measured seconds to minutes apart, so
a disturbance can meet one of them alone. Less is better for every figure but requests/s, whose ratios are turned round. Each figure with a column "× best rival" is judged, others are not; nor is a profile of fewer than 200 samples. What the
library has lost is marked LOST: the best rival by the median (the baseline included, loops without a library not included) was ahead by the median of the ratios and in more than half of the rounds.

**The generator and the server share the processors of the machine.** A server that uses less CPU time also leaves more to the generator; so the rates of the closed loop and the latencies under load
depend on both. CPU time per request is the server's alone. In the open loop a latency (p50, p99) is counted from the time at which the request was due. It contains the lag, which is how late
the generator itself was; the service time does not contain it, and is counted from the time at which the request was sent.

`)
	res.writeRuns(&b)
	res.writePlots(&b)
	res.writeSummary(&b)
	for _, section := range suite.Sections {
		res.writeSection(&b, section)
	}
	res.writeSubjects(&b)
	res.writeDisturbances(&b)
	return b.Bytes()
}

func (res Results) writeRuns(b *bytes.Buffer) {
	b.WriteString("## Machine, versions, commands\n\n")
	for _, run := range res.runs {
		fmt.Fprintf(b, "- `%s`, begun %s; rounds: %d, seconds per measurement: %g, workers: %d\n", run.Command, run.Started, run.Rounds, run.Seconds, run.Workers)
		fmt.Fprintf(b, "  - machine: %s\n", pairs(run.Machine))
		fmt.Fprintf(b, "  - versions: %s\n", pairs(run.Versions))
		for _, what := range slices.Sorted(maps.Keys(run.LeftOut)) {
			fmt.Fprintf(b, "  - left out: %s (%s)\n", what, oneLine(run.LeftOut[what]))
		}
	}
	for _, name := range res.files {
		fmt.Fprintf(b, "- raw rows: `%s`\n", filepath.Base(name))
	}
	b.WriteByte('\n')
}

func pairs(m map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+" "+m[k])
	}
	return strings.Join(parts, "; ")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (res Results) writePlots(b *bytes.Buffer) {
	plots := res.Plots()
	if len(plots) == 0 {
		return
	}
	b.WriteString("## Plots\n\nMedians, with bars from the smallest to the largest measurement. Thick lines are the library, dashed ones loops without a library. The tables have further subjects.\n\n")
	for _, p := range plots {
		fmt.Fprintf(b, "![%s](plots/%s.svg)\n\n", p.Title, p.File)
	}
}

// writeSummary writes a line for each row: the best rival, and the comparison of each form of the
// library with this rival.
func (res Results) writeSummary(b *bytes.Buffer) {
	b.WriteString("## All rows: the library against the best rival\n\n")
	for _, section := range suite.Sections {
		lines := [][]string{{"row", "", "best rival", "", "forms of the library, as ratios to it"}}
		for _, r := range res.rows() {
			if r.Section != section {
				continue
			}
			for i, m := range r.Metrics {
				if line := res.summaryLine(r, m); line != nil && compared(i, m) {
					lines = append(lines, line)
				}
			}
		}
		if len(lines) > 1 {
			fmt.Fprintf(b, "**%s**\n\n", section)
			writeTable(b, lines)
		}
	}
}

func (res Results) summaryLine(r suite.Row, m suite.Metric) []string {
	best := res.bestRival(r, m)
	if best == "" {
		return nil
	}
	var forms []string
	for _, name := range r.Subjects {
		if suite.SubjectNamed(name).Group != suite.Ours {
			continue
		}
		ratio, ok := res.ratio(r, m, name, best)
		if !ok {
			continue
		}
		text := name + " " + ratioText(ratio)
		if lost(ratio) {
			text = "**LOST** " + text
		}
		forms = append(forms, text)
	}
	if forms == nil {
		return nil
	}
	return []string{r.Name, m.Title, best, res.median(r.Name, best, m), strings.Join(forms, "; ")}
}

func (res Results) writeSection(b *bytes.Buffer, section string) {
	begun := false
	for _, r := range res.rows() {
		if r.Section != section {
			continue
		}
		if !begun {
			begun = true
			fmt.Fprintf(b, "## %s\n\n", section)
		}
		fmt.Fprintf(b, "### %s\n\n`%s`\n\n", r.Title, res.command(r))
		lines := res.table(r)
		for _, line := range lines[1:] {
			for i, cell := range line {
				line[i] = strings.Replace(cell, "LOST", "**LOST**", 1)
			}
		}
		writeTable(b, lines)
	}
}

// command returns the command that measures a row again with the same options.
func (res Results) command(r suite.Row) string {
	run := res.runs[0] // all runs have the same Seconds and Workers
	return fmt.Sprintf("go run . -rows '^%s$' -rounds %d -seconds %g -workers %d", r.Name, raw.Rows{Runs: res.runs}.Rounds(), run.Seconds, run.Workers)
}

// writeTable writes a table. The first line is the heading. Numbers are aligned to the right.
func writeTable(b *bytes.Buffer, lines [][]string) {
	for i, line := range lines {
		b.WriteString("| " + strings.Join(line, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(line)) + "\n")
		}
	}
	b.WriteByte('\n')
}

func (res Results) writeSubjects(b *bytes.Buffer) {
	b.WriteString("## Subjects and their configuration\n\nA rival that is tuned wrongly is a defect of this benchmark.\n\n")
	lines := [][]string{{"subject", "what it is", "why it is configured so"}}
	for _, s := range suite.Subjects {
		if slices.ContainsFunc(res.rows(), func(r suite.Row) bool { return slices.Contains(r.Subjects, s.Name) }) {
			lines = append(lines, []string{s.Name, s.What, s.Config})
		}
	}
	writeTable(b, lines)
}

// disturbed is the least CPU time of other processes, in percent of one processor, with which a
// sample is reported as disturbed.
const disturbed = 15

func (res Results) writeDisturbances(b *bytes.Buffer) {
	b.WriteString("## Failures and disturbances\n\n")
	if len(res.failures) == 0 {
		b.WriteString("No measurement failed. Every echoed byte was compared with what was sent.\n\n")
	}
	for _, f := range res.failures {
		fmt.Fprintf(b, "- %s\n", failureText(f))
	}
	if len(res.failures) > 0 {
		b.WriteByte('\n')
	}
	var others, stolen []float64
	disturbances, open, lagging := 0, 0, 0
	for _, samples := range res.samples {
		for _, s := range samples {
			others, stolen = append(others, s.Metrics["other_cpu_pct"]), append(stolen, s.Metrics["stolen_pct"])
			if s.Metrics["other_cpu_pct"] > disturbed {
				disturbances++
			}
			if lag, ok := s.Metrics["lag_p99_us"]; ok {
				open++
				if lag > s.Metrics["p99_us"]/2 {
					lagging++
				}
			}
		}
	}
	if open > 0 {
		fmt.Fprintf(b, "In %s of %s measurements in the open loop the p99 of the generator's lag exceeds half of the p99 of the latencies: there the latencies tell more of the generator than of the server.\n\n",
			thousands(int64(lagging)), thousands(int64(open)))
	}
	if len(others) > 0 {
		fmt.Fprintf(b, "Processes that have no part in a measurement used %s %% of one processor in the median measurement and %s to %s %% in all; more than %d %% in %s of %s. "+
			"The CPU time of the machine is counted in steps of 10 ms per processor, so in a short measurement it can be a few percent too high, or too low and even negative. The hypervisor took %s %% at most.\n",
			number(stats.Median(others)), number(slices.Min(others)), number(slices.Max(others)), disturbed, thousands(int64(disturbances)), thousands(int64(len(others))), number(slices.Max(stolen)))
	}
}
