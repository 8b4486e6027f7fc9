package async

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func setKeepAlivePeriod(int, time.Duration) error {
	return os.NewSyscallError("setsockopt", unix.ENOPROTOOPT)
}
