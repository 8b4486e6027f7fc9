package async

import (
	"math"
	"sync/atomic"
	"time"
)

// gathering decides how many workers serve what may move between workers: plain futures, and connections
// between two calls of a Handler. Straight-line code that has begun stays where it is.
//
// The first width workers serve it. A task that waits for a source on another worker has the source
// registered with the reactor of one of the first ones (see source.gather). The next event then comes
// there, and the task follows it (see task.schedule). So what moves is the registration alone.
//
// Fewer workers mean fewer wakes of threads and fuller turns, and where other threads need the processors, no
// fight for them. More workers mean more processors. Some worker looks every gatherEvery:
//
//   - If one worker fewer would still sleep for two fifths of the time, width is reduced; with SharedProcs it
//     is raised to all if they do little.
//   - If one worker fewer would still sleep at all, or if the workers are ready to run and do not get the
//     processors, width is reduced on trial.
//   - If one of them hardly sleeps, width is raised on trial.
//   - If one sleeps much less than another one, some of its sources move to that.
//
// A trial ends with a comparison of how many tasks were polled per second before and during it. What did not
// help is undone and not tried again for a while, which doubles each time.
//
// A poll that keeps its worker for long delays all that has gathered there. So after a stall all workers
// serve for a while.
type gathering struct {
	width   atomic.Int32
	claimed atomic.Bool  // somebody looks
	due     atomic.Int64 // when to look next, as nanos

	// The rest belongs to whoever looks.
	seen   []workerLoad // by worker, at the last look
	at     int64        // when that was
	shares []loadShare  // since then, by worker
	rate   float64      // polls per nanosecond, the mean of the last looks
	clocks bool         // waiting is known of all workers
	shared bool         // Config.SharedProcs; see shareShared
	quiet  int          // looks in a row that found fewer workers to be enough
	trial  gatherTrial
	hold   [2]gatherHold // before the next trial with fewer and with more workers
	stalls uint64        // counted so far
	until  int64         // all workers serve until then
}

// workerLoad is how long a worker has slept and how much it has done since it began.
type workerLoad struct {
	slept int64         // nanoseconds in rest
	used  time.Duration // the processor time of its thread
	known bool          // used is known
	polls uint64
}

// loadShare is what a worker did between two looks, as shares of the time.
type loadShare struct {
	awake   float64 // it was not in rest
	waiting float64 // it was awake and had no processor; 0 if that is not known
}

// gatherTrial is a change of the width that is not decided yet.
type gatherTrial struct {
	was   int32   // the width before; 0: there is no trial
	rate  float64 // polls per nanosecond before
	from  int64   // what has moved by then counts
	polls uint64  // at that time
	begun bool    // from is over
}

// gatherHold is how long no such trial is begun after one that did not help.
type gatherHold struct {
	until, next int64
}

const (
	gatherEvery  = int64(10 * time.Millisecond)
	gatherSettle = int64(10 * time.Millisecond)  // from a change until its effect is measured
	gatherTrials = int64(50 * time.Millisecond)  // how long it is measured
	gatherHolds  = int64(200 * time.Millisecond) // the first hold
	gatherHeld   = int64(20 * time.Second)       // the longest hold, and that after a stall
	gatherQuiet  = 5                             // looks before the width is reduced for want of work

	// gatherClocks is the number of workers up to which their threads' processor time is read: a system call each.
	gatherClocks = 64

	shareFew       = 0.6  // of the workers that would be left: enough without a trial
	shareFewer     = 0.8  // of the workers that would be left: worth a trial
	shareSaturated = 0.85 // of one worker

	// shareShared is below what all workers serve if they share their processors. An idle processor makes each
	// turn of a worker through Go's scheduler wake a thread.
	shareShared = 0.4

	shareStarved = 0.2 // of all that serve: awake without a processor
	shareUneven  = 0.2 // between two that serve

	gainOfMore  = 1.05 // the least ratio of rates for which a trial with more workers is kept
	gainOfFewer = 0.97
)

