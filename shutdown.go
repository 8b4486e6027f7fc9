package async

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The stages of a shutdown are flags of the Runtime. They are set in this order and never cleared:
//
//	           new tasks from outside   new tasks of tasks   tasks       workers
//	draining   refused                  start                go on       run
//	closing    refused                  refused              cancelled   run
//	stopping   refused                  refused              unwound     end
//
// BlockOn is refused from the beginning, by the field shutting, under rt.mu. A call of
// SpawnBlocking is refused under the lock of the pool (callPool.tooLate). Surveys of Runtime.Tasks
// start until stopping.
//
// Counting. Shutdown must find out that no task lives. A lock or an atomic count of the tasks would
// cost each spawn and each end a write to memory that all workers share. So each worker counts for
// itself, without atomics, the tasks that were spawned on it and the tasks that have ended on it. A
// task may be spawned on one worker and end on another. Tasks from outside, BlockOn and blocking
// calls have counters of their own. One count of all (countTasks) goes like this:
//
//  1. Shutdown adds one to countRequests, which makes the number n of this request, and unparks all
//     workers.
//  2. Each worker, at the end of each turn while the runtime drains, reads countRequests and its
//     own two counters. If there is a new request, or if tasks have ended, it stores the counters
//     in ackedSpawned and ackedEnded, then the number of the request in acked, and notifies
//     countChanged (ackCount).
//  3. Shutdown waits until acked is at least n for each worker. So each worker has read its
//     counters after step 1.
//  4. Shutdown adds up the acknowledged counters and the counters of the others.
//
// awaitTasks counts until two counts, the second begun after the first was complete, find the same
// numbers, and as many ends as spawns. Then no task lives, and none will:
//
//  1. Let T be a moment between the two counts. Each counter was read before T for the first count,
//     and after T for the second. Counters only grow, and the two readings agree. So each counter
//     had this value at T.
//  2. The sums are therefore exact for T, although no two counters were read at the same moment: as
//     many tasks had ended as were spawned. So no task lived at T.
//  3. Only a task that lives, or code outside, can spawn another. Code outside is refused since the
//     runtime drains: spawnOn adds to the counter of spawns before it reads draining, so a task
//     that is not refused was counted, and a refused task is counted as spawned and as ended. (A
//     survey is not refused. It spawns no task, and Runtime.Tasks does not wait for it for long.)
//
// One count is not enough: a task that was spawned on a worker after this worker had acknowledged,
// and that ended on a worker which acknowledged later, would count as an end without a spawn. This
// could hide another task that lives.
//
// Shutdown does not miss the last end. A worker acknowledges anew when tasks have ended, and the
// ends of other tasks notify countChanged, too. countTasks reads the counters after its last
// receive from countChanged, so a change after that leaves a value in the channel, which awaitTasks
// receives.
//
// Cancelling all tasks (cancelAll). A task that lives is in a list of waiting tasks, or is
// straight-line code that a worker runs (worker.visible), or is in a queue and not begun, or is a
// plain future in its first poll. The steps are:
//
//  1. cancelAll sets closing, and then reads the lists and visible of each worker, and cancels the
//     tasks.
//  2. A worker that puts a task on its list does so and then reads closing (list). If closing is
//     set, it cancels the task. So at least one of the two cancels the task.
//  3. A worker that begins straight-line code stores it in visible and then reads closing. If
//     closing is set, it puts the task on its list, and step 2 cancels it.
//  4. A task that is in a queue and not begun is cancelled when it waits or yields for the first
//     time, or begins: by step 2 or 3.
//
// Stopping a worker (cleanUp, on its own thread):
//
//  1. The worker takes one task after the other from its queues, its inbox and its list, and from
//     the inboxes of workers that have ended, and ends it with ErrShutdown (abort). A coroutine
//     that waits is unwound: its wait becomes a Goexit, and its deferred calls run. A future is
//     given up.
//  2. A task in its list may have another holder, for example another worker that is about to send
//     it here. The worker waits for such tasks, but not longer than lastLook.
//  3. It ends its free coroutines, acknowledges its counters a last time, closes its reactor,
//     notifies the tasks that wait for its descriptors, and closes exited.
//  4. It looks at its inbox once more, and ends tasks that have not begun (abortInbox); see sendNew.

