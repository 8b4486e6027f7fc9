package async

import (
	"context"
	"sync"
)

// parkingSpot is what a goroutine outside the pool waits with for a future of
// this package: a head for the slots and lists, and a place to sleep. It is used
// again, by others: a wake that comes too late is one too many.
type parkingSpot struct {
	outsider
	woken chan struct{} // capacity 1
	own   waiter        // for awaits that are given up before the spot is
}

var parkingSpots = sync.Pool{New: func() any {
	p := &parkingSpot{woken: make(chan struct{}, 1)}
	p.kind, p.body, p.cx.t = kindOutsider, p, &p.task
	p.fn = func() { notify(p.woken) }
	return p
}}

// waitBlocking is Await for a goroutine outside the pool, which has a ctx and no
// cx, and for futures that need no worker.
func waitBlocking[T any](ctx context.Context, f Future[T]) (T, error) {
	p := parkingSpots.Get().(*parkingSpot)
	defer parkingSpots.Put(p)
	for {
		v, err := f.Poll(&p.cx)
		if err != ErrPending {
			return v, err
		}
		select {
		case <-p.woken:
		case <-ctx.Done():
			giveUp(f)
			return v, ctx.Err()
		}
	}
}
