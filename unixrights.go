package async

import (
	"net"
	"os"
	"syscall"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// unixAddr translates the address of a sender. It returns nil if the sender has no name.
func (c *conn) unixAddr(sa unix.Sockaddr) *net.UnixAddr {
	if u, ok := sa.(*unix.SockaddrUnix); ok && u.Name != "" {
		return &net.UnixAddr{Name: u.Name, Net: c.net.title()}
	}
	return nil
}

// pollReadMsgUnix is readMsgUnix without waiting.
func (c *conn) pollReadMsgUnix(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	n, oobn, flags, from, err := c.pollReadMsg(cx, p, oob)
	return n, oobn, flags, c.unixAddr(from), err
}

// readMsgUnix is the ReadMsgUnix of UnixConn and UnixDatagram.
func (c *conn) readMsgUnix(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	n, oobn, flags, from, err := c.readMsg(cx, p, oob)
	return n, oobn, flags, c.unixAddr(from), err
}

// writeMsgUnix checks and translates addr, and sends the message by send.
func (c *conn) writeMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr, send sendMsg) (n, oobn int, err error) {
	var to unix.Sockaddr
	switch {
	case c.net.is(unix.SOCK_DGRAM) && c.raddr != nil && addr != nil:
		err = net.ErrWriteToConnected
	case addr != nil && addr.Net != c.net.title():
		err = syscall.EAFNOSUPPORT
	case addr != nil:
		to = &unix.SockaddrUnix{Name: addr.Name}
	}
	if err != nil {
		return 0, 0, c.wrapTo("write", addr, cx.refused(err))
	}
	return c.writeMsg(cx, p, oob, to, addrOrNil(addr), send)
}

// sendFiles sends p and descriptors of the files, in one message by send. It sends duplicates of
// the descriptors, because the program may close the files while this call waits.
func (c *conn) sendFiles(cx *Context, p []byte, files []*os.File, send sendMsg) (n int, err error) {
	fds := make([]int, 0, len(files))
	defer func() { closeFDs(fds) }()
	for _, f := range files {
		fd, err := duplicateFile(f)
		if err != nil {
			return 0, c.wrap("write", cx.refused(err))
		}
		fds = append(fds, fd)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err = c.writeMsg(cx, p, oob, nil, c.raddr, send)
	return n, err
}

// duplicateFile returns a duplicate of the descriptor of f. f itself stays as it is.
func duplicateFile(f syscall.Conn) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	closed := raw.Control(func(old uintptr) { fd, err = duplicateFD(int(old)) })
	if _, ok := f.(*os.File); ok && closed != nil {
		closed = os.ErrClosed // package os returns another error here
	}
	if closed != nil {
		return -1, closed
	}
	return fd, err
}

// receiveFiles reads a message into p, and makes files of the descriptors in its ancillary data. On
// every path it closes the descriptors that it does not return.
func (c *conn) receiveFiles(cx *Context, p []byte, limit int) (int, []*os.File, error) {
	limit = max(limit, 0)
	oob := make([]byte, unix.CmsgSpace(limit*4)+otherAncillary)
	n, oobn, flags, _, err := c.readMsg(cx, p, oob)
	if err != nil {
		return n, nil, err
	}
	fds, others := descriptorsIn(oob[:oobn])
	closeFDs(others)
	if len(fds) > limit || flags&unix.MSG_CTRUNC != 0 {
		closeFDs(fds)
		return n, nil, c.wrap("read", os.NewSyscallError("recvmsg", unix.EMSGSIZE))
	}
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		files[i] = os.NewFile(uintptr(fd), "received")
	}
	return n, files, nil
}

// otherAncillary is the room, in bytes, for ancillary data other than descriptors. The system adds
// it to a message if the program has switched that on for the socket: credentials, a descriptor of
// the sender's process, a security label, a time. A label may be longer. Then the message is
// refused.
const otherAncillary = 512

// descriptorsIn returns the descriptors that the sender of a message has sent, and the descriptors
// that the system has added. The caller must close all of them.
func descriptorsIn(oob []byte) (sent, added []int) {
	// If the ancillary data was cut off, the last part is incomplete, and parsing ends there with
	// an error. The parts before it are in msgs.
	msgs, _ := unix.ParseSocketControlMessage(oob)
	for i := range msgs {
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			sent = append(sent, fds...)
		} else if fd, ok := pidfdIn(&msgs[i]); ok {
			added = append(added, fd)
		}
	}
	return sent, added
}

