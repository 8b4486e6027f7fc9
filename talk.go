package async

import "time"

const (
	// lingerFor is how long a worker whose tasks talk to those of another one
	// waits for the next word before it goes to sleep: what it costs to wake it.
	lingerFor = int64(20 * time.Microsecond)

	// quickly is how soon after a worker has gone to sleep a word must come to
	// wake it for the two to be talking: several times the way there and back, since
	// the first words are spoken while the threads still have to be woken.
	quickly = 10 * lingerFor

	// talkAfter is how many words make a talk, at least and at most.
	talkAfter = 4
	talkLimit = 4096
)

// talk says whether the tasks of a worker talk to those of another one, so quickly
// that it does not pay to sleep between two words: each would cost two system calls
// and the wake of a thread, a hundred times what the word itself does.
//
// They do when words have often come soon after the worker had gone to sleep, and
// until one is waited for in vain. Each time that this happens it takes
// twice as many words until it is tried again: the two workers may have to share a
// processor, and there no word ever comes while the other one waits for it.
type talk struct {
	words int // that came soon; each sleep that ended otherwise halves them
	after int // how many it takes
}

func (t *talk) goesOn() bool { return t.words > 0 && t.words >= t.after }

// slept is called after a sleep, with whether a word has ended it quickly.
func (t *talk) slept(word bool) {
	if !word {
		t.words /= 2
		return
	}
	t.after = max(t.after, talkAfter)
	t.words = min(t.words+1, t.after)
}

func (t *talk) answered() { t.after = talkAfter }

func (t *talk) inVain() {
	t.words = 0
	t.after = min(2*t.after, talkLimit)
}

// linger waits a moment for what another worker may send, if that has paid
// before, and nobody else wants the P meanwhile. It reports whether something came.
func (w *worker) linger(now int64) bool {
	if !w.talk.goesOn() || w.unparked || !w.rt.ownProcs {
		return false
	}
	if !lookOut(now, func() bool { return w.inbox.Load() != nil }) {
		w.talk.inVain()
		return false
	}
	w.talk.answered()
	return true
}

// lookOut asks again and again, for as long as lingerFor, whether something has
// come.
func lookOut(now int64, come func() bool) bool {
	for until := now + lingerFor; ; {
		for range 100 {
			if come() {
				return true
			}
		}
		if nanos() >= until {
			return false
		}
	}
}