// Shutdown ends the runtime. It is made for servers, and has four stages:
//
//  1. Code outside can no longer start anything. [Listener.Accept], [BlockOn], and tasks that are
//     spawned outside the pool or in BlockOn, fail with [ErrShutdown]. [Draining] returns. Tasks go
//     on, and may spawn others.
//  2. Shutdown waits until all tasks have ended, or ctx has ended. If ctx has ended before,
//     Shutdown does not wait.
//  3. The tasks that are left are cancelled, as by [JoinHandle.Cancel], and so are the Contexts of
//     BlockOn. No task can be spawned at all. Shutdown waits again, for [Config.Grace]. A pause of
//     the whole process does not count.
//  4. Every thread and descriptor of the runtime is freed.
//
// Shutdown returns nil if all tasks have ended, and all data is written that [File.Write] has
// accepted. Otherwise its error is one of these, or joins both (see [errors.Join]):
//
//   - a [*ShutdownError] names the tasks that have not ended. The runtime is torn down under them:
//     code that waits is unwound, so that its deferred calls run, and futures are given up. The
//     error of such a task is ErrShutdown. Code that does not wait keeps its thread until it does.
//   - an [*UnwrittenError] says that a write has failed and no call has returned its error, or that
//     a write has not ended.
//
// After the end of ctx, Shutdown takes at most three times Config.Grace, plus the time that
// [Config.Stalled] takes. It waits that long for cancelled tasks, for the end of the workers, and
// for a report to [Config.Unhandled] that does not return. Shutdown closes no connections: they
// belong to the code that has opened them.
//
// Shutdown may be called concurrently. Every call but the first waits for the first and returns its
// result, or ctx.Err() if its own ctx ends before. Shutdown panics in a task, and in a function
// that BlockOn or [SpawnBlocking] runs on rt, because it would wait for itself.
func (rt *Runtime) Shutdown(ctx context.Context) error {
	mustNotBlock("Runtime.Shutdown", "a goroutine of its own")
	rt.mustNotBeInside()
	ctx, release := contextOutsideBubble(ctx)
	defer release()
	var err error
	outsideBubble(func() { err = rt.shutdown(ctx) })
	return err
}

func (rt *Runtime) shutdown(ctx context.Context) error {
	rt.mu.Lock()
	first := !rt.shutting
	rt.shutting = true
	rt.mu.Unlock()
	if !first {
		return rt.awaitEnd(ctx)
	}
	defer close(rt.ended)
	rt.drain()
	if late := rt.awaitTasks(ctx); late != nil {
		rt.outcome = rt.endTasks(late)
	}
	rt.closing.Store(true)
	grace, cancel := rt.grace()
	defer cancel()
	rt.stopWorkers(grace)
	unwritten := rt.files.finishWithin(grace) // also data of code that was unwound
	rt.outcome = bothErrors(rt.outcome, unwritten)
	rt.calls.close()
	rt.files.close()
	rt.watchdog.stop()
	rt.idle.close()
	rt.dropProcs()
	rt.failures.reportAll(rt.cfg.Grace)
	return rt.outcome
}

// endTasks is the third stage. late is the error of the context that has ended.
func (rt *Runtime) endTasks(late error) error {
	rt.cancelAll()
	grace, cancel := rt.grace()
	defer cancel()
	if rt.awaitTasks(grace) == nil {
		return nil
	}
	return &ShutdownError{Tasks: rt.left(), Err: late}
}

// grace returns a context that ends after Config.Grace. It adds up ten timers of a tenth of the
// time: a pause of the whole process makes only one of them fire early, so the tasks and workers
// for which Shutdown waits still have nine tenths to answer.
func (rt *Runtime) grace() (context.Context, context.CancelFunc) {
	const parts = 10
	part := rt.cfg.Grace / parts
	ctx, cancel := context.WithCancel(context.Background())
	var (
		mu   sync.Mutex // the timer may fire before it is assigned, and while it is stopped
		left = parts
		tick *time.Timer
	)
	mu.Lock()
	defer mu.Unlock()
	tick = time.AfterFunc(part, func() {
		mu.Lock()
		defer mu.Unlock()
		if left--; left == 0 {
			cancel()
		} else if ctx.Err() == nil {
			tick.Reset(part)
		}
	})
	return ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		cancel()
		tick.Stop()
	}
}

// awaitEnd is the Shutdown of all callers but the first.
func (rt *Runtime) awaitEnd(ctx context.Context) error {
	select {
	case <-rt.ended:
		return rt.outcome
	default:
	}
	select {
	case <-rt.ended:
		return rt.outcome
	case <-ctx.Done():
		return ctx.Err()
	}
}

// IsDraining reports whether the code of cx should finish its work and begin nothing new. This is
// so when [Runtime.Shutdown] has begun, and, in a [Handler], also when the [Server] has been asked
// to end. In a task that a Handler spawns, it reports only Runtime.Shutdown.
func IsDraining(cx *Context) bool {
	cx.here()
	if own := drainStateOf(cx.t); own != nil && own.begun.Load() {
		return true
	}
	return cx.draining()
}

