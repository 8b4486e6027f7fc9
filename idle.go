package async

import (
	"math"
	"runtime"
	"time"
)

// Sleeping and waking.
//
// A worker that has nothing to do first spins, if that has paid before (idlespin.go), and then
// parks. A worker parks in one of three ways (parkMode):
//
//   - parkKeepsP: in the kernel, by a raw system call that Go's scheduler does not see. The worker
//     keeps its P. This is the cheapest way while events follow each other quickly. But the P is
//     idle, and sysmon preempts the thread every 10 ms.
//   - parkTellsScheduler: in the kernel, by a system call that the scheduler sees. sysmon may take
//     the P, and gives it to goroutines. The worker waits for a P after the call.
//   - parkGivesUpP: without a P, like a goroutine of package net (idlewatch.go). The worker waits
//     for a token in withoutPWake. The goroutine of the idleWatch waits for its events.
//
// A parked worker is unparked as follows:
//
//	         by an event      by a message                  at its next timer
//	kernel   the kernel       a byte in the reactor's pipe  the timeout of the call
//	no P     the idleWatch    a token                       parkTimer, timerLead before it
//
// A message is a task in the inbox, a dropped timer, Runtime.stopping, or a request for counts. It
// may also be a request to steal tasks, for which weaker rules hold; see executorsteal.go.
//
// # The worker that goes to sleep
//
//  1. Find nothing to do: the round, the inbox, the timers, and the workers that want a thief
//     (turns).
//  2. Set asleep (park).
//  3. Read the inbox, the dropped timers, stopping and countRequests. If there is a message, clear
//     asleep and take another turn.
//  4. Choose how to park, and for how long (chooseParkMode).
//  5. If the way is parkGivesUpP, wait without a P (parkWithoutP). Afterwards go on with a timeout
//     of 0, to fetch the events.
//  6. Wait in the kernel for events. A byte in the pipe is an event, too.
//  7. Change turn, then clear asleep.
//  8. Read the clock, begin a heartbeat of the watchdog, and dispatch the events. Take another
//     turn, which first polls the tasks of the events and then takes the messages.
//
// # The sender that wakes it
//
//  1. Write the message. For example, push a task to the inbox (send).
//  2. Read asleep. If it is clear, there is nothing more to do.
//  3. Change turn.
//  4. Clear asleep by a compare-and-swap. Only the sender that succeeds goes on. So many messages
//     to a sleeping worker cost one wake.
//  5. Read withoutP. If it is set, send a token. If it is clear, write a byte to the pipe.
//
// # The races
//
// Lost wake-up. The worker writes asleep (2) and then reads the messages (3). The sender writes a
// message (1) and then reads asleep (2). Go's atomic operations are in one total order, so the
// worker sees the message, or the sender sees that it must unpark the worker. Both may happen. Then
// the wake is spurious: it ends the next park early.
//
// A message that is sent after step 3 finds asleep set. Its byte or token ends the steps 5 and 6,
// even if it is sent before the worker has reached them.
//
// The way of the wake. The worker sets asleep, and later sets withoutP and has its poller watched.
// The sender may read withoutP before that, and then writes to the pipe. The idleWatch is armed
// after withoutP is set, and arming reports also an event that is there already, so it sends the
// token. If the sender reads that withoutP is set, it sends the token itself.
//
// An old token. A sender may read withoutP, and send its token only after the worker has been
// unparked by an event. The next park without a P removes this token before it sets withoutP. It
// cannot remove a token that is for itself: no sender sends one before withoutP is set. If an old
// token arrives even later, that park ends early, and the worker takes a turn that finds nothing.
//
// The watchdog. It takes a worker to be stuck whose turn does not change and that is not asleep. A
// sender changes turn before it clears asleep (3, 4), and the watchdog reads asleep before turn. So
// a worker that was unparked, but does not run yet, looks as if it had just begun a turn. The same
// holds for step 7.

// wait waits until w has something to do, or for a while. It reports true if w has parked: then
// reactorPolledAt is the time. Without a park it has looked for events once, or spun, or has found
// a message.
func (w *worker) wait(now int64) (parked bool) {
	switch {
	case now-w.lastWork < int64(w.rt.cfg.Tuning.Spin):
		w.spin()
		return false
	case w.spinForReply(now):
		return false
	}
	return w.park(now)
}

// park waits for an event, a message or a timer, in the kernel or without a P. It reports false if
// it has not waited, because there is a message. The steps and the races are at the head of this
// file.
//
// A park is also the moment for work that a busy worker puts off: it shows that no task is polled,
// so that the task that ran last can be collected; publishes the counts, before a park that may be
// long; and disarms the watchdog, if the park is likely to outlast the watchdog's timeout. It is
// taken to be likely if the worker had nothing to do for that long before its last work, or has had
// nothing to do for keepP.
func (w *worker) park(now int64) (waited bool) {
	w.asleep.Store(true)
	if w.inbox.Load() != nil || w.dropped.Load() != nil || w.rt.stopping.Load() || w.acked.Load() != w.rt.countRequests.Load() {
		w.asleep.Store(false)
		w.stopped = w.rt.stopping.Load()
		return false
	}
	w.setVisible(nil)
	w.counts[countWaits]++
	w.parkedTime.Store(w.parkedTime.Load() - now)
	timeout, how := w.chooseParkMode(now)
	if how != parkKeepsP || now-w.publishedAt >= publishEvery {
		w.publish(now)
	}
	if w.idleGap >= w.rt.watchdog.timeout || now-w.lastWork >= int64(keepP) {
		w.rt.watchdog.disarm(w)
	}
	if how == parkGivesUpP {
		w.parkWithoutP(timeout)
		timeout = 0
	}
	if how == parkTellsScheduler && w.rt.cfg.SharedProcs {
		// Otherwise the goroutines in the queue of its P would wait until sysmon takes the P.
		runtime.Gosched()
	}
	events := w.reactor.wait(timeout, how != parkTellsScheduler)
	w.turn.Add(1) // before asleep is cleared, as in unpark
	w.asleep.Store(false)
	w.reactorPolledAt = nanos()
	slept := w.reactorPolledAt - now
	w.parkedTime.Store(w.parkedTime.Load() + w.reactorPolledAt)
	w.idleGap = w.reactorPolledAt - w.lastWork
	w.rt.watchdog.heartbeat(w, w.reactorPolledAt)
	w.workerSpin.slept(w.inbox.Load() != nil, slept)
	w.peerSpin.slept(w.samePeer(events), slept)
	w.reactor.dispatch(w, events)
	if len(events) > 0 {
		w.lastWork = w.reactorPolledAt
	}
	return true
}

