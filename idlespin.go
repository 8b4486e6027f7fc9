package async

import "time"

// adaptiveSpin decides whether a thread spins for a moment before it sleeps. To sleep and be woken costs two system calls
// and the wake of a thread, a hundred times what a short message costs. So it does not pay if the next message comes soon.
//
// Spinning pays when messages have often come soon after the thread had gone to sleep (hits), and until one spin ends
// without a message (a miss). After each miss it takes twice as many hits until the thread spins again: sender and
// receiver may have to share a processor, and then no message comes while the receiver spins.
type adaptiveSpin struct {
	*spinSettings
	soonSleeps int // messages that came soon; each sleep that ended otherwise halves them
	needed     int // hits, before spinning pays
}

// spinSettings are the settings of an adaptiveSpin.
type spinSettings struct {
	duration  int64 // of a spin, in nanoseconds
	looks     int   // between two looks at the clock
	soon      int64 // how soon after the thread has gone to sleep a message is a hit, in nanoseconds
	minNeeded int   // the least that needed is
	maxNeeded int   // the most that it becomes
}

var (
	// For messages of other workers, and for calls of the blocking pool. The duration is what waking a worker costs. soon is several times
	// a message and its reply, since the first ones come while the threads still have to be woken.
	workerSpinSettings = &spinSettings{duration: int64(20 * time.Microsecond), looks: 100, soon: int64(200 * time.Microsecond), minNeeded: 4, maxNeeded: 4096}

	// For the peer of a descriptor, which may sleep after each message and must be woken by the next one, so that a spin
	// lasts longer. Each look is a system call. It pays only if the worker serves one peer: see samePeer.
	peerSpinSettings = &spinSettings{duration: int64(40 * time.Microsecond), looks: 1, soon: int64(60 * time.Microsecond), minNeeded: 8, maxNeeded: 256}
)

func (s *adaptiveSpin) pays() bool { return s.soonSleeps > 0 && s.soonSleeps >= s.needed }

// slept is called after a sleep of d, with whether a message has ended it.
func (s *adaptiveSpin) slept(message bool, d int64) {
	if !message || d >= s.soon {
		s.soonSleeps /= 2
		return
	}
	s.needed = max(s.needed, s.minNeeded)
	s.soonSleeps = min(s.soonSleeps+1, s.needed)
}

func (s *adaptiveSpin) spinHit() { s.needed = s.minNeeded }

func (s *adaptiveSpin) spinMiss() {
	s.soonSleeps = 0
	s.needed = min(2*s.needed, s.maxNeeded)
}

// samePeer notes the descriptor of the events, and reports whether all come from the descriptor that the last event came
// from. Only if a worker serves one peer at a time, each message of the peer waits for the reply to the one before.
func (w *worker) samePeer(events []fdEvent) bool {
	was := w.peerFD
	w.peerFD = -1
	if len(events) == 1 && events[0].fd != w.reactor.wakeR {
		w.peerFD = events[0].fd
	}
	return w.peerFD >= 0 && w.peerFD == was
}

// spinForReply spins for a message of another worker, or also for an event of the peer, if one of the two has paid
// before and no goroutine needs the P. It reports whether a message or an event came.
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
	case came: // from another sender
		s.slept(false, 0)
	default:
		s.spinMiss()
	}
	return came
}

// spinFor calls came again and again, for at most the duration of t. It reports whether came has returned true.
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
