package async

import (
	"context"
	"io"
	"iter"
	"math"
)

// A Chan is a queue of messages between any number of senders and receivers: a Go channel on which
// tasks can wait, and goroutines too. [NewChan] makes a Chan of bounded capacity,
// [NewUnboundedChan] a Chan without a bound. The zero Chan has capacity 0 and is ready for use. A
// Chan must not be copied. Its methods are safe for concurrent use by tasks and goroutines.
//
// A Chan of capacity 0 is a rendezvous. [Chan.Send] returns once a receiver has the message, or
// once a [Chan.Recv] waits that is bound to return it. A receiver that waits in another way is not
// bound: it may turn to something else, for example in a [Select] with several cases. Send does not
// rely on such a receiver. [Chan.TrySend], the futures and the cases do: they may return while the
// receiver turns away. The message then stays in the channel for the next receiver.
//
// Messages are received in the order in which they were sent. Waiters are woken in FIFO order. A
// caller that arrives while a message or room is available takes it, even if a waiter has just been
// woken for it. This happens at most 64 times in a row; after that the waiters are next. If a
// waiter has been woken 4 times and has found nothing, the channel keeps the next message, or room,
// until this waiter tries again. There are three exceptions:
//
//   - Waiters that were woken together and have found nothing may change places.
//   - Tasks that poll with [Chan.PollNext] have no place in the queue of receivers. All of them are
//     woken when there may be a message.
//   - [Chan.ForceSend] is not counted. It goes before the waiting senders, however often it is
//     called.
//
// Cancelling loses no message. A message stays in the queue until a call returns it. The error of a
// call that sends says whether the message was sent.
type Chan[T any] struct {
	// recvs.list.mu guards everything; that of sends is not used.
	recvs, sends chanSide

	limit  int           // the capacity; chanUnlimited without a bound
	ring   ringBuffer[T] // the messages that have been sent and not received
	offers chanOffers[T] // the messages of the senders that wait in Send
	// the permits that are out: neither used nor released. Each takes room for one message
	reserved int
	closed   bool
}

// chanUnlimited is the limit of a Chan without a bound. It is half of the largest int, so that the
// sums in room cannot overflow.
const chanUnlimited = math.MaxInt / 2

// The two bounds on overtaking; see [Chan].
//
// chanTurns is how many callers in a row may overtake the waiters. It is large enough to make the
// wake of a waiter worth its cost, and small enough to be reached soon. It does not bound how long
// one waiter waits: while a task is slow to run on another worker, other waiters are called and
// served. chanTries bounds this: it is how often a waiter may be woken and find nothing.
const (
	chanTurns = 64
	chanTries = 4
)

// chanSide is the waiters at one end of a channel: the senders or the receivers.
//
// A waiter is woken to try for itself. No message leaves the queue for a task that may no longer
// want it, so cancelling neither loses a message nor changes the order of messages. The protocol
// for receivers is below. It is the same for senders, with room in place of messages, except for
// the offers of Send (see chanOffers).
//
//  1. A caller that finds no message joins the list (rejoin).
//  2. Every change of the channel ends with callWaiters, in the same critical section. While there
//     are more messages than called receivers, callWaiters calls the first waiter: it takes it off
//     the list and counts it in called. The tasks are woken after the unlock.
//  3. The called waiter is polled. It ends its call (answer) and tries to take a message (pull).
//  4. If a caller that arrived meanwhile has taken the message, the waiter goes back to the front
//     of the list (rejoin). Two waiters that go back at the same time may change places.
//  5. A waiter that gives up ends its call, too (cancelRecv, cancelSend). callWaiters then sees one
//     called receiver less, and calls the next waiter. So the call is passed on.
//
// While the lock is free and the channel is open, these invariants hold:
//
//   - The list of receivers is empty, or recvs.called >= ready().
//   - The list of senders is empty, or sends.called >= room for the first sender in it.
//
// So a waiter does not sleep while there is a message, or room, that no called waiter will look at.
// The short ways of pullOnce and pushOnce leave out callWaiters only if no waiter could be called.
//
// Overtaking is bounded in two ways. overtaken counts the callers in a row that took a message
// while receivers waited; at chanTurns such a caller finds nothing (overtake). The call of a waiter
// that has failed chanTries times is a promise: every other caller, called or not, leaves one
// message for each promise (pull).
type chanSide struct {
	list      waitlist // the waiters that are not called, in FIFO order
	called    int      // how many waiters were called and have not tried yet; not in the list
	promised  int      // for how many of the called waiters a message, or room, is kept
	firm      int      // of recvs: how many waiters, called or not, have the want chanFirm
	overtaken int      // how many callers in a row went before the waiters
	// of recvs only: the tasks to which PollNext has returned ErrPending, and which have no place in
	// list. recvs.list.mu guards it
	polled wakerSlot
}

