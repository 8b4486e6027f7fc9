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

// File is an open file, as [os.File] is. Its operations wait through a [Context]. Tasks and
// goroutines may call all methods concurrently. A File must be closed: see [File.Close].
//
// The task itself reads and writes a file that the system can report as ready: a pipe, a FIFO, a
// terminal or a socket. Such a read or write uses no thread while it waits, and has deadlines. If
// it is cancelled it loses nothing, and a Write says how much it has written.
//
// All other files are called files of the disk here. Most of them are regular files and
// directories. The system always reports them as ready, although a read may wait for the disk. So
// their operations run in the runtime's pool of blocking calls.
//
// There is one exception. Read, ReadAt, Seek and Stat do not use the pool for data that the system
// has in memory: the task reads this data on the spot, at most 1 MiB at a time. That needs Linux,
// and a file system that can refuse a read that would wait, for example ext4, XFS or btrfs. A read
// on the spot occupies the worker for a moment. The moment is longer when the system starts to read
// ahead, or notes the time of access.
//
// # Small reads and writes of files of the disk
//
// A small Read or Write does not cost a system call or a call of the pool each:
//
//   - Read reads ahead, up to 1 MiB, if reads follow each other and have to wait for the disk. Data
//     that was read ahead is as old as that read. Every change through this File drops it.
//   - Write returns when it has a copy of the data. The File holds at most 512 KiB of such data.
//     The pool writes it without a further call while the program runs. [File.Write] says which
//     data is lost if the program ends. [File.Flush] waits until the system has the data, and so
//     does every other call except Read and Write. With [os.O_SYNC] in the flags of [OpenFile],
//     Write itself waits until its data is written.
//
// If the pool cannot write accepted data, the File drops all data that it has accepted and not
// written. Each call that waits for some of this data returns the error. If there is no such call,
// the next call returns the error once, and does nothing else. Close returns the error in any case.
//
// # File position
//
// A Read or Write may move the position of the descriptor further than the position of the File.
// Other descriptors and processes that share the position see that. The two positions are equal
// again when a call that uses the position, and is neither Read nor Write, has looked at it, and
// when Close has ended.
//
// Writes of several tasks happen one after the other: the data of one Write is not mixed with that
// of another, whatever its size. A Write that finds too little room is accepted in parts, and other
// Writes wait until it has accepted all of its data or has been given up. A Read, Seek, Truncate or
// Copy may come between the parts, though, and so may another Write between two calls of
// [File.PollWrite].
//
// # Cancelling
//
// If a Read or a Write of a file of the disk is cancelled, nothing is lost. A read in progress
// continues, and its data is kept for the next Read. A Write says how many bytes it has accepted,
// and these bytes will be written. The file position is after the data that was returned or
// accepted.
//
// Every other operation either happens completely or does not happen. If it has begun in the pool
// it is not interrupted, and the caller cannot know which of the two is the case. There is one
// exception: [File.WriteAt] writes in parts of 256 KiB, and this holds for each part.
//
// # Errors
//
// Errors are [*fs.PathError], as the errors of [os.File] are. They wrap [os.ErrClosed] after Close,
// and [os.ErrDeadlineExceeded] after a deadline. Some errors are returned as they are: [io.EOF];
// cx.Err() if cx is cancelled; and the errors of the runtime [ErrPending], [ErrBusy] and
// [ErrShutdown].
type File struct {
	name   string
	polled bool
	src    pollFD // if polled

	os       *os.File // if not polled
	conn     syscall.RawConn
	seekable bool
	readOnly bool
	exact    bool           // Read reads no more bytes than its caller asks for
	sync     bool           // Write waits until its data is written
	input    *terminalInput // where a read waits for input before it goes to the pool; may be nil

	mu      lockOf[File]
	changed wakerSlot // fired when a field below has changed in a way that a task may wait for
	use     fileUse
	wanted  bool // a task waits for the position: no reading ahead and accepting until it has it
	closed  bool
	closing func() // closes the file at the end of the use of its position

	ahead    readAhead
	cached   bool     // the system may be able to read data that is in memory without waiting
	hot      bool     // the last Read, or the opening, found the file in memory
	noted    *devices // the table that lists dev, if the file was opened on the spot
	dev      uint64   // the device of the file
	readSize int      // the size of the next read
	lag      int64    // how far the descriptor is after the file position and the data in ahead
	edits    uint64   // counts the changes that make data that was read ahead wrong
	asked    bool     // a task waits for the read in progress
	readErr  error    // the error of that read, for the next Read

	unwritten []byte // accepted data that no call of the pool has taken yet
	accepted  int64  // the bytes that Write has accepted since the opening
	written   int64  // how many of these bytes have been written or dropped
	tickets   []*writeTicket
	turn      *writeTicket // the ticket of the Write that has accepted a part of its data; other Writes wait. nil if there is none
	writeErr  error        // of a failed write, for the next call
	loss      *fileLoss    // the same failure for Run and Shutdown, until a call returns it
	writeFail error        // of the first failed write, for Close
}

