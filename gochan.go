package async

import (
	"context"
	"sync"
)

// RecvFrom waits for a value of a Go channel. It is for tasks that meet code which knows
// only Go channels; tasks among themselves use a Chan. It fails with ErrClosed if ch is
// closed, and with cx.Err() if cx is cancelled; nothing is lost then: if a value has come
// by then, it is returned.
//
// If there is no value yet, a goroutine is started to wait for it, which ends with
// the wait: some 3 KiB, and two wakes of threads.
func RecvFrom[T any](cx *Context, ch <-chan T) (T, error) {
	return viaGoroutine(cx,
		func() (v T, ok bool, err error) {
			select {
			case v, open := <-ch:
				return v, true, closedUnless(open)
			default:
				return v, false, nil
			}
		},
		func(stop <-chan struct{}) (v T, err error) {
			select {
			case v, open := <-ch:
				return v, closedUnless(open)
			case <-stop:
				return v, errAbandoned
			}
		})
}

func closedUnless(open bool) error {
	if open {
		return nil
	}
	return ErrClosed
}

// SendTo waits until v is sent to a Go channel. It has done so if it returns nil, also if
// cx was cancelled meanwhile, and not with any other error: ErrClosed if ch is closed,
// cx.Err() if cx is cancelled. It costs as much as RecvFrom. (To close a Go channel while
// other code may be sending to it is a data race, for tasks as for goroutines.)
func SendTo[T any](cx *Context, ch chan<- T, v T) error {
	_, err := viaGoroutine(cx,
		func() (_ None, sent bool, err error) {
			defer sendRefused(&err)
			select {
			case ch <- v:
				return None{}, true, nil
			default:
				return None{}, false, nil
			}
		},
		func(stop <-chan struct{}) (_ None, err error) {
			defer sendRefused(&err)
			select {
			case ch <- v:
				return None{}, nil
			case <-stop:
				return None{}, errAbandoned
			}
		})
	return err
}

// sendRefused is deferred: sending to a closed Go channel panics, and nothing else panics
// here.
func sendRefused(err *error) {
	if recover() != nil {
		*err = ErrClosed
	}
}

// goResult is the result that a goroutine sends to the task that waits for it.
type goResult[T any] struct {
	v   T
	err error
}

// viaGoroutine does an operation at once if try can do it; otherwise block does it in a
// goroutine. try reports ok if it has done the operation, or has failed. block returns
// errAbandoned if the operation has not been done when stop is closed. A task that is
// cancelled waits until block returns, so that it can tell whether the operation was done.
func viaGoroutine[T any](cx *Context, try func() (v T, ok bool, err error), block func(stop <-chan struct{}) (T, error)) (v T, err error) {
	t := cx.beginAwait()
	if !cx.proceed(t) {
		return v, cx.Err()
	}
	if v, ok, err := try(); ok || err != nil {
		return v, err
	}
	stop := make(chan struct{})
	cancel := sync.OnceFunc(func() { close(stop) })
	defer cancel() // also if Shutdown unwinds the code
	var o Oneshot[goResult[T]]
	go func() {
		v, err := block(stop)
		o.Send(goResult[T]{v, err})
	}()
	for {
		r, err := o.poll(cx)
		if err == nil {
			if r.err == errAbandoned {
				r.err = cx.Err()
			}
			return r.v, r.err
		}
		if cx.ended() {
			cancel()
		}
		t.waits = waitsGo
		t.wait()
	}
}

// FromGoChan returns a Chan of the values that come out of a Go channel, for Select and for
// tasks that receive much from it: one goroutine moves the values, and takes at most n from
// ch before a receiver wants them. If n is large, many values share the wakes of threads.
// The Chan is closed when ch is, or when ctx ends; no value that was taken out of ch is
// lost by that.
func FromGoChan[T any](ctx context.Context, ch <-chan T, n int) *Chan[T] {
	c := NewChan[T](n)
	go func() {
		defer c.Close()
		for forwardChan(ctx, ch, c) {
		}
	}()
	return c
}

// forwardChan moves one value, and reports whether there may be more.
func forwardChan[T any](ctx context.Context, ch <-chan T, c *Chan[T]) bool {
	p, err := c.reserveBlocking(ctx)
	if err != nil {
		return false
	}
	defer p.Release()
	select {
	case v, open := <-ch:
		if open {
			p.Send(v)
		}
		return open
	case <-ctx.Done():
		return false
	}
}

// WaitGroupDone waits until the count of a sync.WaitGroup is zero. It costs a goroutine for
// each call, which outlives it if cx is cancelled; see WaitGroupDoneFuture. A WaitGroup of this
// package costs none. It fails only with cx.Err(), if cx is cancelled.
func WaitGroupDone(cx *Context, wg *sync.WaitGroup) error {
	_, err := Await(cx, WaitGroupDoneFuture(wg))
	return err
}

// WaitGroupDoneFuture returns a future that is ready when the count of wg is zero. A goroutine
// waits for that, from the first poll on. Since a sync.WaitGroup offers no way out of Wait,
// the goroutine goes on waiting if the future is given up.
func WaitGroupDoneFuture(wg *sync.WaitGroup) Future[None] { return &groupDone{wg: wg} }

type groupDone struct {
	wg *sync.WaitGroup
	o  *Oneshot[None]
}

func (g *groupDone) Poll(cx *Context) (None, error) {
	if g.o == nil {
		o := new(Oneshot[None])
		g.o = o
		go func() {
			g.wg.Wait()
			o.Send(None{})
		}()
	}
	return g.o.Poll(cx)
}

// ContextDone waits until ctx has ended, and returns nil then; see ContextDoneFuture. It
// fails only with cx.Err(), if cx is cancelled.
func ContextDone(cx *Context, ctx context.Context) error {
	_, err := Await(cx, ContextDoneFuture(ctx))
	return err
}

// ContextDoneFuture returns a future that is ready when ctx has ended. It waits by
// context.AfterFunc, without a goroutine, unless ctx is of a type of its own that
// the context package does not know. Given up, it leaves nothing behind.
func ContextDoneFuture(ctx context.Context) Future[None] {
	d := new(contextDone)
	d.ctx, d.release = contextOutsideBubble(ctx)
	return d
}

type contextDone struct {
	ctx     context.Context
	release func()
	o       *Oneshot[None]
	stop    func() bool
}

func (d *contextDone) Poll(cx *Context) (None, error) {
	if d.ctx.Err() != nil {
		if !cx.spend() {
			return None{}, ErrPending
		}
		d.Cancel()
		return None{}, nil
	}
	if d.o == nil {
		o := new(Oneshot[None])
		d.o, d.stop = o, context.AfterFunc(d.ctx, func() { o.Send(None{}) })
	}
	return d.o.Poll(cx)
}

// Cancel implements canceler.
func (d *contextDone) Cancel() {
	if d.stop != nil {
		d.stop()
	}
	d.release()
}
