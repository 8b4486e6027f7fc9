// Package hist counts durations in buckets whose width grows with the duration.
package hist

import (
	"math"
	"math/bits"
)

const (
	precision = 7 // 128 buckets for each power of two
	buckets   = (64 - precision + 1) << precision
)

// A Histogram counts durations in nanoseconds. It is exact below 256 ns, and exact to 0.8 % from
// there on. Add allocates nothing. The zero Histogram is empty and ready for use.
type Histogram struct {
	count  uint64
	max    int64
	counts [buckets]uint64
}

// Add counts one duration. A negative duration counts as 0.
func (h *Histogram) Add(ns int64) {
	ns = max(ns, 0)
	h.max = max(h.max, ns)
	h.count++
	h.counts[bucketOf(uint64(ns))]++
}

// Count returns how many durations were added.
func (h *Histogram) Count() uint64 { return h.count }

// Max returns the largest duration in nanoseconds.
func (h *Histogram) Max() int64 { return h.max }

// Quantile returns the q-quantile in nanoseconds, for 0 <= q <= 1. It is the smallest duration such
// that at least the share q of all durations is not larger (nearest rank). It is rounded up to the
// top of its bucket, but is never larger than the largest duration. If h is empty, it is 0.
func (h *Histogram) Quantile(q float64) int64 {
	if h.count == 0 {
		return 0
	}
	// The subtraction corrects rounding errors: for example, 0.07*100 is slightly more than 7.
	rank := max(1, uint64(math.Ceil(q*float64(h.count)-1e-6)))
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return int64(min(bucketTop(i), uint64(h.max)))
		}
	}
	return h.max
}

// Determines reports whether at least 10 durations are above the q-quantile. With fewer durations
// the quantile is mostly chance.
func (h *Histogram) Determines(q float64) bool { return float64(h.count)*(1-q) >= 10-1e-6 }

// bucketOf returns the bucket of v. In the lowest two groups a bucket has a width of 1. Each
// further group divides one power of two into 1<<precision equal buckets.
func bucketOf(v uint64) int {
	if v < 2<<precision {
		return int(v)
	}
	shift := bits.Len64(v) - precision - 1
	return shift<<precision + int(v>>shift)
}

// bucketTop returns the largest value of bucket i.
func bucketTop(i int) uint64 {
	if i < 2<<precision {
		return uint64(i)
	}
	shift := i>>precision - 1
	return (uint64(i-shift<<precision)+1)<<shift - 1
}
