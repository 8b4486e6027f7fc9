package async

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/google/btree"
)

// Time in this package is a count of nanoseconds since clockEpoch, monotonic.
var clockEpoch = time.Now()

// maxNanos is later than any time that matters, by far, and far enough from
// the ends of int64 to add to.
const maxNanos = int64(1) << 61 // 73 years

// nanos is for the threads of this package; other code may run in a bubble, see
// nanosHere.
func nanos() int64 { return int64(time.Since(clockEpoch)) }

// nanosAt converts t. A time without a monotonic reading (parsed, from a database,
// after Round) is taken to be as far from now as the caller's clock says at this
// moment: its distance from clockEpoch changes with every step of the wall clock.
func nanosAt(t time.Time) int64 {
	now := time.Now()
	since := int64(now.Sub(clockEpoch))
	if ofBubble(now) {
		since = nanosHere()
	}
	return clampTime(since + clampTime(int64(t.Sub(now))))
}

// timeEarlier reports whether a comes before b. Only one of them may have a monotonic
// reading.
func timeEarlier(a, b time.Time) bool { return nanosAt(a) < nanosAt(b) }

// nanosAfter returns the time d from now; now if d is negative.
func nanosAfter(d time.Duration) int64 { return nanosHere() + max(clampTime(int64(d)), 0) }

func clampTime(t int64) int64 { return min(max(t, -maxNanos), maxNanos) }

// tickAfter returns the first tick that does not end before the time at.
func tickAfter(at int64) int64 { return (at + timerTick - 1) / timerTick }

// timerTick is how finely timers are kept apart. Timers that fall in the same tick
// fire together, at its end, never before their time. 16 microseconds is less
// than the delay that the kernel adds, and few enough nodes for 100,000 timers.
const timerTick = int64(16 * time.Microsecond)

// An expirer is called by a timer. expire is called on the thread of the worker
// that keeps the timer, once, and must not block.
type expirer interface{ expire(w *worker) }

// timer is an entry of one worker's queue. All of it belongs to that worker
// while state says that it is armed.
type timer struct {
	state      atomic.Uint32
	owner      *worker
	tick       int64
	to         expirer
	prev, next *timer // of the same tick
	node       *tickNode
	dropNext   *timer // in the owner's list of dropped timers
}

const (
	timerIdle    uint32 = iota // in no queue; may be armed
	timerArmed                 // in the owner's queue
	timerDropped               // in the owner's queue, and the owner has been asked to take it out
)

// timerQueue is a worker's timers: a B-tree of ticks, each with a list of the
// timers that fire in it. It never reads the clock.
type timerQueue struct {
	tree *btree.BTreeG[*tickNode]
	last *tickNode // where the latest timer went: bursts go to the same tick
	key  tickNode  // to search with
	free *tickNode // one empty node
	n    int
}

// tickNode is all timers of one tick.
type tickNode struct {
	tick  int64
	first *timer
}

func newTimerQueue() timerQueue {
	return timerQueue{tree: btree.NewG(32, func(a, b *tickNode) bool { return a.tick < b.tick })}
}

// len returns how many timers are set.
func (q *timerQueue) len() int { return q.n }

// add makes t fire at the time at, or up to a tick later.
func (q *timerQueue) add(t *timer, at int64) {
	t.tick = tickAfter(at)
	n := q.node(t.tick)
	t.node, t.prev, t.next = n, nil, n.first
	if n.first != nil {
		n.first.prev = t
	}
	n.first = t
	q.n++
}

// node returns the node of a tick, and makes it if there is none.
func (q *timerQueue) node(tick int64) *tickNode {
	if q.last != nil && q.last.tick == tick {
		return q.last
	}
	q.key.tick = tick
	n, ok := q.tree.Get(&q.key)
	if !ok {
		if n = q.free; n == nil {
			n = new(tickNode)
		}
		q.free = nil
		n.tick = tick
		q.tree.ReplaceOrInsert(n)
	}
	q.last = n
	return n
}

