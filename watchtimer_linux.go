package async

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchTimer is a timer that one goroutine waits for. To set it wakes no thread and no
// goroutine: it is a timer of the kernel's, which Go's own poller watches.
type watchTimer struct {
	file  *os.File
	conn  syscall.RawConn
	after atomic.Int64     // what it was set to last
	apply func(fd uintptr) // sets it to that; made once, since a closure is an allocation
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
	return err
}

// set has the timer fire once after d, at once if that is 0, and never if it is negative.
// What it was set to before is void.
func (t *watchTimer) set(d time.Duration) {
	t.after.Store(int64(d))
	t.conn.Control(t.apply) // which does nothing once the timer is closed
}

// wait returns when the timer has fired, or may have, or is closed.
func (t *watchTimer) wait() {
	var expirations [8]byte
	t.file.Read(expirations[:])
}

func (t *watchTimer) close() { t.file.Close() }
