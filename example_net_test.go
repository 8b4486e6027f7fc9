package async_test

import (
	"archive/zip"
	"context"
	"encoding/json"
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

// A client sends a request, says that it is complete, and reads the answer to its end.
func ExampleTCPConn() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		defer ln.Close()
		async.Go(cx, func(cx *async.Context) error {
			conn, err := ln.AcceptTCP(cx)
			if err != nil {
				return err
			}
			defer conn.Close()
			request, err := io.ReadAll(async.BindConn(cx, conn)) // up to CloseWrite
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(async.BindConn(cx, conn), "%d bytes", len(request))
			return err
		})

		conn, err := async.DialTCP(cx, "tcp", nil, ln.Addr().(*net.TCPAddr))
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write(cx, []byte("request")); err != nil {
			return err
		}
		if err := conn.CloseWrite(); err != nil {
			return err
		}
		answer, err := io.ReadAll(async.BindConn(cx, conn))
		fmt.Println(string(answer))
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: 7 bytes
}

// Close ends the task that accepts.
func ExampleTCPListener() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		accepting := async.Spawn(cx, func(cx *async.Context) (int, error) {
			for n := 0; ; n++ {
				conn, err := ln.AcceptTCP(cx)
				if errors.Is(err, net.ErrClosed) {
					return n, nil
				}
				if err != nil {
					return n, err
				}
				conn.Write(cx, []byte("welcome"))
				conn.Close()
			}
		})
		conn, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.ReadAll(async.BindConn(cx, conn)); err != nil {
			return err
		}
		ln.Close()
		n, err := async.Await(cx, accepting)
		fmt.Println(n, "connection")
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: 1 connection
}

func ExampleListenTCP() {
	ln, err := async.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 0})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	addr := ln.Addr().(*net.TCPAddr)
	fmt.Println(addr.IP, addr.Port != 0) // the system has chosen a port

	_, err = async.ListenTCP("tcp", addr)
	fmt.Println(errors.Is(err, syscall.EADDRINUSE))
	// Output:
	// 127.0.0.1 true
	// true
}

func ExampleDialTCP() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		to := ln.Addr().(*net.TCPAddr)
		conn, err := async.DialTCP(cx, "tcp", nil, to)
		if err != nil {
			return err
		}
		fmt.Println(conn.RemoteAddr().String() == to.String())
		conn.Close()

		ln.Close()
		_, err = async.DialTCP(cx, "tcp", nil, to)
		fmt.Println(errors.Is(err, syscall.ECONNREFUSED))
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// true
	// true
}

// A task for each connection, until the listener is closed.
func ExampleIncoming() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		async.Go(cx, func(cx *async.Context) error {
			for conn, err := range async.Incoming(ln).All(cx) {
				if errors.Is(err, net.ErrClosed) {
					return nil
				}
				if err != nil {
					return err
				}
				async.Go(cx, func(cx *async.Context) error {
					defer conn.Close()
					_, err := conn.Write(cx, []byte("welcome"))
					return err
				})
			}
			return nil
		})
		for range 2 {
			conn, err := async.Dial(cx, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			got, err := io.ReadAll(async.BindConn(cx, conn))
			fmt.Println(string(got), err)
			conn.Close()
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// welcome <nil>
	// welcome <nil>
}

// A task waits for the next connection, but not longer than a minute.
func ExampleIncomingStream() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		client, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer client.Close()

		in := async.Incoming(ln)
		next, late := async.OnNext(in), async.After(time.Minute)
		switch i, err := async.Select(cx, next, late); {
		case err != nil:
			return err
		case i == 0:
			conn, err := next.Result()
			if err != nil {
				return err
			}
			defer conn.Close()
			fmt.Println(conn.RemoteAddr().String() == client.LocalAddr().String())
		case i == 1:
			fmt.Println("nothing connected")
		}
		fmt.Println(in.Close(), in.Close())
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// true
	// <nil> async: closed
}

