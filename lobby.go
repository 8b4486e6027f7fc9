package async

import (
	"context"
	"runtime/pprof"
	"sync/atomic"
	"time"
)

// lobby is where those wait for descriptors whom no worker runs: goroutines, and loops
// that poll futures themselves. Its reactor is served by an ordinary goroutine, so
// that whom it wakes runs where the Go scheduler would have it run. A worker that wakes
// a goroutine has to hand it to another thread, each time, since its own must run
// nothing else.
//
// It is opened when the first of them has to wait.
type lobby struct {
	fds     *fdTable
	reactor atomic.Pointer[reactor]
	closed  atomic.Bool

	mu   lockOf[lobby]
	quit chan None // closed when its goroutine has ended; nil if there was none
}

// enter returns the reactor for what waits here.
func (l *lobby) enter() (*reactor, error) {
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
	callersWorker().readies()
	goOutside(func() { l.serve(r) })
	return r, nil
}

// serve wakes those who wait, until the lobby is closed.
func (l *lobby) serve(r *reactor) {
	pprof.SetGoroutineLabels(context.Background()) // not those of whoever has come first
	g := getg()
	identities.add(g, lobbyIdentity)
	defer identities.remove(g)
	look := func(timeout time.Duration) (all bool) {
		events := r.wait(timeout, timeout == 0)
		r.dispatch(nil, events)
		return len(events) < len(r.events) // no signal ends a wait of no time
	}
	if r.share() {
		r.watch(func() (over bool) {
			for !l.closed.Load() && !look(0) {
			}
			return l.closed.Load()
		})
	}
	for !l.closed.Load() {
		look(-1)
	}
	r.close()
	r.fds.stir(r)
	close(l.quit)
}

// close ends the lobby, and has those who wait look again.
func (l *lobby) close() {
	l.mu.Lock()
	l.closed.Store(true)
	l.mu.Unlock()
	if r := l.reactor.Load(); r != nil {
		r.wake()
	}
}

// awaitEnd waits until that is done, or ctx has ended.
func (l *lobby) awaitEnd(ctx context.Context) {
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

// sources returns how many descriptors are waited for here.
func (l *lobby) sources() int {
	if r := l.reactor.Load(); r != nil {
		return int(r.sources.Load())
	}
	return 0
}
