package async

import "time"

// adaptiveSpin says whether the tasks of a worker talk to somebody, so quickly that it does
// not pay to sleep between two words: each would cost two system calls and the wake
// of a thread, a hundred times what the word itself does.
//
// They do when words have often come soon after the worker had gone to sleep, and
// until one is waited for in vain. Each time that this happens it takes
// twice as many words until it is tried again: the two may have to share a
// processor, and there no word ever comes while the other one waits for it.
type adaptiveSpin struct {
	*spinSettings
	hits   int // that came soon; each sleep that ended otherwise halves them
	needed int // how many it takes
}

// spinSettings is how one talks to others of a kind.
type spinSettings struct {
	duration int64 // how long to wait for the next word before one goes to sleep
	soon     int64 // how soon after that a word must come to wake one
	minHits  int   // how many words make a talk, at least
	maxHits  int   // and at most
}

var (
	// With another worker: what it costs to wake one; and several times the way
	// there and back, since the first words are spoken while the threads still have
	// to be woken.
	workerSpinSettings = &spinSettings{duration: int64(20 * time.Microsecond), soon: int64(200 * time.Microsecond), minHits: 4, maxHits: 4096}

	// With the other end of a descriptor, which may go to sleep after each word and
	// must be woken by the next, so that one waits for longer. That pays only where
	// there is nobody else to serve: see samePeer.
	peerSpinSettings = &spinSettings{duration: int64(40 * time.Microsecond), soon: int64(60 * time.Microsecond), minHits: 8, maxHits: 256}
)

func (t *adaptiveSpin) pays() bool { return t.hits > 0 && t.hits >= t.needed }

// slept is called after a sleep, with whether a word has ended it, and how long it
// has taken.
func (t *adaptiveSpin) slept(word bool, d int64) {
	if !word || d >= t.soon {
		t.hits /= 2
		return
	}
	t.needed = max(t.needed, t.minHits)
	t.hits = min(t.hits+1, t.needed)
}

func (t *adaptiveSpin) hit() { t.needed = t.minHits }

func (t *adaptiveSpin) miss() {
	t.hits = 0
	t.needed = min(2*t.needed, t.maxHits)
}

// samePeer notes that events have come, and reports whether that is a word from the
// descriptor that was the last to speak, and nobody else's: only of those that serve
// one peer at a time each word waits for the one before.
func (w *worker) samePeer(events []fdEvent) bool {
	was := w.peerFD
	w.peerFD = -1
	if len(events) == 1 && events[0].fd != w.reactor.wakeR {
		w.peerFD = events[0].fd
	}
	return w.peerFD >= 0 && w.peerFD == was
}

// spinForReply waits a moment for what another worker may send, or the other end of a
// descriptor, if that has paid before, and nobody else wants the P meanwhile. It
// reports whether something came.
func (w *worker) spinForReply(now int64) bool {
	talks, wire := w.workerSpin.pays(), w.peerSpin.pays()
	if !talks && !wire || w.madeRunnable || !w.rt.ownProcs.raised.Load() {
		return false
	}
	sent := func() bool { return w.inbox.Load() != nil }
	if !wire {
		came := spinUntil(now, w.workerSpin.duration, 100, sent)
		w.workerSpin.spun(came)
		return came
	}
	var events []fdEvent
	came := spinUntil(now, w.peerSpin.duration, 1, func() bool {
		if !sent() {
			events = w.reactor.wait(0, true)
		}
		return len(events) > 0 || sent()
	})
	w.reactorPolledAt = nanos()
	w.reactor.dispatch(w, events)
	switch {
	case w.samePeer(events):
		w.peerSpin.hit()
	case came: // from somebody else
		w.peerSpin.slept(false, 0)
	default:
		w.peerSpin.miss()
	}
	return came
}

// spun is called after one has waited for a word.
func (t *adaptiveSpin) spun(came bool) {
	if came {
		t.hit()
	} else {
		t.miss()
	}
}

// spinUntil asks again and again, for a while, whether something has come; looks is how
// often it does before it looks at the clock.
func spinUntil(now, d int64, looks int, come func() bool) bool {
	for until := now + d; ; {
		for range looks {
			if come() {
				return true
			}
		}
		if nanos() >= until {
			return false
		}
	}
}
