package async

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// A Runtime is a pool of workers, and the tasks that run on it. It is also a [Spawner]: a task that
// is spawned with it starts on any worker. [New] makes a Runtime, [Runtime.Shutdown] ends it, and
// [Default] returns the Runtime of [Run]. Most programs need only Run.
//
// All methods may be called from any goroutine, and concurrently. The zero Runtime cannot be used.
type Runtime struct {
	// The fields are in groups, as in worker: a group that is written often has cache lines of its
	// own.

	// Fixed once New returns, or with a state of their own.
	cfg      Config // with all defaults
	serial   uint64 // distinguishes the runtimes of a process in profiler labels
	workers  []*worker
	ownProcs ownProcs
	active   *activeSet
	fds      fdTable
	failures taskFailures
	watchdog *watchdog
	idle     idleWatch
	calls    *callPool // for SpawnBlocking
	files    fileLayer
	shared   sharedReactor

	_ [64]byte
	// Read often by the workers, and written seldom. Shutdown sets draining, closing and stopping
	// in this order, and they stay set.
	draining      atomic.Bool   // no new tasks from outside
	closing       atomic.Bool   // no new tasks at all
	stopping      atomic.Bool   // the workers end
	countRequests atomic.Uint64 // calls of countTasks
	countChanged  chan struct{} // see countTasks and awaitTasks
	drained       wakerSlot     // tasks that wait for draining
	stalls        atomic.Uint64

	_ [64]byte
	// Written for each task and each connection from outside.
	assigned atomic.Uint32 // counts tasks from outside, to spread them
	conns    atomic.Uint32 // counts connections, to spread them
	numbered atomic.Uint64 // see nextID
	foreign  atomic.Int64  // tasks spawned from outside
	refused  atomic.Int64  // the number of these that were refused

	_             [64]byte
	mu            lockOf[Runtime]             // guards the following three fields
	blockOns      map[*blockOnParker]struct{} // goroutines in BlockOn
	blockOnsBegun uint64                      // how many calls of BlockOn there have been
	shutting      bool                        // Shutdown has been called

	outcome error         // of Shutdown; written before ended is closed, read after it
	ended   chan struct{} // closed when Shutdown has ended
}

// New starts a [Runtime]. The caller ends it with [Runtime.Shutdown], which frees its threads and
// descriptors. A program needs more than one Runtime only to separate work; [Run] and [Default]
// share one.
//
// New returns an error if a field of cfg has a value that makes no sense, which the error names; if
// the system refuses a descriptor, as an error that wraps an [*os.SyscallError]; or if
// [Tuning.Affinity] cannot be set. No thread or descriptor is left then.
func New(cfg Config) (rt *Runtime, err error) {
	outsideBubble(func() { rt, err = newRuntime(cfg) })
	return rt, err
}

// newRuntime is New for a caller in no bubble. Its steps are:
//
//  1. Open the descriptors: the reactors of the workers, the watchdog's timer, the poller of the
//     idleWatch.
//  2. Start the threads of the workers, and wait until each is prepared. They do not run tasks yet.
//  3. Start the goroutines of the watchdog and the idleWatch, and let the workers run.
//
// If a step fails, all that was opened is closed, and the threads that were started end.
func newRuntime(cfg Config) (*Runtime, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	rt := &Runtime{
		cfg:          cfg,
		serial:       runtimeSerials.Add(1),
		countChanged: make(chan struct{}, 1),
		blockOns:     map[*blockOnParker]struct{}{},
		ended:        make(chan struct{}),
	}
	rt.active = newActiveSet(cfg)
	rt.shared.fds = &rt.fds
	rt.ownProcs.asked.Store(cfg.SharedProcs)
	rt.calls = newCallPool(rt)
	rt.files = newFileLayer(rt)
	rt.failures.report = cfg.Unhandled
	for i := range cfg.Workers {
		w := newWorker(rt, i)
		if err = w.reactor.open(&rt.fds); err != nil {
			err = fmt.Errorf("async: cannot start worker %d: %w", i, err)
			break
		}
		rt.workers = append(rt.workers, w)
	}
	if err == nil {
		rt.watchdog, err = newWatchdog(rt)
	}
	if err == nil {
		if err = rt.idle.open(rt.workers); err != nil {
			rt.watchdog.timer.close()
		}
	}
	if err == nil {
		if err = rt.startWorkers(); err != nil {
			rt.watchdog.timer.close()
			rt.idle.poller.close()
		}
	}
	if err != nil {
		for _, w := range rt.workers {
			w.reactor.close()
		}
		return nil, err
	}
	go rt.watchdog.run()
	go rt.idle.run()
	for _, w := range rt.workers {
		close(w.start)
	}
	return rt, nil
}

