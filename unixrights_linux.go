package async

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// pidfdIn returns the descriptor of the sender's process, if m holds one. Linux adds it to each
// message that a socket with SO_PASSPIDFD receives.
func pidfdIn(m *unix.SocketControlMessage) (fd int, ok bool) {
	if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_PIDFD || len(m.Data) < 4 {
		return -1, false
	}
	fd = int(int32(binary.NativeEndian.Uint32(m.Data)))
	return fd, fd >= 0
}
