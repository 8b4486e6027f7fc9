// Command kv is a small key-value server that speaks the Redis protocol. redis-cli and
// redis-benchmark work with it.
//
//	go run ./examples/kv -listen 127.0.0.1:6379
//	redis-cli set greeting hello
//
// The server keeps strings, counters and lists in memory, with expiry. On an interrupt it accepts
// no further clients, gives its clients a second to leave, cancels the others, and ends.
//
// What to look at:
//
//   - session.serve (commands.go) is a straight-line task that reads and writes through bufio of
//     the standard library (BindConn).
//   - store (store.go) is data that tasks of all workers share under a sync.Mutex.
//   - store.expireForever (store.go) is periodic work that ends when the runtime drains.
//   - run (this file) ends the server in two stages with Runtime.Shutdown.
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

// patience limits the two stages of the shutdown: how long clients may take to end after ctx has
// ended, and how long they may take to end after they have been cancelled.
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

// serve accepts clients until the runtime is shut down or cx ends.
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
