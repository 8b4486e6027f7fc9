// Command chat is a chat server, and a client for the terminal.
//
//	go run ./examples/chat -listen 127.0.0.1:7000     serve, until interrupted
//	go run ./examples/chat -connect 127.0.0.1:7000    talk; the first line is the name of the user
//
// A client sends its name, and then a line for each message. The line "bob: hello" goes to bob,
// "bob, eve: hello" goes to both, and a line without a colon goes to all other clients. nc also
// works as a client.
//
// What to look at:
//
//   - broker (server.go) is the only task that uses the table of clients, so the table needs no
//     lock. Other tasks send events to the broker through a Chan.
//   - client (server.go) reads in one task and writes in another. A Group ends both together.
//   - peer.tell (server.go) never waits: a client that reads slowly loses messages, and delays no
//     other client.
//   - talk (client.go) copies in both directions between the terminal and the connection.
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

// patience limits the two stages of the shutdown: how long tasks may take to end after fn has
// returned, and how long they may take to end after they have been cancelled.
var patience = time.Second

// run runs fn in a runtime of its own. It shuts down the runtime when fn returns or ctx ends.
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
