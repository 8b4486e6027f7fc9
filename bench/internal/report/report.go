// Package report makes tables and plots from raw rows. All figures come from these rows.
package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"example.com/async/bench/internal/raw"
	"example.com/async/bench/internal/stats"
	"example.com/async/bench/internal/suite"
)

// Results has the samples by row and subject.
type Results struct {
	files    []string // the files from which the samples were read
	runs     []raw.Run
	samples  map[key][]raw.Sample
	failed   map[key]int // the number of measurements that failed
	failures []raw.Sample
}

type key struct{ row, subject string }

// Load reads files of raw rows.
func Load(files ...string) (Results, error) {
	rows, err := raw.ReadFiles(files...)
	if err != nil {
		return Results{}, err
	}
	res := New(rows)
	res.files = files
	return res, nil
}

// New returns the results of raw rows.
func New(rows raw.Rows) Results {
	res := Results{runs: rows.Runs, samples: make(map[key][]raw.Sample), failed: make(map[key]int)}
	for _, s := range rows.Samples {
		k := key{s.Row, s.Subject}
		if s.Error != "" {
			res.failed[k]++
			res.failures = append(res.failures, s)
		} else {
			res.samples[k] = append(res.samples[k], s)
		}
	}
	return res
}

// series returns the measurements of one metric.
func (res Results) series(row, subject string, m suite.Metric) stats.Series {
	series := stats.Series{}
	for _, s := range res.samples[key{row, subject}] {
		if v, ok := s.Metrics[m.Key]; ok {
			series[s.Round] = v * m.Scale
		}
	}
	return series
}

// measured returns the row with only the subjects for which a measurement succeeded or failed, in
// the order of suite.Subjects.
func (res Results) measured(r suite.Row) suite.Row {
	var names []string
	for _, s := range suite.Subjects {
		if k := (key{r.Name, s.Name}); slices.Contains(r.Subjects, s.Name) && len(res.samples[k])+res.failed[k] > 0 {
			names = append(names, s.Name)
		}
	}
	r.Subjects = names
	return r
}

// rows returns the rows that have at least one measurement.
func (res Results) rows() []suite.Row {
	var rows []suite.Row
	for _, r := range suite.Rows {
		if r = res.measured(r); len(r.Subjects) > 0 {
			rows = append(rows, r)
		}
	}
	return rows
}

// leastSamples is the least number of samples of a profile, in all rounds together, for a
// comparison. With this number a figure has an error of about 7 %.
const leastSamples = 200

// ratio returns the ratio of a subject to base. A smaller ratio is better, also for metrics of
// which more is better. The second result is false if the subjects cannot be compared.
func (res Results) ratio(r suite.Row, m suite.Metric, subject, base string) (stats.Ratio, bool) {
	if suite.SubjectNamed(subject).Group == suite.Aside {
		return stats.Ratio{}, false
	}
	mine, other := res.series(r.Name, subject, m), res.series(r.Name, base, m)
	if m.Samples != "" {
		for _, name := range []string{subject, base} {
			taken := 0.
			for _, n := range res.series(r.Name, name, suite.Metric{Key: m.Samples, Scale: 1}) {
				taken += n
			}
			if taken < leastSamples {
				return stats.Ratio{}, false
			}
		}
	}
	if m.More {
		mine, other = other, mine
	}
	return stats.Paired(mine, other)
}

// bestRival returns the rival or baseline with the best median, or "" if there is none.
func (res Results) bestRival(r suite.Row, m suite.Metric) string {
	best, bestMedian := "", math.Inf(1)
	for _, name := range r.Subjects {
		if group := suite.SubjectNamed(name).Group; group != suite.Rival && group != suite.Baseline {
			continue
		}
		values := res.series(r.Name, name, m).Values()
		if len(values) == 0 {
			continue
		}
		median := stats.Median(values)
		if m.More {
			median = -median
		}
		if median < bestMedian {
			best, bestMedian = name, median
		}
	}
	return best
}

// lost reports whether a ratio shows that a subject has lost: the median is above 1, and so is the
// ratio of more than half of the rounds.
func lost(r stats.Ratio) bool { return r.Median > 1 && 2*r.Held > r.Rounds }

// verdict compares a form of the library with the best rival: for example "LOST to NAME: 1.20
// (9/10)" or "NAME: 0.80 (10/10)". For other subjects it returns "".
func (res Results) verdict(r suite.Row, m suite.Metric, subject string) string {
	if suite.SubjectNamed(subject).Group != suite.Ours {
		return ""
	}
	best := res.bestRival(r, m)
	if best == "" {
		return ""
	}
	ratio, ok := res.ratio(r, m, subject, best)
	if !ok {
		return ""
	}
	if lost(ratio) {
		return fmt.Sprintf("LOST to %s: %s", best, ratioText(ratio))
	}
	return fmt.Sprintf("%s: %s", best, ratioText(ratio))
}

// ratioText returns a ratio as text, with the number of rounds in which the ratio was on the same
// side of 1.
func ratioText(r stats.Ratio) string {
	digits := 2
	if r.Median < 0.1 {
		digits = 3
	}
	median := strconv.FormatFloat(r.Median, 'f', digits, 64)
	if math.IsInf(r.Median, 1) {
		median = "∞"
	}
	return fmt.Sprintf("%s (%d/%d)", median, r.Held, r.Rounds)
}

// median returns the median of a metric as text, or "-" if the metric was not measured.
func (res Results) median(row, subject string, m suite.Metric) string {
	values := res.series(row, subject, m).Values()
	if len(values) == 0 {
		return "-"
	}
	return number(stats.Median(values))
}

// figure returns the median of a metric as text, with the smallest and the largest value: a median
// alone does not show that a subject has two modes.
func (res Results) figure(row, subject string, m suite.Metric) string {
	median, values := res.median(row, subject, m), res.series(row, subject, m).Values()
	if len(values) < 2 {
		return median
	}
	low, high := number(slices.Min(values)), number(slices.Max(values))
	if low == high {
		return median
	}
	return median + " (" + low + " to " + high + ")"
}

// number returns x with three significant digits, or with all digits before the decimal point if
// there are more.
func number(x float64) string {
	switch a := math.Abs(x); {
	case a >= 1000:
		return thousands(int64(math.Round(x)))
	case a >= 99.95:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(x, 'f', 1, 64)
	default:
		return strconv.FormatFloat(x, 'f', 2, 64)
	}
}

// thousands returns n with commas between groups of three digits.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}
