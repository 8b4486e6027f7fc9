package async

import (
	"context"
	"iter"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"sync/atomic"
	"time"

	"example.com/async/internal/sys"
)

// How a worker divides its time. Each number is a bound on how long one kind
// of work can keep the others waiting.
const (
	// pollsPerRound is how many tasks run at most before the worker looks at
	// the clock and at what others have sent; fewer if that many would take
	// longer than roundTime.
	pollsPerRound = 61
	roundTime     = int64(100 * time.Microsecond)

	// nextInARow is how often the run-next slot may be served in a row: two
	// tasks that wake each other would otherwise keep all others waiting.
	nextInARow = 16

	// operationsPerPoll is how many reads, writes, sends and so on one poll may
	// do before its task must yield.
	operationsPerPoll = 128

	// reactorEvery is how long a busy worker leaves the reactor alone. A look
	// costs a system call, over a microsecond where it was measured.
	reactorEvery = int64(50 * time.Microsecond)

	// worthThief is how much work must wait before a sleeping worker is woken
	// for it. The wake itself takes about 20 microseconds, or 80 if that worker is parked without a P, and what the other
	// worker takes over has to reach its cache first.
	worthThief = int64(100 * time.Microsecond)

	// worthInactiveThief is worthThief for a worker that is not active; see activeSet. Such a worker competes with the active
	// ones for processors, so it is woken for more work only.
	worthInactiveThief = int64(time.Millisecond)

	// keepP is how long after its last work a worker waits in the kernel without giving up
	// its P. See docs/design.md, "Waiting".
	keepP = 8 * time.Millisecond
)

// worker is one thread of the pool: a goroutine locked to it, and all that
// this goroutine needs, so that it shares as little as possible. With Config.SharedProcs
// the goroutine is not locked to a thread. The three groups of fields have cache lines of their own.
type worker struct {
	// Fixed before the worker starts.
	rt         *Runtime
	index      int
	identity   identity // of its goroutine and its coroutines
	thread     sys.Thread
	start      chan struct{}   // closed when it may begin
	exited     chan struct{}   // closed when the worker has ended
	labels     context.Context // the profiler labels of its goroutines; see labelsOf
	labelValue string          // the value in them
	labelled   string          // the same as they look in a profile

	g atomic.Uintptr // its goroutine, as long as that lives; read with current

	// The worker's own.
	current         *task      // being polled
	accepted        *task      // has just accepted a connection; see spawn
	running         *coroutine // being resumed
	yielded         bool       // the current task wants to be queued again
	madeRunnable    bool       // it has made goroutines runnable, which may stand in the queue of its P; see chooseParkMode
	unwinding       bool       // the worker ends, and unwinds what still waits
	stopped         bool
	sharedFirst     bool  // which of the two run-next slots is served first
	budget          int   // operations left to the current poll
	pollBudget      int   // see Config.Tuning.Budget
	observed        bool  // see Config.observed
	hasVisible      bool  // visible is not nil
	roundPolls      int   // polls in this round
	roundLimit      int   // how many polls it may have
	roundBegun      int64 // when it began
	popped          *task // taken from the queues by beginNext, for round to poll; or nil
	runNextStreak   int   // servings of the run-next slot since the last other one
	local           localQueue
	runNextLocal    *task
	freeCoroutines  *coroutine                     // the free ones
	freeTasks       [kindStraight + 1]taskFreeList // of detached tasks, by kind
	timers          timerQueue
	reactor         reactor
	reactorPolledAt int64        // when the reactor was last asked
	roundSize       int          // how many tasks the next round may run
	lastWork        int64        // when there was last something to do
	idleGap         int64        // how long it had nothing to do when it last ended a park, in nanoseconds
	workerSpin      adaptiveSpin // for messages of other workers
	peerSpin        adaptiveSpin // with the peer of peerFD
	parkTimer       *time.Timer  // ends a park; made once
	peerFD          int          // the descriptor whose event came last, and alone; or -1
	ids             uint64
	sampledAt       int64     // when sample has last chosen a turn
	sampled         bool      // this turn is chosen
	ticks           dumpTicks // the time when it began
	left            []*task   // see lastTask
	named           map[string]context.Context

	counts      [counterCount]uint64
	publishedAt int64
	labelling   uint32 // how often labels have been set anew

	// See trim.
	leastFree uint64 // how few free coroutines there were since trimmedAt
	trimmedAt int64  // when it looked last
	surplus   uint64 // how many of them are still to be ended

	_ [64]byte
	// Shared with the other workers.
	queue      runQueue
	runNext    atomic.Pointer[task] // to run before the queue
	visible    atomic.Pointer[task] // being polled, or polled last, if it is straight-line code or has attributes
	wantsThief atomic.Bool          // the queue is long
	turn       atomic.Uint32        // counts turns, wakes and progress: if it stands still, the worker is stuck in a poll
	stuckTurn  atomic.Uint32        // the turn in which the watchdog found it stuck; 0: none yet
	endRound   atomic.Bool          // the round is to end with its current poll; see stallWatch
	published  [counterCount]atomic.Uint64
	parkedTime atomic.Int64  // nanoseconds parked; while it is parked, less the time at which that began
	moveRule   atomic.Uint64 // see the type moveRule

	_ [64]byte
	// Written by any thread.
	inbox        atomic.Pointer[task]  // tasks from elsewhere, the latest first
	dropped      atomic.Pointer[timer] // see dropTimer
	asleep       atomic.Bool           // parked, or about to be: must be woken
	probe        wakeProbe
	waiting      waitingList
	acked        atomic.Uint64 // the last request for a count that it has answered; see ackCount
	ackedSpawned atomic.Int64
	ackedEnded   atomic.Int64
	withoutP     atomic.Bool   // parked without a P: see parkWithoutP
	withoutPWake chan struct{} // see unparkWithoutP

	unparks          atomic.Uint64 // times that it was woken
	wokenFromOutside atomic.Uint64 // its tasks that were woken by threads not known to be a worker's

	_ [64]byte
}

