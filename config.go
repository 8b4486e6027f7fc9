package async

import (
	"cmp"
	"fmt"
	"strconv"
	"time"
)

// Config is the settings of a [Runtime], for [New] and [SetDefaultConfig]. The zero Config is right
// for most programs: each field says what its zero value means. [New] returns an error for values
// that make no sense, so no such value causes a panic later.
type Config struct {
	// Workers is the number of threads that run tasks, from 1 to 4,096. 0 means the length of
	// [Tuning.Affinity] if that is set, or else [runtime.GOMAXPROCS], less the number that runtimes
	// of this package have added to it. GOMAXPROCS follows the processor limit of a container, so
	// set Workers only to leave processors to other code, or to measure.
	Workers int

	// SharedProcs makes the workers ordinary goroutines: they are not locked to threads, they wait
	// in system calls that Go's scheduler can see, and the runtime does not change GOMAXPROCS. The
	// default is false. Set it in a program that mainly does something else, or that runs the
	// garbage collector often. A task may do the same things in both modes. docs/figures.md, "What
	// the neighbours pay", has figures for the choice:
	//
	//   - Up to some thousand events per second SharedProcs costs no more processor time per event
	//     than the default, because it makes fewer futex calls. Above that rate it costs up to 1.5
	//     times as much.
	//   - Starting a task from a goroutine, and waiting for it there, wakes no other thread and
	//     takes half the time. Messages between tasks of two workers take up to three times as
	//     long, because a worker does not spin for the next message.
	//   - A garbage collection of a small heap takes as long as without the runtime. With the
	//     raised GOMAXPROCS it takes longer. A collection of a gibibyte takes up to twice as long
	//     as without SharedProcs if the workers are woken often, because the collector does not get
	//     the processors of workers that wait.
	//   - [Tuning.Affinity] cannot be set. There is no clock of a worker's thread for Stall.
	//   - If GOMAXPROCS is below Workers, for example because of a container's limit, all workers
	//     make progress in turns of Go's scheduler. The additional workers do not make the program
	//     faster.
	//
	// Without SharedProcs the runtime raises GOMAXPROCS by the number of its workers. Each worker
	// then brings the processor that it occupies while it waits for a moment in the kernel, and the
	// goroutines of the program keep theirs. GOMAXPROCS is raised from the first task, or the first
	// burst of blocking calls, until [Runtime.Shutdown]. If the program sets GOMAXPROCS in this
	// time, its value remains, also after Shutdown. A program that lowers GOMAXPROCS should set
	// SharedProcs, or its goroutines may have to wait until a worker gives up its processor. Once
	// the runtime has raised GOMAXPROCS, Go no longer follows changes of a container's limit, for
	// the whole process. To make Go follow them again, call [runtime.SetDefaultGOMAXPROCS] after
	// Shutdown.
	SharedProcs bool

	// Grace limits two waits; 0 means 1 second. [Runtime.Shutdown] waits for Grace until tasks that
	// it has cancelled end. It waits that long again while it ends the workers, and for a report to
	// Unhandled. While it waits for tasks and workers, a pause of the whole process uses up at most
	// a tenth of Grace. [Run] waits for writes and closings of files, and gives up when none of
	// them has made progress for Grace. Set Grace longer if cancelled tasks need longer to clean
	// up.
	Grace time.Duration

	// Blocking limits the pool of [SpawnBlocking]. The zero value means the defaults of
	// [BlockingConfig].
	Blocking BlockingConfig

	// Unhandled is called when a task has failed and was never joined. err is a [*PanicError] if
	// the task panicked. A task that was cancelled, and returns the error of that cancellation, has
	// not failed. nil means a line on standard error, with the stack if the task panicked. [Crash]
	// ends the program.
	//
	// The call happens at the first garbage collection after the handle of the task has become
	// unreachable, or else when [Run] returns or [Runtime.Shutdown] ends the runtime. The runtime
	// starts no collection itself. Go collects when the program has allocated enough memory, and at
	// least every two minutes, so a program that allocates little reports failures late. If the
	// error refers to the handle, for example through data of the task, the handle stays reachable
	// until Run returns or Shutdown ends the runtime. The failure of a task that has no handle, for
	// example of the task of a connection in [Serve], is reported at once.
	//
	// Unhandled is called on a goroutine outside the pool, and must not block for long.
	Unhandled func(t Task, err error)

	// Stall is the time that one poll may keep its worker before the poll is reported as a stall. 0
	// means 10 milliseconds. A negative value means that no stall is reported. The least positive
	// value is 1 millisecond. A stall is found after at most twice this time, and later if the
	// goroutine of the watchdog gets no processor from Go's scheduler. Set Stall longer if polls
	// that long are acceptable.
	//
	// With every value of Stall, other workers take over tasks of the stuck worker after a few
	// milliseconds. They take the tasks that are queued and may move: plain futures, and
	// straight-line tasks that have not begun, unless they are bound to that worker (see [Local]).
	//
	// On Linux the runtime counts the time in which the worker's thread computed or was blocked,
	// for example in a system call or a [sync.Mutex]. It does not count the time in which the
	// thread was ready to run while other threads had the processors. A thread that waits for
	// another thread of the process, which has no processor, does not count as blocked. So where
	// processors are short, a poll that blocks is found later, or not at all if it is short. Other
	// systems, and SharedProcs, do not offer this distinction: there no time counts while the
	// goroutine of the watchdog gets its turns late.
	Stall time.Duration

	// Stalled is called once for each poll that took longer than Stall, on a goroutine outside the
	// pool. [Metrics] counts the stalls, too. nil means a line on standard error for each stall
	// whose stack was to be taken. Stalled must not block for long: other reports wait for it, at
	// most 1,024 of them, and further stalls are only counted. [Runtime.Shutdown] waits for it,
	// too.
	//
	// A stack needs a profile of all goroutines. So a stack is taken at most once a second, and
	// less often if a profile takes long: profiles take at most a twentieth of the time. The other
	// reports have no stack. A report with a stack is made after the profile, so the poll may have
	// ended by then.
	Stalled func(Stall)

	// Tuning has settings that few programs need. Its zero value is right for all others.
	Tuning Tuning
}

