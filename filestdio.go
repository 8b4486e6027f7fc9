package async

import (
	"os"

	"golang.org/x/sys/unix"
)

// Stdin, Stdout and Stderr are the standard streams. They are os.Stdin,
// os.Stdout and os.Stderr as these are when the program starts, and share their
// descriptors.
//
// The descriptors are not made non-blocking, since the program shares the open
// files with other processes, such as the shell that started it, and these would find
// theirs non-blocking too. So reads and writes go to the pool. A read does so only
// once the system says that there is input, and until then it costs no thread;
// if another process takes the input first, the call waits for more in the
// pool. Read takes no more than it is asked for, and Write returns when the data
// has been written: use package bufio, through BindFile, for small pieces.
//
// A Write to Stdout or Stderr whose reader has gone ends the program by
// SIGPIPE, as with package os, unless the program asks for that signal; then
// the error wraps syscall.EPIPE. A Write to a full pipe that is cancelled goes on
// in the pool, and returns how much it has accepted.
var (
	Stdin  = stdFile(os.Stdin)
	Stdout = stdFile(os.Stdout)
	Stderr = stdFile(os.Stderr)
)

func stdFile(f *os.File) *File {
	return &File{name: f.Name(), os: f, exact: true, sync: true, input: &terminalInput{of: f}}
}

// terminalInput is where a read waits for input before it goes to the pool. It
// watches a second descriptor of the same open file.
//
// Such a file outlives runtimes. When the runtime whose poller watches it has
// ended, the poller of another runtime takes over.
type terminalInput struct {
	of *os.File

	mu   lockOf[terminalInput]
	src  *pollFD
	open bool // no descriptor can be watched, or not anymore: the pool has to wait
}

// poll returns nil if there is input, or if the system cannot say.
func (g *terminalInput) poll(cx *Context) error {
	for range 2 {
		s := g.pollFD()
		if s == nil {
			return nil
		}
		_, err := s.pollOp(cx, &s.rd, func(fd int) (int, bool, error) {
			return 0, false, fdReadyNow(fd, unix.POLLIN)
		})
		switch err {
		case nil, ErrPending:
			return err
		}
		g.lose(s, err != ErrShutdown || cx.t.w.rt.closing.Load())
	}
	return nil
}

// pollFD returns the descriptor that is watched; nil if there is none.
func (g *terminalInput) pollFD() *pollFD {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open || g.src != nil {
		return g.src
	}
	fd := -1
	if conn, err := g.of.SyscallConn(); err == nil {
		conn.Control(func(raw uintptr) { fd, _ = duplicateFD(int(raw)) })
	}
	if fd < 0 {
		g.open = true
		return nil
	}
	g.src = newPollFD(fd)
	return g.src
}

// lose gives up the descriptor s. forGood says that no other descriptor is to be watched.
func (g *terminalInput) lose(s *pollFD, forGood bool) {
	g.mu.Lock()
	if g.src == s {
		g.src, g.open = nil, forGood
	}
	g.mu.Unlock()
	s.close()
}

// leave is called by a task that waits no longer.
func (g *terminalInput) leave(cx *Context) {
	g.mu.Lock()
	s := g.src
	g.mu.Unlock()
	if s != nil {
		s.rd.waiters.leave(cx.t, cx.here())
	}
}

func (g *terminalInput) close() {
	g.mu.Lock()
	s := g.src
	g.src, g.open = nil, true
	g.mu.Unlock()
	if s != nil {
		s.close()
	}
}
