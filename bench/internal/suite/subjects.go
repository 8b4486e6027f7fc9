// Package suite lists the subjects with their configuration, and the rows with the subjects that
// each row compares.
package suite

import "slices"

// A Group is the role of a subject in a comparison.
type Group int

const (
	Ours     Group = iota // a form of the library
	Baseline              // every other subject has a ratio to the baseline
	Rival                 // another library
	Floor                 // a loop without a library
	Aside                 // a form of the library that does less work than the rivals, and so has no ratios
)

// A Language is the programming language of a program.
type Language int

const (
	Go Language = iota
	C
	Rust
)

// A Program is one binary. Subjects of one program are forms of it.
type Program struct {
	Name     string
	Language Language
	Module   string // Go: the module whose version the report prints
	Required bool   // a run without this program has nothing to compare
}

var (
	asyncProgram = &Program{Name: "async", Required: true}
	goroutines   = &Program{Name: "goroutines", Required: true}
	sketch       = &Program{Name: "sketch"}
	floor        = &Program{Name: "floor", Language: C}
	peers        = &Program{Name: "peers", Language: Rust}
	netpoll      = &Program{Name: "netpoll", Module: "github.com/cloudwego/netpoll"}
	gnet         = &Program{Name: "gnet", Module: "github.com/panjf2000/gnet/v2"}
	nbio         = &Program{Name: "nbio", Module: "github.com/lesismal/nbio"}
	gaio         = &Program{Name: "gaio", Module: "github.com/xtaci/gaio"}
	evio         = &Program{Name: "evio", Module: "github.com/tidwall/evio"}
)

// A Subject is one measured server or set of workloads: a form of a program.
type Subject struct {
	Name    string
	Group   Group
	Program *Program
	Form    string
	Workers int    // the number of workers; 0 means the number of the run
	What    string // a description
	Config  string // the reason for the configuration
}

