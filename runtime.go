package async

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
)

// Config says how a Runtime is made. The zero Config is a good one.
type Config struct {
	// Workers is how many threads run tasks; 0 means GOMAXPROCS, without what
	// other runtimes have added to it.
	Workers int

	// SharedProcs leaves GOMAXPROCS alone. Otherwise the runtime raises it by
	// the number of its workers while it runs, so that each worker brings the
	// processor that it occupies while it waits for a moment in the kernel,
	// and the goroutines of the program keep theirs. With SharedProcs the
	// workers give their processor up whenever they wait, which costs more
	// time per event.
	SharedProcs bool

	// Unhandled is called when a task has failed and nobody ever joined it:
	// after its handle has become unreachable, or when the runtime shuts
	// down. A task that was cancelled and says so has not failed. err is a *PanicError if the task panicked. It is called on a
	// goroutine outside the pool, and must not block for long. nil means a
	// line on standard error, with the stack of a panic.
	Unhandled func(t Task, err error)
}

// maxWorkers is what task.listedAt can count.
const maxWorkers = 1<<16 - 1

// A Runtime is a pool of workers and all that runs on it. Its methods may be
// called from any goroutine.
type Runtime struct {
	workers  []*worker
	ownProcs bool
	fds      fdTable
	failures failures

	placed   atomic.Uint32 // counts tasks from outside, to spread them
	foreign  atomic.Int64  // tasks spawned from outside
	refused  atomic.Int64  // those of them that came too late
	closing  atomic.Bool   // no new tasks
	stopping atomic.Bool   // workers end
	resting  atomic.Int32  // workers that wait in the kernel without a limit
	told     chan struct{} // a worker has told how many tasks it has

	mu       sync.Mutex
	outside  map[*parker]struct{} // goroutines in BlockOn
	entered  uint64               // how many there have been; numbers them
	shutting bool
	ended    chan struct{} // closed when Shutdown is through
}

// pools is the workers of all runtimes, to find out whether the caller runs on
// one. It is replaced, never changed.
var pools struct {
	mu  sync.Mutex
	all atomic.Pointer[[]*worker]
}

// callersWorker returns the worker on whose thread the caller runs; nil if it
// is a goroutine outside.
func callersWorker() *worker {
	if all := pools.all.Load(); all != nil {
		for _, w := range *all {
			if w.runsCaller() {
				return w
			}
		}
	}
	return nil
}

// changePools replaces pools.all by what change makes of a copy of it.
func changePools(change func([]*worker) []*worker) {
	pools.mu.Lock()
	defer pools.mu.Unlock()
	var all []*worker
	if old := pools.all.Load(); old != nil {
		all = slices.Clone(*old)
	}
	all = change(all)
	pools.all.Store(&all)
}

// New starts a runtime. It fails if cfg makes no sense or the operating system
// refuses what is needed.
func New(cfg Config) (*Runtime, error) {
	n := cfg.Workers
	if n < 0 || n > maxWorkers {
		return nil, fmt.Errorf("async: Config.Workers is %d; it can be 0 to %d", n, maxWorkers)
	}
	if n == 0 {
		n = procs.own()
	}
	rt := &Runtime{
		ownProcs: !cfg.SharedProcs,
		told:     make(chan struct{}, 1),
		outside:  map[*parker]struct{}{},
		ended:    make(chan struct{}),
	}
	rt.failures.report, rt.failures.over = cfg.Unhandled, rt.ended
	if cfg.Unhandled == nil {
		rt.failures.report = reportFailure
	}
	for i := range n {
		w := &worker{rt: rt, index: i, quit: make(chan struct{}), timers: newTimerQueue(), seen: make([]sighting, n), batch: pollsPerRound}
		w.live.Store(unknown)
		if err := w.reactor.open(); err != nil {
			for _, w := range rt.workers {
				w.reactor.close()
			}
			return nil, fmt.Errorf("async: cannot start worker %d: %w", i, err)
		}
		rt.workers = append(rt.workers, w)
	}
	if rt.ownProcs {
		procs.add(n)
	}
	var ready sync.WaitGroup
	ready.Add(n)
	for _, w := range rt.workers {
		go w.run(&ready)
	}
	ready.Wait()
	changePools(func(all []*worker) []*worker { return append(all, rt.workers...) })
	return rt, nil
}

// unknown is what a worker's live count is until it has told.
const unknown = 1 << 40

