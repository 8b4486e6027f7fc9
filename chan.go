package async

import (
	"context"
	"errors"
	"io"
	"iter"
)

// How channels refuse.
var (
	// ErrClosed is returned when the channel is closed: at once by what sends,
	// and by what receives once nothing is left.
	ErrClosed = errors.New("async: channel is closed")

	// ErrFull is returned by TrySend, TryReserve and ForceSend when there is no
	// room.
	ErrFull = errors.New("async: channel is full")

	// ErrEmpty is returned by TryRecv when there is nothing to receive.
	ErrEmpty = errors.New("async: channel is empty")
)

// A Chan is a channel of T for any number of senders and receivers, tasks and
// goroutines. Each message goes to one receiver. Messages come out in the order in
// which they went in, and those who wait are served in the order in which they
// came: nobody who waits is overtaken, but for Select, whose cases go to the end
// of the queue each time it has been woken in vain.
//
// Its methods may be called from any goroutine, except that a cx belongs to the
// caller.
type Chan[T any] struct {
	recvs waitlist // who waits to receive; its lock guards all that follows
	sends waitlist // who waits to send, or for a place; its own lock is not used

	held     queue[T]
	limit    int // how many messages may be held; negative: any number
	promised int // places of permits
	closed   bool
	free     opList[T]

	// Those who poll wait here, without a place among recvs and sends.
	filled, emptied wakerSlot
}

var _ Stream[None] = (*Chan[None])(nil)

// NewChan returns a channel that holds at most n messages. With n = 0 it holds
// none: a Send waits until somebody receives. A negative n panics.
func NewChan[T any](n int) *Chan[T] {
	if n < 0 {
		panic("async: NewChan: the capacity is negative; use NewUnboundedChan")
	}
	return &Chan[T]{limit: n}
}

// NewUnboundedChan returns a channel on which Send never waits. Whoever uses one
// must know what bounds the number of messages: here it is memory.
func NewUnboundedChan[T any]() *Chan[T] { return &Chan[T]{limit: -1} }

// Send sends v, waiting for room. It fails with ErrClosed if the channel is
// closed, also while it waits, and with cx.Err() if cx is cancelled. If it fails v
// has not been sent.
func (c *Chan[T]) Send(cx *Context, v T) error {
	if cx.callers() && cx.calm() && cx.spend() {
		if err := c.TrySend(v); err != ErrFull {
			return err
		}
	}
	if err := cx.mustAwait(); err != nil {
		return err
	}
	op := c.take(opSend)
	defer c.put(op)
	op.v = v
	err := op.await(cx)
	if err == errAbandoned {
		if err = nil; !op.abandon() {
			err = cx.Err()
		}
	}
	return err
}

// Recv receives a message, waiting for one. It fails with ErrClosed if the channel
// is closed and empty, and with cx.Err() if cx is cancelled. That loses no message:
// one that had been handed to the caller by then is returned.
func (c *Chan[T]) Recv(cx *Context) (T, error) {
	if cx.callers() && cx.calm() && cx.spend() {
		if v, err := c.TryRecv(); err != ErrEmpty {
			return v, err
		}
	}
	var zero T
	if err := cx.mustAwait(); err != nil {
		return zero, err
	}
	op := c.take(opRecv)
	defer c.put(op)
	err := op.await(cx)
	if err == errAbandoned {
		if err = nil; !op.abandon() {
			return zero, cx.Err()
		}
	}
	return op.v, err
}

// TrySend sends v if there is room now. It fails with ErrFull or ErrClosed.
func (c *Chan[T]) TrySend(v T) error {
	var chosen chosenTasks
	c.recvs.mu.Lock()
	err := c.send(v, &chosen)
	c.unlock(&chosen)
	return err
}

// TryRecv receives a message if there is one now. It fails with ErrEmpty or
// ErrClosed.
func (c *Chan[T]) TryRecv() (T, error) {
	var chosen chosenTasks
	c.recvs.mu.Lock()
	v, err := c.recv(&chosen)
	c.unlock(&chosen)
	return v, err
}

// ForceSend sends v without waiting: if there is no room it takes out the oldest
// message, and returns it and true. It fails with ErrClosed, and with ErrFull if
// no message is held that could make room: all places belong to permits, or the
// channel holds none and nobody waits to receive.
func (c *Chan[T]) ForceSend(v T) (old T, replaced bool, err error) {
	var chosen chosenTasks
	c.recvs.mu.Lock()
	if err = c.send(v, &chosen); err == ErrFull && c.held.n > 0 {
		old, replaced, err = c.held.pop(), true, nil
		c.held.push(v)
	}
	c.unlock(&chosen)
	return old, replaced, err
}

