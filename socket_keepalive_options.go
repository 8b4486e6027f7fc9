//go:build dragonfly || freebsd || linux || netbsd

package async

import "golang.org/x/sys/unix"

const (
	keepAliveIdle     = unix.TCP_KEEPIDLE
	keepAliveInterval = unix.TCP_KEEPINTVL
	keepAliveCount    = unix.TCP_KEEPCNT
)