func newGathering(cfg Config) *gathering {
	g := &gathering{
		seen:   make([]workerLoad, cfg.Workers),
		shares: make([]loadShare, cfg.Workers),
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

// measure sets shares.
func (g *gathering) measure(rt *Runtime, now int64) {
	elapsed := float64(max(now-g.at, 1))
	first := g.at == 0
	g.at, g.clocks = now, true
	before := g.polls()
	for i, w := range rt.workers {
		load, was := w.load(now, len(rt.workers) <= gatherClocks), g.seen[i]
		g.seen[i] = load
		s := loadShare{}
		if !first {
			s.awake = min(max(1-float64(load.slept-was.slept)/elapsed, 0), 1)
			if load.known && was.known {
				s.waiting = max(s.awake-float64(load.used-was.used)/elapsed, 0)
			}
		}
		g.shares[i] = s
		g.clocks = g.clocks && load.known
	}
	const weight = 0.2 // of one look
	g.rate += weight * (float64(g.polls()-before)/elapsed - g.rate)
}

// load returns what w has done so far. now is the time.
func (w *worker) load(now int64, clock bool) (l workerLoad) {
	l.slept = w.slept.Load()
	if since := w.restsSince.Load(); since != 0 {
		l.slept += max(now-since, 0)
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
	all := int32(len(g.shares))
	if stalls != g.stalls {
		g.stalls, g.until = stalls, now+gatherHeld
	}
	if now < g.until {
		g.trial = gatherTrial{}
		return all
	}
	var sum, most, waiting float64
	for _, s := range g.shares[:width] {
		sum += s.awake
		most = max(most, s.awake)
		waiting += s.waiting
	}
	if g.trial.was != 0 {
		return g.judge(now, width, most, waiting)
	}
	if g.shared {
		if sum <= shareShared {
			return all
		}
	} else if sum <= shareFew*float64(width-1) {
		if g.quiet++; g.quiet >= gatherQuiet {
			g.quiet = 0
			return width - 1
		}
		return width
	}
	g.quiet = 0
	switch {
	case width > 1 && (g.starved(width, sum, waiting) || sum <= shareFewer*float64(width-1)) && now >= g.hold[0].until:
		g.try(now, width)
		return width - 1
	case width < all && most >= shareSaturated && now >= g.hold[1].until:
		g.try(now, width)
		return min(all, max(width+1, int32(math.Ceil(sum/shareFew))))
	}
	return width
}

// starved reports whether the workers that serve are ready to run and do not get the processors. Without clocks, it
// may be so if they do not sleep.
func (g *gathering) starved(width int32, sum, waiting float64) bool {
	if !g.clocks {
		return sum >= shareSaturated*float64(width)
	}
	return waiting > shareStarved*float64(width)
}

// try begins a trial.
func (g *gathering) try(now int64, was int32) {
	g.trial = gatherTrial{was: was, from: now + gatherSettle, rate: g.rate}
}

// judge ends the trial, if it has lasted long enough, and returns the width.
func (g *gathering) judge(now int64, width int32, most, waiting float64) int32 {
	t := &g.trial
	switch {
	case now < t.from:
		return width
	case !t.begun:
		t.begun, t.from, t.polls = true, now, g.polls()
		return width
	case now-t.from < gatherTrials:
		return width
	}
	rate := float64(g.polls()-t.polls) / float64(now-t.from)
	more := 0
	helped := rate >= t.rate*gainOfFewer
	if width > t.was {
		more = 1
		helped = rate >= t.rate*gainOfMore || most < shareSaturated && rate >= t.rate*gainOfFewer
	}
	was := t.was
	g.trial = gatherTrial{}
	h := &g.hold[more]
	if helped {
		*h = gatherHold{next: h.next / 2}
		return width
	}
	h.next = min(max(2*h.next, gatherHolds), gatherHeld)
	h.until = now + h.next
	return was
}

// setWidth has the first width workers serve. New ones get a share of the sources of the others.
func (g *gathering) setWidth(rt *Runtime, width int32) {
	was := g.width.Swap(width)
	for i, w := range rt.workers {
		w.give.Store(0)
		if int32(i) < was && was < width {
			w.giveTo.Store(was + int32(i)%(width-was))
			w.give.Store(int32(float64(w.reactor.sources.Load()) * float64(width-was) / float64(width)))
		}
		w.reactor.moves.Store(int32(i) >= width || w.give.Load() > 0)
	}
}

// balance has the busiest of the workers that serve give sources to the idlest one, if they differ much.
func (g *gathering) balance(rt *Runtime) {
	width := g.width.Load()
	if width < 2 || g.trial.was != 0 {
		return
	}
	busiest, idlest := 0, 0
	for i, s := range g.shares[:width] {
		rt.workers[i].give.Store(0)
		rt.workers[i].reactor.moves.Store(false)
		if s.awake > g.shares[busiest].awake {
			busiest = i
		}
		if s.awake < g.shares[idlest].awake {
			idlest = i
		}
	}
	most, least := g.shares[busiest].awake, g.shares[idlest].awake
	if most < shareFew || most-least < shareUneven {
		return
	}
	w := rt.workers[busiest]
	if n := int32(float64(w.reactor.sources.Load()) * (most - least) / (2 * most)); n > 0 {
		w.giveTo.Store(int32(idlest))
		w.give.Store(n)
		w.reactor.moves.Store(true)
	}
}

// nextHome returns the worker to whose reactor a source of w is to move, or nil.
func (w *worker) nextHome() *worker {
	width := w.rt.gather.width.Load()
	if int32(w.index) >= width {
		return w.rt.workers[int32(w.index)%width]
	}
	if w.give.Load() > 0 && w.give.Add(-1) >= 0 {
		if to := w.giveTo.Load(); to < width && to != int32(w.index) {
			return w.rt.workers[to]
		}
	}
	return nil
}

// gather moves s from the reactor of the worker on which cx's task is about to wait for it, if it may move. No event of s has been
// fetched there and not told yet: the worker tells all before it polls a task. So unlike other moves this one
// needs no sourceMoved.
func (s *source) gather(cx *Context, home *reactor) {
	w := cx.here()
	if w == nil || home != &w.reactor || !cx.t.movable() {
		return
	}
	if to := w.nextHome(); to != nil {
		s.move(home, &to.reactor, 0)
	}
}
