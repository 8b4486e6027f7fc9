package sys

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Thread is a thread of the system, whose processor time and state other threads can ask for. The zero thread is
// unknown.
type Thread struct{ id int }

// CallingThread returns the thread that runs the caller.
func CallingThread() Thread { return Thread{unix.Gettid()} }

// Used returns how much processor time the thread has used; known is false if the
// system does not say.
func (t Thread) Used() (d time.Duration, known bool) {
	if t.id == 0 {
		return 0, false
	}
	clock := ^int32(t.id)<<3 | 6 // as the kernel numbers the clocks of threads: MAKE_THREAD_CPUCLOCK
	var ts unix.Timespec
	if unix.ClockGettime(clock, &ts) != nil {
		return 0, false
	}
	return time.Duration(ts.Nano()), true
}

// Asleep reports whether the thread neither runs nor is ready to run. It is taken to
// be asleep if the system does not say.
func (t Thread) Asleep() bool {
	if t.id == 0 {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", t.id))
	i := bytes.LastIndexByte(stat, ')') // before it is a name, which may hold anything
	return err != nil || i < 0 || i+2 >= len(stat) || stat[i+2] != 'R'
}

// StarvedThread calls f, and reports whether a thread of the process was ready to run all that
// time and did not get a processor. It reports false if the system does not say.
func StarvedThread(f func()) bool {
	type clock struct {
		Thread
		used time.Duration
	}
	var clocks []clock
	if dir, err := os.Open("/proc/self/task"); err == nil {
		names, _ := dir.Readdirnames(-1)
		dir.Close()
		for _, name := range names {
			id, _ := strconv.Atoi(name)
			t := Thread{id}
			used, _ := t.Used()
			clocks = append(clocks, clock{t, used})
		}
	}
	f()
	for _, c := range clocks {
		if used, known := c.Thread.Used(); known && used == c.used && !c.Asleep() {
			return true
		}
	}
	return false
}
