package sys

import (
	"math/bits"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EpollPwait waits for whole milliseconds. Without keepP the Go scheduler is told of the call.
func EpollPwait(epfd int, events []unix.EpollEvent, msec int, keepP bool) (n uintptr, errno unix.Errno) {
	if keepP {
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT,
			uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(msec), 0, 0)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT,
			uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(msec), 0, 0)
	}
	return n, errno
}

// EpollPwait2 is EpollPwait for a time in nanoseconds that is not negative.
func EpollPwait2(epfd int, events []unix.EpollEvent, d time.Duration, keepP bool) (n uintptr, errno unix.Errno) {
	ts := struct{ sec, nsec int64 }{int64(d / time.Second), int64(d % time.Second)} // 64 bits on every architecture
	if keepP {
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2,
			uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT2,
			uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	}
	return n, errno
}

// Preadv2 is the system call for one buffer, which must not be empty.
func Preadv2(fd int, p []byte, off int64, flags int) (int, error) {
	v := unix.Iovec{Base: &p[0]}
	v.SetLen(len(p))
	const half = bits.UintSize / 2 // the kernel takes the offset in two words, of which 64 bits need one
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&v)), 1,
		uintptr(off), uintptr(uint64(off)>>half>>half), uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Read is read(2) on a descriptor that does not block.
func Read(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// Write is write(2) on a descriptor that does not block.
func Write(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
