package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a process has used so far.
type Usage struct {
	CPU          time.Duration // all threads, ended ones included; user and kernel
	User, Kernel time.Duration // the same by mode, with a precision of 10 ms
}

// Sub returns what was used since before.
func (u Usage) Sub(before Usage) Usage {
	return Usage{u.CPU - before.CPU, u.User - before.User, u.Kernel - before.Kernel}
}

// Used reads the usage of a process from the kernel's own accounting: its CPU-time
// clock, and utime and stime of /proc/PID/stat, which are parts of the same sum.
func Used(pid int) (Usage, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(cpuClock(pid), &ts); err != nil {
		return Usage{}, fmt.Errorf("the CPU-time clock of process %d: %w", pid, err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, fmt.Errorf("the usage of process %d: %w", pid, err)
	}
	// The second field is the name of the program, in brackets; the name may contain spaces.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	const utime, stime = 11, 12 // counted from the state, which is the third field
	if len(fields) <= stime {
		return Usage{}, fmt.Errorf("/proc/%d/stat has the content %q", pid, stat)
	}
	user, err1 := ticks(fields[utime])
	kernel, err2 := ticks(fields[stime])
	if err := errors.Join(err1, err2); err != nil {
		return Usage{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return Usage{CPU: time.Duration(ts.Nano()), User: user, Kernel: kernel}, nil
}

// cpuClock returns the clock that counts the CPU time of a process, as
// clock_getcpuclockid of the C library does.
func cpuClock(pid int) int32 {
	const scheduled = 2
	return int32(^pid<<3 | scheduled)
}

// ticks converts a time of /proc, which has 100 ticks in a second on every architecture.
func ticks(s string) (time.Duration, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	return time.Duration(n) * 10 * time.Millisecond, err
}

// Resident returns the resident memory of a process in bytes. Memory of the kernel, such
// as that of sockets, is not part of it.
func Resident(pid int) (int64, error) {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("the memory of process %d: %w", pid, err)
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm has the content %q", pid, statm)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/%d/statm: %w", pid, err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// MachineBusy returns the CPU time that all processes of the machine have used, and
// the time that the hypervisor has taken from it.
func MachineBusy() (busy, stolen time.Duration, err error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("the CPU time of the machine: %w", err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal ...
	if len(fields) < 9 {
		return 0, 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var spent [8]time.Duration
	for i := range spent {
		if spent[i], err = ticks(fields[i+1]); err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
	}
	return spent[0] + spent[1] + spent[2] + spent[5] + spent[6], spent[7], nil
}
