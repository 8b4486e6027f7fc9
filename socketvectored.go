package async

import (
	"net"

	"golang.org/x/sys/unix"
)

// maxBuffers is the number of buffers that one system call takes, on every system (IOV_MAX).
const maxBuffers = 1024

// pollReadBuffers is ReadBuffers without waiting: it reads by one system call, or returns
// ErrPending if there is no data. If the buffers have no room, it returns 0 at once.
func (c *streamConn) pollReadBuffers(cx *Context, bufs net.Buffers) (int64, error) {
	bufs, size := oneCall(bufs)
	if size == 0 {
		return 0, c.wrap("read", c.src.checkOpen())
	}
	n, err := c.pollRead(cx, "recvmsg", func(fd int) (int, bool, error) {
		n, _, _, _, err := unix.RecvmsgBuffers(fd, bufs, nil, unix.MSG_DONTWAIT)
		return n, false, orEOF(n, err)
	})
	return int64(n), err
}

// ReadBuffers waits until data is available, and reads it into the buffers in order, with one
// system call. It returns the number of bytes, which may be less than the buffers have room for. At
// the end of the data it returns [io.EOF]. Every other error is a [*net.OpError]; it wraps cx.Err()
// if cx is cancelled. Cancelling loses no data.
func (c *streamConn) ReadBuffers(cx *Context, bufs net.Buffers) (n int64, err error) {
	_, err = c.awaitRead(cx, func(cx *Context) (_ int, err error) {
		n, err = c.pollReadBuffers(cx, bufs)
		return 0, err
	})
	return n, err
}

// pollWriteBuffers writes as much of the buffers as the system has room for, by one system call,
// and removes the written bytes from the buffers.
func (c *streamConn) pollWriteBuffers(cx *Context, bufs *net.Buffers) (int64, error) {
	some, size := oneCall(*bufs)
	if size == 0 {
		*bufs = (*bufs)[len(some):]
		return 0, c.wrap("write", c.src.checkOpen())
	}
	n, err := c.pollWrite(cx, "sendmsg", func(fd int) (int, bool, error) {
		n, err := unix.SendmsgBuffers(fd, some, nil, nil, sendFlags)
		return n, false, err
	})
	consumeBuffers(bufs, n)
	return int64(n), err
}

// WriteBuffers writes all bytes of the buffers in order, as [net.Buffers.WriteTo] does: it removes
// the n bytes that were written from bufs, so that bufs is empty after success. The error is a
// [*net.OpError]. If cx is cancelled, the error wraps cx.Err(), and bufs holds the data that was
// not written.
func (c *streamConn) WriteBuffers(cx *Context, bufs *net.Buffers) (n int64, err error) {
	for {
		_, err := c.awaitWrite(cx, func(cx *Context) (int, error) {
			m, err := c.pollWriteBuffers(cx, bufs)
			n += m
			return 0, err
		})
		if err != nil || len(*bufs) == 0 {
			return n, err
		}
	}
}

// oneCall returns the first buffers, as many as one system call may have, and their size in bytes.
// If the first buffer with data is longer than maxIO, it returns the first maxIO bytes of that
// buffer alone.
func oneCall(bufs net.Buffers) (some net.Buffers, size int) {
	for i, b := range bufs {
		if i == maxBuffers || size+len(b) > maxIO {
			if size == 0 && i < maxBuffers {
				return net.Buffers{b[:maxIO]}, maxIO
			}
			return bufs[:i], size
		}
		size += len(b)
	}
	return bufs, size
}

// consumeBuffers removes n bytes from the buffers, and the buffers that are empty then. It clears
// the places of removed buffers, so that their memory can be collected.
func consumeBuffers(bufs *net.Buffers, n int) {
	for len(*bufs) > 0 {
		first := (*bufs)[0]
		if n < len(first) {
			(*bufs)[0] = first[n:]
			return
		}
		n -= len(first)
		(*bufs)[0] = nil
		*bufs = (*bufs)[1:]
	}
}
