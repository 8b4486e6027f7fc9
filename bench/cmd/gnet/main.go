// Command gnet is an echo server on github.com/panjf2000/gnet.
package main

import (
	"errors"
	"net"
	"syscall"

	"example.com/async/bench/internal/program"
	"github.com/panjf2000/gnet/v2"
)

func main() {
	program.Program{Echo: map[string]program.EchoServer{
		"unlocked": serve(false),
		"locked":   serve(true),
	}}.Main()
}

// serve returns a server. locked says whether its loops are locked to threads.
func serve(locked bool) program.EchoServer {
	return func(o program.Options, ready func(net.Addr)) error {
		if o.Busy > 0 {
			return errors.New("gnet has no tasks")
		}
		err := run(o, ready, locked)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = run(o, ready, locked) // again: another process has taken the port
		}
		return err
	}
}

func run(o program.Options, ready func(net.Addr), locked bool) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	return gnet.Run(&server{addr: addr, ready: ready}, "tcp://"+addr.String(),
		gnet.WithNumEventLoop(o.Workers), gnet.WithLockOSThread(locked),
		gnet.WithTCPNoDelay(gnet.TCPNoDelay), gnet.WithLogger(silence{}))
}

// freeAddr returns an address whose port is free now. It is needed because gnet does not return the
// port that the system has chosen.
func freeAddr() (net.Addr, error) {
	ln, err := net.Listen("tcp", program.Address)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	return ln.Addr(), nil
}

type server struct {
	gnet.BuiltinEventEngine
	addr  net.Addr
	ready func(net.Addr)
}

func (s *server) OnBoot(gnet.Engine) gnet.Action {
	s.ready(s.addr)
	return gnet.None
}

// OnTraffic echoes the data that has arrived. Next returns this data without a copy.
func (s *server) OnTraffic(c gnet.Conn) gnet.Action {
	in, err := c.Next(-1)
	if err != nil {
		return gnet.Close
	}
	if _, err := c.Write(in); err != nil {
		return gnet.Close
	}
	return gnet.None
}

// silence is a logger that drops all lines. Without it gnet logs to standard output, which the
// benchmark reads.
type silence struct{}

func (silence) Debugf(string, ...any) {}
func (silence) Infof(string, ...any)  {}
func (silence) Warnf(string, ...any)  {}
func (silence) Errorf(string, ...any) {}
func (silence) Fatalf(string, ...any) {}
