//go:build dragonfly || netbsd || openbsd

package async

import "golang.org/x/sys/unix"

func peerCred(int) (Ucred, error) { return Ucred{}, unix.ENOTSUP }
