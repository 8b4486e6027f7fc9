package sys

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EpollPwait is epoll_pwait(2), which waits at most msec milliseconds. If keepP is not set, it
// tells the Go scheduler about the call, and the thread gives up its P.
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

// EpollPwait2 is EpollPwait for a time in nanoseconds, which must not be negative.
func EpollPwait2(epfd int, events []unix.EpollEvent, d time.Duration, keepP bool) (n uintptr, errno unix.Errno) {
	// The kernel takes two words of 64 bits on every architecture.
	ts := struct{ sec, nsec int64 }{int64(d / time.Second), int64(d % time.Second)}
	if keepP {
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2,
			uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT2,
			uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	}
	return n, errno
}