// remove takes t out, which must be in the queue.
func (q *timerQueue) remove(t *timer) {
	n := t.node
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		n.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.node, t.prev, t.next = nil, nil, nil
	q.n--
	if n.first == nil {
		q.tree.Delete(n)
		if q.last == n {
			q.last = nil
		}
		q.free = n
	}
}

// next returns when the first timer fires; ok is false if there is none.
func (q *timerQueue) next() (at int64, ok bool) {
	n, ok := q.tree.Min()
	if !ok {
		return 0, false
	}
	return n.tick * timerTick, true
}

// due takes out one timer whose time has come, in the order of ticks.
func (q *timerQueue) due(now int64) *timer {
	n, ok := q.tree.Min()
	if !ok || n.tick*timerTick > now {
		return nil
	}
	t := n.first
	q.remove(t)
	return t
}

// alarm is a timer as its user sees it: set it, set it again, stop it, from any
// worker or goroutine, in one call at a time. Outside the pool it is Go's own timer.
type alarm struct {
	timer *timer
	own   timer // the first that is used; another timer is made while another worker still has this one in its queue
	std   *stdTimer
}

// stdTimer is the timer of an alarm that is set outside the pool.
type stdTimer struct {
	timer *time.Timer
	at    int64 // when it fires, or has fired
	to    expirer
}

func (s *stdTimer) fire() { s.to.expire(nil) }

// setStd is set outside the pool. A timer that exists is used again: deadlines
// of goroutines are put off before each read.
func (a *alarm) setStd(at int64, to expirer) {
	now, bubble := clockNow()
	if bubble { // a timer that is set here would go by the bubble's clock
		outsideBubble(func() { a.setStd(at, to) })
		return
	}
	d := time.Duration(at - now)
	if a.std != nil && a.std.to == to {
		a.std.at = at
		a.std.timer.Reset(d)
		return
	}
	a.std = &stdTimer{at: at, to: to}
	a.std.timer = time.AfterFunc(d, a.std.fire)
}

// set makes the alarm call to.expire at the time at, and no longer at the time
// set before. w is the worker on whose thread the caller runs, or nil.
func (a *alarm) set(w *worker, at int64, to expirer) {
	if a.covers(w, at) {
		return
	}
	if w == nil {
		a.stopOwn(nil)
		a.setStd(at, to)
		return
	}
	a.stop(w)
	if a.timer == nil {
		a.timer = &a.own
	}
	if a.timer.state.Load() != timerIdle {
		a.timer = new(timer)
	}
	t := a.timer
	t.owner, t.to = w, to
	t.state.Store(timerArmed)
	w.timers.add(t, at)
}

// covers reports whether the alarm is set for this very time already.
func (a *alarm) covers(w *worker, at int64) bool {
	return w != nil && a.armedAt(w) == tickAfter(at)
}

// armedAt returns the tick at which w, or Go's timer if w is nil, will fire the
// alarm, -1 if it won't.
func (a *alarm) armedAt(w *worker) int64 {
	if w == nil {
		if a.std != nil && a.std.at > nanosHere() {
			return tickAfter(a.std.at)
		}
		return -1
	}
	if t := a.timer; t != nil && t.state.Load() == timerArmed && t.owner == w {
		return t.tick
	}
	return -1
}

// stop makes the alarm not fire, unless it does so at this moment.
func (a *alarm) stop(w *worker) {
	if a.std != nil {
		a.std.timer.Stop()
		a.std = nil
	}
	a.stopOwn(w)
}

func (a *alarm) stopOwn(w *worker) {
	t := a.timer
	if t == nil || t.state.Load() != timerArmed {
		return
	}
	if home := t.owner; home == w {
		home.timers.remove(t)
		t.to = nil // it may be a task that ends; the coroutine keeps the timer for later tasks
		t.state.Store(timerIdle)
	} else if t.state.CompareAndSwap(timerArmed, timerDropped) {
		home.dropTimer(t)
	}
}

// fireTimers fires the timers that are due, and returns how many there were.
func (w *worker) fireTimers(now int64) (n int) {
	for ; ; n++ {
		t := w.timers.due(now)
		if t == nil {
			return n
		}
		w.countProgress(uint64(n))
		to := t.to
		t.to = nil
		// A timer that was dropped is idle only once takeDropped has seen it.
		if t.state.CompareAndSwap(timerArmed, timerIdle) {
			to.expire(w)
		}
	}
}