func newWorker(rt *Runtime, index int) *worker {
	w := &worker{
		rt:        rt,
		index:     index,
		start:     make(chan struct{}),
		exited:    make(chan struct{}),
		timers:    newTimerQueue(),
		roundSize: pollsPerRound,

		pollBudget: rt.cfg.Tuning.Budget,
		observed:   rt.cfg.observed(),

		workerSpin: adaptiveSpin{spinSettings: workerSpinSettings},
		peerSpin:   adaptiveSpin{spinSettings: peerSpinSettings},
		peerFD:     -1,
	}
	w.identity.worker = w
	return w
}

// run is the goroutine of the worker. It calls ready once it is prepared.
func (w *worker) run(ready func(error)) {
	if !w.rt.cfg.SharedProcs {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		w.thread = sys.CallingThread()
	}
	defer w.identify()()
	w.label()
	var err error
	if all := w.rt.cfg.Tuning.Affinity; len(all) > 0 && all[w.index] != nil {
		err = sys.SetAffinity(all[w.index])
	}
	ready(err)
	<-w.start
	if w.stopped {
		return
	}
	if h := w.rt.cfg.Tuning.Hooks.WorkerStart; h != nil {
		h(w.index)
	}
	w.serve()
}

// identify lets the calling goroutine be known as w's, until the function is called.
func (w *worker) identify() (forget func()) {
	g := getg()
	w.g.Store(g)
	identities.add(g, &w.identity)
	return func() {
		identities.remove(g)
		w.g.Store(0)
	}
}

// serve takes turns until the worker is stopped. A Goexit in the Poll of a plain future
// unwinds the worker's goroutine, which is the only one that its thread can have. The
// worker then continues inside the deferred call.
func (w *worker) serve() {
	defer func() {
		if v := recover(); v != nil {
			panic(v) // a bug in this package
		}
		for !w.stopped {
			w.turnsInCoroutine()
		}
		w.cleanUp()
	}()
	w.turns()
}

// turnsInCoroutine takes turns in a coroutine, until the worker is stopped or the next Goexit ends
// this coroutine. So any number of Goexits leaves nothing on the stack of the worker.
func (w *worker) turnsInCoroutine() {
	goroutine := w.g.Load()
	next, _ := iter.Pull(func(func(struct{}) bool) {
		returned := false
		defer goexitToPanic(&returned)
		defer w.identify()()
		w.turns()
		returned = true
	})
	defer w.g.Store(goroutine)
	defer recoverGoexit()
	next()
}

