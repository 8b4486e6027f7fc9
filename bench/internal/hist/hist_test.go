package hist

import (
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

// The naive model is a sorted slice.
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
		want := float64(all[int(q*float64(len(all)-1))])
		if got := float64(h.Quantile(q)); got < want || got > want*1.008+1 {
			t.Errorf("quantile %v: got %v, want %v to 0.8 %% more", q, got, want)
		}
	}
	if h.Max() != all[len(all)-1] || h.Count() != uint64(len(all)) {
		t.Errorf("max %d, count %d", h.Max(), h.Count())
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
