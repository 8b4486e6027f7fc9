//go:build !freebsd

package sys

import "golang.org/x/sys/unix"

// ReusePort is the option by which several sockets share a port, and the system its connections.
const ReusePort = unix.SO_REUSEPORT