// JSON is written by code that knows only io.Writer.
func ExampleBindWriter() {
	err := async.Run(func(cx *async.Context) error {
		a, b, err := async.SocketPair()
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		to := json.NewEncoder(async.BindWriter(cx, a))
		if err := to.Encode(map[string]int{"answer": 42}); err != nil {
			return err
		}
		p := make([]byte, 100)
		n, err := b.Read(cx, p)
		fmt.Print(string(p[:n]))
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: {"answer":42}
}

// A zip archive is written and read by code that knows only package io.
func ExampleBindFile() {
	err := async.Run(func(cx *async.Context) error {
		f, err := async.CreateTemp(cx, "", "*.zip")
		if err != nil {
			return err
		}
		defer os.Remove(f.Name())
		archive := async.BindFile(cx, f)
		defer archive.Close()
		w := zip.NewWriter(archive)
		entry, err := w.Create("hello.txt")
		if err != nil {
			return err
		}
		io.WriteString(entry, "hello")
		if err := w.Close(); err != nil {
			return err
		}

		info, err := archive.Stat()
		if err != nil {
			return err
		}
		r, err := zip.NewReader(archive, info.Size())
		if err != nil {
			return err
		}
		for _, entry := range r.File {
			fmt.Println(entry.Name, entry.UncompressedSize64, "bytes")
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: hello.txt 5 bytes
}

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

// A socket without a peer answers to the sender of each message.
func ExampleListenUDP() {
	err := async.Run(func(cx *async.Context) error {
		server, err := async.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		defer server.Close()
		client, err := async.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := client.WriteTo(cx, []byte("question"), server.LocalAddr()); err != nil {
			return err
		}

		p := make([]byte, 1500)
		n, from, err := server.ReadFrom(cx, p)
		if err != nil {
			return err
		}
		fmt.Println(string(p[:n]), from.String() == client.LocalAddr().String())
		if _, err := server.WriteTo(cx, []byte("answer"), from); err != nil {
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
	// question true
	// answer
}

// A socket with a peer sends by Write, and receives only messages of its peer.
func ExampleDialUDP() {
	err := async.Run(func(cx *async.Context) error {
		server, err := async.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		defer server.Close()
		client, err := async.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := client.Write(cx, []byte("hello")); err != nil {
			return err
		}
		p := make([]byte, 1500)
		n, err := server.Read(cx, p)
		fmt.Println(string(p[:n]), err)

		_, err = client.WriteTo(cx, []byte("hello"), server.LocalAddr())
		fmt.Println(errors.Is(err, net.ErrWriteToConnected))
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// hello <nil>
	// true
}

// Two sockets of this host receive the messages to one group, and one of them sends to it.
func ExampleListenMulticastUDP() {
	err := async.Run(func(cx *async.Context) error {
		lo, err := loopback()
		if err != nil {
			return err
		}
		group := &net.UDPAddr{IP: net.IPv4(239, 192, 0, 1)}
		a, err := async.ListenMulticastUDP("udp4", lo, group)
		if err != nil {
			return err
		}
		defer a.Close()
		group.Port = a.LocalAddr().(*net.UDPAddr).Port
		b, err := async.ListenMulticastUDP("udp4", lo, group)
		if err != nil {
			return err
		}
		defer b.Close()

		// Without this a sends to other hosts alone.
		if err := a.SetMulticastLoopback(true); err != nil {
			return err
		}
		if _, err := a.WriteTo(cx, []byte("to the group"), group); err != nil {
			return err
		}
		p := make([]byte, 1500)
		for _, member := range []*async.UDPConn{a, b} {
			n, err := member.Read(cx, p)
			fmt.Println(string(p[:n]), err)
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// to the group <nil>
	// to the group <nil>
}

// loopback returns the loopback interface of this host.
func loopback() (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Flags&net.FlagLoopback != 0 {
			return &all[i], nil
		}
	}
	return nil, errors.New("there is no loopback interface")
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

func ExampleListenUnix() {
	dir, err := os.MkdirTemp("", "async")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "socket")
	ln, err := async.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		fmt.Println(err)
		return
	}
	info, err := os.Stat(name)
	fmt.Println(info.Mode().Type() == os.ModeSocket, err)

	ln.Close()
	_, err = os.Stat(name)
	fmt.Println(errors.Is(err, os.ErrNotExist)) // Close has removed the file
	// Output:
	// true <nil>
	// true
}

func ExampleDialUnix() {
	dir, err := os.MkdirTemp("", "async")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	err = async.Run(func(cx *async.Context) error {
		addr := &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unix"}
		ln, err := async.ListenUnix("unix", addr)
		if err != nil {
			return err
		}
		defer ln.Close()
		client, err := async.DialUnix(cx, "unix", nil, addr)
		if err != nil {
			return err
		}
		server, err := ln.AcceptUnix(cx)
		if err != nil {
			return err
		}
		defer server.Close()
		if _, err := client.Write(cx, []byte("hello")); err != nil {
			return err
		}
		client.Close()
		got, err := io.ReadAll(async.BindConn(cx, server))
		fmt.Println(string(got))
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: hello
}

func ExampleSocketPair() {
	err := async.Run(func(cx *async.Context) error {
		a, b, err := async.SocketPair()
		if err != nil {
			return err
		}
		defer b.Close()
		if _, err := a.Write(cx, []byte("from one end to the other")); err != nil {
			return err
		}
		a.Close()
		got, err := io.ReadAll(async.BindConn(cx, b))
		fmt.Println(string(got))
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: from one end to the other
}

// An open file is sent to the process at the other end of a connection.
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

// A server answers to the address of each client.
func ExampleListenUnixgram() {
	dir, err := os.MkdirTemp("", "async")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	err = async.Run(func(cx *async.Context) error {
		var sockets [2]*async.UnixDatagram
		for i, name := range []string{"server", "client"} {
			addr := &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unixgram"}
			c, err := async.ListenUnixgram("unixgram", addr)
			if err != nil {
				return err
			}
			defer c.Close()
			sockets[i] = c
		}
		server, client := sockets[0], sockets[1]
		if _, err := client.WriteTo(cx, []byte("question"), server.LocalAddr()); err != nil {
			return err
		}
		p := make([]byte, 64)
		n, from, err := server.ReadFrom(cx, p)
		if err != nil {
			return err
		}
		fmt.Println(string(p[:n]), "from", filepath.Base(from.String()))
		if _, err := server.WriteTo(cx, []byte("answer"), from); err != nil {
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
	// question from client
	// answer
}

// Programs send messages to a log: the sockets of the senders need no address.
func ExampleDialUnixgram() {
	dir, err := os.MkdirTemp("", "async")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	err = async.Run(func(cx *async.Context) error {
		addr := &net.UnixAddr{Name: filepath.Join(dir, "log"), Net: "unixgram"}
		log, err := async.ListenUnixgram("unixgram", addr)
		if err != nil {
			return err
		}
		defer log.Close()
		c, err := async.DialUnixgram("unixgram", nil, addr)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write(cx, []byte("started")); err != nil {
			return err
		}
		p := make([]byte, 64)
		n, from, err := log.ReadFrom(cx, p)
		fmt.Println(string(p[:n]), from)
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: started <nil>
}

// Each read takes one message, and the rest of a message that is too long is lost.
func ExampleDatagramPair() {
	err := async.Run(func(cx *async.Context) error {
		a, b, err := async.DatagramPair()
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		for _, message := range []string{"a long message", "two"} {
			if _, err := a.Write(cx, []byte(message)); err != nil {
				return err
			}
		}
		p := make([]byte, 6)
		for range 2 {
			n, err := b.Read(cx, p)
			if err != nil {
				return err
			}
			fmt.Println(string(p[:n]))
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// a long
	// two
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
