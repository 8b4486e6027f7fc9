package async

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Package net's defaults for the silence before the first probe and between
// probes, and for the number of probes that may stay unanswered.
const (
	keepAlivePeriod = 15 * time.Second
	keepAliveProbes = 9
)

// setKeepAliveConfig is SetKeepAliveConfig of package net.
func setKeepAliveConfig(fd int, c net.KeepAliveConfig) error {
	if err := setSocketOption(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, boolInt(c.Enable)); err != nil {
		return err
	}
	if err := setKeepAliveTime(fd, keepAliveIdle, c.Idle); err != nil {
		return err
	}
	if err := setKeepAliveTime(fd, keepAliveInterval, c.Interval); err != nil {
		return err
	}
	switch {
	case c.Count < 0:
		return nil
	case c.Count == 0:
		c.Count = keepAliveProbes
	}
	return setKeepAliveOption(fd, keepAliveCount, c.Count)
}

// setKeepAliveTime sets an option in whole seconds, unless d is negative. Zero is
// the default.
func setKeepAliveTime(fd, option int, d time.Duration) error {
	switch {
	case d < 0:
		return nil
	case d == 0:
		d = keepAlivePeriod
	}
	return setKeepAliveOption(fd, option, wholeSeconds(d))
}

func setKeepAliveOption(fd, option, value int) error {
	if option == keepAliveUnsupported {
		return os.NewSyscallError("setsockopt", unix.ENOPROTOOPT)
	}
	return setSocketOption(fd, unix.IPPROTO_TCP, option, value)
}

// keepAliveUnsupported is the option of a system that has none.
const keepAliveUnsupported = -1
