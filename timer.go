package async

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/google/btree"
)

// A timer belongs to one worker, its owner, from the moment it is set until it is idle again. Only
// the thread of the owner adds timers to the owner's queue and removes them, so the queue needs no
// lock. A task that runs on a worker sets its timer in the queue of this worker. Code outside the
// pool has no worker and uses Go's own timers instead (alarm.std). So the only message that one
// thread sends to another is to drop a timer.
//
// The states of a timer, and the transitions:
//
//  1. idle to armed: set, on the thread of the owner, stores owner and to, then the state, and adds
//     the timer to the queue.
//  2. armed to idle: stop, on the thread of the owner, removes the timer from the queue.
//  3. armed to dropped: stop, on any other thread, changes the state by a compare-and-swap. The
//     timer is still in the queue. The caller that succeeds puts it on the owner's list of dropped
//     timers and unparks the owner (dropTimer).
//  4. dropped to idle: the owner takes the list and removes each timer from its queue, unless it
//     has fired there before (takeDropped). It does so before it fires timers, in each turn.
//  5. armed to idle: fireTimers removes a timer that is due from the queue, and then changes the
//     state by a compare-and-swap. If that succeeds it calls to.expire. If it fails, another thread
//     has dropped the timer, and step 4 follows.
//
// The races that this closes:
//
//  1. stop on another thread and fireTimers at the same time: one of the two compare-and-swaps
//     fails. So a timer that was dropped does not expire, and a timer that expires was not dropped.
//     If fireTimers is first, stop may return while expire runs.
//  2. A timer is set again while it is dropped: the state is not idle, so set makes another timer,
//     and the former one stays untouched until its owner has taken it out (alarm.set).
//  3. A timer is dropped while the owner parks: dropTimer writes the list and then reads
//     worker.asleep. The owner sets asleep and then reads the list (worker.park). So the owner sees
//     the timer or is unparked. A parked owner would otherwise keep dropped timers, and the tasks
//     that they refer to, until its next event.

// clockEpoch is the zero of the time in this package, which is an int64: nanoseconds since
// clockEpoch on the monotonic clock.
var clockEpoch = time.Now()

// maxNanos is 73 years, longer than any time that matters. The sum of three such times does not
// overflow an int64.
const maxNanos = int64(1) << 61

// nanos returns the time now, counted from clockEpoch. Only code that is in no bubble calls it. Code
// that a goroutine of the program may run calls nanosHere or clockNow, since a bubble has a clock of
// its own; see bubble.go.
func nanos() int64 { return int64(time.Since(clockEpoch)) }

// nanosAt converts t. Some times have no monotonic reading, for example a time that was parsed,
// read from a database or rounded. Such a time is as far from now as the caller's clock says at
// this moment. Its distance from clockEpoch would change with every step of the wall clock.
func nanosAt(t time.Time) int64 {
	now := time.Now()
	since := int64(now.Sub(clockEpoch))
	if ofBubble(now) {
		since = nanosHere()
	}
	return clampTime(since + clampTime(int64(t.Sub(now))))
}

// timeEarlier reports whether a is before b. It also works if only one of them has a monotonic
// reading.
func timeEarlier(a, b time.Time) bool { return nanosAt(a) < nanosAt(b) }

// nanosAfter returns the time d from now, or now if d is negative.
func nanosAfter(d time.Duration) int64 { return nanosHere() + max(clampTime(int64(d)), 0) }

// clampTime limits t to maxNanos in both directions.
func clampTime(t int64) int64 { return min(max(t, -maxNanos), maxNanos) }

// tickAfter returns the tick in which a timer for the time at fires: the first tick that does not
// end before at.
func tickAfter(at int64) int64 { return (at + timerTick - 1) / timerTick }

// timerTick is the resolution of timers. Tick n ends at n*timerTick. All timers of a tick fire
// together at its end, so never before their time. 16 microseconds are less than the delay that the
// kernel adds, and long enough that 100,000 timers share few nodes of the tree.
const timerTick = int64(16 * time.Microsecond)

