package async

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// watchTimer is a timer for which one goroutine waits. Setting it wakes no thread and no goroutine: it is a
// timerfd in Go's netpoller.
type watchTimer struct {
	file    *os.File
	conn    syscall.RawConn
	after   atomic.Int64          // the duration to which it was set last
	apply   func(fd uintptr)      // sets it to after; made once, since a closure is an allocation
	expired func(fd uintptr) bool // reads it and reports whether it had fired; unlike os.File.Read it does not wake sysmon
}

func (t *watchTimer) open() error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	t.file = os.NewFile(uintptr(fd), "timerfd")
	if err := t.file.SetReadDeadline(time.Time{}); err != nil { // Go's poller has not taken it
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

// set makes the timer fire once after d: at once if d is 0, never if d is negative. It replaces the previous
// setting.
func (t *watchTimer) set(d time.Duration) {
	t.after.Store(int64(d))
	t.conn.Control(t.apply) // which does nothing once the timer is closed
}

// wait returns when the timer has fired, or may have, or is closed.
func (t *watchTimer) wait() {
	t.conn.Read(t.expired)
}

func (t *watchTimer) close() { t.file.Close() }
