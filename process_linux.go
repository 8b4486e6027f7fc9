package async

import (
	"golang.org/x/sys/unix"
)

// exitWatch waits for the end of a process in the reactor, by a descriptor of
// the process that becomes readable then. It is not a task, since the process
// may outlive the runtime: after Shutdown a goroutine waits.
type exitWatch struct {
	c   *Cmd
	src pollFD

	mu   lockOf[exitWatch]
	cx   *Context
	over bool
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
	w.cx = NewContext(rt, NewWaker(func() { go w.look() })) // called where it must not block
	w.look()
}

// look reaps the process if it has ended.
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
	goOutsideBubble(w.c.reap) // it has ended, or only a goroutine can wait for it
}
