package async

import (
	"math"
	"sync/atomic"
	"time"
)

// gathering decides how many workers serve the connections that may move between workers: connections of plain
// futures, and connections of Serve between two calls of the Handler. A straight-line task that has begun stays on its worker.
//
// The first width workers serve. When a task begins to wait on another worker, its source is registered with
// the reactor of a serving worker (see source.rehome). The next event then comes to that worker, and the task
// follows the event (see task.schedule). So only the registration moves.
//
// Fewer workers mean fewer wakes of threads and more events for each worker. They also mean less contention if other
// threads need the processors. More workers mean more processors. Every gatherEvery one of the workers looks:
//
//   - If fewer workers would still sleep for two fifths of the time, width is reduced to their number. With
//     SharedProcs, width is raised to all workers instead if they do little.
//   - If one worker fewer would still sleep for a fifth of the time, or if the serving workers are ready to run and do
//     not get the processors, width is reduced on trial.
//   - If a serving worker hardly sleeps, width is raised on trial.
//   - If a serving worker sleeps much less than another one, some of its connections move to the other one.
//
// At the end of a trial the polls per second before and during the trial are compared. A change that did not
// help is undone. The next trial of that kind waits for a time that doubles with each failure.
//
// A long poll delays all other tasks of its worker. So all workers serve while most polls take long, and for a
// while after a stall.
type gathering struct {
	width   atomic.Int32
	claimed atomic.Bool  // a worker looks
	due     atomic.Int64 // the time of the next look, as nanos

	// The other fields belong to the worker that looks.
	seen   []workerLoad // by worker, at the last look
	at     int64        // the time of the last look
	loads  []load       // by worker
	long   bool         // most polls are made by workers whose polls take long
	rate   float64      // polls per nanosecond, the mean of the last looks
	clocks bool         // load.starved is known of all workers
	shared bool         // Config.SharedProcs; see shareShared
	quiet  int          // looks in a row that found fewer workers to be enough
	eager  int          // looks in a row that found a trial with more to be worth it
	trial  gatherTrial
	fewer  gatherHold // the next trial with fewer workers
	more   gatherHold // the next trial with more workers
	stalls uint64     // counted so far
	wide   int64      // all workers serve until then
	kept   int64      // width is not reduced for want of work until then
	given  int64      // when sources were last told to move
	salt   uint16     // of the last such move; see giving
}

// workerLoad is how long a worker has rested and how much it has done since it began.
type workerLoad struct {
	rested int64         // nanoseconds
	used   time.Duration // the processor time of its thread
	known  bool          // used is known
	polls  uint64
}

// load is what a worker has done lately, as shares of the time and of all polls.
type load struct {
	awake   float64 // it did not rest
	starved float64 // it did not rest and had no processor; 0 if that is not known
	polls   float64 // since the last look

	// Means over some twenty looks: nanoseconds that it ran, and polls.
	ran, polled float64
}

// giving says which of its sources a worker gives to other workers: a part, chosen by a hash of descriptor and
// salt, so that busy and idle connections move in the same proportion. 0 means no source. The bits are, from the highest, 16 each:
// the part, the salt, the index of the first receiving worker, and the index after the last one.
type giving uint64

func newGiving(part float64, salt uint16, from, to int32) giving {
	return giving(part*math.MaxUint16)<<48 | giving(salt)<<32 | giving(from)<<16 | giving(to)
}

// target returns the index of the worker to which the source of fd is to move.
func (g giving) target(fd int32) (index int32, ok bool) {
	from, to := int32(g>>16&math.MaxUint16), int32(g&math.MaxUint16)
	hash := (uint64(fd)<<16 | uint64(g>>32&math.MaxUint16)) * 0x9e3779b97f4a7c15
	if hash>>48 > uint64(g>>48) || from >= to {
		return 0, false
	}
	return from + int32(hash>>24&0xffffff)%(to-from), true
}

