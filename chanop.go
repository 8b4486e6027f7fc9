package async

import "context"

// opKind says what somebody wants of a Chan.
type opKind uint8

const (
	opRecv opKind = iota
	opSend
	opReserve
	opAny // not wanted by anybody: see claimFirst
)

// chanOp is somebody who wants something of a Chan: what stands in its lists. It
// belongs to whoever waits, and while it is in a list to the lock of the channel.
type chanOp[T any] struct {
	c    *Chan[T]
	kind opKind
	in   bool // it has a place in the list, or has been served; for whoever waits
	sent bool // v has been sent
	w    waiter
	v    T     // to send, or received
	err  error // if it is not to be: ErrClosed

	// The case of a Select that it is, if it is one.
	sel   *selection
	index int32

	polled func(*Context) (None, error) // op.Poll, made once, for await
	next   *chanOp[T]                   // in an opList
}

func newOp[T any](c *Chan[T], kind opKind) *chanOp[T] {
	op := new(chanOp[T])
	op.init(c, kind)
	return op
}

func (op *chanOp[T]) init(c *Chan[T], kind opKind) {
	op.c, op.kind = c, kind
	op.w.owner = op
}

// list returns the list in which op waits.
func (op *chanOp[T]) list() *waitlist {
	if op.kind == opRecv {
		return &op.c.recvs
	}
	return &op.c.sends
}

// claim decides that op is served, unless it is a case of a Select that has
// decided for another one.
func (op *chanOp[T]) claim() bool { return op.sel == nil || op.sel.decide(op.index) }

// claimFirst returns the first in the list, of that kind or of any, that can be
// served, and decides that it is.
func claimFirst[T any](l *waitlist, kind opKind) *chanOp[T] {
	for w := l.first; w != nil; w = w.next {
		if op := w.owner.(*chanOp[T]); (kind == opAny || op.kind == kind) && op.claim() {
			return op
		}
	}
	return nil
}

// try does it now, or returns ErrFull or ErrEmpty. The lock is held.
func (op *chanOp[T]) try(chosen *chosenTasks) (err error) {
	c := op.c
	switch op.kind {
	case opRecv:
		op.v, err = c.recv(chosen)
	case opSend:
		err = c.send(op.v, chosen)
		op.sent = err == nil
	case opReserve:
		switch {
		case c.closed:
			err = ErrClosed
		case !c.hasRoom():
			err = ErrFull
		default:
			c.promised++
		}
	}
	return err
}

// reason says what its task waits for.
func (op *chanOp[T]) reason() waitReason {
	if op.kind == opRecv {
		return waitsRecv
	}
	return waitsSend
}

// Poll is that of the futures of a channel; what was received is in v.
func (op *chanOp[T]) Poll(cx *Context) (None, error) {
	if !op.in && !cx.spend() {
		return None{}, ErrPending
	}
	t := cx.waker(op.reason())
	var chosen chosenTasks
	op.c.recvs.mu.Lock()
	err := op.step(t, &chosen)
	op.c.unlock(&chosen)
	op.in = err == ErrPending
	return None{}, err
}

// step is Poll under the lock.
func (op *chanOp[T]) step(t *task, chosen *chosenTasks) error {
	switch op.w.phase {
	case waiterChosen:
		op.list().leave(&op.w)
		return op.err
	case waiterOut:
		if err := op.try(chosen); err != ErrFull && err != ErrEmpty {
			return err
		}
	}
	op.list().join(&op.w, t)
	return ErrPending
}

// abandon gives op up, and reports whether it is too late for that: it has been
// served, and its result is the caller's.
func (op *chanOp[T]) abandon() (served bool) {
	op.c.recvs.mu.Lock()
	served = op.list().leave(&op.w) == waiterChosen && op.err == nil
	op.c.recvs.mu.Unlock()
	op.in = false
	return served
}

// cancel gives op up; what it was handed goes to others.
func (op *chanOp[T]) cancel() {
	c := op.c
	if !op.in || !op.abandon() || op.kind == opSend {
		return
	}
	var chosen chosenTasks
	c.recvs.mu.Lock()
	if op.kind == opRecv {
		c.held.unpop(op.v)
		c.serve(&chosen)
	} else {
		c.promised--
		c.match(&chosen)
	}
	c.unlock(&chosen)
}

// await is Await for op.
func (op *chanOp[T]) await(cx *Context) error {
	over := false
	defer func() {
		if !over {
			op.cancel() // Shutdown unwinds the code
		}
	}()
	if op.polled == nil {
		op.polled = op.Poll
	}
	_, err := await(cx, op.polled)
	over = true
	return err
}

// waitBlocking is await for a goroutine outside the pool.
func (op *chanOp[T]) waitBlocking(ctx context.Context) error {
	served := false
	_, err := waitBlocking(ctx, Future[None](&opWait[T]{op, &served}))
	if served {
		err = nil
	}
	return err
}

