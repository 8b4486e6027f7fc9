// Package plot describes the plots of the report. The program cmd/plots draws them, so that
// only it needs a charting library.
package plot

// A Plot is a set of lines over common axes.
type Plot struct {
	File   string // base name of the SVG file
	Title  string
	X, Y   string // titles of the axes
	LogX   bool
	LogY   bool
	Names  []string // if not nil, X counts these: 0 is the first of them
	Series []Series
}

// A Series is one line.
type Series struct {
	Name   string
	Ours   bool // drawn whole and thick; others are drawn thin
	Floor  bool // drawn dashed
	Points []Point
}

// A Point has its value, and the smallest and the largest that were measured.
type Point struct{ X, Y, Min, Max float64 }
