package async

import (
	"context"
	"io"
	"iter"
	"math"
)

// A Chan is a queue of messages between any number of senders and receivers, tasks and
// goroutines alike: a Go channel on which tasks can wait. NewChan returns a Chan of bounded
// capacity, NewUnboundedChan a Chan without a bound. The zero Chan has capacity 0. A Chan
// must not be copied. All its methods may be called by tasks and goroutines at the same
// time.
//
// Capacity 0 makes a rendezvous: Send returns once a Recv has the message, or waits for it
// and is bound to return it. Sender and receiver also meet if neither is bound, because
// each may yet do something else (Select, the futures, PollNext, TrySend).
// Then the sender may be done while the receiver turns to something else; the message waits
// for the next receiver.
//
// Messages are received in the order in which they were sent, and waiters are woken in the
// order in which they came. A caller that comes when a message or room is there takes it,
// also while others wait and have been woken for it. This happens at most 64 times in a
// row; after that the waiters are next. A waiter that has been woken 4 times and found
// nothing has the next message, or room, kept for it, however long it takes to come. Tasks
// that poll with PollNext have no place in that queue: all of them are woken
// when there is something to try for. ForceSend is not counted: it passes over the senders
// that wait in Send, however often it is called.
//
// Cancelling loses nothing. A message stays in the queue until it is received by a call
// that returns it; each call that sends says, by its error, whether it has.
type Chan[T any] struct {
	// recvs.list.mu guards everything; that of sends is not used.
	recvs, sends chanSide

	limit    int // the capacity; chanUnlimited without a bound
	ring     ringBuffer[T]
	offers   chanOffers[T] // the messages of the senders that wait in Send
	reserved int           // permits that are out
	closed   bool
}

// chanUnlimited leaves room to count with.
const chanUnlimited = math.MaxInt / 2

// The bounds of the doc comment above. The first is large enough to make the wake of a
// waiter worth it, and small enough to be over soon. It does not bound the wait of a task
// that is called on another worker and slow to come, while other waiters are called and
// served: the second does.
const (
	chanTurns = 64
	chanTries = 4
)

// chanSide is the waiters at one end of a channel.
//
// A waiter is woken to try for itself: it is taken off the list ("called") when there is
// something to try for, and no more waiters are called than there are messages, or room. A
// waiter that comes too late goes back to the front; a waiter that gives up passes its call
// on. So a message never leaves the queue for a task that might not want it anymore, and
// the order is kept whatever is cancelled. The exception is Send, which says whether it has
// sent: its message is moved to the queue for it, see chanOffers.
type chanSide struct {
	list      waitlist
	called    int       // how many waiters were called and have not tried yet
	promised  int       // for how many of these a message, or room, is kept
	firm      int       // how many of all waiters can be relied on: see the waiter's want
	overtaken int       // how many callers in a row went before the waiters
	polled    wakerSlot // the tasks that poll and have no place; changed under the lock
}

// The want of a waiter of a channel; that of a sender may also be an offer, which
// is positive.
const (
	chanLoose   int64 = 0  // may turn to something else when it is called
	chanFirm    int64 = 1  // a receiver that takes the message when it is called
	chanSent    int64 = -1 // a sender whose message has been moved to the queue
	chanRefused int64 = -2 // a sender whose channel was closed
)

// NewChan returns a channel with room for n messages, and for one more for each
// receiver that waits; 0 makes a rendezvous. It panics if n is negative.
func NewChan[T any](n int) *Chan[T] {
	if n < 0 {
		panic("async: NewChan: the capacity is negative")
	}
	return &Chan[T]{limit: min(n, chanUnlimited-1)}
}

// NewUnboundedChan returns a channel for which there is always room.
func NewUnboundedChan[T any]() *Chan[T] { return &Chan[T]{limit: chanUnlimited} }

func (c *Chan[T]) lock()   { c.recvs.list.mu.Lock() }
func (c *Chan[T]) unlock() { c.recvs.list.mu.Unlock() }

