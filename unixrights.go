package async

import (
	"net"
	"os"
	"syscall"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// unixAddr translates the sender of a message; nil if it has no name.
func (c *conn) unixAddr(sa unix.Sockaddr) *net.UnixAddr {
	if u, ok := sa.(*unix.SockaddrUnix); ok && u.Name != "" {
		return &net.UnixAddr{Name: u.Name, Net: c.net.title()}
	}
	return nil
}

func (c *conn) pollReadMsgUnix(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	n, oobn, flags, from, err := c.pollReadMsg(cx, p, oob)
	return n, oobn, flags, c.unixAddr(from), err
}

func (c *conn) readMsgUnix(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	n, oobn, flags, from, err := c.readMsg(cx, p, oob)
	return n, oobn, flags, c.unixAddr(from), err
}

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

// sendFiles sends p and descriptors of the files.
func (c *conn) sendFiles(cx *Context, p []byte, files []*os.File, send sendMsg) (n int, err error) {
	// Duplicates, because the files may be closed while this waits.
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

// duplicateFile returns another descriptor of the open file of f, which stays as it is.
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

// receiveFiles reads into p and makes files of the descriptors that come with
// it.
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

// otherAncillary is room for the ancillary data that a message has beside descriptors if the
// program has asked the socket for it: credentials, a descriptor of the sender's process, a
// security label, a time. A label may be longer; then the message is refused.
const otherAncillary = 512

// descriptorsIn returns the descriptors that the sender of a message has sent, and the descriptors
// that the system has added. All are the caller's to close.
func descriptorsIn(oob []byte) (sent, added []int) {
	// The part that is cut off at the end is no message, but the messages before it
	// have been parsed.
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

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// ReadMsgUnix waits for data and its ancillary data: descriptors, for example,
// which are the caller's to close. oobn says how much of oob is used, flags are
// those of recvmsg(2). Cancelling it loses nothing. The end is io.EOF; package net, and
// the result of [BindConn], return it in a *net.OpError.
func (c *UnixConn) ReadMsgUnix(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	return c.readMsgUnix(cx, p, oob)
}

// pollWriteMsgUnix is WriteMsgUnix without waiting.
func (c *UnixConn) pollWriteMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return c.writeMsgUnix(cx, p, oob, addr, c.pollWriteMsg)
}

// WriteMsgUnix sends p and, with its first byte, oob. addr is nil. It waits as
// long as there is no room, and like PollWrite may then send less than all of
// p. Cancelled, it has sent nothing.
func (c *UnixConn) WriteMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return c.writeMsgUnix(cx, p, oob, addr, c.awaitWriteMsg)
}

// SendFiles sends p, and with its first byte files to the process at the other
// end, which gets descriptors of its own: those of this process can be closed
// afterwards. p must not be empty. n says how much of p was sent; if it is more
// than nothing, the files were sent, too. If one of the files is closed, the error
// wraps os.ErrClosed.
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

// ReceiveFiles waits for data, reads it into p and returns the files that came
// with it, which are the caller's to close. If there are more files than limit, all
// are closed and the error wraps EMSGSIZE; n bytes were read all the same.
// Cancelling it loses nothing.
func (c *UnixConn) ReceiveFiles(cx *Context, p []byte, limit int) (n int, files []*os.File, err error) {
	return c.receiveFiles(cx, p, limit)
}

// ReadMsgUnix waits for a message and its ancillary data; see
// UnixConn.ReadMsgUnix. addr is its sender, nil if that has no address.
func (c *UnixDatagram) ReadMsgUnix(cx *Context, p, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	return c.readMsgUnix(cx, p, oob)
}

// pollWriteMsgUnix is WriteMsgUnix without waiting.
func (c *UnixDatagram) pollWriteMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return c.writeMsgUnix(cx, p, oob, addr, c.pollSend)
}

// WriteMsgUnix sends p and oob to addr, which is nil if the socket has a peer.
// It waits as long as there is no room there. Cancelled, it has sent nothing.
func (c *UnixDatagram) WriteMsgUnix(cx *Context, p, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	return c.writeMsgUnix(cx, p, oob, addr, c.awaitSendMsg)
}

// SendFiles sends p and files to the peer; see UnixConn.SendFiles.
func (c *UnixDatagram) SendFiles(cx *Context, p []byte, files ...*os.File) (n int, err error) {
	return c.sendFiles(cx, p, files, c.awaitSendMsg)
}

// ReceiveFiles waits for a message and the files that come with it; see
// UnixConn.ReceiveFiles.
func (c *UnixDatagram) ReceiveFiles(cx *Context, p []byte, limit int) (n int, files []*os.File, err error) {
	return c.receiveFiles(cx, p, limit)
}

// Ucred is the credentials of a process: its number, and the user and the group that it runs as.
type Ucred struct {
	PID int // -1 where the system does not tell
	UID int
	GID int
}

// PeerCred returns the credentials of the process that was at the other end when the connection
// was made. It fails with errors.ErrUnsupported on systems where it is not known how to ask:
// NetBSD, OpenBSD and DragonFly.
func (c *UnixConn) PeerCred() (cred Ucred, err error) {
	err = c.src.control(func(fd int) (err error) {
		cred.PID, cred.UID, cred.GID, err = sys.PeerCred(fd)
		return os.NewSyscallError("getsockopt", err)
	})
	return cred, c.wrap("get", err)
}
