// Command echo serves TCP echo, and compares ways to do it.
//
//	echo -listen 127.0.0.1:7000            serve, until interrupted
//	echo -listen 127.0.0.1:7000 -server net
//	echo                                   compare all servers under load
//
// The comparison runs each server in a process of its own, in turn, round by
// round, under the same closed-loop load of client connections, and prints the
// medians. It ends by itself, in less than a minute.
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
		server = flag.String("server", "straight", "what serves: straight, future or net")
		parent = flag.Bool("report-cpu", false, "answer each line on standard input with the CPU time used, and end with it")
		l      load
		rounds = flag.Int("rounds", 5, "how often each server is measured")
	)
	flag.IntVar(&l.conns, "conns", 64, "client connections")
	flag.IntVar(&l.size, "size", 64, "bytes per request")
	flag.DurationVar(&l.time, "time", 2*time.Second, "how long each server is measured in each round")
	flag.Parse()

	err := l.check(*rounds)
	switch {
	case err != nil:
	case *listen != "":
		err = serve(*server, *listen, *parent)
	default:
		err = compare(l, *rounds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

// serve runs one server; its first line of output is its address.
func serve(name, addr string, reportCPU bool) error {
	run, err := serverNamed(name)
	if err != nil {
		return err
	}
	if reportCPU {
		go answerCPU()
	}
	return run(addr, func(a net.Addr) { fmt.Println(a) })
}
