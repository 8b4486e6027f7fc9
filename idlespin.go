package async

import "time"

// adaptiveSpin decides whether a thread spins for a moment before it sleeps. A sleep and a wake
// cost two system calls and the wake of a thread, which is a hundred times the cost of a short
// message. So a thread should not sleep if the next message arrives soon.
//
// The thread cannot know that, so it judges by its last sleeps and spins:
//
//  1. A sleep that a message ended soon adds one to soonSleeps, up to needed. Any other sleep
//     halves soonSleeps (slept).
//  2. While soonSleeps is at least needed, the thread spins before it sleeps (pays).
//  3. A spin that finds a message is a hit: needed becomes minNeeded again, and spinning goes on
//     (spinHit).
//  4. A spin that finds no message is a miss: soonSleeps becomes 0 and needed doubles, up to
//     maxNeeded. So after each miss it takes twice as many soon messages until the thread spins
//     again (spinMiss).
//
// The doubling is for a sender and a receiver that have to share a processor: no message can arrive
// while the receiver spins. A spin that takes as long as a wake at worst doubles the cost of a
// sleep.
//
// An adaptiveSpin belongs to one thread, or is guarded by a lock (callPool).
type adaptiveSpin struct {
	*spinSettings
	soonSleeps int // sleeps that a message ended soon, at most needed
	needed     int // how many of them it takes before spinning pays
}

// spinSettings are the settings of an adaptiveSpin.
type spinSettings struct {
	duration  int64 // of a spin, in nanoseconds
	looks     int   // how often a spin looks for a message between two readings of the clock
	soon      int64 // a sleep that a message ends within this time counts, in nanoseconds
	minNeeded int   // the smallest value of needed
	maxNeeded int   // the largest value of needed
}

var (
	// workerSpinSettings are for messages of other workers, and for calls of the blocking pool. The
	// duration is the cost of waking a worker. soon is several times the time of a message and its
	// reply, since the first messages arrive while the threads still have to be woken.
	workerSpinSettings = &spinSettings{duration: int64(20 * time.Microsecond), looks: 100, soon: int64(200 * time.Microsecond), minNeeded: 4, maxNeeded: 4096}

	// peerSpinSettings are for the peer of a descriptor. The peer may sleep after each message and
	// must then be woken by the next message, so a spin lasts longer. Each look is a system call.
	// With a maxNeeded of 4,096, two threads that had come to share a processor stayed there for a
	// fifth of a second.
	peerSpinSettings = &spinSettings{duration: int64(40 * time.Microsecond), looks: 1, soon: int64(60 * time.Microsecond), minNeeded: 8, maxNeeded: 256}
)

// pays reports whether the thread should spin before it sleeps. The zero adaptiveSpin does not pay.
func (s *adaptiveSpin) pays() bool { return s.soonSleeps > 0 && s.soonSleeps >= s.needed }

// slept is called after a sleep of d nanoseconds. message says that a message has ended it.
func (s *adaptiveSpin) slept(message bool, d int64) {
	if !message || d >= s.soon {
		s.soonSleeps /= 2
		return
	}
	s.needed = max(s.needed, s.minNeeded)
	s.soonSleeps = min(s.soonSleeps+1, s.needed)
}

// spinHit is called after a spin that has found a message.
func (s *adaptiveSpin) spinHit() { s.needed = s.minNeeded }

// spinMiss is called after a spin that has found none.
func (s *adaptiveSpin) spinMiss() {
	s.soonSleeps = 0
	s.needed = min(2*s.needed, s.maxNeeded)
}

// samePeer reports whether there is exactly one event, and whether at its last call there was
// exactly one, too, from the same descriptor. It notes the descriptor for the next call. A byte in
// the worker's pipe is no event of a peer.
//
// Spinning for a peer pays only if the worker serves one peer: then each message of the peer waits
// for the reply to its last message. A worker that serves several peers has something to do
// meanwhile. Without this condition a closed loop over 8 connections cost 1.4 times the processor
// time for each request.
func (w *worker) samePeer(events []fdEvent) bool {
	was := w.peerFD
	w.peerFD = -1
	if len(events) == 1 && events[0].fd != w.reactor.wakeR {
		w.peerFD = events[0].fd
	}
	return w.peerFD >= 0 && w.peerFD == was
}

// spinForReply spins for a message of another worker, if that pays, or for an event of the peer and
// a message, if that pays. It reports whether there was a message or an event.
//
// It does not spin if goroutines need the P: if the worker has made goroutines runnable, or if the
// runtime has not raised GOMAXPROCS, so that the P belongs to the goroutines of the program
// (Config.SharedProcs).
//
// A spin for the peer that ends with a message, or with events of other descriptors, is neither a
// hit nor a miss: the peer had no chance to answer. It counts like a sleep that no message of the
// peer has ended.
func (w *worker) spinForReply(now int64) (came bool) {
	s := &w.workerSpin
	peer := w.peerSpin.pays()
	if peer {
		s = &w.peerSpin
	} else if !s.pays() {
		return false
	}
	if w.madeRunnable || !w.rt.ownProcs.raised.Load() {
		return false
	}
	var events []fdEvent
	came = s.spinFor(now, func() bool {
		if w.inbox.Load() != nil {
			return true
		}
		if peer {
			events = w.reactor.wait(0, true)
		}
		return len(events) > 0 || w.inbox.Load() != nil
	})
	hit := came
	if peer {
		w.reactorPolledAt = nanos()
		w.reactor.dispatch(w, events)
		hit = w.samePeer(events)
	}
	switch {
	case hit:
		s.spinHit()
	case came:
		s.slept(false, 0)
	default:
		s.spinMiss()
	}
	return came
}

// spinFor calls came until it returns true, or until s.duration has passed since now. It reports
// whether came has returned true. It reads the clock only after every s.looks calls.
func (s *adaptiveSpin) spinFor(now int64, came func() bool) bool {
	for until := now + s.duration; ; {
		for range s.looks {
			if came() {
				return true
			}
		}
		if nanos() >= until {
			return false
		}
	}
}
