package async

import (
	"math"
	"sync/atomic"
	"time"
)

// activeSet decides how many workers serve the connections that may move between workers: connections of plain
// futures, and connections of Serve between two calls of the Handler. A straight-line task that has begun stays on its worker.
//
// The first size workers are active: they serve. When a task begins to wait on another worker, its descriptor is registered with
// the reactor of an active worker (see pollFD.moveToActive). The next event then comes to that worker, and the task
// follows the event (see task.schedule). So only the registration moves.
//
// Fewer workers mean fewer wakes of threads and more events for each worker. They also mean less contention if other
// threads need the processors. More workers mean more processors. Every activeLookEvery one of the workers looks:
//
//   - If fewer workers would still sleep for two fifths of the time, size is reduced to their number. With
//     SharedProcs, size is raised to all workers instead if they do little.
//   - If one worker fewer would still sleep for a fifth of the time, or if the active workers are ready to run and do
//     not get the processors, size is reduced on trial.
//   - If an active worker hardly sleeps, size is raised on trial.
//   - If an active worker sleeps much less than another one, some of its connections move to the other one.
//
// At the end of a trial the polls per second before and during the trial are compared. A change that did not
// help is undone. The next trial of that kind waits for a time that doubles with each failure.
//
// A long poll delays all other tasks of its worker. So all workers serve while most polls take long, and for a
// while after a stall.
type activeSet struct {
	size    atomic.Int32
	looking atomic.Bool  // a worker looks
	due     atomic.Int64 // the time of the next look, as nanos

	// The other fields belong to the worker that looks.
	seen        []workerTotals // by worker, at the last look
	at          int64          // the time of the last look
	loads       []workerLoad   // by worker
	long        bool           // most polls are made by workers whose polls take long
	rate        float64        // polls per nanosecond, the mean of the last looks
	clocks      bool           // workerLoad.starved is known of all workers
	sharedProcs bool           // Config.SharedProcs; see loadSharedProcs
	wantsFewer  int            // looks in a row that found fewer workers to be enough
	wantsMore   int            // looks in a row that found a trial with more to be worth it
	trial       activeTrial
	fewer       activeHold // the next trial with fewer workers
	more        activeHold // the next trial with more workers
	stalls      uint64     // counted so far
	allUntil    int64      // all workers serve until then
	keepUntil   int64      // size is not reduced for want of work until then
	movedAt     int64      // when a rule to move descriptors was last set
	salt        uint16     // of the last such move; see moveRule
}

// workerTotals is how long a worker has been parked and how much it has done since it began.
type workerTotals struct {
	parked int64         // nanoseconds
	used   time.Duration // the processor time of its thread
	known  bool          // used is known
	polls  uint64
}

// workerLoad is what a worker has done lately, as shares of the time and of all polls.
type workerLoad struct {
	awake   float64 // it was not parked
	starved float64 // it was not parked and had no processor; 0 if that is not known
	polls   float64 // since the last look

	// Means over some twenty looks: nanoseconds that it ran, and polls.
	ran, polled float64
}

// moveRule says which of its descriptors a worker moves to other workers: a part, chosen by a hash of descriptor and
// salt, so that busy and idle connections move in the same proportion. 0 means none. The bits are, from the highest, 16 each:
// the part, the salt, the index of the first receiving worker, and the index after the last one.
type moveRule uint64

func newMoveRule(part float64, salt uint16, from, to int32) moveRule {
	return moveRule(part*math.MaxUint16)<<48 | moveRule(salt)<<32 | moveRule(from)<<16 | moveRule(to)
}

// target returns the index of the worker to which fd is to move.
func (g moveRule) target(fd int32) (index int32, ok bool) {
	from, to := int32(g>>16&math.MaxUint16), int32(g&math.MaxUint16)
	hash := (uint64(fd)<<16 | uint64(g>>32&math.MaxUint16)) * 0x9e3779b97f4a7c15
	if hash>>48 > uint64(g>>48) || from >= to {
		return 0, false
	}
	return from + int32(hash>>24&0xffffff)%(to-from), true
}

