package async

import (
	"net"

	"golang.org/x/sys/unix"
)

// maxBuffers is how many buffers one system call takes, on every system.
const maxBuffers = 1024

// pollReadBuffers reads the data that is there into the buffers, one after the other,
// with one system call. It returns ErrPending if there is none, io.EOF at
// the end, and at once if the buffers have no room.
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

// ReadBuffers waits until data is there, and reads it into the buffers,
// one after the other. Cancelling it loses nothing.
func (c *streamConn) ReadBuffers(cx *Context, bufs net.Buffers) (n int64, err error) {
	_, err = c.awaitRead(cx, func(cx *Context) (_ int, err error) {
		n, err = c.pollReadBuffers(cx, bufs)
		return 0, err
	})
	return n, err
}

// pollWriteBuffers writes as much of the buffers as there is room for, with
// one system call, and removes the written bytes from them. It returns ErrPending if there is
// no room.
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

// WriteBuffers writes all of the buffers, unless it fails or is cancelled. It
// removes the written bytes, which n counts, from them, as net.Buffers.WriteTo does.
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

// oneCall returns the buffers that one system call may have, and their size in
// bytes.
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

// consumeBuffers removes n bytes from the buffers, and the buffers that are then empty.
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
