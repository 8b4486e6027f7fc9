package async

import (
	"context"
	"net"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Dialer says how to connect. The zero value connects as [Dial] does. Any number of tasks and
// goroutines may call its methods at the same time.
//
// If a name has several addresses, a dial tries them as RFC 8305 (Happy Eyeballs) describes:
//
//   - Addresses of IPv6 and of IPv4 are tried in turn.
//   - The next attempt begins 250 ms after the attempt before it, or at once when an attempt has
//     failed.
//   - The first connection that is established is the result. The other attempts are given up.
type Dialer struct {
	// Timeout is how long a dial may take, including look-ups. 0 means no limit.
	Timeout time.Duration

	// Deadline is the time at which a dial must have ended. The zero time means no limit. The
	// earliest of this, of Timeout and of the deadline of cx counts.
	Deadline time.Time

	// LocalAddr is the address from which to dial. If it is nil, or a nil pointer, the system
	// chooses an address. A dial tries only the addresses of a name that are of the family of
	// LocalAddr. A wildcard address is of both families.
	LocalAddr net.Addr

	// FallbackDelay is how long after the beginning of an attempt the next attempt begins beside
	// it. If an attempt fails earlier, the next begins at once. 0 means 250 ms.
	//
	// If FallbackDelay is negative, the attempts follow each other: the next begins when an attempt
	// has failed. If the dial has a deadline, each attempt then has a share of the time that is
	// left, as in package net, and fails when it has used up its share. The shares of the addresses
	// that are left are equal, but no share is less than 2 s, if so much time is left.
	FallbackDelay time.Duration

	// KeepAlive is how long a TCP connection is silent before the system probes it. 0 means 15 s.
	// If it is negative, the system does not probe.
	KeepAlive time.Duration

	// Resolver looks up names. nil means [DefaultResolver].
	Resolver *Resolver

	// Control, if not nil, is called for each attempt after its socket is made and before it is
	// connected. Its arguments are the network with its family, for example "tcp4", and the
	// address. It runs on the worker of the caller and must not block. If it returns an error, the
	// attempt fails, and the error of the dial wraps this error.
	Control func(network, address string, c syscall.RawConn) error
}

// fallbackDelay is the delay that RFC 8305 recommends.
const fallbackDelay = 250 * time.Millisecond

// leastShare is the time that each of several attempts that follow each other may take, if the
// deadline allows it. Package net has the same value.
const leastShare = 2 * time.Second

// Dial connects to an address, and returns the connection. For the networks see the function
// [Dial]. If cx is cancelled or its deadline passes, the dial ends, and leaves no connection open.
//
// The error is a [*net.OpError]. It wraps
//
//   - a [*net.DNSError] if the look-up has failed,
//   - cx.Err() if cx is cancelled,
//   - [context.DeadlineExceeded] after Timeout or Deadline. The method Timeout of the error then
//     reports true.
//
// If all attempts fail, the error is the error of the attempt that failed first. The error is also
// this one after Timeout or Deadline if FallbackDelay is negative and an attempt has failed.
//
// If the task is under a context (see [Spawner.Under]) that has hooks of [net/http/httptrace], Dial
// calls ConnectStart and ConnectDone for each attempt, as package net does. Like Control, they run
// on the worker of the caller and must not block. Each of these calls has returned before Dial
// returns.
func (d *Dialer) Dial(cx *Context, network, address string) (Conn, error) {
	f := d.dialing(network, address)
	defer f.Cancel() // also if Shutdown unwinds the caller
	c, err := await(cx, f.Poll)
	if err == errAbandoned {
		err = f.givenUp(cx.Err()) // names an attempt in running, which stop empties
		f.stop(cx.Err())
	}
	return c, err
}

// DialFuture returns the future of [Dialer.Dial]: the same result and errors. One error differs: an
// [Await] of the future that is cancelled returns cx.Err(), not wrapped. Giving the future up
// before it is ready leaves no connection open. The function [DialFuture] does the same with the
// zero Dialer.
func (d *Dialer) DialFuture(network, address string) Future[Conn] { return d.dialing(network, address) }

// dialing returns the future of a dial with a copy of d. The time of Timeout begins now.
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

// dialing is the future of a connection to one of the addresses of a name. Its states follow each
// other:
//
//  1. The first poll splits the address.
//  2. Until looked is set, a poll polls the look-up. It sets target.list to the addresses to try.
//  3. Each later poll polls the attempts in running. If one of them has succeeded, its connection
//     is the result.
//  4. Otherwise the poll begins the next attempt if an attempt has failed, if none is running, or
//     if next has passed. Step 3 follows again. If FallbackDelay is negative, next is the end of
//     the share of the running attempt, which is given up then.
//  5. If no address is left and no attempt is running, the result is the first failure.
//
// A poll that is pending sets one timer, for the earlier of next and end (wakeAt). If end passes
// first, the dial fails.
//
// Each way out closes the sockets of the attempts that have not won. A final result calls release,
// and a dial that is given up calls Cancel. A hook may panic when an attempt has won. So the
// connection is also in hooks.won until Poll returns it, and Cancel closes it.
type dialing struct {
	Dialer
	name, address string
	end           int64 // when the dial must have ended; maxNanos: no limit

	begun  bool // step 1 is done
	setup  socketSetup
	target dialTarget
	lookup *lookupFuture[resolution] // nil, unless it is pending
	looked bool                      // step 2 is done

	running []*connectFuture // in the order in which they began
	next    int64            // when the next attempt begins
	first   error            // of the attempt that failed first
	sleep   *sleepFuture     // the timer; may be nil
	hooks   *connectHooks    // may be nil

	// Most dials make one attempt. Its future and the array of running are part of the dialing, so
	// that they are not allocated.
	one     connectFuture
	ofOne   [1]*connectFuture
	started int // how many attempts have begun
}

// Poll implements Future. It is poll with a limit of time.
func (d *dialing) Poll(cx *Context) (Conn, error) {
	if !d.begun && d.end != maxNanos && cx.nanos() >= d.end {
		// As in package net, even if the dial would take no time.
		return nil, d.givenUp(context.DeadlineExceeded)
	}
	c, err := d.poll(cx)
	if err == ErrPending {
		if cx.nanos() < d.end {
			return nil, d.wakeAt(cx, err)
		}
		// As in package net: if the attempts follow each other, the first failure tells more than
		// the deadline.
		if err = d.first; err == nil || d.FallbackDelay >= 0 {
			err = d.givenUp(context.DeadlineExceeded)
		}
		d.stop(context.DeadlineExceeded)
	}
	d.release()
	d.hooks.keep(nil)
	return c, err
}

// poll does the steps at dialing, without a limit of time.
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
			if d.FallbackDelay < 0 && len(d.running) > 0 { // the attempt has used up its share
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

// look does step 2: it sets target.list to the addresses to try, in this order. It returns
// ErrPending while the look-up goes on.
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

// pollRunning polls the attempts in running, and removes the attempts that have ended. It returns
// the connection of an attempt that has succeeded. Otherwise it reports whether an attempt has
// failed.
func (d *dialing) pollRunning(cx *Context) (c Conn, failed bool) {
	for i := 0; i < len(d.running); {
		c, err := d.running[i].Poll(cx)
		if err == ErrPending {
			i++
			continue
		}
		a := d.running[i]
		d.running = slices.Delete(d.running, i, i+1)
		d.hooks.keep(c) // before ended, which may panic
		d.hooks.ended(d.name, a.raddr, err)
		if err == nil {
			return c, false
		}
		failed = true
		d.failed(err)
	}
	return nil, failed
}

// failed notes the failure of an attempt. Only the first one is kept.
func (d *dialing) failed(err error) {
	if d.first == nil {
		d.first = err
	}
}

// begin adds an attempt for the next address to running, and sets next. The attempt opens its
// socket when it is polled.
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

// shareEnd returns the time at which an attempt that begins now will have used up its share of the
// time that is left. The next attempt then takes its place. shareEnd returns maxNanos if the
// attempt may use all the time that is left, or if the dial has no deadline.
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

// timeShare returns how much of the time that is left the first of n attempts may take: an even
// share, but 2 s (leastShare) at least if there is so much time.
func timeShare(left int64, n int) int64 {
	return max(left/int64(n), min(left, int64(leastShare)))
}

// wakeAt sets the timer that wakes the task when an attempt must begin or the dial must end. It
// returns pending.
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
		cx.waker(waitsTime).wake(cx.here()) // the time has passed since Poll looked at the clock
	}
	return pending
}

// stop gives up the attempts in running, and calls ConnectDone with why for each. All sockets are
// closed before the first hook is called, since a hook may panic.
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

// release gives up the attempts, the look-up and the timer.
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

// givenUp returns the error of a dial that ends because of err, its deadline or a cancel, and not
// by a failure. It names the address of the attempt that began last, or of a dial that has not
// begun the address that it would try first.
func (d *dialing) givenUp(err error) error {
	switch {
	case len(d.running) > 0:
		return d.running[len(d.running)-1].wrap(err)
	case !d.begun:
		if t, e := parseDialTarget("dial", d.name, d.address); e != nil {
			return e
		} else if len(t.list) > 0 {
			return wrapOp("dial", t.net, literalAddr(d.LocalAddr), t.list[0], err)
		}
	}
	return wrapOp("dial", unnamed(d.name), nil, nil, err)
}

// from removes the addresses to which a socket that is bound to laddr cannot connect. It returns an
// error if no address is left.
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

// literalAddr returns a, or nil if a is a nil pointer in an interface.
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

// interleaveAddrs puts the addresses of the two families in turn, beginning with the family of the
// first address. The order within a family stays.
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