// Tuning is the part of a [Config] for measurements, for profiles and traces, and for machines on
// which the placement of threads matters.
type Tuning struct {
	// Name distinguishes runtimes in profiles. The goroutines of a worker have the profiler label
	// "async.worker". Its value is the Name, the number of the runtime and the number of the
	// worker, with slashes between them. If Name is empty, the value has the two numbers only.
	Name string

	// Affinity[i] lists the processors on which the thread of worker i may run; nil means all. The
	// length must be the number of workers. A nil Affinity places no worker. Only Linux supports
	// it: on other systems [New] fails with an error that wraps [errors.ErrUnsupported]. It cannot
	// be combined with SharedProcs.
	Affinity [][]int

	// Spin is the time for which a worker without work polls the kernel before it waits there.
	// Spinning delivers the next event a little earlier, and occupies a whole processor meanwhile.
	// 0 means that a worker spins only where a spin of at most 40 microseconds has paid before.
	Spin time.Duration

	// Budget is the number of operations with a [Context] that a task may do in a row before it
	// must yield to other tasks, even if no operation has to wait. 0 means 128. A smaller Budget
	// shares a worker more evenly, and a larger one switches tasks less often. Reads, writes,
	// sends, joins, dials and failures count one each. An operation on a file of the disk that does
	// not use the pool (see [File]) counts more: one for each 32 KiB that it reads, and four if it
	// opens the file. Three kinds of operations do not count:
	//
	//   - locking a free [Mutex] or [RWMutex], and acquiring from a [Semaphore] that has enough
	//     permits;
	//   - operations that never wait, such as [TrySelect];
	//   - polls that are pending.
	Budget int

	// Labels marks the code of named tasks: it runs with the profiler label "task", and in a region
	// of that name in execution traces. The default is false, because Labels makes every poll
	// longer.
	Labels bool

	// Hooks are called at certain moments of a worker or a task. The zero Hooks call nothing.
	Hooks Hooks
}

// Hooks are functions that a runtime calls at certain moments. A hook is called on the thread on
// which the moment occurs, at the same time as hooks on other threads. It must return quickly and
// must not await. The program crashes if a hook panics or calls [runtime.Goexit]. A nil hook costs
// nothing.
//
// A call of [SpawnBlocking] is a task that is never polled. A function that [BlockOn] runs is not a
// task for the hooks.
type Hooks struct {
	WorkerStart func(worker int) // called first on the worker's thread
	WorkerStop  func(worker int) // called last on the worker's thread
	TaskStart   func(t Task)     // when t is spawned, on the spawning thread
	TaskEnd     func(t Task)     // when t has its result
	BeforePoll  func(t Task)     // before each poll of t, on its worker
	AfterPoll   func(t Task)     // after each poll of t, also if the poll panics
}

// maxWorkers is the largest number of workers. It leaves room for other threads: Go ends a process
// that has more than 10,000 threads, unless the process has called [debug.SetMaxThreads]. It must
// stay below 65,535, because task.listedAt holds the index of a worker plus one in 16 bits.
const maxWorkers = 4096