// opWait is the future of an op for somebody who takes what it was handed when it
// is given up.
type opWait[T any] struct {
	*chanOp[T]
	served *bool
}

// Cancel implements canceller.
func (w *opWait[T]) Cancel() { *w.served = w.abandon() }

// opList keeps a few ops for those who wait next.
type opList[T any] struct {
	first *chanOp[T]
	n     int
}

// opsKept is how many. More wait at once only in a burst.
const opsKept = 64

// take returns an op that is not used otherwise.
func (c *Chan[T]) take(kind opKind) *chanOp[T] {
	c.recvs.mu.Lock()
	op := c.free.first
	if op != nil {
		c.free.first = op.next
		c.free.n--
	}
	c.recvs.mu.Unlock()
	if op == nil {
		return newOp(c, kind)
	}
	op.kind, op.next = kind, nil
	return op
}

// put gives op back, which is in no list.
func (c *Chan[T]) put(op *chanOp[T]) {
	var zero T
	op.v, op.err, op.sent = zero, nil, false
	c.recvs.mu.Lock()
	if c.free.n < opsKept {
		op.next = c.free.first
		c.free.first = op
		c.free.n++
	}
	c.recvs.mu.Unlock()
}

// sendFuture is the future of SendFuture.
type sendFuture[T any] struct{ op chanOp[T] }

func (f *sendFuture[T]) Poll(cx *Context) (None, error) { return f.op.Poll(cx) }

// Cancel implements canceller.
func (f *sendFuture[T]) Cancel() { f.op.cancel() }

// recvFuture is the future of RecvFuture.
type recvFuture[T any] struct{ op chanOp[T] }

func (f *recvFuture[T]) Poll(cx *Context) (v T, err error) {
	if _, err = f.op.Poll(cx); err == nil {
		v = f.op.v
	}
	return v, err
}

// Cancel implements canceller.
func (f *recvFuture[T]) Cancel() { f.op.cancel() }

// A Permit is a place in a Chan that nobody else can take. Use it once, by Send or
// Release. It belongs to one task or goroutine at a time.
type Permit[T any] struct{ c *Chan[T] }

// Reserve waits for a place, to be used later: what is sent then cannot be lost
// by a cancellation. It fails like Send. It panics if the channel holds no
// messages: there are no places in it.
func (c *Chan[T]) Reserve(cx *Context) (*Permit[T], error) {
	c.mustHavePlaces()
	if err := cx.mustAwait(); err != nil {
		return nil, err
	}
	op := c.take(opReserve)
	defer c.put(op)
	err := op.await(cx)
	if err == errAbandoned {
		if err = nil; !op.abandon() {
			err = cx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	return &Permit[T]{c}, nil
}

// TryReserve is Reserve without waiting. It fails with ErrFull or ErrClosed.
func (c *Chan[T]) TryReserve() (*Permit[T], error) {
	c.mustHavePlaces()
	op := chanOp[T]{c: c, kind: opReserve}
	c.recvs.mu.Lock()
	err := op.try(nil)
	c.recvs.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return &Permit[T]{c}, nil
}

// ReserveBlocking is Reserve for a goroutine outside the pool, which it parks. It
// panics in tasks.
func (c *Chan[T]) ReserveBlocking(ctx context.Context) (*Permit[T], error) {
	c.mustHavePlaces()
	mustNotBlock("Chan.ReserveBlocking", "ch.Reserve(cx)")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := newOp(c, opReserve).waitBlocking(ctx); err != nil {
		return nil, err
	}
	return &Permit[T]{c}, nil
}

func (c *Chan[T]) mustHavePlaces() {
	if c.limit == 0 {
		panic("async: Chan.Reserve: this channel holds no messages, so there is no place to reserve; make it with a capacity")
	}
}

// Send sends v in the place that was reserved. It never waits, and fails only with
// ErrClosed. It panics if the permit has been used.
func (p *Permit[T]) Send(v T) error {
	c := p.use()
	var chosen chosenTasks
	c.recvs.mu.Lock()
	c.promised--
	closed := c.closed
	switch {
	case closed:
	case c.hand(v, &chosen):
		c.match(&chosen) // the place is free
	default:
		c.held.push(v)
	}
	c.unlock(&chosen)
	if closed {
		return ErrClosed
	}
	return nil
}

// Release gives the place back. It panics if the permit has been used.
func (p *Permit[T]) Release() {
	c := p.use()
	var chosen chosenTasks
	c.recvs.mu.Lock()
	c.promised--
	c.match(&chosen)
	c.unlock(&chosen)
}

func (p *Permit[T]) use() *Chan[T] {
	c := p.c
	if c == nil {
		panic("async: a Permit was used twice")
	}
	p.c = nil
	return c
}
