//go:build dragonfly || freebsd || linux || netbsd

package sys

import "golang.org/x/sys/unix"

// The keep-alive options of TCP.
const (
	KeepAliveIdle     = unix.TCP_KEEPIDLE
	KeepAliveInterval = unix.TCP_KEEPINTVL
	KeepAliveCount    = unix.TCP_KEEPCNT
)
