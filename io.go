package async

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"golang.org/x/sys/unix"
)

// A Reader reads like an [io.Reader], except that it waits through cx. Its type says whether calls
// may be concurrent. [BindReader] makes an io.Reader of it.
type Reader interface {
	// Read waits until there is data, and reads up to len(p) bytes of it into p. At the end the
	// error is [io.EOF]. If cx is cancelled Read returns an error that is or wraps cx.Err(); its
	// type says whether data is lost then.
	Read(cx *Context, p []byte) (n int, err error)
}

// A Writer writes like an [io.Writer], except that it waits through cx. Its type says whether calls
// may be concurrent. [BindWriter] makes an io.Writer of it.
type Writer interface {
	// Write writes all of p, or returns an error and the number of bytes that it has written. If cx
	// is cancelled the error is or wraps cx.Err().
	Write(cx *Context, p []byte) (n int, err error)
}

// A Seeker sets its position like an [io.Seeker], except that it waits through cx. Its type says
// whether calls may be concurrent.
//
// There is no PollSeeker. A caller that has polled may give up. Data that the pool of blocking
// calls has read by then is kept for the next reader, but the result of a Seek belongs to one
// caller. For a future of a Seek, spawn a task that calls it.
type Seeker interface {
	// Seek sets the position and returns the new one. If cx is cancelled the error is cx.Err().
	Seek(cx *Context, offset int64, whence int) (int64, error)
}

// A Closer is closed like an [io.Closer], except that the closing waits through cx, for example
// because data has to be written first. Types that are closed without waiting are io.Closers. Its
// type says whether calls may be concurrent.
//
// There is no PollCloser, for the reason that there is no PollSeeker. [File.CloseFuture] is the
// future of a close.
type Closer interface {
	// Close waits until the closing has ended. If cx is cancelled the error is cx.Err().
	Close(cx *Context) error
}

// A ReaderAt reads at an offset like an [io.ReaderAt], except that it waits through cx. Calls may
// be concurrent.
type ReaderAt interface {
	// ReadAt reads len(p) bytes at off. If it reads fewer it returns an error, which is [io.EOF] at
	// the end, and is or wraps cx.Err() if cx is cancelled.
	ReadAt(cx *Context, p []byte, off int64) (n int, err error)
}

// A WriterAt writes at an offset like an [io.WriterAt], except that it waits through cx. Calls may
// be concurrent if their ranges do not overlap.
type WriterAt interface {
	// WriteAt writes p at off. If it writes fewer bytes it returns an error, which is or wraps
	// cx.Err() if cx is cancelled.
	WriteAt(cx *Context, p []byte, off int64) (n int, err error)
}

// A ReadWriter is a [Reader] and a [Writer].
type ReadWriter interface {
	Reader
	Writer
}

// A ReadWriteSeeker is a [Reader], a [Writer] and a [Seeker].
type ReadWriteSeeker interface {
	Reader
	Writer
	Seeker
}

// A PollReader reads data without waiting. [PollFunc] makes a future of a poll. Its type says
// whether polls may be concurrent.
type PollReader interface {
	// PollRead reads available data into p. If there is none it returns [ErrPending], and cx's task
	// is woken when there may be data. At the end the error is [io.EOF].
	PollRead(cx *Context, p []byte) (n int, err error)
}

// A PollWriter writes data without waiting. [PollFunc] makes a future of a poll. Its type says
// whether polls may be concurrent.
type PollWriter interface {
	// PollWrite writes as much of p as there is room for. n may be less than len(p) without an
	// error. If there is no room it returns [ErrPending], and cx's task is woken when there may be
	// room.
	PollWrite(cx *Context, p []byte) (n int, err error)
}

// A CopyError is the error of [Copy], [CopyN] and [CopyFile] if they have read data from the source
// that they could not write to the destination. To continue a Copy or CopyN, write Unwritten first.
type CopyError struct {
	Unwritten []byte // the data that was read and not written
	Err       error  // the error that has ended the copy
}

// Error returns the text of Err, and the length of Unwritten.
func (e *CopyError) Error() string {
	return fmt.Sprintf("%v (%d bytes were read and not written)", e.Err, len(e.Unwritten))
}

// Unwrap returns Err, the error that has ended the copy; see [Copy] for its types.
func (e *CopyError) Unwrap() error { return e.Err }

// Copy copies from src to dst until the end of src, and returns the number of bytes that dst has
// taken. The end of src is not an error. Use [CopyN] for a limit.
//
// Copy returns the error of a read or write that fails, for example a [*net.OpError] of a
// connection or an [*fs.PathError] of a [File]. If cx is cancelled it returns the error of that
// operation: a File returns cx.Err() as it is, and a connection wraps it. If Copy has read data
// that it could not write, the error is a [*CopyError], which holds this data and wraps the error.
// A copy from a file of the disk that is cancelled ends after the step in progress, which is at
// most 1 MiB.
//
// Copy does as little work as it can:
//
//   - On Linux the kernel copies, and the data does not pass through the program, if dst is a
//     connection or a pipe and src is a connection, a pipe or a file of the disk. Connections are
//     [TCPConn], and [UnixConn] unless it has packets.
//   - Between two files of the disk, Copy works like [io.Copy] between two [os.File], in the pool
//     of blocking calls.
//   - In all other cases, and with other types, Copy reads and writes. A type that embeds one of
//     these types is such another type, since it may have its own Read or Write.
func Copy(cx *Context, dst Writer, src Reader) (written int64, err error) {
	return copyUpTo(cx, dst, src, math.MaxInt64)
}