// callWaitersAndUnlock ends a change: it calls the waiters for which there is a message, or
// room, now. from is the worker on whose thread the caller runs, or nil.
func (c *Chan[T]) callWaitersAndUnlock(from *worker) {
	if !c.recvs.uncalled() && !c.sends.uncalled() {
		c.unlock()
		return
	}
	var wakes chosenTasks
	c.callWaiters(&wakes)
	c.unlock()
	wakes.wakeFrom(from)
}

// callWaiters calls receivers as far as there are messages, and senders as far as there
// is room.
func (c *Chan[T]) callWaiters(wakes *chosenTasks) {
	if c.closed {
		c.callClosed(wakes)
		return
	}
	for w := c.sends.list.first; w != nil; w = c.sends.list.first {
		if offered := w.want > 0; c.room(offered) <= c.sends.called {
			break
		} else if offered {
			c.ring.push(c.take(w))
			wakes.add(c.sends.list.choose(w))
		} else {
			wakes.add(c.sends.call(w))
		}
	}
	c.callReceivers(wakes)
}

func (c *Chan[T]) callReceivers(wakes *chosenTasks) {
	for w := c.recvs.list.first; w != nil && c.ready() > c.recvs.called; w = c.recvs.list.first {
		wakes.add(c.recvs.call(w))
	}
	if c.ready() > c.recvs.promised && c.recvs.open() {
		wakes.add(c.recvs.polled.takeAllTasks())
	}
}

// callClosed calls all senders, to be refused, and all receivers if no message will come
// anymore.
func (c *Chan[T]) callClosed(wakes *chosenTasks) {
	for w := c.sends.list.first; w != nil; w = c.sends.list.first {
		if w.want > 0 {
			c.take(w)
			w.want = chanRefused
			wakes.add(c.sends.list.choose(w))
		} else {
			wakes.add(c.sends.call(w))
		}
	}
	if !c.closedAndEmpty() {
		c.callReceivers(wakes)
		return
	}
	for w := c.recvs.list.first; w != nil; w = c.recvs.list.first {
		wakes.add(c.recvs.call(w))
	}
	wakes.add(c.recvs.polled.takeAllTasks())
}

// room returns for how many messages there is room: the capacity, and one more for each
// receiver that waits, since the message of such a receiver does not stay. At a rendezvous
// the waiting receivers are all the room, and a firm sender, which can wait, counts firm
// receivers only.
func (c *Chan[T]) room(firm bool) int {
	n := c.limit - c.ring.n - c.reserved
	switch {
	case c.limit > 0:
		return n + c.recvs.waiting()
	case firm:
		return n + c.recvs.firm
	case c.recvs.polled.p.Load() != nil:
		return n + c.recvs.waiting() + 1
	}
	return n + c.recvs.waiting()
}

// ready returns how many messages, at least, can be received at once. At a rendezvous this
// includes the first message that is offered.
func (c *Chan[T]) ready() int {
	if c.limit == 0 {
		if w := c.sends.list.first; w != nil && w.want > 0 {
			return c.ring.n + 1
		}
	}
	return c.ring.n
}

// closedAndEmpty reports whether no message will ever be received anymore.
func (c *Chan[T]) closedAndEmpty() bool { return c.closed && c.ring.n == 0 && c.reserved == 0 }

func (s *chanSide) waiting() int { return s.list.n + s.called }

// uncalled reports whether a waiter has not been called.
func (s *chanSide) uncalled() bool { return s.list.first != nil || s.polled.p.Load() != nil }

// open reports whether a caller that has not waited may go first.
func (s *chanSide) open() bool { return s.overtaken < chanTurns || s.waiting() == 0 }

// overtake is open for a caller that goes first if it may; it counts that.
func (s *chanSide) overtake() bool {
	switch {
	case s.waiting() == 0:
		s.overtaken = 0
	case s.overtaken >= chanTurns:
		return false
	default:
		s.overtaken++
	}
	return true
}

// call takes w off the list to try for itself, and returns the task to wake.
func (s *chanSide) call(w *waiter) *task {
	s.called++
	if w.passed >= chanTries {
		s.promised++
	}
	return s.list.choose(w)
}

// answer is called when w tries, or is given up, after a call.
func (s *chanSide) answer(w *waiter) {
	s.called--
	if w.passed >= chanTries {
		s.promised--
	}
}

