package async

import "time"

// takeCoroutine returns a coroutine without a task: the coroutine that became free last, whose
// stack is most likely in the cache, or a new coroutine.
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

// freeCoroutine keeps co, whose task has ended, for the next task.
func (w *worker) freeCoroutine(co *coroutine) {
	w.counts[countFree]++
	co.free, w.freeCoroutines = w.freeCoroutines, co
}

// Free coroutines that are left from a burst of tasks are ended. leastFree is the smallest number
// of free coroutines in the last trimEvery: so many coroutines were not needed in that time. All of
// them above keepFree are ended.
//
// Refused: to end a coroutine at the moment when it becomes free and there are many. A program that
// starts and ends thousands of tasks again and again would then make its coroutines anew each time.
const (
	keepFree   = 256         // free coroutines that are never ended
	trimEvery  = time.Second // how long a coroutine must not be needed
	trimAtOnce = 64          // how many are ended in one turn, so that tasks do not wait long
)

// trim ends free coroutines that no task has needed, and reports whether there are more to end. It
// is called in each turn in which there are more than keepFree.
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
