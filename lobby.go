package async

import (
	"context"
	"sync"
	"sync/atomic"
)

// lobby is where those wait for descriptors whom no worker runs: goroutines, and loops
// that poll futures themselves. Its reactor is served by an ordinary goroutine, so
// that whom it wakes runs where the Go scheduler would have it run. A worker that wakes
// a goroutine has to hand it to another thread, each time, since its own must run
// nothing else.
//
// It is opened when the first of them has to wait.
type lobby struct {
	reactor atomic.Pointer[reactor]

	mu     sync.Mutex
	closed bool
	quit   chan None // closed when its goroutine has ended
}

// enter returns the reactor for a descriptor of rt that waits here.
func (l *lobby) enter(rt *Runtime) (*reactor, error) {
	if r := l.reactor.Load(); r != nil {
		return r, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.reactor.Load(); r != nil {
		return r, nil
	}
	if l.closed {
		return nil, ErrShutdown
	}
	r := new(reactor)
	if err := r.open(&rt.fds, true); err != nil {
		return nil, err
	}
	l.quit = make(chan None)
	l.reactor.Store(r)
	go l.serve(r)
	return r, nil
}

// serve wakes those who wait until the runtime ends.
func (l *lobby) serve(r *reactor) {
	defer close(l.quit)
	err := r.each(r.events[:], func(events []event) (more bool) {
		r.dispatch(nil, events)
		return !r.ending.Load()
	})
	r.must(err)
	r.close()
	r.fds.stir(r)
}

// close ends the lobby, and has those who wait look again. It waits until that is done,
// or ctx has ended.
func (l *lobby) close(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	r := l.reactor.Load()
	if r == nil {
		return
	}
	r.ending.Store(true)
	r.wake()
	select {
	case <-l.quit:
	case <-ctx.Done():
	}
}

// sources returns how many descriptors are waited for here.
func (l *lobby) sources() int {
	if r := l.reactor.Load(); r != nil {
		return int(r.sources.Load())
	}
	return 0
}