// gatherTrial is a change of the width that is not decided yet.
type gatherTrial struct {
	was   int32   // the width before; 0: there is no trial
	rate  float64 // polls per nanosecond before
	share float64 // of the polls, on the workers that were to serve no longer
	from  int64   // when it began, or when the connections had moved
	polls uint64  // at that time
	moved bool    // they have
}

// gatherHold is how long no trial is begun after one that did not help.
type gatherHold struct{ until, next int64 }

const (
	gatherEvery = int64(10 * time.Millisecond)
	gatherPause = 10 * gatherEvery              // all slept so long between two looks: a trial says nothing
	moveTime    = int64(time.Second)            // the longest time for connections to move before a trial is measured
	trialTime   = int64(50 * time.Millisecond)  // how long it is measured at least
	trialPolls  = 500                           // how many polls that takes, or moveTime
	firstHold   = int64(time.Second)            // see gatherHold
	longestHold = int64(20 * time.Second)       // and how long all serve after a stall
	longPoll    = int64(200 * time.Microsecond) // on average
	quietLooks  = 5                             // looks before width is reduced for want of work, or raised on trial
	giveTime    = 5 * gatherEvery               // between two moves for balance

	// clockReads is the largest number of workers of which the processor time is read, by a system call each.
	clockReads = 64
)

// Shares of the time of one worker.
const (
	shareFew       = 0.6  // for the workers that would be left: enough without a trial
	shareFewer     = 0.8  // for the workers that would be left: worth a trial
	shareSaturated = 0.85 // for one that serves: worth a trial with more
	shareStarved   = 0.2  // of the serving workers
	shareUneven    = 0.2  // between two that serve
	shareSome      = 0.1  // polls that take long matter

	// shareShared is below what all workers serve if they share their processors. An idle processor makes each
	// turn of a worker through Go's scheduler wake a thread.
	shareShared = 0.4
)

// Ratios.
const (
	ratioMoved = 0.8  // of the polls that are to move: enough to measure a trial
	ratioMore  = 1.05 // of the rates during a trial and before, to keep more workers
	ratioFewer = 0.97 // the same for fewer
)

func newGathering(cfg Config) *gathering {
	g := &gathering{
		seen:   make([]workerLoad, cfg.Workers),
		loads:  make([]load, cfg.Workers),
		shared: cfg.SharedProcs,
	}
	g.width.Store(int32(cfg.Workers))
	return g
}

// look is called by workers now and then. now is the time, as nanos.
func (g *gathering) look(rt *Runtime, now int64) {
	if len(rt.workers) == 1 || now < g.due.Load() || !g.claimed.CompareAndSwap(false, true) {
		return
	}
	if now >= g.due.Load() {
		g.due.Store(now + gatherEvery)
		g.measure(rt, now)
		if width := g.decide(now, rt.stalls.Load()); width != g.width.Load() {
			g.setWidth(rt, width)
		} else {
			g.balance(rt)
		}
	}
	g.claimed.Store(false)
}

// measure sets loads, rate and long.
func (g *gathering) measure(rt *Runtime, now int64) {
	first, elapsed, before := g.at == 0, float64(max(now-g.at, 1)), g.polls()
	weight := min(elapsed/float64(gatherEvery), 1) / 2 // of this look in the loads
	g.at, g.clocks = now, true
	for i, w := range rt.workers {
		is, was := w.loadNow(now, len(rt.workers) <= clockReads), g.seen[i]
		g.seen[i] = is
		g.clocks = g.clocks && is.known
		l := &g.loads[i]
		l.polls = float64(is.polls - was.polls)
		if first {
			continue
		}
		part := min(max(1-float64(is.rested-was.rested)/elapsed, 0), 1)
		l.awake += weight * (part - l.awake)
		if is.known && was.known {
			idle := max(part-float64(is.used-was.used)/elapsed, 0)
			l.starved += weight * (idle - l.starved)
			part -= idle
		}
		l.ran += (part*elapsed - l.ran) / 20
		l.polled += (l.polls - l.polled) / 20
	}
	polls := float64(g.polls() - before)
	for i := range g.loads {
		g.loads[i].polls /= max(polls, 1)
	}
	g.rate += weight * (polls/elapsed - g.rate)
	g.long = g.mostAreLong()
	if elapsed > float64(gatherPause) {
		g.trial = gatherTrial{}
	}
}