// Draining waits until [IsDraining] reports true, and then returns nil. It is for tasks that work
// without end, so that they can finish in time. If cx is cancelled, it returns cx.Err(). In
// [Select] use [DrainingFuture].
func Draining(cx *Context) error {
	_, err := Await(cx, DrainingFuture())
	return err
}

// DrainingFuture returns the future of [Draining], with the same result. If it is given up, nothing
// is lost.
func DrainingFuture() Future[None] { return new(drainingFuture) }

// drainState is the draining of a part of the runtime, for example of a Server.
type drainState struct {
	begun   atomic.Bool
	waiters wakerSlot
}

// begin begins to drain. It reports false if that has happened before.
func (d *drainState) begin() (first bool) {
	if first = !d.begun.Swap(true); first {
		d.waiters.fire(nil)
	}
	return first
}

// drainer is implemented by the body of a task that belongs to a part of the runtime with a
// drainState, for example to a call of Serve.
type drainer interface{ drainState() *drainState }

// drainStateOf returns the drainState of t, or nil if t drains only with the runtime.
func drainStateOf(t *task) *drainState {
	if d, ok := t.body.(drainer); ok {
		return d.drainState()
	}
	return nil
}

type drainingFuture struct{ t *task }

func (d *drainingFuture) Poll(cx *Context) (None, error) {
	if !cx.spend() {
		return None{}, ErrPending
	}
	for !IsDraining(cx) {
		// Draining may begin before cx's task has joined both slots: then a join consumes the event
		// and reports false, or IsDraining is true now.
		d.t = cx.waker(waitsFuture)
		waits := d.t.w.rt.drained.join(d.t)
		if own := drainStateOf(d.t); own != nil {
			waits = own.waiters.join(d.t) && waits
		}
		if waits && !IsDraining(cx) {
			return None{}, cx.unspent(ErrPending)
		}
	}
	d.Cancel()
	return None{}, nil
}

// Cancel implements canceler.
func (d *drainingFuture) Cancel() {
	if d.t == nil {
		return
	}
	d.t.w.rt.drained.leave(d.t, nil)
	if own := drainStateOf(d.t); own != nil {
		own.waiters.leave(d.t, nil)
	}
	d.t = nil
}

// drain is the first stage. New tasks from outside are refused from now on, and tasks that accept
// look again.
func (rt *Runtime) drain() {
	rt.draining.Store(true)
	rt.drained.fire(nil)
	rt.fds.notifyAll(nil) // tasks that accept see draining
}

// stopWorkers ends the workers, and waits until they have ended, or grace has.
func (rt *Runtime) stopWorkers(grace context.Context) {
	rt.stopping.Store(true)
	rt.shared.close()
	for _, w := range rt.workers {
		w.unpark()
	}
	for _, w := range rt.workers {
		select {
		case <-w.exited:
		case <-grace.Done():
		}
	}
	rt.shared.awaitEnd(grace)
	for _, p := range rt.blockedGoroutines() {
		p.wake(nil) // stopping is set: this also ends awaits with a Context of WithoutCancel
	}
}

// mustNotBeInside panics if the calling goroutine runs code for which Shutdown waits.
func (rt *Runtime) mustNotBeInside() {
	if rt.calls.runsCaller() {
		panic("async: Runtime.Shutdown was called in a call of SpawnBlocking on the runtime, and would wait for it; call it on a goroutine of its own")
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for p := range rt.blockOns {
		if p.g.Load() == getg() {
			panic("async: Runtime.Shutdown was called in a function that BlockOn runs on the runtime, and would wait for it; call it after BlockOn")
		}
	}
}

// cancelAll cancels all tasks, or makes sure that they are cancelled later; see the head of this
// file.
func (rt *Runtime) cancelAll() {
	rt.closing.Store(true)
	for _, w := range rt.workers {
		for _, t := range w.waiting.all() {
			t.cancel(taskByShutdown)
		}
		if t := w.visible.Load(); t != nil && t.kind == kindStraight {
			t.cancel(taskByShutdown)
		}
	}
	for _, p := range rt.blockedGoroutines() {
		p.cancel(taskByShutdown)
	}
	rt.calls.cancelQueued()
}

// blockedGoroutines returns the tasks of the goroutines in BlockOn.
func (rt *Runtime) blockedGoroutines() (ps []*blockOnParker) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for p := range rt.blockOns {
		ps = append(ps, p)
	}
	return ps
}