// closeFDs closes descriptors.
func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// ReadMsgUnix waits for data, and reads it into p and its ancillary data into oob, as in package
// net (see [net.UnixConn.ReadMsgUnix]). oobn is the number of bytes in oob that are used, and flags
// are those that recvmsg(2) returns. The caller must close descriptors in the ancillary data;
// [UnixConn.ReceiveFiles] is easier for them.
//
// The error is a [*net.OpError], which wraps cx.Err() if cx is cancelled. Cancelling loses no data.
// The end is [io.EOF] as it is; package net, and the result of [BindConn], return it in a
// *net.OpError.
func (c *UnixConn) ReadMsgUnix(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	return c.readMsgUnix(cx, p, oob)
}

// pollWriteMsgUnix is WriteMsgUnix without waiting.
func (c *UnixConn) pollWriteMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return c.writeMsgUnix(cx, p, oob, addr, c.pollWriteMsg)
}

// WriteMsgUnix sends p, and with its first byte the ancillary data oob, as in package net (see
// [net.UnixConn.WriteMsgUnix]). addr must be nil. It waits while the system has no room. On a
// stream it may then send only the first n bytes of p, without an error. The error is a
// [*net.OpError], which wraps cx.Err() if cx is cancelled; then nothing was sent.
func (c *UnixConn) WriteMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return c.writeMsgUnix(cx, p, oob, addr, c.awaitWriteMsg)
}

// SendFiles sends p, and with its first byte the open files, to the process at the other end, which
// gets duplicates of their descriptors. p must not be empty. The caller may close its files when
// SendFiles returns. The opposite is [UnixConn.ReceiveFiles].
//
// n is the number of bytes of p that were sent. If n > 0, the files were sent. n is less than
// len(p) only if there is an error, which is a [*net.OpError]. It wraps [os.ErrClosed] if one of
// the files is closed, and cx.Err() if cx is cancelled.
func (c *UnixConn) SendFiles(cx *Context, p []byte, files ...*os.File) (n int, err error) {
	if len(p) == 0 {
		return 0, c.wrap("write", cx.refused(syscall.EINVAL))
	}
	if n, err = c.sendFiles(cx, p, files, c.awaitWriteMsg); err != nil || n == len(p) {
		return n, err
	}
	m, err := c.Write(cx, p[n:])
	return n + m, err
}

// ReceiveFiles waits for data, reads it into p, and returns the files that were sent with it by
// [UnixConn.SendFiles]. The caller must close the files. A message without files returns none.
//
// The error is a [*net.OpError], or [io.EOF] at the end. It wraps EMSGSIZE if there are more files
// than limit: then all of them are closed, and n bytes were read. It wraps cx.Err() if cx is
// cancelled. Cancelling loses no data and no files.
func (c *UnixConn) ReceiveFiles(cx *Context, p []byte, limit int) (n int, files []*os.File, err error) {
	return c.receiveFiles(cx, p, limit)
}

// ReadMsgUnix is [UnixConn.ReadMsgUnix] for one message. addr is the address of its sender, or nil
// if the sender has no address. There is no end.
func (c *UnixDatagram) ReadMsgUnix(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	return c.readMsgUnix(cx, p, oob)
}

// pollWriteMsgUnix is WriteMsgUnix without waiting.
func (c *UnixDatagram) pollWriteMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return c.writeMsgUnix(cx, p, oob, addr, c.pollSend)
}

// WriteMsgUnix sends p and the ancillary data oob as one message to addr, which is nil if the
// socket has a peer. It waits while the queue of the receiver is full. The error is a
// [*net.OpError], which wraps cx.Err() if cx is cancelled; then nothing was sent.
func (c *UnixDatagram) WriteMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return c.writeMsgUnix(cx, p, oob, addr, c.awaitSendMsg)
}

// SendFiles sends p and the files as one message to the peer; see [UnixConn.SendFiles].
func (c *UnixDatagram) SendFiles(cx *Context, p []byte, files ...*os.File) (n int, err error) {
	return c.sendFiles(cx, p, files, c.awaitSendMsg)
}

// ReceiveFiles waits for a message, and returns the files that were sent with it; see
// [UnixConn.ReceiveFiles].
func (c *UnixDatagram) ReceiveFiles(cx *Context, p []byte, limit int) (n int, files []*os.File, err error) {
	return c.receiveFiles(cx, p, limit)
}

// Ucred is the credentials of a process: its number, and the user and the group that it runs as.
// [UnixConn.PeerCred] returns it.
type Ucred struct {
	PID int // -1 if the system does not report it
	UID int
	GID int // -1 if the system does not report it
}

// PeerCred returns the credentials of the process that was at the other end when the connection was
// made. On NetBSD, OpenBSD and DragonFly, which this package cannot ask, it fails with
// [errors.ErrUnsupported]. The error is a [*net.OpError].
func (c *UnixConn) PeerCred() (cred Ucred, err error) {
	err = c.src.control(func(fd int) (err error) {
		cred.PID, cred.UID, cred.GID, err = sys.PeerCred(fd)
		return os.NewSyscallError("getsockopt", err)
	})
	return cred, c.wrap("get", err)
}
