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

// A worker is a thread that runs tasks. This file holds its turn: the loop that divides the
// thread's time between tasks, messages from other threads, timers and the events of the reactor.
// idle.go holds the end of a turn in which there was nothing to do.
//
// # The turn
//
// One turn (worker.turns) does the following steps, in this order:
//
//  1. Change worker.turn and read the clock (beginTurn). The watchdog takes a worker whose turn
//     does not change to be stuck in a poll.
//  2. Run a round (round): poll tasks, at most roundSize of them. nextTask chooses each task.
//  3. Read the clock again. Set roundSize from the mean duration of the polls of this round, and
//     wake a thief if the queue holds too much work for one worker (sizeRound).
//  4. Collect (collect): remove the timers that other threads have dropped, queue the tasks in the
//     inbox, fire the timers that are due, and end free coroutines that no task needs.
//  5. Report (report): publish the counts for metrics, and answer a request of Shutdown for the
//     count of tasks.
//  6. If there is nothing to run, take tasks from another worker (steal). If there are none, wait
//     (idle.go). The turn ends here.
//  7. If there is a task to run, read Runtime.stopping, and fetch events from the reactor without
//     waiting if reactorEvery has passed since the last time.
//
// Reasons for the order:
//
//   - The round comes first. A wait ends with the dispatch of events, which makes tasks runnable,
//     so these tasks run before the worker does anything else for them. The wait has read the
//     clock, so step 1 need not read it again.
//   - The clock is read once for the steps 3 to 7. The timers, the reports and the reactor all use
//     this one reading.
//   - Dropped timers are removed before timers fire. The order only saves work: a timer that was
//     dropped does not call its expirer even if it is due first (fireTimers).
//   - The reactor is asked last, and not in every turn, since that costs a system call. The tasks
//     that its events wake run in the next round.
//   - A worker takes tasks of other workers only when it has none. It looks before it sleeps, not
//     after it wakes.
//   - stopping is read in step 7, in spin and in park. A worker with tasks passes step 7 in every
//     turn, and a worker without tasks passes spin or park, so each worker sees it soon.
//
// Bounds on waiting, for a worker whose polls take about as long as in the last round:
//
//   - A message or a timer waits for one round: pollsPerRound polls or roundTime, whichever ends
//     first.
//   - An event waits for reactorEvery and one round.
//   - A queued task waits for the tasks that were queued before it, and for nextInARow servings of
//     the run-next slot before each of them.
//   - A task that always finds an operation ready yields after Config.Tuning.Budget operations, by
//     default operationsPerPoll.
//
// A single poll has no bound: Go preempts goroutines, but never in favor of another task of the
// same worker. The watchdog detects a poll that takes long. Other workers then take over the tasks
// that may move.
//
// # The caller's worker
//
// Many functions have a parameter of type *worker, named from or w. It is the caller's worker: the
// worker on whose thread the caller runs, or nil. A caller runs on the thread of a worker if it is
// the worker's goroutine (which polls plain futures, fires timers and dispatches events) or a
// coroutine that this goroutine has resumed. With Config.SharedProcs a worker has no thread of its
// own. The same goroutines count as its thread.
//
// Only the worker's thread may touch the fields below "The worker's own" in the struct: the local
// queue, the timers, the counts and so on. It is also the only thread that may push to and pop from
// the run queue, and that may put a task into a run-next slot. There is no lock: the worker's
// goroutine and its coroutines never run at the same time, because the goroutine is suspended while
// a coroutine runs. So a function with a worker that is not nil
//
//   - queues a woken task in the queues of that worker, without a write to an inbox and without
//     waking a thread (task.schedule);
//   - may make that worker run the task, if the task may move (task.schedule);
//   - sets and stops timers in the worker's own timer queue (alarm);
//   - counts in the worker's plain counts;
//   - notes on the worker that a goroutine was made runnable (noteRunnable).
//
// With nil the same function uses the inbox of the task's worker, a timer of package time, the list
// of dropped timers, or an atomic count. This is always correct and only slower. So a caller that
// does not know its worker passes nil. task.schedule then looks it up in the table of identities,
// because a wake on the thread of the task's own worker should not go through the inbox.
//
// Rules:
//
//  1. A caller obtains its worker from its Context (cx.here, which also checks that the Context
//     belongs to the calling task), from a parameter, or by callersWorker, which searches a hash
//     table.
//  2. It passes the worker down to the functions that it calls, on the same goroutine, and never to
//     another goroutine. A plain future obtains it anew in each poll, since its next poll may run
//     on another worker. Straight-line code that has begun stays on its worker.
//  3. The worker may belong to another runtime than the task or the timer. So a function compares
//     the runtimes before it moves a task.

