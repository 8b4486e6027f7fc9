package async

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Shutdown ends the runtime. New tasks are refused with ErrShutdown; those
// that live are cancelled, as by JoinHandle.Cancel, as are the Contexts of
// BlockOn. Shutdown waits until all have ended, and then frees every thread
// and descriptor.
//
// If ctx ends first, Shutdown returns a *ShutdownError that names the tasks
// that are left, and tears the runtime down under them: code that waits is
// unwound with its deferred calls, futures are given up, both with
// ErrShutdown; code that does not wait keeps its thread until it does.
// Connections remain the property of those who opened them; close them.
//
// A second call waits for the first. Shutdown panics in a task, and in a
// function that BlockOn runs on rt: it would wait for itself.
func (rt *Runtime) Shutdown(ctx context.Context) error {
	mustNotBlock("Runtime.Shutdown", "a goroutine of its own")
	rt.mustNotBeInside()
	rt.mu.Lock()
	first := !rt.shutting
	rt.shutting = true
	rt.mu.Unlock()
	if !first {
		select {
		case <-rt.ended:
			return nil
		default:
		}
		select {
		case <-rt.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}

	defer close(rt.ended)
	rt.closing.Store(true)
	rt.cancelAll()
	err := rt.drain(ctx)
	rt.stopping.Store(true)
	grace := ctx
	if err != nil {
		var cancel context.CancelFunc
		grace, cancel = context.WithTimeout(context.Background(), rt.cfg.Grace)
		defer cancel()
	}
	for _, w := range rt.workers {
		w.rouse()
	}
	for _, w := range rt.workers {
		select {
		case <-w.quit:
		case <-grace.Done():
		}
	}
	rt.watch.stop()
	if rt.ownProcs {
		procs.add(-len(rt.workers))
	}
	rt.failures.flush()
	return err
}

// mustNotBeInside panics if the calling goroutine is in BlockOn.
func (rt *Runtime) mustNotBeInside() {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for p := range rt.outside {
		if p.g == getg() {
			panic("async: Runtime.Shutdown was called in a function that BlockOn runs on the runtime, and would wait for it; call it after BlockOn")
		}
	}
}

// unwindTime is how long Shutdown waits for workers to unwind their tasks once
// its context has ended.
const unwindTime = time.Second

// cancelAll cancels every task that is in a list; those that come into one
// later are cancelled by that.
func (rt *Runtime) cancelAll() {
	for _, w := range rt.workers {
		for _, t := range w.waiting.all() {
			t.cancel()
		}
	}
	rt.mu.Lock()
	var ps []*parker
	for p := range rt.outside {
		ps = append(ps, p)
	}
	rt.mu.Unlock()
	for _, p := range ps {
		p.cancel()
	}
}

// drain waits until no task lives.
func (rt *Runtime) drain(ctx context.Context) error {
	for _, w := range rt.workers {
		w.rouse()
	}
	for rt.live() > 0 {
		select {
		case <-rt.told:
		case <-ctx.Done():
			return &ShutdownError{Tasks: rt.left(), Err: ctx.Err()}
		}
	}
	return nil
}

// live returns how many tasks live, or more than that. Since closing is set
// before and every worker tells after it has seen it, no spawn is missed.
func (rt *Runtime) live() (n int64) {
	n = -rt.refused.Load()
	n += rt.foreign.Load()
	for _, w := range rt.workers {
		n += w.live.Load()
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return n + int64(len(rt.outside))
}

// left describes the tasks that live.
func (rt *Runtime) left() (infos []TaskInfo) {
	for _, w := range rt.workers {
		for _, t := range w.waiting.all() {
			infos = append(infos, t.info())
		}
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for p := range rt.outside {
		infos = append(infos, p.info())
	}
	return infos
}

// A TaskInfo describes a task at one moment.
type TaskInfo struct {
	ID    uint64
	State string // "waiting"; "runnable" if it runs or is queued; of a goroutine in BlockOn "goroutine"
}

func (t *task) info() TaskInfo {
	state := "runnable"
	if t.kind == kindGoroutine {
		state = "goroutine"
	} else if t.state.bits.Load()&taskIdle != 0 {
		state = "waiting"
	}
	return TaskInfo{ID: t.id, State: state}
}

// A ShutdownError is what Shutdown returns if its context ended before the
// tasks did. Futures that were being polled for the first time are not in
// Tasks.
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
		fmt.Fprintf(&b, ", %d (%s)", t.ID, t.State)
	}
	return b.String()
}

// Unwrap returns the context's error.
func (e *ShutdownError) Unwrap() error { return e.Err }

// waitingList is a worker's list of the tasks that have not ended and that
// Shutdown could not find otherwise, since only their wakers know them: plain
// futures that have waited at least once, and straight-line code that has
// begun. A future that is ready at once never comes here.
type waitingList struct {
	mu    sync.Mutex
	tasks []*task // each knows its index
}

// list puts t, which w holds, on w's list.
func (w *worker) list(t *task) {
	t.listedAt = uint16(w.index) + 1
	w.waiting.add(t)
	if w.rt.closing.Load() {
		t.cancel() // Shutdown has been through the list already, or is now
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

// tell publishes, once no new tasks are taken, how many tasks of w live: those
// that were spawned on it less those that ended on it. Only the sum over all
// workers means something.
func (w *worker) tell() {
	w.told = true
	w.live.Store(int64(w.counts[countSpawned]) - int64(w.counts[countEnded]))
	notify(w.rt.told)
}

// cleanUp ends whatever is left when the worker ends: only Shutdown's giving
// up leaves tasks. Unwinding a coroutine ends in Goexit on this goroutine too,
// so what remains to be done stands in deferred calls.
func (w *worker) cleanUp() {
	w.unwinding = true
	defer w.exit()
	defer w.stopCoroutines()
	w.abortAll()
}

// abortAll ends one task after the other until w has none.
func (w *worker) abortAll() {
	t := w.lastTask()
	if t == nil {
		return
	}
	defer w.abortAll()
	w.abort(t)
}

// lastTask returns a task for w to end, which it then holds: one that is
// queued, or else one that waits and that it can get hold of.
func (w *worker) lastTask() *task {
	w.receive()
	if t := w.pick(); t != nil {
		return t
	}
	for again := false; ; again = true {
		for len(w.left) > 0 {
			t := w.left[0]
			w.left = w.left[1:]
			if t.state.wake() {
				return t
			}
		}
		if again {
			return w.pick() // what others have sent meanwhile
		}
		w.left = w.waiting.all()
	}
}

func (w *worker) abort(t *task) {
	t.w, w.current = w, t
	defer func() { w.current = nil }()
	t.body.abort(w, ErrShutdown)
}

func (w *worker) stopCoroutines() {
	co := w.coroutine
	if co == nil {
		return
	}
	w.coroutine = co.free
	defer w.stopCoroutines()
	co.stop()
}

// exit is the worker's last act.
func (w *worker) exit() {
	w.tell()
	changePools(func(all []*worker) []*worker {
		return slices.DeleteFunc(all, func(o *worker) bool { return o == w })
	})
	w.reactor.close()
	w.rt.fds.stir(w)
	w.publish(nanos())
	if h := w.rt.cfg.Hooks.WorkerStop; h != nil {
		h(w.index)
	}
	close(w.quit)
}
