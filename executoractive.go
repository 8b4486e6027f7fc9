package async

import (
	"math"
	"sync/atomic"
	"time"
)

// activeSet decides how many workers serve the connections that may move between workers:
// connections of plain futures, and connections of Serve between two calls of the Handler. A
// straight-line task that has begun stays on its worker.
//
// The first size workers are active: they serve these connections. When a task begins to wait on
// another worker, its descriptor is registered with the reactor of an active worker (see
// pollFD.moveToActive). The next event then arrives at that worker, and the task follows the event
// (see task.schedule). So only the registration moves, no worker has to search for connections, and
// idle connections cost nothing.
//
// Fewer workers mean fewer wakes of threads and more events for each worker. They also mean less
// contention if other threads need the processors. More workers mean more processors.
//
// Every activeLookEvery one of the workers looks. It measures the loads of all workers, decides on
// a new size, and sets the rules by which descriptors move:
//
//   - If fewer workers would still sleep for two fifths of the time, it reduces size to their
//     number. With SharedProcs it raises size to all workers instead if they do little.
//   - If one worker fewer would still sleep for a fifth of the time, or if the active workers are
//     ready to run and do not get the processors, it reduces size on trial.
//   - If an active worker hardly sleeps, it raises size on trial.
//   - If an active worker sleeps much less than another one, some connections of the busier worker
//     move to the idler worker.
//
// A worker that hardly sleeps does not show whether more workers would help: the processors may be
// busy with the peers. That is why a size is changed on trial. A trial has these steps:
//
//  1. Note the rate: the polls per nanosecond, a mean over the last looks. Change size (try,
//     resize).
//  2. Wait until most of the polled connections have moved (haveMoved), for activeMoveTime at most.
//  3. Count the polls for activeTrialTime and activeTrialPolls.
//  4. Compare the rates (judge). If the change did not help, undo it, and hold the next trial of
//     that kind for a time that doubles with each failure. If it helped, keep it, and halve that
//     time.
//
// A long poll delays all other tasks of its worker. So all workers serve while most polls take
// long, and for activeLongestHold after a stall.
//
// Concurrency: size and due are read by all workers. The worker that changes looking from false to
// true looks, and only this worker uses the remaining fields, until it sets looking to false. The
// counts of the other workers that it reads may be old; the rules tolerate that. It passes its
// decisions to each worker as one word, worker.moveRule. A worker that has read the old rule or
// size moves a descriptor by the old decision, and its next move corrects that.
type activeSet struct {
	size    atomic.Int32
	looking atomic.Bool  // a worker looks
	due     atomic.Int64 // the time of the next look, as nanos

	// The following fields belong to the worker that looks.
	seen        []workerTotals // by worker, at the last look
	at          int64          // the time of the last look
	loads       []workerLoad   // by worker
	long        bool           // most polls are made by workers whose polls take long
	rate        float64        // polls per nanosecond, the mean of the last looks
	clocks      bool           // workerLoad.starved is known of all workers
	sharedProcs bool           // Config.SharedProcs; see loadSharedProcs
	wantsFewer  int            // looks in a row that found fewer workers to be enough
	wantsMore   int            // looks in a row that found a trial with more workers worthwhile
	trial       activeTrial
	fewer       activeHold // of trials with fewer workers
	more        activeHold // of trials with more workers
	stalls      uint64     // stalls counted at the last look
	allUntil    int64      // until this time all workers serve
	keepUntil   int64      // until this time size is not reduced for lack of work
	movedAt     int64      // when a rule to move descriptors was set last
	salt        uint16     // of that rule; see moveRule
}

// workerTotals is how long a worker has been parked and how much it has done since it began.
type workerTotals struct {
	parked int64         // nanoseconds
	used   time.Duration // the processor time of its thread
	known  bool          // used is known
	polls  uint64
}

// workerLoad is the recent load of a worker, as shares of the time and of all polls.
type workerLoad struct {
	awake   float64 // the share of the time in which it was not parked
	starved float64 // the share in which it was not parked and had no processor; 0 if not known
	polls   float64 // the share of all polls since the last look

	// Means over some twenty looks, for each look: nanoseconds that it ran, and polls.
	ran, polled float64
}

// moveRule says which of its descriptors a worker moves to which other workers. A hash of the
// descriptor and the salt chooses a part of the descriptors, and the receiving worker of each. 0
// means none.
//
// The bits are, from the highest, 16 each: the part, the salt, the index of the first receiving
// worker, and the index after the last one.
//
// A hash moves busy and idle connections in the same proportion. Refused: to move the next so many
// connections that wait, since then all busy connections move and all idle ones stay. Each rule has
// another salt, so that a later move chooses other descriptors.
type moveRule uint64

