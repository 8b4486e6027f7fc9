package async

import (
	"context"
	"runtime/pprof"
	"sync/atomic"
	"time"
)

// sharedReactor is where those wait for descriptors whom no worker runs: goroutines, and loops
// that poll futures themselves. Its reactor is served by an ordinary goroutine, so
// that whom it wakes runs where the Go scheduler would have it run. A worker that wakes
// a goroutine has to hand it to another thread, each time, since its own must run
// nothing else.
//
// It is opened when the first of them has to wait.
type sharedReactor struct {
	fds     *fdTable
	reactor atomic.Pointer[reactor]
	closed  atomic.Bool

	mu   lockOf[sharedReactor]
	quit chan None // closed when its goroutine has ended; nil if there was none
}

// acquire returns the reactor for what waits here.
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
	l.quit = newChan[None](0)
	l.reactor.Store(r)
	callersWorker().noteRunnable()
	goOutsideBubble(func() { l.run(r) })
	return r, nil
}

// run wakes those who wait, until the lobby is closed.
func (l *sharedReactor) run(r *reactor) {
	pprof.SetGoroutineLabels(context.Background()) // not those of whoever has come first
	g := getg()
	identities.add(g, sharedReactorIdentity)
	defer identities.remove(g)
	look := func(timeout time.Duration) (all bool) {
		events := r.wait(timeout, timeout == 0)
		r.dispatch(nil, events)
		return len(events) < len(r.events) // no signal ends a wait of no time
	}
	if r.share() {
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
	close(l.quit)
}

// close ends the lobby, and has those who wait look again.
func (l *sharedReactor) close() {
	l.mu.Lock()
	l.closed.Store(true)
	l.mu.Unlock()
	if r := l.reactor.Load(); r != nil {
		r.wake()
	}
}

// awaitEnd waits until that is done, or ctx has ended.
func (l *sharedReactor) awaitEnd(ctx context.Context) {
	l.mu.Lock()
	quit := l.quit
	l.mu.Unlock()
	if quit == nil {
		return
	}
	select {
	case <-quit:
	case <-ctx.Done():
	}
}

// registered returns how many descriptors are waited for here.
func (l *sharedReactor) registered() int {
	if r := l.reactor.Load(); r != nil {
		return int(r.sources.Load())
	}
	return 0
}
