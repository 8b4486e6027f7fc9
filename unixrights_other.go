//go:build !linux

package async

import "golang.org/x/sys/unix"

// pidfdIn returns false: only Linux adds descriptors to a message.
func pidfdIn(*unix.SocketControlMessage) (fd int, ok bool) { return -1, false }
