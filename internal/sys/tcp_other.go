//go:build !linux

package sys

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SetDeferAccept fails with ENOTSUP.
func SetDeferAccept(int, time.Duration) error {
	return os.NewSyscallError("setsockopt", unix.ENOTSUP)
}

// Multipath returns false: no connection uses Multipath TCP here.
func Multipath(int) (bool, error) { return false, nil }
