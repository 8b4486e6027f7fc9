package async

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/async/internal/sys"
)

// A Stall is a poll that keeps its worker for too long: code in a task that
// computes, or that blocks its thread in a way that the runtime cannot see.
type Stall struct {
	// Task is the task. Its ID is 0 if it is a future without a name: the
	// stack shows which code it is.
	Task   Task
	Worker int
	For    time.Duration // the poll has lasted at least this long so far

	// Where is the innermost function of the task's code, with file and line:
	// outside this package and the standard library, if there is such a function.
	// Stack is the stack of the goroutine that holds the worker. Both are empty if
	// no stack was taken, or if the poll had ended before; see Config.Stalled.
	Where string
	Stack string

	looked bool // a stack was to be taken
}

// String says in one line which task has kept which worker, for how long and where.
func (s Stall) String() string {
	what := "a future without a name"
	if s.Task.ID != 0 {
		what = "task " + s.Task.String()
	}
	where := ""
	if s.Where != "" {
		where = ", at " + s.Where
	}
	return fmt.Sprintf("async: %s has kept worker %d for %v or more without awaiting%s", what, s.Worker, s.For, where)
}

// newStallReporter returns the handler of a runtime whose Config has none.
// It prints the stalls for which a stack was to be taken, and counts the others.
func newStallReporter() func(Stall) {
	others := 0
	return func(s Stall) {
		if !s.looked {
			others++
			return
		}
		more := ""
		if others > 0 {
			more = fmt.Sprintf("; %d more since the last such line", others)
		}
		others = 0
		fmt.Fprintf(os.Stderr, "%v (see Config.Stalled for the stack, Config.Stall for the limit%s)\n", s, more)
	}
}

// stallWatch finds polls that take too long. The watchdog calls it while a worker seems not
// to begin new turns.
//
// It counts a stall and passes it to stallReports as soon as it has found it. Taking a
// stack and calling the handler are done there, since they take long: while 20,000
// goroutines are profiled, further polls may be too long.
type stallWatch struct {
	rt      *Runtime
	every   time.Duration // Config.Stall
	seen    []workerSeen
	reports stallReports

	// See sys.Thread. Tests replace these functions.
	used    func(*worker) (d time.Duration, known bool)
	asleep  func(*worker) bool
	starved func(func()) bool

	probe []byte // see waitForGo
}

// workerSeen is the data of the stallWatch about a worker.
type workerSeen struct {
	turn     uint32
	since    time.Time     // the first look at this turn
	looked   time.Time     // the last look
	used     time.Duration // the processor time of its thread at the last look
	own      time.Duration // for how much of the time the poll itself has kept the worker; see spent
	reported bool
}

func newStallWatch(rt *Runtime) *stallWatch {
	s := &stallWatch{
		rt:    rt,
		every: rt.cfg.Stall,
		seen:  make([]workerSeen, len(rt.workers)),

		used:    func(w *worker) (time.Duration, bool) { return w.thread.Used() },
		asleep:  func(w *worker) bool { return w.thread.Asleep() },
		starved: sys.HasStarvedThread,
	}
	s.reports.handler = rt.cfg.Stalled
	s.reports.profile = takeProfile
	return s
}

// interval is the longest time between two looks. Together with the whole Config.Stall that
// passes after the first look at a poll, it finds a poll that lasts twice Config.Stall.
func (s *stallWatch) interval() time.Duration { return s.every / 4 * 3 }

// look reports the workers that are in the same turn as before, and returns when to
// look again. late reports that look was called late; see spent.
func (s *stallWatch) look(now time.Time, late bool) (next time.Duration) {
	next = s.interval()
	if s.rt.stopping.Load() {
		return next // workers that end take no turns
	}
	for i, w := range s.rt.workers {
		seen, same := s.checkTurn(i, w, now)
		if !same {
			continue
		}
		turn := seen.turn
		var who Task
		if polled := w.visible.Load(); polled != nil {
			who = polled.ident()
		}
		if seen.reported || w.turn.Load() != turn { // then who may be of another poll
			continue
		}
		if seen.own += s.spent(w, seen, now, late); seen.own < s.every {
			next = min(next, max(s.every-seen.own, s.every/8))
			continue
		}
		seen.reported = true
		s.rt.stalls.Add(1)
		stall := Stall{Task: who, Worker: w.index, For: now.Sub(seen.since)}
		s.reports.add(stall, w, turn, now)
	}
	return next
}

