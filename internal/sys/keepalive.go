package sys

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The defaults of package net: the time without data before the first probe and between probes, and
// the number of unanswered probes that end a connection.
const (
	KeepAlivePeriod = 15 * time.Second
	KeepAliveProbes = 9
)

// SetKeepAliveConfig sets the keep-alive options of a socket, as net.TCPConn.SetKeepAliveConfig
// does.
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

// SetKeepAliveTime sets an option that is a time in whole seconds. If d is 0 it sets the default.
// If d is negative it does nothing.
func SetKeepAliveTime(fd, option int, d time.Duration) error {
	switch {
	case d < 0:
		return nil
	case d == 0:
		d = KeepAlivePeriod
	}
	return SetKeepAliveOption(fd, option, WholeSeconds(d))
}

// SetKeepAliveOption sets an option of TCP. It fails with ENOPROTOOPT if the system does not have
// the option.
func SetKeepAliveOption(fd, option, value int) error {
	if option == keepAliveUnsupported {
		return os.NewSyscallError("setsockopt", unix.ENOPROTOOPT)
	}
	return SetOption(fd, unix.IPPROTO_TCP, option, value)
}

// keepAliveUnsupported stands for an option that the system does not have.
const keepAliveUnsupported = -1
