package async

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"example.com/async/internal/pagecache"
	"golang.org/x/sys/unix"
)

// File is an open file, as os.File is, whose operations wait through a Context.
// It may be used by any number of tasks and goroutines at once, and must be
// closed.
//
// Pipes, FIFOs, terminals, sockets and all other files that the system can report as
// ready are read and written by the task itself when they are ready: reads and writes
// cost no thread while they wait, have deadlines, and cancelling them loses
// nothing (a Write says how much was written).
//
// Files of the disk, which are always ready and yet must be waited for, go to
// the runtime's pool of blocking calls. Data that the system has in memory need not be
// waited for: Read, ReadAt, Seek and Stat take it on the spot, 1 MiB at a time, where
// the system can be told not to wait (Linux, and file systems that keep that
// promise, such as ext4, XFS and btrfs). That keeps the worker for a moment, and now
// and then for a longer moment: when the system starts to read ahead, or notes the time
// of access.
//
// So that small reads and writes do not cost a system call or a hand-off each:
//
//   - Read reads ahead, up to 1 MiB where reads follow each other and have to be
//     waited for. The data is as old as that read; it is thrown away by every
//     change that is made through this File.
//   - Write returns once it has a copy of the data, of which it holds at most 512
//     KiB. The data is on its way to the system then, and needs no further call
//     to get there as long as the program runs; Write says which data is lost if
//     the program ends. Flush, and every call but Read and Write, waits until the
//     data is there. If that fails, all data that has been accepted since is
//     dropped. Every call that waits for some of this data returns the error; if
//     there is no such call, the next call returns it instead of doing anything,
//     once. Close returns it too. With O_SYNC in the flags of OpenFile, Write
//     waits for its data as Flush does.
//
// The file position is that of the descriptor as soon as a call other than Read and
// Write has looked at it or Close has ended; in between, other descriptors and
// processes that share it see it run ahead. Reads and writes of several tasks
// happen one after the other; a Write of more than 256 KiB may be mixed with
// others.
//
// Cancelling a Read or a Write of a file of the disk loses nothing. A read that is
// under way goes on, and its data is kept for the next Read; a Write says how much
// it has accepted, and this data will be written. The file position is after the data
// that was returned or accepted. Every other operation happens completely or not at
// all, and the caller cannot know which: it is not interrupted once it has begun.
//
// Errors are *fs.PathError, as those of os.File; it wraps os.ErrClosed after Close
// and os.ErrDeadlineExceeded after a deadline. Not wrapped are io.EOF, cx.Err() if
// cx is cancelled, and the errors of the runtime: ErrPending, ErrBusy and
// ErrShutdown.
type File struct {
	name   string
	polled bool
	src    pollFD // if polled

	os       *os.File // if not polled
	conn     syscall.RawConn
	seekable bool
	readOnly bool
	exact    bool           // Read reads no more than it is asked for
	sync     bool           // Write waits until it is written
	input    *terminalInput // if reads should wait for input before the pool does; may be nil

	mu      lockOf[File]
	changed wakerSlot // fired when a field below has changed in a way that a task may wait for
	use     fileUse
	wanted  bool // a task waits for the file position: no more reading ahead and writing behind until it has it
	closed  bool
	closing func() // closes the file when its use ends

	ahead    readAhead
	cached   bool     // the system may return data of it that is in memory without waiting
	hot      bool     // the last Read, or the opening, found it in memory
	noted    *devices // if it was opened on the spot: the table that says that this can be done
	dev      uint64   // its device in that table
	readSize int      // how much the next read takes
	lag      int64    // by how much the file position is behind that of the descriptor
	edits    uint64   // counts changes that make data that was read ahead wrong
	asked    bool     // a task waits for the read that is under way
	readErr  error    // the error of that read

	unwritten []byte // accepted, and not with the pool yet
	accepted  int64  // how many bytes Write has ever accepted
	written   int64  // how many of these have been written, or dropped
	tickets   []*writeTicket
	writeErr  error     // to be reported by the next call
	loss      *fileLoss // the same for Run and Shutdown, if no call reports it
	writeFail error     // to be reported by Close
}

// fileUse says which operation has the file position of a file of the disk. There is
// one at a time. Only an operation whose use a call of the pool ends may take longer
// than a moment.
type fileUse uint8

const (
	fileIdle       fileUse = iota
	fileReading            // the pool reads ahead, or a caller reads on the spot
	fileWriting            // the pool writes accepted data, until there is no more
	filePositioned         // the pool does another operation at the file position
)

// FromFile makes a File of f, which belongs to the File from then on, and
// must not be used anymore. A descriptor that can be waited for (see File) is made
// non-blocking, which other processes that have inherited the same open file
// will notice; if such a process makes it blocking, the next read or write makes it
// non-blocking again. So FromFile is not for the standard streams: see Stdin. A file of the
// disk is read in the pool only, since a read on the spot would wait for a read of such a process.
// The error is an *fs.PathError; it wraps os.ErrClosed if f is closed.
func FromFile(f *os.File) (*File, error) {
	return newFile(f, false)
}

