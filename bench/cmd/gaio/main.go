// Command gaio is an echo server on github.com/xtaci/gaio.
package main

import (
	"errors"
	"fmt"
	"net"

	"example.com/async/bench/internal/program"
	"github.com/xtaci/gaio"
)

func main() {
	program.Program{Echo: map[string]program.EchoServer{"gaio": serve}}.Main()
}

func serve(o program.Options, ready func(net.Addr)) error {
	if o.Busy > 0 {
		return errors.New("gaio has no tasks")
	}
	ln, err := net.Listen("tcp", program.Address)
	if err != nil {
		return err
	}
	failed := make(chan error, o.Workers+1)
	watchers := make([]*gaio.Watcher, o.Workers)
	for i := range watchers {
		if watchers[i], err = gaio.NewWatcherSize(program.BufferSize); err != nil {
			return fmt.Errorf("making a watcher: %w", err)
		}
		go func() { failed <- echo(watchers[i]) }()
	}
	ready(ln.Addr())
	go func() { failed <- accept(ln, watchers) }()
	return <-failed
}

// accept passes connections to the watchers in turn.
func accept(ln net.Listener, watchers []*gaio.Watcher) error {
	for i := 0; ; i++ {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		if err := watchers[i%len(watchers)].Read(nil, c, make([]byte, program.BufferSize)); err != nil {
			return fmt.Errorf("submitting the first read: %w", err)
		}
	}
}

// echo writes the data of each read, and reads again when the write is complete.
func echo(w *gaio.Watcher) error {
	for {
		results, err := w.WaitIO()
		if err != nil {
			return fmt.Errorf("waiting for completions: %w", err)
		}
		for _, r := range results {
			err := r.Error
			switch {
			case err != nil || r.Operation == gaio.OpRead && r.Size == 0:
				err = errors.New("the peer has hung up")
			case r.Operation == gaio.OpRead:
				err = w.Write(nil, r.Conn, r.Buffer[:r.Size])
			case r.Operation == gaio.OpWrite:
				err = w.Read(nil, r.Conn, r.Buffer[:cap(r.Buffer)])
			}
			if err != nil {
				w.Free(r.Conn)
			}
		}
	}
}