// Values of waiter.want in a channel. For a sender that waits in Send, want is the place of its
// offer, which is positive (see chanOffers), until it becomes chanSent or chanRefused. Only receivers
// have chanFirm, so it is never taken for a place.
const (
	chanLoose   int64 = 0  // a receiver or sender that may turn to something else when it is called
	chanFirm    int64 = 1  // a receiver in Recv: it returns a message sent because it waits
	chanSent    int64 = -1 // a sender whose offer has been moved to the queue, or received
	chanRefused int64 = -2 // a sender whose channel was closed before its offer was taken
)

// NewChan returns a channel of capacity n: it has room for n messages, and for one more for each
// receiver that waits. Capacity 0 makes a rendezvous; see [Chan]. NewChan panics if n is negative.
func NewChan[T any](n int) *Chan[T] {
	if n < 0 {
		panic("async: NewChan: the capacity is negative")
	}
	return &Chan[T]{limit: min(n, chanUnlimited-1)}
}

// NewUnboundedChan returns a channel that always has room. Sends on it never wait, so the messages
// of fast senders use memory without a bound.
func NewUnboundedChan[T any]() *Chan[T] { return &Chan[T]{limit: chanUnlimited} }

func (c *Chan[T]) lock()   { c.recvs.list.mu.Lock() }
func (c *Chan[T]) unlock() { c.recvs.list.mu.Unlock() }

// callWaitersAndUnlock ends a change of the channel: it calls the waiters for which there is a
// message or room now, unlocks, and wakes their tasks. from is the worker on whose thread the
// caller runs, or nil.
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

// callWaiters restores the invariants of chanSide after a change. While there is more room than
// called senders, it serves the first sender: it calls the sender, or moves the offer of the sender
// to the queue, which ends the Send. While there are more messages than called receivers, it calls
// the first receiver. The senders are first, since an offer that is moved to the queue is a message
// for a receiver. For a closed channel see callClosed. The caller wakes the tasks in wakes after
// the unlock.
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

// callReceivers calls receivers while there are more messages than called receivers. It also wakes
// all tasks that wait in PollNext, if one of them could take a message now. These tasks are not
// counted in called: a task that does not poll again keeps no message from the waiters.
func (c *Chan[T]) callReceivers(wakes *chosenTasks) {
	for w := c.recvs.list.first; w != nil && c.ready() > c.recvs.called; w = c.recvs.list.first {
		wakes.add(c.recvs.call(w))
	}
	if c.ready() > c.recvs.promised && c.recvs.open() {
		wakes.add(c.recvs.polled.takeAllTasks())
	}
}

// callClosed is callWaiters for a closed channel. It refuses all offers and calls all other
// senders, which then fail with ErrClosed. It calls receivers for the messages that are left; if no
// message is left and no permit is out, it calls all receivers, and they fail with ErrClosed.
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

// room returns for how many messages there is room, including the room that called senders have not
// taken yet. It is the capacity, less the messages in the queue and the permits that are out, and
// one more for each receiver that waits, since the message of such a receiver does not stay in the
// queue. So the queue may hold more messages than the capacity for a moment.
//
// At a rendezvous the waiting receivers are all the room. A message is put into the queue only if a
// receiver waits for it:
//
//  1. A receiver that waits in Recv is firm: it returns the message that was sent because it waits,
//     even if it is cancelled (step 5). A receiver that waits with a future or a case is loose.
//  2. Send counts firm receivers only (firm is set). If there is a firm receiver without a message,
//     Send puts its message into the queue and returns, and the receiver is called. If not, Send
//     leaves its message as an offer and waits.
//  3. A receiver that tries while the queue is empty takes the first offer itself (pull). This ends
//     the Send. ready counts the first offer as a message, so a loose receiver is called for it.
//     For a firm receiver that waits, callWaiters moves the offer to the queue.
//  4. Every other sender counts all receivers that wait, and one more if tasks wait in PollNext. If
//     such a receiver turns away, the message stays in the queue for the next receiver.
//  5. A Recv that is cancelled leaves the list. If there are now more messages in the queue than
//     firm receivers, a Send may have relied on this Recv. So the Recv takes a message and returns
//     it in place of cx.Err() (cancelRecv with keep set). Without this, Send would have returned
//     nil for a message that no receiver has.
//
// There is one exception to step 5: if Shutdown unwinds the Recv, the message stays in the queue.
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

