package async

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// pollReadMsg reads one message, or the available data of a stream, with its ancillary data.
// Descriptors in the ancillary data are not inherited by child processes.
func (c *conn) pollReadMsg(cx *Context, p, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	n, err = c.pollRead(cx, "recvmsg", func(fd int) (n int, exhausted bool, err error) {
		n, oobn, flags, from, err = recvMsg(fd, p, oob)
		switch {
		case c.net.is(unix.SOCK_DGRAM):
		case c.net.is(unix.SOCK_SEQPACKET) && oobn > 0: // an empty packet with ancillary data is no end
		default:
			err = orEOF(n, err)
		}
		// If p is empty and oob is not, x/sys/unix reads one byte of data that the caller did not
		// ask for, except from a datagram socket. That byte is not counted.
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

// pollWriteMsg sends p and ancillary data to an address, or to the peer if to is nil. The caller
// wraps the error.
func (c *conn) pollWriteMsg(cx *Context, p, oob []byte, to unix.Sockaddr) (n int, err error) {
	n, err = c.src.pollOp(cx, &c.src.wr, func(fd int) (int, bool, error) {
		n, err := sendMsgTo(fd, p, oob, to)
		return n, false, err
	})
	return max(n, 0), err
}

// sendMsgTo is sendmsg(2), without blocking. For package syscall see stdUnix.
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

// A sendMsg sends one message: pollWriteMsg, awaitWriteMsg, or their UnixDatagram counterparts.
type sendMsg func(cx *Context, p, oob []byte, to unix.Sockaddr) (int, error)

// writeMsg sends a message by send. The system sends all ancillary data or none. dst is the address
// for an error.
func (c *conn) writeMsg(cx *Context, p, oob []byte, to unix.Sockaddr, dst net.Addr, send sendMsg) (n, oobn int, err error) {
	if n, err = send(cx, p, oob, to); err != nil {
		return n, 0, c.wrapTo("write", dst, callError("sendmsg", err))
	}
	return n, len(oob), nil
}
