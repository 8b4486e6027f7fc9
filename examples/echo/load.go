package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// load describes the requests of the client connections. Each connection sends a request, waits for
// the echo, and sends the next request: at once (a closed loop), or when that request is due (a
// fixed rate).
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
		return errors.New("-rate must be 1 to 1000000")
	case l.time < 100*time.Millisecond || l.time > time.Minute:
		return errors.New("-time must be 100ms to 1m")
	}
	return nil
}

// samples has the latency of each request, and how late the client sent each request.
type samples struct{ latency, late []time.Duration }

// quantile returns the quantile q of sorted durations, in microseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return float64(sorted[max(i, 0)]) / float64(time.Microsecond)
}

// run sends requests on every connection for the time d, and returns all samples, sorted.
func (l load) run(conns []net.Conn, d time.Duration) (all samples, err error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		errs  []error
		begin = time.Now()
	)
	for i, c := range conns {
		wg.Go(func() {
			mine, err := l.client(c, i, begin, begin.Add(d))
			mu.Lock()
			defer mu.Unlock()
			all.latency = append(all.latency, mine.latency...)
			all.late = append(all.late, mine.late...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return samples{}, errs[0]
	}
	slices.Sort(all.latency)
	slices.Sort(all.late)
	return all, nil
}

// patience is how long an echo may take.
const patience = 10 * time.Second

// client sends requests on a connection, at least one, and checks every echo. A latency counts from
// the moment when the request was due, also if the previous request was late: otherwise a server
// that stalls would delay the requests that measure the stall.
func (l load) client(c net.Conn, index int, begin, end time.Time) (s samples, err error) {
	if err := c.SetDeadline(time.Now().Add(max(time.Until(end), 0) + patience)); err != nil {
		return s, err
	}
	out, in := make([]byte, l.size), make([]byte, l.size)
	due, every := begin, time.Duration(0)
	if l.rate > 0 {
		every = time.Second * time.Duration(l.conns) / time.Duration(l.rate)
		due = begin.Add(every * time.Duration(index) / time.Duration(l.conns)) // the connections take turns
	}
	last := begin // the time of the previous answer
	for len(s.latency) == 0 || due.Before(end) {
		pauseUntil(due)
		for i := range out {
			out[i] = byte(index + len(s.latency) + i)
		}
		if l.rate > 0 && last.Before(due) { // otherwise the server delayed the request
			s.late = append(s.late, time.Since(due))
		}
		if _, err := c.Write(out); err != nil {
			return s, err
		}
		if _, err := io.ReadFull(c, in); err != nil {
			return s, err
		}
		if !bytes.Equal(in, out) {
			return s, errors.New("the echo differs from what was sent")
		}
		now := time.Now()
		s.latency = append(s.latency, now.Sub(due))
		last = now
		if due = due.Add(every); l.rate == 0 {
			due = now
		}
	}
	return s, nil
}

// pauseUntil blocks the thread until t. It does not use time.Sleep, which is late by half a
// millisecond in a program that is otherwise idle.
func pauseUntil(t time.Time) {
	for d := time.Until(t); d > 0; d = time.Until(t) {
		tv := unix.NsecToTimeval(d.Nanoseconds())
		unix.Select(0, nil, nil, nil, &tv) // a signal may end it early: hence the loop
	}
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