// ready returns how many messages, at least, can be received at once. At a rendezvous this includes
// the first offer, but not the offers behind it: the receiver that takes the first offer calls the
// next receiver for the next one.
func (c *Chan[T]) ready() int {
	if c.limit == 0 {
		if w := c.sends.list.first; w != nil && w.want > 0 {
			return c.ring.n + 1
		}
	}
	return c.ring.n
}

// closedAndEmpty reports whether no more messages will ever be received. A permit that is out may
// still send one.
func (c *Chan[T]) closedAndEmpty() bool { return c.closed && c.ring.n == 0 && c.reserved == 0 }

// waiting returns how many waiters there are, called or not.
func (s *chanSide) waiting() int { return s.list.n + s.called }

// uncalled reports whether there is a waiter that is not called, or a task that waits in PollNext.
func (s *chanSide) uncalled() bool { return s.list.first != nil || s.polled.p.Load() != nil }

// open reports whether a caller that has not waited may go before the waiters.
func (s *chanSide) open() bool { return s.overtaken < chanTurns || s.waiting() == 0 }

// overtake reports what the method open reports. If that is true, the caller takes a message, or
// room, at once, so overtake also counts it in overtaken; if no waiter waits, overtaken becomes 0.
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

// call takes w off the list to try for itself, and returns the task to wake. If w has failed
// chanTries times, a message, or room, is kept for it from now on.
func (s *chanSide) call(w *waiter) *task {
	s.called++
	if w.passed >= chanTries {
		s.promised++
	}
	return s.list.choose(w)
}

// answer ends the call of w, which tries now or is given up. It also ends the promise of call: w
// itself may take the message that was kept for it.
func (s *chanSide) answer(w *waiter) {
	s.called--
	if w.passed >= chanTries {
		s.promised--
	}
}

// served notes that a waiter was served: callers may overtake again.
func (s *chanSide) served() { s.overtaken = 0 }

// rejoin puts w into the list, or leaves it there with t as the task to wake. A waiter that was
// called and found nothing goes to the front.
func (s *chanSide) rejoin(w *waiter, t *task) {
	if w.phase == waiterChosen {
		w.passed++
		s.list.joinFirst(w, t)
	} else {
		s.list.join(w, t)
	}
}

// chanOffers is the messages of the senders that wait in Send. Such a sender does not try for
// itself. The caller that makes room moves the message to the queue for it (callWaiters), and a
// receiver at a rendezvous takes it (pull). The sender then finds the outcome in its waiter's want:
// chanSent, or chanRefused if the channel was closed. A sender that is cancelled takes its offer
// back, or returns the outcome if there is one (cancelSend). So Send always reports whether the
// message was sent, and needs one wake only.
//
// The want of a waiter is the place of its message in vals, counted from 1. Since waiters refer to
// places, vals cannot be compacted: the memory of many messages is released when the last message
// has been taken.
type chanOffers[T any] struct {
	vals []T
	free []int32 // the places in vals that are not used
}

// put stores v and returns its place, counted from 1.
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

// take removes and returns the message at the place want.
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

// take removes and returns the message that w offers, and notes in w that it was sent. The caller
// chooses w, so that its Send returns.
func (c *Chan[T]) take(w *waiter) T {
	v := c.offers.take(w.want)
	w.want = chanSent
	c.sends.served()
	return v
}

// pull receives a message without waiting. turn says that the caller was called for it. At a
// rendezvous the message may be the offer of the first sender, whose task is added to wakes. The
// lock is held.
//
// pull fails if all messages are promised to other waiters, or if the caller was not called and may
// not overtake. At a rendezvous a message in the queue is older than every offer, so it is first.
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

// takeRoom takes room for one message without waiting, under the same conditions as pull. The
// caller uses the room before it unlocks.
func (c *Chan[T]) takeRoom(turn, firm bool) (ok bool) {
	if c.room(firm) <= c.sends.promised || !turn && !c.sends.overtake() {
		return false
	}
	if turn {
		c.sends.served()
	}
	return true
}

// pullOnce is pull for a caller that does not wait. It fails with ErrClosed or ErrEmpty.
//
// The short way leaves out callWaiters. Removing a message makes room, so only a sender could be
// called, and no sender is uncalled. A closed channel takes the long way, since its last message
// ends the wait of all receivers.
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

