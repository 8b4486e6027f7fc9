// Command evio is an echo server on github.com/tidwall/evio.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"example.com/async/bench/internal/program"
	"github.com/tidwall/evio"
)

func main() {
	program.Program{Echo: map[string]program.EchoServer{"evio": serve}}.Main()
}

func serve(o program.Options, ready func(net.Addr)) error {
	if o.Busy > 0 {
		return errors.New("evio has no tasks")
	}
	var failed error
	err := evio.Serve(evio.Events{
		NumLoops:    o.Workers,
		LoadBalance: evio.RoundRobin,
		Serving: func(s evio.Server) evio.Action {
			if failed = noDelayOnListeners(); failed != nil {
				return evio.Shutdown
			}
			ready(s.Addrs[0])
			return evio.None
		},
		Opened: func(evio.Conn) ([]byte, evio.Options, evio.Action) {
			return nil, evio.Options{ReuseInputBuffer: true}, evio.None
		},
		// evio copies the answer.
		Data: func(_ evio.Conn, in []byte) ([]byte, evio.Action) { return in, evio.None },
	}, "tcp://"+program.Address)
	return errors.Join(failed, err)
}

// noDelayOnListeners sets TCP_NODELAY on the listeners of this process. Connections inherit the
// option. evio neither sets the option nor returns its descriptors.
func noDelayOnListeners() error {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("looking for the listener: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(filepath.Base(e.Name()))
		if err != nil {
			return fmt.Errorf("looking for the listener: %w", err)
		}
		if listening, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil || listening == 0 {
			continue
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("TCP_NODELAY: %w", err)
		}
	}
	return nil
}