// mostAreLong reports whether most polls are made by workers whose polls take longPoll or more on average. A
// worker that runs and ends no poll, because it spins or computes, counts as well.
func (g *gathering) mostAreLong() bool {
	all, long, ran := 0., 0., 0.
	for _, l := range g.loads {
		all += l.polled
		ran += l.ran
		if l.ran > l.polled*float64(longPoll) {
			long += l.polled
		}
	}
	return ran > shareSome*float64(gatherEvery) && long >= all/2
}

// loadNow returns what w has done so far.
func (w *worker) loadNow(now int64, clock bool) (l workerLoad) {
	l.rested = w.rested.Load()
	if l.rested < 0 {
		l.rested += now
	}
	if clock {
		l.used, l.known = w.thread.used()
	}
	l.polls = w.published[countPolls].Load()
	return l
}

func (g *gathering) polls() (n uint64) {
	for _, l := range g.seen {
		n += l.polls
	}
	return n
}

// decide returns the width that there should be.
func (g *gathering) decide(now int64, stalls uint64) (width int32) {
	width = g.width.Load()
	all := int32(len(g.loads))
	if stalls != g.stalls {
		g.stalls, g.wide = stalls, now+longestHold
	}
	if now < g.wide || g.long {
		if g.trial.was != 0 {
			g.trial = gatherTrial{}
			g.more.until, g.fewer.until = now+firstHold, now+firstHold
		}
		return all
	}
	var sum, most, starved float64
	for _, l := range g.loads[:width] {
		sum += l.awake
		most = max(most, l.awake)
		starved += l.starved
	}
	left := float64(width - 1) // workers, with one fewer
	switch {
	case g.trial.was != 0:
		return g.judge(now, width, most)
	case g.shared && (sum <= shareShared/2 || sum <= shareShared && width == all):
		return all
	case width > 1 && !g.shared && sum <= shareFew*left && now >= g.kept:
		if g.quiet++; g.quiet < quietLooks {
			return width
		}
		g.quiet = 0
		return g.enough(sum)
	}
	g.quiet = 0
	if width == all || most < shareSaturated {
		g.eager = 0
	}
	switch {
	case width > 1 && (sum <= shareFewer*left && now >= g.kept || g.starving(width, sum, starved)) && now >= g.fewer.until:
		g.try(now, width)
		g.trial.share = g.loads[width-1].polls
		return width - 1
	case width < all && most >= shareSaturated && now >= g.more.until:
		if g.eager++; g.eager < quietLooks {
			return width
		}
		g.eager = 0
		g.try(now, width)
		return min(all, max(width+1, g.enough(sum)))
	}
	return width
}

// enough returns the number of workers that would sleep for two fifths of the time with a load of sum.
func (g *gathering) enough(sum float64) int32 { return max(1, int32(math.Ceil(sum/shareFew))) }

// starving reports whether the workers that serve are ready to run and do not get the processors. Without clocks, it
// may be so if they do not rest.
func (g *gathering) starving(width int32, sum, starved float64) bool {
	if !g.clocks {
		return sum >= shareSaturated*float64(width)
	}
	return starved > shareStarved*float64(width)
}

// try begins a trial.
func (g *gathering) try(now int64, was int32) {
	g.trial = gatherTrial{was: was, from: now, rate: g.rate}
}

