package async

import (
	"golang.org/x/sys/unix"
)

// exitWatch waits in a reactor for the end of a process, by a pidfd, which becomes readable then.
// It is no task, since the process may live longer than the runtime. After Shutdown a goroutine
// waits instead.
type exitWatch struct {
	c   *Cmd
	src pollFD

	mu   lockOf[exitWatch]
	cx   *Context
	over bool // look has seen the end, or an error, and reap has been started
}

// watch makes sure that the process is reaped.
func (c *Cmd) watch(rt *Runtime) {
	fd, err := unix.PidfdOpen(c.Process.Pid, 0)
	if err != nil { // before Linux 5.3, or forbidden
		go c.reap()
		return
	}
	w := &exitWatch{c: c}
	w.src.open(fd)
	w.cx = NewContext(rt, NewWaker(func() { go w.look() })) // a waker must not block
	w.look()
}

// look is called when the process may have ended. If it has, look starts reap.
func (w *exitWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	_, err := w.src.pollOp(w.cx, &w.src.rd, func(fd int) (int, bool, error) {
		return 0, false, fdReadyNow(fd, unix.POLLIN)
	})
	if err == ErrPending {
		return
	}
	w.over = true
	w.src.close()
	goOutsideBubble(w.c.reap) // after an error only a goroutine can wait
}