// awaitTasks waits until no task lives. The head of this file shows why two counts prove this.
func (rt *Runtime) awaitTasks(ctx context.Context) error {
	last := taskCount{spawned: -1}
	for {
		now, err := rt.countTasks(ctx)
		if err != nil {
			return err
		}
		over := now.spawned == now.ended
		if over && now == last {
			return nil
		}
		if last = now; over {
			continue
		}
		select {
		case <-rt.countChanged:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// taskCount is how many tasks were spawned and have ended so far.
type taskCount struct{ spawned, ended int64 }

// countTasks returns how many tasks were spawned and have ended so far. Each worker reads its
// counters after the call began. If ctx ends before all workers have answered, countTasks returns
// ctx.Err().
func (rt *Runtime) countTasks(ctx context.Context) (c taskCount, err error) {
	n := rt.countRequests.Add(1)
	for _, w := range rt.workers {
		w.unpark()
	}
	for _, w := range rt.workers {
		for w.acked.Load() < n {
			select {
			case <-rt.countChanged:
			case <-ctx.Done():
				return c, ctx.Err()
			}
		}
	}
	// Read the counters only now, after the last receive from countChanged here: a later change
	// leaves a value in the channel for awaitTasks.
	for _, w := range rt.workers {
		c.spawned += w.ackedSpawned.Load()
		c.ended += w.ackedEnded.Load()
	}
	c.spawned += rt.foreign.Load()
	c.ended += rt.refused.Load()
	rt.calls.admission.mu.Lock()
	c.spawned += rt.calls.spawned
	c.ended += rt.calls.ended
	rt.calls.admission.mu.Unlock()
	rt.mu.Lock()
	defer rt.mu.Unlock()
	c.spawned += int64(rt.blockOnsBegun)
	c.ended += int64(rt.blockOnsBegun) - int64(len(rt.blockOns))
	return c, nil
}

// left describes the tasks that live.
func (rt *Runtime) left() (infos []TaskInfo) {
	for _, w := range rt.workers {
		infos = append(infos, w.listed()...)
		infos = append(infos, w.unbegun()...)
	}
	infos = append(infos, rt.blockOnInfos()...)
	return uniqueByID(append(infos, rt.calls.infos()...))
}

// unbegun describes the tasks that wait in queues of w from which other workers can take them, and
// that were not polled yet, so that they are in no list. Only the holder of a task may look at it.
// So unbegun takes the tasks out of the queues and sends them back.
func (w *worker) unbegun() (infos []TaskInfo) {
	var all []*task
	add := func(t *task) {
		for ; t != nil; t = t.next {
			all = append(all, t)
		}
	}
	add(w.runNext.Swap(nil))
	for t := w.queue.steal(); t != nil; t = w.queue.steal() {
		add(t)
	}
	add(w.takeInbox())
	for _, t := range all {
		if t.listedAt == 0 && !t.surveys() {
			infos = append(infos, TaskInfo{Task: t.ident(), Kind: t.kind.String(), State: "runnable"})
		}
		w.send(t)
	}
	return infos
}

// A ShutdownError is the error of [Runtime.Shutdown] if its context has ended before the tasks
// have. Tasks that a stuck worker has not begun, and that no other worker may run (see [Local]),
// are not named, nor are futures that were being polled for the first time.
type ShutdownError struct {
	Tasks []TaskInfo // the tasks that have not ended
	Err   error      // the error of the context
}

// Error returns, in one line, the error of the context, the number of the tasks, and the first ten
// of them.
func (e *ShutdownError) Error() string {
	const shown = 10
	var b strings.Builder
	fmt.Fprintf(&b, "async: shutdown: %v; tasks that have not ended: %d", e.Err, len(e.Tasks))
	for i, t := range e.Tasks {
		if i == shown {
			fmt.Fprintf(&b, ", and %d more", len(e.Tasks)-shown)
			break
		}
		fmt.Fprintf(&b, "; %v", t)
	}
	return b.String()
}

// Unwrap returns [ShutdownError.Err], the error of the context.
func (e *ShutdownError) Unwrap() error { return e.Err }

// A waitingList has the tasks of a worker that have not ended and that Shutdown could not find
// otherwise:
//
//   - tasks that have waited at least once, since only their wakers refer to them;
//   - straight-line code that has yielded, since only the worker sees its local queue.
//
// A task that ends in its first poll is never in the list. Shutdown needs the list, and so costs
// only tasks that wait: an uncontended lock when a task first waits, and when it ends.
type waitingList struct {
	mu    lockOf[waitingList]
	tasks []*task // task.listIndex is the index of each
}

// list puts t on w's list. w is the holder of t.
func (w *worker) list(t *task) {
	t.listedAt = uint16(w.index) + 1
	w.waiting.add(t)
	if w.rt.closing.Load() {
		t.cancel(taskByShutdown) // cancelAll may have read the list before
	}
}

func (l *waitingList) add(t *task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.listIndex = uint32(len(l.tasks))
	l.tasks = append(l.tasks, t)
}

func (l *waitingList) remove(t *task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.tasks) - 1
	moved := l.tasks[last]
	l.tasks[t.listIndex], moved.listIndex = moved, t.listIndex
	l.tasks[last] = nil
	l.tasks = l.tasks[:last]
	if c := cap(l.tasks); c > 1024 && last < c/4 {
		l.tasks = append(make([]*task, 0, c/2), l.tasks...) // a burst is over: give memory back
	}
}

// all returns a copy of the list.
func (l *waitingList) all() []*task {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.tasks)
}

// ackCount is step 2 of a count: it publishes the counters of w, and acknowledges the last request.
// The worker calls it at the end of each turn while the runtime drains.
func (w *worker) ackCount() {
	n := w.rt.countRequests.Load()
	spawned, ended := int64(w.counts[countSpawned]), int64(w.counts[countEnded])
	if n == w.acked.Load() && ended == w.ackedEnded.Load() {
		return
	}
	w.ackedSpawned.Store(spawned)
	w.ackedEnded.Store(ended)
	w.acked.Store(n)
	notifyChan(w.rt.countChanged)
}

// cleanUp ends the tasks that are left when the worker ends. There are such tasks only if Shutdown
// no longer waits for them.
func (w *worker) cleanUp() {
	w.unwinding = true
	defer w.exit()
	defer w.stopCoroutines()
	w.abortAll()
}

// abortAll ends one task after the other, until lastTask returns nil. If the Cancel of a future
// calls Goexit, abortAll goes on in its deferred call.
func (w *worker) abortAll() {
	returned := false
	defer func() {
		if !returned {
			w.abortAll()
		}
	}()
	for t := w.lastTask(); t != nil; t = w.lastTask() {
		w.abort(t)
	}
	returned = true
}

func (w *worker) stopCoroutines() {
	for co := w.freeCoroutines; co != nil; co = w.freeCoroutines {
		w.freeCoroutines = co.free
		co.unwind()
	}
}

// lastLook is how long a worker that ends waits for tasks in its list that have another holder.
// Such a task is in the queue of another worker, which will end it, or is about to be sent here. A
// sender needs a microsecond, unless its thread has lost its processor. If the other worker is
// stuck, its tasks are left to it after this time.
const lastLook = 5 * time.Second

// lastTask returns a task for w to end: a task that is queued, or else a waiting task. w is its
// holder then. lastTask returns nil when w's list is empty, or after lastLook.
func (w *worker) lastTask() *task {
	begun := time.Now()
	for tries := 0; ; tries++ {
		w.receive()
		w.inherit()
		if t := w.nextTask(); t != nil {
			return t
		}
		for len(w.left) > 0 {
			t := w.left[0]
			w.left = w.left[1:]
			if t.state.wake() {
				return t
			}
		}
		w.left = w.waiting.all()
		if len(w.left) == 0 || time.Since(begun) > lastLook {
			return nil
		}
		if tries > 0 {
			time.Sleep(50 * time.Microsecond << min(tries, 10))
		}
	}
}

// inherit empties the inboxes of workers that have ended, and queues their tasks on w. It drops code
// that has begun: only its own worker could have unwound it.
func (w *worker) inherit() {
	for _, o := range w.rt.workers {
		if !o.ended() {
			continue
		}
		for t := o.takeInbox(); t != nil; {
			next := t.next
			if t.next = nil; t.g.Load() == 0 {
				w.push(t)
			}
			t = next
		}
	}
}

func (w *worker) ended() bool {
	select {
	case <-w.exited:
		return true
	default:
		return false
	}
}

func (w *worker) abort(t *task) {
	t.w, w.current = w, t
	defer func() { w.current = nil }()
	t.body.abort(w, ErrShutdown)
}

// exit is the last step of a worker.
func (w *worker) exit() {
	w.ackCount()
	w.reactor.close()
	w.rt.fds.notifyAll(&w.reactor)
	w.publish(nanos())
	if h := w.rt.cfg.Tuning.Hooks.WorkerStop; h != nil {
		h(w.index)
	}
	close(w.exited)
	w.abortInbox() // see sendNew
}
