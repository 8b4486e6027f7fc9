package stats

import (
	"math"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		xs   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{3, 1}, 2},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := Median(test.xs); got != test.want {
			t.Errorf("Median(%v) = %v, want %v", test.xs, got, test.want)
		}
	}
}

func TestMedianLeavesItsArgumentAlone(t *testing.T) {
	xs := []float64{3, 1, 2}
	Median(xs)
	if xs[0] != 3 || xs[1] != 1 || xs[2] != 2 {
		t.Errorf("the argument has become %v", xs)
	}
}

// If the machine is three times slower in round 1, the medians of both series change, and the ratio
// does not.
func TestPairedCancelsSlowRounds(t *testing.T) {
	base := Series{0: 10, 1: 30, 2: 10}
	mine := Series{0: 5, 1: 15, 2: 6}
	got, ok := Paired(mine, base)
	want := Ratio{Median: 0.5, Held: 3, Rounds: 3}
	if !ok || got != want {
		t.Errorf("got %+v, %v; want %+v", got, ok, want)
	}
}

func TestPairedCountsTheRoundsThatHold(t *testing.T) {
	base := Series{0: 1, 1: 1, 2: 1, 3: 1, 4: 1}
	mine := Series{0: 2, 1: 0.5, 2: 3, 3: 1.5, 4: 1}
	got, ok := Paired(mine, base)
	if !ok || got.Median != 1.5 || got.Held != 3 || got.Rounds != 5 {
		t.Errorf("got %+v, %v", got, ok)
	}
	equal, _ := Paired(base, base)
	if equal.Median != 1 || equal.Held != 5 {
		t.Errorf("equal series: %+v", equal)
	}
}

// A rival whose measurement is 0 has won the round.
func TestPairedCountsRoundsInWhichTheBaseIsZero(t *testing.T) {
	got, ok := Paired(Series{0: 1, 1: 2, 2: 3}, Series{0: 0, 1: 0, 2: 6})
	if !ok || !math.IsInf(got.Median, 1) || got.Held != 2 || got.Rounds != 3 {
		t.Errorf("got %+v, %v", got, ok)
	}
	got, ok = Paired(Series{0: 0, 1: 0}, Series{0: 0, 1: 0})
	if !ok || got.Median != 1 || got.Held != 2 {
		t.Errorf("both need nothing: %+v, %v", got, ok)
	}
}

func TestPairedNeedsACommonRound(t *testing.T) {
	if r, ok := Paired(Series{0: 1}, Series{1: 1}); ok {
		t.Errorf("no round in common, and a ratio: %+v", r)
	}
	got, ok := Paired(Series{0: 1, 1: 4, 7: 3}, Series{1: 2, 7: 1, 9: 5})
	if !ok || got.Rounds != 2 || got.Median != 2.5 {
		t.Errorf("got %+v, %v", got, ok)
	}
}
