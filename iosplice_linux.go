package async

import (
	"io"

	"golang.org/x/sys/unix"
)

// Copying in the kernel
//
// From a connection or pipe to another (spliceCopy), in a loop:
//
//  1. Wait until the source has data. Take an empty pipe of the runtime, and splice available data
//     of the source into it (fill). If there is none, return the pipe before the wait.
//  2. If the splice stops without data, read from the source instead: only a read can tell urgent
//     data, no data and the end apart.
//  3. Splice the data of the pipe to the destination, and wait while that is not writable
//     (spliceOut).
//  4. If data is left in the pipe, read it into memory, and return the pipe (takeBack). Data is
//     left if the destination cannot be spliced to, has failed, or makes no progress although it is
//     writable.
//  5. Write the data in memory to the destination (writeAll). Then go to step 1, or to copyThrough
//     if the destination cannot be spliced to.
//
// Hence a copy holds a pipe only between a splice in and the splices out that follow. While it
// waits for its source it holds none, so idle connections of a proxy cost no pipes.
//
// If a step fails, the data in the pipe and in memory is returned in a CopyError.
//
// From a file of the disk to a connection or pipe (sendfileCopy), in a loop:
//
//  1. The task waits until the destination is writable.
//  2. The pool sends from the file position until the destination is not writable, or 1 MiB is
//     sent. It does that, and not the task, since it may have to wait for the disk. The task waits
//     for this call even if cx is cancelled, since the call ends soon, and the task must know how
//     much was sent.
//  3. At the end of the file, or if the kernel cannot do it, copyThrough goes on. Only a read can
//     tell whether this is the end.

// splicePipe holds data on the way between two descriptors.
type splicePipe struct {
	r, w int
	size int // its capacity in bytes
	n    int // how many bytes are in it
}

// splicePipeSize is the capacity in bytes that a pipe gets. With the default of the kernel, 64 KiB,
// a copy between connections of one machine takes a quarter longer.
const splicePipeSize = 256 << 10

// splicePipes keeps a few empty pipes of a runtime.
type splicePipes struct {
	mu     lockOf[splicePipes]
	free   [8]*splicePipe
	n      int
	closed bool
}

// take returns an empty pipe. It opens one if none is kept.
func (s *splicePipes) take() (*splicePipe, error) {
	s.mu.Lock()
	if s.n > 0 {
		s.n--
		p := s.free[s.n]
		s.mu.Unlock()
		return p, nil
	}
	s.mu.Unlock()
	var fds [2]int
	if err := openPipe(&fds); err != nil {
		return nil, err
	}
	p := &splicePipe{r: fds[0], w: fds[1], size: 4096} // the least capacity of a pipe
	n, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, splicePipeSize)
	if err != nil { // the user's limit for pipes is reached
		n, err = unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0)
	}
	if err == nil {
		p.size = n
	}
	return p, nil
}

// put takes a pipe back. It closes a pipe that holds data, since other copies must not get that.
func (s *splicePipes) put(p *splicePipe) {
	s.mu.Lock()
	kept := p.n == 0 && !s.closed && s.n < len(s.free)
	if kept {
		s.free[s.n] = p
		s.n++
	}
	s.mu.Unlock()
	if !kept {
		p.close()
	}
}

// close closes the pipes at the end of the runtime.
func (s *splicePipes) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, p := range s.free[:s.n] {
		p.close()
	}
	s.n = 0
}

