package main

import (
	"errors"
	"image/color"
	"math"
	"os"
	"slices"
	"strconv"

	"example.com/async/bench/internal/report"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	width       = 9 * vg.Inch
	height      = 5 * vg.Inch
	legendWidth = 1.4 * vg.Inch
	margin      = vg.Length(8)
)

// drawTo writes a plot as an SVG file.
func drawTo(name string, p report.Plot) (err error) {
	drawn, err := newPlot(p)
	if err != nil {
		return err
	}
	canvas := vgsvg.New(width, height)
	whole := draw.Crop(draw.New(canvas), margin, -margin, margin, -margin)
	drawn.Draw(draw.Crop(whole, 0, -legendWidth, 0, 0))
	drawLegend(p, draw.Crop(whole, width-legendWidth-margin, 0, 0, -vg.Points(24)))
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = canvas.WriteTo(f)
	return err
}

func newPlot(p report.Plot) (*plot.Plot, error) {
	drawn := plot.New()
	drawn.Title.Text = p.Title
	drawn.Title.TextStyle.Font.Variant, drawn.Title.TextStyle.Font.Size = "Sans", 13
	drawn.X.Label.Text, drawn.Y.Label.Text = p.X, p.Y
	for _, axis := range []*plot.Axis{&drawn.X, &drawn.Y} {
		axis.Label.TextStyle.Font.Variant, axis.Label.TextStyle.Font.Size = "Sans", 11
		axis.Tick.Label.Font.Variant, axis.Tick.Label.Font.Size = "Sans", 10
	}
	drawn.Add(plotter.NewGrid())
	for i, s := range p.Series {
		points := points(s)
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.LineStyle = style(p, i)
		bars, err := plotter.NewYErrorBars(points)
		if err != nil {
			return nil, err
		}
		bars.Color, bars.Width = line.Color, vg.Points(0.5)
		drawn.Add(line, bars)
	}
	drawn.X.Tick.Marker, drawn.Y.Tick.Marker = plainTicks{plot.DefaultTicks{}}, plainTicks{plot.DefaultTicks{}}
	if p.Names != nil {
		drawn.NominalX(p.Names...)
	}
	if p.LogX {
		logarithmic(&drawn.X)
	}
	if p.LogY {
		logarithmic(&drawn.Y)
	} else {
		drawn.Y.Min = 0
	}
	return drawn, nil
}

func logarithmic(axis *plot.Axis) {
	axis.Scale = plot.LogScale{}
	axis.Tick.Marker = plainTicks{logTicks{}}
}

// logTicks marks 1, 2 and 5 times each power of ten. On an axis of more than three powers of ten it
// labels only the powers of ten.
type logTicks struct{}

func (logTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	wide := high > 1000*low
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= high; power *= 10 {
		for _, v := range []float64{power, 2 * power, 5 * power} {
			if v < low || v > high {
				continue
			}
			tick := plot.Tick{Value: v}
			if !wide || v == power {
				tick.Label = "labelled" // plainTicks replaces the label by the number
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

// plainTicks writes the labels of another Ticker as numbers without an exponent.
type plainTicks struct{ plot.Ticker }

func (t plainTicks) Ticks(low, high float64) []plot.Tick {
	ticks := t.Ticker.Ticks(low, high)
	for i, tick := range ticks {
		if tick.Label != "" {
			ticks[i].Label = strconv.FormatFloat(math.Round(tick.Value*1e6)/1e6, 'f', -1, 64)
		}
	}
	return ticks
}

// measured has points with error bars.
type measured struct {
	plotter.XYs
	plotter.YErrors
}

func points(s report.Series) measured {
	var m measured
	for _, p := range s.Points {
		m.XYs = append(m.XYs, plotter.XY{X: p.X, Y: p.Y})
		m.YErrors = append(m.YErrors, struct{ Low, High float64 }{p.Y - p.Min, p.Max - p.Y})
	}
	return m
}

// The colors of the forms of the library and of the other subjects, by their order in a plot.
var (
	oursColors = []color.Color{
		color.RGBA{0xd6, 0x27, 0x28, 0xff}, color.RGBA{0x1f, 0x77, 0xb4, 0xff}, color.RGBA{0x2c, 0xa0, 0x2c, 0xff}, color.RGBA{0x94, 0x67, 0xbd, 0xff},
	}
	otherColors = []color.Color{
		color.RGBA{0x00, 0x00, 0x00, 0xff}, color.RGBA{0xff, 0x7f, 0x0e, 0xff}, color.RGBA{0x8c, 0x56, 0x4b, 0xff}, color.RGBA{0x17, 0xbe, 0xcf, 0xff},
		color.RGBA{0xe3, 0x77, 0xc2, 0xff}, color.RGBA{0xbc, 0xbd, 0x22, 0xff}, color.RGBA{0x7f, 0x7f, 0x7f, 0xff}, color.RGBA{0x39, 0x3b, 0x79, 0xff},
		color.RGBA{0xb8, 0x86, 0x0b, 0xff}, color.RGBA{0x00, 0x64, 0x00, 0xff}, color.RGBA{0xff, 0x14, 0x93, 0xff}, color.RGBA{0x46, 0x82, 0xb4, 0xff},
	}
)

// style returns the style of the line of series i of p. A form of the library has a thick line, and
// a loop without a library has a dashed line.
func style(p report.Plot, i int) draw.LineStyle {
	s := p.Series[i]
	same := func(t report.Series) bool { return t.Ours == s.Ours }
	n := len(slices.DeleteFunc(slices.Clone(p.Series[:i]), func(t report.Series) bool { return !same(t) }))
	switch {
	case s.Ours:
		return draw.LineStyle{Color: oursColors[n%len(oursColors)], Width: vg.Points(2.5)}
	case s.Floor:
		return draw.LineStyle{Color: otherColors[n%len(otherColors)], Width: vg.Points(1.2), Dashes: []vg.Length{vg.Points(5), vg.Points(3)}}
	}
	return draw.LineStyle{Color: otherColors[n%len(otherColors)], Width: vg.Points(1.2)}
}

// drawLegend draws the legend beside the plot, where it covers no line. The entries are in the
// order of the last points of the lines, from the top.
func drawLegend(p report.Plot, c draw.Canvas) {
	order := make([]int, len(p.Series))
	for i := range order {
		order[i] = i
	}
	last := func(i int) float64 { return p.Series[i].Points[len(p.Series[i].Points)-1].Y }
	slices.SortFunc(order, func(a, b int) int {
		if last(a) > last(b) {
			return -1
		}
		return 1
	})
	legend := plot.NewLegend()
	legend.Top, legend.Left = true, true
	legend.TextStyle.Font.Variant, legend.TextStyle.Font.Size = "Sans", 10
	legend.Padding = vg.Points(2)
	for _, i := range order {
		legend.Add(p.Series[i].Name, &plotter.Line{LineStyle: style(p, i)})
	}
	legend.Draw(c)
}