// judge ends the trial, if it has lasted long enough, and returns the width.
func (g *gathering) judge(now int64, width int32, most float64) int32 {
	t := &g.trial
	lasts, polls := now-t.from, g.polls()-t.polls
	switch {
	case !t.moved:
		if g.haveMoved(width) || lasts >= moveTime {
			t.moved, t.from, t.polls = true, now, g.polls()
		}
		return width
	case lasts < trialTime, polls < trialPolls && lasts < moveTime:
		return width
	}
	ratio := float64(polls) / float64(lasts) / t.rate
	h, helped := &g.fewer, ratio >= ratioFewer
	if width > t.was {
		h = &g.more
		helped = ratio >= ratioMore || ratio >= ratioFewer && most < shareSaturated
	}
	was := t.was
	g.trial = gatherTrial{}
	if helped {
		h.next /= 2
		if width > was {
			g.kept = now + firstHold
		}
		return width
	}
	h.next = min(max(2*h.next, firstHold), longestHold)
	h.until = now + h.next
	return was
}

// haveMoved reports whether most of what is polled has moved since the trial began.
func (g *gathering) haveMoved(width int32) bool {
	was := g.trial.was
	polls := 0. // on the workers that serve only with one of the two widths
	for _, l := range g.loads[min(was, width):max(was, width)] {
		polls += l.polls
	}
	if width < was {
		return polls <= (1-ratioMoved)*g.trial.share
	}
	return polls >= ratioMoved*float64(width-was)/float64(width)
}

// setWidth has the first width workers serve. New ones get a part of the sources of the others.
func (g *gathering) setWidth(rt *Runtime, width int32) {
	was := g.width.Swap(width)
	g.given, g.salt = g.at, g.salt+1
	for i, w := range rt.workers {
		give := giving(0)
		if int32(i) < was && was < width {
			give = newGiving(float64(width-was)/float64(width), g.salt, was, width)
		}
		w.giving.Store(uint64(give))
		w.reactor.moves.Store(int32(i) >= width || give != 0)
	}
}

// balance has the busiest of the workers that serve give sources to the idlest one, if they differ much. The
// other workers give none meanwhile.
func (g *gathering) balance(rt *Runtime) {
	width := g.width.Load()
	if width < 2 || g.trial.was != 0 || g.at-g.given < giveTime {
		return
	}
	busiest, idlest := int32(0), int32(0)
	for i, l := range g.loads[:width] {
		if l.awake > g.loads[busiest].awake {
			busiest = int32(i)
		}
		if l.awake < g.loads[idlest].awake {
			idlest = int32(i)
		}
	}
	most, least := g.loads[busiest].awake, g.loads[idlest].awake
	if most < shareFew || most-least < shareUneven {
		return
	}
	g.given, g.salt = g.at, g.salt+1
	for i, w := range rt.workers[:width] {
		give := giving(0)
		if int32(i) == busiest {
			give = newGiving((most-least)/(2*most), g.salt, idlest, idlest+1)
		}
		w.giving.Store(uint64(give))
		w.reactor.moves.Store(give != 0)
	}
}

// nextHome returns the worker to whose reactor the source of fd is to move from w's, or nil.
func (w *worker) nextHome(fd int32) *worker {
	give, width := giving(w.giving.Load()), w.rt.gather.width.Load()
	if int32(w.index) >= width {
		give = newGiving(1, uint16(w.index), 0, width)
	}
	if to, ok := give.target(fd); ok && to < width && to != int32(w.index) {
		return w.rt.workers[to]
	}
	return nil
}

// rehome moves s from the reactor of the worker on which cx's task is about to wait for it, if it may move.
//
// No event of s has been fetched there and not told yet: only the goroutine that runs this fetches events of that
// reactor, and it tells all before it polls a task. So unlike other moves this one needs no sourceMoved.
func (s *source) rehome(cx *Context, home *reactor) {
	w, t := cx.here(), cx.t
	if w == nil || home != &w.reactor || !t.movable() {
		return
	}
	if served, ok := t.body.(*served); ok && served.pinned {
		return
	}
	if to := w.nextHome(s.fd); to != nil {
		s.move(home, &to.reactor, 0)
	}
}