// Bounds on how long tasks, messages, timers and events wait for each other; see the head of this
// file.
const (
	// pollsPerRound is how many tasks run at most before the worker looks at the clock and at its
	// messages. A round has fewer polls if that many would take longer than roundTime.
	pollsPerRound = 61

	// roundTime is how long a round should take at most, in nanoseconds. sizeRound reduces the
	// number of polls for it.
	roundTime = int64(100 * time.Microsecond)

	// nextInARow is how often in a row a run-next slot may be served. Without this bound two tasks
	// that wake each other would keep all other tasks waiting.
	nextInARow = 16

	// operationsPerPoll is the default of Config.Tuning.Budget: how many reads, writes, sends and
	// so on one poll may do before its task must yield.
	operationsPerPoll = 128

	// reactorEvery is how long a busy worker leaves the reactor alone. A look costs a system call,
	// over a microsecond where it was measured.
	reactorEvery = int64(50 * time.Microsecond)
)

// When a worker asks for help, and when it gives up its P.
const (
	// worthThief is how much work must wait before a sleeping worker is woken for it, in
	// nanoseconds. The wake itself takes about 20 microseconds, or 80 if that worker is parked
	// without a P. The data of the tasks that move has to reach the cache of the other processor,
	// too.
	worthThief = int64(100 * time.Microsecond)

	// worthInactiveThief is worthThief for a worker that is not active; see activeSet. Such a
	// worker competes with the active workers for processors, so it is woken only for more work.
	worthInactiveThief = int64(time.Millisecond)

	// keepP is how long after its last work a worker waits in the kernel without giving up its P.
	// It is less than the 10 ms after which sysmon preempts. See docs/design.md, "Waiting".
	keepP = 8 * time.Millisecond
)

// worker is one thread of the pool: a goroutine that is locked to the thread, and all data that
// this goroutine needs. With Config.SharedProcs the goroutine is not locked to a thread.
//
// The fields are in four groups, by the threads that write them: fixed before the worker starts;
// written and read by the worker's own thread only; written mostly by the worker and read by other
// workers; written by any thread. The last two groups have cache lines of their own, so that a
// write by another thread does not slow down the worker's own fields.
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
	labelled   string          // the label as a profile shows it

	// g is the goroutine of the worker, or the coroutine in its place (turnsInCoroutine); 0 once it
	// has ended. Code that may run on another thread compares g with its own goroutine before it
	// reads current.
	g atomic.Uintptr

	// The worker's own.
	current         *task      // the task that is polled; nil between polls
	accepted        *task      // the task that has just accepted a connection; see spawn
	running         *coroutine // the coroutine that is resumed; nil if none is
	yielded         bool       // the current task wants to be queued again
	madeRunnable    bool       // goroutines may be in the queue of its P; see noteRunnable
	unwinding       bool       // the worker ends, and unwinds the code that still waits
	stopped         bool       // the loop is to end
	sharedFirst     bool       // which of the two run-next slots is served first
	budget          int        // operations left to the current poll
	pollBudget      int        // see Config.Tuning.Budget
	observed        bool       // see Config.observed
	hasVisible      bool       // visible is not nil
	roundPolls      int        // polls in this round
	roundLimit      int        // how many polls this round may have
	roundBegun      int64      // when this round began
	popped          *task      // taken from the queues by beginNext, for round to poll; or nil
	runNextStreak   int        // servings of the run-next slots since a queue was served last
	local           localQueue
	runNextLocal    *task
	freeCoroutines  *coroutine                     // a list, the coroutine that became free last first
	freeTasks       [kindStraight + 1]taskFreeList // detached tasks to be used again, by kind
	timers          timerQueue
	reactor         reactor
	reactorPolledAt int64                      // when the reactor was asked last
	roundSize       int                        // how many tasks the next round may run
	lastWork        int64                      // the last time at which there was something to do
	idleGap         int64                      // from the last work to the end of the last park
	workerSpin      adaptiveSpin               // for messages of other workers
	peerSpin        adaptiveSpin               // for the peer of peerFD
	parkTimer       *time.Timer                // ends a park without a P; made once
	peerFD          int                        // the only descriptor of the last events, or -1
	ids             uint64                     // tasks that code on this worker has spawned; see spawn
	sampledAt       int64                      // when sample chose a turn last
	sampled         bool                       // this turn is chosen
	ticks           dumpTicks                  // the time at which this turn began
	left            []*task                    // see lastTask
	named           map[string]context.Context // profiler labels by the name of the task; see labelsOf

	counts      [counterCount]uint64 // published by publish
	publishedAt int64                // when counts were published last
	labelling   uint32               // how often relabel was called

	// See trim.
	leastFree uint64 // the smallest number of free coroutines since trimmedAt
	trimmedAt int64  // when trim last decided how many coroutines to end
	surplus   uint64 // how many free coroutines trim is still to end

	_ [64]byte
	// Shared with the other workers.
	queue      runQueue
	runNext    atomic.Pointer[task] // runs before the queue; a thief may empty it
	visible    atomic.Pointer[task] // is polled, or was polled last; see setVisible
	wantsThief atomic.Bool          // the queue is long; set by the worker, cleared by a thief

	// turn counts turns, parks, unparks and progress (countProgress). If it stays the same while
	// the worker is not asleep, the worker is stuck in a poll.
	turn       atomic.Uint32
	stuckTurn  atomic.Uint32 // the turn in which the watchdog found the worker stuck; 0: none yet
	endRound   atomic.Bool   // the round is to end with its current poll; see stallWatch.checkTurn
	published  [counterCount]atomic.Uint64
	parkedTime atomic.Int64  // nanoseconds parked; during a park, less the time when it began
	moveRule   atomic.Uint64 // see the type moveRule; written by the worker that looks

	_ [64]byte
	// Written by any thread.
	inbox        atomic.Pointer[task]  // tasks from other threads, the latest first; see send
	dropped      atomic.Pointer[timer] // timers that other threads have stopped; see dropTimer
	asleep       atomic.Bool           // parked or about to park; see idle.go
	probe        wakeProbe
	waiting      waitingList
	acked        atomic.Uint64 // the last request for counts that it has answered; see ackCount
	ackedSpawned atomic.Int64
	ackedEnded   atomic.Int64
	withoutP     atomic.Bool   // parked without a P; see parkWithoutP
	withoutPWake chan struct{} // carries the token that ends a park without a P

	unparks          atomic.Uint64 // times that the worker was unparked
	wokenFromOutside atomic.Uint64 // wakes of its tasks by callers without a worker of its runtime

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

