package async

import (
	"time"

	"golang.org/x/sys/unix"
)

func setKeepAlivePeriod(fd int, d time.Duration) error {
	if err := setOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPALIVE, wholeSeconds(d)); err != nil {
		return err
	}
	return setOption(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, wholeSeconds(d))
}
