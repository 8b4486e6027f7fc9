package async

import (
	"context"
	"runtime/pprof"
	"sync/atomic"
	"time"
)

// sharedReactor is the reactor for waiters that no worker runs: goroutines, and loops
// that poll futures themselves. It is served by an ordinary goroutine, so that a
// goroutine that it wakes runs where the Go scheduler would run it. A worker that wakes
// a goroutine has to hand it to another thread, each time, since its own thread must run
// nothing else.
//
// It is opened when the first such waiter has to wait.
type sharedReactor struct {
	fds     *fdTable
	reactor atomic.Pointer[reactor]
	closed  atomic.Bool

	mu     lockOf[sharedReactor]
	exited chan None // closed when its goroutine has ended; nil if there was none
}

// acquire returns the reactor, and opens it if it is not open yet. It fails with ErrShutdown
// if l was closed before that.
func (l *sharedReactor) acquire() (*reactor, error) {
	if r := l.reactor.Load(); r != nil {
		return r, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.reactor.Load(); r != nil {
		return r, nil
	}
	if l.closed.Load() {
		return nil, ErrShutdown
	}
	r := &reactor{shared: true}
	if err := r.open(l.fds); err != nil {
		return nil, err
	}
	l.exited = newChan[None](0)
	l.reactor.Store(r)
	callersWorker().noteRunnable()
	goOutsideBubble(func() { l.run(r) })
	return r, nil
}

// run wakes the waiters, until l is closed.
func (l *sharedReactor) run(r *reactor) {
	pprof.SetGoroutineLabels(context.Background()) // not the labels of the first caller
	g := getg()
	identities.add(g, sharedReactorIdentity)
	defer identities.remove(g)
	look := func(timeout time.Duration) (all bool) {
		events := r.wait(timeout, timeout == 0)
		r.dispatch(nil, events)
		return len(events) < len(r.events) // no signal ends a wait of no time
	}
	if r.joinNetpoller() {
		r.serveFromNetpoller(func() (over bool) {
			for !l.closed.Load() && !look(0) {
			}
			return l.closed.Load()
		})
	}
	for !l.closed.Load() {
		look(-1)
	}
	r.close()
	r.fds.notifyAll(r)
	close(l.exited)
}

// close ends the shared reactor, and has the waiters look again.
func (l *sharedReactor) close() {
	l.mu.Lock()
	l.closed.Store(true)
	l.mu.Unlock()
	if r := l.reactor.Load(); r != nil {
		r.wake()
	}
}

// awaitEnd waits until run has returned, or ctx has ended.
func (l *sharedReactor) awaitEnd(ctx context.Context) {
	l.mu.Lock()
	quit := l.exited
	l.mu.Unlock()
	if quit == nil {
		return
	}
	select {
	case <-quit:
	case <-ctx.Done():
	}
}

// registered returns how many descriptors are registered with the shared reactor.
func (l *sharedReactor) registered() int {
	if r := l.reactor.Load(); r != nil {
		return int(r.registered.Load())
	}
	return 0
}