// served notes that a waiter was served.
func (s *chanSide) served() { s.overtaken = 0 }

// rejoin puts w in the list, in front if it had been called and found nothing.
func (s *chanSide) rejoin(w *waiter, t *task) {
	if w.phase == waiterChosen {
		w.passed++
		s.list.joinFirst(w, t)
	} else {
		s.list.join(w, t)
	}
}

// chanOffers is the messages of the senders that wait in Send, so that a receiver can move
// a message to the queue when it makes room. A waiter's want is the place of its message
// here, counted from 1.
//
// Waiters know these places, so the memory of many messages is given back only when the
// last message has gone.
type chanOffers[T any] struct {
	vals []T
	free []int32
}

func (o *chanOffers[T]) put(v T) int64 {
	if n := len(o.free); n > 0 {
		i := o.free[n-1]
		o.free = o.free[:n-1]
		o.vals[i] = v
		return int64(i) + 1
	}
	o.vals = append(o.vals, v)
	return int64(len(o.vals))
}

func (o *chanOffers[T]) take(want int64) (v T) {
	i := int32(want - 1)
	var zero T
	v, o.vals[i] = o.vals[i], zero
	o.free = append(o.free, i)
	if n := len(o.vals); n > ringBufferKept && len(o.free) == n {
		*o = chanOffers[T]{}
	}
	return v
}

// take takes the message that w offers, and notes that it was sent.
func (c *Chan[T]) take(w *waiter) T {
	v := c.offers.take(w.want)
	w.want = chanSent
	c.sends.served()
	return v
}

// pull receives a message without waiting. turn says that the caller was called for it. At
// a rendezvous the message may be the offer of a waiting sender, whose task is added to
// wakes. The lock is held.
func (c *Chan[T]) pull(turn bool, wakes *chosenTasks) (v T, ok bool) {
	if c.ready() <= c.recvs.promised || !turn && !c.recvs.overtake() {
		return v, false
	}
	if turn {
		c.recvs.served()
	}
	if c.ring.n > 0 {
		v = c.ring.pop()
		if c.limit == chanUnlimited {
			c.ring.shrink()
		}
		return v, true
	}
	w := c.sends.list.first
	v = c.take(w)
	wakes.add(c.sends.list.choose(w))
	return v, true
}

// takeRoom takes room for one message without waiting; see pull.
func (c *Chan[T]) takeRoom(turn, firm bool) (ok bool) {
	if c.room(firm) <= c.sends.promised || !turn && !c.sends.overtake() {
		return false
	}
	if turn {
		c.sends.served()
	}
	return true
}

// pullOnce is pull for a caller that will not wait. It fails with ErrClosed or ErrEmpty.
func (c *Chan[T]) pullOnce(from *worker) (v T, err error) {
	c.lock()
	if c.ring.n > c.recvs.promised && !c.closed && !c.sends.uncalled() && c.recvs.overtake() {
		v = c.ring.pop() // the usual case: no waiter is called
		if c.limit == chanUnlimited {
			c.ring.shrink()
		}
		c.unlock()
		return v, nil
	}
	return c.pullAndUnlock(from)
}

func (c *Chan[T]) pullAndUnlock(from *worker) (v T, err error) {
	var wakes chosenTasks
	v, ok := c.pull(false, &wakes)
	switch {
	case ok:
		c.callWaiters(&wakes)
	case c.closedAndEmpty():
		err = ErrClosed
	default:
		err = ErrEmpty
	}
	c.unlock()
	wakes.wakeFrom(from)
	return v, err
}

// pushOnce sends v for a caller that will not wait. It returns nil, ErrClosed or ErrFull.
func (c *Chan[T]) pushOnce(from *worker, v T, firm bool) error {
	c.lock()
	if c.limit-c.ring.n-c.reserved > c.sends.promised && !c.closed && !c.recvs.uncalled() && c.sends.overtake() {
		c.ring.push(v) // the usual case: no waiter is called
		c.unlock()
		return nil
	}
	return c.pushAndUnlock(from, v, firm)
}

