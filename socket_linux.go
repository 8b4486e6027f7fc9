package async

import (
	"time"

	"golang.org/x/sys/unix"
)

func setDeferAccept(fd int, d time.Duration) error {
	return setOption(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, wholeSeconds(d))
}
