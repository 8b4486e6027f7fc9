package async

import (
	"context"
	"io"
	"iter"
	"sync"
)

// A Watch holds a value that changes, for those who only want the latest one: a
// configuration, a state, a progress. Its methods, and those of its Watchers,
// may be called from any goroutine, except that a cx belongs to the caller.
type Watch[T any] struct {
	slot wakerSlot

	mu      sync.Mutex
	v       T
	version uint64 // counts the changes
	closed  bool
}

// NewWatch returns a Watch of v.
func NewWatch[T any](v T) *Watch[T] { return &Watch[T]{v: v} }

// Get returns the latest value.
func (w *Watch[T]) Get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.v
}

// Set sets the value, and wakes all who wait for a change. It fails with ErrClosed.
func (w *Watch[T]) Set(v T) error { return w.change(func(T) T { return v }) }

// Update sets the value to what change makes of it. Nothing else sees the Watch
// meanwhile, so change must be quick and must not use it. Update fails with
// ErrClosed, and then does not call change.
func (w *Watch[T]) Update(change func(T) T) error { return w.change(change) }

func (w *Watch[T]) change(change func(T) T) error {
	err := w.locked(change)
	w.slot.stir(nil)
	return err
}

func (w *Watch[T]) locked(change func(T) T) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrClosed
	}
	w.v = change(w.v)
	w.version++
	return nil
}

// Close says that the value will not change anymore. It may be called more than
// once.
func (w *Watch[T]) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.slot.stir(nil)
}

// Subscribe returns a Watcher that has seen the present value.
func (w *Watch[T]) Subscribe() *Watcher[T] {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &Watcher[T]{w: w, seen: w.version}
}

// A Watcher waits for changes of a Watch. It is one reader's, who uses it on one
// goroutine at a time, and a Stream: of the changes between two reads it gives the
// last.
type Watcher[T any] struct {
	w    *Watch[T]
	seen uint64
}

var _ Stream[None] = (*Watcher[None])(nil)

// TryChanged returns the value if it is one that the Watcher has not seen. It fails
// with ErrEmpty if it has, and with ErrClosed if there will be no other.
func (r *Watcher[T]) TryChanged() (v T, err error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	switch {
	case r.seen != r.w.version:
		r.seen = r.w.version
		return r.w.v, nil
	case r.w.closed:
		return v, ErrClosed
	default:
		return v, ErrEmpty
	}
}

// Changed waits until there is a value that the Watcher has not seen, and returns
// it. It fails with ErrClosed if there will be none, and with cx.Err() if cx is
// cancelled, which loses nothing.
func (r *Watcher[T]) Changed(cx *Context) (T, error) { return Await(cx, r.ChangedFuture()) }

// ChangedBlocking is Changed for a goroutine outside the pool, which it parks. It
// panics in tasks.
func (r *Watcher[T]) ChangedBlocking(ctx context.Context) (T, error) {
	mustNotBlock("Watcher.ChangedBlocking", "r.Changed(cx)")
	return waitBlocking(ctx, r.ChangedFuture())
}

// ChangedFuture returns Changed as a future.
func (r *Watcher[T]) ChangedFuture() Future[T] {
	return &slotWait[T]{slot: &r.w.slot, poll: r.poll}
}

func (r *Watcher[T]) poll(cx *Context) (T, error) { return pollSlot(cx, &r.w.slot, r.TryChanged) }

// PollNext returns the next value; io.EOF if there will be none.
func (r *Watcher[T]) PollNext(cx *Context) (T, error) {
	v, err := r.poll(cx)
	if err == ErrClosed {
		err = io.EOF
	}
	return v, err
}

// All returns the values for a range loop, which waits through cx. It ends when the
// Watch is closed, and when cx is cancelled.
func (r *Watcher[T]) All(cx *Context) iter.Seq[T] {
	return func(yield func(T) bool) {
		for {
			if v, err := r.Changed(cx); err != nil || !yield(v) {
				return
			}
		}
	}
}