// pullAndUnlock is the long way of pullOnce.
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

// pushOnce sends v for a caller that does not wait. It returns nil, ErrClosed or ErrFull.
//
// The short way leaves out callWaiters. Adding a message can call receivers only, and no receiver
// is uncalled. It counts the rest of the capacity and not the waiting receivers, so it never serves
// a rendezvous.
func (c *Chan[T]) pushOnce(from *worker, v T, firm bool) error {
	c.lock()
	if c.limit-c.ring.n-c.reserved > c.sends.promised && !c.closed && !c.recvs.uncalled() && c.sends.overtake() {
		c.ring.push(v) // the usual case: no waiter is called
		c.unlock()
		return nil
	}
	return c.pushAndUnlock(from, v, firm)
}

// pushAndUnlock is the long way of pushOnce.
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

// pollRecv receives for a caller that waits with w; want is chanFirm or chanLoose. A waiter that is
// in the list was polled without having been called: it does not try, since it would overtake the
// waiters before it.
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
		// This is the first poll of the wait.
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

// leaveRecvs ends the wait of w. If w was called, the caller has ended this call (answer).
func (c *Chan[T]) leaveRecvs(w *waiter) {
	if w.phase != waiterOut {
		c.recvs.firm -= int(w.want)
		c.recvs.list.leave(w)
	}
}

// cancelRecv gives up the place of w. If w was called, callWaiters passes the call on. keep is set
// for a cancelled Recv at a rendezvous: if the queue now holds more messages than there are firm
// receivers, cancelRecv returns a message, which the caller must return; see room, step 5.
func (c *Chan[T]) cancelRecv(from *worker, w *waiter, keep bool) (v T, ok bool) {
	c.lock()
	if w.phase == waiterOut { // it has not waited
		c.unlock()
		return v, false
	}
	if w.phase == waiterChosen { // end the call: callWaiters passes it on
		c.recvs.answer(w)
	}
	c.leaveRecvs(w)
	if keep && c.limit == 0 && c.ring.n > c.recvs.firm {
		v, ok = c.ring.pop(), true
	}
	c.callWaitersAndUnlock(from)
	return v, ok
}

