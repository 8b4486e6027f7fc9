//go:build darwin || freebsd

package async

import "golang.org/x/sys/unix"

const solLocal = 0 // the level of options of unix-domain sockets

func peerCred(fd int) (Ucred, error) {
	u, err := unix.GetsockoptXucred(fd, solLocal, unix.LOCAL_PEERCRED)
	if err != nil {
		return Ucred{}, err
	}
	c := Ucred{PID: -1, UID: int(u.Uid), GID: -1}
	if u.Ngroups > 0 {
		c.GID = int(u.Groups[0])
	}
	return c, nil
}
