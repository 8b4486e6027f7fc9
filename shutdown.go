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

// Shutdown ends the runtime, in the stages that a server needs:
//
//  1. Listeners accept no more, and nothing is started from outside: [Listener.Accept],
//     BlockOn and tasks that are spawned outside the pool, with rt or in BlockOn,
//     fail with ErrShutdown. [Draining] returns. Tasks go on, and may spawn others.
//  2. Shutdown waits until all tasks have ended, or ctx has. With a ctx that
//     has ended already this stage is left out.
//  3. Tasks that still live are cancelled, as by JoinHandle.Cancel, as are the
//     Contexts of BlockOn, and no task can be spawned at all. Shutdown waits
//     again, for Config.Grace. A pause of the whole process does not count.
//  4. Every thread and descriptor of the runtime is freed.
//
// It returns nil if all tasks have ended and all data has been written that File.Write
// has accepted. If a write has failed and no call has returned the error, or has not
// ended, the error is an [*UnwrittenError], or wraps one. If tasks have not ended, it returns a
// *ShutdownError that names them, and tears the runtime down under them: code
// that waits is unwound with its deferred calls, futures are given up, both
// with ErrShutdown; code that does not wait keeps its thread until it does.
// For that Shutdown waits no longer than Config.Grace either, and again for a report to Config.Unhandled that does not
// return. So after the end of ctx it takes at most three times Config.Grace, and the time that Config.Stalled takes. Connections remain the property of the code
// that opened them; close them.
//
// A second call waits for the first, for as long as its ctx lets it, and returns
// the result of the first call. Shutdown
// panics in a task, and in a function that BlockOn or SpawnBlocking runs on rt: it
// would wait for itself.
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
	unwritten := rt.files.finishWithin(grace) // of code that was unwound, too
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

// grace returns a context that ends after Config.Grace. If the whole process is
// paused, the pause uses up only a tenth of that time, so that the tasks and workers
// for which Shutdown waits have time to answer.
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

// IsDraining reports whether the code of cx should finish what it does and begin nothing new:
// [Runtime.Shutdown] has begun, or, in a Handler, its Server has been asked to end. In a
// task that a Handler spawns it reports only Runtime.Shutdown.
func IsDraining(cx *Context) bool {
	cx.here()
	if own := drainStateOf(cx.t); own != nil && own.begun.Load() {
		return true
	}
	return cx.draining()
}

// Draining waits until IsDraining reports true, and returns nil then. It is for tasks that work
// without end, and should end in time; in Select use [DrainingFuture]. It fails only with
// cx.Err(), if cx is cancelled.
func Draining(cx *Context) error {
	_, err := Await(cx, DrainingFuture())
	return err
}

// DrainingFuture returns Draining as a future, for the code that polls it.
func DrainingFuture() Future[None] { return new(drainingFuture) }

// drainState is the draining of a part of the runtime.
type drainState struct {
	begun   atomic.Bool
	waiters wakerSlot
}

// begin begins to drain, and reports false if that was done before.
func (d *drainState) begin() (first bool) {
	if first = !d.begun.Swap(true); first {
		d.waiters.fire(nil)
	}
	return first
}

// drainer is implemented by the body of a task that belongs to such a part.
type drainer interface{ drainState() *drainState }

// drainStateOf returns the drainState of t; nil if t ends with the runtime only.
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

// drain has new tasks from outside refused, and makes the tasks that accept look again.
func (rt *Runtime) drain() {
	rt.draining.Store(true)
	rt.drained.fire(nil)
	rt.fds.notifyAll(nil) // tasks that accept
}

// stopWorkers ends the workers, and waits until they have, or grace has ended.
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
		p.wake(nil) // this ends awaits that cancellation does not end, too
	}
}

// mustNotBeInside panics if the calling goroutine runs code for which Shutdown
// waits.
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

// cancelAll cancels every task that is in a list, or is straight-line code that runs now;
// worker.list cancels the tasks that come into a list later.
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

