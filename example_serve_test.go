package async_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"example.com/async"
)

// readers are the buffers of the connections whose Handler runs.
var readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}

// greet answers the lines that have arrived. Between two calls, the connection has neither a buffer
// nor a stack.
func greet(cx *async.Context, c async.Conn) (keep bool, err error) {
	r := readers.Get().(*bufio.Reader)
	defer readers.Put(r)
	r.Reset(async.BindConn(cx, c))
	for {
		name, err := r.ReadString('\n')
		if err != nil {
			return false, nil
		}
		if _, err := c.Write(cx, []byte("hello "+name)); err != nil {
			return false, err
		}
		if r.Buffered() == 0 {
			return true, nil
		}
	}
}

func ExampleServe() {
	rt, err := async.New(async.Config{Workers: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := async.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	server := async.Go(rt, func(cx *async.Context) error { return async.Serve(cx, ln, greet) })

	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	answers := bufio.NewReader(c)
	for _, name := range []string{"Ada", "Grace"} {
		fmt.Fprintln(c, name)
		answer, _ := answers.ReadString('\n')
		fmt.Print(answer)
	}

	err = rt.Shutdown(context.Background()) // waits for Handlers that run, and closes the other connections
	_, served := server.JoinBlocking(context.Background())
	fmt.Println(err, errors.Is(served, async.ErrShutdown))
	// Output:
	// hello Ada
	// hello Grace
	// <nil> true
}

// upper answers a message in upper case. After "bye" it does not keep the connection.
func upper(cx *async.Context, c async.Conn) (keep bool, err error) {
	p := make([]byte, 64)
	n, err := c.Read(cx, p)
	if err != nil {
		return false, nil // the peer has closed the connection
	}
	if _, err := c.Write(cx, bytes.ToUpper(p[:n])); err != nil {
		return false, err
	}
	return string(p[:n]) != "bye", nil
}

func ExampleHandler() {
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		server := async.Go(cx, func(cx *async.Context) error { return async.Serve(cx, ln, upper) })
		c, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		p := make([]byte, 64)
		for _, message := range []string{"hello", "bye"} {
			if _, err := c.Write(cx, []byte(message)); err != nil {
				return err
			}
			n, err := c.Read(cx, p)
			if err != nil {
				return err
			}
			fmt.Println(string(p[:n]))
		}
		_, err = c.Read(cx, p)
		fmt.Println(err == io.EOF) // the server has closed the connection

		ln.Close() // asks the server to end
		_, err = server.Join(cx)
		fmt.Println(errors.Is(err, async.ErrServerClosed), errors.Is(err, net.ErrClosed))
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// HELLO
	// BYE
	// true
	// true true
}

// The server sends first, and counts the calls of the Handler for each connection.
func ExampleServer() {
	s := async.Server{
		SpeaksFirst: true,
		NewHandler: func(c async.Conn) async.Handler {
			calls := 0
			return func(cx *async.Context, c async.Conn) (keep bool, err error) {
				if calls++; calls > 1 {
					if _, err := c.Read(cx, make([]byte, 64)); err != nil {
						return false, nil
					}
				}
				_, err = fmt.Fprintf(async.BindConn(cx, c), "%d\n", calls)
				return true, err
			}
		},
	}
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		server := async.Go(cx, func(cx *async.Context) error { return s.Serve(cx, ln) })
		c, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		answers := bufio.NewReader(async.BindConn(cx, c))
		for range 3 {
			answer, err := answers.ReadString('\n')
			if err != nil {
				return err
			}
			fmt.Print(answer)
			if _, err := c.Write(cx, []byte("next")); err != nil {
				return err
			}
		}
		server.Cancel()
		_, err = server.Join(cx)
		fmt.Println(errors.Is(err, context.Canceled))
		return nil
	})
	fmt.Println(err)
	// Output:
	// 1
	// 2
	// 3
	// true
	// <nil>
}
