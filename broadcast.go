package async

import (
	"context"
	"fmt"
	"io"
	"iter"
)

// A Broadcast sends every message to all its subscribers. It keeps the last n messages.
// [Broadcast.Send] never waits: if a subscriber is more than n messages behind, it loses the oldest
// messages, and gets their number as a [LaggedError]. [NewBroadcast] makes a Broadcast, which must
// not be copied. The zero Broadcast keeps no messages: Send and Subscribe panic. Its methods are
// safe for concurrent use by tasks and goroutines.
type Broadcast[T any] struct {
	topic pubsubTopic // its version is the number of the next message; its mu guards everything

	kept []T // message number i is at i modulo the length
	subs int // how many subscriptions are open
}

// A LaggedError is the error that a slow subscriber gets in place of messages that are no longer
// kept. The next receive returns the oldest message that is kept.
type LaggedError struct {
	Missed uint64 // how many messages were lost
}

// Error says how many messages were lost.
func (e *LaggedError) Error() string {
	return fmt.Sprintf("async: a slow subscriber has lost %d messages", e.Missed)
}

// NewBroadcast returns a [Broadcast] that keeps n messages. It panics if n is not positive. Close
// each subscription: the Broadcast counts it until then.
func NewBroadcast[T any](n int) *Broadcast[T] {
	if n <= 0 {
		panic("async: NewBroadcast: a capacity of at least 1 is needed")
	}
	return &Broadcast[T]{kept: make([]T, n)}
}

// Send sends v to all subscribers, and returns how many there are. Without subscribers the message
// is lost. It fails only with [ErrClosed], after [Broadcast.Close].
func (b *Broadcast[T]) Send(v T) (subscribers int, err error) {
	var chosen chosenTasks
	b.mustBeMade()
	b.topic.mu.Lock()
	if b.topic.closed {
		b.topic.mu.Unlock()
		return 0, ErrClosed
	}
	b.kept[b.topic.version%uint64(len(b.kept))] = v
	b.topic.publish(pubsubEach, &chosen)
	subscribers = b.subs
	b.topic.mu.Unlock()
	chosen.wake()
	return subscribers, nil
}

// Close ends the broadcast. From then on Send fails, and subscribers get the messages that they
// have not received yet, and then [ErrClosed]. A second Close returns ErrClosed.
func (b *Broadcast[T]) Close() error { return b.topic.end() }

// Subscribe returns a subscription, which gets the messages that are sent from now on. Call
// [Subscription.Close] when it is no longer needed: [Broadcast.Send] counts it until then. No
// sender waits for it, and it keeps no messages alive.
func (b *Broadcast[T]) Subscribe() *Subscription[T] {
	b.mustBeMade()
	b.topic.mu.Lock()
	defer b.topic.mu.Unlock()
	b.subs++
	return &Subscription[T]{b: b, pubsubSubscriber: pubsubSubscriber{of: &b.topic, seen: b.topic.version}}
}

// mustBeMade panics for a zero Broadcast.
func (b *Broadcast[T]) mustBeMade() {
	if len(b.kept) == 0 {
		panic("async: a Broadcast that was not made by NewBroadcast was used")
	}
}

// subscribers returns how many subscriptions are open.
func (b *Broadcast[T]) subscribers() int {
	b.topic.mu.Lock()
	defer b.topic.mu.Unlock()
	return b.subs
}

// A Subscription receives the messages of a [Broadcast], in order. Its methods are safe for
// concurrent use by tasks and goroutines: each message then goes to one of the callers, and wakes
// one of them. The exception is [Subscription.PollNext], which one task at a time may use; no other
// task is woken for a message that has woken this task, until this task polls again. A Subscription
// must not be copied.
type Subscription[T any] struct {
	b *Broadcast[T]

	// Guarded by the lock of the broadcast.
	pubsubSubscriber // its seen is the number of the message that it receives next
	closed           bool
}

// receive receives without waiting; it returns ErrEmpty if there is no message. The lock is held.
func (s *Subscription[T]) receive() (v T, err error) {
	b := s.b
	next := b.topic.version
	oldest := next - min(next, uint64(len(b.kept)))
	switch {
	case s.closed:
		return v, ErrClosed
	case s.seen < oldest: // the messages from seen to oldest were overwritten
		err = &LaggedError{Missed: oldest - s.seen}
		s.seen = oldest
		return v, err
	case s.seen < next:
		v = b.kept[s.seen%uint64(len(b.kept))]
		s.seen++
		return v, nil
	case b.topic.closed:
		return v, ErrClosed
	}
	return v, ErrEmpty
}

