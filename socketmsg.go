package async

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// pollReadMsg reads a message, or the data that is there of a stream, with its
// ancillary data. Children do not inherit descriptors in that.
func (c *conn) pollReadMsg(cx *Context, p, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	n, err = c.pollRead(cx, "recvmsg", func(fd int) (n int, exhausted bool, err error) {
		n, oobn, flags, from, err = recvMsg(fd, p, oob)
		switch {
		case c.net.is(unix.SOCK_DGRAM):
		case c.net.is(unix.SOCK_SEQPACKET) && oobn > 0: // an empty packet with ancillary data
		default:
			err = orEOF(n, err)
		}
		// If p is empty the call reads one byte that was not asked for, except from a
		// datagram socket.
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
	n, err = c.src.pollOp(cx, &c.src.wr, func(fd int) (int, bool, error) {
		n, err := sendMsgTo(fd, p, oob, to)
		return n, false, err
	})
	return max(n, 0), err
}

// sendMsgTo sends p and ancillary data, without blocking.
func sendMsgTo(fd int, p, oob []byte, to unix.Sockaddr) (int, error) {
	if u, ok := to.(*unix.SockaddrUnix); ok {
		return syscall.SendmsgN(fd, p, oob, stdUnix(u), sendFlags)
	}
	return unix.SendmsgN(fd, p, oob, to, sendFlags)
}

// awaitWriteMsg awaits pollWriteMsg.
func (c *conn) awaitWriteMsg(cx *Context, p, oob []byte, to unix.Sockaddr) (int, error) {
	return c.awaitSend(cx, func(cx *Context) (int, error) { return c.pollWriteMsg(cx, p, oob, to) })
}

// sendMsg is pollWriteMsg, awaitWriteMsg, or the like.
type sendMsg func(cx *Context, p, oob []byte, to unix.Sockaddr) (int, error)

// writeMsg sends all ancillary data or nothing. dst is the address in an error.
func (c *conn) writeMsg(cx *Context, p, oob []byte, to unix.Sockaddr, dst net.Addr, send sendMsg) (n, oobn int, err error) {
	if n, err = send(cx, p, oob, to); err != nil {
		return n, 0, c.wrapTo("write", dst, callError("sendmsg", err))
	}
	return n, len(oob), nil
}