// pollSend sends v, or takes room for a permit, for a caller that waits with w. It returns
// ErrPending until the outcome is known. With sendFirm the message is an offer while the caller
// waits; then only other callers end the wait, by taking the offer or by closing the channel.
func (c *Chan[T]) pollSend(cx *Context, w *waiter, v T, how sendKind) error {
	from := cx.here()
	t := cx.waker(waitsSend)
	c.lock()
	// The offer was taken. So the message was sent, even if the channel was closed in the meantime.
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
		// This is the first poll of the wait. Later polls of a Send leave its offer as it is.
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

// sendKind is how pollSend sends.
type sendKind uint8

const (
	sendFirm    sendKind = iota // for Send: the message is an offer meanwhile
	sendLoose                   // for a future or a case: it sends when it is polled, and only then
	sendReserve                 // takes room for a permit, when it is polled
)

// put uses the room that takeRoom has granted. It adds v to the queue or, with sendReserve, adds a
// permit.
func (c *Chan[T]) put(v T, how sendKind) {
	if how == sendReserve {
		c.reserved++
	} else {
		c.ring.push(v)
	}
}

// cancelSend gives up the place of w. If there is an outcome already it returns this: nil if the
// message was sent, ErrClosed if it was refused. Otherwise the message was not sent and will not
// be, and cancelSend returns ErrPending.
func (c *Chan[T]) cancelSend(from *worker, w *waiter) error {
	c.lock()
	outcome := ErrPending
	switch {
	case w.phase == waiterIn && w.want > 0: // it waits in Send: the offer is taken back
		c.offers.take(w.want)
	case w.phase != waiterChosen: // it has not been called
	case w.want == chanLoose: // it was called: callWaiters passes the call on
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

// Recv waits for a message and returns it. It fails with [ErrClosed] once the channel is closed and
// all messages have been received. If cx is cancelled it fails with cx.Err() and no message is
// lost. At a rendezvous there is one exception: if a [Chan.Send] has returned because this Recv was
// waiting, Recv returns a message, although cx is cancelled.
func (c *Chan[T]) Recv(cx *Context) (T, error) {
	if w, ok := cx.quick(); ok {
		if v, err := c.pullOnce(w); err != ErrEmpty {
			return v, err
		}
	}
	return c.recvSlow(cx)
}

// recvSlow is Recv for a caller that may have to wait.
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

// Send waits until there is room for v and sends v. The message was sent if Send returns nil, even
// if cx was cancelled meanwhile. With any other error it was not sent: [ErrClosed] if the channel
// is closed or becomes closed during the wait, cx.Err() if cx is cancelled.
func (c *Chan[T]) Send(cx *Context, v T) error {
	if w, ok := cx.quick(); ok {
		if err := c.pushOnce(w, v, true); err != ErrFull {
			return err
		}
	}
	return c.sendSlow(cx, v, sendFirm)
}

// sendSlow is Send, or Reserve with sendReserve, for a caller that may have to wait.
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

// TryRecv is [Chan.Recv] without waiting. It fails with [ErrEmpty] if there is no message, or if
// the messages are kept for waiting receivers that are next; see [Chan]. It fails with [ErrClosed]
// once the channel is closed and all messages have been received. At a rendezvous it takes the
// message of a sender that waits in [Chan.Send] or [Chan.SendBlocking].
func (c *Chan[T]) TryRecv() (T, error) { return c.pullOnce(nil) }

// TrySend is [Chan.Send] without waiting. It fails with [ErrFull] if there is no room, or if the
// room is kept for waiting senders that are next; see [Chan]. It fails with [ErrClosed] if the
// channel is closed. At a rendezvous there is room if a receiver waits.
func (c *Chan[T]) TrySend(v T) error { return c.pushOnce(nil, v, false) }

// ForceSend sends v without waiting, before the senders that wait. If there is no room, it removes
// the oldest message to make room, and returns this message with displaced set. Room that is kept
// for a waiting sender does not count; see [Chan]. If there is no message to remove either,
// ForceSend returns v itself with displaced set. This happens at a rendezvous where no receiver
// waits, and if all the room is reserved. ForceSend fails only with [ErrClosed].
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

// PollNext receives a message, and so makes a Chan a [Stream]. If there is no message it returns
// [ErrPending], and the task of cx is woken when there may be one. Where [Chan.Recv] fails with
// [ErrClosed], PollNext returns [io.EOF].
//
// The task has no place in the queue of receivers, so no message is lost if it does not poll again.
// But each message wakes all tasks that poll; if there are many, use [Chan.RecvFuture]. The channel
// refers to the task until the next message is sent, or until the channel is closed and empty.
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
		// At a rendezvous the task is now room for one message: callWaiters may call a sender for
		// it.
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

// All returns the messages that [Chan.Recv] returns, for range. The loop ends once the channel is
// closed and empty. If cx is cancelled, the last element has the error cx.Err(), and no message is
// lost.
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

// RecvBlocking is [Chan.Recv] for a goroutine outside the pool: it parks the goroutine. If ctx ends
// first it fails with ctx.Err(), as a cancelled Recv does. It panics in a task.
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

// SendBlocking is [Chan.Send] for a goroutine outside the pool: it parks the goroutine. If ctx ends
// first it fails with ctx.Err(), as a cancelled Send does. It panics in a task.
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

// sendBlocking is sendSlow for a goroutine outside the pool.
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

// Close closes the channel. From then on sends fail with [ErrClosed], and so do the sends that
// wait. Messages that were sent before can still be received, and each [Permit] can still send its
// message. After that, receives fail with [ErrClosed]. A second Close returns ErrClosed and changes
// nothing.
func (c *Chan[T]) Close() error {
	c.lock()
	first := !c.closed
	c.closed = true
	c.callWaitersAndUnlock(nil)
	return closedNow(first)
}

// IsClosed reports whether the channel is closed. It may still have messages.
func (c *Chan[T]) IsClosed() bool {
	c.lock()
	defer c.unlock()
	return c.closed
}

// Len returns how many messages have been sent and not received, but at most the capacity: it
// leaves out the messages for which a waiting receiver was room.
func (c *Chan[T]) Len() int {
	c.lock()
	defer c.unlock()
	return min(c.ring.n, c.limit)
}

// Cap returns the capacity, or -1 if there is no bound.
func (c *Chan[T]) Cap() int {
	if c.limit == chanUnlimited {
		return -1
	}
	return c.limit
}

// waitingCounts returns how many callers wait to send and how many wait to receive. It does not
// count the tasks that poll with PollNext.
func (c *Chan[T]) waitingCounts() (senders, receivers int) {
	c.lock()
	defer c.unlock()
	return c.sends.waiting(), c.recvs.waiting()
}
