package async

import (
	"context"
	"fmt"
	"io"
	"iter"
)

// A Broadcast sends every message to all its subscribers. It keeps the last n messages.
// Send never waits: a subscriber that is more than n messages behind has lost the oldest
// ones, and gets their number as a [LaggedError]. All methods may be called by tasks and
// goroutines at the same time. A Broadcast is made by NewBroadcast, and must not be copied;
// the zero Broadcast keeps no messages, and Send and Subscribe panic.
type Broadcast[T any] struct {
	topic pubsubTopic // its version is the number of the next message; its mu guards everything

	kept []T // message number i stands at i modulo the length
	subs int
}

// A LaggedError is the error that a slow subscriber gets instead of messages that are no
// longer kept. The subscription goes on with the oldest message that is kept.
type LaggedError struct {
	Missed uint64 // how many messages were lost
}

// Error says how many messages were lost.
func (e *LaggedError) Error() string {
	return fmt.Sprintf("async: a slow subscriber has lost %d messages", e.Missed)
}

// NewBroadcast returns a Broadcast that keeps n messages. It panics if n is not positive.
// Subscriptions must be closed: the Broadcast goes on counting a subscription that is not.
func NewBroadcast[T any](n int) *Broadcast[T] {
	if n <= 0 {
		panic("async: NewBroadcast: a capacity of at least 1 is needed")
	}
	return &Broadcast[T]{kept: make([]T, n)}
}

// Send sends v to all subscribers, and returns their number; without subscribers the
// message is lost. It fails only with ErrClosed.
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

// Close ends the broadcast: Send fails, and subscribers get the messages that they have not
// received yet, then ErrClosed. A second Close returns ErrClosed.
func (b *Broadcast[T]) Close() error { return b.topic.end() }

// Subscribe returns a subscription that gets the messages sent from now on. It must be
// closed when it is no longer needed: until then Send counts it. It keeps no
// messages alive, and no sender waits for it.
func (b *Broadcast[T]) Subscribe() *Subscription[T] {
	b.mustBeMade()
	b.topic.mu.Lock()
	defer b.topic.mu.Unlock()
	b.subs++
	return &Subscription[T]{b: b, pubsubSubscriber: pubsubSubscriber{of: &b.topic, seen: b.topic.version}}
}

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

// A Subscription receives the messages of a Broadcast, in order. Recv and TryRecv may be
// called by several tasks and goroutines at the same time: each message then goes to one of
// these callers, and wakes one of them. One task at a time may use PollNext; a
// message that has woken it waits until it polls again. A Subscription must not be copied.
type Subscription[T any] struct {
	b *Broadcast[T]

	// Guarded by the lock of the broadcast.
	pubsubSubscriber // its seen is the number of the message that it receives next
	closed           bool
}

// receive receives without waiting; err is ErrEmpty if there is no message. The lock is
// held.
func (s *Subscription[T]) receive() (v T, err error) {
	b := s.b
	next := b.topic.version
	oldest := next - min(next, uint64(len(b.kept)))
	switch {
	case s.closed:
		return v, ErrClosed
	case s.seen < oldest:
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

// TryRecv is Recv without waiting: where Recv would wait, it fails with ErrEmpty.
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

// PollNext is Recv for code that polls, but the end is io.EOF: so a Subscription is a Stream.
func (s *Subscription[T]) PollNext(cx *Context) (T, error) {
	v, err := s.pollRecv(cx)
	if err == ErrClosed {
		err = io.EOF
	}
	return v, err
}

// abandoned implements abandoner.
func (s *Subscription[T]) abandoned(*task, *worker) { s.leave(&s.w) }

// Recv waits for the next message and returns it. It fails with a *LaggedError if the next
// messages have been lost, and can then be called again; with ErrClosed at the end; and
// with cx.Err() if cx is cancelled, which loses nothing.
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

// leave gives up w's place. If w was woken for a message that is still there, the next
// waiter is woken for it.
func (s *Subscription[T]) leave(w *waiter) { s.giveUp(w, pubsubEach) }

// RecvBlocking is Recv for a goroutine outside the pool, which it parks; ctx
// cancels it. It panics in tasks.
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

func (f *subscriptionFuture[T]) Cancel() { f.s.leave(&f.w) }

// recvFuture returns Recv as a future. Given up it loses
// nothing.
func (s *Subscription[T]) recvFuture() Future[T] { return &subscriptionFuture[T]{s: s} }

// All returns the results of Recv, for range: messages and LaggedErrors, and cx.Err() as
// the last result if cx is cancelled. It ends with the broadcast.
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

// Close ends the subscription: a task that waits with it fails with ErrClosed. Other
// subscriptions are not disturbed, and cost Close nothing, however many they are. A second
// Close returns ErrClosed.
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