// dropTimer asks w, from another thread, to take out a timer that is not needed.
func (w *worker) dropTimer(t *timer) {
	for {
		old := w.dropped.Load()
		t.dropNext = old
		if w.dropped.CompareAndSwap(old, t) {
			w.unpark()
			return
		}
	}
}

// takeDropped removes the timers that other threads have dropped.
func (w *worker) takeDropped() {
	if w.dropped.Load() == nil {
		return
	}
	n := uint64(0)
	for t := w.dropped.Swap(nil); t != nil; n++ {
		w.countProgress(n)
		next := t.dropNext
		t.dropNext = nil
		if t.node != nil {
			w.timers.remove(t)
		}
		t.to = nil
		t.state.Store(timerIdle)
		t = next
	}
}

// sleepFuture is the future of SleepFuture.
type sleepFuture struct {
	until int64
	t     *task
	alarm alarm
}

// SleepFuture returns a future that is ready once d has passed since this call,
// at once if d is not positive. It is late by as much as the load makes it,
// and at least by up to 16 microseconds; it is never early.
func SleepFuture(d time.Duration) Future[None] {
	return &sleepFuture{until: nanosAfter(d)}
}

func (s *sleepFuture) Poll(cx *Context) (None, error) {
	if !cx.spend() {
		return None{}, ErrPending
	}
	return None{}, cx.unspent(s.poll(cx))
}

// poll is Poll for a caller that has taken the operation off the budget.
func (s *sleepFuture) poll(cx *Context) error {
	w := cx.here()
	if cx.nanos() >= s.until {
		s.stop(w)
		return nil
	}
	t := cx.waker(waitsTime)
	if s.t != t {
		s.stop(w) // the future has moved to another task
		s.t = t
	}
	s.alarm.set(w, s.until, t)
	return ErrPending
}

// stop stops the timer. w is the worker that runs the caller, or nil.
func (s *sleepFuture) stop(w *worker) {
	if s.t != nil {
		s.alarm.stop(w)
		s.t = nil
	}
}

// Cancel implements canceler.
func (s *sleepFuture) Cancel() {
	if s.t != nil {
		s.stop(callersWorker())
	}
}

// Sleep waits until d has passed; see SleepFuture. It returns early, with
// cx.Err(), only if cx is cancelled.
func Sleep(cx *Context, d time.Duration) error {
	t := cx.beginAwait()
	s := t.ownTimer()
	for s.until = nanosAfter(d); cx.proceed(t); t.wait() {
		if s.poll(cx) == nil {
			return nil
		}
		cx.giveBack()
	}
	s.stop(cx.here())
	return cx.Err()
}

// timeoutFuture is the future of TimeoutFuture.
type timeoutFuture[T any] struct {
	f     Future[T]
	d     time.Duration
	sleep *sleepFuture
	t     *task // has polled f; nil before that
}

// TimeoutFuture returns a future of f's result that gives f up and fails with
// context.DeadlineExceeded if the result is not there d after the first poll.
func TimeoutFuture[T any](f Future[T], d time.Duration) Future[T] {
	return &timeoutFuture[T]{f: f, d: d}
}

func (t *timeoutFuture[T]) Poll(cx *Context) (T, error) {
	t.t = cx.t
	v, err := t.f.Poll(cx)
	if err != ErrPending {
		t.stop()
		return v, err
	}
	if t.sleep == nil {
		t.sleep = &sleepFuture{until: nanosAfter(t.d)}
	}
	if _, err := t.sleep.Poll(cx); err != ErrPending {
		abandonFuture(cx.t, t.f)
		return v, context.DeadlineExceeded
	}
	return v, ErrPending
}

// Cancel gives f up.
func (t *timeoutFuture[T]) Cancel() {
	t.stop()
	abandonFuture(t.t, t.f)
}

func (t *timeoutFuture[T]) stop() {
	if t.sleep != nil {
		t.sleep.Cancel()
	}
}
