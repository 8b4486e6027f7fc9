package async

import "syscall"

// The code that one end of a connection runs before a write happens before the code that the
// other end runs after it has read that data. The race detector cannot know this: raw
// system calls are invisible to it. The calls of package syscall tell it, for all
// descriptors of the process alike, and so the two functions below make such calls,
// which do nothing else. Where the detector is off they are empty.

// raceRelease is called before a write.
func raceRelease() {
	if raceEnabled {
		syscall.Write(-1, nil)
	}
}

// raceAcquire is called after a read that has succeeded.
func raceAcquire() {
	if raceEnabled {
		syscall.Read(raceNull, nil)
	}
}

// raceNull is a descriptor from which an empty read succeeds and takes nothing, -1
// where the detector is off.
var raceNull = openRaceNull()

func openRaceNull() int {
	if !raceEnabled {
		return -1
	}
	fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1 // without the edges the detector may report races that are none
	}
	return fd
}
