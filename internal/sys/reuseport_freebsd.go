package sys

import "golang.org/x/sys/unix"

// ReusePort is the option by which several sockets share a port. On FreeBSD only this one
// distributes the connections among them; SO_REUSEPORT does not.
const ReusePort = unix.SO_REUSEPORT_LB
