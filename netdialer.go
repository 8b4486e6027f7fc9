package async

import (
	"context"
	"net"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dialer is how to connect; the zero value is how Dial does. Its methods may
// be called by any number of tasks and goroutines.
//
// If a name has several addresses they are tried as RFC 8305 has it (Happy
// Eyeballs): in turn one of IPv6 and one of IPv4, each a quarter of a second
// after the attempt before, or at once when an attempt has failed. The first connection
// that stands is returned and the other attempts are given up.
type Dialer struct {
	// Timeout, if not zero, is how long a dial may take, look-ups included.
	Timeout time.Duration

	// Deadline, if not zero, is when it must have ended. The deadline of cx
	// counts as well.
	Deadline time.Time

	// LocalAddr, if not nil, is the address to dial from. Of a name's addresses
	// only the addresses of its family are tried. A wildcard is of both families, and
	// a nil pointer in the interface is like nil.
	LocalAddr net.Addr

	// FallbackDelay is how long an attempt is given before the next begins
	// beside it. Zero is 250 ms. If it is negative, the next begins when an attempt has
	// failed. A deadline then limits each attempt as well, as in package net: the
	// time that is left is divided evenly among the addresses that are left, but
	// each attempt may take 2 s of it.
	FallbackDelay time.Duration

	// KeepAlive is after how long a silence the connection is probed. Zero is
	// 15 s; negative is never.
	KeepAlive time.Duration

	// Resolver looks up names; nil is DefaultResolver.
	Resolver *Resolver

	// Control, if not nil, is called after a socket was made and before it is
	// connected, with the network (its family added: "tcp4") and the address.
	// It runs on the caller's worker and must not block. An error that it
	// returns fails the attempt, and is wrapped in the error of the dial.
	Control func(network, address string, c syscall.RawConn) error
}

// fallbackDelay is the delay that RFC 8305 recommends.
const fallbackDelay = 250 * time.Millisecond

// leastShare is the least time for one of several attempts that follow each other, if
// the deadline allows it. Package net has the same.
const leastShare = 2 * time.Second

// Dial connects to an address; see the function Dial for networks. The
// deadline and the cancellation of cx end it; nothing is left open then.
//
// The error is a *net.OpError. It wraps a *net.DNSError if the look-up has failed, cx.Err()
// if cx is cancelled, and context.DeadlineExceeded after Timeout or Deadline; its method
// Timeout then reports true.
//
// If the context that the task is under (see [Spawner.Under]) has hooks of
// net/http/httptrace, ConnectStart and ConnectDone are called for each attempt, as by
// package net. Like Control, they run on the caller's worker and must not block. Each
// call has returned before the dial does.
func (d *Dialer) Dial(cx *Context, network, address string) (Conn, error) {
	f := d.dialing(network, address)
	defer f.Cancel() // also if Shutdown unwinds the caller
	c, err := await(cx, f.Poll)
	if err == errAbandoned {
		err = f.givenUp(cx.Err())
		f.stop(cx.Err())
	}
	return c, err
}

// DialFuture returns a future of the result of Dial. Its errors are those of Dial, but an
// [Await] of it that is cancelled returns cx.Err(), not wrapped.
func (d *Dialer) DialFuture(network, address string) Future[Conn] { return d.dialing(network, address) }

func (d *Dialer) dialing(network, address string) *dialing {
	f := &dialing{Dialer: *d, name: network, address: address, end: maxNanos}
	if d.Timeout != 0 {
		f.end = nanosAfter(d.Timeout)
	}
	if !d.Deadline.IsZero() {
		f.end = min(f.end, nanosAt(d.Deadline))
	}
	return f
}

// dialing is the future of a connection to one of a name's addresses.
type dialing struct {
	Dialer
	name, address string
	end           int64 // when it must have ended

	begun  bool
	setup  socketSetup
	target dialTarget
	lookup *lookupFuture[resolution]
	looked bool

	running []*connectFuture
	next    int64 // when another attempt begins beside them, or in their place
	first   error
	sleep   *sleepFuture
	hooks   *connectHooks // may be nil

	// The first attempt, which is most often the only attempt, and the array for it.
	one     connectFuture
	ofOne   [1]*connectFuture
	started int
}

// Poll implements Future.
func (d *dialing) Poll(cx *Context) (Conn, error) {
	if !d.begun && d.end != maxNanos && cx.nanos() >= d.end {
		return nil, d.givenUp(context.DeadlineExceeded) // though it might be done at once
	}
	c, err := d.poll(cx)
	if err == ErrPending {
		if cx.nanos() < d.end {
			return nil, d.wakeAt(cx, err)
		}
		if err = d.first; err == nil || d.FallbackDelay >= 0 {
			err = d.givenUp(context.DeadlineExceeded)
		}
		d.stop(context.DeadlineExceeded)
	}
	d.release()
	d.hooks.keep(nil)
	return c, err
}

func (d *dialing) poll(cx *Context) (Conn, error) {
	if !d.begun {
		if !cx.spend() {
			return nil, ErrPending
		}
		d.begun = true
		d.setup = socketSetup{control: d.Control, keepAlive: d.KeepAlive}
		var err error
		if d.target, err = parseDialTarget("dial", d.name, d.address); err != nil {
			return nil, err
		}
		d.hooks = cx.connectHooks()
	}
	if !d.looked {
		if err := d.look(cx); err != nil {
			return nil, err
		}
		d.looked = true
	}
	for {
		c, failed := d.pollRunning(cx)
		if c != nil {
			return c, nil
		}
		switch now := cx.nanos(); {
		case len(d.target.list) > 0 && (len(d.running) == 0 || failed || now >= d.next):
			if d.FallbackDelay < 0 && len(d.running) > 0 { // the attempt has used up its time
				d.failed(d.running[0].wrap(context.DeadlineExceeded))
				d.stop(context.DeadlineExceeded)
			}
			d.begin(cx, now)
		case len(d.running) > 0:
			return nil, ErrPending
		default:
			return nil, d.first
		}
	}
}

// look sets target's list to the addresses to try, in order.
func (d *dialing) look(cx *Context) error {
	t := &d.target
	if t.list == nil {
		if d.lookup == nil {
			d.lookup = t.lookup(d.Resolver)
		}
		found, err := d.lookup.Poll(cx)
		if err == ErrPending {
			return err
		}
		d.lookup = nil
		if err := t.resolved(found, err); err != nil {
			return err
		}
	}
	if err := t.from(d.LocalAddr); err != nil {
		return err
	}
	d.LocalAddr = literalAddr(d.LocalAddr)
	if len(t.list) > 1 {
		t.list = interleaveAddrs(t.list)
	}
	return nil
}

// pollRunning polls the attempts that are under way. It returns the connection
// of an attempt that has succeeded, or whether an attempt has failed.
func (d *dialing) pollRunning(cx *Context) (c Conn, failed bool) {
	for i := 0; i < len(d.running); {
		c, err := d.running[i].Poll(cx)
		if err == ErrPending {
			i++
			continue
		}
		a := d.running[i]
		d.running = slices.Delete(d.running, i, i+1)
		d.hooks.keep(c)
		d.hooks.ended(d.name, a.raddr, err)
		if err == nil {
			return c, false
		}
		failed = true
		d.failed(err)
	}
	return nil, failed
}

// failed notes why an attempt has failed.
func (d *dialing) failed(err error) {
	if d.first == nil {
		d.first = err
	}
}

// begin begins the next attempt.
func (d *dialing) begin(cx *Context, now int64) {
	a := &d.one
	if d.started++; d.started == 1 {
		d.running = d.ofOne[:0]
	} else {
		a = new(connectFuture)
	}
	*a = connectFuture{setup: &d.setup, net: d.target.net, laddr: d.LocalAddr, raddr: d.target.list[0]}
	d.running = append(d.running, a)
	d.target.list = d.target.list[1:]
	switch delay := d.FallbackDelay; {
	case delay == 0:
		d.next = now + int64(fallbackDelay)
	case delay > 0:
		d.next = now + clampTime(int64(delay))
	default:
		d.next = d.shareEnd(cx, now)
	}
	d.hooks.begun(d.name, a.raddr)
}

// shareEnd returns when an attempt that begins now must make room for the next attempt;
// maxNanos if it may use all the time that is left.
func (d *dialing) shareEnd(cx *Context, now int64) int64 {
	end := d.end
	if at, ok := cx.Deadline(); ok {
		end = min(end, nanosAt(at))
	}
	share := timeShare(end-now, len(d.target.list)+1)
	if end == maxNanos || share >= end-now {
		return maxNanos
	}
	return now + share
}

// timeShare returns how much of the time that is left the first of n attempts may
// take.
func timeShare(left int64, n int) int64 {
	return max(left/int64(n), min(left, int64(leastShare)))
}

// wakeAt has the task woken when an attempt must begin, or the dial must end.
func (d *dialing) wakeAt(cx *Context, pending error) error {
	at := d.end
	if d.looked && len(d.target.list) > 0 {
		at = min(at, d.next)
	}
	if d.sleep != nil && d.sleep.until != at {
		d.sleep.Cancel()
		d.sleep = nil
	}
	if at == maxNanos {
		return pending
	}
	if d.sleep == nil {
		d.sleep = &sleepFuture{until: at}
	}
	if _, err := d.sleep.Poll(cx); err == nil {
		cx.waker(waitsTime).wake(cx.here()) // it is due by now
	}
	return pending
}

// stop ends the attempts that are under way.
func (d *dialing) stop(why error) {
	stopped := d.running
	d.running = nil
	for _, a := range stopped {
		a.Cancel()
	}
	if d.hooks == nil {
		return
	}
	for _, a := range stopped {
		d.hooks.ended(d.name, a.raddr, a.wrap(why))
	}
}

// Cancel implements canceler: no socket stays open.
func (d *dialing) Cancel() {
	d.hooks.drop()
	d.release()
}

// release ends the attempts, the look-up and the sleep.
func (d *dialing) release() {
	d.stop(context.Canceled)
	if d.lookup != nil {
		d.lookup.Cancel()
		d.lookup = nil
	}
	if d.sleep != nil {
		d.sleep.Cancel()
		d.sleep = nil
	}
}

// givenUp returns the error of a dial that ends for another reason than a failure.
func (d *dialing) givenUp(err error) error {
	switch {
	case len(d.running) > 0:
		return d.running[len(d.running)-1].wrap(err)
	case !d.begun: // the error names at least the address
		if t, e := parseDialTarget("dial", d.name, d.address); e != nil {
			return e
		} else if len(t.list) > 0 {
			return wrapOp("dial", t.net, literalAddr(d.LocalAddr), t.list[0], err)
		}
	}
	return wrapOp("dial", unnamed(d.name), nil, nil, err)
}

// from removes the addresses to which a socket at laddr cannot connect.
func (t *dialTarget) from(laddr net.Addr) error {
	if laddr == nil {
		return nil
	}
	if u, ok := laddr.(*net.UnixAddr); ok && u == nil && t.net.family == unix.AF_UNIX {
		return nil // its Network method would panic
	} else if ok && u == nil || laddr.Network() != t.list[0].Network() {
		return t.wrap(&net.AddrError{Err: "mismatched local address type", Addr: laddr.String()})
	}
	ip := ipOf(laddr)
	if isWildcard(ip) {
		return nil
	}
	t.list = slices.DeleteFunc(t.list, func(a net.Addr) bool {
		to := ipOf(a)
		return !isWildcard(to) && (ip.To16() == nil || isIPv4(a) != isIPv4(laddr))
	})
	if len(t.list) == 0 {
		return t.wrap(&net.AddrError{Err: "no suitable address found", Addr: laddr.String()})
	}
	return nil
}

// literalAddr returns a, or nil if a is a nil pointer.
func literalAddr(a net.Addr) net.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return addrOrNil(a)
	case *net.UDPAddr:
		return addrOrNil(a)
	case *net.UnixAddr:
		return addrOrNil(a)
	}
	return a
}

// interleaveAddrs puts addresses of one family and of the other in turn, beginning
// with the family of the first address, and leaves each family's order.
func interleaveAddrs(addrs []net.Addr) []net.Addr {
	var same, other []net.Addr
	for _, a := range addrs {
		if isIPv4(a) == isIPv4(addrs[0]) {
			same = append(same, a)
		} else {
			other = append(other, a)
		}
	}
	mixed := make([]net.Addr, 0, len(addrs))
	for i := range same {
		mixed = append(mixed, same[i])
		if i < len(other) {
			mixed = append(mixed, other[i])
		}
	}
	if len(other) > len(same) {
		mixed = append(mixed, other[len(same):]...)
	}
	return mixed
}
