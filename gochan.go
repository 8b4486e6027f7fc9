package async

import (
	"context"
	"sync"
)

// RecvFrom waits for a value of a Go channel and returns it. It is for tasks that exchange values
// with code that uses only Go channels; between tasks use a [Chan]. It fails with [ErrClosed] if ch
// is closed, and with cx.Err() if cx is cancelled. Cancelling loses no value: if a value was
// received by then, RecvFrom returns it.
//
// If there is no value yet, RecvFrom starts a goroutine that waits for it and ends with the wait.
// This costs some 3 KiB, and two wakes of threads. For many values, [FromGoChan] costs less.
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

// closedUnless returns the error of a receive from a Go channel that is open or not.
func closedUnless(open bool) error {
	if open {
		return nil
	}
	return ErrClosed
}

// SendTo waits until v was sent to a Go channel. The value was sent if SendTo returns nil, even if
// cx was cancelled in the meantime. With any other error it was not sent: [ErrClosed] if ch is
// closed, cx.Err() if cx is cancelled. It costs as much as [RecvFrom]. To close a Go channel while
// other code may be sending to it is a data race, for tasks as for goroutines.
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

// sendRefused is deferred by a send. A send on a closed Go channel panics; sendRefused makes this
// panic an ErrClosed. Nothing else panics there.
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

// viaGoroutine does an operation on a Go channel for a task.
//
//  1. It calls try. try reports ok if it has done the operation; if it has done it or has failed,
//     this is the result.
//  2. If not, a goroutine calls block, and the task waits for the result in a Oneshot.
//  3. If the task is cancelled, it closes stop and goes on waiting until block returns. So it can
//     tell whether the operation was done: if block returns errAbandoned it was not done, and the
//     result is cx.Err().
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

// FromGoChan returns a [Chan] of the values of a Go channel, for [Select] and for tasks that
// receive many values. One goroutine moves the values. It takes up to n values from ch before a
// receiver asks for them; if n is large, many values share the wakes of threads. The Chan is closed
// when ch is closed or when ctx ends. No value that was taken from ch is lost then. To stop early,
// end ctx. Do not close the Chan: its receivers would see that only after the next value of ch.
// FromGoChan panics if n is negative.
func FromGoChan[T any](ctx context.Context, ch <-chan T, n int) *Chan[T] {
	c := NewChan[T](n)
	go func() {
		defer c.Close()
		for forwardChan(ctx, ch, c) {
		}
	}()
	return c
}

// forwardChan moves one value, and reports whether there may be more. It reserves room first: a
// value that was taken from ch can always be sent.
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

// WaitGroupDone waits until the count of a [sync.WaitGroup] is zero. It starts a goroutine for each
// call. If cx is cancelled, it fails with cx.Err() and the goroutine goes on waiting; see
// [WaitGroupDoneFuture]. It has no other error. A [WaitGroup] of this package needs no goroutine.
func WaitGroupDone(cx *Context, wg *sync.WaitGroup) error {
	_, err := Await(cx, WaitGroupDoneFuture(wg))
	return err
}

// WaitGroupDoneFuture returns the future of [WaitGroupDone]: it is ready when the count of wg is
// zero. From the first poll on a goroutine waits for this. A [sync.WaitGroup] has no way to end a
// Wait early, so the goroutine goes on waiting if the future is given up.
func WaitGroupDoneFuture(wg *sync.WaitGroup) Future[None] { return &groupDone{wg: wg} }

// groupDone is the future of WaitGroupDone.
type groupDone struct {
	wg *sync.WaitGroup
	o  *Oneshot[None] // the goroutine sends to it; nil before the first poll
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

// abandoned implements abandoner: the goroutine goes on waiting, and must not keep the task.
func (g *groupDone) abandoned(t *task, from *worker) {
	if g.o != nil {
		g.o.abandoned(t, from)
	}
}

// ContextDone waits until ctx has ended, and then returns nil, whatever the reason of this end; see
// [ContextDoneFuture]. It fails only if cx is cancelled, with cx.Err().
func ContextDone(cx *Context, ctx context.Context) error {
	_, err := Await(cx, ContextDoneFuture(ctx))
	return err
}

// ContextDoneFuture returns the future of [ContextDone]: it is ready when ctx has ended. It waits
// by [context.AfterFunc]. That needs no goroutine, unless ctx has a type that the context package
// does not know. Giving the future up leaves nothing behind.
func ContextDoneFuture(ctx context.Context) Future[None] {
	d := new(contextDone)
	d.ctx, d.release = contextOutsideBubble(ctx)
	return d
}

// contextDone is the future of ContextDone.
type contextDone struct {
	ctx     context.Context // see contextOutsideBubble
	release func()
	o       *Oneshot[None] // AfterFunc sends to it; nil before the first poll that waits
	stop    func() bool    // stops the AfterFunc
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
