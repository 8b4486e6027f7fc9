//go:build dragonfly || netbsd || openbsd

package sys

import "golang.org/x/sys/unix"

// PeerCred fails with ENOTSUP.
func PeerCred(int) (pid, uid, gid int, err error) { return 0, 0, 0, unix.ENOTSUP }
