package async

import (
	"context"
	"sync"
)

// goroutineParker is what a goroutine outside the pool waits with for a future of
// this package: a head for the slots and lists, and a place to sleep. It is used
// again, by others: a wake that comes too late is one too many.
type goroutineParker struct {
	externalWaker
	woken chan struct{} // capacity 1
	own   waiter        // for awaits that are given up before the spot is

	ctx     context.Context // see contextOfWait; nil if it has not parked yet
	release func()
}

var goroutineParkers = sync.Pool{New: func() any {
	p := &goroutineParker{woken: newChan[struct{}](1)}
	p.kind, p.body, p.cx.t = kindExternal, p, &p.task
	p.fn = func() { notifyChan(p.woken) }
	return p
}}

func takeParker() *goroutineParker { return goroutineParkers.Get().(*goroutineParker) }

func (p *goroutineParker) free() {
	if p.ctx != nil {
		p.release()
		p.ctx, p.release = nil, nil
	}
	goroutineParkers.Put(p)
}

// park waits for a wake, or for the end of ctx, whose error it returns. It is always
// called with the same ctx.
func (p *goroutineParker) park(ctx context.Context) error {
	if p.ctx == nil {
		p.ctx, p.release = contextOfWait(ctx)
	}
	select {
	case <-p.woken:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// waitBlocking is Await for a goroutine outside the pool, which has a ctx and no
// cx, and for futures that need no worker.
func waitBlocking[T any](ctx context.Context, f Future[T]) (T, error) {
	p := takeParker()
	defer p.free()
	for {
		v, err := f.Poll(&p.cx)
		if err != ErrPending {
			return v, err
		}
		if err := p.park(ctx); err != nil {
			giveUp(&p.task, f)
			return v, err
		}
	}
}

// notifyChan makes one value wait in a channel of capacity 1.
func notifyChan(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
