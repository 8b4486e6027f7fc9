// Package usage reads from the system what processes have used.
package usage

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU returns the CPU time of a process, from the kernel's own accounting: that of all its threads,
// ended ones included, in user and in kernel mode.
func CPU(pid int) (time.Duration, error) {
	// The clock that counts the CPU time of a process, as clock_getcpuclockid of the C library has it.
	const scheduled = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &ts); err != nil {
		return 0, fmt.Errorf("the CPU-time clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
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

// MachineBusy returns the CPU time that all processes of the machine have used, and the time that the
// hypervisor has taken from it, in steps of 10 ms per processor.
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
		spent[i] = time.Duration(ticks) * 10 * time.Millisecond // 100 ticks in a second on every architecture
	}
	return spent[0] + spent[1] + spent[2] + spent[5] + spent[6], spent[7], nil
}
