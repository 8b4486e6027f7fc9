package async

import "time"

// takeCoroutine returns a free coroutine.
func (w *worker) takeCoroutine() *coroutine {
	co := w.freeCoroutines
	if co == nil {
		w.counts[countCoroutines]++
		w.leastFree = 0
		return newCoroutine(w)
	}
	w.counts[countFree]--
	w.leastFree = min(w.leastFree, w.counts[countFree])
	w.freeCoroutines, co.free = co.free, nil
	return co
}

func (w *worker) freeCoroutine(co *coroutine) {
	w.counts[countFree]++
	co.free, w.freeCoroutines = w.freeCoroutines, co
}

// Free coroutines that a burst has left behind are ended: all above keepFree that
// no task has needed for trimEvery, at most trimAtOnce in a turn. This is done by time,
// and not when a coroutine becomes free, so that a program that starts and ends
// thousands of tasks again and again keeps the coroutines that it needs.
const (
	keepFree   = 256
	trimEvery  = time.Second
	trimAtOnce = 64
)

// trim ends free coroutines that no task needs, and reports whether there are more.
func (w *worker) trim(now int64) (more bool) {
	if now-w.trimmedAt >= int64(trimEvery) {
		w.surplus = max(w.leastFree, keepFree) - keepFree
		w.leastFree, w.trimmedAt = w.counts[countFree], now
	}
	for n := 0; w.surplus > 0 && w.counts[countFree] > keepFree; n++ {
		if n == trimAtOnce {
			return true
		}
		co := w.freeCoroutines
		w.freeCoroutines, co.free = co.free, nil
		w.surplus--
		w.counts[countFree]--
		w.counts[countCoroutines]--
		w.leastFree = min(w.leastFree, w.counts[countFree])
		co.unwind()
	}
	w.surplus = 0
	return false
}