// activeTrial is a change of the size that is not decided yet.
type activeTrial struct {
	was   int32   // the size before; 0: there is no trial
	rate  float64 // polls per nanosecond before
	share float64 // of the polls, on the workers that were to become inactive
	from  int64   // when it began, or when the connections had moved
	polls uint64  // at that time
	moved bool    // they have
}

// activeHold is how long no trial is begun after one that did not help.
type activeHold struct{ until, next int64 }

const (
	activeLookEvery   = int64(10 * time.Millisecond)
	activeLookGap     = 10 * activeLookEvery          // all slept so long between two looks: a trial says nothing
	activeMoveTime    = int64(time.Second)            // the longest time for connections to move before a trial is measured
	activeTrialTime   = int64(50 * time.Millisecond)  // how long it is measured at least
	activeTrialPolls  = 500                           // how many polls that takes, or activeMoveTime
	activeFirstHold   = int64(time.Second)            // see activeHold
	activeLongestHold = int64(20 * time.Second)       // and how long all are active after a stall
	activeLongPoll    = int64(200 * time.Microsecond) // on average
	activeLooks       = 5                             // looks before size is reduced for want of work, or raised on trial
	activeMoveEvery   = 5 * activeLookEvery           // between two moves for balance

	// activeClockReads is the largest number of workers of which the processor time is read, by a system call each.
	activeClockReads = 64
)

// Shares of the time of one worker.
const (
	loadFew       = 0.6  // for the workers that would be left: enough without a trial
	loadFewer     = 0.8  // for the workers that would be left: worth a trial
	loadSaturated = 0.85 // for an active worker: worth a trial with more
	loadStarved   = 0.2  // of the active workers
	loadUneven    = 0.2  // between two active workers
	loadSome      = 0.1  // polls that take long matter

	// loadSharedProcs is below the load at which all workers are active if they share their processors. An idle processor makes each
	// turn of a worker through Go's scheduler wake a thread.
	loadSharedProcs = 0.4
)

// Ratios.
const (
	ratioMoved = 0.8  // of the polls that are to move: enough to measure a trial
	ratioMore  = 1.05 // of the rates during a trial and before, to keep more workers
	ratioFewer = 0.97 // the same for fewer
)

func newActiveSet(cfg Config) *activeSet {
	a := &activeSet{
		seen:        make([]workerTotals, cfg.Workers),
		loads:       make([]workerLoad, cfg.Workers),
		sharedProcs: cfg.SharedProcs,
	}
	a.size.Store(int32(cfg.Workers))
	return a
}

// look is called by workers now and then. now is the time, as nanos.
func (a *activeSet) look(rt *Runtime, now int64) {
	if len(rt.workers) == 1 || now < a.due.Load() || !a.looking.CompareAndSwap(false, true) {
		return
	}
	if now >= a.due.Load() {
		a.due.Store(now + activeLookEvery)
		a.measure(rt, now)
		if size := a.decide(now, rt.stalls.Load()); size != a.size.Load() {
			a.resize(rt, size)
		} else {
			a.balance(rt)
		}
	}
	a.looking.Store(false)
}

// measure sets loads, rate and long.
func (a *activeSet) measure(rt *Runtime, now int64) {
	first, elapsed, before := a.at == 0, float64(max(now-a.at, 1)), a.polls()
	weight := min(elapsed/float64(activeLookEvery), 1) / 2 // of this look in the loads
	a.at, a.clocks = now, true
	for i, w := range rt.workers {
		is, was := w.totals(now, len(rt.workers) <= activeClockReads), a.seen[i]
		a.seen[i] = is
		a.clocks = a.clocks && is.known
		l := &a.loads[i]
		l.polls = float64(is.polls - was.polls)
		if first {
			continue
		}
		part := min(max(1-float64(is.parked-was.parked)/elapsed, 0), 1)
		l.awake += weight * (part - l.awake)
		if is.known && was.known {
			idle := max(part-float64(is.used-was.used)/elapsed, 0)
			l.starved += weight * (idle - l.starved)
			part -= idle
		}
		l.ran += (part*elapsed - l.ran) / 20
		l.polled += (l.polls - l.polled) / 20
	}
	polls := float64(a.polls() - before)
	for i := range a.loads {
		a.loads[i].polls /= max(polls, 1)
	}
	a.rate += weight * (polls/elapsed - a.rate)
	a.long = a.mostAreLong()
	if elapsed > float64(activeLookGap) {
		a.trial = activeTrial{}
	}
}