// TryRecv is [Subscription.Recv] without waiting: it fails with [ErrEmpty] where Recv would wait.
func (s *Subscription[T]) TryRecv() (T, error) {
	s.topic().mu.Lock()
	defer s.of.mu.Unlock()
	return s.receive()
}

// pollRecv is Recv for code that polls.
func (s *Subscription[T]) pollRecv(cx *Context) (v T, err error) {
	if !cx.spend() {
		return v, ErrPending
	}
	v, err = s.poll(cx, &s.w)
	return v, cx.unspent(err)
}

// poll is pollRecv for a caller that has taken the operation off the budget. It waits with w.
func (s *Subscription[T]) poll(cx *Context, w *waiter) (v T, err error) {
	t := cx.waker(waitsRecv)
	s.topic().mu.Lock()
	defer s.of.mu.Unlock()
	if v, err = s.receive(); err != ErrEmpty {
		s.pubsubSubscriber.leave(w)
		return v, err
	}
	s.join(w, t)
	return v, ErrPending
}

// PollNext receives the next message, and so makes a Subscription a [Stream]. If there is no
// message it returns [ErrPending]. If messages were lost it fails with a [*LaggedError], as
// [Subscription.Recv] does, and the next PollNext goes on. At the end, where Recv fails with
// [ErrClosed], it returns [io.EOF].
func (s *Subscription[T]) PollNext(cx *Context) (T, error) {
	v, err := s.pollRecv(cx)
	if err == ErrClosed {
		err = io.EOF
	}
	return v, err
}

// abandoned implements abandoner.
func (s *Subscription[T]) abandoned(*task, *worker) { s.leave(&s.w) }

// Recv waits for the next message and returns it. It fails with a [*LaggedError] if the next
// messages were lost; call it again for the messages after them. It fails with [ErrClosed] after
// the last message of a closed broadcast, and after [Subscription.Close]. If cx is cancelled it
// fails with cx.Err(), and no message is lost.
func (s *Subscription[T]) Recv(cx *Context) (v T, err error) {
	s.topic()
	t := cx.beginAwait()
	w, over := t.ownWaiter(), false
	defer func() {
		if !over {
			s.leave(w)
		}
	}()
	for ; cx.proceed(t); t.wait() {
		if v, err = s.poll(cx, w); err != ErrPending {
			over = true
			return v, err
		}
	}
	return v, cx.Err()
}

// leave gives up the place of w. If w was called for a message that is still there, the next waiter
// is called for it.
func (s *Subscription[T]) leave(w *waiter) { s.giveUp(w, pubsubEach) }

// RecvBlocking is [Subscription.Recv] for a goroutine outside the pool: it parks the goroutine. If
// ctx ends first it fails with ctx.Err(). It panics in a task.
func (s *Subscription[T]) RecvBlocking(ctx context.Context) (v T, err error) {
	mustNotBlock("Subscription.RecvBlocking", "s.Recv(cx)")
	if err := ctx.Err(); err != nil {
		return v, err
	}
	s.topic()
	return awaitParked(ctx, Future[T](&subscriptionFuture[T]{s: s}))
}

// subscriptionFuture is a place among the waiters of a Subscription.
type subscriptionFuture[T any] struct {
	s *Subscription[T]
	w waiter
}

func (f *subscriptionFuture[T]) Poll(cx *Context) (v T, err error) {
	if !cx.spend() {
		return v, ErrPending
	}
	v, err = f.s.poll(cx, &f.w)
	return v, cx.unspent(err)
}

// Cancel implements canceler.
func (f *subscriptionFuture[T]) Cancel() { f.s.leave(&f.w) }

// recvFuture returns the future of Recv. Giving it up loses no message.
func (s *Subscription[T]) recvFuture() Future[T] { return &subscriptionFuture[T]{s: s} }

// All returns the results of [Subscription.Recv], for range: messages, and a [*LaggedError] where
// messages were lost. The loop ends with the broadcast. If cx is cancelled, the last element has
// the error cx.Err().
func (s *Subscription[T]) All(cx *Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			v, err := s.Recv(cx)
			if err == ErrClosed {
				return
			}
			_, lagged := err.(*LaggedError)
			if !yield(v, err) || err != nil && !lagged {
				return
			}
		}
	}
}

// Close ends the subscription: tasks that wait with it fail with [ErrClosed]. Other subscriptions
// are not affected, and the cost does not depend on their number. A second Close returns ErrClosed.
func (s *Subscription[T]) Close() error {
	var chosen chosenTasks
	s.topic().mu.Lock()
	first := !s.closed
	if first {
		s.closed = true
		s.b.subs--
		s.callAll(&chosen)
	}
	s.of.mu.Unlock()
	chosen.wake()
	return closedNow(first)
}
