package async

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// A Runtime is a pool of workers and all tasks that run on it. Its methods may be
// called from any goroutine.
type Runtime struct {
	// Fixed, or with a state of its own.
	cfg      Config // complete
	serial   uint64 // distinguishes runtimes in labels
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
	// Read by workers in each turn, and seldom written.
	draining      atomic.Bool   // no new tasks from outside
	closing       atomic.Bool   // no new tasks at all
	stopping      atomic.Bool   // workers end
	countRequests atomic.Uint64 // calls of countTasks
	countChanged  chan struct{} // a worker has acknowledged a request for its counts, or another count has changed
	drained       wakerSlot     // tasks that wait for draining
	stalls        atomic.Uint64

	_ [64]byte
	// Written for each task that comes from outside.
	assigned atomic.Uint32 // counts tasks from outside, to spread them
	conns    atomic.Uint32 // counts connections, to spread them
	numbered atomic.Uint64 // see nextID
	foreign  atomic.Int64  // tasks spawned from outside
	refused  atomic.Int64  // tasks of these that came too late

	_             [64]byte
	mu            lockOf[Runtime]
	blockOns      map[*blockOnParker]struct{} // goroutines in BlockOn
	blockOnsBegun uint64                      // how many there have been
	shutting      bool

	outcome error         // of Shutdown
	ended   chan struct{} // closed when Shutdown has ended
}

// New starts a runtime. It fails if cfg makes no sense or the operating system
// refuses the descriptors or threads that it needs.
func New(cfg Config) (rt *Runtime, err error) {
	outsideBubble(func() { rt, err = newRuntime(cfg) })
	return rt, err
}

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

// fileLayer is the state that the files of a runtime share. The runtime only knows when to end the operations that
// the files have begun.
type fileLayer interface {
	// finish waits for data that File.Write has accepted and for closings that have begun, as long as one of them
	// gets on within Config.Grace. It returns an *UnwrittenError if data was not written.
	finish() error

	// finishWithin is finish, until ctx ends.
	finishWithin(ctx context.Context) error

	close()
}

// newFileLayer is set by the files (see fileruntime.go), which are a layer above the runtime.
var newFileLayer func(rt *Runtime) fileLayer

// runtimeSerials counts the runtimes of the process; see Runtime.serial.
var runtimeSerials atomic.Uint64

// startWorkers starts the threads of the workers, and waits until each has prepared
// itself. A worker begins to run tasks when its channel start is closed, which New does
// once the other parts of the runtime are there.
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

// Default returns the runtime that Run uses. It is started at the first call, with the Config
// of SetDefaultConfig. If that does not say how many workers it has, the environment variable
// ASYNC_THREADS does, or else GOMAXPROCS. Default panics if it cannot be started.
//
// A program that ends while this runtime works ends its tasks where they stand, and
// loses data that [File.Write] has accepted and not written yet. Run waits for the data,
// and Default().Shutdown for the tasks, too. Both must be called before os.Exit, or
// before main returns.
func Default() *Runtime {
	if rt := defaultRuntime.rt.Load(); rt != nil {
		return rt
	}
	return startDefault()
}

// SetDefaultConfig sets the Config of the runtime that Default starts, for a program that
// wants Run with another Config than the zero one. It is for the beginning of main: once
// Default or Run has been called it returns an error and changes nothing, as it does if cfg
// makes no sense. The last call counts.
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

var defaultRuntime defaultState

// defaultState is the state of Default.
type defaultState struct {
	rt atomic.Pointer[Runtime]

	mu      lockOf[defaultState] // guards the fields below
	cfg     Config
	started bool
	err     error
}

// startDefault is Default, unless the runtime has been started.
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

