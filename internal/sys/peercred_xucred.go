//go:build darwin || freebsd

package sys

import "golang.org/x/sys/unix"

const solLocal = 0 // the level of the options of sockets of the unix domain

// PeerCred returns the user at the other end of a socket of the unix domain. A value that the
// system does not report is -1.
func PeerCred(fd int) (pid, uid, gid int, err error) {
	u, err := unix.GetsockoptXucred(fd, solLocal, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, 0, 0, err
	}
	gid = -1
	if u.Ngroups > 0 {
		gid = int(u.Groups[0])
	}
	return -1, int(u.Uid), gid, nil
}
