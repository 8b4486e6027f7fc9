package async

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// watchTimer is a timer for which one goroutine waits. It is a timerfd in Go's netpoller. Setting
// it wakes no thread and no goroutine. It is read and set by raw system calls, which do not wake
// sysmon.
type watchTimer struct {
	file    *os.File
	conn    syscall.RawConn
	after   atomic.Int64          // the duration to which it was set last, in nanoseconds
	apply   func(fd uintptr)      // sets the timerfd to after; made once, by open
	expired func(fd uintptr) bool // reads the timerfd, and reports whether it had fired
}

// open makes the timer, which is not set.
func (t *watchTimer) open() error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	t.file = os.NewFile(uintptr(fd), "timerfd")
	if err := t.file.SetReadDeadline(time.Time{}); err != nil { // it is not in Go's netpoller
		t.file.Close()
		return err
	}
	t.conn, err = t.file.SyscallConn()
	t.apply = func(fd uintptr) {
		var spec unix.ItimerSpec
		if d := t.after.Load(); d >= 0 {
			spec.Value = unix.NsecToTimespec(max(d, 1))
		}
		unix.TimerfdSettime(int(fd), 0, &spec, nil)
	}
	t.expired = func(fd uintptr) bool {
		var expirations [8]byte
		_, err := sys.Read(int(fd), expirations[:])
		return err == nil
	}
	return err
}

// set makes the timer fire once after d: at once if d is 0, never if d is negative. It replaces the
// last setting. Once the timer is closed it does nothing. One thread at a time calls it.
func (t *watchTimer) set(d time.Duration) {
	t.after.Store(int64(d))
	t.conn.Control(t.apply)
}

// wait returns when the timer has fired or is closed. It may also return early.
func (t *watchTimer) wait() {
	t.conn.Read(t.expired)
}

// close makes wait return.
func (t *watchTimer) close() { t.file.Close() }