// An expirer is called by a timer. expire is called once, on the thread of the timer's owner, or,
// for a timer of Go's, on a goroutine with a nil w. It must not block.
type expirer interface{ expire(w *worker) }

// timer is an entry of one worker's queue. All fields except state belong to the owner while state
// is timerArmed or timerDropped; dropNext belongs to the caller of dropTimer until the timer is in
// the list.
type timer struct {
	state      atomic.Uint32 // the states and transitions are at the head of this file
	owner      *worker       // the worker in whose queue it is
	tick       int64         // in which it fires
	to         expirer       // nil once it has fired or was removed
	prev, next *timer        // of the same tick
	node       *tickNode     // of its tick; nil if it is in no queue
	dropNext   *timer        // in the owner's list of dropped timers
}

const (
	timerIdle    uint32 = iota // in no queue and no list; may be set
	timerArmed                 // in the owner's queue
	timerDropped               // in the owner's list of dropped timers, and in its queue unless it was due
)

// timerQueue is a worker's timers: a B-tree of the ticks that have timers, each with a list of its
// timers. A burst of timers for the same moment searches the tree once, because last keeps the
// node. Within a tick no order is promised. The queue never reads the clock.
type timerQueue struct {
	tree *btree.BTreeG[*tickNode]
	last *tickNode // the node to which the last timer was added, if it is in the tree
	key  tickNode  // for searches, so that a search allocates nothing
	free *tickNode // one empty node for the next tick, or nil
	n    int       // how many timers are set
}

// tickNode is all timers of one tick.
type tickNode struct {
	tick  int64
	first *timer
}

func newTimerQueue() timerQueue {
	return timerQueue{tree: btree.NewG(32, func(a, b *tickNode) bool { return a.tick < b.tick })}
}

// len returns the number of timers in the queue.
func (q *timerQueue) len() int { return q.n }

// add adds t to the queue. t fires at the time at, or up to one tick later.
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

// node returns the node of a tick. It adds a node to the tree if there is none.
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

// remove removes t, which must be in the queue. The last timer of a tick removes the node, too.
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

// next returns the time at which the first timer fires. ok is false if the queue is empty.
func (q *timerQueue) next() (at int64, ok bool) {
	n, ok := q.tree.Min()
	if !ok {
		return 0, false
	}
	return n.tick * timerTick, true
}

// due removes one timer whose time has come, and returns it. It returns nil if there is none.
// Earlier ticks come first.
func (q *timerQueue) due(now int64) *timer {
	n, ok := q.tree.Min()
	if !ok || n.tick*timerTick > now {
		return nil
	}
	t := n.first
	q.remove(t)
	return t
}

// alarm is a timer for its user, which sets it, sets it again and stops it. The calls may be made
// from any worker or goroutine, one at a time. On a worker the alarm is a timer of this worker.
// Outside the pool it is a timer of Go's.
type alarm struct {
	timer *timer // the timer that was set last on a worker; nil before that
	// The first timer. Another timer takes its place if the alarm must be set while another worker
	// still has this one in its queue.
	own timer
	std *stdTimer // the timer of Go's; nil if it is not set
}

// stdTimer is the timer of an alarm that was set outside the pool.
type stdTimer struct {
	timer *time.Timer
	at    int64 // when it fires, or has fired
	to    expirer
}

// fire is called by Go's timer.
func (s *stdTimer) fire() { s.to.expire(nil) }

