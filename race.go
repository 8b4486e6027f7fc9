package async

import "syscall"

// The race detector must know that code before a write to a connection happens before code after
// the read of that data at the other end. It cannot see that from the raw system calls of this
// package. The functions Read and Write of package syscall inform the detector, for all descriptors
// of the process alike. So the two functions below make such calls, which have no other effect.
// They are empty if the detector is off.

// raceRelease is called before a write. syscall.Write informs the detector even if it fails, so
// raceRelease writes to the descriptor -1.
func raceRelease() {
	if raceEnabled {
		syscall.Write(-1, nil)
	}
}

// raceAcquire is called after a read that has succeeded. syscall.Read informs the detector only if
// the call of syscall.Read succeeds, so raceAcquire reads from raceNull.
func raceAcquire() {
	if raceEnabled {
		syscall.Read(raceNull, nil)
	}
}

// raceNull is a descriptor from which an empty read succeeds and takes nothing. It is -1 if the
// detector is off.
var raceNull = openRaceNull()

// openRaceNull returns the value of raceNull.
func openRaceNull() int {
	if !raceEnabled {
		return -1
	}
	fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1 // the detector may then report races that are none
	}
	return fd
}
