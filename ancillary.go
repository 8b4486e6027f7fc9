package async

import (
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// pollReadMsg reads a message, or what is there of a stream, with its
// ancillary data. Descriptors in that are not inherited by children.
func (c *conn) pollReadMsg(cx *Context, p, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	n, err = c.pollRead(cx, "recvmsg", func(fd int) (n int, exhausted bool, err error) {
		n, oobn, flags, from, err = recvMsg(fd, p, oob)
		// Of ancillary data alone, with a stream, a byte comes along that is not
		// asked for.
		if n == 0 && err == nil && c.net.kind != unix.SOCK_DGRAM {
			err = io.EOF
		}
		return min(n, len(p)), false, err
	})
	return n, oobn, flags, from, err
}

// readMsg awaits pollReadMsg.
func (c *conn) readMsg(cx *Context, p, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	n, err = c.awaitRead(cx, func(cx *Context) (n int, err error) {
		n, oobn, flags, from, err = c.pollReadMsg(cx, p, oob)
		return n, err
	})
	return n, oobn, flags, from, err
}

// pollWriteMsg sends p and ancillary data to an address, or to the peer if
// that is nil. Its error is still to be wrapped.
func (c *conn) pollWriteMsg(cx *Context, p, oob []byte, to unix.Sockaddr) (n int, err error) {
	n, err = c.src.attempt(cx, &c.src.wr, func(fd int) (int, bool, error) {
		n, err := unix.SendmsgN(fd, p, oob, to, 0)
		return n, false, err
	})
	return max(n, 0), err
}

// awaitWriteMsg awaits pollWriteMsg.
func (c *conn) awaitWriteMsg(cx *Context, p, oob []byte, to unix.Sockaddr) (int, error) {
	return c.awaitSend(cx, func(cx *Context) (int, error) { return c.pollWriteMsg(cx, p, oob, to) })
}

// sendMsg is pollWriteMsg, awaitWriteMsg, or the like.
type sendMsg func(cx *Context, p, oob []byte, to unix.Sockaddr) (int, error)

// writeMsg sends all ancillary data or nothing. dst is what stands in an error.
func (c *conn) writeMsg(cx *Context, p, oob []byte, to unix.Sockaddr, dst net.Addr, send sendMsg) (n, oobn int, err error) {
	if n, err = send(cx, p, oob, to); err != nil {
		return n, 0, c.wrapTo("write", dst, callError("sendmsg", err))
	}
	return n, len(oob), nil
}