func (c *Chan[T]) pushAndUnlock(from *worker, v T, firm bool) error {
	if c.closed {
		c.unlock()
		return ErrClosed
	}
	if !c.takeRoom(false, firm) {
		c.unlock()
		return ErrFull
	}
	c.ring.push(v)
	c.callWaitersAndUnlock(from)
	return nil
}

// pollRecv receives for a caller that waits with w; want is chanFirm or chanLoose.
func (c *Chan[T]) pollRecv(cx *Context, w *waiter, want int64) (v T, err error) {
	from := cx.here()
	t := cx.waker(waitsRecv)
	var wakes chosenTasks
	c.lock()
	turn := w.phase == waiterChosen
	if turn {
		c.recvs.answer(w)
	}
	ok := false
	if w.phase != waiterIn {
		v, ok = c.pull(turn, &wakes)
	}
	switch {
	case ok:
		c.leaveRecvs(w)
	case c.closedAndEmpty():
		c.leaveRecvs(w)
		err = ErrClosed
	default:
		if w.phase == waiterOut {
			w.want = want
			c.recvs.firm += int(want)
		}
		c.recvs.rejoin(w, t)
		err = ErrPending
	}
	c.callWaiters(&wakes)
	c.unlock()
	wakes.wakeFrom(from)
	return v, err
}

// leaveRecvs takes w out. If w had been called, the caller has accounted for that (answer).
func (c *Chan[T]) leaveRecvs(w *waiter) {
	if w.phase != waiterOut {
		c.recvs.firm -= int(w.want)
		c.recvs.list.leave(w)
	}
}

// cancelRecv gives up w's place. At a rendezvous there may be a message that was sent
// because w was waiting, and for which no other firm receiver waits: with keep set, the
// caller gets this message.
func (c *Chan[T]) cancelRecv(from *worker, w *waiter, keep bool) (v T, ok bool) {
	c.lock()
	if w.phase == waiterOut {
		c.unlock()
		return v, false
	}
	if w.phase == waiterChosen {
		c.recvs.answer(w)
	}
	c.leaveRecvs(w)
	if keep && c.limit == 0 && c.ring.n > c.recvs.firm {
		v, ok = c.ring.pop(), true
	}
	c.callWaitersAndUnlock(from)
	return v, ok
}

// pollSend sends v, or makes a permit of the room, for a caller that waits with w. A firm
// sender waits until it knows the outcome: it leaves its message as an offer.
func (c *Chan[T]) pollSend(cx *Context, w *waiter, v T, how sendKind) error {
	from := cx.here()
	t := cx.waker(waitsSend)
	c.lock()
	if w.phase == waiterChosen && w.want == chanSent {
		c.sends.list.leave(w)
		c.unlock()
		return nil
	}
	turn := w.phase == waiterChosen && w.want == chanLoose
	if turn {
		c.sends.answer(w)
	}
	var err error
	switch {
	case c.closed:
		c.sends.list.leave(w)
		err = ErrClosed
	case w.phase != waiterIn && c.takeRoom(turn, how == sendFirm):
		c.sends.list.leave(w)
		c.put(v, how)
	default:
		if w.phase == waiterOut {
			w.want = chanLoose
			if how == sendFirm {
				w.want = c.offers.put(v)
			}
		}
		c.sends.rejoin(w, t)
		err = ErrPending
	}
	c.callWaitersAndUnlock(from)
	return err
}

// sendKind says what pollSend does.
type sendKind uint8

const (
	sendFirm    sendKind = iota // send, and offer the message meanwhile
	sendLoose                   // send when polled, and not otherwise
	sendReserve                 // make a permit, when polled
)

// put uses the room that takeRoom has taken.
func (c *Chan[T]) put(v T, how sendKind) {
	if how == sendReserve {
		c.reserved++
	} else {
		c.ring.push(v)
	}
}

// cancelSend gives up w's place. It returns ErrPending if there was no outcome by then, and
// else the outcome: nil if the message was sent, ErrClosed if it was refused.
func (c *Chan[T]) cancelSend(from *worker, w *waiter) error {
	c.lock()
	outcome := ErrPending
	switch {
	case w.phase == waiterIn && w.want > 0:
		c.offers.take(w.want)
	case w.phase != waiterChosen:
	case w.want == chanLoose:
		c.sends.answer(w)
	case w.want == chanSent:
		outcome = nil
	case w.want == chanRefused:
		outcome = ErrClosed
	}
	c.sends.list.leave(w)
	c.callWaitersAndUnlock(from)
	return outcome
}