// turns is the loop of a worker. One turn:
//
//  1. runs tasks, at most a round of them;
//  2. takes the tasks that other threads have sent, and fires timers;
//  3. asks the reactor for events, unless it has done so a moment ago;
//  4. if there is nothing to do, takes tasks of other workers, or else waits.
func (w *worker) turns() {
	for parked := false; !w.stopped; {
		begun := w.beginTurn(parked)
		w.round(w.roundSize, begun)
		now := nanos()
		w.sizeRound(w.roundPolls, now-begun)
		busy := w.collect(now)
		w.report(now)
		if !busy && !w.steal() {
			parked = w.wait(now)
			continue
		}
		parked = false
		w.lastWork = now
		w.stopped = w.rt.stopping.Load()
		if now-w.reactorPolledAt >= reactorEvery {
			w.reactorPolledAt = now
			w.reactor.poll(w)
		}
	}
}

// beginTurn returns the time, and tells the watchdog and the metrics of the turn. parked says that w has
// waited just now, so that it knows the time already.
func (w *worker) beginTurn(parked bool) (now int64) {
	if w.endRound.Load() {
		w.endRound.Store(false) // before turn changes: the setter has seen the turn before this one
	}
	w.turn.Add(1)
	if now = w.reactorPolledAt; !parked {
		now = nanos()
	}
	w.rt.watchdog.heartbeat(w, now)
	w.ticks = ticksAt(now)
	w.sample(now)
	return now
}

// collect takes the tasks that other threads have sent, fires timers and ends free coroutines. It reports whether w has
// something to do.
func (w *worker) collect(now int64) (busy bool) {
	busy = w.receive()
	busy = w.fireTimers(now) > 0 || busy || w.hasTasks()
	if w.counts[countFree] > keepFree {
		busy = w.trim(now) || busy
	}
	return busy
}

// report publishes what other threads may know of w: its metrics, and the count of its tasks while the runtime drains.
func (w *worker) report(now int64) {
	if now-w.publishedAt >= publishEvery {
		w.publish(now)
	}
	if w.rt.draining.Load() {
		w.ackCount()
	}
}

// sizeRound sets the size of the next round by how long the tasks of this one took,
// and wakes a thief if more tasks wait than this worker should run alone.
func (w *worker) sizeRound(ran int, took int64) {
	if ran == 0 {
		return
	}
	w.counts[countPolls] += uint64(ran)
	perPoll := max(took/int64(ran), 1)
	w.roundSize = int(min(max(roundTime/perPoll, 1), pollsPerRound))
	if n := w.queue.len(); n > 1 && int64(n)*perPoll > worthThief {
		w.wakeThief(int64(n)*perPoll > worthInactiveThief || w.reactor.registered.Load() == 0)
	}
}

// round polls tasks, at most limit of them, and counts them in roundPolls. A poll that
// panics or calls Goexit ends its task and the round.
func (w *worker) round(limit int, begun int64) {
	defer w.recoverPoll()
	w.roundPolls, w.roundLimit, w.roundBegun = 0, limit, begun
	for w.popped != nil || w.mayRun() {
		t := w.popped
		if w.popped = nil; t == nil {
			if t = w.nextTask(); t == nil {
				break
			}
		}
		w.poll(t)
	}
}

// mayRun reports whether the round has room for another task.
func (w *worker) mayRun() bool {
	if w.sampled && w.roundPolls == 1 {
		w.sampled = false
		w.polled(nanos() - w.roundBegun)
	}
	return w.roundPolls < w.roundLimit && !w.endRound.Load()
}

// beginNext takes the next task from the queues. If that is straight-line code that has not begun,
// it begins the task in co, whose own task has ended, which saves a switch to the worker's stack and back, and
// reports true. Otherwise it leaves the task to round.
func (w *worker) beginNext(co *coroutine) bool {
	if w.observed || !w.mayRun() {
		return false
	}
	t := w.nextTask()
	if t == nil {
		return false
	}
	code, ok := t.body.(coroutineTask)
	if !ok || t.g.Load() != 0 {
		w.popped = t
		return false
	}
	w.endTask(w.current)
	w.beginPoll(t)
	code.begin(w, co)
	return true
}

