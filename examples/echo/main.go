// Command echo serves TCP echo, and compares four ways to write such a server.
//
//	go run ./examples/echo                                        compare all servers
//	go run ./examples/echo -listen 127.0.0.1:7000                 serve with straight-line tasks
//	go run ./examples/echo -listen 127.0.0.1:7000 -server net     serve with package net
//
// -server also takes future and serve. A server runs until it is interrupted.
//
// The comparison runs each server in a process of its own, round by round: under a closed loop of
// requests, at a fixed rate, and with idle connections. It prints medians, and ends by itself in
// less than a minute.
//
// What to look at: server.go has all four servers. straight is the code to begin with. future is
// the same server as a hand-written state machine, serveIdle keeps no stack and no buffer for an
// idle connection, and serveNet is the server with goroutines.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	var (
		listen = flag.String("listen", "", "serve on this `address` instead of comparing")
		server = flag.String("server", "straight", "what serves: straight, future, serve or net")
		report = flag.Bool("report", false, "answer each line on standard input with the CPU time and memory used, and end when it ends")
		p      plan
	)
	flag.IntVar(&p.rounds, "rounds", 3, "how often each server is measured under load")
	flag.IntVar(&p.closed.conns, "conns", 64, "client connections")
	flag.IntVar(&p.closed.size, "size", 64, "bytes of a request")
	flag.DurationVar(&p.closed.time, "time", time.Second, "how long each load lasts")
	rate := flag.Int("rate", 5000, "requests per second of the load that is no closed loop")
	flag.IntVar(&p.idle, "idle", 5000, "idle connections")
	flag.Parse()
	p.partial = p.closed
	p.partial.rate = *rate

	err := p.check()
	switch {
	case err != nil:
	case *listen != "":
		err = serve(*server, *listen, *report)
	default:
		err = compare(p)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

// serve runs one server. The first line of output is the address of the server.
func serve(name, addr string, report bool) error {
	run, err := serverNamed(name)
	if err != nil {
		return err
	}
	if report {
		go answerUsage()
	}
	return run(addr, func(a net.Addr) { fmt.Println(a) })
}
