// Package stats has the statistics of the report: medians, and ratios of measurements of the same
// round.
package stats

import (
	"math"
	"slices"
)

// Median returns the middle value of xs, or the mean of the two middle values. It panics if xs is
// empty.
func Median(xs []float64) float64 {
	xs = slices.Sorted(slices.Values(xs))
	return (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
}

// Series has the measurements of one quantity, by round.
type Series map[int]float64

// Values returns the measurements in no particular order.
func (s Series) Values() []float64 {
	xs := make([]float64, 0, len(s))
	for _, x := range s {
		xs = append(xs, x)
	}
	return xs
}

// Ratio compares two series round by round.
type Ratio struct {
	Median float64 // median of the quotients of the rounds that both series have
	Held   int     // number of rounds whose quotient is on the same side of 1 as Median
	Rounds int     // number of rounds that both series have
}

// Paired divides each measurement of s by the measurement of base in the same round. If the machine
// is slow for longer than a round of the row, the quotient does not change. If the measurement of
// base is not positive, the quotient is infinite if the measurement of s is positive, and 1
// otherwise. The second result is false if no round has measurements of both.
func Paired(s, base Series) (Ratio, bool) {
	var quotients []float64
	for round, x := range s {
		b, ok := base[round]
		switch {
		case !ok:
		case b > 0:
			quotients = append(quotients, x/b)
		case x > 0:
			quotients = append(quotients, math.Inf(1))
		default:
			quotients = append(quotients, 1)
		}
	}
	if len(quotients) == 0 {
		return Ratio{}, false
	}
	r := Ratio{Median: Median(quotients), Rounds: len(quotients)}
	for _, q := range quotients {
		if (r.Median < 1 && q < 1) || (r.Median > 1 && q > 1) || (r.Median == 1 && q == 1) {
			r.Held++
		}
	}
	return r, true
}
