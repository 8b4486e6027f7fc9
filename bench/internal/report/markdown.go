package report

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.com/async/bench/internal/proc"
	"example.com/async/bench/internal/raw"
	"example.com/async/bench/internal/stats"
	"example.com/async/bench/internal/suite"
)

// Write writes RESULTS.md and its plots into a directory, from files of raw rows. The
// working directory must be that of the module.
func Write(ctx context.Context, dir string, files []string) error {
	rows, err := raw.ReadFiles(files...)
	if err != nil {
		return err
	}
	res := collect(rows)
	res.files = files
	plots := res.plots()
	if err := os.MkdirAll(filepath.Join(dir, "plots"), 0o777); err != nil {
		return fmt.Errorf("making the directory of the plots: %w", err)
	}
	data := filepath.Join(dir, "plots", "plots.json")
	encoded, err := json.Marshal(plots)
	if err != nil {
		return err
	}
	if err := os.WriteFile(data, encoded, 0o666); err != nil {
		return fmt.Errorf("writing the data of the plots: %w", err)
	}
	defer os.Remove(data)
	if _, _, err := proc.Run(ctx, "go", []string{"run", "./cmd/plots", data, filepath.Join(dir, "plots")}); err != nil {
		return fmt.Errorf("drawing the plots: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "RESULTS.md"), res.markdown(), 0o666); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// markdown returns the report.
func (res results) markdown() []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, `# Results

This file is written by `+"`go run . report`"+` from raw rows; no figure in it was entered by hand. README.md says how to measure again.

**How to read it.** Absolute figures change from machine to machine and from run to run. What can be compared are ratios of measurements of the same round, in
which the subjects follow each other at once: "0.80 (9/10)" is the median of these ratios, which lay below 1 in 9 of 10 rounds. Less is better for every figure but
requests/s. A row that the library has lost is marked LOST: the best rival (the baseline included, loops without a library not included) was ahead by the median and in more than half of the
rounds.

**The generator and the server share the processors of the machine.** A server that uses less CPU time also leaves more to the generator; so the rates of the closed loop and the latencies under load
depend on both. CPU time per request is the server's alone. The lag is how late the generator itself was, which the latencies contain.

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

func (res results) writeRuns(b *bytes.Buffer) {
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

func (res results) writePlots(b *bytes.Buffer) {
	plots := res.plots()
	if len(plots) == 0 {
		return
	}
	b.WriteString("## Plots\n\nMedians, with bars from the smallest to the largest measurement. Thick lines are the library, dashed ones loops without a library. The tables have further subjects.\n\n")
	for _, p := range plots {
		fmt.Fprintf(b, "![%s](plots/%s.svg)\n\n", p.Title, p.File)
	}
}

// writeSummary has a line for each row: the best rival, and each form of the library
// against it.
func (res results) writeSummary(b *bytes.Buffer) {
	b.WriteString("## All rows: the library against the best rival\n\n")
	for _, section := range suite.Sections {
		lines := [][]string{{"row", "", "best rival", "", "forms of the library, as ratios to it"}}
		for _, r := range res.rows() {
			if r.Section != section {
				continue
			}
			for _, m := range headline(r) {
				if line := res.summaryLine(r, m); line != nil {
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

func (res results) summaryLine(r suite.Row, m suite.Metric) []string {
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

func (res results) writeSection(b *bytes.Buffer, section string) {
	begun := false
	for _, r := range res.rows() {
		if r.Section != section {
			continue
		}
		if !begun {
			begun = true
			fmt.Fprintf(b, "## %s\n\n", section)
		}
		fmt.Fprintf(b, "### %s\n\n`go run . -rows '^%s$'`\n\n", r.Title, r.Name)
		lines := res.table(r)
		for _, line := range lines[1:] {
			for i, cell := range line {
				line[i] = strings.Replace(cell, "LOST", "**LOST**", 1)
			}
		}
		writeTable(b, lines)
	}
}

// writeTable writes a table whose first line is its heading. Numbers are aligned to the
// right.
func writeTable(b *bytes.Buffer, lines [][]string) {
	for i, line := range lines {
		b.WriteString("| " + strings.Join(line, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(line)) + "\n")
		}
	}
	b.WriteByte('\n')
}

func (res results) writeSubjects(b *bytes.Buffer) {
	b.WriteString("## Subjects and their configuration\n\nA rival that is tuned wrongly is a defect of this benchmark.\n\n")
	lines := [][]string{{"subject", "what it is", "why it is configured so"}}
	for _, s := range suite.Subjects {
		for k := range res.samples {
			if k.subject == s.Name {
				lines = append(lines, []string{s.Name, s.What, s.Config})
				break
			}
		}
	}
	writeTable(b, lines)
}

// disturbed is from when on other processes are said to have disturbed a sample, in
// percent of one processor.
const disturbed = 15

func (res results) writeDisturbances(b *bytes.Buffer) {
	b.WriteString("## Failures and disturbances\n\n")
	if len(res.failures) == 0 {
		b.WriteString("No measurement failed. Every echoed byte was compared with what was sent.\n\n")
	}
	for _, f := range res.failures {
		fmt.Fprintf(b, "- %s of %s failed in round %d: %s\n", f.Row, f.Subject, f.Round+1, oneLine(f.Error))
	}
	var others, stolen []float64
	n := 0
	for _, samples := range res.samples {
		for _, s := range samples {
			others, stolen = append(others, s.Metrics["other_cpu_pct"]), append(stolen, s.Metrics["stolen_pct"])
			if s.Metrics["other_cpu_pct"] > disturbed {
				n++
			}
		}
	}
	if len(others) > 0 {
		fmt.Fprintf(b, "Processes that have no part in a measurement used %s %% of one processor in the median measurement and %s %% at most; more than %d %% in %s of %s. The hypervisor took %s %% at most.\n",
			number(stats.Median(others)), number(slices.Max(others)), disturbed, thousands(int64(n)), thousands(int64(len(others))), number(slices.Max(stolen)))
	}
}