// checkTurn reports whether a worker is in the same turn as at the last look. A turn has many
// polls, so the worker is asked to end it with the present poll: a turn that goes on is then
// one poll. (Work of a worker between its polls moves the turn if it may be long; see
// countProgress.)
func (s *stallWatch) checkTurn(i int, w *worker, now time.Time) (seen *workerSeen, same bool) {
	seen = &s.seen[i]
	turn := w.turn.Load()
	asleep := w.asleep.Load()
	if turn == seen.turn && turn != 0 && !asleep {
		return seen, true
	}
	*seen = workerSeen{turn: turn, since: now, looked: now}
	if !asleep {
		seen.used, _ = s.used(w)
		w.endRound.Store(true)
	}
	return seen, false
}

// spent returns how much of the time since the last look w's poll has kept w by itself:
// the thread has computed, or was blocked. It does not count the time for which the thread
// was ready to run and other threads had the processors.
//
// The thread has computed for the time that its clock shows. It counts as blocked for the
// remaining time if it is blocked now, but only for an interval, since it may have been ready to
// run before. Without such a clock all time is counted in that way, but not if this goroutine was
// late itself: the machine then has too few processors for all threads that run.
func (s *stallWatch) spent(w *worker, seen *workerSeen, now time.Time, late bool) time.Duration {
	elapsed := min(now.Sub(seen.looked), s.interval())
	used, known := s.used(w)
	computed := used - seen.used
	seen.looked, seen.used = now, used
	switch {
	case !known && late:
		return 0
	case !known || elapsed > computed && s.blocked(w, used):
		return elapsed
	}
	return computed
}

// blocked reports whether w's thread, which has used so much processor time, is asleep because
// of the task. It may also be asleep because of Go: its goroutine waits for a P, for a
// collection to begin or to go on, or for a lock of the heap, and the thread that would end
// the wait has no processor. So blocked reports false
//
//   - if the thread is awake after this goroutine has waited for the same things, behind w's
//     goroutine: see waitForGo;
//   - while another thread of the process is ready to run and does not get a processor.
func (s *stallWatch) blocked(w *worker, used time.Duration) bool {
	if !s.asleep(w) || s.starved(s.waitForGo) {
		return false
	}
	now, _ := s.used(w)
	return now == used && s.asleep(w)
}

// waitForGo waits at the end of the queue of Go's scheduler, and in an allocation.
func (s *stallWatch) waitForGo() {
	runtime.Gosched()
	s.probe = make([]byte, probeSize)
	s.probe = nil
}

// probeSize is more than 32 KiB: smaller objects may come from memory that the P has, and
// such an allocation waits for nothing.
const probeSize = 40 << 10

const (
	// stackEvery is how often a stack is taken at most.
	stackEvery = time.Second

	// stackShare is how many times longer than a stack took to take the next stack has to
	// wait: a profile of 20,000 goroutines takes 150 ms of processor time.
	stackShare = 20

	// stallsWaiting is how many reports may wait for the handler. Further stalls are
	// only counted.
	stallsWaiting = 1024
)

// stallReports is the stalls that have been found and not yet passed to the handler. One
// goroutine passes them, in their order; it lives while there are any.
type stallReports struct {
	handler func(Stall)
	profile func() string // takeProfile; tests have other functions

	mu         lockOf[stallReports]
	waiting    []foundStall
	delivering bool
	stackDue   time.Time // before this time no stack is taken
	delivery   sync.WaitGroup
}

type foundStall struct {
	Stall
	w    *worker
	turn uint32
	at   time.Time
}

func (r *stallReports) add(stall Stall, w *worker, turn uint32, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == stallsWaiting {
		return
	}
	if stall.looked = !now.Before(r.stackDue); stall.looked {
		r.stackDue = now.Add(stackEvery)
	}
	r.waiting = append(r.waiting, foundStall{stall, w, turn, now})
	if !r.delivering {
		r.delivering = true
		r.delivery.Go(r.deliver)
	}
}

func (r *stallReports) deliver() {
	for f, ok := r.next(); ok; f, ok = r.next() {
		if f.looked {
			begun := time.Now()
			f.Where, f.Stack = f.w.stack(f.turn, r.profile)
			r.took(f.at, time.Since(begun))
		}
		r.handler(f.Stall)
	}
}

