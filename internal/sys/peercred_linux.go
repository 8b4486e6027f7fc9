package sys

import "golang.org/x/sys/unix"

// PeerCred returns the process and the user at the other end of a socket of the unix domain. A
// value that the system does not report is -1.
func PeerCred(fd int) (pid, uid, gid int, err error) {
	u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, 0, 0, err
	}
	return int(u.Pid), int(u.Uid), int(u.Gid), nil
}
