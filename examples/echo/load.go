package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// load is what the client connections do for a time: each sends a request, waits for the
// echo, and sends the next one, at once (a closed loop) or when it is due.
type load struct {
	conns, size int
	rate        int // requests per second, of all connections together; 0: a closed loop
	time        time.Duration
}

func (l load) check() error {
	switch {
	case l.conns < 1 || l.conns > 5000:
		return errors.New("-conns must be 1 to 5000")
	case l.size < 1 || l.size > bufferSize:
		return fmt.Errorf("-size must be 1 to %d", bufferSize)
	case l.rate < 0 || l.rate > 1_000_000:
		return errors.New("-rate must be 0 to 1000000")
	case l.time < 100*time.Millisecond || l.time > time.Minute:
		return errors.New("-time must be 100ms to 1m")
	}
	return nil
}

// run loads every connection and returns all latencies, sorted.
func (l load) run(conns []net.Conn, d time.Duration) ([]time.Duration, error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		all   []time.Duration
		errs  []error
		begin = time.Now()
	)
	for i, c := range conns {
		wg.Go(func() {
			mine, err := l.client(c, i, begin, begin.Add(d))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return nil, errs[0]
	}
	slices.Sort(all)
	return all, nil
}

// client sends requests on a connection, at least one, and checks every echo. A latency
// counts from the moment when the request was due, also if the one before it was late.
func (l load) client(c net.Conn, index int, begin, end time.Time) (latencies []time.Duration, err error) {
	out, in := make([]byte, l.size), make([]byte, l.size)
	due, every := begin, time.Duration(0)
	if l.rate > 0 {
		every = time.Second * time.Duration(l.conns) / time.Duration(l.rate)
		due = begin.Add(every * time.Duration(index) / time.Duration(l.conns)) // the connections take turns
	}
	for len(latencies) == 0 || due.Before(end) {
		time.Sleep(time.Until(due))
		for i := range out {
			out[i] = byte(index + len(latencies) + i)
		}
		if _, err := c.Write(out); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, in); err != nil {
			return nil, err
		}
		if !bytes.Equal(in, out) {
			return nil, errors.New("the echo differs from what was sent")
		}
		now := time.Now()
		latencies = append(latencies, now.Sub(due))
		if due = due.Add(every); l.rate == 0 {
			due = now
		}
	}
	return latencies, nil
}

// dialAll opens n connections.
func dialAll(addr string, n int) (conns []net.Conn, err error) {
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}