// CopyN is [Copy] for n bytes. If src ends before, the error is [io.EOF]. If CopyN fails or cx is
// cancelled it has copied fewer bytes.
func CopyN(cx *Context, dst Writer, src Reader, n int64) (written int64, err error) {
	written, err = copyUpTo(cx, dst, src, n)
	if err == nil && written < n {
		err = io.EOF
	}
	return written, err
}

// copyUpTo copies until the end of src, but at most limit bytes.
func copyUpTo(cx *Context, dst Writer, src Reader, limit int64) (written int64, err error) {
	cx.spendOrYield() // there may be nothing to copy
	written, err = copyInKernel(cx, dst, src, limit)
	if err == errNotInKernel {
		var more int64
		more, err = copyThrough(cx, dst, src, limit-written)
		written += more
	}
	return written, err
}

// errNotInKernel is returned by the functions that copy without passing data through the program,
// if they cannot do that for src and dst. The data that they have copied by then is not copied
// again.
var errNotInKernel = errors.New("async: cannot be copied in the kernel")

// copyChunk is the largest step of a copy that goes through the program.
const copyChunk = 32 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyChunk]byte) }}

// copyStep is the largest part that the pool copies in one call. So a copy that is cancelled ends
// soon.
const copyStep = 1 << 20

// copyThrough copies by reading and writing.
func copyThrough(cx *Context, dst Writer, src Reader, limit int64) (written int64, err error) {
	buf := copyBuffers.Get().(*[copyChunk]byte)
	defer copyBuffers.Put(buf)
	for ; written < limit; cx.spendOrYield() { // src and dst may be types that never wait
		n, rerr := src.Read(cx, buf[:min(copyChunk, limit-written)])
		w := 0
		if n > 0 {
			w, err = dst.Write(cx, buf[:n])
			written += int64(w)
			if err == nil && w < n {
				err = io.ErrShortWrite
			}
		}
		switch {
		case err != nil:
			return written, unwritten(buf[w:n], err)
		case rerr == io.EOF:
			return written, nil
		case rerr != nil:
			return written, rerr
		}
	}
	return written, nil
}

// unwritten returns err, in a CopyError if there is data that was not written.
func unwritten(left []byte, err error) error {
	if len(left) == 0 {
		return err
	}
	return &CopyError{Unwritten: append([]byte(nil), left...), Err: err}
}

// kernelEnd is one end of a copy that the kernel does: a descriptor that can be polled, and the
// function that wraps its errors.
type kernelEnd struct {
	src  *pollFD
	wrap func(op string, err error) error
}

// kernelEndOf returns v as a kernelEnd, if it is of a suitable type. It looks for types and not for
// methods: a type that embeds one of these types may have its own methods, which must be called.
func kernelEndOf(v any) (kernelEnd, bool) {
	switch v := v.(type) {
	case *TCPConn:
		return kernelEnd{&v.src, v.wrap}, true
	case *UnixConn:
		if v.net.kind == unix.SOCK_STREAM { // a splice does not keep the bounds of packets
			return kernelEnd{&v.src, v.wrap}, true
		}
	case *File:
		if v.polled {
			return kernelEnd{&v.src, v.wrap}, true
		}
	}
	return kernelEnd{}, false
}

// awaitOp awaits a pollOp. It returns an error of the kernel as it is, and the caller wraps it.
func (e kernelEnd) awaitOp(cx *Context, dir *direction, op func(fd int) (int, bool, error)) (int, error) {
	n, err := awaitSlot(cx, &dir.waiters, func(cx *Context) (int, error) { return e.src.pollOp(cx, dir, op) })
	return max(n, 0), err
}

// copyInKernel copies without passing data through the program. If it cannot, the error is
// errNotInKernel.
func copyInKernel(cx *Context, dst Writer, src Reader, limit int64) (int64, error) {
	from, polled := kernelEndOf(src)
	to, ok := kernelEndOf(dst)
	if polled && ok {
		return spliceCopy(cx, to, from, limit)
	}
	file, _ := src.(*File)
	if file == nil || !file.seekable {
		return 0, errNotInKernel
	}
	if ok {
		return sendfileCopy(cx, to, file, limit)
	}
	if out, _ := dst.(*File); out != nil && out.seekable && out != file {
		return file.copyTo(cx, out, limit)
	}
	return 0, errNotInKernel
}
