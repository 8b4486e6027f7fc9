package async_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"example.com/async"
)

func ExampleDial() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		soon, cancel := cx.WithTimeout(10 * time.Second)
		defer cancel()
		conn, err := async.Dial(soon, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		fmt.Println(conn.RemoteAddr().String() == ln.Addr().String())

		_, err = async.Dial(cx, "tcp", "127.0.0.1") // without a port
		var op *net.OpError
		fmt.Println(errors.As(err, &op), err)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// true
	// true dial tcp: address 127.0.0.1: missing port in address
}

// Two dials go on at the same time. The connection of the slower one is closed.
func ExampleDialFuture() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		dials := []*async.FutureCase[async.Conn]{
			async.OnFuture(async.DialFuture("tcp", ln.Addr().String())),
			async.OnFuture(async.DialFuture("tcp", ln.Addr().String())),
		}
		i, err := async.Select(cx, dials[0], dials[1])
		if err != nil {
			return err
		}
		conn, err := dials[i].Result()
		if err != nil {
			return err
		}
		fmt.Println(conn.RemoteAddr().String() == ln.Addr().String())
		return conn.Close()
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: true
}

func ExampleListen() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0") // on a port that is free
		if err != nil {
			return err
		}
		defer ln.Close()
		fmt.Println(ln.Addr().Network())

		_, err = async.Listen(cx, "tcp", ln.Addr().String())
		fmt.Println(errors.Is(err, syscall.EADDRINUSE))
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// tcp
	// true
}

// A task accepts, until the listener is closed.
func ExampleListener() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		accepting := async.Go(cx, func(cx *async.Context) error {
			for {
				conn, err := ln.Accept(cx)
				if err != nil {
					return err
				}
				async.Go(cx, func(cx *async.Context) error {
					defer conn.Close()
					_, err := conn.Write(cx, []byte("welcome"))
					return err
				})
			}
		})
		conn, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		got, err := io.ReadAll(async.BindConn(cx, conn))
		fmt.Println(string(got), err)

		ln.Close()
		_, err = accepting.Join(cx)
		fmt.Println(errors.Is(err, net.ErrClosed))
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// welcome <nil>
	// true
}

