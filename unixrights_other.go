//go:build !linux

package async

import "golang.org/x/sys/unix"

// pidfdIn finds nothing: only Linux adds descriptors to a message.
func pidfdIn(*unix.SocketControlMessage) (fd int, ok bool) { return -1, false }
