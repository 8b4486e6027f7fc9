// Command proxy forwards TCP connections to another address.
//
//	go run ./examples/proxy -listen 127.0.0.1:8080 -to 127.0.0.1:80
//
// Each connection is served by two straight-line tasks, one for each direction. On Linux the kernel
// moves the data from socket to socket, and the data is never copied into the program. On an
// interrupt the proxy accepts no further connections, gives the open connections the time -grace,
// and ends.
//
// What to look at:
//
//   - proxy.forward limits a dial with cx.WithTimeout, and runs both directions in a Group: if one
//     direction fails, the Group cancels both.
//   - pump copies with Copy, and passes the end of the data on with CloseWrite.
//   - proxy.run ends in two stages with Runtime.Shutdown.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/async"
)

func main() {
	var p proxy
	listen := flag.String("listen", "127.0.0.1:8080", "accept connections on this `address`")
	flag.StringVar(&p.to, "to", "127.0.0.1:80", "and forward them to this `address`")
	flag.DurationVar(&p.dial, "dial", 10*time.Second, "how long connecting to that may take")
	grace := flag.Duration("grace", 5*time.Second, "how long connections may go on after an interrupt")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := p.run(ctx, *listen, *grace, func(a net.Addr) { fmt.Println("listening on", a) })
	fmt.Printf("%d connections, %d bytes up, %d bytes down\n", p.conns.Load(), p.up.Load(), p.down.Load())
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

type proxy struct {
	to   string
	dial time.Duration

	conns, up, down atomic.Int64
}

// run serves until ctx ends.
func (p *proxy) run(ctx context.Context, addr string, grace time.Duration, ready func(net.Addr)) error {
	rt, err := async.New(async.Config{Tuning: async.Tuning{Name: "proxy"}, Unhandled: report})
	if err != nil {
		return err
	}
	server := async.Go(rt.Named("accept"), func(cx *async.Context) error { return p.serve(cx, addr, ready) })
	if _, err = server.JoinBlocking(ctx); ctx.Err() != nil {
		err = nil
	}
	late, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return errors.Join(err, rt.Shutdown(late))
}

// report prints the error of a connection that failed. It is Config.Unhandled: no code joins the
// tasks of the connections.
func report(t async.Task, err error) {
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) { // a peer that leaves is no error
		fmt.Fprintf(os.Stderr, "proxy: %v: %v\n", t, err)
	}
}

// serve accepts connections until the runtime is shut down or cx ends.
func (p *proxy) serve(cx *async.Context, addr string, ready func(net.Addr)) error {
	ln, err := async.Listen(cx, "tcp", addr)
	if err != nil {
		return err
	}
	defer ln.Close()
	ready(ln.Addr())
	for {
		client, err := ln.Accept(cx)
		if errors.Is(err, async.ErrShutdown) || cx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		async.Go(cx.Named("connection"), func(cx *async.Context) error {
			defer client.Close()
			return p.forward(cx, client)
		})
	}
}

// forward serves one client: it dials the server, and copies in both directions.
func (p *proxy) forward(cx *async.Context, client async.Conn) error {
	p.conns.Add(1)
	soon, cancel := cx.WithTimeout(p.dial)
	server, err := async.Dial(soon, "tcp", p.to)
	cancel()
	if err != nil {
		return err
	}
	defer server.Close()
	return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
		async.Go(g, func(cx *async.Context) error { return pump(cx, client, server, &p.down) })
		return pump(cx, server, client, &p.up)
	})
}

// pump copies from src to dst until src ends, and then closes the writing side of dst.
func pump(cx *async.Context, dst, src async.Conn, count *atomic.Int64) error {
	n, err := async.Copy(cx, dst, src)
	count.Add(n)
	if err != nil {
		return err
	}
	err = dst.(interface{ CloseWrite() error }).CloseWrite()
	if errors.Is(err, syscall.ENOTCONN) {
		err = nil // the connection has already been closed by the peer
	}
	return err
}
