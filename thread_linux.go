package async

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// thread is a thread of the system, of which others can ask how it fares.
type thread struct{ id int }

func callingThread() thread { return thread{unix.Gettid()} }

// used returns how much processor time the thread has used; known is false if the
// system does not say.
func (t thread) used() (d time.Duration, known bool) {
	clock := ^int32(t.id)<<3 | 6 // as the kernel numbers the clocks of threads: MAKE_THREAD_CPUCLOCK
	var ts unix.Timespec
	if unix.ClockGettime(clock, &ts) != nil {
		return 0, false
	}
	return time.Duration(ts.Nano()), true
}

// asleep reports whether the thread neither runs nor is ready to run. It is taken to
// be asleep if the system does not say.
func (t thread) asleep() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", t.id))
	i := bytes.LastIndexByte(stat, ')') // before it is a name, which may hold anything
	return err != nil || i < 0 || i+2 >= len(stat) || stat[i+2] != 'R'
}
