package async_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"example.com/async"
)

// The snippets of the package comment, each in a program that runs. TestPackageSnippets compares them.

func Example_program() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return
	}
	defer ln.Close()
	address := ln.Addr().String()
	{
		err := async.Run(func(cx *async.Context) error { // in main, for example
			conn, err := async.Dial(cx, "tcp", address)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write(cx, []byte("hello\n"))
			return err
		})
		fmt.Println(err)
	}
	if conn, err := ln.Accept(); err == nil {
		line, _ := bufio.NewReader(conn).ReadString('\n')
		fmt.Print(line)
		conn.Close()
	}
	// Output:
	// <nil>
	// hello
}

func Example_tasks() {
	err := async.Run(func(cx *async.Context) error {
		h := async.Spawn(cx, func(cx *async.Context) (int, error) { return 6 * 7, nil })
		n, err := h.Join(cx)
		fmt.Println(n, err)
		return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
			async.Go(g, func(cx *async.Context) error { return async.Sleep(cx, time.Millisecond) })
			return nil // WithGroup waits for the tasks of g
		})
	})
	fmt.Println(err)
	// Output:
	// 42 <nil>
	// <nil>
}

func Example_cancellation() {
	async.Run(func(cx *async.Context) error {
		never := async.NewChan[string](0)
		limited, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		if _, err := never.Recv(limited); errors.Is(err, context.DeadlineExceeded) {
			fmt.Println("too late, and no message is lost")
		}
		return nil
	})
	// Output: too late, and no message is lost
}

func Example_connections() {
	async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		server := async.Go(cx, func(cx *async.Context) error {
			return async.Serve(cx, ln, func(cx *async.Context, c async.Conn) (keep bool, err error) {
				buf := make([]byte, 512)
				n, err := c.Read(cx, buf) // the Handler is called when data has arrived
				if err == nil {
					_, err = c.Write(cx, buf[:n])
				}
				return err == nil, err
			})
		})
		conn, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		conn.Write(cx, []byte("hello"))
		buf := make([]byte, 512)
		n, err := conn.Read(cx, buf)
		fmt.Println(string(buf[:n]), err)
		conn.Close()
		ln.Close()
		_, err = server.Join(cx)
		fmt.Println(errors.Is(err, async.ErrServerClosed))
		return nil
	})
	// Output:
	// hello <nil>
	// true
}

func Example_libraries() {
	async.Run(func(cx *async.Context) error {
		client, server, err := async.SocketPair()
		if err != nil {
			return err
		}
		defer server.Close()
		goroutines := async.NetConn(cx.Runtime(), client) // a net.Conn, too
		go func() {
			io.WriteString(goroutines, "from a goroutine\n")
			goroutines.Close()
		}()
		conn := server
		lines := bufio.NewScanner(async.BindConn(cx, conn)) // in a task
		for lines.Scan() {
			fmt.Println(lines.Text())
		}
		return lines.Err()
	})
	// Output: from a goroutine
}

func Example_files() {
	dir, err := os.MkdirTemp("", "async")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "words")
	async.Run(func(cx *async.Context) error {
		if err := async.WriteFile(cx, name, []byte("b\na\n"), 0o600); err != nil {
			return err
		}
		sorted, err := async.Command("sort", name).Output(cx)
		fmt.Print(string(sorted))
		return err
	})
	// Output:
	// a
	// b
}

func Example_channels() {
	async.Run(func(cx *async.Context) error {
		jobs, quit := async.NewChan[int](16), async.NewChan[bool](0)
		jobs.TrySend(7)
		job, stop := async.OnRecv(jobs), async.OnRecv(quit)
		switch i, err := async.Select(cx, job, stop, async.After(time.Minute)); {
		case err != nil:
			return err // cx has ended
		case i == 0:
			n, err := job.Result()
			fmt.Println("job", n, err)
		}
		return nil
	})
	// Output: job 7 <nil>
}

func Example_goroutines() {
	rt := newRuntime()
	defer rt.Shutdown(context.Background())
	results := async.NewChan[string](1)
	async.Go(rt, func(cx *async.Context) error { return results.Send(cx, "from a task") })
	text, err := results.RecvBlocking(context.Background())
	fmt.Println(text, err)
	n, err := async.BlockOn(rt, func(cx *async.Context) (int, error) {
		return 1, async.Sleep(cx, time.Millisecond) // on this goroutine
	})
	fmt.Println(n, err)
	// Output:
	// from a task <nil>
	// 1 <nil>
}

func Example_shutdown() {
	rt := newRuntime()
	waits := make(chan bool)
	async.Go(rt.Named("ticker"), func(cx *async.Context) error {
		close(waits)
		return async.Sleep(cx, time.Hour)
	})
	<-waits
	for _, task := range rt.Tasks() {
		fmt.Println(task.Name, task.State, task.Waits)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	err := rt.Shutdown(ctx) // cancels the tasks that still run after a millisecond
	fmt.Println(err, rt.Metrics().Alive)
	// Output:
	// ticker waiting time
	// <nil> 0
}
