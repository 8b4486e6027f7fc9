package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

// compareIdle measures the cost of keep-alive connections. Each connection has had one request, and
// waits for the next.
func compareIdle(o options) error {
	chosen := slices.DeleteFunc(slices.Clone(servers), func(s server) bool {
		return !s.idle || !o.only.MatchString(s.name())
	})
	if len(chosen) == 0 {
		return nil
	}
	n := o.idle
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < uint64(n)+100 {
		return fmt.Errorf("the limit of %d descriptors is too low for -idle %d", limit.Cur, n)
	}
	fmt.Printf("\n%d idle keep-alive connections: bytes of each in the server process; medians of %d rounds\n", n, o.rounds)
	heap, resident := make([][]float64, len(chosen)), make([][]float64, len(chosen))
	for range o.rounds {
		for i, s := range chosen {
			u, err := measureIdle(s, n)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			heap[i] = append(heap[i], float64(u.heap)/float64(n))
			resident[i] = append(resident[i], float64(u.resident)/float64(n))
		}
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "server\theap and stacks\tresident\t")
	for i, s := range chosen {
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t\n", s.name(), median(heap[i]), median(resident[i]))
	}
	return t.Flush()
}

// measureIdle returns how much n connections add to the usage of a server.
func measureIdle(s server, n int) (u usage, err error) {
	p, err := start(s)
	if err != nil {
		return u, err
	}
	defer p.stop()
	// The first connections allocate memory that does not depend on the number of connections. So
	// it is not counted.
	warm, err := openIdle(p.addr, 100)
	closeAll(warm)
	if err != nil {
		return u, err
	}
	time.Sleep(200 * time.Millisecond)
	before, err := p.used(askMemory)
	if err != nil {
		return u, err
	}
	conns, err := openIdle(p.addr, n)
	defer closeAll(conns)
	if err != nil {
		return u, err
	}
	time.Sleep(500 * time.Millisecond) // all connections wait for the next request then
	after, err := p.used(askMemory)
	return usage{heap: after.heap - before.heap, resident: after.resident - before.resident}, err
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// openIdle opens n connections, 50 at a time, and makes one request on each.
func openIdle(addr string, n int) ([]net.Conn, error) {
	conns, errs := make([]net.Conn, n), make([]error, 50)
	var wg sync.WaitGroup
	for worker := range errs {
		wg.Go(func() {
			for i := worker; i < n && errs[worker] == nil; i += len(errs) {
				conns[i], errs[worker] = ask(addr)
			}
		})
	}
	wg.Wait()
	return conns, errors.Join(errs...)
}

// ask opens a connection and makes one request.
func ask(addr string) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	_, err = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", addr)
	var answer []byte
	for buf := make([]byte, 512); err == nil && !bytes.HasSuffix(answer, []byte(hello)); {
		var n int
		n, err = c.Read(buf)
		answer = append(answer, buf[:n]...)
	}
	return c, err
}
