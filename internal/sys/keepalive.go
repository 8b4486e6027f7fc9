package sys

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Package net's defaults for the silence before the first probe and between
// probes, and for the number of probes that may stay unanswered.
const (
	KeepAlivePeriod = 15 * time.Second
	KeepAliveProbes = 9
)

// SetKeepAliveConfig is SetKeepAliveConfig of package net.
func SetKeepAliveConfig(fd int, c net.KeepAliveConfig) error {
	if err := SetOption(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, BoolInt(c.Enable)); err != nil {
		return err
	}
	if err := SetKeepAliveTime(fd, KeepAliveIdle, c.Idle); err != nil {
		return err
	}
	if err := SetKeepAliveTime(fd, KeepAliveInterval, c.Interval); err != nil {
		return err
	}
	switch {
	case c.Count < 0:
		return nil
	case c.Count == 0:
		c.Count = KeepAliveProbes
	}
	return SetKeepAliveOption(fd, KeepAliveCount, c.Count)
}

// SetKeepAliveTime sets an option in whole seconds, unless d is negative. Zero is
// the default.
func SetKeepAliveTime(fd, option int, d time.Duration) error {
	switch {
	case d < 0:
		return nil
	case d == 0:
		d = KeepAlivePeriod
	}
	return SetKeepAliveOption(fd, option, WholeSeconds(d))
}

// SetKeepAliveOption sets an option of TCP, and fails with ENOPROTOOPT if the system does not have it.
func SetKeepAliveOption(fd, option, value int) error {
	if option == keepAliveUnsupported {
		return os.NewSyscallError("setsockopt", unix.ENOPROTOOPT)
	}
	return SetOption(fd, unix.IPPROTO_TCP, option, value)
}

// keepAliveUnsupported is the option of a system that has none.
const keepAliveUnsupported = -1