// Recv waits for a message and returns it. It fails with ErrClosed once the channel
// is closed and all messages have been received, and with cx.Err() if cx is
// cancelled, which loses nothing. (At a rendezvous, a Recv that is cancelled when
// a Send has just found it waiting returns the message.)
func (c *Chan[T]) Recv(cx *Context) (T, error) {
	if w, ok := cx.quick(); ok {
		if v, err := c.pullOnce(w); err != ErrEmpty {
			return v, err
		}
	}
	return c.recvSlow(cx)
}

func (c *Chan[T]) recvSlow(cx *Context) (v T, err error) {
	t := cx.beginAwait()
	w, over := t.ownWaiter(), false
	defer func() {
		if !over {
			c.cancelRecv(nil, w, false) // Shutdown unwinds the code
		}
	}()
	for cx.proceed(t) {
		if v, err = c.pollRecv(cx, w, chanFirm); err != ErrPending {
			over = true
			return v, err
		}
		t.wait()
	}
	over = true
	if v, ok := c.cancelRecv(cx.here(), w, true); ok {
		return v, nil
	}
	return v, cx.Err()
}

// Send waits until there is room for v and sends it. It has done so if it returns
// nil, also if cx was cancelled meanwhile; with any other error v has not been
// sent: ErrClosed if the channel is or becomes closed, cx.Err() if cx is cancelled.
func (c *Chan[T]) Send(cx *Context, v T) error {
	if w, ok := cx.quick(); ok {
		if err := c.pushOnce(w, v, true); err != ErrFull {
			return err
		}
	}
	return c.sendSlow(cx, v, sendFirm)
}

func (c *Chan[T]) sendSlow(cx *Context, v T, how sendKind) error {
	t := cx.beginAwait()
	w, over := t.ownWaiter(), false
	defer func() {
		if !over {
			c.cancelSend(nil, w) // Shutdown unwinds the code
		}
	}()
	for cx.proceed(t) {
		if err := c.pollSend(cx, w, v, how); err != ErrPending {
			over = true
			return err
		}
		t.wait()
	}
	over = true
	if err := c.cancelSend(cx.here(), w); err != ErrPending {
		return err
	}
	return cx.Err()
}

// TryRecv receives a message if there is one. It fails with ErrEmpty if there is no
// message, and with ErrClosed if none will come. At a rendezvous it takes the message of a
// sender that waits in Send or SendBlocking. It also fails with ErrEmpty if the messages
// are kept for waiting receivers that are next; see Chan.
func (c *Chan[T]) TryRecv() (T, error) { return c.pullOnce(nil) }

// TrySend sends v if there is room, at a rendezvous if a receiver waits. It fails with
// ErrFull if not, also if the room is kept for waiting senders that are next, and with
// ErrClosed if the channel is closed.
func (c *Chan[T]) TrySend(v T) error { return c.pushOnce(nil, v, false) }

// ForceSend sends v without waiting: if there is no room it takes out the oldest message,
// and returns it with displaced set. If there is no message either, because no receiver
// waits at a rendezvous or because all the room is reserved, it returns v itself. It fails
// only with ErrClosed. It passes over the waiting senders.
func (c *Chan[T]) ForceSend(v T) (old T, displaced bool, err error) {
	c.lock()
	switch {
	case c.closed:
		err = ErrClosed
	case c.room(false) > c.sends.promised:
		c.ring.push(v)
	case c.ring.n > 0:
		old, displaced = c.ring.pop(), true
		c.ring.push(v)
	default:
		old, displaced = v, true
	}
	c.callWaitersAndUnlock(nil)
	return old, displaced, err
}