// fileUse says which operation uses the file position of a file of the disk. There is at most one
// at a time. It may last longer than a moment only if a call of the pool ends it.
type fileUse uint8

const (
	fileIdle       fileUse = iota
	fileReading            // the pool reads ahead, or a task reads on the spot
	fileWriting            // the pool writes accepted data, until there is no more
	filePositioned         // the pool does another operation at the file position
)

// FromFile returns a File that replaces f. The File owns f: the caller must no longer use f.
//
// If the file can be polled (see [File]) FromFile makes it non-blocking. Other processes that have
// inherited the same open file notice this. If such a process makes it blocking again, the next
// read or write makes it non-blocking once more. So FromFile is not for the standard streams; see
// [Stdin].
//
// Reads of a file of the disk always run in the pool, never on the spot: a process that shares the
// open file may be in a read, and a read on the spot would wait for that.
//
// The error is an [*fs.PathError]. It wraps [os.ErrClosed] if f is closed. If f is nil the error is
// [os.ErrInvalid]. If FromFile fails, f still belongs to the caller.
func FromFile(f *os.File) (*File, error) {
	return newFile(f, false)
}

// newFile makes a File of f. opened says that the caller has just opened f, so that no other
// process or code shares it.
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
			// The kqueue of macOS does not report that the last writer has closed a FIFO.
		default:
			fd, err = pollableCopy(int(raw))
			if errors.Is(err, ErrNotPollable) {
				_, serr := unix.Seek(int(raw), 0, io.SeekCurrent)
				nf.seekable, err = serr == nil, nil
			}
		}
	})
	if cerr != nil {
		err = os.ErrClosed // Control fails for no other reason
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	if fd >= 0 {
		// Closing f removes it from Go's own poller, which must not poll the file, too.
		f.Close()
		nf.os, nf.conn, nf.polled = nil, nil, true
		nf.src.open(fd)
		if !opened {
			nf.src.markShared()
		}
	}
	return nf, nil
}

// plainFile makes a File of fd, a regular file that the task has opened for reading on the spot,
// because the system has the file in memory. If plainFile fails, it closes fd.
func plainFile(fd int, name string) (*File, error) {
	unix.SetNonblock(fd, false) // the opening needed a non-blocking descriptor
	f := os.NewFile(uintptr(fd), name)
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{name: name, os: f, conn: conn, seekable: true, readOnly: true, cached: true, hot: true}, nil
}

// pollableCopy returns a duplicate of fd, and makes the open file non-blocking. If the file cannot
// be polled it returns -1 and an error that is [ErrNotPollable].
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

// Pipe returns the two ends of a pipe, as [os.Pipe] does. Reads from r return the data that is
// written to w. Both ends must be closed. The error is an [*os.SyscallError].
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

// Name returns the name with which the file was opened.
func (f *File) Name() string { return f.name }

// wrap returns the error that package os would make of err. It does not change [io.EOF] and the
// errors of a Context and of the runtime.
func (f *File) wrap(op string, err error) error {
	switch err {
	case net.ErrClosed:
		err = os.ErrClosed
	case os.ErrClosed, os.ErrDeadlineExceeded:
	default:
		switch e := err.(type) {
		case syscall.Errno:
		case *os.SyscallError:
			if e.Syscall == op { // the PathError names the operation
				err = e.Err
			}
		default:
			return err
		}
	}
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// PollRead is [File.Read] without waiting: it returns [ErrPending] if there is no data. If p is
// empty it returns at once. For files of the disk it returns [ErrBusy] if the queue of the
// runtime's pool is full.
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
		return n, false, orEOF(n, err) // a terminal returns single lines: there may be more
	})
	return max(n, 0), f.wrap("read", err)
}

// PollWrite is [File.Write] without waiting: it writes as much of p as there is room for, and
// returns [ErrPending] if there is no room. For files of the disk writing means accepting: see
// [File] and [File.PollFlush]. If the queue of the runtime's pool is full, PollWrite to a file of
// the disk accepts nothing, and returns [ErrBusy].
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

