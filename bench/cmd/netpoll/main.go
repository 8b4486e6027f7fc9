// Command netpoll is an echo server on github.com/cloudwego/netpoll.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"example.com/async/bench/internal/program"
	"github.com/cloudwego/netpoll"
)

func main() {
	program.Program{Echo: map[string]program.EchoServer{
		"pool":           serve(nil, false),
		"inline":         serve(inline, false),
		"inline-pollers": serve(inline, true),
	}}.Main()
}

func inline(_ context.Context, handle func()) { handle() }

// serve returns a server whose handlers are started by runner. A nil runner is the pool of
// goroutines of netpoll. If pollers is set, the server has as many pollers as workers. Otherwise it
// has the default number.
func serve(runner func(context.Context, func()), pollers bool) program.EchoServer {
	return func(o program.Options, ready func(net.Addr)) error {
		if o.Busy > 0 {
			return errors.New("netpoll has no tasks")
		}
		config := netpoll.Config{BufferSize: program.BufferSize, LoggerOutput: io.Discard, Runner: runner}
		if pollers {
			config.PollerNum = o.Workers
		}
		if err := netpoll.Configure(config); err != nil {
			return fmt.Errorf("configuring netpoll: %w", err)
		}
		ln, err := netpoll.CreateListener("tcp", program.Address)
		if err != nil {
			return fmt.Errorf("listening: %w", err)
		}
		events, err := netpoll.NewEventLoop(echo)
		if err != nil {
			return fmt.Errorf("making the event loop: %w", err)
		}
		ready(ln.Addr())
		return events.Serve(ln)
	}
}

// echo echoes the data that has arrived, with the zero-copy reader and writer.
func echo(_ context.Context, c netpoll.Connection) error {
	r, w := c.Reader(), c.Writer()
	in, err := r.Next(min(r.Len(), program.BufferSize))
	if err != nil {
		return err
	}
	out, err := w.Malloc(len(in))
	if err != nil {
		return err
	}
	copy(out, in)
	if err := r.Release(); err != nil {
		return err
	}
	return w.Flush()
}