func (p *splicePipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// rest reads the data that is left in the pipe.
func (p *splicePipe) rest() []byte {
	if p.n == 0 {
		return nil
	}
	buf := make([]byte, p.n)
	for n := 0; p.n > 0; {
		m, err := unix.Read(p.r, buf[n:])
		if m <= 0 && err != unix.EINTR {
			return buf[:n]
		}
		n, p.n = n+max(m, 0), p.n-max(m, 0)
	}
	return buf
}

const spliceFlags = unix.SPLICE_F_NONBLOCK | unix.SPLICE_F_MOVE

// spliceCopy copies from one connection or pipe to another. The steps are at the head of this file.
func spliceCopy(cx *Context, to, from kernelEnd, limit int64) (written int64, err error) {
	s := spliceSource{kernelEnd: from, pipes: &filesOf(cx.t.w.rt).pipes}
	defer s.drop() // Shutdown may unwind the caller
	for written < limit {
		err := s.fill(cx, limit-written)
		switch {
		case err == io.EOF:
			return written, nil
		case err == unix.EINVAL, err == unix.ENOSYS, err == errNotInKernel:
			return written, errNotInKernel
		case err != nil:
			return written, from.wrap("splice", err)
		}
		refused := false
		if s.pipe != nil {
			n, err := to.spliceOut(cx, s.pipe)
			written += n
			s.takeBack()
			refused = err == unix.EINVAL // the kernel cannot splice to this destination
			if err != nil && !refused {
				return written, unwritten(s.read, to.wrap("splice", err))
			}
		}
		n, err := writeAll(cx, to, s.read)
		written += int64(n)
		if err != nil {
			return written, unwritten(s.read[n:], err)
		}
		if refused {
			return written, errNotInKernel
		}
	}
	return written, nil
}

// spliceSource is the source of a copy, and the data that was taken from it and not written yet.
// This data is in a pipe or in memory. While the copy waits for the source there is no such data.
type spliceSource struct {
	kernelEnd
	pipes *splicePipes
	pipe  *splicePipe
	buf   *[copyChunk]byte // for data that cannot be spliced; read is a part of it
	read  []byte
}

// fill waits until there is data, and takes it into a pipe or into memory.
func (s *spliceSource) fill(cx *Context, limit int64) error {
	s.read = nil
	_, err := s.awaitOp(cx, &s.src.rd, func(fd int) (int, bool, error) {
		if err := s.src.keepNonblocking(fd); err != nil {
			return 0, false, err
		}
		n, err := s.splice(fd, limit)
		if n > 0 || err != nil && err != unix.EAGAIN {
			return n, false, err
		}
		// A splice also stops at urgent data, and then reports no data or the end. Only a read can
		// tell.
		n, err = s.readPart(fd, limit)
		return n, false, err
	})
	return err
}

// splice takes the available data into a pipe.
func (s *spliceSource) splice(fd int, limit int64) (int, error) {
	p, err := s.pipes.take()
	if err != nil {
		return 0, errNotInKernel // no descriptors are left: read and write instead
	}
	n, err := splice(fd, p.w, min(int64(p.size), limit))
	for err == unix.EINTR {
		n, err = splice(fd, p.w, min(int64(p.size), limit))
	}
	if n <= 0 {
		s.pipes.put(p) // another copy may take it from now on
		return 0, err
	}
	p.n, s.pipe = n, p
	return n, err
}

// readPart takes the available data into memory.
func (s *spliceSource) readPart(fd int, limit int64) (int, error) {
	if s.buf == nil {
		s.buf = copyBuffers.Get().(*[copyChunk]byte)
	}
	n, err := unix.Read(fd, s.buf[:min(copyChunk, limit)])
	if n > 0 {
		s.read = s.buf[:n]
		return n, err
	}
	copyBuffers.Put(s.buf) // no data: the copy is about to wait, or at its end
	s.buf = nil
	return n, orEOF(n, err)
}

// takeBack reads the data that is left in the pipe into memory, and returns the pipe.
func (s *spliceSource) takeBack() {
	s.read = s.pipe.rest()
	s.pipes.put(s.pipe)
	s.pipe = nil
}

// drop releases the pipe and the buffer. They hold data only if Shutdown unwinds the caller.
func (s *spliceSource) drop() {
	if s.pipe != nil {
		s.pipe.close()
	}
	if s.buf != nil {
		copyBuffers.Put(s.buf)
	}
}

// spliceOut writes the data in the pipe. It leaves data there if it makes no progress: the kernel
// has taken nothing although the destination is writable. Then no event would say when to try
// again.
func (e kernelEnd) spliceOut(cx *Context, p *splicePipe) (written int64, err error) {
	for stuck := false; p.n > 0 && !stuck; {
		n, err := e.awaitOp(cx, &e.src.wr, func(fd int) (int, bool, error) {
			if err := e.src.keepNonblocking(fd); err != nil {
				return 0, false, err
			}
			n, err := splice(p.r, fd, int64(p.n))
			if n == 0 && err == nil || err == unix.EAGAIN && fdReadyNow(fd, unix.POLLOUT) == nil {
				stuck, err = true, nil
			}
			return max(n, 0), false, err
		})
		p.n -= n
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// splice is the system call. On some processors its result has another type than int.
func splice(from, to int, n int64) (int, error) {
	m, err := unix.Splice(from, nil, to, nil, int(n), spliceFlags)
	return int(m), err
}

// writeAll writes p to a destination by write(2).
func writeAll(cx *Context, to kernelEnd, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = to.awaitOp(cx, &to.src.wr, func(fd int) (int, bool, error) {
			if err := to.src.keepNonblocking(fd); err != nil {
				return 0, false, err
			}
			m, err := unix.Write(fd, p[n:])
			return m, false, err
		})
		n += m
	}
	return n, to.wrap("write", err)
}

// sendfileCopy copies from a file of the disk to a connection or pipe. The steps are at the head of
// this file.
func sendfileCopy(cx *Context, to kernelEnd, file *File, limit int64) (written int64, err error) {
	for written < limit {
		_, err := to.awaitOp(cx, &to.src.wr, func(fd int) (int, bool, error) {
			return 0, false, fdReadyNow(fd, unix.POLLOUT)
		})
		if err != nil {
			return written, to.wrap("sendfile", err)
		}
		var sent int64
		var failed error
		err = file.atPosition(cx, "read", true, func() error {
			failed = to.src.control(func(out int) (err error) {
				if err = to.src.keepNonblocking(out); err != nil {
					return err
				}
				sent, err = file.sendTo(out, min(copyStep, limit-written))
				if sent == 0 && err == unix.EAGAIN && fdReadyNow(out, unix.POLLOUT) == nil {
					err = errNotInKernel // no event would say when to try again
				}
				return err
			})
			return nil
		})
		written += sent
		switch {
		case err != nil:
			return written, err
		case failed == io.EOF: // or so it seems: only a read can tell
			return written, errNotInKernel
		case failed == unix.EINVAL, failed == unix.ENOSYS, failed == unix.EOPNOTSUPP, failed == errNotInKernel:
			return written, errNotInKernel
		case failed != nil && failed != unix.EAGAIN:
			return written, to.wrap("sendfile", failed)
		}
	}
	return written, nil
}

// sendTo sends up to n bytes from the file position, until the destination is not writable. The
// caller uses the file position. The error is io.EOF if the kernel reports the end of the file.
func (f *File) sendTo(out int, n int64) (sent int64, err error) {
	conn, err := f.os.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := conn.Control(func(in uintptr) {
		for sent < n && err == nil {
			var m int
			m, err = unix.Sendfile(out, int(in), nil, int(n-sent))
			sent += int64(max(m, 0))
			switch {
			case err == unix.EINTR:
				err = nil
			case m == 0 && err == nil:
				err = io.EOF
			}
		}
	})
	if cerr != nil {
		return sent, cerr
	}
	return sent, err
}