// newMoveRule returns the rule that moves a part of the descriptors, 0 to 1, to the workers from to
// to-1.
func newMoveRule(part float64, salt uint16, from, to int32) moveRule {
	return moveRule(part*math.MaxUint16)<<48 | moveRule(salt)<<32 | moveRule(from)<<16 | moveRule(to)
}

// target returns the index of the worker to which fd is to move. ok is false if fd stays.
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
	rate  float64 // polls per nanosecond before the trial
	share float64 // the share of the polls on the workers that were to become inactive
	from  int64   // when the trial began; once the connections have moved, when they had moved
	polls uint64  // the polls of all workers until from
	moved bool    // the connections have moved
}

// activeHold says that no trial is begun before the time until. next is the length of the last hold
// in nanoseconds, halved by each success since then. Each failure doubles it.
type activeHold struct{ until, next int64 }

// Times and counts.
const (
	// activeLookEvery is the time between two looks.
	activeLookEvery = int64(10 * time.Millisecond)

	// activeLookGap is the time between two looks after which a trial is dropped: no worker has
	// looked for so long, so all workers have slept, and the trial says nothing.
	activeLookGap = 10 * activeLookEvery

	// activeMoveTime is the longest time for connections to move before a trial is measured, and
	// also the longest time for which it is measured. 2,000 busy connections took 100 ms to move.
	activeMoveTime = int64(time.Second)

	// activeTrialTime and activeTrialPolls are how long a trial is measured at least.
	activeTrialTime  = int64(50 * time.Millisecond)
	activeTrialPolls = 500

	// activeFirstHold and activeLongestHold bound an activeHold. After a stall all workers are
	// active for activeLongestHold.
	activeFirstHold   = int64(time.Second)
	activeLongestHold = int64(20 * time.Second)

	// activeLongPoll is the mean duration from which the polls of a worker are long.
	activeLongPoll = int64(200 * time.Microsecond)

	// activeLooks is how many looks in a row must agree before size is reduced for lack of work, or
	// raised on trial.
	activeLooks = 5

	// activeMoveEvery is the shortest time between two moves for balance.
	activeMoveEvery = 5 * activeLookEvery

	// activeClockReads is the largest number of workers for which a look reads their processor
	// times. Each reading takes a system call, so with more workers a look reads none.
	activeClockReads = 64
)

// Shares of the time of one worker.
const (
	loadFew       = 0.6  // of the workers that would be left: enough without a trial
	loadFewer     = 0.8  // of the workers that would be left: worth a trial
	loadSaturated = 0.85 // of an active worker: worth a trial with more workers
	loadStarved   = 0.2  // of the active workers, on average: worth a trial with fewer workers
	loadUneven    = 0.2  // the difference between two active workers: worth a move
	loadSome      = 0.1  // below this load long polls do not matter

	// loadSharedProcs is the load of all active workers up to which all workers stay active if they
	// share their processors with goroutines. If fewer workers are active, all become active at
	// half of it. An idle processor makes each turn of a worker through Go's scheduler wake a
	// thread.
	loadSharedProcs = 0.4
)

// Ratios of polls.
const (
	ratioMoved = 0.8  // of the polls that are to move: enough to measure a trial
	ratioMore  = 1.05 // of the rates during a trial and before, to keep more workers
	ratioFewer = 0.97 // the same, to keep fewer workers
)

// newActiveSet returns a set in which all workers are active.
func newActiveSet(cfg Config) *activeSet {
	a := &activeSet{
		seen:        make([]workerTotals, cfg.Workers),
		loads:       make([]workerLoad, cfg.Workers),
		sharedProcs: cfg.SharedProcs,
	}
	a.size.Store(int32(cfg.Workers))
	return a
}

// look measures the loads, and resizes or balances the set, if a look is due and no other worker is
// looking. With one worker it does nothing. Workers call it when they publish their counts. now is
// the time, as nanos. due is read again after looking is set: another worker may have looked in
// between.
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

// measure sets loads, rate and long from the totals of the workers. Each is a mean in which the
// last look has the weight of a half, or less if it came early. A pause of all workers ends a
// trial.
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

// mostAreLong reports whether at least half of the recent polls were made by workers whose polls
// take more than activeLongPoll on average, and the loads of all workers add up to more than
// loadSome. A worker that runs without ending a poll, because it spins or computes, counts as such
// a worker, but only with the polls that it has ended recently. If no worker has ended any, the
// first condition holds.
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

