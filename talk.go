package async

import "time"

// talk says whether the tasks of a worker talk to somebody, so quickly that it does
// not pay to sleep between two words: each would cost two system calls and the wake
// of a thread, a hundred times what the word itself does.
//
// They do when words have often come soon after the worker had gone to sleep, and
// until one is waited for in vain. Each time that this happens it takes
// twice as many words until it is tried again: the two may have to share a
// processor, and there no word ever comes while the other one waits for it.
type talk struct {
	*manner
	words int // that came soon; each sleep that ended otherwise halves them
	after int // how many it takes
}

// manner is how one talks to others of a kind.
type manner struct {
	linger  int64 // how long to wait for the next word before one goes to sleep
	quickly int64 // how soon after that a word must come to wake one
	least   int   // how many words make a talk, at least
	most    int   // and at most
}

var (
	// With another worker: what it costs to wake one; and several times the way
	// there and back, since the first words are spoken while the threads still have
	// to be woken.
	amongWorkers = &manner{linger: int64(20 * time.Microsecond), quickly: int64(200 * time.Microsecond), least: 4, most: 4096}

	// With the other end of a descriptor, which may go to sleep after each word and
	// must be woken by the next, so that one waits for longer. That pays only where
	// there is nobody else to serve: see spoke.
	overWire = &manner{linger: int64(40 * time.Microsecond), quickly: int64(60 * time.Microsecond), least: 8, most: 256}
)

func (t *talk) goesOn() bool { return t.words > 0 && t.words >= t.after }

// slept is called after a sleep, with whether a word has ended it, and how long it
// has taken.
func (t *talk) slept(word bool, d int64) {
	if !word || d >= t.quickly {
		t.words /= 2
		return
	}
	t.after = max(t.after, t.least)
	t.words = min(t.words+1, t.after)
}

func (t *talk) answered() { t.after = t.least }

func (t *talk) inVain() {
	t.words = 0
	t.after = min(2*t.after, t.most)
}

// spoke notes that events have come, and reports whether that is a word from the
// descriptor that was the last to speak, and nobody else's: only of those that serve
// one peer at a time each word waits for the one before.
func (w *worker) spoke(events []event) bool {
	was := w.speaker
	w.speaker = -1
	if len(events) == 1 && events[0].fd != w.reactor.wakeR {
		w.speaker = events[0].fd
	}
	return w.speaker >= 0 && w.speaker == was
}

// linger waits a moment for what another worker may send, or the other end of a
// descriptor, if that has paid before, and nobody else wants the P meanwhile. It
// reports whether something came.
func (w *worker) linger(now int64) bool {
	talks, wire := w.talk.goesOn(), w.wire.goesOn()
	if !talks && !wire || w.readied || !w.rt.ownProcs.raised.Load() {
		return false
	}
	sent := func() bool { return w.inbox.Load() != nil }
	if !wire {
		came := lookOut(now, w.talk.linger, 100, sent)
		w.talk.waited(came)
		return came
	}
	var events []event
	came := lookOut(now, w.wire.linger, 1, func() bool {
		if !sent() {
			events = w.reactor.wait(0, true)
		}
		return len(events) > 0 || sent()
	})
	w.looked = nanos()
	w.reactor.dispatch(w, events)
	switch {
	case w.spoke(events):
		w.wire.answered()
	case came: // from somebody else
		w.wire.slept(false, 0)
	default:
		w.wire.inVain()
	}
	return came
}

// waited is called after one has waited for a word.
func (t *talk) waited(came bool) {
	if came {
		t.answered()
	} else {
		t.inVain()
	}
}

// lookOut asks again and again, for a while, whether something has come; looks is how
// often it does before it looks at the clock.
func lookOut(now, d int64, looks int, come func() bool) bool {
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
