package report

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"example.com/async/bench/internal/raw"
	"example.com/async/bench/internal/suite"
)

// Print writes a table with one line for each row and one column for each form of the
// library; if all is set, also a table for each row.
func Print(w io.Writer, rows raw.Rows, all bool) error {
	res := collect(rows)
	if all {
		for _, r := range res.rows() {
			if err := res.printRow(w, r); err != nil {
				return err
			}
		}
	}
	fmt.Fprint(w, "\nMedians; after them the median of the rounds' ratios to the baseline, and in how many rounds the ratio lay on that side of 1.\n"+
		"Below 1 is better than the baseline, for rates too (their ratios are turned round): goroutines for the workloads (work/), package net for the servers.\n\n")
	return res.printMatrix(w)
}

// headline returns the metrics of a row that the matrix shows.
func headline(r suite.Row) []suite.Metric {
	if r.Kind != suite.Echo || r.Busy > 0 {
		return r.Metrics[:1]
	}
	return slices.DeleteFunc(slices.Clone(r.Metrics), func(m suite.Metric) bool {
		return m.Key != "cpu_us" && m.Key != "p99_us" && (m.Key != "requests_s" || r.Rate > 0)
	})
}

func (res results) printMatrix(w io.Writer) error {
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

func (res results) matrixCell(r suite.Row, m suite.Metric, subject string) string {
	if !slices.Contains(r.Subjects, subject) {
		return ""
	}
	cell := res.median(r.Name, subject, m)
	if ratio, ok := res.ratio(r, m, subject, r.Baseline); ok {
		cell += "  " + ratioText(ratio)
	}
	return cell
}

func (res results) printRow(w io.Writer, r suite.Row) error {
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

// table returns the table of a row, with its heading. A cell that says which rival a form of the
// library has lost to contains the word LOST.
func (res results) table(r suite.Row) [][]string {
	var heading []string
	for i, m := range r.Metrics {
		heading = append(heading, m.Title)
		if compared(i, m) {
			heading = append(heading, "spread", "× "+r.Baseline)
		}
		if i == 0 {
			heading = append(heading, "× best rival")
		}
	}
	lines := [][]string{append([]string{"subject"}, heading...)}
	for _, name := range r.Subjects {
		line := []string{name}
		for i, m := range r.Metrics {
			line = append(line, res.median(r.Name, name, m))
			if compared(i, m) {
				line = append(line, res.spread(r.Name, name, m), res.toBaseline(r, m, name))
			}
			if i == 0 {
				line = append(line, res.verdict(r, m, name))
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func compared(i int, m suite.Metric) bool { return i == 0 || m.Ratio }

// toBaseline returns the ratio to the baseline as text, "" for the baseline itself.
func (res results) toBaseline(r suite.Row, m suite.Metric, subject string) string {
	ratio, ok := res.ratio(r, m, subject, r.Baseline)
	if !ok || subject == r.Baseline {
		return ""
	}
	return ratioText(ratio)
}
