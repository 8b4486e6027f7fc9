//go:build !linux

package pagecache

import (
	"errors"
	"syscall"
)

// Other systems have no read that refuses to wait.

// CanRead returns false.
func CanRead(flags int) bool { return false }

// Read fails.
func Read(conn syscall.RawConn, p []byte, off int64) (n int, err error) {
	return 0, errors.ErrUnsupported
}

// HasName returns false.
func HasName(conn syscall.RawConn) bool { return false }

// LookUp finds nothing.
func LookUp(name string) (found FileID, ok bool) { return found, false }

// LookAt finds nothing.
func LookAt(fd int) (found FileID, ok bool) { return found, false }

// Open opens nothing.
func Open(name string, found FileID) (fd int, ok bool) { return -1, false }

// ReadWhole fails.
func ReadWhole(fd int, size int) (data []byte, err error) { return nil, errors.ErrUnsupported }
