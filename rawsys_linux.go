package async

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls that x/sys/unix has not, or only in the form that tells the
// Go scheduler of the wait. This is the one file of the package that imports
// unsafe; docs/design.md, "Waiting", has what it is good for.

// epollPwait waits for whole milliseconds. Without keepP the scheduler knows.
func epollPwait(epfd int, events []unix.EpollEvent, msec int, keepP bool) (n uintptr, errno unix.Errno) {
	if keepP {
		n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT,
			uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(msec), 0, 0)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT,
			uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(msec), 0, 0)
	}
	return n, errno
}

// epollPwait2 is the same for a time in nanoseconds that is not negative.
func epollPwait2(epfd int, events []unix.EpollEvent, d time.Duration, keepP bool) (n uintptr, errno unix.Errno) {
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