func (r *stallReports) next() (f foundStall, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		r.waiting, r.delivering = nil, false
		return f, false
	}
	f, r.waiting = r.waiting[0], r.waiting[1:]
	return f, true
}

// took notes how long it took to take the stack of a stall that was found at a certain time.
func (r *stallReports) took(at time.Time, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if due := at.Add(stackShare * d); due.After(r.stackDue) {
		r.stackDue = due
	}
}

// workerLabel is the profiler label that all goroutines of a worker have.
const workerLabel = "async.worker"

// label gives the calling goroutine, and the coroutines that it makes, the
// label by which a profile knows them.
func (w *worker) label() {
	value := fmt.Sprintf("%d/%d", w.rt.serial, w.index)
	if name := w.rt.cfg.Tuning.Name; name != "" {
		value = name + "/" + value
	}
	w.labels = pprof.WithLabels(context.Background(), pprof.Labels(workerLabel, value))
	w.relabel()
	w.labelValue = value
	w.labelled = fmt.Sprintf("%q:%q", workerLabel, value)
}

// relabel gives the worker's goroutine its labels again, which the Poll of a future
// may have replaced. The worker's coroutines get their labels again when they begin the
// next task.
func (w *worker) relabel() {
	pprof.SetGoroutineLabels(w.labels)
	w.labelling++
}

// labelSets is how many sets of labels a worker keeps. Names are few, unless
// the program numbers them.
const labelSets = 128

// labelsOf returns the labels of t: the label of its worker, without which the stacks of
// its stalls would not be found, and its name, if Config.Tuning.Labels is set.
func (w *worker) labelsOf(t *task) context.Context {
	if !w.rt.cfg.Tuning.Labels || t.name() == "" {
		return w.labels
	}
	name := t.name()
	labels, ok := w.named[name]
	if !ok {
		if w.named == nil || len(w.named) == labelSets {
			w.named = map[string]context.Context{}
		}
		labels = pprof.WithLabels(w.labels, pprof.Labels("task", name))
		w.named[name] = labels
	}
	return labels
}

// valueOrLabels returns the value of a Context of t for key. v is the value of the
// contexts that t is under. If key is that of the profiler's labels, the task's own
// labels are added: when pprof.Do ends, it gives the goroutine the labels of its
// context, and the task could no longer be found by its label.
func (t *task) valueOrLabels(key, v any) any {
	w := t.runsCaller()
	if w == nil || w.labels.Value(key) == nil {
		return v
	}
	own := w.labelsOf(t)
	if v == nil {
		return own.Value(key)
	}
	var list []string
	pprof.ForLabels(own, func(key, value string) bool { list = append(list, key, value); return true })
	return pprof.WithLabels(context.WithValue(context.Background(), key, v), pprof.Labels(list...)).Value(key)
}

// runsCaller returns the worker that runs t if the caller is t's code, and else
// nil.
func (t *task) runsCaller() *worker {
	if g := t.g.Load(); g != 0 {
		if g != getg() || t.kind != kindStraight || t.state.done() {
			return nil
		}
		return t.w
	}
	if w := callersWorker(); w != nil && w.g.Load() == getg() && w.current == t {
		return w
	}
	return nil
}

// stack returns the stack of the goroutine that has held w since the given turn began, and
// the user's frame. Both are empty if that turn is over, or if the goroutine is not found.
//
// It comes from a profile of all goroutines, the only way that Go offers. The profile shows all
// goroutines as they were at one moment, but it takes time, and the turn may end before that moment
// or after it. A witness shows which: it is a goroutine that has a label for as long as it sees the
// turn last, and the profile has that label if the turn lasted.
func (w *worker) stack(turn uint32, profile func() string) (where, stack string) {
	over, ready := make(chan struct{}), make(chan struct{})
	var witness sync.WaitGroup
	witness.Go(func() { w.witness(turn, ready, over) })
	<-ready
	groups := strings.Split(profile(), "\n\n")
	close(over)
	witness.Wait()
	lasts := fmt.Sprintf("%q:%q", witnessLabel, w.labelValue)
	if !slices.ContainsFunc(groups, func(g string) bool { return strings.Contains(g, lasts) }) {
		return "", ""
	}
	group := w.stuckIn(groups)
	return userFrame(profilePCs(group)), stackLines(group)
}

