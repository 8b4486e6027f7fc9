package async_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"example.com/async"
)

func ExampleUDPConn() {
	err := async.Run(func(cx *async.Context) error {
		server, err := async.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		defer server.Close()
		async.Go(cx, func(cx *async.Context) error {
			p := make([]byte, 1500)
			for {
				n, from, err := server.ReadFromUDPAddrPort(cx, p)
				if err != nil {
					return nil // it has been closed
				}
				server.WriteToUDPAddrPort(cx, p[:n], from)
			}
		})

		client, err := async.Dial(cx, "udp", server.LocalAddr().String())
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := client.Write(cx, []byte("echo")); err != nil {
			return err
		}
		p := make([]byte, 1500)
		n, err := client.Read(cx, p)
		fmt.Println(string(p[:n]))
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: echo
}

func ExamplePacketConn() {
	async.Run(func(cx *async.Context) error {
		c, err := async.ListenPacket(cx, "udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer c.Close()
		std := async.BindConn(cx, c).(net.PacketConn) // for code that knows only package net
		std.WriteTo([]byte("to myself"), c.LocalAddr())
		p := make([]byte, 1500)
		n, from, err := std.ReadFrom(p)
		fmt.Println(string(p[:n]), from.String() == c.LocalAddr().String(), err)
		return nil
	})
	// Output: to myself true <nil>
}

func ExampleMessage() {
	async.Run(func(cx *async.Context) error {
		c, err := async.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		defer c.Close()
		out := []async.Message{
			{Buffers: [][]byte{[]byte("one, "), []byte("in two pieces")}, Addr: c.LocalAddr()},
			{Buffers: [][]byte{[]byte("two")}, Addr: c.LocalAddr()},
		}
		if _, err := c.WriteBatch(cx, out, 0); err != nil {
			return err
		}
		in := make([]async.Message, 8)
		for i := range in {
			in[i].Buffers = [][]byte{make([]byte, 1500)}
		}
		for got := 0; got < len(out); {
			n, err := c.ReadBatch(cx, in, 0)
			if err != nil {
				return err
			}
			for _, m := range in[:n] {
				fmt.Println(string(m.Buffers[0][:m.N]))
			}
			got += n
		}
		return nil
	})
	// Output:
	// one, in two pieces
	// two
}

func ExampleUnixListener() {
	dir, err := os.MkdirTemp("", "async")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	err = async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "unix", filepath.Join(dir, "socket"))
		if err != nil {
			return err
		}
		defer ln.Close() // removes the file
		async.Go(cx, func(cx *async.Context) error {
			conn, err := ln.Accept(cx)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write(cx, []byte("welcome"))
			return err
		})
		conn, err := async.Dial(cx, "unix", ln.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		got, err := io.ReadAll(async.BindConn(cx, conn))
		fmt.Println(string(got))
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: welcome
}

// A file goes to whoever is at the other end: usually another process.
func ExampleUnixConn() {
	err := async.Run(func(cx *async.Context) error {
		a, b, err := async.SocketPair()
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err := a.SendFiles(cx, []byte("write here"), w); err != nil {
			return err
		}
		w.Close()

		p := make([]byte, 64)
		n, files, err := b.ReceiveFiles(cx, p, 1)
		if err != nil {
			return err
		}
		fmt.Println(string(p[:n]), len(files))
		files[0].WriteString("hello")
		files[0].Close()
		got, err := io.ReadAll(r)
		fmt.Println(string(got))
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// write here 1
	// hello
}

func ExampleUnixDatagram() {
	async.Run(func(cx *async.Context) error {
		a, b, err := async.DatagramPair()
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		a.Write(cx, []byte("one"))
		a.Write(cx, []byte("two"))
		p := make([]byte, 64)
		for range 2 {
			n, err := b.Read(cx, p) // a message, not a stream
			fmt.Println(string(p[:n]), err)
		}
		return nil
	})
	// Output:
	// one <nil>
	// two <nil>
}

func ExampleUcred() {
	async.Run(func(cx *async.Context) error {
		a, b, err := async.SocketPair()
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		cred, err := a.PeerCred()
		if errors.Is(err, errors.ErrUnsupported) {
			cred.UID = os.Getuid() // this system does not tell
		}
		fmt.Println(cred.UID == os.Getuid())
		return nil
	})
	// Output: true
}

// One accept queue for each worker: what a worker accepts it serves.
func ExampleListenConfig() {
	rt := newRuntime()
	h := async.Go(rt, func(cx *async.Context) error {
		workers := rt.Workers()
		lns, err := new(async.ListenConfig).ListenEach(cx, "tcp", "127.0.0.1:0", len(workers))
		if err != nil {
			return err
		}
		for i, ln := range lns {
			defer ln.Close()
			async.Go(workers[i].Named("accept"), func(cx *async.Context) error {
				for {
					conn, err := ln.Accept(cx)
					if err != nil {
						return nil // it has been closed
					}
					async.Go(async.Local(cx), func(cx *async.Context) error {
						defer conn.Close()
						_, err := conn.Write(cx, []byte("welcome"))
						return err
					})
				}
			})
		}
		conn, err := async.Dial(cx, "tcp", lns[0].Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		got, err := io.ReadAll(async.BindConn(cx, conn))
		fmt.Println(string(got))
		return err
	})
	if _, err := h.JoinBlocking(context.Background()); err != nil {
		fmt.Println(err)
	}
	rt.Shutdown(context.Background())
	// Output: welcome
}

func ExampleDialer() {
	async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		d := async.Dialer{
			Timeout: 10 * time.Second,
			Control: func(network, address string, c syscall.RawConn) error {
				fmt.Println("dialling", network)
				return nil
			},
		}
		conn, err := d.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
	// Output: dialling tcp4
}

func ExampleResolver() {
	async.Run(func(cx *async.Context) error {
		r := async.Resolver{PreferGo: true}
		addrs, err := r.LookupHost(cx, "127.0.0.1") // no server is asked for an address
		fmt.Println(addrs, err)
		return nil
	})
	// Output: [127.0.0.1] <nil>
}

// A connection of package net goes on as one of this package.
func ExampleFromConn() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		std, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		conn, err := async.FromConn(std)
		if err != nil {
			std.Close()
			return err
		}
		defer conn.Close()
		_, err = std.Write([]byte("x"))
		fmt.Println(errors.Is(err, net.ErrClosed))
		n, err := conn.Write(cx, []byte("x"))
		fmt.Println(n, err)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// true
	// 1 <nil>
}
