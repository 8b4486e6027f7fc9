package async

import (
	"context"
	"io"
)

// A Watch is a value whose latest state other code wants to know. A [Watcher] learns that
// the value has changed, not how often: values in between may never be seen. The zero Watch
// has the zero value. A Watch must not be copied. All methods may be called by tasks and
// goroutines at the same time.
type Watch[T any] struct {
	topic pubsubTopic // its version is how often v was set; its mu guards everything
	v     T
}

// NewWatch returns a Watch whose value is v.
func NewWatch[T any](v T) *Watch[T] { return &Watch[T]{v: v} }

// Get returns the value.
func (w *Watch[T]) Get() T {
	w.topic.mu.Lock()
	defer w.topic.mu.Unlock()
	return w.v
}

// Set changes the value, also to an equal one, and wakes the tasks that wait for a change.
// It fails with ErrClosed, without changing it, after Close.
func (w *Watch[T]) Set(v T) error {
	_, err := w.set(v, func(uint64) bool { return true })
	return err
}

// set changes the value if allowed agrees with its version.
func (w *Watch[T]) set(v T, allowed func(version uint64) bool) (done bool, err error) {
	var chosen chosenTasks
	w.topic.mu.Lock()
	switch {
	case w.topic.closed:
		err = ErrClosed
	case allowed(w.topic.version):
		done = true
		w.v = v
		w.topic.publish(pubsubLatest, &chosen)
	}
	w.topic.mu.Unlock()
	chosen.wake()
	return done, err
}

// Update changes the value to the result of f for the present value, and returns it. f is
// called again if other code has changed the value meanwhile, and must not change its
// argument. Update fails with ErrClosed like Set.
func (w *Watch[T]) Update(f func(T) T) (T, error) {
	for {
		w.topic.mu.Lock()
		v, version := w.v, w.topic.version
		w.topic.mu.Unlock()
		v = f(v)
		done, err := w.set(v, func(now uint64) bool { return now == version })
		if done || err != nil {
			return v, err
		}
	}
}

// Close says that the value will not change anymore. Watchers that have not seen the last
// change get it first, and then ErrClosed. A second Close returns ErrClosed.
func (w *Watch[T]) Close() error { return w.topic.end() }

// Watch returns a Watcher that has seen the present value.
func (w *Watch[T]) Watch() *Watcher[T] {
	w.topic.mu.Lock()
	defer w.topic.mu.Unlock()
	return &Watcher[T]{watch: w, pubsubSubscriber: pubsubSubscriber{of: &w.topic, seen: w.topic.version}}
}

// A Watcher is one view of a Watch: it knows which changes have been seen through it.
// Several tasks and goroutines may call its methods at the same time, and each change is
// then seen by one of these callers, and wakes one of them; but one task at a time may use
// PollNext, and a change that has woken it waits until it polls again. A
// Watcher must not be copied.
type Watcher[T any] struct {
	watch *Watch[T]

	pubsubSubscriber // guarded by the lock of the watch; its seen is the version
}

// Get returns the value, which has then been seen.
func (r *Watcher[T]) Get() T {
	r.topic().mu.Lock()
	defer r.of.mu.Unlock()
	r.seen = r.of.version
	return r.watch.v
}

// HasChanged reports whether the value has changed since it was last seen.
func (r *Watcher[T]) HasChanged() bool {
	r.topic().mu.Lock()
	defer r.of.mu.Unlock()
	return r.seen != r.of.version
}

// Changed waits until the value has changed since it was last seen, and returns it; it has
// then been seen. It fails with ErrClosed if the value will not change anymore, and with
// cx.Err() if cx is cancelled, which loses nothing.
func (r *Watcher[T]) Changed(cx *Context) (v T, err error) {
	r.topic()
	t := cx.beginAwait()
	w, over := t.ownWaiter(), false
	defer func() {
		if !over {
			r.leave(w)
		}
	}()
	for ; cx.proceed(t); t.wait() {
		if v, err = r.poll(cx, w); err != ErrPending {
			over = true
			return v, err
		}
	}
	return v, cx.Err()
}

// pollChanged is Changed for code that polls.
func (r *Watcher[T]) pollChanged(cx *Context) (v T, err error) {
	if !cx.spend() {
		return v, ErrPending
	}
	v, err = r.poll(cx, &r.w)
	return v, cx.unspent(err)
}

func (r *Watcher[T]) poll(cx *Context, w *waiter) (v T, err error) {
	t := cx.waker(waitsRecv)
	r.topic().mu.Lock()
	defer r.of.mu.Unlock()
	if r.seen == r.of.version && !r.of.closed {
		r.join(w, t)
		return v, ErrPending
	}
	r.pubsubSubscriber.leave(w)
	if r.seen == r.of.version {
		return v, ErrClosed
	}
	r.seen = r.of.version
	return r.watch.v, nil
}

// PollNext is Changed for code that polls, but the end is io.EOF: so a Watcher is a Stream of
// the values that it sees.
func (r *Watcher[T]) PollNext(cx *Context) (T, error) {
	v, err := r.pollChanged(cx)
	if err == ErrClosed {
		err = io.EOF
	}
	return v, err
}

// abandoned implements abandoner.
func (r *Watcher[T]) abandoned(*task, *worker) { r.leave(&r.w) }

// leave gives up w's place. If w was woken for a change that was not seen since, the next
// waiter is woken for it.
func (r *Watcher[T]) leave(w *waiter) { r.giveUp(w, pubsubLatest) }

// ChangedBlocking is Changed for a goroutine outside the pool, which it parks; ctx
// cancels it. It panics in tasks.
func (r *Watcher[T]) ChangedBlocking(ctx context.Context) (v T, err error) {
	mustNotBlock("Watcher.ChangedBlocking", "w.Changed(cx)")
	if err := ctx.Err(); err != nil {
		return v, err
	}
	return awaitParked(ctx, r.changedFuture())
}

// changedFuture returns Changed as a future. Given up it
// loses nothing.
func (r *Watcher[T]) changedFuture() Future[T] { return &changedFuture[T]{r: r} }

// changedFuture is a place among the waiters of a Watcher.
type changedFuture[T any] struct {
	r *Watcher[T]
	w waiter
}

func (f *changedFuture[T]) Poll(cx *Context) (v T, err error) {
	if !cx.spend() {
		return v, ErrPending
	}
	v, err = f.r.poll(cx, &f.w)
	return v, cx.unspent(err)
}

func (f *changedFuture[T]) Cancel() { f.r.leave(&f.w) }