// fileLayer is the state that the files of a runtime share. It keeps the files, which are a layer
// above, out of the runtime: the runtime only decides when the operations that files have begun
// must end.
type fileLayer interface {
	// finish waits until all data is written that File.Write has accepted, and until all closings
	// that have begun are done. It gives up when none of them has made progress for Config.Grace.
	// It returns an *UnwrittenError if data was not written.
	finish() error

	// finishWithin is finish, but it gives up when ctx ends.
	finishWithin(ctx context.Context) error

	// close frees the resources of the files.
	close()
}

// newFileLayer is set by fileruntime.go.
var newFileLayer func(rt *Runtime) fileLayer

// runtimeSerials counts the runtimes of the process; see Runtime.serial.
var runtimeSerials atomic.Uint64

// startWorkers starts the threads of the workers, and waits until each has prepared itself. A
// worker begins to run tasks when its channel start is closed, which newRuntime does last. If a
// worker fails, startWorkers ends all workers and returns the first error: it sets stopped before
// it closes start, and the worker reads stopped after it, so there is no race.
func (rt *Runtime) startWorkers() error {
	var (
		ready sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	ready.Add(len(rt.workers))
	for _, w := range rt.workers {
		go w.run(func(err error) {
			mu.Lock()
			if first == nil {
				first = err
			}
			mu.Unlock()
			ready.Done()
		})
	}
	ready.Wait()
	if first != nil {
		for _, w := range rt.workers {
			w.stopped = true
			close(w.start)
		}
	}
	return first
}

// Default returns the [Runtime] that [Run] uses, and starts it at the first call. It may be called
// from any goroutine, and in tasks.
//
// Its [Config] is set by [SetDefaultConfig]. If that does not set [Config.Workers], the environment
// variable ASYNC_THREADS sets the number of workers, and otherwise it is GOMAXPROCS. Default panics
// if the Runtime cannot be started.
//
// When the program ends, the tasks of this Runtime end where they are, and data that [File.Write]
// has accepted and not yet written is lost. To wait for the data use Run. To wait for the tasks,
// too, call [Runtime.Shutdown] before main returns and before [os.Exit].
func Default() *Runtime {
	if rt := defaultRuntime.rt.Load(); rt != nil {
		return rt
	}
	return startDefault()
}

// SetDefaultConfig sets the [Config] of the [Runtime] that [Default] and [Run] start. Call it at
// the beginning of main. If it is called several times, the last call counts.
//
// It returns an error and changes nothing if Default or Run has been called, or if cfg is a Config
// for which [New] returns an error that names a field.
func SetDefaultConfig(cfg Config) error {
	if _, err := cfg.withDefaults(); err != nil {
		return err
	}
	d := &defaultRuntime
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.started {
		return errors.New("async: SetDefaultConfig: the default runtime has been started")
	}
	d.cfg = cfg
	return nil
}

// defaultRuntime is the state of Default.
var defaultRuntime defaultState

// defaultState is the type of defaultRuntime. rt is nil until the runtime is started, and then
// Default needs no lock. If the start fails, err stays, and each call of Default panics with it.
type defaultState struct {
	rt atomic.Pointer[Runtime]

	mu      lockOf[defaultState] // guards the fields below
	cfg     Config
	started bool
	err     error
}

// startDefault is Default as long as the runtime has not been started. Callers that arrive during
// the start wait for mu.
func startDefault() *Runtime {
	d := &defaultRuntime
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.started {
		d.started = true
		if d.cfg.Workers == 0 && len(d.cfg.Tuning.Affinity) == 0 {
			d.cfg.Workers, d.err = defaultWorkers(os.Getenv("ASYNC_THREADS"))
		}
		if d.err == nil {
			var rt *Runtime
			rt, d.err = New(d.cfg)
			d.rt.Store(rt)
		}
	}
	if d.err != nil {
		panic(fmt.Sprintf("async: the default runtime cannot be started: %v", d.err))
	}
	return d.rt.Load()
}

// Run runs fn as a task of the [Default] runtime, waits for the task, and returns its error. It is
// the main function of a program with tasks. It must not be called in a task, which it would block:
// it panics there.
//
// The error is the error of fn, or a [*PanicError] if fn has panicked. The tasks that fn has
// spawned and not joined go on, and end with the program. If such a task has failed by then, its
// error is passed to [Config.Unhandled].
//
// Before Run returns, it waits for files: until all data that [File.Write] has accepted on this
// runtime is written, and until the files are closed whose Close did not wait. It gives up when
// none of these operations has made progress for [Config.Grace], by default a second. If data was
// not written, or if a write has failed and no call has returned the error, Run returns an
// [*UnwrittenError], joined with the error of fn if there is one.
//
// If fn calls [os.Exit], the data is lost. Return an error from fn instead, and call os.Exit after
// Run. Run itself cannot be cancelled. Once the Default runtime has been shut down, it returns
// [ErrShutdown].
func Run(fn func(cx *Context) error) error {
	mustNotBlock("Run", "Go")
	rt := Default()
	_, err := Go(rt, fn).JoinBlocking(context.Background())
	unwritten := rt.files.finish()
	rt.failures.reportAll(rt.cfg.Grace)
	return bothErrors(err, unwritten)
}

// spawner implements Spawner: new tasks start on any worker.
func (rt *Runtime) spawner() (*Runtime, *worker) { return rt, nil }

// attributes implements Spawner: new tasks have none.
func (rt *Runtime) attributes() *taskAttributes { return nil }

// cancelGroup implements Spawner: new tasks are in none.
func (rt *Runtime) cancelGroup() *cancelGroup { return nil }

// Under returns a [Spawner] whose tasks are cancelled when ctx ends; see [Spawner].
func (rt *Runtime) Under(ctx context.Context) Spawner { return withContext(rt, ctx) }

// Named returns a [Spawner] whose tasks have a name; see [Spawner].
func (rt *Runtime) Named(name string) Spawner { return &spawnOptions{base: rt, name: name} }

// assignWorker returns the worker for the next task from outside: each worker in turn.
func (rt *Runtime) assignWorker() *worker {
	return rt.workers[rt.assigned.Add(1)%uint32(len(rt.workers))]
}

// assignConn returns the worker for the next connection: one of the active workers if the
// connection may move, and otherwise one of all workers. It returns each worker in turn. But if the
// next worker in turn has more than 5/4 of the descriptors of another worker and 8 more, it returns
// the worker with the fewest.
//
// It has a counter of its own. With the counter of assignWorker, half of the workers would get all
// connections if each connection came with a task from outside. Each pass over the workers begins
// one worker further on. So two connections that are accepted one after the other get the same
// worker now and then. If their data arrives in the order in which they were accepted, one wake of
// that worker serves both.
func (rt *Runtime) assignConn(movable bool) *worker {
	among := rt.workers
	if movable {
		among = rt.activeWorkers()
	}
	n, workers := rt.conns.Add(1), uint32(len(among))
	next := among[(n+n/workers)%workers]
	least := next
	for _, w := range among {
		if w.reactor.registered.Load() < least.reactor.registered.Load() {
			least = w
		}
	}
	if n := next.reactor.registered.Load(); n > 8+least.reactor.registered.Load()*5/4 {
		return least
	}
	return next
}

// spawn queues a new task of code that no worker runs: on the worker t.w, or on the next worker if
// t.w is nil.
func (rt *Runtime) spawn(t *task) {
	w := t.w
	if w == nil {
		w = rt.assignWorker()
	}
	rt.spawnOn(w, t)
}

// spawnOn queues a new task on w, for a caller on any thread.
//
// The task is counted before draining is read. Shutdown sets draining before it counts the tasks.
// So Shutdown counts the task and waits for it, or spawnOn sees draining and refuses the task. A
// refused task is counted in refused, too, so that it does not keep Shutdown waiting; see
// awaitTasks. A task that surveys the other tasks is an internal one: it is let in while the
// runtime drains, and no hook sees it.
func (rt *Runtime) spawnOn(w *worker, t *task) {
	rt.foreign.Add(1)
	t.id.Store(rt.nextID())
	t.w = w
	if h := rt.cfg.Tuning.Hooks.TaskStart; h != nil && !t.surveys() {
		h(t.ident())
	}
	if rt.draining.Load() && !t.surveys() || rt.stopping.Load() {
		rt.refused.Add(1)
		notifyChan(rt.countChanged)
		t.body.abort(nil, ErrShutdown)
		return
	}
	if !t.surveys() {
		rt.bringProcs()
	}
	w.sendNew(t)
}

// sendNew is send for a new task of code that no worker runs. The caller may have been preempted after
// it read rt.stopping. Meanwhile Shutdown may have ended w. So:
//
//   - sendNew puts the task into the inbox, and then looks at exited;
//   - w closes exited, and then looks at its inbox once more (exit).
//
// At least one of them finds the task, and ends it.
func (w *worker) sendNew(t *task) {
	w.send(t)
	if w.rt.stopping.Load() && w.ended() {
		w.abortInbox()
	}
}

// abortInbox empties the inbox of a worker that has ended, and ends the tasks in it. It drops code
// that has begun: only its own worker could have unwound it.
func (w *worker) abortInbox() { abortList(w.takeInbox()) }

// abortList is abortInbox for a chain of tasks. If the Cancel of a future calls Goexit, it goes on in
// its deferred call.
func abortList(t *task) {
	for t != nil {
		next := t.next
		t.next = nil
		if t.g.Load() == 0 {
			abortBefore(t, next)
		}
		t = next
	}
}

func abortBefore(t, next *task) {
	returned := false
	defer func() {
		if !returned {
			abortList(next)
		}
	}()
	t.body.abort(nil, ErrShutdown)
	returned = true
}

// refuse ends a new task with err before it begins. The task gets an ID and a worker all the same,
// since its end and the hooks use them.
func (rt *Runtime) refuse(t *task, err error) {
	if t.id.Load() == 0 || t.state.detached() { // a reused task still has the ID of the task before
		t.id.Store(rt.nextID())
	}
	if t.w == nil { // a blocking call has a worker, which its canceller may be reading
		t.w = rt.workers[0]
	}
	if h := rt.cfg.Tuning.Hooks.TaskStart; h != nil {
		h(t.ident())
	}
	t.body.abort(nil, err)
}

// nextID returns the ID of a task from outside. worker.spawn gives the IDs of the tasks that
// workers spawn.
func (rt *Runtime) nextID() uint64 { return rt.numbered.Add(1) * uint64(len(rt.workers)+1) }

// activeWorkers returns the workers that serve tasks and connections that may move; see activeSet.
func (rt *Runtime) activeWorkers() []*worker { return rt.workers[:rt.active.size.Load()] }

// othersBusy reports whether a worker other than w is awake; any worker, if w is nil.
func (rt *Runtime) othersBusy(w *worker) bool {
	for _, o := range rt.workers {
		if o != w && !o.asleep.Load() {
			return true
		}
	}
	return false
}
