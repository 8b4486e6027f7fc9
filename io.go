package async

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"golang.org/x/sys/unix"
)

// A Reader reads like an io.Reader, except that it waits through cx.
type Reader interface {
	Read(cx *Context, p []byte) (n int, err error)
}

// A Writer writes like an io.Writer, except that it waits through cx.
type Writer interface {
	Write(cx *Context, p []byte) (n int, err error)
}

// A Seeker moves its position like an io.Seeker, except that it waits through
// cx. There is no PollSeeker, since a caller that has polled need not poll again: the
// data of a read in the pool of blocking calls is for the next reader, but the
// result of a Seek belongs to one caller. A task that calls Seek is a future of it.
type Seeker interface {
	Seek(cx *Context, offset int64, whence int) (int64, error)
}

// A Closer must wait to be closed, because data has to be written first.
// A type that can be closed at once is an io.Closer. There is no PollCloser, as
// there is no PollSeeker; File.CloseFuture is the future of a close.
type Closer interface {
	Close(cx *Context) error
}

// A ReaderAt reads like an io.ReaderAt, except that it waits through cx.
type ReaderAt interface {
	ReadAt(cx *Context, p []byte, off int64) (n int, err error)
}

// A WriterAt writes like an io.WriterAt, except that it waits through cx.
type WriterAt interface {
	WriteAt(cx *Context, p []byte, off int64) (n int, err error)
}

// A ReadWriter is a Reader and a Writer.
type ReadWriter interface {
	Reader
	Writer
}

// A ReadWriteSeeker is a Reader, a Writer and a Seeker.
type ReadWriteSeeker interface {
	Reader
	Writer
	Seeker
}

// A PollReader reads available data into p, without waiting: it returns
// ErrPending if there is none, and io.EOF at the end.
type PollReader interface {
	PollRead(cx *Context, p []byte) (n int, err error)
}

// A PollWriter writes as much of p as there is room for, without waiting: it
// returns ErrPending if there is none. n may be less than len(p) without an
// error.
type PollWriter interface {
	PollWrite(cx *Context, p []byte) (n int, err error)
}

// A CopyError is returned by Copy if it has read data that it could not write: it had
// taken Unwritten from the source, and the destination did not take it. To go on with
// the copy, write Unwritten first.
type CopyError struct {
	Unwritten []byte
	Err       error // the error that ended the copy
}

// Error returns the text of Err, and how many bytes were not written.
func (e *CopyError) Error() string {
	return fmt.Sprintf("%v (%d bytes were read and not written)", e.Err, len(e.Unwritten))
}

// Unwrap returns Err.
func (e *CopyError) Unwrap() error { return e.Err }

// Copy copies from src to dst until the end of src, and returns how many bytes
// dst has taken. The end is not an error. On Linux the data does not pass
// through the program if src and dst are both connections or pipes (TCPConn,
// UnixConn but for packets, File), or if src is a file of the disk and dst is a connection
// or a pipe; elsewhere, and for all other types, Copy reads and writes. From file to file it
// works as io.Copy does with two os.Files, off the worker. A type that merely embeds one
// of these types is read and written by its own methods.
//
// If cx is cancelled, or a read or a write fails, Copy returns that error: a *net.OpError of
// a connection, an *fs.PathError of a File, cx.Err() from a File as it is. If Copy
// had read data that it could not write, the error is a [*CopyError] that wraps that
// error and holds this data. If there was no such data the error is
// returned as it is. A copy from a file of the disk that is cancelled ends
// after the step in progress, at most a mebibyte.
func Copy(cx *Context, dst Writer, src Reader) (written int64, err error) {
	return copyUpTo(cx, dst, src, math.MaxInt64)
}

// CopyN copies n bytes as Copy does, or fewer if it fails. The error is io.EOF
// if src has ended before.
func CopyN(cx *Context, dst Writer, src Reader, n int64) (written int64, err error) {
	written, err = copyUpTo(cx, dst, src, n)
	if err == nil && written < n {
		err = io.EOF
	}
	return written, err
}

// copyUpTo copies until the end of src, but no more than limit.
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

// errNotInKernel is returned by the functions that copy without passing data through
// the program, if src or dst is not of a kind for which they can do that. The data
// that they had copied by then stays copied.
var errNotInKernel = errors.New("async: cannot be copied in the kernel")

// copyChunk is the largest step of a copy that goes through the program.
const copyChunk = 32 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyChunk]byte) }}

// copyStep is the most that the pool copies in one call, so that a cancelled
// copy ends soon.
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

// unwritten makes a CopyError of err if there is data that was not written.
func unwritten(left []byte, err error) error {
	if len(left) == 0 {
		return err
	}
	return &CopyError{Unwritten: append([]byte(nil), left...), Err: err}
}

// kernelEnd is one end of a copy that the kernel can do: a descriptor that can
// be waited for, and how its errors are wrapped.
type kernelEnd struct {
	src  *pollFD
	wrap func(op string, err error) error
}

// kernelEndOf returns v as a kernelEnd, if it is one. It looks for types and
// not for methods: a type that embeds one of these types may have methods of its own
// that must be called.
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

// awaitOp is [pollFD.pollOp], awaited. It returns an error of the kernel's as it is,
// for the caller to wrap.
func (e kernelEnd) awaitOp(cx *Context, dir *direction, op func(fd int) (int, bool, error)) (int, error) {
	n, err := awaitSlot(cx, &dir.waiters, func(cx *Context) (int, error) { return e.src.pollOp(cx, dir, op) })
	return max(n, 0), err
}

// copyInKernel copies without passing data through the program, if it can.
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
