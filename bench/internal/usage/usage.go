// Package usage reads the CPU time and the memory of processes from the system.
package usage

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU returns the CPU time of a process from the accounting of the kernel: the time of all its
// threads, ended threads included, in user and in kernel mode.
func CPU(pid int) (time.Duration, error) {
	// The number of the clock for the CPU time of a process, as clock_getcpuclockid of the C
	// library computes it.
	const scheduled = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &ts); err != nil {
		return 0, fmt.Errorf("the CPU-time clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Resident returns the resident memory of a process in bytes. It does not contain memory of the
// kernel, for example the buffers of sockets.
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

// MachineBusy returns the CPU time that all processes of the machine have used, and the time that
// the hypervisor has taken from the machine. Both are counted in steps of 10 ms per processor.
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
		ticks, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		spent[i] = time.Duration(ticks) * 10 * time.Millisecond // 100 ticks per second on every architecture
	}
	return spent[0] + spent[1] + spent[2] + spent[5] + spent[6], spent[7], nil
}