// parkMode says how a worker parks; see the head of this file.
type parkMode int

const (
	parkKeepsP         parkMode = iota // in the kernel, and the scheduler does not see it
	parkTellsScheduler                 // in the kernel, and the scheduler may take the P
	parkGivesUpP                       // without a P; see parkWithoutP
)

// timerLead is how long before its next timer a worker without a P must be unparked. Go's own
// timers may be a millisecond late while nothing else runs, and later than that if goroutines use
// all processors.
const timerLead = 2 * time.Millisecond

// chooseParkMode returns how w parks, and for how long; a negative timeout means without limit.
//
// The rules, of which a later one overrides an earlier one:
//
//  1. The scheduler sees the call (parkTellsScheduler).
//  2. The worker keeps its P if it has descriptors, which may soon have events, and if the runtime
//     has raised GOMAXPROCS for it. A worker without descriptors waits for another thread, and a
//     raw wait would only make each stop of the world of the garbage collector send signals.
//  3. When keepP has passed since its last work, it gives up its P. The timeout of the ways 1 and 2
//     ends at that time, and the worker then parks again.
//  4. If it has made goroutines runnable, they stand in the queue of its P, and it gives up the P
//     at once.
//  5. It does not give up its P if its next timer is due within timerLead, or if the system cannot
//     watch pollers. On such a system the scheduler sees the call, and the wait has no limit.
//
// The timeout also ends at the next timer (timerLead before it, for parkGivesUpP), and at the next
// trim if there are more free coroutines than keepFree.
func (w *worker) chooseParkMode(now int64) (timeout time.Duration, how parkMode) {
	const forEver = time.Duration(math.MaxInt64)
	how = parkTellsScheduler
	runnable := w.madeRunnable
	w.madeRunnable = false
	if w.rt.ownProcs.raised.Load() && !runnable && w.reactor.registered.Load() > 0 {
		how = parkKeepsP
	}
	timer := forEver
	if at, ok := w.timers.next(); ok {
		timer = max(time.Duration(at-nanos()), 0)
	}
	timeout = time.Duration(w.lastWork-now) + keepP
	if how == parkTellsScheduler && !w.rt.idle.usable {
		timeout = forEver
	}
	if timeout <= 0 || runnable {
		timeout = forEver
		if !w.rt.idle.usable {
			how = parkTellsScheduler
		} else if timer > timerLead {
			how = parkGivesUpP
		}
	}
	if how == parkGivesUpP && timer < forEver {
		timer -= timerLead
	}
	timeout = min(timeout, timer)
	if w.counts[countFree] > keepFree {
		timeout = min(timeout, max(time.Duration(w.trimmedAt-now)+trimEvery, 0))
	}
	if timeout == forEver {
		timeout = -1
	}
	return timeout, how
}

// unpark wakes w if it is parked or about to park. Only then it costs a system call or a token. The
// caller has written a message before. The steps are those of the sender, at the head of this file,
// from 2 on.
//
// The token makes the goroutine of w runnable, which goes to the queue of the caller's P. If the
// caller runs on a worker, that worker notes it (noteRunnable).
func (w *worker) unpark() {
	if !w.asleep.Load() {
		return
	}
	w.turn.Add(1)
	if w.asleep.CompareAndSwap(true, false) {
		w.unparks.Add(1)
		if w.withoutP.Load() {
			callersWorker().noteRunnable()
			w.unparkWithoutP()
		} else {
			w.reactor.wake()
		}
	}
}

// spin looks for events once instead of parking, for runtimes with Config.Tuning.Spin. The loop of
// turns repeats it. If w has made goroutines runnable, it first yields its P to them once. Refused:
// to stop spinning then, because each join from outside would end the spin.
func (w *worker) spin() {
	if w.madeRunnable {
		w.madeRunnable = false
		runtime.Gosched()
	}
	w.reactorPolledAt = nanos()
	w.reactor.poll(w)
	w.stopped = w.rt.stopping.Load()
}

// noteRunnable notes that the thread of w makes a goroutine runnable. w may be nil. The goroutine
// is now in the queue of the P of w. Other threads leave it there for a while if the P seems to be
// running, and a raw wait looks so. So w gives up its P when it parks next; see chooseParkMode.
func (w *worker) noteRunnable() {
	if w != nil {
		w.madeRunnable = true
	}
}
