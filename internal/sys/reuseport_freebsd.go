package sys

import "golang.org/x/sys/unix"

// ReusePort: FreeBSD has an option of its own for ports whose connections are shared out.
const ReusePort = unix.SO_REUSEPORT_LB
