// Command chat is a chat server, and a client for the terminal.
//
//	chat -listen 127.0.0.1:7000            serve
//	chat -connect 127.0.0.1:7000           talk: the first line is your name
//
// A client sends its name, and then a line for each message: "bob: hello" goes to
// bob, "bob, eve: hello" to both, and a line without a colon to everybody. nc
// will do as a client.
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
	listen := flag.String("listen", "", "serve on this `address`")
	connect := flag.String("connect", "", "talk to the server at this `address`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *listen != "" && *connect == "":
		err = run(ctx, "chat-server", func(cx *async.Context) error {
			return serve(cx, *listen, func(a net.Addr) { fmt.Println("listening on", a) })
		})
	case *connect != "" && *listen == "":
		err = run(ctx, "chat-client", func(cx *async.Context) error {
			return talk(cx, *connect, async.Stdin, async.Stdout)
		})
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// patience is how long tasks may take to end once fn has, and then once they have
// been cancelled.
var patience = time.Second

// run runs fn in a runtime of its own until it returns or ctx ends.
func run(ctx context.Context, name string, fn func(cx *async.Context) error) error {
	rt, err := async.New(async.Config{Tuning: async.Tuning{Name: name}, Grace: patience})
	if err != nil {
		return err
	}
	_, err = async.Go(rt.Named(name), fn).JoinBlocking(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	late, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return errors.Join(err, rt.Shutdown(late))
}