// takeProfile returns the profile of all goroutines. Unlike runtime.Stack it does not stop the
// world while it walks over them.
func takeProfile() string {
	var b bytes.Buffer
	if pprof.Lookup("goroutine").WriteTo(&b, 1) != nil {
		return ""
	}
	return b.String()
}

// witnessLabel is the profiler label of a witness.
const witnessLabel = "async.stall"

// witnessEvery is how often a witness looks.
const witnessEvery = 500 * time.Microsecond

func (w *worker) witness(turn uint32, ready chan<- struct{}, over <-chan struct{}) {
	ctx := context.Background()
	pprof.SetGoroutineLabels(pprof.WithLabels(ctx, pprof.Labels(witnessLabel, w.labelValue)))
	if w.turn.Load() != turn {
		pprof.SetGoroutineLabels(ctx)
	}
	close(ready)
	tick := time.NewTicker(witnessEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if w.turn.Load() != turn {
				pprof.SetGoroutineLabels(ctx)
				tick.Stop()
			}
		case <-over:
			return
		}
	}
}

// stuckIn returns which of the groups of a goroutine profile is the goroutine that runs on w,
// which is in a poll: of the goroutines that have w's label, the goroutine that is not switched
// out. If code has replaced that label, it is the only goroutine that is in a poll and has no
// worker's label.
//
// A profile keeps the innermost frames only. So the beginning of a deep stack is not known, and
// such a stack counts if no other goroutine is known to be in a poll.
func (w *worker) stuckIn(groups []string) string {
	var deep, nameless []string
	for _, group := range groups {
		stack := stackLines(group)
		if isSwitchedOut(stack) {
			continue
		}
		switch {
		case strings.Contains(group, w.labelled):
			if isPolling(stack) {
				return group
			}
			if isCut(group) {
				deep = append(deep, group)
			}
		case isOurs(stack) && !strings.Contains(group, strconv.Quote(workerLabel)+":"):
			nameless = append(nameless, group)
		}
	}
	switch {
	case len(deep) > 0:
		return deep[0]
	case len(nameless) == 1 && strings.HasPrefix(strings.TrimLeft(nameless[0], "\n"), "1 @"):
		return nameless[0]
	}
	return ""
}

// isPolling reports whether a stack is that of code in a task, which begins in a
// poll or in a coroutine, perhaps a coroutine that the task has made by iter.Pull. It is
// false for goroutines that a task has started, which have its labels, and for the
// worker itself while it does not poll.
func isPolling(stack string) bool { return isOurs(stack) || strings.Contains(stack, "\niter.Pull[") }

// isOurs is isPolling without the coroutines of other code.
func isOurs(stack string) bool {
	return strings.Contains(stack, packagePath+".(*worker).poll\n") || strings.Contains(stack, packagePath+".(*coroutine).run\n")
}

// isSwitchedOut reports whether a stack is that of a coroutine that was resumed or waits to be
// resumed, or of code that has resumed a coroutine.
func isSwitchedOut(stack string) bool { return strings.HasPrefix(stack, "iter.Pull") }

// isCut reports whether the outermost frames of a goroutine in a profile are
// missing.
func isCut(group string) bool {
	pcs := profilePCs(group)
	if len(pcs) == 0 {
		return false
	}
	f := runtime.FuncForPC(pcs[len(pcs)-1])
	return f == nil || f.Name() != "runtime.goexit"
}

// profilePCs returns the stack of a group in a goroutine profile, which begins with a line
// like "1 @ 0x47a0e5 0x40b3c7".
func profilePCs(group string) (pcs []uintptr) {
	line, _, _ := strings.Cut(strings.TrimLeft(group, "\n"), "\n")
	_, list, _ := strings.Cut(line, "@")
	for _, word := range strings.Fields(list) {
		if pc, err := strconv.ParseUint(word, 0, 64); err == nil {
			pcs = append(pcs, uintptr(pc))
		}
	}
	return pcs
}

// stackLines leaves the functions and lines of a goroutine in a profile.
func stackLines(group string) string {
	var b strings.Builder
	for _, line := range strings.Split(group, "\n") {
		fields := strings.Split(line, "\t") // #, address, function+offset, file:line
		if len(fields) < 4 || fields[0] != "#" {
			continue
		}
		function, _, _ := strings.Cut(fields[2], "+0x")
		fmt.Fprintf(&b, "%s\n\t%s\n", function, strings.TrimSpace(fields[len(fields)-1]))
	}
	return b.String()
}