func ExampleListenPacket() {
	err := async.Run(func(cx *async.Context) error {
		server, err := async.ListenPacket(cx, "udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer server.Close()
		client, err := async.Dial(cx, "udp", server.LocalAddr().String())
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := client.Write(cx, []byte("ping")); err != nil {
			return err
		}

		p := make([]byte, 1500)
		n, from, err := server.ReadFrom(cx, p)
		if err != nil {
			return err
		}
		fmt.Println(string(p[:n]))
		if _, err := server.WriteTo(cx, []byte("pong"), from); err != nil {
			return err
		}
		n, err = client.Read(cx, p)
		fmt.Println(string(p[:n]))
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// ping
	// pong
}

// countingConn is a Conn that counts the bytes that are written to it.
type countingConn struct {
	async.Conn
	written int
}

func (c *countingConn) Write(cx *async.Context, p []byte) (n int, err error) {
	n, err = c.Conn.Write(cx, p)
	c.written += n
	return n, err
}

// A type embeds a Conn and overrides Write. BindConn calls the Write of this type.
func ExampleConn() {
	err := async.Run(func(cx *async.Context) error {
		a, b, err := async.SocketPair()
		if err != nil {
			return err
		}
		defer b.Close()
		conn := &countingConn{Conn: a}
		defer conn.Close()
		fmt.Fprintf(async.BindConn(cx, conn), "%d bottles\n", 99)
		if err := conn.SetReadDeadline(time.Now()); err != nil {
			return err
		}
		_, err = conn.Read(cx, make([]byte, 64)) // there is no data
		var op *net.OpError
		fmt.Println(conn.written, errors.As(err, &op) && op.Timeout())
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: 11 true
}

// echoFuture is a plain future that sends all data of a connection back, until the peer closes.
type echoFuture struct {
	conn async.PollConn
	buf  [512]byte
	data []byte // has been read, and must be written
}

func (e *echoFuture) Poll(cx *async.Context) (async.None, error) {
	for {
		for len(e.data) > 0 {
			n, err := e.conn.PollWrite(cx, e.data)
			if err != nil {
				return async.None{}, err // perhaps ErrPending
			}
			e.data = e.data[n:]
		}
		n, err := e.conn.PollRead(cx, e.buf[:])
		if err == io.EOF {
			return async.None{}, e.conn.Close()
		} else if err != nil {
			return async.None{}, err // perhaps ErrPending
		}
		e.data = e.buf[:n]
	}
}

// An echo without a stack: its task polls the connection.
func ExamplePollConn() {
	err := async.Run(func(cx *async.Context) error {
		var a, b async.PollConn
		a, b, err := async.SocketPair()
		if err != nil {
			return err
		}
		defer a.Close()
		echo := async.SpawnFuture(cx, &echoFuture{conn: b})

		if _, err := a.Write(cx, []byte("hello")); err != nil {
			return err
		}
		p := make([]byte, 5)
		_, err = io.ReadFull(async.BindReader(cx, a), p)
		fmt.Println(string(p), err)
		a.Close()
		_, err = echo.Join(cx)
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: hello <nil>
}

// A process gets a socket from the process that has started it, as a file.
func ExampleFileConn() {
	err := async.Run(func(cx *async.Context) error {
		a, b, err := async.SocketPair()
		if err != nil {
			return err
		}
		defer b.Close()
		f, err := a.File() // os.NewFile(3, "socket") in a child process
		if err != nil {
			return err
		}
		a.Close()

		conn, err := async.FileConn(f)
		if err != nil {
			return err
		}
		f.Close() // conn has a descriptor of its own
		if _, err := conn.Write(cx, []byte("from the file")); err != nil {
			return err
		}
		conn.Close()
		got, err := io.ReadAll(async.BindConn(cx, b))
		fmt.Println(string(got))
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: from the file
}

func ExampleFileListener() {
	err := async.Run(func(cx *async.Context) error {
		std, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		f, err := std.(*net.TCPListener).File() // os.NewFile(3, "socket") in a child process
		if err != nil {
			return err
		}
		std.Close()

		ln, err := async.FileListener(f)
		if err != nil {
			return err
		}
		f.Close() // ln has a descriptor of its own
		defer ln.Close()
		conn, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		accepted, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		fmt.Println(accepted.RemoteAddr().String() == conn.LocalAddr().String())
		return accepted.Close()
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: true
}

func ExampleFilePacketConn() {
	err := async.Run(func(cx *async.Context) error {
		a, b, err := async.DatagramPair()
		if err != nil {
			return err
		}
		defer b.Close()
		f, err := a.File() // os.NewFile(3, "socket") in a child process
		if err != nil {
			return err
		}
		a.Close()

		conn, err := async.FilePacketConn(f)
		if err != nil {
			return err
		}
		f.Close() // conn has a descriptor of its own
		defer conn.Close()
		if _, err := b.Write(cx, []byte("a message")); err != nil {
			return err
		}
		p := make([]byte, 64)
		n, _, err := conn.ReadFrom(cx, p)
		fmt.Println(string(p[:n]))
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: a message
}

// Tasks serve a listener that other code has opened with package net.
func ExampleFromListener() {
	err := async.Run(func(cx *async.Context) error {
		std, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		ln, err := async.FromListener(std)
		if err != nil {
			std.Close()
			return err
		}
		defer ln.Close()
		_, err = std.Accept()
		fmt.Println(errors.Is(err, net.ErrClosed)) // FromListener has closed std

		conn, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		accepted, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		return accepted.Close()
	})
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

func ExampleFromPacketConn() {
	err := async.Run(func(cx *async.Context) error {
		std, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		conn, err := async.FromPacketConn(std)
		if err != nil {
			std.Close()
			return err
		}
		defer conn.Close()
		if _, err := conn.WriteTo(cx, []byte("to myself"), conn.LocalAddr()); err != nil {
			return err
		}
		p := make([]byte, 64)
		n, from, err := conn.ReadFrom(cx, p)
		if err != nil {
			return err
		}
		fmt.Println(string(p[:n]), from.String() == std.LocalAddr().String())
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: to myself true
}

func ExampleLookupHost() {
	async.Run(func(cx *async.Context) error {
		addrs, err := async.LookupHost(cx, "::1") // an address is its own result
		fmt.Println(addrs, err)
		return nil
	})
	// Output: [::1] <nil>
}

func ExampleLookupIP() {
	async.Run(func(cx *async.Context) error {
		ips, err := async.LookupIP(cx, "192.0.2.7") // an address is its own result
		if err != nil {
			return err
		}
		for _, ip := range ips {
			fmt.Println(ip, ip.To4() != nil)
		}
		return nil
	})
	// Output: 192.0.2.7 true
}

func ExampleLookupPort() {
	async.Run(func(cx *async.Context) error {
		port, err := async.LookupPort(cx, "tcp", "https")
		fmt.Println(port, err)

		_, err = async.LookupPort(cx, "tcp", "70000")
		fmt.Println(err)
		return nil
	})
	// Output:
	// 443 <nil>
	// address 70000: invalid port
}

// The error is a *net.DNSError. Which names an address has depends on the system.
func ExampleLookupAddr() {
	async.Run(func(cx *async.Context) error {
		_, err := async.LookupAddr(cx, "example.com") // a name and not an address
		var dns *net.DNSError
		fmt.Println(errors.As(err, &dns) && dns.Name == "example.com")
		return nil
	})
	// Output: true
}
