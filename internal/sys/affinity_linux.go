package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SetAffinity makes the calling thread run only on the given processors.
func SetAffinity(cpus []int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		if cpu >= 0 {
			set.Set(cpu)
		}
		if cpu < 0 || !set.IsSet(cpu) {
			return fmt.Errorf("async: Config.Tuning.Affinity names processor %d, which there cannot be", cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("async: Config.Tuning.Affinity %v: sched_setaffinity: %w", cpus, err)
	}
	return nil
}
