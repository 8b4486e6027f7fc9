//go:build !linux

package sys

import "golang.org/x/sys/unix"

// Read is read(2) on a non-blocking descriptor. It tells the Go scheduler about the call.
func Read(fd int, p []byte) (int, error) { return unix.Read(fd, p) }

// Write is write(2) on a non-blocking descriptor. It tells the Go scheduler about the call.
func Write(fd int, p []byte) (int, error) { return unix.Write(fd, p) }
