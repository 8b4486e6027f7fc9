package async

import "golang.org/x/sys/unix"

func peerCred(fd int) (Ucred, error) {
	u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Ucred{}, err
	}
	return Ucred{PID: int(u.Pid), UID: int(u.Uid), GID: int(u.Gid)}, nil
}
