package async

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// connectFuture is the future of a connection to one address. A poll goes through these steps:
//
//  1. begin opens the socket, binds it to laddr if that is not nil, and begins to connect.
//  2. If the connect has not ended at once, pollConnected waits until the socket is writable, and
//     returns the result of the connect. The connect of a datagram socket always ends at once,
//     since it needs no answer of a peer.
//  3. If the socket is connected, named asks the system for the addresses of the socket.
//  4. If badPort reports that the local port does not serve, the socket is closed, and step 1
//     follows again, at most twice.
//
// The future owns the socket from step 1 until Poll returns it: Cancel and a failure close it.
type connectFuture struct {
	setup        *socketSetup
	net          *network
	laddr, raddr net.Addr // laddr may be nil

	c       Conn  // nil until the socket is open, and after Poll has returned it
	base    *conn // of c
	retries int   // how often step 1 was repeated
}

// Poll returns the connection.
func (a *connectFuture) Poll(cx *Context) (Conn, error) {
	for {
		err := a.poll(cx)
		if err == ErrPending {
			return nil, err
		}
		if err == nil {
			a.base.named(a.raddr)
		}
		if a.retries < 2 && a.badPort(err) {
			a.Cancel()
			a.retries++
			continue
		}
		if err != nil {
			a.Cancel()
			return nil, a.wrap(err)
		}
		c := a.c
		a.c = nil
		return c, nil
	}
}

// badPort reports whether the system has chosen a local port that does not serve. err is the result
// of the connect. There are two cases: the port is in use (EADDRNOTAVAIL), or it is the port that
// was dialled, so that the socket is connected to itself. As in package net, only a port of TCP
// that the program has not chosen is replaced, and twice at most.
func (a *connectFuture) badPort(err error) bool {
	if l, _ := a.laddr.(*net.TCPAddr); a.net.proto != "tcp" || l != nil && l.Port != 0 {
		return false
	}
	if err != nil {
		return errors.Is(err, unix.EADDRNOTAVAIL)
	}
	return a.base.toItself()
}

// poll does steps 1 and 2.
func (a *connectFuture) poll(cx *Context) error {
	if a.c == nil {
		if err := a.begin(); err != ErrPending {
			return err
		}
	}
	return a.base.pollConnected(cx)
}

// begin opens the socket and begins to connect it. It returns ErrPending if the connect goes on.
func (a *connectFuture) begin() error {
	fd, to, err := a.setup.dial(a.net, a.laddr, a.raddr)
	if err != nil {
		return err
	}
	a.c, a.base = a.net.newConn()
	a.base.init(fd, a.net, nil, nil)
	return a.base.connect(to)
}

// connectNow is Poll for a socket for datagrams, whose connect never waits. On success a.c is the
// connection.
func (a *connectFuture) connectNow() error {
	if err := a.begin(); err != nil {
		a.Cancel()
		return a.wrap(err)
	}
	a.base.named(a.raddr)
	return nil
}

// newConn returns an empty connection of the type that belongs to the network, and the part of it
// that all types share.
func (n *network) newConn() (Conn, *conn) {
	switch n.proto {
	case "tcp":
		c := new(TCPConn)
		return c, &c.conn
	case "udp":
		c := new(UDPConn)
		return c, &c.conn
	case "unix":
		c := new(UnixConn)
		return c, &c.conn
	default:
		c := newUnixDatagram()
		return c, &c.conn
	}
}

// Cancel implements canceler. It closes the socket, unless Poll has returned it.
func (a *connectFuture) Cancel() {
	if a.c != nil {
		a.base.src.close()
		a.c = nil
	}
}

func (a *connectFuture) wrap(err error) error { return wrapOp("dial", a.net, a.laddr, a.raddr, err) }

// awaitConnect waits for the connection of a, whose type is C. If cx is cancelled, the error wraps
// cx.Err(), and no socket stays open.
func awaitConnect[C Conn](cx *Context, a *connectFuture) (C, error) {
	defer a.Cancel() // also if Shutdown unwinds the caller
	c, err := await(cx, a.Poll)
	if err == errAbandoned {
		err = a.wrap(cx.Err())
	}
	if err != nil {
		var none C
		return none, err
	}
	return c.(C), nil
}

// toItself reports whether the system has connected a TCP socket to itself. This happens if the
// system chooses the port that was dialled as the local port, and no socket listens there.
func (c *conn) toItself() bool {
	l, ok := c.laddr.(*net.TCPAddr)
	r, _ := c.raddr.(*net.TCPAddr)
	return ok && r != nil && l.Port == r.Port && l.IP.Equal(r.IP)
}