// Read waits until there is data, and reads up to len(p) bytes of it into p. At the end of the file
// the error is [io.EOF]. Other errors are [*fs.PathError]; see [File].
//
// If cx is cancelled Read returns cx.Err(), and no data is lost: the next Read returns it.
func (f *File) Read(cx *Context, p []byte) (int, error) {
	if n, err := f.readHot(cx, p); err != pagecache.ErrMiss {
		return n, err
	}
	return f.await(cx, &f.src.rd, func(cx *Context) (int, error) { return f.PollRead(cx, p) })
}

// Write writes all of p, or returns an error. If the file is a file of the disk, n is the number of
// bytes that Write has accepted, without bytes that have been dropped since. Otherwise n is the
// number of bytes that the system has taken. If cx is cancelled the error is cx.Err(), and the n
// bytes will be written. Other errors are [*fs.PathError]; see [File].
//
// Any number of tasks may call Write concurrently. A Write waits for the Writes before it that have
// found too little room.
//
// A program that ends can lose data that a Write to a file of the disk has accepted, up to 512 KiB
// of each file. [Run] and [Runtime.Shutdown] prevent that: they wait until the data is written, and
// return an [*UnwrittenError] if it cannot be. Nothing waits for the data if the program calls
// [os.Exit] or [log.Fatal], if it crashes or is killed, or if main uses neither [Run] nor
// [Runtime.Shutdown]. Such a program must call [File.Flush] or [File.Close] before, with a cx that
// is not cancelled, and look at the error. Then the system has the data, and the data survives the
// program. [File.Sync] waits until the data survives the system.
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

// WriteString is [File.Write] for a string.
func (f *File) WriteString(cx *Context, s string) (n int, err error) {
	return f.Write(cx, []byte(s))
}

// await waits until poll is ready. dir is the direction in which poll waits if the file is polled.
// For a file of the disk await also waits while the pool has no room.
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

// leave is called when a task no longer waits for f, a file of the disk.
func (f *File) leave(cx *Context, dir *direction) {
	if f.input != nil {
		f.input.leave(cx)
	}
	f.mu.Lock()
	wanted := f.wanted
	f.wanted = false // the other tasks that want the file position set it again
	if dir == &f.src.rd {
		f.asked, f.readErr = false, nil // the next Read must ask the system again
	}
	f.mu.Unlock()
	if wanted {
		f.changed.fire(cx.here())
	}
	f.changed.leave(cx.t, cx.here())
}

// SyscallConn returns access to the descriptor, for system calls that File does not offer. Control
// works for every File. Read and Write work for files of the disk only. They have no [Context] to
// wait with, so for other files they fail with [errors.ErrUnsupported].
//
// After Close, SyscallConn and the methods of its result fail with an [*fs.PathError] that wraps
// [os.ErrClosed]. For a file of the disk they behave like those of an [os.File] instead: only the
// methods of the result fail, with an error that has no type and does not wrap os.ErrClosed.
func (f *File) SyscallConn() (syscall.RawConn, error) {
	if !f.polled {
		return f.os.SyscallConn()
	}
	if err := f.src.checkOpen(); err != nil {
		return nil, f.wrap("SyscallConn", err)
	}
	return rawFile{f}, nil
}

// rawFile is the RawConn of a File that is polled.
type rawFile struct{ f *File }

func (r rawFile) Control(fn func(fd uintptr)) error {
	return r.f.wrap("raw-control", r.f.src.control(func(fd int) error { fn(uintptr(fd)); return nil }))
}

func (r rawFile) Read(func(uintptr) bool) error  { return errors.ErrUnsupported }
func (r rawFile) Write(func(uintptr) bool) error { return errors.ErrUnsupported }

// SetDeadline sets the time after which reads and writes fail with [os.ErrDeadlineExceeded]. The
// zero time means no deadline. Files of the disk have no deadlines: the error is
// [os.ErrNoDeadline], not wrapped.
func (f *File) SetDeadline(t time.Time) error { return f.setDeadline(t, &f.src.rd, &f.src.wr) }

// SetReadDeadline is [File.SetDeadline] for reads only.
func (f *File) SetReadDeadline(t time.Time) error { return f.setDeadline(t, &f.src.rd) }

// SetWriteDeadline is [File.SetDeadline] for writes only.
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
