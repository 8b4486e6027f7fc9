package report

import (
	"slices"
	"strconv"

	"example.com/async/bench/internal/stats"
	"example.com/async/bench/internal/suite"
)

// A Plot is a set of lines over common axes.
type Plot struct {
	File   string // base name of the SVG file
	Title  string
	X, Y   string // titles of the axes
	LogX   bool
	LogY   bool
	Names  []string // if not nil, the labels of the values 0, 1, 2 and so on of X
	Series []Series
}

// A Series is one line.
type Series struct {
	Name   string
	Ours   bool // drawn thick and not dashed; other series are drawn thin
	Floor  bool // drawn dashed
	Points []Point
}

// A Point has a value Y, which is a median, and the smallest and the largest measured value.
type Point struct{ X, Y, Min, Max float64 }

// plotted has the subjects that each plot shows in addition to the best rival of each row. More
// lines would be hard to distinguish.
var plotted = []string{
	"net", "net-gosched", "goroutines", "straight", "future", "serve", "netconn",
	"netpoll-inline", "gnet", "tokio", "async-std", "smol", "c", "sketch-locked",
}

// Plots returns the plots for which there are samples.
func (res Results) Plots() []Plot {
	cpu, p99 := suite.Metric{Key: "cpu_us", Scale: 1}, suite.Metric{Key: "p99_us", Scale: 1}
	all := []Plot{
		res.loadPlot("cpu-load", "CPU time per request against load, 64 connections", "CPU µs per request, server", cpu),
		res.loadPlot("p99-load", "99th percentile of the latency against load, 64 connections", "p99 µs", p99),
		res.linePlot(Plot{File: "memory-idle", Title: "Memory against idle connections", X: "idle connections, each used twice", Y: "RSS of the server in MiB, after a collection"},
			suite.Metric{Key: "rss_bytes", Scale: 1. / (1 << 20)},
			func(r suite.Row) (float64, bool) { return float64(r.Conns), r.Kind == suite.Idle }),
		res.linePlot(Plot{File: "cost-tasks", Title: "Cost per task: spawned by a task, yields once, ends", X: "tasks", Y: "ns per task", LogX: true, LogY: true},
			suite.Metric{Key: "ns", Scale: 1},
			func(r suite.Row) (float64, bool) { return float64(r.ByCost()), r.ByCost() > 0 }),
		res.besidePlot(p99),
	}
	return slices.DeleteFunc(all, func(p Plot) bool { return len(p.Series) == 0 })
}

// linePlot adds a point to p for each row for which the function at returns a place on the x axis.
func (res Results) linePlot(p Plot, m suite.Metric, at func(suite.Row) (float64, bool)) Plot {
	return res.fill(p, m, func(r suite.Row, _ string) (float64, bool) { return at(r) })
}

// besidePlot returns a plot over the number of CPU-bound tasks. The numbers have equal distances.
func (res Results) besidePlot(m suite.Metric) Plot {
	p := Plot{
		File: "latency-beside", Title: "An event beside CPU-bound tasks of the same runtime, which run in slices of 100 µs",
		X: "CPU-bound tasks", Y: "p99 µs, 500 requests/s on 8 connections", LogY: true,
	}
	place := make(map[int]float64)
	for _, r := range res.rows() {
		if r.Section == suite.BesideSection {
			place[r.Busy] = float64(len(p.Names))
			p.Names = append(p.Names, strconv.Itoa(r.Busy))
		}
	}
	return res.linePlot(p, m, func(r suite.Row) (float64, bool) {
		return place[r.Busy], r.Section == suite.BesideSection
	})
}

// loadPlot returns a plot over the rate that was reached. In the closed loop each server has a rate
// of its own.
func (res Results) loadPlot(file, title, y string, m suite.Metric) Plot {
	p := Plot{File: file, Title: title, X: "requests per second; the last point is the closed loop", Y: y, LogX: true, LogY: true}
	return res.fill(p, m, func(r suite.Row, subject string) (float64, bool) {
		if r.Section != suite.EchoSection || r.Conns != 64 {
			return 0, false
		}
		reached := res.series(r.Name, subject, suite.Metric{Key: "requests_s", Scale: 1}).Values()
		if len(reached) == 0 {
			return 0, false
		}
		return stats.Median(reached), true
	})
}

func (res Results) fill(p Plot, m suite.Metric, at func(r suite.Row, subject string) (float64, bool)) Plot {
	names := slices.Clone(plotted)
	for _, r := range res.rows() {
		best := res.bestRival(r, m)
		if _, ok := at(r, best); ok && best != "" && !slices.Contains(names, best) {
			names = append(names, best)
		}
	}
	for _, name := range names {
		group := suite.SubjectNamed(name).Group
		series := Series{Name: name, Ours: group == suite.Ours, Floor: group == suite.Floor}
		for _, r := range res.rows() {
			x, ok := at(r, name)
			values := res.series(r.Name, name, m).Values()
			if !ok || len(values) == 0 {
				continue
			}
			series.Points = append(series.Points, Point{X: x, Y: stats.Median(values), Min: slices.Min(values), Max: slices.Max(values)})
		}
		if len(series.Points) > 1 {
			slices.SortFunc(series.Points, func(a, b Point) int {
				if a.X < b.X {
					return -1
				}
				return 1
			})
			p.Series = append(p.Series, series)
		}
	}
	return p
}
