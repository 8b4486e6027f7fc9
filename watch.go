package async

import (
	"context"
	"io"
)

// A Watch is a value with a latest state that other code follows. A [Watcher] learns that the value
// has changed, but not how often: it may never see the values in between. The zero Watch has the
// zero value; [NewWatch] makes one with another value. A Watch must not be copied. Its methods are
// safe for concurrent use by tasks and goroutines.
type Watch[T any] struct {
	topic pubsubTopic // its version is how often v was set; its mu guards everything
	v     T
}

// NewWatch returns a [Watch] whose value is v.
func NewWatch[T any](v T) *Watch[T] { return &Watch[T]{v: v} }

// Get returns the value.
func (w *Watch[T]) Get() T {
	w.topic.mu.Lock()
	defer w.topic.mu.Unlock()
	return w.v
}

// Set changes the value to v and wakes the tasks that wait for a change. A v that is equal to the
// old value counts as a change, too. After [Watch.Close] Set changes nothing and fails with
// [ErrClosed].
func (w *Watch[T]) Set(v T) error {
	_, err := w.set(v, func(uint64) bool { return true })
	return err
}

// set changes the value to v if allowed returns true for the version of the present value, and
// reports whether it did. allowed runs under the lock. After Close set fails with ErrClosed.
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

// Update changes the value to the result of f for the present value, and returns the new value. f
// must not change its argument. If other code changes the value while f runs, f is called again.
// After [Watch.Close] Update fails with [ErrClosed].
func (w *Watch[T]) Update(f func(T) T) (T, error) {
	for {
		w.topic.mu.Lock()
		v, version := w.v, w.topic.version
		w.topic.mu.Unlock()
		// f runs without the lock, since it may take long or use the Watch. set does nothing if the
		// value was changed meanwhile, which changes its version.
		v = f(v)
		done, err := w.set(v, func(now uint64) bool { return now == version })
		if done || err != nil {
			return v, err
		}
	}
}

// Close says that the value will not change again. A Watcher that has not seen the last change gets
// this change, and then [ErrClosed]. A second Close returns ErrClosed.
func (w *Watch[T]) Close() error { return w.topic.end() }

// Watch returns a [Watcher] that has seen the present value.
func (w *Watch[T]) Watch() *Watcher[T] {
	w.topic.mu.Lock()
	defer w.topic.mu.Unlock()
	return &Watcher[T]{watch: w, pubsubSubscriber: pubsubSubscriber{of: &w.topic, seen: w.topic.version}}
}

// A Watcher is one view of a [Watch]: it keeps track of the changes that were seen through it. Its
// methods are safe for concurrent use by tasks and goroutines: each change is then seen by one of
// the callers, and wakes one of them. The exception is [Watcher.PollNext], which one task at a time
// may use; no other task is woken for a change that has woken this task, until this task polls
// again. A Watcher must not be copied.
type Watcher[T any] struct {
	watch *Watch[T]

	pubsubSubscriber // guarded by the lock of the watch; its seen is the version
}

// Get returns the value, and counts it as seen.
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

// Changed waits until the value has changed since it was last seen, returns it, and counts it as
// seen. It fails with [ErrClosed] if the value will not change again. If cx is cancelled it fails
// with cx.Err(), and no change is lost.
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

// poll is pollChanged for a caller that has taken the operation off the budget. It waits with w.
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

// PollNext returns the value after a change, as [Watcher.Changed] does, and so makes a Watcher a
// [Stream]. If the value has not changed it returns [ErrPending]. Where Changed fails with
// [ErrClosed], it returns [io.EOF].
func (r *Watcher[T]) PollNext(cx *Context) (T, error) {
	v, err := r.pollChanged(cx)
	if err == ErrClosed {
		err = io.EOF
	}
	return v, err
}

// abandoned implements abandoner.
func (r *Watcher[T]) abandoned(*task, *worker) { r.leave(&r.w) }

// leave gives up the place of w. If w was called for a change that was not seen since, the next
// waiter is called for it.
func (r *Watcher[T]) leave(w *waiter) { r.giveUp(w, pubsubLatest) }

// ChangedBlocking is [Watcher.Changed] for a goroutine outside the pool: it parks the goroutine. If
// ctx ends first it fails with ctx.Err(). It panics in a task.
func (r *Watcher[T]) ChangedBlocking(ctx context.Context) (v T, err error) {
	mustNotBlock("Watcher.ChangedBlocking", "w.Changed(cx)")
	if err := ctx.Err(); err != nil {
		return v, err
	}
	return awaitParked(ctx, r.changedFuture())
}

// changedFuture returns the future of Changed. Giving it up loses no change.
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

// Cancel implements canceler.
func (f *changedFuture[T]) Cancel() { f.r.leave(&f.w) }