// totals returns the totals of w. Any thread may call it. With clock it reads the processor time of
// the thread, which is a system call. parkedTime is negative during a park: the time at which it
// began has been subtracted, so that adding now gives the time parked up to now.
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

// polls returns the number of polls of all workers at the last look.
func (a *activeSet) polls() (n uint64) {
	for _, l := range a.seen {
		n += l.polls
	}
	return n
}

// decide returns the size that the set should have. stalls is the number of stalls so far. It
// begins a trial if one is due, and ends the present trial if it has been measured. While most
// polls take long, and for activeLongestHold after a stall, it returns the number of all workers
// and drops the present trial.
func (a *activeSet) decide(now int64, stalls uint64) (size int32) {
	size = a.size.Load()
	all := int32(len(a.loads))
	// Long polls delay the other tasks of their worker, so all workers serve. A trial is dropped,
	// and the next one waits, since its rates would be those of another load.
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
	left := float64(size - 1) // the workers that would be left with one fewer
	switch {
	case a.trial.was != 0:
		return a.judge(now, size, most)
	// The first condition holds whatever the present size is. The second one keeps the size until
	// the load has doubled, so that it does not change back and forth.
	case a.sharedProcs && (sum <= loadSharedProcs/2 || sum <= loadSharedProcs && size == all):
		return all
	// So little load needs no trial, but several looks must agree.
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
	// haveMoved compares with share: the share of the polls of the worker that becomes inactive.
	case size > 1 && (sum <= loadFewer*left && now >= a.keepUntil || a.starving(size, sum, starved)) && now >= a.fewer.until:
		a.try(now, size)
		a.trial.share = a.loads[size-1].polls
		return size - 1
	// More than one worker may be added at once, if the sum of the loads shows that they are
	// needed.
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

// enough returns the smallest number of workers that can share a load of sum so that each of them
// sleeps for two fifths of the time or more. It is at least 1, and may be more than there are
// workers.
func (a *activeSet) enough(sum float64) int32 { return max(1, int32(math.Ceil(sum/loadFew))) }

// starving reports whether the active workers are ready to run and do not get the processors.
// Without the clocks of all threads it reports whether that is possible: the workers hardly sleep.
func (a *activeSet) starving(size int32, sum, starved float64) bool {
	if !a.clocks {
		return sum >= loadSaturated*float64(size)
	}
	return starved > loadStarved*float64(size)
}

// try begins a trial. was is the size before.
func (a *activeSet) try(now int64, was int32) {
	a.trial = activeTrial{was: was, from: now, rate: a.rate}
}

// judge ends the trial if it has lasted long enough, and returns the size that the set should have.
// most is the largest load of an active worker.
//
// More workers are kept if the rate has risen, or if it has not fallen and no worker is saturated:
// then the generator of the load may be the limit, and the workers have room for more. Fewer
// workers are kept if the rate has not fallen.
func (a *activeSet) judge(now int64, size int32, most float64) int32 {
	t := &a.trial
	lasts, polls := now-t.from, a.polls()-t.polls
	switch {
	// The connections are still moving: the measurement begins only afterwards.
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

// haveMoved reports whether most of the connections that are polled have moved since the trial
// began. It judges by the polls since the last look, since idle connections move only when they are
// next polled.
func (a *activeSet) haveMoved(size int32) bool {
	was := a.trial.was
	polls := 0. // on the workers that are active with only one of the two sizes
	for _, l := range a.loads[min(was, size):max(was, size)] {
		polls += l.polls
	}
	if size < was {
		return polls <= (1-ratioMoved)*a.trial.share
	}
	return polls >= ratioMoved*float64(size-was)/float64(size)
}

// resize makes the first size workers active. Workers that become active get an even share of the
// descriptors of the workers that were active. Workers that are not active move all their
// descriptors (activeOwner), and need no rule for that. size is stored before the rules, so a new
// rule names only workers that are active by then.
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

// balance makes the busiest of the active workers move descriptors to the idlest one, if their
// loads differ by loadUneven or more. The part is half of the difference. The other workers move
// none meanwhile. During a trial it does nothing, because moves would disturb the measurement.
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

// activeOwner returns the worker to whose reactor fd is to move from the reactor of w, or nil if fd
// stays. Only the thread of w calls it. It checks the receiver against size, because rule and size
// are two words, and size may have been reduced since the rule was set.
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
