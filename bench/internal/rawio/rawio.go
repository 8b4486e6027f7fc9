// Package rawio reads and writes with raw system calls, of which the scheduler of Go is not
// notified.
package rawio

import (
	"syscall"
	"unsafe"
)

// Read reads from a non-blocking descriptor into p, which must not be empty.
func Read(fd int, p []byte) (int, syscall.Errno) { return transfer(syscall.SYS_READ, fd, p) }

// Write writes p, which must not be empty, to a non-blocking descriptor.
func Write(fd int, p []byte) (int, syscall.Errno) { return transfer(syscall.SYS_WRITE, fd, p) }

func transfer(call uintptr, fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