// defaultStall is the Stall of the zero Config.
const defaultStall = 10 * time.Millisecond

// withDefaults checks cfg and fills in the default of each field that is zero.
func (cfg Config) withDefaults() (Config, error) {
	fail := func(format string, args ...any) (Config, error) {
		return cfg, fmt.Errorf("async: Config."+format, args...)
	}
	if cfg.Workers < 0 || cfg.Workers > maxWorkers {
		return fail("Workers is %d; it can be 0 to %d", cfg.Workers, maxWorkers)
	}
	if cfg.Workers == 0 {
		cfg.Workers = goProcs.own()
		if n := len(cfg.Tuning.Affinity); n > 0 {
			cfg.Workers = n
		}
	}
	if len(cfg.Tuning.Affinity) > 0 && cfg.SharedProcs {
		return fail("Tuning.Affinity is set, and with SharedProcs workers have no threads of their own")
	}
	if n := len(cfg.Tuning.Affinity); n > 0 && n != cfg.Workers {
		return fail("Tuning.Affinity is for %d workers, and there are %d", n, cfg.Workers)
	}
	if cfg.Tuning.Budget == 0 {
		cfg.Tuning.Budget = operationsPerPoll
	}
	if cfg.Grace == 0 {
		cfg.Grace = time.Second
	}
	if cfg.Stall == 0 {
		cfg.Stall = defaultStall
	}
	b := &cfg.Blocking
	b.Limit, b.Queue, b.Idle = cmp.Or(b.Limit, 512), cmp.Or(b.Queue, 16384), cmp.Or(b.Idle, 10*time.Second)
	switch {
	case b.Limit < 0 || b.Queue < 0 || b.Idle < 0:
		return fail("Blocking is %+v; nothing in it can be negative", *b)
	case cfg.Tuning.Budget < 0:
		return fail("Tuning.Budget is %d; it must not be negative", cfg.Tuning.Budget)
	case cfg.Tuning.Spin < 0:
		return fail("Tuning.Spin is %v; it must not be negative", cfg.Tuning.Spin)
	case cfg.Grace < 0:
		return fail("Grace is %v; it must not be negative", cfg.Grace)
	case cfg.Stall > 0 && cfg.Stall < time.Millisecond:
		return fail("Stall is %v; it can be a millisecond or more, or negative for never", cfg.Stall)
	}
	if cfg.Unhandled == nil {
		cfg.Unhandled = reportFailure
	}
	if cfg.Stalled == nil {
		cfg.Stalled = newStallReporter()
	}
	cfg.Tuning.Hooks.withDefaults()
	return cfg, nil
}

// withDefaults makes every hook end the program if the hook does not return. Without this the
// runtime would treat the panic of a hook as a panic of the task, or would drop it and leave the
// end of a task incomplete.
func (h *Hooks) withDefaults() {
	h.WorkerStart, h.WorkerStop = mustReturn("WorkerStart", h.WorkerStart), mustReturn("WorkerStop", h.WorkerStop)
	h.TaskStart, h.TaskEnd = mustReturn("TaskStart", h.TaskStart), mustReturn("TaskEnd", h.TaskEnd)
	h.BeforePoll, h.AfterPoll = mustReturn("BeforePoll", h.BeforePoll), mustReturn("AfterPoll", h.AfterPoll)
}

// mustReturn returns a function that calls hook and ends the program if hook does not return. It
// returns nil if hook is nil.
func mustReturn[T any](name string, hook func(T)) func(T) {
	if hook == nil {
		return nil
	}
	return func(v T) {
		returned := false
		defer func() {
			if !returned {
				crashProcess("the hook "+name, recover())
			}
		}()
		hook(v)
		returned = true
	}
}

// defaultWorkers returns the number of workers that the environment variable ASYNC_THREADS, whose
// value is threads, sets for the default runtime. It returns 0 if the variable is empty.
func defaultWorkers(threads string) (int, error) {
	if threads == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(threads)
	if err != nil || n < 1 || n > maxWorkers {
		return 0, fmt.Errorf("ASYNC_THREADS is %q; it must be a number from 1 to %d", threads, maxWorkers)
	}
	return n, nil
}

// observed reports whether each poll must set labels or call hooks. Without them a worker takes a
// shorter path.
func (cfg *Config) observed() bool {
	return cfg.Tuning.Labels || cfg.Tuning.Hooks.BeforePoll != nil || cfg.Tuning.Hooks.AfterPoll != nil
}