func newFile(f *os.File, opened bool) (*File, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	nf := &File{name: f.Name(), os: f, conn: conn}
	fd := -1
	cerr := conn.Control(func(raw uintptr) {
		var st unix.Stat_t
		if err = unix.Fstat(int(raw), &st); err != nil {
			return
		}
		switch kind := uint32(st.Mode) & unix.S_IFMT; {
		case kind == unix.S_IFREG, kind == unix.S_IFDIR:
			nf.seekable = true
			flags, _ := unix.FcntlInt(raw, unix.F_GETFL, 0)
			nf.sync = flags&unix.O_SYNC != 0
			nf.readOnly = flags&unix.O_ACCMODE == unix.O_RDONLY
			nf.cached = opened && kind == unix.S_IFREG && pagecache.CanRead(flags)
		case opened && kind == unix.S_IFIFO && runtime.GOOS == "darwin":
			// kqueue does not report there that the last writer has gone.
		default:
			fd, err = pollableCopy(int(raw))
			if errors.Is(err, ErrNotPollable) {
				_, serr := unix.Seek(int(raw), 0, io.SeekCurrent)
				nf.seekable, err = serr == nil, nil
			}
		}
	})
	if cerr != nil {
		err = os.ErrClosed // the only reason that there is
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	if fd >= 0 {
		// Go's own poller watches the descriptor of f. It must not watch this file.
		f.Close()
		nf.os, nf.conn, nf.polled = nil, nil, true
		nf.src.open(fd)
		if !opened {
			nf.src.markShared()
		}
	}
	return nf, nil
}

// plainFile makes a File of a descriptor of a file of the disk that is open for
// reading, and can be read without waiting.
func plainFile(fd int, name string) (*File, error) {
	unix.SetNonblock(fd, false) // it was non-blocking for the opening
	f := os.NewFile(uintptr(fd), name)
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{name: name, os: f, conn: conn, seekable: true, readOnly: true, cached: true, hot: true}, nil
}

// pollableCopy returns a duplicate of fd, and makes the open file non-blocking. It
// returns -1 and an error if the file cannot be waited for.
func pollableCopy(fd int) (int, error) {
	err := checkPollable(fd)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return -1, err
	}
	return duplicateFD(fd)
}

// Pipe returns a connected pair of Files, as os.Pipe does; reads from r return
// the data that is written to w. The error is an *os.SyscallError.
func Pipe() (r, w *File, err error) {
	var fds [2]int
	if err := openPipe(&fds); err != nil {
		return nil, nil, err
	}
	return pipeEnd(fds[0], "|0"), pipeEnd(fds[1], "|1"), nil
}

// pipeEnd makes a File of a non-blocking descriptor.
func pipeEnd(fd int, name string) *File {
	f := &File{name: name, polled: true}
	f.src.open(fd)
	return f
}

// Name returns the name that the file was opened with.
func (f *File) Name() string { return f.name }

