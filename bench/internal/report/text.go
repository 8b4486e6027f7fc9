package report

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"example.com/async/bench/internal/raw"
	"example.com/async/bench/internal/suite"
)

// Print writes a table with one line for each row and one column for each form of the library, and
// the failures. If all is set, it also writes a table for each row.
func (res Results) Print(w io.Writer, all bool) error {
	if all {
		for _, r := range res.rows() {
			if err := res.printRow(w, r); err != nil {
				return err
			}
		}
	}
	fmt.Fprint(w, "\nMedians; after them the median of the rounds' ratios to the baseline, and in how many rounds the ratio lay on that side of 1.\n"+
		"Below 1 is better than the baseline, for rates too (their ratios are turned round): goroutines for the workloads (work/), package net for the servers.\n\n")
	if err := res.printMatrix(w); err != nil {
		return err
	}
	for _, f := range res.failures {
		fmt.Fprintln(w, failureText(f))
	}
	return nil
}

func failureText(f raw.Sample) string {
	return fmt.Sprintf("%s of %s failed in round %d: %s", f.Row, f.Subject, f.Round+1, oneLine(f.Error))
}

// headline returns the metrics of a row that the first table of Print shows.
func headline(r suite.Row) []suite.Metric {
	if r.Kind != suite.Echo || r.Busy > 0 {
		return r.Metrics[:1]
	}
	return slices.DeleteFunc(slices.Clone(r.Metrics), func(m suite.Metric) bool {
		return m.Key != "cpu_us" && m.Key != "p99_us" && (m.Key != "requests_s" || r.Rate > 0)
	})
}

func (res Results) printMatrix(w io.Writer) error {
	rows := res.rows()
	var columns []string
	for _, s := range suite.Subjects {
		if s.Group == suite.Ours && slices.ContainsFunc(rows, func(r suite.Row) bool { return slices.Contains(r.Subjects, s.Name) }) {
			columns = append(columns, s.Name)
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "row\t\tbaseline\t")
	for _, name := range columns {
		fmt.Fprint(t, name, "\t")
	}
	fmt.Fprintln(t)
	for _, r := range rows {
		for _, m := range headline(r) {
			fmt.Fprintf(t, "%s\t%s\t%s\t", r.Name, m.Title, res.median(r.Name, r.Baseline, m))
			for _, name := range columns {
				fmt.Fprintf(t, "%s\t", res.matrixCell(r, m, name))
			}
			fmt.Fprintln(t)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, s := range suite.Subjects {
		if slices.Contains(columns, s.Name) || slices.ContainsFunc(rows, func(r suite.Row) bool { return r.Baseline == s.Name }) {
			fmt.Fprintf(w, "%-12s %s\n", s.Name, s.What)
		}
	}
	return nil
}

func (res Results) matrixCell(r suite.Row, m suite.Metric, subject string) string {
	if !slices.Contains(r.Subjects, subject) {
		return ""
	}
	cell := res.median(r.Name, subject, m) + res.failedText(r.Name, subject)
	if ratio, ok := res.ratio(r, m, subject, r.Baseline); ok {
		cell += "  " + ratioText(ratio)
	}
	return cell
}

func (res Results) printRow(w io.Writer, r suite.Row) error {
	fmt.Fprintf(w, "\n%s: %s\n", r.Name, r.Title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, cells := range res.table(r) {
		for _, cell := range cells {
			fmt.Fprint(t, cell, "\t")
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// table returns the table of a row, with the heading. If a form of the library has lost to a rival,
// its cell has the word LOST.
func (res Results) table(r suite.Row) [][]string {
	heading := []string{"subject"}
	for i, m := range r.Metrics {
		heading = append(heading, m.Title)
		if compared(i, m) {
			heading = append(heading, "× "+r.Baseline, "× best rival")
		}
	}
	lines := [][]string{heading}
	for _, name := range r.Subjects {
		line := []string{name + res.failedText(r.Name, name)}
		for i, m := range r.Metrics {
			line = append(line, res.figure(r.Name, name, m))
			if compared(i, m) {
				line = append(line, res.toBaseline(r, m, name), res.verdict(r, m, name))
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// failedText returns a text with the number of failed measurements of a subject, or "" if there are
// none.
func (res Results) failedText(row, subject string) string {
	k := key{row, subject}
	if res.failed[k] == 0 {
		return ""
	}
	return fmt.Sprintf(" (failed %d of %d)", res.failed[k], res.failed[k]+len(res.samples[k]))
}

// compared reports whether subjects are compared by metric i of a row.
func compared(i int, m suite.Metric) bool { return i == 0 || m.Ratio }

// toBaseline returns the ratio to the baseline as text. For the baseline itself it returns "".
func (res Results) toBaseline(r suite.Row, m suite.Metric, subject string) string {
	ratio, ok := res.ratio(r, m, subject, r.Baseline)
	if !ok || subject == r.Baseline {
		return ""
	}
	return ratioText(ratio)
}
