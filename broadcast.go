package async

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync"
)

// A Broadcast is a channel of which each receiver gets all messages. It holds the
// latest n, and a Send never waits: a receiver that is more than n messages behind
// loses the oldest, and is told how many. So one that is slow, or that has been
// forgotten, holds up nobody and needs no memory.
//
// Its methods may be called from any goroutine.
type Broadcast[T any] struct {
	slot wakerSlot

	mu     sync.Mutex
	ring   []T
	sent   uint64 // how many messages there have been; ring holds the latest
	closed bool
}

// NewBroadcast returns a Broadcast that holds n messages. It panics if n is not
// positive.
func NewBroadcast[T any](n int) *Broadcast[T] {
	if n <= 0 {
		panic("async: NewBroadcast: it must hold at least one message")
	}
	return &Broadcast[T]{ring: make([]T, n)}
}

// Send sends v to all who have subscribed. It never waits, and fails only with
// ErrClosed.
func (b *Broadcast[T]) Send(v T) error {
	b.mu.Lock()
	err := ErrClosed
	if !b.closed {
		b.ring[b.sent%uint64(len(b.ring))] = v
		b.sent++
		err = nil
	}
	b.mu.Unlock()
	b.slot.stir(nil)
	return err
}

// Close says that there will be no further messages. Those that are held can still
// be received. It may be called more than once.
func (b *Broadcast[T]) Close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.slot.stir(nil)
}

// Subscribe returns a receiver of all that is sent from now on. It need not be
// closed.
func (b *Broadcast[T]) Subscribe() *BroadcastReceiver[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &BroadcastReceiver[T]{b: b, next: b.sent}
}

// A BroadcastReceiver receives from a Broadcast. It is one reader's, who uses it on
// one goroutine at a time, and a Stream.
type BroadcastReceiver[T any] struct {
	b    *Broadcast[T]
	next uint64
}

var _ Stream[None] = (*BroadcastReceiver[None])(nil)

// A LaggedError says that a receiver of a Broadcast was too slow.
type LaggedError struct {
	Missed uint64 // how many messages it has lost; the next is the oldest that is held
}

func (e *LaggedError) Error() string {
	return fmt.Sprintf("async: the receiver was too slow, and has lost %d messages", e.Missed)
}

// TryRecv receives the next message if it is there. It fails with ErrEmpty if not,
// with ErrClosed if there will be none, and with a *LaggedError, once, if
// messages have been lost.
func (r *BroadcastReceiver[T]) TryRecv() (v T, err error) {
	b := r.b
	b.mu.Lock()
	defer b.mu.Unlock()
	n := uint64(len(b.ring))
	switch {
	case b.sent-r.next > n:
		err = &LaggedError{Missed: b.sent - r.next - n}
		r.next = b.sent - n
	case r.next < b.sent:
		v = b.ring[r.next%n]
		r.next++
	case b.closed:
		err = ErrClosed
	default:
		err = ErrEmpty
	}
	return v, err
}

// Recv waits for the next message; see TryRecv for its errors. If cx is cancelled
// it fails with cx.Err(), and loses nothing.
func (r *BroadcastReceiver[T]) Recv(cx *Context) (T, error) { return Await(cx, r.RecvFuture()) }

// RecvBlocking is Recv for a goroutine outside the pool, which it parks. It panics
// in tasks.
func (r *BroadcastReceiver[T]) RecvBlocking(ctx context.Context) (T, error) {
	mustNotBlock("BroadcastReceiver.RecvBlocking", "r.Recv(cx)")
	return waitBlocking(ctx, r.RecvFuture())
}

// RecvFuture returns Recv as a future.
func (r *BroadcastReceiver[T]) RecvFuture() Future[T] {
	return &slotWait[T]{slot: &r.b.slot, poll: r.poll}
}

func (r *BroadcastReceiver[T]) poll(cx *Context) (T, error) {
	return pollSlot(cx, &r.b.slot, r.TryRecv)
}

// PollNext returns the next message; io.EOF if there will be none.
func (r *BroadcastReceiver[T]) PollNext(cx *Context) (T, error) {
	v, err := r.poll(cx)
	if err == ErrClosed {
		err = io.EOF
	}
	return v, err
}

// All returns the messages for a range loop, which waits through cx, and a
// *LaggedError where some have been lost. It ends when the Broadcast is closed, or
// after the error of cx.
func (r *BroadcastReceiver[T]) All(cx *Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			v, err := r.Recv(cx)
			if err == ErrClosed || !yield(v, err) || cx.Err() != nil {
				return
			}
		}
	}
}