// Subjects has all subjects, in the order of the tables.
var Subjects = []*Subject{
	{Name: "net", Group: Baseline, Program: goroutines, Form: "net",
		What:   "package net, a goroutine and a buffer of 4 KiB for each connection",
		Config: "What most Go programs do; TCP_NODELAY is on by default, and GOMAXPROCS is the number of workers of the others."},
	{Name: "net-gosched", Group: Rival, Program: goroutines, Form: "net-gosched",
		What:   "the same beside CPU-bound goroutines that call runtime.Gosched after each slice of 100 µs",
		Config: "Yields as often as the tasks of the other runtimes; the baseline net leaves its CPU-bound goroutines to preemption."},
	{Name: "goroutines", Group: Baseline, Program: goroutines, Form: "goroutines",
		What:   "goroutines with Go's channels, sync.Mutex and time.Sleep",
		Config: "Plain Go; GOMAXPROCS is the number of workers of the others."},

	{Name: "straight", Group: Ours, Program: asyncProgram, Form: "straight",
		What:   "the library: a straight-line task for each connection or unit of work",
		Config: "The default Config with that number of workers, which raises GOMAXPROCS by it; reports of long polls go nowhere."},
	{Name: "straight-1w", Group: Ours, Program: asyncProgram, Form: "straight", Workers: 1,
		What:   "the same with one worker",
		Config: "Shows what the second worker costs or gives where the work is small."},
	{Name: "straight-shared", Group: Ours, Program: asyncProgram, Form: "straight-shared",
		What:   "straight-line tasks with Config.SharedProcs",
		Config: "GOMAXPROCS is as for goroutines, and the workers are not locked to threads."},
	{Name: "inside", Group: Aside, Program: asyncProgram, Form: "inside",
		What:   "straight-line tasks, started and awaited by one task",
		Config: "Leaves out the wake-ups of threads at the beginning and end of a call, which the figures of all other subjects contain; so it has no ratio and no verdict."},
	{Name: "future", Group: Ours, Program: asyncProgram, Form: "future",
		What:   "the library: a plain future for each connection or unit of work",
		Config: "As straight; each future is one allocation and keeps the same state."},
	{Name: "future-1w", Group: Ours, Program: asyncProgram, Form: "future", Workers: 1,
		What:   "the same with one worker",
		Config: "As straight-1w."},
	{Name: "future-shared", Group: Ours, Program: asyncProgram, Form: "future-shared",
		What:   "plain futures with Config.SharedProcs",
		Config: "As straight-shared."},
	{Name: "serve", Group: Ours, Program: asyncProgram, Form: "serve",
		What:   "the library: Serve, with buffers from a pool and nothing kept for an idle connection",
		Config: "Each call of the handler takes a buffer of 4 KiB from a sync.Pool, reads once, writes and gives the buffer back."},
	{Name: "netconn", Group: Ours, Program: asyncProgram, Form: "netconn",
		What:   "the library's net.Conn for goroutines: the server of net, on Runtime.ListenNet",
		Config: "The same code as net; only the listener differs."},
	{Name: "serve-shared", Group: Ours, Program: asyncProgram, Form: "serve-shared",
		What:   "Serve with Config.SharedProcs",
		Config: "As serve and straight-shared."},
	{Name: "netconn-shared", Group: Ours, Program: asyncProgram, Form: "netconn-shared",
		What:   "the library's net.Conn with Config.SharedProcs",
		Config: "As netconn and straight-shared."},

	{Name: "netpoll", Group: Rival, Program: netpoll, Form: "pool",
		What:   "cloudwego/netpoll, handlers in its pool of goroutines",
		Config: "Its defaults, with one poller for up to 20 processors, and a buffer of 4 KiB; the handler uses the zero-copy reader and writer."},
	{Name: "netpoll-inline", Group: Rival, Program: netpoll, Form: "inline",
		What:   "cloudwego/netpoll, handlers on the poller itself",
		Config: "The best case of netpoll, for handlers that never block: its Runner calls the handler."},
	{Name: "netpoll-pollers", Group: Rival, Program: netpoll, Form: "inline-pollers",
		What:   "the same with a poller for each worker",
		Config: "Measured at 64 connections, to show whether the default number of pollers is the right one here."},
	{Name: "gnet", Group: Rival, Program: gnet, Form: "unlocked",
		What:   "gnet, an event loop for each worker",
		Config: "As many loops as workers; level-triggered and not locked to threads, which are its defaults."},
	{Name: "gnet-locked", Group: Rival, Program: gnet, Form: "locked",
		What:   "the same with its option LockOSThread",
		Config: "Measured at 64 connections, to show whether the option is worth setting."},
	{Name: "nbio", Group: Rival, Program: nbio, Form: "level",
		What:   "nbio, a poller for each worker, reading in the poller",
		Config: "NPoller is the number of workers (the default is a quarter of the processors); reading in the poller fits a handler that never blocks; level-triggered is its default."},
	{Name: "nbio-edge", Group: Rival, Program: nbio, Form: "edge",
		What:   "the same, edge-triggered",
		Config: "Measured at 64 connections, to show which mode is the better one."},
	{Name: "gaio", Group: Rival, Program: gaio, Form: "gaio",
		What:   "gaio, a watcher for each worker",
		Config: "A read is submitted with a buffer of 4 KiB and the answer written when it completes, as in its own example; connections go to the watchers in turn."},
	{Name: "gaio-1w", Group: Rival, Program: gaio, Form: "gaio", Workers: 1,
		What:   "the same with one watcher and GOMAXPROCS 1",
		Config: "Measured at 64 connections, to show what the second watcher is worth."},
	{Name: "evio", Group: Rival, Program: evio, Form: "evio",
		What:   "evio, a loop for each worker",
		Config: "NumLoops is the number of workers, connections in turn, input buffers reused; TCP_NODELAY is set on its listener, because evio sets none."},

	{Name: "tokio", Group: Rival, Program: peers, Form: "tokio",
		What:   "tokio, a task for each connection or unit of work",
		Config: "The multi-threaded runtime with that number of workers and all drivers; release build with LTO and one codegen unit. Oneshots and the mutex are its own, the channel is that of the crate async-channel."},
	{Name: "tokio-mpsc", Group: Rival, Program: peers, Form: "tokio-mpsc",
		What:   "the same with tokio's own channel, which has one receiver",
		Config: "Where there is one receiver, its users take this channel."},
	{Name: "async-std", Group: Rival, Program: peers, Form: "async-std",
		What:   "async-std, likewise",
		Config: "ASYNC_STD_THREAD_COUNT is the number of workers; the same build. The mutex is its own (async-lock); oneshots are those of the crate futures, the channel is that of async-channel, which async-std exports as its own."},
	{Name: "smol", Group: Rival, Program: peers, Form: "smol",
		What:   "smol, likewise",
		Config: "SMOL_THREADS is the number of workers (its default is one); the same build. The mutex is its own (async-lock); oneshots are those of the crate futures, the channel is that of async-channel, which smol exports as its own."},

	{Name: "c-1", Group: Floor, Program: floor, Form: "epoll", Workers: 1,
		What:   "C, epoll, one thread",
		Config: "Edge-triggered, read and write in place, gcc -O2."},
	{Name: "c", Group: Floor, Program: floor, Form: "epoll",
		What:   "C, epoll, a thread for each worker",
		Config: "As c-1; a further thread accepts and gives the connections to the others in turn."},
	{Name: "sketch-locked", Group: Floor, Program: sketch, Form: "locked",
		What:   "an event loop in Go without a library, locked to its thread",
		Config: "The library's shape: a raw epoll wait of 10 ms, then one that the scheduler knows of; GOMAXPROCS is twice the number of loops."},
	{Name: "sketch-unlocked", Group: Floor, Program: sketch, Form: "unlocked",
		What:   "the same, not locked",
		Config: "A look, then Gosched, then a wait that the scheduler knows of; GOMAXPROCS is the number of loops."},
}

// SubjectNamed returns the subject of the given name, or nil.
func SubjectNamed(name string) *Subject {
	i := slices.IndexFunc(Subjects, func(s *Subject) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return Subjects[i]
}