// recoverPoll ends the task whose poll did not return.
func (w *worker) recoverPoll() {
	t := w.current
	if t == nil {
		return
	}
	err := ErrGoexit
	switch v := recover().(type) {
	case nil:
	case goexited: // in straight-line code, whose coroutine has ended the task and itself
		w.running = nil
		w.counts[countCoroutines]--
	default:
		err = newPanicError(t, v)
	}
	w.yielded = false
	if !t.state.done() {
		t.body.abort(w, err)
	}
	w.current = nil
}

// nextTask returns the next task to run: one in a run-next slot, but not too often
// in a row, else the oldest. What only this worker may run and what any may run
// have a slot and a queue each.
func (w *worker) nextTask() *task {
	if w.runNextStreak < nextInARow {
		if t := w.takeRunNext(); t != nil {
			w.runNextStreak++
			return t
		}
	}
	w.runNextStreak = 0
	if t := w.local.pop(w.queue.next(), false); t != nil {
		return t
	}
	if t := w.queue.pop(); t != nil {
		return t
	}
	if t := w.local.pop(0, true); t != nil {
		return t
	}
	return w.takeRunNext()
}

func (w *worker) takeRunNext() *task {
	w.sharedFirst = !w.sharedFirst // neither slot may keep the other waiting
	if w.sharedFirst || w.runNextLocal == nil {
		if w.runNext.Load() != nil {
			if t := w.runNext.Swap(nil); t != nil { // a thief may be faster
				return t
			}
		}
	}
	t := w.runNextLocal
	w.runNextLocal = nil
	return t
}

// poll runs t once and decides what becomes of it.
func (w *worker) poll(t *task) {
	w.beginPoll(t)
	if t.kind == kindPlain && (w.hasVisible || t.attributes.Load() != nil) {
		w.setVisible(t)
	}
	var done bool
	if w.observed {
		done = w.pollObserved(t)
	} else {
		done = t.body.poll(w)
	}
	t = w.current // beginNext may have begun further tasks: this is the last of them; see beginNext
	w.current = nil
	yielded := w.yielded
	w.yielded = false
	switch {
	case done:
		w.endTask(t)
		return
	case yielded:
		if t.listedAt == 0 && (t.kind == kindStraight || w.rt.closing.Load()) {
			w.list(t) // Shutdown finds straight-line code in the local queue only in this list; while closing, list cancels t
		}
		w.push(t)
		return
	}
	if t.listedAt == 0 {
		w.list(t)
	}
	t.since = w.ticks
	if !t.state.suspend() {
		w.push(t)
	}
}

// beginPoll is called before t is polled.
func (w *worker) beginPoll(t *task) {
	w.roundPolls++
	t.state.begin()
	if t.w != w {
		t.w = w
	}
	w.current = t
	w.budget = w.pollBudget
	if w.probe.t.Load() == t {
		w.counts[countWakeTime+histogramBucket(nanos()-w.probe.at.Load())]++
		w.probe.t.Store(nil)
	}
}

// endTask is called after the last poll of t.
func (w *worker) endTask(t *task) {
	w.yielded = false
	if w.accepted == t {
		w.accepted = nil // the collector may have it
	}
}

// setVisible lets other threads see which task is polled: straight-line code makes itself visible,
// once t.g is set. Plain futures without attributes are polled so quickly one after
// the other that it would cost a third of their time.
func (w *worker) setVisible(t *task) {
	if t != nil && t.kind == kindPlain && t.attributes.Load() == nil {
		t = nil
	}
	if w.visible.Load() != t {
		w.visible.Store(t)
	}
	w.hasVisible = t != nil
}

