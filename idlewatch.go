package async

import (
	"context"
	"fmt"
	"runtime/pprof"
	"sync/atomic"
	"time"
)

// idleWatch lets workers park that have had nothing to do for keepP: they wait like goroutines of package
// net, without a P. Its own goroutine waits in Go's netpoller for the pollers of the workers without a P, and
// unparks those that have events.
//
// A worker that waits in the kernel has a P, so sysmon preempts it every 10 ms; or the scheduler knows of the
// wait, takes the P, and sysmon looks at all Ps every 20 µs for a while after the worker has woken. Neither
// happens to a worker that is parked without a P. See docs/design.md, "Waiting".
//
// As for connections of package net, a thread of the scheduler has to wait in the netpoller, or only sysmon
// looks for events, every 10 ms. When such a thread runs the goroutine of the idleWatch, which makes a worker
// runnable, the scheduler starts another thread. One of the two hands its P to the worker and stops; the other
// finds nothing to do and goes to the netpoller.
type idleWatch struct {
	usable bool                   // pollers can be watched on this system
	byFd   map[int]*worker        // by the descriptors of their pollers; not changed after open
	ready  [eventsPerWait]fdEvent // for the goroutine only
	exited chan None              // closed when the goroutine has ended

	mu     lockOf[idleWatch] // held by the workers to use the poller, so that they do not use it after close
	closed atomic.Bool
	poller poller // of the pollers of the workers
}

// open makes i usable, or leaves nothing behind.
func (i *idleWatch) open(workers []*worker) error {
	if err := i.poller.open(); err != nil {
		return err
	}
	i.byFd = make(map[int]*worker, len(workers))
	for _, w := range workers {
		w.withoutPWake = newChan[struct{}](1)
		w.parkTimer = time.NewTimer(0)
		i.byFd[w.reactor.fd] = w
		if err := i.poller.arm(w.reactor.fd, 0, OnceTriggered, false); err != nil {
			i.poller.close()
			return fmt.Errorf("async: cannot watch the poller of a worker: %w", err)
		}
	}
	i.exited = newChan[None](0)
	i.usable = i.poller.joinNetpoller()
	return nil
}

// run is the goroutine.
func (i *idleWatch) run() {
	defer close(i.exited)
	pprof.SetGoroutineLabels(context.Background()) // not those of the caller of New
	if i.usable {
		i.poller.serveFromNetpoller(i.look)
	}
}

// look unparks the workers that have events.
func (i *idleWatch) look() (over bool) {
	for !i.closed.Load() {
		n, err := i.poller.wait(i.ready[:], 0, true)
		mustWait(err)
		for _, e := range i.ready[:n] {
			i.byFd[e.fd].unparkWithoutP()
		}
		if n < len(i.ready) {
			return false
		}
	}
	return true
}

// arm has w's poller watched until its next event, or no longer if on is false. It fails after close.
func (i *idleWatch) arm(w *worker, on bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed.Load() {
		return ErrShutdown
	}
	want := Readiness(0)
	if on {
		want = Readable
	}
	return i.poller.arm(w.reactor.fd, want, OnceTriggered, true)
}

// close ends the goroutine, and unparks workers for which Shutdown has not waited.
func (i *idleWatch) close() {
	i.mu.Lock()
	i.closed.Store(true)
	i.poller.close()
	i.mu.Unlock()
	for _, w := range i.byFd {
		w.unparkWithoutP()
	}
	<-i.exited
}

// parkWithoutP waits until w is unparked, its poller has events, or the timeout is over; for ever if that is negative.
//
// Against a lost wake-up:
//
//  1. The worker sets asleep, then looks for work (park), takes an old token out of withoutPWake, sets
//     withoutP, and has its poller watched, which also reports what came before. Then it waits for a token.
//  2. The sender writes its message, clears asleep, and reads withoutP (unpark). If that is set, it sends a token;
//     if not, it writes to the pipe that the worker's poller watches.
func (w *worker) parkWithoutP(timeout time.Duration) {
	i := &w.rt.idle
	select {
	case <-w.withoutPWake: // of the last time
	default:
	}
	w.withoutP.Store(true)
	defer w.withoutP.Store(false)
	if i.arm(w, true) != nil { // also reports an event that came before
		return
	}
	if timeout < 0 {
		<-w.withoutPWake
	} else {
		w.parkTimer.Reset(timeout)
		select {
		case <-w.withoutPWake:
			w.parkTimer.Stop()
		case <-w.parkTimer.C:
		}
	}
	i.arm(w, false)
}

// unparkWithoutP makes w's parkWithoutP return. If w is not in it, the next one may return at once.
func (w *worker) unparkWithoutP() { notifyChan(w.withoutPWake) }
