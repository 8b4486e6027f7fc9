package sys

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SetOption sets a socket option whose value is a number.
func SetOption(fd, level, name, value int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, name, value))
}

// BoolInt returns the option value for b: 1 for true, 0 for false.
func BoolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// WholeSeconds returns d in seconds, rounded up.
func WholeSeconds(d time.Duration) int {
	return int((d + time.Second - 1) / time.Second)
}
