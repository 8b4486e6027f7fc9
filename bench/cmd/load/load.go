package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"example.com/async/bench/internal/hist"
	"example.com/async/bench/internal/rawio"
)

// There are two kinds of load.
//
// In the closed loop each connection has one request in flight. The next request is sent when the
// answer has arrived. The rate depends on the server: a slow server gets fewer requests.
//
// In the open loop requests are due at fixed times: one request every gap, on the connections in
// turn, whether or not earlier requests have been answered. The latency of a request is counted
// from the time at which the request is due. If a server stops for 100 ms, every request that is
// due in these 100 ms is late, as with independent clients. A generator that waits for the server
// would measure only one late request; this error is called coordinated omission.
//
// Two more quantities separate the part of the server in a latency from the part of the generator.
// The lag of a request is the time from the moment at which the request is due until the generator
// handles it, even if the generator cannot send the request at that moment. The service time of a
// request is counted from the time at which the request was sent.

const (
	// maxAhead is how many requests may be in flight on a connection in the open loop. Further
	// requests are sent later. Their latency is still counted from the time at which they are due.
	maxAhead = 64

	// grace is how long the load waits for answers after the end of a phase.
	grace = 2 * time.Second
)

// A load drives its connections from one thread, and allocates nothing while it runs. Times are
// nanoseconds since epoch.
type load struct {
	epoll  int
	conns  []conn
	events [256]syscall.EpollEvent
	out    []byte // the request that is being written
	want   []byte // the answer that is awaited
	buf    [64 << 10]byte
	epoch  time.Time

	gap      float64 // open loop: nanoseconds between two requests; 0 in the closed loop
	start    int64
	end      int64
	next     uint64 // open loop: number of the next request, over all connections
	nextTime int64  // open loop: the time at which request number next is due

	flying int // requests that are due and not answered
	result
}

// A conn is one connection. Its requests are numbered through all phases.
type conn struct {
	fd       int
	dead     bool
	due      uint64          // requests that may be sent
	sent     uint64          // requests that were sent completely
	answered uint64          // requests that were answered completely
	first    uint64          // number of the first request of the phase
	outDone  int             // bytes of the next request, number sent, that were sent
	inDone   int             // bytes of the next answer, number answered, that have arrived
	sentAt   [maxAhead]int64 // the time at which request k was sent, at index k % maxAhead
}

// A result is the result of one phase.
type result struct {
	done    uint64 // requests answered before the end
	late    uint64 // requests answered after the end
	errors  uint64 // requests that were lost or got a wrong answer, and connections that failed
	latency hist.Histogram
	service hist.Histogram // open loop
	lag     hist.Histogram // open loop
}

// newLoad opens the connections, and exchanges request 0 on each: the work of a server at the first
// use of a connection is not part of the load. A rate of 0 is the closed loop.
func newLoad(to netip.AddrPort, conns, size int, rate float64) (*load, error) {
	l := &load{conns: make([]conn, conns), out: pattern(size), want: pattern(size), epoch: time.Now()}
	if rate > 0 {
		l.gap = 1e9 / rate
	}
	used, err := openIdle(to, conns, size)
	if err != nil {
		return nil, err
	}
	if l.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	for i, fd := range used.fds {
		l.conns[i] = conn{fd: fd, due: 1, sent: 1, answered: 1, first: 1}
		if err := syscall.SetNonblock(fd, true); err != nil {
			return nil, fmt.Errorf("set non-blocking: %w", err)
		}
		const edge = 1 << 31
		if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{
			Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge, Fd: int32(i),
		}); err != nil {
			return nil, fmt.Errorf("epoll_ctl: %w", err)
		}
	}
	return l, nil
}

func (l *load) close() {
	for i := range l.conns {
		drop(l.conns[i].fd)
	}
	syscall.Close(l.epoll)
}

func (l *load) now() int64 { return int64(time.Since(l.epoch)) }

// phase runs the load for a time, and then waits for the answers to the requests in flight.
func (l *load) phase(d time.Duration) error {
	if err := lowTimerSlack(); err != nil {
		return err
	}
	l.result = result{}
	l.start = l.now()
	l.end = l.start + int64(d)
	l.flying, l.next, l.nextTime = 0, 0, l.start
	for i := range l.conns {
		c := &l.conns[i]
		c.first, c.due = c.answered, c.answered
		if l.gap == 0 && !c.dead {
			l.order(i)
		}
	}
	for {
		now := l.follow()
		switch {
		case now >= l.end && l.flying == 0:
			return nil
		case now >= l.end+int64(grace):
			l.giveUp()
			return nil
		}
		until := l.end
		if now >= l.end {
			until += int64(grace)
		} else if l.gap > 0 {
			until = min(until, l.nextTime)
		}
		n, err := l.wait(max(until-now, 0))
		if err != nil {
			return err
		}
		for _, ev := range l.events[:n] {
			i := int(ev.Fd)
			if l.conns[i].dead {
				continue
			}
			if ev.Events&^syscall.EPOLLOUT != 0 {
				l.receive(i)
			}
			l.send(i)
			l.follow()
		}
	}
}

// follow sends the requests that are due in the open loop, and returns the time.
func (l *load) follow() int64 {
	now := l.now()
	for l.gap > 0 && now >= l.nextTime && l.nextTime < l.end {
		i := int(l.next % uint64(len(l.conns)))
		l.lag.Add(now - l.nextTime)
		if l.conns[i].dead {
			l.errors++
		} else {
			l.order(i)
		}
		l.next++
		l.nextTime = l.start + int64(float64(l.next)*l.gap)
		now = l.now()
	}
	return now
}

