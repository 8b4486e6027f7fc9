package hist

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestBucketsTileTheRange(t *testing.T) {
	for i := range buckets - 1 {
		top := bucketTop(i)
		if bucketOf(top) != i || bucketOf(top+1) != i+1 {
			t.Fatalf("bucket %d: its top %d is in bucket %d, the next value in %d", i, top, bucketOf(top), bucketOf(top+1))
		}
	}
	if got := bucketOf(1<<64 - 1); got != buckets-1 {
		t.Fatalf("the largest value is in bucket %d of %d", got, buckets)
	}
}

// Quantiles agree with a naive model, which is a sorted slice.
func TestQuantilesAgainstSort(t *testing.T) {
	var h Histogram
	var all []int64
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		v := int64(r.ExpFloat64() * 50_000)
		all = append(all, v)
		h.Add(v)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
		want := float64(all[max(1, int(math.Round(q*float64(len(all)))))-1])
		if got := float64(h.Quantile(q)); got < want || got > want*1.008+1 {
			t.Errorf("quantile %v: got %v, want %v to 0.8 %% more", q, got, want)
		}
	}
	if h.Max() != all[len(all)-1] || h.Count() != uint64(len(all)) {
		t.Errorf("max %d, count %d", h.Max(), h.Count())
	}
}

// Of the durations 1 to n, the q-quantile by nearest rank is the ceiling of q*n.
func TestQuantilesAreByNearestRank(t *testing.T) {
	for _, test := range []struct {
		n    int64
		q    float64
		want int64
	}{{100, 0.99, 99}, {100, 0.07, 7}, {101, 0.99, 100}, {10, 0.99, 10}, {3, 0.5, 2}, {4, 0.5, 2}, {200, 0.999, 200}} {
		var h Histogram
		for ns := range test.n {
			h.Add(ns + 1)
		}
		if got := h.Quantile(test.q); got != test.want {
			t.Errorf("the %v-quantile of 1 to %d is %d, want %d", test.q, test.n, got, test.want)
		}
	}
}

func TestAQuantileNeedsTenDurationsAboveIt(t *testing.T) {
	var h Histogram
	for n := 1; n <= 1000; n++ {
		h.Add(1)
		if got, want := h.Determines(0.99), n == 1000; got != want {
			t.Fatalf("Determines(0.99) of %d durations is %v", n, got)
		}
	}
}

func TestEmptyAndNegative(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Max() != 0 {
		t.Error("an empty histogram has a quantile")
	}
	h.Add(-5)
	if h.Count() != 1 || h.Quantile(1) != 0 {
		t.Errorf("a negative duration counts as %d", h.Quantile(1))
	}
}

func TestAddAllocatesNothing(t *testing.T) {
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Add(12345) }); n != 0 {
		t.Errorf("%v allocations per Add", n)
	}
}
