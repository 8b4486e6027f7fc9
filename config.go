package async

import (
	"cmp"
	"fmt"
	"strconv"
	"time"
)

// Config says how a Runtime is made. The zero Config is a good one: each field says what
// zero means. New fails for values that make no sense; nothing panics later because of them.
type Config struct {
	// Workers is how many threads run tasks; 0 means GOMAXPROCS, without the share
	// that other runtimes have added to it. GOMAXPROCS respects the limits of a
	// container. There can be at most 4,096.
	Workers int

	// SharedProcs leaves GOMAXPROCS alone, and does not lock the workers to their threads: they
	// are goroutines like others, which wait in system calls. Set it in a program that
	// mainly does something else, or that collects often. docs/design.md, "What the neighbours pay",
	// has figures for the choice.
	//
	//   - Up to some thousand events per second it costs no more processor time per event than the default,
	//     because it makes fewer futex calls. Above that it costs up to one and a half times as much.
	//   - To start a task from a goroutine, and to wait for it there, wakes no other thread: it takes half of the time.
	//     Messages between tasks of two workers take up to three times as long, because a worker does not
	//     wait actively for the next message.
	//   - A collection of a small heap costs as much as without the runtime, and not as much as
	//     with the raised GOMAXPROCS. A collection of a gibibyte takes up to twice as long if the
	//     workers are awoken often, because the collector does not get the processors of workers that wait.
	//   - Affinity cannot be set, and there is no clock of the worker's thread for Stall.
	//   - If GOMAXPROCS is below Workers, which a limit of the container's may cause, all workers
	//     make progress in turns of Go's scheduler, but more of them are no help.
	//
	// A task may do the same things in both modes.
	//
	// By default the runtime raises GOMAXPROCS by the number of its workers, from its first
	// task or burst of blocking calls to Shutdown, so that each worker brings the processor that it
	// occupies while it waits for a moment in the kernel, and the goroutines of the program keep
	// theirs. If the program sets GOMAXPROCS meanwhile, its value holds, also after Shutdown; a
	// program that lowers it should set SharedProcs, or its goroutines may have to wait for a
	// worker's P. Once the runtime has raised GOMAXPROCS, Go ceases, for the whole process and for
	// good, to follow changes of a container's limit; runtime.SetDefaultGOMAXPROCS, called
	// after Shutdown, makes Go follow them again.
	SharedProcs bool

	// Grace is how long Shutdown waits for tasks that it has cancelled, not
	// counting pauses of the whole process, and how long Run waits for writes and
	// closings of which none gets on; 0 means a second.
	Grace time.Duration

	// Blocking bounds the pool of SpawnBlocking; zero means the defaults that it names.
	Blocking BlockingConfig

	// Unhandled is called when a task has failed and was never joined. A
	// task that was cancelled and says so has not failed. err is a *PanicError if
	// the task panicked.
	//
	// It is called at the first garbage collection after the handle of the task has
	// become unreachable, or else when Run returns or Shutdown ends the runtime. Go
	// collects when the program has allocated enough, and at least every two minutes:
	// the runtime starts no collection, so a program that does little learns of a failure
	// late. If the error refers to the handle, for example through data of the task, the
	// handle stays reachable until Run returns or Shutdown ends the runtime. The failure of a
	// task that has no handle, such as that of a connection of Serve, is reported at once.
	//
	// It is called on a goroutine outside the pool, and must not block for long. nil
	// means a line on standard error, with the stack of a panic; Crash ends the
	// program.
	Unhandled func(t Task, err error)

	// Stall is how long one poll may keep its worker before it is reported as a stall.
	// 0 means 10 milliseconds; with a negative value nothing is reported. A stall is found
	// after at most twice this time, and later if the goroutine of the watchdog gets no
	// processor from Go's scheduler.
	//
	// Whatever Stall is, after a few milliseconds other workers take over the tasks that are
	// queued on the stuck worker and may move: plain futures, and straight-line tasks that
	// have not begun, unless they are bound to that worker.
	//
	// On Linux the time counts for which the worker's thread has computed or was
	// blocked, for example by a system call or a sync.Mutex, and not the time for
	// which it was ready to run while other threads had the processors. A thread
	// that waits for another thread of the process that has no processor is not
	// taken to be blocked: where processors are short, a poll that blocks is found
	// later, or not at all if it is short. Other systems do not tell these apart, nor is it
	// known with SharedProcs: then no time counts while the process gets its turns late.
	Stall time.Duration

	// Stalled is called once for each poll that is found to take longer than
	// Stall, on a goroutine outside the pool. Metrics counts them, too. It must not
	// block for long: other reports wait for it, 1,024 of them at most, and further
	// stalls are only counted; Shutdown waits for it, too. nil means a line on
	// standard error, for the stalls of which a stack is taken.
	//
	// A stack needs a profile of all goroutines. So a stack is taken at most once
	// a second, and less often where it takes long, so that it costs a twentieth of
	// the time at most; the other reports have none. A report with a stack comes
	// when the stack has been taken, so the poll may have ended by then.
	Stalled func(Stall)

	// Tuning is what almost no program sets; zero is right for all other programs.
	Tuning Tuning
}