// Run runs fn as a task of the default runtime, waits for it and returns its
// error. It is for main: tasks that are left when fn returns are left running,
// and end with the program. Failures of tasks that have not been joined by then
// are reported.
//
// When fn has returned or panicked, Run waits until all data is written that [File.Write]
// has accepted on this runtime by then, and until the files are closed whose Close did
// not wait. It gives up when none of these writes and closings has got on for Config.Grace, a second.
// If data was not written, or if a write has failed and no call has returned the error,
// Run returns an [*UnwrittenError], joined with the error of fn if there is one. A
// program that calls os.Exit in fn loses that data: it should return an error from fn
// instead, and call os.Exit after Run.
func Run(fn func(cx *Context) error) error {
	rt := Default()
	_, err := Go(rt, fn).JoinBlocking(context.Background())
	unwritten := rt.files.finish()
	rt.failures.reportAll(rt.cfg.Grace)
	return bothErrors(err, unwritten)
}

// spawner implements Spawner: new tasks start on any worker.
func (rt *Runtime) spawner() (*Runtime, *worker) { return rt, nil }

func (rt *Runtime) attributes() *taskAttributes { return nil }

func (rt *Runtime) cancelGroup() *cancelGroup { return nil }

// Under implements Spawner.
func (rt *Runtime) Under(ctx context.Context) Spawner { return withContext(rt, ctx) }

// Named implements Spawner.
func (rt *Runtime) Named(name string) Spawner { return &spawnOptions{base: rt, name: name} }

// assignWorker returns the worker for the next task that comes from outside.
func (rt *Runtime) assignWorker() *worker {
	return rt.workers[rt.assigned.Add(1)%uint32(len(rt.workers))]
}

// assignConn returns the worker for the next connection: among the active workers if the connection may move, or else
// among all workers. It returns each worker in turn, unless another worker has far fewer descriptors than the next in
// turn: then it returns the worker with the fewest.
//
// It has a counter of its own. If it shared the counter of assignWorker, and each connection came with a task from
// outside, half of the workers would get all connections. Each round begins one worker further on, so that two
// connections that are accepted one after the other get the same worker now and then: connections whose data comes in
// the order in which they were accepted then wake it once for two.
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

// spawn queues a new task of code that no worker runs.
func (rt *Runtime) spawn(t *task) {
	w := t.w
	if w == nil {
		w = rt.assignWorker()
	}
	rt.spawnOn(w, t)
}

// spawnOn is spawn for a certain worker.
func (rt *Runtime) spawnOn(w *worker, t *task) {
	// The task is counted before draining is read: see awaitTasks.
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

// sendNew is send for a new task of code that no worker runs. The thread of that code may have had
// no processor since it looked at rt.stopping, while Shutdown has ended w:
//
//   - sendNew puts the task into the inbox, and then looks at exited;
//   - w closes exited, and then looks at its inbox once more (exit).
//
// So one of them finds the task, and ends it.
func (w *worker) sendNew(t *task) {
	w.send(t)
	if w.rt.stopping.Load() && w.ended() {
		w.abortInbox()
	}
}

// abortInbox ends the tasks in the inbox of a worker that has ended. Code that has begun is left out:
// only its own worker could unwind it.
func (w *worker) abortInbox() {
	for t := w.takeInbox(); t != nil; {
		next := t.next
		if t.next = nil; t.g.Load() == 0 {
			t.body.abort(nil, ErrShutdown)
		}
		t = next
	}
}

// refuse ends a new task that will not begin, with err.
func (rt *Runtime) refuse(t *task, err error) {
	if t.id.Load() == 0 || t.state.detached() { // a reused task has the ID of the task before
		t.id.Store(rt.nextID())
	}
	if t.w == nil { // a blocking call has a worker, which a goroutine that cancels the call may read by now
		t.w = rt.workers[0]
	}
	if h := rt.cfg.Tuning.Hooks.TaskStart; h != nil {
		h(t.ident())
	}
	t.body.abort(nil, err)
}

// nextID returns the number of a task from outside; worker.spawn numbers the others.
func (rt *Runtime) nextID() uint64 { return rt.numbered.Add(1) * uint64(len(rt.workers)+1) }

// activeWorkers returns the workers that serve tasks and connections that may move; see activeSet.
func (rt *Runtime) activeWorkers() []*worker { return rt.workers[:rt.active.size.Load()] }

// othersBusy reports whether a worker other than w is awake.
func (rt *Runtime) othersBusy(w *worker) bool {
	for _, o := range rt.workers {
		if o != w && !o.asleep.Load() {
			return true
		}
	}
	return false
}
