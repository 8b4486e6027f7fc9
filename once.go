package async

import (
	"context"
	"sync/atomic"
)

// A Once is a value that is made once, by the first caller that needs it, while other callers wait.
// It is [sync.Once] for code that awaits and may fail. The zero value is empty. It must not be
// copied after first use. Its methods are safe for concurrent use by tasks and goroutines.
type Once[T any] struct {
	// made is set, under mu, after v was written. v does not change again, so a caller that sees
	// made may read v without mu.
	made atomic.Bool
	v    T
	mu   Mutex // is held by the caller that makes v
}

// Get returns the value if it has been made. It does not wait.
func (o *Once[T]) Get() (v T, ok bool) {
	if !o.made.Load() {
		return v, false
	}
	return o.v, true
}

// Do returns the value, and calls fn to make it if there is none yet. Other callers wait while fn
// runs. If fn fails, Do returns the error of fn, and the next caller tries with its own function.
// The same holds if fn panics or is cancelled. So Do fails only if cx is cancelled, with cx.Err(),
// or if its own fn fails.
//
// fn must not call Do of the same Once: it would wait for itself.
func (o *Once[T]) Do(cx *Context, fn func(cx *Context) (T, error)) (T, error) {
	if o.made.Load() {
		// A loop that calls Do must let other tasks run, and must see that cx is cancelled.
		if !cx.inBudget() {
			if err := cx.mustAwait(); err != nil {
				var zero T
				return zero, err
			}
		}
		return o.v, nil
	}
	if err := o.mu.Lock(cx); err != nil {
		var zero T
		return zero, err
	}
	defer o.mu.Unlock()
	if o.made.Load() { // another caller has made it during the wait
		return o.v, nil
	}
	return o.keep(fn(cx))
}

// DoBlocking is [Once.Do] for a goroutine outside the pool: it parks the goroutine while another
// caller makes the value. If ctx ends first it fails with ctx.Err(). It panics in a task.
func (o *Once[T]) DoBlocking(ctx context.Context, fn func(ctx context.Context) (T, error)) (T, error) {
	mustNotBlock("Once.DoBlocking", "o.Do(cx, fn)")
	if o.made.Load() && ctx.Err() == nil {
		return o.v, nil
	}
	if err := o.mu.LockBlocking(ctx); err != nil {
		var zero T
		return zero, err
	}
	defer o.mu.Unlock()
	if o.made.Load() { // another caller has made it during the wait
		return o.v, nil
	}
	return o.keep(fn(ctx))
}

// keep makes v the value if err is nil. mu is held.
func (o *Once[T]) keep(v T, err error) (T, error) {
	if err == nil {
		o.v = v
		o.made.Store(true)
	}
	return v, err
}

// DoFuture returns the future of [Once.Do], with a future in place of the function. make returns
// this future; it is called only if the value must be made. Giving up the future of DoFuture gives
// up the future of make, too, and lets the next caller try.
func (o *Once[T]) DoFuture(make func() Future[T]) Future[T] {
	return &onceFuture[T]{o: o, lock: lockFuture{m: &o.mu}, make: make}
}

// onceFuture makes the value of a Once in the steps of Do, of which each may be pending:
//
//  1. If the value has been made, return it.
//  2. Lock the Mutex, and look again.
//  3. Call make, and poll its future. If this is ready without an error, its result is the value.
//  4. Unlock the Mutex.
type onceFuture[T any] struct {
	o    *Once[T]
	lock lockFuture
	held bool // it holds the Mutex
	make func() Future[T]
	f    Future[T] // of make; nil before step 3
	t    *task     // has polled f
}

func (f *onceFuture[T]) Poll(cx *Context) (v T, err error) {
	o := f.o
	if !f.held {
		if o.made.Load() && !cx.spend() {
			return v, ErrPending
		}
		if _, err := f.lock.Poll(cx); err != nil {
			return v, err
		}
		f.held = true
	}
	if o.made.Load() {
		f.unlock()
		return o.v, nil
	}
	if f.f == nil {
		f.f = f.make()
	}
	f.t = cx.t
	if v, err = f.f.Poll(cx); err != ErrPending {
		v, err = o.keep(v, err)
		f.f = nil
		f.unlock()
	}
	return v, err
}

func (f *onceFuture[T]) unlock() {
	f.held = false
	f.o.mu.Unlock()
}

// Cancel implements canceler.
func (f *onceFuture[T]) Cancel() {
	if !f.held {
		f.lock.Cancel()
		return
	}
	defer f.unlock()
	inner := f.f
	f.f = nil
	abandonFuture(f.t, inner)
}