// PollNext receives a message. It returns ErrPending if there is no message: cx's task is
// woken when there may be one. At the end of the messages, when Recv fails with ErrClosed, it
// returns io.EOF: so a Chan is a Stream. It keeps no place in the queue, so no message goes
// astray if the task does not poll again. But the channel knows the task until the next
// message, and each message wakes all tasks that poll; where many tasks poll, RecvFuture is
// better.
func (c *Chan[T]) PollNext(cx *Context) (v T, err error) {
	if !cx.spend() {
		return v, ErrPending
	}
	t := cx.waker(waitsRecv)
	var wakes chosenTasks
	c.lock()
	v, ok := c.pull(false, &wakes)
	switch {
	case ok:
	case c.closedAndEmpty():
		err = io.EOF
	default:
		c.recvs.polled.join(t)
		err = ErrPending
	}
	c.callWaiters(&wakes)
	c.unlock()
	wakes.wakeFrom(cx.here())
	return v, cx.unspent(err)
}

// abandoned implements abandoner.
func (c *Chan[T]) abandoned(t *task, from *worker) {
	c.lock()
	left := c.recvs.polled.remove(t)
	c.unlock()
	if left {
		t.wake(from)
	}
}

// All returns the messages that Recv returns, for range. The loop ends when the channel is
// closed and empty. If cx is cancelled the last element has the error of cx, and loses no
// message.
func (c *Chan[T]) All(cx *Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			v, err := c.Recv(cx)
			if err == ErrClosed || !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// RecvBlocking is Recv for a goroutine outside the pool, which it parks; ctx
// cancels it. It panics in tasks.
func (c *Chan[T]) RecvBlocking(ctx context.Context) (v T, err error) {
	mustNotBlock("Chan.RecvBlocking", "c.Recv(cx)")
	if err := ctx.Err(); err != nil {
		return v, err
	}
	if v, err := c.pullOnce(nil); err != ErrEmpty {
		return v, err
	}
	p := takeParker()
	defer p.free()
	for {
		if v, err = c.pollRecv(&p.cx, &p.own, chanFirm); err != ErrPending {
			return v, err
		}
		if err := p.park(ctx); err != nil {
			if v, ok := c.cancelRecv(nil, &p.own, true); ok {
				return v, nil
			}
			return v, err
		}
	}
}

// SendBlocking is Send for a goroutine outside the pool, which it parks; ctx
// cancels it. It panics in tasks.
func (c *Chan[T]) SendBlocking(ctx context.Context, v T) error {
	mustNotBlock("Chan.SendBlocking", "c.Send(cx, v)")
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.pushOnce(nil, v, true); err != ErrFull {
		return err
	}
	return c.sendBlocking(ctx, v, sendFirm)
}

func (c *Chan[T]) sendBlocking(ctx context.Context, v T, how sendKind) error {
	p := takeParker()
	defer p.free()
	for {
		if err := c.pollSend(&p.cx, &p.own, v, how); err != ErrPending {
			return err
		}
		if err := p.park(ctx); err != nil {
			if err := c.cancelSend(nil, &p.own); err != ErrPending {
				return err
			}
			return err
		}
	}
}

// Close closes the channel: a call that sends, or waits to send, fails with ErrClosed.
// Messages that were sent before can still be received, and messages for which there is a
// Permit can still be sent; after that, receivers fail with ErrClosed. A second Close
// returns ErrClosed.
func (c *Chan[T]) Close() error {
	c.lock()
	first := !c.closed
	c.closed = true
	c.callWaitersAndUnlock(nil)
	return closedNow(first)
}

// IsClosed reports whether the channel was closed. There may still be messages.
func (c *Chan[T]) IsClosed() bool {
	c.lock()
	defer c.unlock()
	return c.closed
}

// Len returns how many messages have been sent and not been received. It leaves out the
// messages that are on their way to receivers beside a full queue.
func (c *Chan[T]) Len() int {
	c.lock()
	defer c.unlock()
	return min(c.ring.n, c.limit)
}

// Cap returns the capacity, -1 if there is no bound.
func (c *Chan[T]) Cap() int {
	if c.limit == chanUnlimited {
		return -1
	}
	return c.limit
}

// waitingCounts returns how many callers wait to send and how many wait to receive; tasks that
// poll with PollNext are not counted.
func (c *Chan[T]) waitingCounts() (senders, receivers int) {
	c.lock()
	defer c.unlock()
	return c.sends.waiting(), c.recvs.waiting()
}
