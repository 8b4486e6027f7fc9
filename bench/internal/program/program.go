// Package program is the command line of all measured Go programs. The programs in C and Rust have
// the same command line:
//
//	PROGRAM echo [-workers=N] [-busy=N] FORM
//	PROGRAM work [-workers=N] [-seconds=S] FORM WORKLOAD
//
// An echo server prints its address in one line, and serves until its standard input ends. If it
// reads the line "collect" from its standard input, it collects garbage and prints "collected". A
// workload prints its metrics as one line of JSON.
package program

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"example.com/async/bench/internal/work"
)

// BufferSize is the size of the read buffer of every server, in bytes.
const BufferSize = 4096

// Options has the flags of the command line.
type Options struct {
	Workers int // threads, loops or processors that the program may use
	Busy    int // echo: CPU-bound tasks beside the connections
}

// An EchoServer listens on [Address], calls ready with its address, and serves until it fails.
type EchoServer func(o Options, ready func(net.Addr)) error

// Address is the address on which every server listens: the system chooses the port.
const Address = "127.0.0.1:0"

// A Program has the echo servers and the workloads of one binary, by form.
type Program struct {
	Echo map[string]EchoServer
	Work map[string]func(o Options) (work.Workloads, error)
}

// Main runs the command of the command line, and ends the process.
func (p Program) Main() {
	if err := p.run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, filepath.Base(os.Args[0])+":", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: PROGRAM echo [flags] FORM, or PROGRAM work [flags] FORM WORKLOAD")

func (p Program) run(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	var o Options
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.IntVar(&o.Workers, "workers", runtime.NumCPU(), "threads, loops or processors")
	flags.IntVar(&o.Busy, "busy", 0, "CPU-bound tasks beside the connections")
	seconds := flags.Float64("seconds", 1, "how long a workload is repeated")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if o.Workers < 1 || o.Workers > 1024 || o.Busy < 0 || o.Busy > 1024 || *seconds <= 0 || *seconds > 60 {
		return errUsage
	}
	runtime.GOMAXPROCS(o.Workers)
	switch {
	case args[0] == "echo" && flags.NArg() == 1:
		return p.echo(o, flags.Arg(0))
	case args[0] == "work" && flags.NArg() == 2:
		d := time.Duration(*seconds * float64(time.Second))
		return p.work(o, d, flags.Arg(0), flags.Arg(1))
	}
	return errUsage
}

func (p Program) echo(o Options, form string) error {
	serve, ok := p.Echo[form]
	if !ok {
		return fmt.Errorf("there is no echo server %q", form)
	}
	go obey()
	return serve(o, func(a net.Addr) { fmt.Println(a) })
}

// obey answers the lines of standard input, and ends the process when standard input ends.
func obey() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "collect" {
			work.Collect()
			fmt.Println("collected")
		}
	}
	os.Exit(0)
}

func (p Program) work(o Options, d time.Duration, form, name string) error {
	load, ok := p.Work[form]
	if !ok {
		return fmt.Errorf("there is no form %q", form)
	}
	workloads, err := load(o)
	if err != nil {
		return err
	}
	run, ok := workloads[name]
	if !ok {
		return fmt.Errorf("%s has no workload %q", form, name)
	}
	m := work.Meter{Duration: d}
	if err := run(&m); err != nil {
		return fmt.Errorf("%s of %s: %w", name, form, err)
	}
	return json.NewEncoder(os.Stdout).Encode(m.Metrics)
}

// EchoConns serves ln with one goroutine for each connection, like most Go programs.
func EchoConns(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go echoConn(c)
	}
}

func echoConn(c net.Conn) {
	defer c.Close()
	buf := make([]byte, BufferSize)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}