// setStd sets the alarm for a caller outside the pool. It uses an existing timer again, because
// goroutines extend a deadline before each read.
func (a *alarm) setStd(at int64, to expirer) {
	now, bubble := clockNow()
	// A timer that is made in a bubble follows the bubble's clock.
	if bubble {
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

// set makes the alarm call to.expire at the time at, and no longer at the time that was set before.
// w is the worker on whose thread the caller runs, or nil.
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
	// If stop has dropped the timer, its former owner may not have removed it yet.
	if a.timer.state.Load() != timerIdle {
		a.timer = new(timer)
	}
	t := a.timer
	t.owner, t.to = w, to
	t.state.Store(timerArmed)
	w.timers.add(t, at)
}

// covers reports whether the alarm is already set on w for the same tick.
func (a *alarm) covers(w *worker, at int64) bool {
	return w != nil && a.armedAt(w) == tickAfter(at)
}

// armedAt returns the tick in which the alarm fires, if it is set on w, or by Go's timer if w is
// nil. It returns -1 otherwise.
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

// stop stops the alarm. An alarm that expires on another thread at this moment is not stopped. w is
// the worker on whose thread the caller runs, or nil.
func (a *alarm) stop(w *worker) {
	if a.std != nil {
		a.std.timer.Stop()
		a.std = nil
	}
	a.stopOwn(w)
}

// stopOwn is stop for the timer on a worker.
func (a *alarm) stopOwn(w *worker) {
	t := a.timer
	if t == nil || t.state.Load() != timerArmed {
		return
	}
	if home := t.owner; home == w {
		home.timers.remove(t)
		// to may be a task that ends now. The coroutine keeps the timer for later tasks.
		t.to = nil
		t.state.Store(timerIdle)
	} else if t.state.CompareAndSwap(timerArmed, timerDropped) {
		home.dropTimer(t)
	}
}

// fireTimers fires the timers that are due, and returns how many were due.
func (w *worker) fireTimers(now int64) (n int) {
	for ; ; n++ {
		t := w.timers.due(now)
		if t == nil {
			return n
		}
		w.countProgress(uint64(n))
		to := t.to
		t.to = nil
		// A timer that was dropped does not expire. takeDropped makes it idle.
		if t.state.CompareAndSwap(timerArmed, timerIdle) {
			to.expire(w)
		}
	}
}

// dropTimer asks w, from another thread, to remove t from its queue: the end of step 3 at the head
// of this file. The caller has set timerDropped.
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

// takeDropped removes the timers that other threads have dropped. It is step 4 at the head of this
// file.
func (w *worker) takeDropped() {
	if w.dropped.Load() == nil {
		return
	}
	n := uint64(0)
	for t := w.dropped.Swap(nil); t != nil; n++ {
		w.countProgress(n)
		next := t.dropNext
		t.dropNext = nil
		// A timer without a node was due between the drop and now: due has removed it.
		if t.node != nil {
			w.timers.remove(t)
		}
		t.to = nil
		t.state.Store(timerIdle)
		t = next
	}
}

// sleepFuture is the future of SleepFuture, and the timer of Sleep.
type sleepFuture struct {
	until int64 // when it is ready
	t     *task // the task for which the alarm is set; nil if it is not set
	alarm alarm
}

// SleepFuture returns a future that is ready when d has passed since this call. If d is not
// positive, the future is ready at once. It is never ready early. It is ready at most 16
// microseconds late, plus the time in which its worker does other work. Its error is always nil.
// Giving it up stops its timer and loses nothing. [Sleep] waits in straight-line code, and [After]
// is the case of a [Select].
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

// stop stops the timer, if it is set. w is the worker that runs the caller, or nil.
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

// Sleep waits until d has passed, and returns nil then. If cx is cancelled before, it returns
// cx.Err() at once. If d is not positive, Sleep does not wait. It is as exact as [SleepFuture].
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
	d     time.Duration // counted from the first poll
	sleep *sleepFuture  // nil before the first poll that was pending
	t     *task         // the task that has polled f; nil before that
}

// TimeoutFuture returns a future with the result of f and a limit on the time: if f is not ready d
// after the first poll, the result is [context.DeadlineExceeded], and f is given up. If f becomes
// ready at the same time, its result wins. Giving up the returned future gives f up, too. If f is a
// [JoinHandle], giving it up cancels its task. To limit any other operation use
// [Context.WithTimeout].
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

// Cancel implements canceler: it gives f up.
func (t *timeoutFuture[T]) Cancel() {
	t.stop()
	abandonFuture(t.t, t.f)
}

// stop stops the timer, if it is set.
func (t *timeoutFuture[T]) stop() {
	if t.sleep != nil {
		t.sleep.Cancel()
	}
}