// mostAreLong reports whether most polls are made by workers whose polls take activeLongPoll or more on average. A
// worker that runs and ends no poll, because it spins or computes, counts as well.
func (a *activeSet) mostAreLong() bool {
	all, long, ran := 0., 0., 0.
	for _, l := range a.loads {
		all += l.polled
		ran += l.ran
		if l.ran > l.polled*float64(activeLongPoll) {
			long += l.polled
		}
	}
	return ran > loadSome*float64(activeLookEvery) && long >= all/2
}

// totals returns what w has done so far.
func (w *worker) totals(now int64, clock bool) (l workerTotals) {
	l.parked = w.parkedTime.Load()
	if l.parked < 0 {
		l.parked += now
	}
	if clock {
		l.used, l.known = w.thread.Used()
	}
	l.polls = w.published[countPolls].Load()
	return l
}

func (a *activeSet) polls() (n uint64) {
	for _, l := range a.seen {
		n += l.polls
	}
	return n
}

// decide returns the size that there should be.
func (a *activeSet) decide(now int64, stalls uint64) (size int32) {
	size = a.size.Load()
	all := int32(len(a.loads))
	if stalls != a.stalls {
		a.stalls, a.allUntil = stalls, now+activeLongestHold
	}
	if now < a.allUntil || a.long {
		if a.trial.was != 0 {
			a.trial = activeTrial{}
			a.more.until, a.fewer.until = now+activeFirstHold, now+activeFirstHold
		}
		return all
	}
	var sum, most, starved float64
	for _, l := range a.loads[:size] {
		sum += l.awake
		most = max(most, l.awake)
		starved += l.starved
	}
	left := float64(size - 1) // workers, with one fewer
	switch {
	case a.trial.was != 0:
		return a.judge(now, size, most)
	case a.sharedProcs && (sum <= loadSharedProcs/2 || sum <= loadSharedProcs && size == all):
		return all
	case size > 1 && !a.sharedProcs && sum <= loadFew*left && now >= a.keepUntil:
		if a.wantsFewer++; a.wantsFewer < activeLooks {
			return size
		}
		a.wantsFewer = 0
		return a.enough(sum)
	}
	a.wantsFewer = 0
	if size == all || most < loadSaturated {
		a.wantsMore = 0
	}
	switch {
	case size > 1 && (sum <= loadFewer*left && now >= a.keepUntil || a.starving(size, sum, starved)) && now >= a.fewer.until:
		a.try(now, size)
		a.trial.share = a.loads[size-1].polls
		return size - 1
	case size < all && most >= loadSaturated && now >= a.more.until:
		if a.wantsMore++; a.wantsMore < activeLooks {
			return size
		}
		a.wantsMore = 0
		a.try(now, size)
		return min(all, max(size+1, a.enough(sum)))
	}
	return size
}

// enough returns the number of workers that would sleep for two fifths of the time with a load of sum.
func (a *activeSet) enough(sum float64) int32 { return max(1, int32(math.Ceil(sum/loadFew))) }

// starving reports whether the active workers are ready to run and do not get the processors. Without clocks, it
// may be so if they are not parked.
func (a *activeSet) starving(size int32, sum, starved float64) bool {
	if !a.clocks {
		return sum >= loadSaturated*float64(size)
	}
	return starved > loadStarved*float64(size)
}