// SendBlocking is Send for a goroutine outside the pool, which it parks. It fails
// with ctx.Err() if ctx ends. It panics in tasks.
func (c *Chan[T]) SendBlocking(ctx context.Context, v T) error {
	mustNotBlock("Chan.SendBlocking", "ch.Send(cx, v)")
	if err := ctx.Err(); err != nil {
		return err
	}
	op := newOp(c, opSend)
	op.v = v
	return op.waitBlocking(ctx)
}

// RecvBlocking is Recv for a goroutine outside the pool, which it parks. It fails
// with ctx.Err() if ctx ends, which loses no message. It panics in tasks.
func (c *Chan[T]) RecvBlocking(ctx context.Context) (T, error) {
	mustNotBlock("Chan.RecvBlocking", "ch.Recv(cx)")
	op := newOp(c, opRecv)
	if err := ctx.Err(); err != nil {
		return op.v, err
	}
	err := op.waitBlocking(ctx)
	return op.v, err
}

// SendFuture returns Send as a future. Given up before it was ready, by its method
// Cancel, it has not sent v, unless a receiver had taken it by then: so await it
// where that matters, or use Reserve.
func (c *Chan[T]) SendFuture(v T) Future[None] {
	f := new(sendFuture[T])
	f.op.init(c, opSend)
	f.op.v = v
	return f
}

// RecvFuture returns Recv as a future. Given up before it was ready, by its
// method Cancel, it passes on a message that it was handed.
func (c *Chan[T]) RecvFuture() Future[T] {
	f := new(recvFuture[T])
	f.op.init(c, opRecv)
	return f
}

// PollNext makes the channel a Stream, which ends with io.EOF when it is closed and
// empty. Unlike RecvFuture it costs no allocation and keeps no place in the queue:
// those who poll, and receivers beside them, get what they are first to find.
func (c *Chan[T]) PollNext(cx *Context) (v T, err error) {
	if !cx.spend() {
		return v, ErrPending
	}
	v, err = c.TryRecv()
	if err == ErrEmpty {
		v, err = retryIn(&c.filled, cx, waitsRecv, ErrEmpty, c.TryRecv)
	}
	if err == ErrClosed {
		err = io.EOF
	}
	return v, err
}

// PollSend sends v if there is room, and else returns ErrPending. Like PollNext it
// keeps no place in the queue. If the channel holds none and only PollNext waits, v
// is held for whoever receives next. It fails with ErrClosed.
func (c *Chan[T]) PollSend(cx *Context, v T) error {
	if !cx.spend() {
		return ErrPending
	}
	err := c.TrySend(v)
	if err == ErrFull {
		_, err = retryIn(&c.emptied, cx, waitsSend, ErrFull, func() (None, error) { return None{}, c.TrySend(v) })
	}
	return err
}

// retryIn makes cx's task wait in slot and tries once more, since what came before
// that woke nobody. It returns ErrPending if try fails with again.
func retryIn[T any](slot *wakerSlot, cx *Context, reason waitReason, again error, try func() (T, error)) (T, error) {
	slot.join(cx.waker(reason))
	v, err := try()
	if err == again {
		return v, ErrPending
	}
	slot.leave(cx.t, cx.here())
	return v, err
}

// All returns the messages for a range loop, which waits through cx. It ends when
// the channel is closed and empty, and when cx is cancelled: look at cx.Err()
// after the loop to tell which.
func (c *Chan[T]) All(cx *Context) iter.Seq[T] {
	return func(yield func(T) bool) {
		for {
			if v, err := c.Recv(cx); err != nil || !yield(v) {
				return
			}
		}
	}
}

// Close closes the channel: sending fails from now on, also for those who wait,
// and receiving once all that is held has been received. It reports whether it is
// the first call.
func (c *Chan[T]) Close() (first bool) {
	var chosen chosenTasks
	c.recvs.mu.Lock()
	first = !c.closed
	c.closed = true
	c.dismiss(&c.sends, &chosen)
	if c.held.n == 0 {
		c.dismiss(&c.recvs, &chosen)
	}
	c.unlock(&chosen)
	return first
}

// dismiss tells all who wait in l that the channel is closed.
func (c *Chan[T]) dismiss(l *waitlist, chosen *chosenTasks) {
	for w := l.first; w != nil; {
		op, next := w.owner.(*chanOp[T]), w.next
		if op.claim() {
			op.err = ErrClosed
			chosen.add(l.choose(w))
		}
		w = next
	}
}

// Closed reports whether Close has been called.
func (c *Chan[T]) Closed() bool {
	c.recvs.mu.Lock()
	defer c.recvs.mu.Unlock()
	return c.closed
}

// Len returns how many messages are held.
func (c *Chan[T]) Len() int {
	c.recvs.mu.Lock()
	defer c.recvs.mu.Unlock()
	return c.held.n
}

// Cap returns how many messages can be held; -1 if there is no limit.
func (c *Chan[T]) Cap() int { return max(c.limit, -1) }

