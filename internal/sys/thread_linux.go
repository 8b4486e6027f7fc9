package sys

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Thread is a thread of the system. Other threads can ask for its processor time and its state. The
// zero value is no thread, of which nothing is known.
type Thread struct{ id int }

// CallingThread returns the thread that runs the caller.
func CallingThread() Thread { return Thread{unix.Gettid()} }

// Used returns the processor time that the thread has used. known is false if the system does not
// report it.
func (t Thread) Used() (d time.Duration, known bool) {
	if t.id == 0 {
		return 0, false
	}
	clock := ^int32(t.id)<<3 | 6 // MAKE_THREAD_CPUCLOCK of the kernel
	var ts unix.Timespec
	if unix.ClockGettime(clock, &ts) != nil {
		return 0, false
	}
	return time.Duration(ts.Nano()), true
}

// Asleep reports whether the thread neither runs nor is ready to run. It reports true if the system
// does not say.
func (t Thread) Asleep() bool {
	if t.id == 0 {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", t.id))
	i := bytes.LastIndexByte(stat, ')') // a name, which may contain anything, stands before it
	return err != nil || i < 0 || i+2 >= len(stat) || stat[i+2] != 'R'
}

// wakeTime is longer than the time from the wake of a thread until it runs, if a processor is free.
// On a virtual machine a processor that was idle may need a tenth of a millisecond.
const wakeTime = time.Millisecond

// HasStarvedThread calls f. It reports whether a thread of the process was ready to run during f
// and for wakeTime after it, and got no processor. It reports false if the system does not say.
func HasStarvedThread(f func()) bool {
	clocks := threadClocks()
	f()
	waiting := slices.DeleteFunc(clocks, func(c threadClock) bool { return !c.waits() })
	if len(waiting) == 0 {
		return false
	}
	time.Sleep(wakeTime)
	return slices.ContainsFunc(waiting, threadClock.waits)
}

// threadClock is a thread, and the processor time that it had used at one moment.
type threadClock struct {
	Thread
	was time.Duration
}

// waits reports whether the thread is ready to run and has not run since that moment.
func (c threadClock) waits() bool {
	used, known := c.Used()
	return known && used == c.was && !c.Asleep()
}

// threadClocks returns the threads of the process.
func threadClocks() (clocks []threadClock) {
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		id, _ := strconv.Atoi(name)
		t := Thread{id}
		used, _ := t.Used()
		clocks = append(clocks, threadClock{t, used})
	}
	return clocks
}
