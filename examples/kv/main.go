// Command kv is a small key-value server that speaks the Redis protocol:
// redis-cli and redis-benchmark can talk to it.
//
//	kv -listen 127.0.0.1:6379
//
// It keeps strings, counters and lists in memory, with expiry. Each connection
// is a straight-line task that reads through the standard library's bufio. On
// an interrupt it finishes what it has begun, and ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/async"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:6379", "serve on this `address`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, func(a net.Addr) { fmt.Println("listening on", a) }); err != nil {
		fmt.Fprintln(os.Stderr, "kv:", err)
		os.Exit(1)
	}
}

// patience is how long clients may take to end once the server has been told to,
// and then once they have been cancelled.
var patience = time.Second

// run serves until ctx ends.
func run(ctx context.Context, addr string, ready func(net.Addr)) error {
	rt, err := async.New(async.Config{Tuning: async.Tuning{Name: "kv"}, Grace: patience})
	if err != nil {
		return err
	}
	server := async.Go(rt.Named("accept"), func(cx *async.Context) error { return serve(cx, addr, ready) })
	_, err = server.JoinBlocking(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	late, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return errors.Join(err, rt.Shutdown(late))
}

// serve accepts until the runtime is shut down.
func serve(cx *async.Context, addr string, ready func(net.Addr)) error {
	ln, err := async.Listen(cx, "tcp", addr)
	if err != nil {
		return err
	}
	defer ln.Close()
	ready(ln.Addr())
	s := newStore()
	async.Go(cx.Named("expiry"), s.expireForever)
	for {
		conn, err := ln.Accept(cx)
		if errors.Is(err, async.ErrShutdown) || cx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		async.Go(cx.Named("client"), func(cx *async.Context) error {
			defer conn.Close()
			return (&session{store: s}).serve(async.BindConn(cx, conn))
		})
	}
}