// Tuning is the part of a Config for measurements, for profiles and traces, and for machines
// on which placement matters.
type Tuning struct {
	// Name tells runtimes apart in profiles: the label "async.worker" of their
	// goroutines is the Name, a number of the runtime and that of the worker, with
	// slashes between. Empty leaves out the Name.
	Name string

	// Affinity is, for each worker, the processors that its thread may run on;
	// nil is all. Only Linux has it. It cannot be set together with SharedProcs.
	Affinity [][]int

	// Spin is for how long a worker that has nothing to do goes on asking the
	// kernel before it waits there. It makes the next event a little earlier
	// and costs a whole processor meanwhile. 0 means not at all.
	Spin time.Duration

	// Budget is how many operations with a Context a task may do in a row before it
	// must let others run, also if none of them has to wait; 0 means 128. Reads,
	// writes, sends, joins, dials and failures count alike. Three kinds do not count:
	// to lock a free Mutex or RWMutex or to acquire from a Semaphore that has enough;
	// operations that never wait, such as TrySelect; and polls that are pending.
	Budget int

	// Labels gives the code of tasks that have a name the profiler label
	// "task", and regions of that name in execution traces.
	Labels bool

	// Hooks are called at certain moments of a worker or a task; the zero Hooks are none.
	Hooks Hooks
}

// Hooks are functions that a runtime calls. They are called on the thread
// where it happens, must be quick and must not await. The program crashes if a hook
// panics or calls runtime.Goexit. A nil hook costs nothing. Calls of SpawnBlocking are
// tasks, too, that are never polled; a function that BlockOn runs is not a task here.
type Hooks struct {
	WorkerStart func(worker int) // first thing on the worker's thread
	WorkerStop  func(worker int) // last thing on it
	TaskStart   func(t Task)     // when it is spawned, wherever that is
	TaskEnd     func(t Task)     // when it has its result
	BeforePoll  func(t Task)
	AfterPoll   func(t Task)
}

// maxWorkers leaves room for other threads: Go ends a process that has more than 10,000
// threads, unless it has called debug.SetMaxThreads. Besides, task.listedAt counts to
// 65,535 only.
const maxWorkers = 4096

// defaultStall is the Stall of the zero Config.
const defaultStall = 10 * time.Millisecond

// withDefaults checks cfg and sets the fields that were left out.
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

// withDefaults makes the hooks end the program if they do not return. Otherwise a panic would be
// taken for a panic of the task, or would be lost and leave the end of a task incomplete.
func (h *Hooks) withDefaults() {
	h.WorkerStart, h.WorkerStop = mustReturn("WorkerStart", h.WorkerStart), mustReturn("WorkerStop", h.WorkerStop)
	h.TaskStart, h.TaskEnd = mustReturn("TaskStart", h.TaskStart), mustReturn("TaskEnd", h.TaskEnd)
	h.BeforePoll, h.AfterPoll = mustReturn("BeforePoll", h.BeforePoll), mustReturn("AfterPoll", h.AfterPoll)
}

// mustReturn returns a function that calls hook, and crashes if hook does not return; nil if
// there is no hook.
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

// defaultWorkers returns the Workers of the default runtime that the environment asks for; 0 if
// it asks for none.
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

// observed reports whether polls need labels or call hooks.
func (cfg *Config) observed() bool {
	return cfg.Tuning.Labels || cfg.Tuning.Hooks.BeforePoll != nil || cfg.Tuning.Hooks.AfterPoll != nil
}
