//go:build !linux

package async

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func setDeferAccept(int, time.Duration) error {
	return os.NewSyscallError("setsockopt", unix.ENOTSUP)
}

func multipath(int) (bool, error) { return false, nil }
