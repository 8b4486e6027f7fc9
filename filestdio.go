package async

import (
	"os"

	"golang.org/x/sys/unix"
)

// Stdin, Stdout and Stderr are the standard streams. They share the descriptors of [os.Stdin],
// [os.Stdout] and [os.Stderr] as these are when the program starts. Methods may be called
// concurrently; see [File], also for errors.
//
// The descriptors stay blocking. The program shares the open files with other processes, for
// example the shell that started it, and these must not find theirs non-blocking. So reads and
// writes run in the runtime's pool of blocking calls:
//
//   - Read goes to the pool when the system says that there is input. Until then it uses no thread.
//     If another process takes the input first, the call waits in the pool for more. Read takes no
//     more bytes than its caller asks for.
//   - Write returns when the data has been written. If a Write to a full pipe is cancelled, it
//     continues in the pool, and returns how many bytes it has accepted.
//
// For many small reads or writes use package bufio, through [BindFile].
//
// If the reader of Stdout or Stderr has gone, a Write ends the program by SIGPIPE, as with package
// os. If the program asks for that signal, the error wraps [syscall.EPIPE] instead.
var (
	Stdin  = stdFile(os.Stdin)
	Stdout = stdFile(os.Stdout)
	Stderr = stdFile(os.Stderr)
)

// stdFile makes the File of a standard stream.
func stdFile(f *os.File) *File {
	return &File{name: f.Name(), os: f, exact: true, sync: true, input: &terminalInput{of: f}}
}

// terminalInput is the place where a read waits for input before it goes to the pool. It polls a
// second descriptor of the same open file.
//
// Such a file lives longer than a runtime. If the runtime that polls it has ended, another runtime
// polls it.
type terminalInput struct {
	of *os.File

	mu   lockOf[terminalInput]
	src  *pollFD // the second descriptor; nil if it is not open
	open bool    // no descriptor can be polled now or later: reads wait in the pool
}

// poll returns nil if there is input, or if the system cannot say. It returns ErrPending if there
// is none. It tries twice, since the first descriptor may belong to a runtime that has ended.
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

// pollFD returns the descriptor that is polled. It opens it if needed. It returns nil if there is
// none.
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

// lose closes the descriptor s. forGood says that no other descriptor shall be polled.
func (g *terminalInput) lose(s *pollFD, forGood bool) {
	g.mu.Lock()
	if g.src == s {
		g.src, g.open = nil, forGood
	}
	g.mu.Unlock()
	s.close()
}

// leave is called when a task no longer waits for input.
func (g *terminalInput) leave(cx *Context) {
	g.mu.Lock()
	s := g.src
	g.mu.Unlock()
	if s != nil {
		s.rd.waiters.leave(cx.t, cx.here())
	}
}

// close closes the descriptor. A read that waits for input goes on to the pool or finds the file
// closed.
func (g *terminalInput) close() {
	g.mu.Lock()
	s := g.src
	g.src, g.open = nil, true
	g.mu.Unlock()
	if s != nil {
		s.close()
	}
}
