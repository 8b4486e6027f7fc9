// Package work measures the workloads that run in a process of their own. All Go programs share the
// sizes and the measuring of this package. The Rust program under rust/ has the same sizes and
// measures in the same way.
package work

import (
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"example.com/async/bench/internal/usage"
)

// Sizes of the workloads. The workloads of the announcement have the sizes of the announcement.
const (
	ChainLength     = 1_000 // chained_spawn: tasks, each spawned by the previous task
	PingPairs       = 1_000 // ping_pong: pairs of tasks, one message in each direction
	SpawnCount      = 10_000
	YieldTasks      = 200
	YieldTimes      = 1_000
	Creates         = 1_000_000
	ContentionTasks = 10
	ContentionTimes = 1_000
	LonelyTimes     = 10_000
	Messages        = 100_000
	ChanCapacity    = 128
	Sleepers        = 100_000
	IdleTasks       = 100_000
)

// Workloads has the workloads of one form of a program, by name.
type Workloads map[string]func(m *Meter) error

// CostSizes has the numbers of tasks of the workloads cost_N.
var CostSizes = []int{100, 1_000, 10_000, 100_000, 1_000_000}

// CostName returns the name of the workload that spawns n tasks.
func CostName(n int) string { return "cost_" + strconv.Itoa(n) }

// SleepTime returns how long sleeper i sleeps in the workload sleep_1_to_100ms.
func SleepTime(i int) time.Duration { return time.Duration(1+i%100) * time.Millisecond }

// A Meter takes one measurement of one workload.
type Meter struct {
	// Duration is how long the workload is repeated.
	Duration time.Duration

	// Metrics are the results.
	Metrics map[string]float64
}

// Time calls once repeatedly: for a quarter of m.Duration unmeasured, and then measured for
// m.Duration. It measures at least 10 calls if a call takes less than 100 ms, and at least 3 calls
// if a call takes longer. It records the median time of the calls and the mean CPU time of the
// process, both divided by the number of operations in one call.
func (m *Meter) Time(operations int, once func()) error {
	for begin := time.Now(); ; {
		once()
		if time.Since(begin) >= m.Duration/4 {
			break
		}
	}
	took := make([]float64, 0, 1024)
	before, err := usage.CPU(os.Getpid())
	if err != nil {
		return err
	}
	for begin := time.Now(); m.more(len(took), time.Since(begin)); {
		t := time.Now()
		once()
		took = append(took, float64(time.Since(t).Nanoseconds())/float64(operations))
	}
	after, err := usage.CPU(os.Getpid())
	if err != nil {
		return err
	}
	calls := len(took)
	slices.Sort(took)
	m.Metrics = map[string]float64{
		"ns":     (took[(calls-1)/2] + took[calls/2]) / 2,
		"cpu_ns": float64((after - before).Nanoseconds()) / float64(calls*operations),
		"calls":  float64(calls),
	}
	return nil
}

// more reports whether another call is measured after the given number of calls, which have taken
// the time spent. Ten calls of less than 100 ms take less than a second.
func (m *Meter) more(calls int, spent time.Duration) bool {
	return calls < 3 || calls < 10 && spent < time.Second || calls < 200_000 && spent < m.Duration
}

// Timed returns a workload that calls start. start starts the given number of operations, and
// arranges that done is called when they have ended.
func Timed(operations int, start func(done func())) func(*Meter) error {
	return func(m *Meter) error {
		over := make(chan struct{}, 1) // capacity 1, so that done does not wait for this goroutine
		done := func() { over <- struct{}{} }
		return m.Time(operations, func() {
			start(done)
			<-over
		})
	}
}

// Idle records the resident memory of one waiting task. spawn starts n tasks. Each task adds 1 to
// begun, and then waits and is never woken.
//
// The memory is read after a garbage collection, so that it contains the memory that the tasks
// keep, and not the garbage from their start. The memory before the collection is recorded, too.
func (m *Meter) Idle(spawn func(n int, begun *atomic.Int64)) error {
	var begun atomic.Int64
	start := func(n int) {
		want := begun.Load() + int64(n)
		spawn(n, &begun)
		for begun.Load() < want {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond) // the last tasks wait by then
	}
	start(1_000) // allocates threads, queues and tables, which are not counted
	Collect()
	before, err := usage.Resident(os.Getpid())
	if err != nil {
		return err
	}
	start(IdleTasks)
	grown, err := usage.Resident(os.Getpid())
	if err != nil {
		return err
	}
	Collect()
	after, err := usage.Resident(os.Getpid())
	if err != nil {
		return err
	}
	m.Metrics = map[string]float64{
		"bytes":             float64(after-before) / IdleTasks,
		"bytes_uncollected": float64(grown-before) / IdleTasks,
	}
	return nil
}

// Collect returns unused memory of the program to the system. It collects more than once, because
// objects in pools survive one collection.
func Collect() {
	runtime.GC()
	runtime.GC()
	debug.FreeOSMemory()
}

// Countdown returns a function that calls done when the function is called for the n-th time.
func Countdown(n int, done func()) func() {
	var left atomic.Int64
	left.Store(int64(n))
	return func() {
		if left.Add(-1) == 0 {
			done()
		}
	}
}

// CountReceived returns a function that each receiver calls once, with the number of messages that
// it has received. The last call calls done. It panics if messages were lost.
func CountReceived(receivers int, done func()) func(n int) {
	var got atomic.Int64
	count := Countdown(receivers, func() {
		if got.Load() != Messages {
			panic("messages were lost")
		}
		done()
	})
	return func(n int) {
		got.Add(int64(n))
		count()
	}
}

// Burn computes for about 100 microseconds: one slice of a CPU-bound task, after which the task
// yields.
func Burn() {
	for end := time.Now().Add(100 * time.Microsecond); time.Now().Before(end); {
	}
}