// pollObserved is poll's call of the task for runtimes with hooks for polls, or with labels.
func (w *worker) pollObserved(t *task) (done bool) {
	if t.surveys() {
		return t.body.poll(w)
	}
	who := t.ident()
	hooks := &w.rt.cfg.Tuning.Hooks
	if hooks.BeforePoll != nil {
		hooks.BeforePoll(who)
	}
	if hooks.AfterPoll != nil {
		defer hooks.AfterPoll(who)
	}
	if w.rt.cfg.Tuning.Labels && who.Name != "" {
		defer trace.StartRegion(context.Background(), who.Name).End()
		if t.kind == kindPlain { // a coroutine has its own labels
			pprof.SetGoroutineLabels(w.labelsOf(t))
			defer pprof.SetGoroutineLabels(w.labels)
		}
	}
	return t.body.poll(w)
}

// yield makes the current task be queued again after its poll, behind the
// others. It needs no atomics: the worker does not let go of the task at all.
func (w *worker) yield(t *task) {
	t.waits = waitsYield
	w.yielded = true
}

// push appends t, which the caller holds, to its queue.
func (w *worker) push(t *task) {
	if !t.movable() {
		w.local.push(t, w.queue.ticket())
	} else if w.queue.push(t) {
		w.wakeThief(true)
	}
}

// pushNext makes t run next: it was woken or spawned by what runs now, and their data is
// in the cache. What stood there goes to its queue.
func (w *worker) pushNext(t *task) {
	if t.movable() {
		t = w.runNext.Swap(t)
	} else {
		t, w.runNextLocal = w.runNextLocal, t
	}
	if t != nil {
		w.push(t)
	}
}

// spawn queues a new task of code that runs on w. If t.w is set, the task starts
// there.
func (w *worker) spawn(t *task) {
	to := t.w
	w.counts[countSpawned]++
	w.ids++
	t.id.Store(w.ids*uint64(len(w.rt.workers)+1) + uint64(w.index) + 1)
	t.w = w
	if h := w.rt.cfg.Tuning.Hooks.TaskStart; h != nil {
		h(t.ident())
	}
	if w.rt.closing.Load() {
		t.body.abort(w, ErrShutdown)
		return
	}
	if w.accepted != nil && w.accepted == w.current && t.movable() {
		// The first task that is spawned after an Accept is taken to be the
		// connection's. It will stay where it starts, perhaps for long, so
		// this is the moment to spread the load.
		w.accepted = nil
		if to == nil {
			to = w.rt.assignConn(t.kind == kindPlain)
		}
	}
	if to != nil && to != w {
		t.w = to
		to.send(t)
		return
	}
	w.pushNext(t) // its data is in the cache; and if tasks run soon after they are spawned, fewer stacks are in use at once
}

// send queues t, which the caller holds, from a thread that is not w's.
func (w *worker) send(t *task) {
	for {
		old := w.inbox.Load()
		t.next = old
		if w.inbox.CompareAndSwap(old, t) {
			break
		}
	}
	w.unpark()
}

// receive takes what others sent, in the order in which it was sent. It
// reports whether there was a task.
func (w *worker) receive() bool {
	w.takeDropped()
	n := w.pushList(w.takeInbox())
	w.counts[countReceived] += n
	return n > 0
}

// takeInbox returns what stands in w's inbox, the oldest first.
func (w *worker) takeInbox() (first *task) {
	if w.inbox.Load() == nil {
		return nil
	}
	for t := w.inbox.Swap(nil); t != nil; {
		next := t.next
		t.next = first
		first, t = t, next
	}
	return first
}

// pushList queues the tasks of a list and returns how many there were.
func (w *worker) pushList(t *task) (n uint64) {
	for ; t != nil; n++ {
		next := t.next
		t.next = nil
		w.push(t)
		t = next
		w.countProgress(n)
	}
	return n
}

// progressEvery is how many tasks or timers a worker may go through outside a poll without
// moving its turn: less than a millisecond's work.
const progressEvery = 1024

// countProgress is called with 0, 1 and so on by code that goes through what may be many tasks or
// timers. It moves the turn now and then, so that the worker does not look as if it were stuck
// in a poll.
func (w *worker) countProgress(n uint64) {
	if n%progressEvery == progressEvery-1 {
		w.turn.Add(1)
	}
}

func (w *worker) hasTasks() bool {
	return w.runNextLocal != nil || w.local.n > 0 || w.runNext.Load() != nil || w.queue.len() > 0
}