// Waiting returns how many wait to send, permits included, and to receive.
func (c *Chan[T]) Waiting() (senders, receivers int) {
	c.recvs.mu.Lock()
	defer c.recvs.mu.Unlock()
	return c.sends.n, c.recvs.n
}

// What follows is called under the lock.
//
// Whoever comes looks first whether it can do without waiting, and only then joins
// a list. So if there is room nobody waits to send, and if there is a message
// nobody waits to receive, but for cases of a Select that has chosen another one
// and will leave the list by itself.

// send does what TrySend does.
func (c *Chan[T]) send(v T, chosen *chosenTasks) error {
	switch {
	case c.closed:
		return ErrClosed
	case c.hand(v, chosen):
	case c.hasRoom(), c.polledFor():
		c.held.push(v)
	default:
		return ErrFull
	}
	return nil
}

// polledFor reports whether a message may be held, although the channel holds
// none, because somebody polls for one: with PollNext and PollSend neither side
// waits for the other in a list.
func (c *Chan[T]) polledFor() bool { return c.limit == 0 && c.held.n == 0 && c.filled.waited() }

// hand gives v to a receiver that waits, if there is one.
func (c *Chan[T]) hand(v T, chosen *chosenTasks) bool {
	if c.held.n > 0 {
		return false
	}
	op := claimFirst[T](&c.recvs, opRecv)
	if op == nil {
		return false
	}
	op.v = v
	chosen.add(c.recvs.choose(&op.w))
	return true
}

// recv does what TryRecv does.
func (c *Chan[T]) recv(chosen *chosenTasks) (v T, err error) {
	if c.held.n > 0 {
		v = c.held.pop()
		c.admit(chosen)
		return v, nil
	}
	// If somebody waits to send the channel can hold nothing now: because that
	// is its capacity, or all places are promised.
	if op := claimFirst[T](&c.sends, opSend); op != nil {
		v, op.sent = op.v, true
		chosen.add(c.sends.choose(&op.w))
		return v, nil
	}
	if c.closed {
		return v, ErrClosed
	}
	return v, ErrEmpty
}

func (c *Chan[T]) hasRoom() bool { return c.limit < 0 || c.held.n+c.promised < c.limit }

// admit lets in those who wait to send, as far as there is room.
func (c *Chan[T]) admit(chosen *chosenTasks) {
	for c.hasRoom() && !c.closed {
		op := claimFirst[T](&c.sends, opAny)
		if op == nil {
			return
		}
		if op.kind == opReserve {
			c.promised++
		} else {
			c.held.push(op.v)
			op.sent = true
		}
		chosen.add(c.sends.choose(&op.w))
	}
}

// serve hands messages that are held to those who wait for them.
func (c *Chan[T]) serve(chosen *chosenTasks) {
	for c.held.n > 0 {
		op := claimFirst[T](&c.recvs, opRecv)
		if op == nil {
			return
		}
		op.v = c.held.pop()
		chosen.add(c.recvs.choose(&op.w))
		c.admit(chosen)
	}
}

// unlock ends an operation, and wakes those whom it concerns.
func (c *Chan[T]) unlock(chosen *chosenTasks) {
	filled := c.held.n > 0 || c.sends.n > 0 || c.closed
	emptied := c.hasRoom() || c.recvs.n > 0 || c.closed || c.polledFor()
	c.recvs.mu.Unlock()
	chosen.wake()
	if filled {
		c.filled.stir(nil)
	}
	if emptied {
		c.emptied.stir(nil)
	}
}

// match serves those who wait as far as that is possible. It is needed where
// somebody has joined a list without having looked: a case of a Select.
func (c *Chan[T]) match(chosen *chosenTasks) {
	c.serve(chosen)
	c.admit(chosen)
	c.serve(chosen)
	if c.closed {
		c.dismiss(&c.sends, chosen)
		if c.held.n == 0 {
			c.dismiss(&c.recvs, chosen)
		}
	}
	if c.held.n == 0 {
		c.pair(chosen)
	}
}

// pair hands over from one who waits to one who waits, where nothing can be held:
// of two Selects neither can do it alone.
func (c *Chan[T]) pair(chosen *chosenTasks) {
	for r := c.recvs.first; r != nil; r = r.next {
		for s := c.sends.first; s != nil; s = s.next {
			to, from := r.owner.(*chanOp[T]), s.owner.(*chanOp[T])
			if from.kind != opSend || to.sel != nil && to.sel == from.sel || !to.claim() {
				continue
			}
			if from.claim() {
				to.v, from.sent = from.v, true
				chosen.add(c.recvs.choose(r))
				chosen.add(c.sends.choose(s))
				return
			}
			if to.sel != nil {
				// Others may have passed it by meanwhile: it must look again.
				to.sel.decided.Store(0)
				chosen.add(to.w.t)
			}
		}
	}
}
