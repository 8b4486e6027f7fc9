package async

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// connectFuture is the future of a connection to one address. Connections of
// datagram sockets, which need no peer, are ready at once.
type connectFuture struct {
	setup        *socketSetup
	net          *network
	laddr, raddr net.Addr // laddr may be nil

	c       Conn  // nil until the socket is open
	base    *conn // of c
	retries int   // how often it was begun anew, with another local port
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

// badPort reports whether the system has chosen a local port that does not serve:
// the port that was dialled, so that the socket is connected to itself, or one that
// is in use, with err. As in package net, another port is then tried twice.
func (a *connectFuture) badPort(err error) bool {
	if l, _ := a.laddr.(*net.TCPAddr); a.net.proto != "tcp" || l != nil && l.Port != 0 {
		return false
	}
	if err != nil {
		return errors.Is(err, unix.EADDRNOTAVAIL)
	}
	return a.base.toItself()
}

func (a *connectFuture) poll(cx *Context) error {
	if a.c == nil {
		if err := a.begin(); err != ErrPending {
			return err
		}
	}
	return a.base.pollConnected(cx)
}

// begin opens the socket and begins to connect it.
func (a *connectFuture) begin() error {
	fd, to, err := a.setup.dial(a.net, a.laddr, a.raddr)
	if err != nil {
		return err
	}
	a.c, a.base = a.net.newConn()
	a.base.init(fd, a.net, nil, nil)
	return a.base.connect(to)
}

// connectNow connects a socket for datagrams, which takes no time.
func (a *connectFuture) connectNow() error {
	if err := a.begin(); err != nil {
		a.Cancel()
		return a.wrap(err)
	}
	a.base.named(a.raddr)
	return nil
}

// newConn returns an empty connection of the network's type, and the part of
// it that all types share.
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

// Cancel implements canceler: no socket stays open, but a connection that Poll has returned.
func (a *connectFuture) Cancel() {
	if a.c != nil {
		a.base.src.close()
		a.c = nil
	}
}

func (a *connectFuture) wrap(err error) error { return wrapOp("dial", a.net, a.laddr, a.raddr, err) }

// awaitConnect waits for a, whose connection is a C.
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

// toItself reports whether the system has connected a TCP socket to itself. It
// may, if it happens to choose the port that was dialled and no socket listens
// there.
func (c *conn) toItself() bool {
	l, ok := c.laddr.(*net.TCPAddr)
	r, _ := c.raddr.(*net.TCPAddr)
	return ok && r != nil && l.Port == r.Port && l.IP.Equal(r.IP)
}