// Default returns the runtime that Run uses. It is started at the first call,
// with as many workers as the environment variable ASYNC_THREADS says, or
// GOMAXPROCS if it is not set. Default panics if it cannot be started.
func Default() *Runtime { return defaultRuntime() }

var defaultRuntime = sync.OnceValue(func() *Runtime {
	cfg, err := defaultConfig(os.Getenv("ASYNC_THREADS"))
	var rt *Runtime
	if err == nil {
		rt, err = New(cfg)
	}
	if err != nil {
		panic(fmt.Sprintf("async: the default runtime cannot be started: %v", err))
	}
	return rt
})

func defaultConfig(threads string) (Config, error) {
	if threads == "" {
		return Config{}, nil
	}
	n, err := strconv.Atoi(threads)
	if err != nil || n < 1 || n > maxWorkers {
		return Config{}, fmt.Errorf("ASYNC_THREADS is %q; it must be a number from 1 to %d", threads, maxWorkers)
	}
	return Config{Workers: n}, nil
}

// Run runs fn as a task of the default runtime, waits for it and returns its
// error. It is for main: tasks that are left when fn returns are left running,
// and end with the program. Failures that nobody has joined by then are
// reported.
func Run(fn func(cx *Context) error) error {
	rt := Default()
	_, err := Go(rt, fn).Wait(context.Background())
	rt.failures.flush()
	return err
}

// spawner implements Spawner: new tasks start on any worker.
func (rt *Runtime) spawner() (*Runtime, *worker) { return rt, nil }

func (rt *Runtime) details() *details { return nil }

// Named implements Spawner.
func (rt *Runtime) Named(name string) Spawner { return &adorned{base: rt, name: name} }

// place returns the worker for the next thing that comes from outside.
func (rt *Runtime) place() *worker {
	return rt.workers[rt.placed.Add(1)%uint32(len(rt.workers))]
}

// placeConn returns the worker for the next connection: each in turn, but if
// one has far fewer than that one, it.
func (rt *Runtime) placeConn() *worker {
	next := rt.place()
	least := next
	for _, w := range rt.workers {
		if w.reactor.sources.Load() < least.reactor.sources.Load() {
			least = w
		}
	}
	if n := next.reactor.sources.Load(); n > 8+least.reactor.sources.Load()*5/4 {
		return least
	}
	return next
}

// spawn queues a new task of code that no worker runs.
func (rt *Runtime) spawn(t *task) {
	// Counted before closing is looked at: see live.
	n := rt.foreign.Add(1)
	t.id = rt.outsideID(n)
	t.w = rt.place()
	if rt.closing.Load() {
		rt.refused.Add(1)
		notify(rt.told)
		t.body.abort(nil, ErrShutdown)
		return
	}
	t.w.send(t)
}

// outsideID numbers what comes from outside; see worker.spawn for the others.
func (rt *Runtime) outsideID(n int64) uint64 { return uint64(n) * uint64(len(rt.workers)+1) }

// help wakes a worker that sleeps, so that it takes over some of w's tasks.
func (rt *Runtime) help(w *worker) {
	for i := 1; i < len(rt.workers); i++ {
		if o := rt.workers[(w.index+i)%len(rt.workers)]; o.asleep.Load() {
			o.rouse()
			return
		}
	}
}

// othersBusy reports whether a worker other than w is awake.
func (rt *Runtime) othersBusy(w *worker) bool {
	for _, o := range rt.workers {
		if o != w && !o.asleep.Load() {
			return true
		}
	}
	return false
}

// lastWork returns when a worker last had something to do.
func (rt *Runtime) lastWork() (at int64) {
	for _, w := range rt.workers {
		at = max(at, w.atWork.Load())
	}
	return at
}

// procs keeps GOMAXPROCS raised by the number of workers that run.
var procs procCount

type procCount struct {
	mu    sync.Mutex
	added int
}

// own returns GOMAXPROCS without what runtimes have added.
func (p *procCount) own() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(runtime.GOMAXPROCS(0)-p.added, 1)
}

func (p *procCount) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.added += n
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0)+n, 1))
}

// mustNotBlock panics if the caller runs on a thread of a pool, which it is
// about to block.
func mustNotBlock(what, instead string) {
	if callersWorker() != nil {
		panic("async: " + what + " was called in a task and would block its worker; use " + instead)
	}
}
