package async

import "golang.org/x/sys/unix"

// FreeBSD has an option of its own for ports that are shared out.
const reusePortOption = unix.SO_REUSEPORT_LB
