package async

import (
	"context"
	"fmt"
	"runtime/pprof"
	"sync/atomic"
	"time"
)

// idleWatch lets a worker park without a P, once the worker has had nothing to do for keepP. The
// worker then waits as a goroutine of package net does: the goroutine of the idleWatch waits in
// Go's netpoller for the worker's poller, and unparks the worker when its poller has events.
// idle.go has the steps and the races.
//
// The chain of pollers is: the descriptors of a worker are in the worker's poller; the pollers of
// all workers are in the poller of the idleWatch; and this one is in Go's netpoller. The kernel
// allows a depth of five.
//
// A worker that waits in the kernel instead has one of two costs. If the scheduler does not see the
// call, the worker keeps its P, and sysmon preempts it every 10 ms. If the scheduler sees the call,
// it takes the P, and sysmon looks at all Ps every 20 µs for a while after the worker has woken.
// See docs/design.md, "Waiting".
//
// The pollers of the workers are registered with the poller of the idleWatch from the beginning,
// and are armed for one event while their worker is parked without a P. Refused: to register a
// poller only when its worker parks. The kernel looks for loops among all descriptors of the worker
// at each registration.
//
// As for connections of package net, a thread of the scheduler has to wait in the netpoller.
// Otherwise only sysmon looks for events, every 10 ms. When such a thread runs the goroutine of the
// idleWatch, which makes a worker runnable, the scheduler starts another thread. One of the two
// threads hands its P to the worker and stops. The second thread finds nothing to do and goes to
// the netpoller.
type idleWatch struct {
	usable bool                   // pollers can be watched on this system
	byFd   map[int]*worker        // by the descriptor of their poller; not changed after open
	ready  [eventsPerWait]fdEvent // used by the goroutine only
	exited chan None              // closed when the goroutine has ended

	mu     lockOf[idleWatch] // held by a worker that uses the poller, so that none uses it after close
	closed atomic.Bool
	poller poller // watches the pollers of the workers
}

// open makes i usable, or leaves nothing open. On a system where pollers cannot be watched it
// succeeds, and usable is false: workers then never park without a P.
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

// run is the goroutine of the idleWatch. It ends when close closes the poller.
func (i *idleWatch) run() {
	defer close(i.exited)
	pprof.SetGoroutineLabels(context.Background()) // not the labels of the caller of New
	if i.usable {
		i.poller.serveFromNetpoller(i.look)
	}
}

// look unparks the workers that have events. The goroutine calls it when the poller may have
// events. It reports true once i is closed. It fetches events until the buffer is not filled: Go's
// netpoller is edge-triggered, and reports no event that was left.
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

// arm makes i watch the poller of w until its next event, or no longer if on is false. An event
// that is there already is reported, too. It fails with ErrShutdown after close.
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

// close ends the goroutine and waits for it. It unparks the workers for which Shutdown has not
// waited. closed is set under mu: a worker that arms its poller before that gets the token from
// close, and a worker that arms it later gets an error.
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

// parkWithoutP waits until w is unparked, its poller has events, or the timeout has passed; a
// negative timeout means without limit. It is step 5 of the worker in idle.go, and has these steps:
//
//  1. Remove an old token from withoutPWake. It is of a sender that was late for an earlier park.
//  2. Set withoutP. From now on senders send a token. A sender that has read withoutP before writes
//     to the pipe, which the poller of w watches.
//  3. Arm the idleWatch. If the pipe has a byte already, or a descriptor has an event, the
//     idleWatch sends a token at once.
//  4. Wait for a token, or for parkTimer. The token and the timer are both channels, so the
//     goroutine waits as any goroutine does, and the scheduler gives its P to other goroutines.
//  5. Disarm the idleWatch, and clear withoutP.
//
// The caller then fetches the events from the poller: the idleWatch only says that there are some.
func (w *worker) parkWithoutP(timeout time.Duration) {
	i := &w.rt.idle
	select {
	case <-w.withoutPWake:
	default:
	}
	w.withoutP.Store(true)
	defer w.withoutP.Store(false)
	if i.arm(w, true) != nil {
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

// unparkWithoutP makes parkWithoutP of w return. If w is not in it, the next call removes the
// token, or returns early if the token is sent after that.
func (w *worker) unparkWithoutP() { notifyChan(w.withoutPWake) }
