//go:build !linux

package sys

import "golang.org/x/sys/unix"

// Read is read(2) for a descriptor that does not block. The Go scheduler is told of the call.
func Read(fd int, p []byte) (int, error) { return unix.Read(fd, p) }

// Write is write(2).
func Write(fd int, p []byte) (int, error) { return unix.Write(fd, p) }
