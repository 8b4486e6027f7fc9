// Command nbio is an echo server on github.com/lesismal/nbio.
package main

import (
	"errors"
	"fmt"
	"net"

	"example.com/async/bench/internal/program"
	"github.com/lesismal/nbio"
	"github.com/lesismal/nbio/logging"
)

func main() {
	program.Program{Echo: map[string]program.EchoServer{
		"level": func(o program.Options, ready func(net.Addr)) error { return serve(o, nbio.EPOLLLT, ready) },
		"edge":  func(o program.Options, ready func(net.Addr)) error { return serve(o, nbio.EPOLLET, ready) },
	}}.Main()
}

func serve(o program.Options, mode uint32, ready func(net.Addr)) error {
	if o.Busy > 0 {
		return errors.New("nbio has no tasks")
	}
	logging.SetLevel(logging.LevelNone)
	ln, err := net.Listen("tcp", program.Address)
	if err != nil {
		return err
	}
	engine := nbio.NewEngine(nbio.Config{
		Network:        "tcp",
		Addrs:          []string{ln.Addr().String()},
		Listen:         func(string, string) (net.Listener, error) { return ln, nil },
		NPoller:        o.Workers,
		ReadBufferSize: program.BufferSize,
		EpollMod:       mode,
	})
	engine.OnOpen(func(c *nbio.Conn) {
		if err := c.SetNoDelay(true); err != nil {
			c.CloseWithError(err)
		}
	})
	// Write copies the data that the socket does not accept at once, so data may be used again.
	engine.OnData(func(c *nbio.Conn, data []byte) {
		if _, err := c.Write(data); err != nil {
			c.CloseWithError(err)
		}
	})
	if err := engine.Start(); err != nil {
		return fmt.Errorf("starting nbio: %w", err)
	}
	ready(ln.Addr())
	engine.Wait()
	return errors.New("nbio has stopped")
}