// try begins a trial.
func (a *activeSet) try(now int64, was int32) {
	a.trial = activeTrial{was: was, from: now, rate: a.rate}
}

// judge ends the trial, if it has lasted long enough, and returns the size.
func (a *activeSet) judge(now int64, size int32, most float64) int32 {
	t := &a.trial
	lasts, polls := now-t.from, a.polls()-t.polls
	switch {
	case !t.moved:
		if a.haveMoved(size) || lasts >= activeMoveTime {
			t.moved, t.from, t.polls = true, now, a.polls()
		}
		return size
	case lasts < activeTrialTime, polls < activeTrialPolls && lasts < activeMoveTime:
		return size
	}
	ratio := float64(polls) / float64(lasts) / t.rate
	h, helped := &a.fewer, ratio >= ratioFewer
	if size > t.was {
		h = &a.more
		helped = ratio >= ratioMore || ratio >= ratioFewer && most < loadSaturated
	}
	was := t.was
	a.trial = activeTrial{}
	if helped {
		h.next /= 2
		if size > was {
			a.keepUntil = now + activeFirstHold
		}
		return size
	}
	h.next = min(max(2*h.next, activeFirstHold), activeLongestHold)
	h.until = now + h.next
	return was
}

// haveMoved reports whether most of what is polled has moved since the trial began.
func (a *activeSet) haveMoved(size int32) bool {
	was := a.trial.was
	polls := 0. // on the workers that serve only with one of the two widths
	for _, l := range a.loads[min(was, size):max(was, size)] {
		polls += l.polls
	}
	if size < was {
		return polls <= (1-ratioMoved)*a.trial.share
	}
	return polls >= ratioMoved*float64(size-was)/float64(size)
}

// resize makes the first size workers active. New ones get a part of the descriptors of the others.
func (a *activeSet) resize(rt *Runtime, size int32) {
	was := a.size.Swap(size)
	a.movedAt, a.salt = a.at, a.salt+1
	for i, w := range rt.workers {
		rule := moveRule(0)
		if int32(i) < was && was < size {
			rule = newMoveRule(float64(size-was)/float64(size), a.salt, was, size)
		}
		w.moveRule.Store(uint64(rule))
		w.reactor.rebalances.Store(int32(i) >= size || rule != 0)
	}
}

// balance has the busiest of the active workers move descriptors to the idlest one, if they differ much. The
// other workers move none meanwhile.
func (a *activeSet) balance(rt *Runtime) {
	size := a.size.Load()
	if size < 2 || a.trial.was != 0 || a.at-a.movedAt < activeMoveEvery {
		return
	}
	busiest, idlest := int32(0), int32(0)
	for i, l := range a.loads[:size] {
		if l.awake > a.loads[busiest].awake {
			busiest = int32(i)
		}
		if l.awake < a.loads[idlest].awake {
			idlest = int32(i)
		}
	}
	most, least := a.loads[busiest].awake, a.loads[idlest].awake
	if most < loadFew || most-least < loadUneven {
		return
	}
	a.movedAt, a.salt = a.at, a.salt+1
	for i, w := range rt.workers[:size] {
		rule := moveRule(0)
		if int32(i) == busiest {
			rule = newMoveRule((most-least)/(2*most), a.salt, idlest, idlest+1)
		}
		w.moveRule.Store(uint64(rule))
		w.reactor.rebalances.Store(rule != 0)
	}
}

// activeOwner returns the worker to whose reactor fd is to move from that of w, or nil.
func (w *worker) activeOwner(fd int32) *worker {
	rule, size := moveRule(w.moveRule.Load()), w.rt.active.size.Load()
	if int32(w.index) >= size {
		rule = newMoveRule(1, uint16(w.index), 0, size)
	}
	if to, ok := rule.target(fd); ok && to < size && to != int32(w.index) {
		return w.rt.workers[to]
	}
	return nil
}