// blockedGoroutines returns the goroutines in BlockOn.
func (rt *Runtime) blockedGoroutines() (ps []*blockOnParker) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for p := range rt.blockOns {
		ps = append(ps, p)
	}
	return ps
}

// awaitTasks waits until no task lives.
//
// Tasks may be spawned on one worker and end on another, and each worker
// counts for itself, so a sum of counts taken at different moments means
// nothing. But counts only grow, and only tasks that live spawn others: if two
// counts, one taken wholly after the other, find the same numbers, and as many
// ends as spawns, then no task lived in between, and none ever will.
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

// taskCount is how many tasks there have been.
type taskCount struct{ spawned, ended int64 }

// countTasks counts the tasks that were spawned and that have ended. Each worker reads its
// own counts after the call began, and acknowledges that.
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
	// Read the counts only now, after the last receive from countChanged here: a
	// change that comes later is notified to awaitTasks.
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

// unbegun describes the tasks that are queued where other workers can take them from w, and
// that have not been polled yet, so that they are in no list. Only the holder of a task may
// look at it: so unbegun takes the tasks away and sends them back.
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

// A ShutdownError is the error of Shutdown if its context ended before the
// tasks did. Not in Tasks are futures that were being polled for the first time, and
// tasks that a stuck worker has not begun if no other worker may run them: see Local.
type ShutdownError struct {
	Tasks []TaskInfo
	Err   error // the context's error
}

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

// Unwrap returns the context's error.
func (e *ShutdownError) Unwrap() error { return e.Err }

// waitingList is a worker's list of the tasks that have not ended and that
// Shutdown could not find otherwise: tasks that have waited at least once, since only their
// wakers know them, and straight-line code that has yielded, since only w knows its local queue.
// A task that ends in its first poll never comes here.
type waitingList struct {
	mu    lockOf[waitingList]
	tasks []*task // each knows its index
}

// list puts t, which w holds, on w's list.
func (w *worker) list(t *task) {
	t.listedAt = uint16(w.index) + 1
	w.waiting.add(t)
	if w.rt.closing.Load() {
		t.cancel(taskByShutdown) // Shutdown has been through the list already, or is now
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
		l.tasks = append(make([]*task, 0, c/2), l.tasks...) // a burst is over
	}
}

// all returns the tasks that are in the list.
func (l *waitingList) all() []*task {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.tasks)
}

// ackCount publishes, while the runtime drains, how many tasks were spawned on w and
// how many ended there, and acknowledges the last request of countTasks.
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

// cleanUp ends the tasks that are left when the worker ends. There are tasks only if
// Shutdown has given up waiting for them.
func (w *worker) cleanUp() {
	w.unwinding = true
	defer w.exit()
	defer w.stopCoroutines()
	w.abortAll()
}

// abortAll ends one task after the other until w has none. If the Cancel of a
// future calls Goexit, it goes on in its deferred call.
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

// lastLook is how long a worker that ends waits for tasks in its list that have another
// holder: they stand in the queue of another worker, which ends them, or are about to
// be sent here. The sender needs a microsecond, unless its thread has lost its
// processor. If the other worker is stuck the tasks are left to it after this time.
const lastLook = 5 * time.Second

// lastTask returns a task for w to end, which w then holds: a task that is queued,
// or else a waiting task whose holder it can become. It returns nil once no task
// stands in w's list, or after lastLook.
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

// inherit takes the tasks that were sent to workers that have ended already. Code that
// has begun can be unwound by its own worker only.
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

// exit is the worker's last act.
func (w *worker) exit() {
	w.ackCount()
	w.reactor.close()
	w.rt.fds.notifyAll(&w.reactor)
	w.publish(nanos())
	if h := w.rt.cfg.Tuning.Hooks.WorkerStop; h != nil {
		h(w.index)
	}
	close(w.exited)
}
