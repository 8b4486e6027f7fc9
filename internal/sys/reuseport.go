//go:build !freebsd

package sys

import "golang.org/x/sys/unix"

// ReusePort is the option by which several sockets share a port. The system distributes its
// connections among them.
const ReusePort = unix.SO_REUSEPORT