// order makes one more request due on connection i.
func (l *load) order(i int) {
	l.conns[i].due++
	l.flying++
	l.send(i)
}

// intended returns the time at which request number k of connection i is due.
func (l *load) intended(i int, c *conn, k uint64) int64 {
	if l.gap == 0 {
		return c.sentAt[k%maxAhead]
	}
	return l.start + int64(float64(uint64(i)+(k-c.first)*uint64(len(l.conns)))*l.gap)
}

// send writes the requests that are due on connection i, until the socket is not writable.
func (l *load) send(i int) {
	c := &l.conns[i]
	for !c.dead && c.sent < c.due && c.sent-c.answered < maxAhead {
		stamp(l.out, i, c.sent)
		if c.outDone == 0 {
			c.sentAt[c.sent%maxAhead] = l.now()
		}
		n, errno := rawio.Write(c.fd, l.out[c.outDone:])
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 {
			l.abandon(c)
			return
		}
		if c.outDone += n; c.outDone == len(l.out) {
			c.outDone = 0
			c.sent++
		}
	}
}

// receive reads the data that has arrived on connection i, and compares it with the requests.
func (l *load) receive(i int) {
	c := &l.conns[i]
	for {
		n, errno := rawio.Read(c.fd, l.buf[:])
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 || n == 0 || !l.accept(i, c, l.buf[:n]) {
			l.abandon(c)
			return
		}
		if n < len(l.buf) {
			return // a short read has emptied the socket; later input causes a new event
		}
	}
}

// accept counts the answers that p completes, and reports whether p has the bytes that were sent on
// the connection.
func (l *load) accept(i int, c *conn, p []byte) bool {
	now := l.now()
	for len(p) > 0 {
		if c.answered == c.sent && c.inDone >= c.outDone {
			return false // more bytes than were sent
		}
		stamp(l.want, i, c.answered)
		n := min(len(l.want)-c.inDone, len(p))
		if string(l.want[c.inDone:c.inDone+n]) != string(p[:n]) {
			return false
		}
		p = p[n:]
		if c.inDone += n; c.inDone == len(l.want) {
			c.inDone = 0
			l.finish(i, c, now)
		}
	}
	return true
}

// finish counts the answer of request number c.answered.
func (l *load) finish(i int, c *conn, now int64) {
	l.latency.Add(now - l.intended(i, c, c.answered))
	if l.gap > 0 {
		l.service.Add(now - c.sentAt[c.answered%maxAhead])
	}
	c.answered++
	l.flying--
	if now > l.end {
		l.late++
		return
	}
	l.done++
	if l.gap == 0 {
		c.due++ // the caller sends it
		l.flying++
	}
}

// abandon counts a failed connection as one error, and each request in flight on the connection as
// one more error.
func (l *load) abandon(c *conn) {
	c.dead = true
	l.errors += 1 + c.due - c.answered
	l.flying -= int(c.due - c.answered)
}

// giveUp counts the requests that were not answered as errors, and adds the time for which they
// have waited to the latencies.
func (l *load) giveUp() {
	now := l.now()
	for i := range l.conns {
		c := &l.conns[i]
		if c.dead {
			continue
		}
		for k := c.answered; k < c.due; k++ {
			l.latency.Add(now - l.intended(i, c, k))
			l.errors++
		}
		c.dead = c.answered < c.due
	}
	l.flying = 0
}

// metrics returns the figures of the last phase. Times are in microseconds. A quantile for which
// there are too few requests is left out.
func (l *load) metrics(measured time.Duration) map[string]float64 {
	m := map[string]float64{
		"requests":   float64(l.done + l.late),
		"requests_s": float64(l.done) / measured.Seconds(),
		"errors":     float64(l.errors),
		"max_us":     float64(l.latency.Max()) / 1000,
	}
	quantile := func(key string, h *hist.Histogram, q float64) {
		if h.Determines(q) {
			m[key] = float64(h.Quantile(q)) / 1000
		}
	}
	quantile("p50_us", &l.latency, 0.5)
	quantile("p99_us", &l.latency, 0.99)
	quantile("p999_us", &l.latency, 0.999)
	quantile("service_p50_us", &l.service, 0.5)
	quantile("service_p99_us", &l.service, 0.99)
	quantile("lag_p50_us", &l.lag, 0.5)
	quantile("lag_p99_us", &l.lag, 0.99)
	return m
}

// stamp makes request number k of connection i differ from all other requests, so that the echo of
// another request is noticed.
func stamp(p []byte, i int, k uint64) {
	binary.LittleEndian.PutUint64(p, (k<<20|uint64(i))*0x9e3779b97f4a7c15)
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*131 + i>>8)
	}
	return p
}

// wait waits for events. The system call is raw, like the system calls of package rawio: otherwise
// the scheduler of Go would take the P away from the goroutine.
func (l *load) wait(ns int64) (int, error) {
	const epollPwait2 = 441 // the same number on every architecture
	ts := syscall.NsecToTimespec(ns)
	n, _, errno := syscall.RawSyscall6(epollPwait2, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])),
		uintptr(len(l.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	if errno == syscall.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("epoll_pwait2: %w", errno)
	}
	return int(n), nil
}

// lowTimerSlack makes waits of this thread end on time. By default they end up to 50 microseconds
// late.
func lowTimerSlack() error {
	const prSetTimerslack = 29
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerslack, 1, 0); errno != 0 {
		return fmt.Errorf("prctl(PR_SET_TIMERSLACK): %w", errno)
	}
	return nil
}