// wrap returns the error that package os would make of err. io.EOF, and the errors of a
// Context and of the runtime are left as they are.
func (f *File) wrap(op string, err error) error {
	switch err {
	case net.ErrClosed:
		err = os.ErrClosed
	case os.ErrClosed, os.ErrDeadlineExceeded:
	default:
		switch e := err.(type) {
		case syscall.Errno:
		case *os.SyscallError:
			if e.Syscall == op { // the PathError says it
				err = e.Err
			}
		default:
			return err
		}
	}
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// PollRead reads available data into p. It returns ErrPending if there is none,
// io.EOF at the end, and at once if p is empty. For files of the disk it
// returns ErrBusy if the queue of the runtime's pool is full.
func (f *File) PollRead(cx *Context, p []byte) (int, error) {
	if len(p) > maxIO {
		p = p[:maxIO]
	}
	if !f.polled {
		n, err := f.pollReadAhead(cx, p)
		return n, cx.unspent(err)
	}
	if len(p) == 0 {
		return 0, f.wrap("read", f.src.checkOpen())
	}
	n, err := f.src.pollOp(cx, &f.src.rd, func(fd int) (int, bool, error) {
		if err := f.src.keepNonblocking(fd); err != nil {
			return 0, false, err
		}
		n, err := unix.Read(fd, p)
		return n, false, orEOF(n, err) // a terminal gives one line at a time: less than len(p) may not be all
	})
	return max(n, 0), f.wrap("read", err)
}

// PollWrite writes as much of p as there is room for, or, for a file of the
// disk, accepts it: see File, and PollFlush. It returns ErrPending if there is no
// room. For files of the disk it returns ErrBusy, and has not accepted anything, if
// the queue of the runtime's pool is full.
func (f *File) PollWrite(cx *Context, p []byte) (int, error) {
	if len(p) > maxIO {
		p = p[:maxIO]
	}
	if !f.polled {
		n, err := f.pollWriteBehind(cx, p, nil)
		return n, cx.unspent(err)
	}
	if len(p) == 0 {
		return 0, f.wrap("write", f.src.checkOpen())
	}
	n, err := f.src.pollOp(cx, &f.src.wr, func(fd int) (int, bool, error) {
		if err := f.src.keepNonblocking(fd); err != nil {
			return 0, false, err
		}
		n, err := unix.Write(fd, p)
		return n, false, err
	})
	return max(n, 0), f.wrap("write", err)
}

// Read waits until there is data, and reads it into p; at the end of the
// file the error is io.EOF.
func (f *File) Read(cx *Context, p []byte) (int, error) {
	if n, err := f.readHot(cx, p); err != pagecache.ErrMiss {
		return n, err
	}
	return f.await(cx, &f.src.rd, func(cx *Context) (int, error) { return f.PollRead(cx, p) })
}

// Write writes all of p, unless it fails; n says how much. See File for when the data
// has reached the system: n counts the bytes that were accepted and have not been
// dropped by the return.
//
// A program that ends can lose data that a Write to a file of the disk has accepted, up to
// 512 KiB of each file. [Run] and [Runtime.Shutdown] prevent that: they wait until the
// data is written, and return an [*UnwrittenError] if it cannot be. Nothing waits if the
// program calls os.Exit or log.Fatal, if it crashes or is killed, or if main uses
// neither of the two. Such a program calls [File.Flush] or [File.Close] before,
// with a cx that is not cancelled, and looks at the error. The data has then reached the
// system, and survives the program; [File.Sync] waits until it survives the system.
func (f *File) Write(cx *Context, p []byte) (n int, err error) {
	var ticket *writeTicket
	defer func() { f.dropTicket(ticket) }()
	for err == nil {
		var m int
		m, err = f.await(cx, &f.src.wr, func(cx *Context) (int, error) {
			if f.polled {
				return f.PollWrite(cx, p[n:])
			}
			return f.pollWriteBehind(cx, p[n:], &ticket)
		})
		if n += m; n == len(p) {
			break
		}
	}
	if ticket == nil {
		return n, err
	}
	if f.sync && err == nil {
		_, err = f.await(cx, &f.src.wr, func(cx *Context) (int, error) { return f.pollWritten(cx, ticket) })
	}
	return n - f.lost(ticket), err
}

// WriteString is Write for a string.
func (f *File) WriteString(cx *Context, s string) (n int, err error) {
	return f.Write(cx, []byte(s))
}

// await awaits a poll of one direction.
func (f *File) await(cx *Context, dir *direction, poll func(*Context) (int, error)) (int, error) {
	if f.polled {
		n, err := awaitInOrder(cx, &dir.waiters, poll)
		return n, awaitedError(cx, err)
	}
	for {
		n, err := await(cx, poll)
		switch err {
		case errAbandoned:
			f.leave(cx, dir)
			return n, cx.Err()
		case ErrBusy:
			if err := awaitRoom(cx); err != nil {
				return n, err
			}
			continue
		}
		return n, err
	}
}

// leave is called by a task that waits no longer for a file of the disk.
func (f *File) leave(cx *Context, dir *direction) {
	if f.input != nil {
		f.input.leave(cx)
	}
	f.mu.Lock()
	wanted := f.wanted
	f.wanted = false // other tasks that want the file position say so again
	if dir == &f.src.rd {
		f.asked, f.readErr = false, nil // the next Read should look for itself whether the end is still there
	}
	f.mu.Unlock()
	if wanted {
		f.changed.fire(cx.here())
	}
	f.changed.leave(cx.t, cx.here())
}

// SyscallConn returns the descriptor for use by package syscall and others.
// Control works for every File. Read and Write work for files of the disk only: they
// have no Context to wait with, and fail with errors.ErrUnsupported for other files.
func (f *File) SyscallConn() (syscall.RawConn, error) {
	if !f.polled {
		return f.os.SyscallConn()
	}
	if err := f.src.checkOpen(); err != nil {
		return nil, f.wrap("SyscallConn", err)
	}
	return rawFile{f}, nil
}

type rawFile struct{ f *File }

func (r rawFile) Control(fn func(fd uintptr)) error {
	return r.f.wrap("raw-control", r.f.src.control(func(fd int) error { fn(uintptr(fd)); return nil }))
}

func (r rawFile) Read(func(uintptr) bool) error  { return errors.ErrUnsupported }
func (r rawFile) Write(func(uintptr) bool) error { return errors.ErrUnsupported }

// SetDeadline sets the time after which reads and writes fail with
// os.ErrDeadlineExceeded; the zero time means never. Files of the disk have no
// deadlines: the error is os.ErrNoDeadline, not wrapped.
func (f *File) SetDeadline(t time.Time) error { return f.setDeadline(t, &f.src.rd, &f.src.wr) }

// SetReadDeadline is SetDeadline for reads.
func (f *File) SetReadDeadline(t time.Time) error { return f.setDeadline(t, &f.src.rd) }

// SetWriteDeadline is SetDeadline for writes.
func (f *File) SetWriteDeadline(t time.Time) error { return f.setDeadline(t, &f.src.wr) }

func (f *File) setDeadline(t time.Time, dirs ...*direction) error {
	if !f.polled {
		return os.ErrNoDeadline
	}
	if err := f.src.checkOpen(); err != nil {
		return f.wrap("set deadline", err)
	}
	for _, dir := range dirs {
		dir.setDeadline(t)
	}
	return nil
}
