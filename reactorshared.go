package async

import (
	"context"
	"runtime/pprof"
	"sync/atomic"
	"time"
)

// sharedReactor is the reactor for waiters that no worker runs: goroutines, and loops that poll
// futures themselves. An ordinary goroutine serves it, so a goroutine that it wakes runs where Go's
// scheduler would run it. A worker cannot do that well. Its thread must run nothing but the worker,
// so it would have to pass each goroutine that it wakes to another thread.
//
// Its life, and how its end is safe:
//
//  1. acquire opens the reactor when the first waiter has to wait. Under mu it reads closed, makes
//     exited, stores the reactor and starts the goroutine. So after close no goroutine is started.
//  2. The goroutine (run) serves the reactor while closed is not set: from Go's netpoller where the
//     platform can do that, or else in a wait of the poller.
//  3. close sets closed under mu, and then writes to the pipe of the reactor, if there is one.
//     Later acquire stores no reactor, by step 1. So the goroutine sees closed before it waits, or
//     the byte in the pipe ends its wait.
//  4. The goroutine closes the reactor, and only then notifies the waiters of its descriptors. A
//     waiter joins its slot and then reads reactor.closed (pollFD.wait). So it is notified, or sees
//     that the reactor is closed, and returns ErrShutdown.
//  5. The goroutine closes exited, for which awaitEnd waits.
type sharedReactor struct {
	fds     *fdTable                // of the runtime
	reactor atomic.Pointer[reactor] // nil until a waiter has to wait; set once
	closed  atomic.Bool             // written under mu

	mu     lockOf[sharedReactor]
	exited chan None // closed when the goroutine has ended; nil if it was never started
}

// acquire returns the reactor. It opens the reactor and starts its goroutine if that was not done
// before. It fails with ErrShutdown if l was closed before the reactor was opened.
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

// run serves the reactor until l is closed. See the steps at sharedReactor.
func (l *sharedReactor) run(r *reactor) {
	// The goroutine does not keep the labels of the first waiter.
	pprof.SetGoroutineLabels(context.Background())
	g := getg()
	identities.add(g, sharedReactorIdentity)
	defer identities.remove(g)
	look := func(timeout time.Duration) (all bool) {
		events := r.wait(timeout, timeout == 0)
		r.dispatch(nil, events)
		// Fewer events than there is room for are all events: a signal does not end a wait without
		// timeout.
		return len(events) < len(r.events)
	}
	if r.joinNetpoller() {
		// Go's netpoller is edge-triggered: it reports the poller once, when it becomes ready. So
		// each call looks until all events are taken.
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

// close ends the shared reactor. Its waiters look again and get ErrShutdown.
func (l *sharedReactor) close() {
	l.mu.Lock()
	l.closed.Store(true)
	l.mu.Unlock()
	if r := l.reactor.Load(); r != nil {
		r.wake()
	}
}

// awaitEnd waits until the goroutine has ended, or until ctx ends.
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

// registered returns the number of descriptors that are registered with the shared reactor.
func (l *sharedReactor) registered() int {
	if r := l.reactor.Load(); r != nil {
		return int(r.registered.Load())
	}
	return 0
}
