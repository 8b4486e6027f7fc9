// Command bench compares HTTP servers on the connections of package async with the same servers on
// package net: fasthttp and net/http, with and without crypto/tls. The load comes from wrk, or with
// -rate from h2load. It also compares the memory of idle connections. bench.sh installs wrk and
// h2load and runs this command.
//
// Each server runs in a process of its own. The servers of a comparison are measured in turns,
// round by round. CPU time is the time of the server process per request. All connections use the
// loopback interface of this machine. The command ends by itself.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"time"
)

type options struct {
	rounds, conns, idle int
	rate                int
	time                time.Duration
	only                *regexp.Regexp
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often each server is measured")
	flag.IntVar(&o.conns, "conns", 64, "connections under load")
	flag.IntVar(&o.rate, "rate", 0, "requests per second, over all connections; 0 is as many as there are answers")
	flag.DurationVar(&o.time, "time", 3*time.Second, "how long each server is loaded in each round")
	flag.IntVar(&o.idle, "idle", 10_000, "idle connections; 0 leaves that comparison out")
	only := flag.String("only", "", "measure only the servers whose name matches this `regexp`")
	serve := flag.String("serve", "", "be this `server`: what the command starts itself as")
	flag.Parse()
	var err error
	if *serve != "" {
		err = beServer(*serve)
	} else if o.only, err = regexp.Compile(*only); err == nil {
		err = compare(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o options) check() error {
	switch {
	case o.rounds < 1 || o.rounds > 100:
		return errors.New("-rounds must be 1 to 100")
	case o.conns < 1 || o.conns > 5000:
		return errors.New("-conns must be 1 to 5000")
	case o.rate != 0 && (o.rate < o.conns || o.rate > 1_000_000):
		return errors.New("-rate must be 0, or -conns to 1000000")
	case o.time < time.Second || o.time > time.Minute:
		return errors.New("-time must be 1s to 1m")
	case o.idle < 0 || o.idle > 20_000:
		return errors.New("-idle must be 0 to 20000")
	}
	return nil
}

func compare(o options) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := compareLoad(o); err != nil {
		return err
	}
	if o.idle == 0 {
		return nil
	}
	return compareIdle(o)
}