// run is the goroutine of the worker. It calls ready once, when the thread is prepared, with an
// error if its affinity cannot be set. Then it waits for start. If stopped is set by then, this
// worker or another one could not be prepared, and run returns without running a task.
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

// identify makes the calling goroutine the goroutine of w: callersWorker finds w on it. The
// function that it returns ends that. It must be called by the same goroutine.
func (w *worker) identify() (forget func()) {
	g := getg()
	w.g.Store(g)
	identities.add(g, &w.identity)
	return func() {
		identities.remove(g)
		w.g.Store(0)
	}
}

// serve takes turns until the worker is stopped.
//
// A Goexit in the Poll of a plain future cannot be stopped: it unwinds the worker's goroutine, and
// the thread that is locked to it would end. So the worker goes on inside a deferred call of that
// goroutine. There it takes turns in coroutines: further Goexits end only a coroutine.
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
// the coroutine. Each Goexit so leaves nothing on the stack of the worker, however many there are.
// While the coroutine runs it is the goroutine of w. Then the worker's own goroutine is it again.
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

// turns is the loop of a worker. The steps of a turn, and the reasons for their order, are at the
// head of this file.
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

// beginTurn begins a turn for the watchdog and the metrics, and returns the time. parked says that
// the worker has parked since the last turn: then reactorPolledAt is the time.
//
// endRound is cleared before turn changes. stallWatch.checkTurn reads turn and then sets endRound.
// If it has read the number of the new turn, it sets endRound after the store here, and the request
// holds. A request for the turn before may be lost, since that turn has ended.
func (w *worker) beginTurn(parked bool) (now int64) {
	if w.endRound.Load() {
		w.endRound.Store(false)
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

// collect queues the tasks that other threads have sent, fires timers and ends free coroutines. It
// reports whether w has something to do.
func (w *worker) collect(now int64) (busy bool) {
	busy = w.receive()
	busy = w.fireTimers(now) > 0 || busy || w.hasTasks()
	if w.counts[countFree] > keepFree {
		busy = w.trim(now) || busy
	}
	return busy
}

// report publishes data for other threads: the metrics of w, and, while the runtime drains, the
// counts of its tasks.
func (w *worker) report(now int64) {
	if now-w.publishedAt >= publishEvery {
		w.publish(now)
	}
	if w.rt.draining.Load() {
		w.ackCount()
	}
}

// sizeRound sets the size of the next round, so that it takes about roundTime if its polls take as
// long as the polls of this round. ran is the number of polls, and took their duration in
// nanoseconds.
//
// It wakes a thief if the queued tasks are more than worthThief of work at this rate. It asks for
// any worker, and not only for an active worker, if they are more than worthInactiveThief or if w
// has no descriptors: the active set is sized for connections, and does not limit other work. A
// request that finds no sleeping worker is repeated in the next turn.
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

// round polls tasks, at most limit of them, and counts them in roundPolls. A poll that panics or
// calls Goexit ends its task and the round.
//
// One deferred call serves all polls of a round, since a deferred call for each poll would slow
// down short polls. That is why a panic ends the round.
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

// mayRun reports whether the round has room for another task. After the first poll of a sampled
// turn it also notes how long that poll took.
func (w *worker) mayRun() bool {
	if w.sampled && w.roundPolls == 1 {
		w.sampled = false
		w.polled(nanos() - w.roundBegun)
	}
	return w.roundPolls < w.roundLimit && !w.endRound.Load()
}

// beginNext begins the next task in co, a coroutine whose own task has just ended. That saves a
// switch to the worker's stack and back. It is called on co, in the middle of the worker's poll of
// the task that has ended, and does for both tasks the steps that poll would do: endTask, then
// beginPoll.
//
// It reports false if the round has no room, if there is no task, or if the next task is not
// straight-line code that has yet to begin. In the last case it leaves the task in popped, where
// round finds it. If polls are observed it always reports false, since hooks and labels surround
// the poll of one task.
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

// recoverPoll is round's deferred call. It ends the task whose poll panicked or called Goexit. If
// all polls have returned, there is no current task, and it does nothing.
//
// There are three cases:
//
//   - A Goexit in straight-line code. The coroutine has ended its task, and itself. goexitToPanic
//     has turned the Goexit into a panic with the value goexited, so that it does not reach the
//     worker.
//   - A Goexit in the Poll of a plain future. recover returns nil. The worker's goroutine goes on
//     unwinding to serve, or to turnsInCoroutine.
//   - A panic in the Poll of a plain future, or in code of the package around a poll.
func (w *worker) recoverPoll() {
	t := w.current
	if t == nil {
		return
	}
	err := ErrGoexit
	switch v := recover().(type) {
	case nil:
	case goexited:
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

// nextTask returns the next task to run, or nil. There are two run-next slots and two queues: of
// each, one has tasks that other workers may take (runNext, queue), and the other has tasks that
// only this worker may run (runNextLocal, local). The order is:
//
//  1. A run-next slot, unless nextInARow of them have been served in a row.
//  2. The older of the first tasks of the two queues. Each entry of local has the ticket that it
//     would have got in queue, so that the two are served as one. See localQueue.
//  3. The first task of local, whatever its ticket, if queue is empty. Its ticket may be too high:
//     a thief may have taken tasks that it counts.
//  4. A run-next slot, also after nextInARow of them.
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

// takeRunNext empties one of the two run-next slots and returns its task, or nil if both are empty.
// It begins with each slot in turn, so that neither slot waits for long. The load before the swap
// saves a locked instruction if the slot is empty. The swap may still find nothing, because a thief
// has taken the task.
func (w *worker) takeRunNext() *task {
	w.sharedFirst = !w.sharedFirst
	if w.sharedFirst || w.runNextLocal == nil {
		if w.runNext.Load() != nil {
			if t := w.runNext.Swap(nil); t != nil {
				return t
			}
		}
	}
	t := w.runNextLocal
	w.runNextLocal = nil
	return t
}

// poll polls t, which w holds, and then does one of the following:
//
//   - If t has ended, it drops t.
//   - If t has yielded, w keeps holding it and queues it again, without a locked instruction for
//     the state.
//   - If t waits, w lets go of it. From this moment a waker on any thread may become its holder, so
//     w writes to t (since, the list) before suspend and not after it. If t was woken during the
//     poll, suspend fails, w still holds t, and queues it again.
//
// A task that waits for the first time, and code that yields for the first time, is put on the list
// of w, so that Shutdown finds it.
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
	t = w.current // the last of the tasks that beginNext has begun meanwhile, or still the first task
	w.current = nil
	yielded := w.yielded
	w.yielded = false
	switch {
	case done:
		w.endTask(t)
		return
	case yielded:
		if t.listedAt == 0 && (t.kind == kindStraight || w.rt.closing.Load()) {
			// Only this list shows Shutdown the straight-line code in the local queue. While the
			// runtime closes, list also cancels t.
			w.list(t)
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

// beginPoll is called before t is polled. It answers the wakes of t that have come so far, makes w
// the worker of t, to which wakes send it, and gives the poll its budget. If this task was chosen
// for the measurement of wakes, it notes how long ago the wake was.
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

// endTask is called after the last poll of t. It clears yielded, and clears accepted if that is t,
// so that the garbage collector can free t. visible may refer to t until setVisible changes it.
func (w *worker) endTask(t *task) {
	w.yielded = false
	if w.accepted == t {
		w.accepted = nil
	}
}

// setVisible shows other threads which task is polled. The stall report, Tasks and Shutdown read
// it.
//
// Straight-line code makes itself visible once t.g is set, since cancelAll cancels the visible
// task. Plain futures without attributes are not shown: their polls follow each other so quickly
// that it would cost a third of their time. For them, and for nil, visible becomes nil.
func (w *worker) setVisible(t *task) {
	if t != nil && t.kind == kindPlain && t.attributes.Load() == nil {
		t = nil
	}
	if w.visible.Load() != t {
		w.visible.Store(t)
	}
	w.hasVisible = t != nil
}

// pollObserved polls the task in a runtime that has hooks for polls, or labels. A task of the
// runtime's own that surveys the other tasks is not shown to hooks. AfterPoll is deferred, so it is
// also called for a poll that panics.
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

// yield makes the current task be queued again after its poll, behind the tasks that are queued. It
// needs no atomics, since the worker holds the task all the time.
func (w *worker) yield(t *task) {
	t.waits = waitsYield
	w.yielded = true
}

// push appends t, which the caller holds, to one of the queues of w: to local if only w may run it.
// It wakes a thief when the run queue has spilled another ringSize tasks, since the ring's length
// alone says little about the work in it. Only the thread of w calls it.
func (w *worker) push(t *task) {
	if !t.movable() {
		w.local.push(t, w.queue.ticket())
	} else if w.queue.push(t) {
		w.wakeThief(true)
	}
}

// pushNext puts t, which the caller holds, into a run-next slot. The task that runs now has woken
// or spawned t, so their common data is in the cache. A task that was in the slot goes to the end
// of its queue.
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

// spawn queues a new task of code that runs on w. If t.w is set, the task starts on that worker.
// Otherwise it starts on w, in the run-next slot. There is one exception: see below for the first
// task after an Accept.
//
// The IDs of tasks need no common counter. With n workers, the IDs that worker i gives have the
// remainder i+1 modulo n+1, and the IDs of tasks from outside (Runtime.nextID) have the remainder
// 0.
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
		// The first task that is spawned after an Accept is taken to be the task of the connection.
		// It stays on the worker where it starts, perhaps for long, so the load is spread now.
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
	// The data of t is in the cache. Besides, fewer stacks are in use at once if a task runs soon
	// after it was spawned.
	w.pushNext(t)
}

// send passes t, which the caller holds, to w by its inbox. The caller may run on any thread. The
// inbox is a list to which senders push by a compare-and-swap, and which w takes as a whole
// (takeInbox), so there is no ABA problem. From the compare-and-swap on the inbox holds t, and the
// caller must not touch it.
//
// The order of the two steps matters: first the message, then unpark. See idle.go.
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

// receive removes the timers that other threads have dropped, and queues the tasks that they have
// sent, in the order in which they were sent. It reports whether there was a task.
func (w *worker) receive() bool {
	w.takeDropped()
	n := w.pushList(w.takeInbox())
	w.counts[countReceived] += n
	return n > 0
}

// takeInbox empties the inbox of w and returns its tasks, the oldest first, which the caller then
// holds. Any thread may call it: a thief does so for a stuck worker, and Shutdown for a report.
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

// progressEvery is how many tasks or timers a worker may go through outside a poll before it
// changes its turn: less than a millisecond of work.
const progressEvery = 1024

// countProgress is called with 0, 1 and so on by code that goes through tasks or timers, of which
// there may be many. It changes the turn now and then, so that the watchdog does not take the
// worker to be stuck in a poll.
func (w *worker) countProgress(n uint64) {
	if n%progressEvery == progressEvery-1 {
		w.turn.Add(1)
	}
}

// hasTasks reports whether w has a task that is ready to run. The inbox does not count.
func (w *worker) hasTasks() bool {
	return w.runNextLocal != nil || w.local.n > 0 || w.runNext.Load() != nil || w.queue.len() > 0
}
