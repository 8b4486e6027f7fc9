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

// A Stall is the report of a poll that keeps its worker longer than [Config.Stall]: code in a task
// that computes for long, or that blocks its thread, for example in a system call or by a
// [sync.Mutex]. The runtime passes it to [Config.Stalled].
//
// A Stall is a plain value: it may be copied, and its method may be called concurrently. To avoid
// stalls, call [Yield] in long computations, and run blocking calls by [SpawnBlocking].
type Stall struct {
	// Task is the task that is polled. Its ID is 0 if it is a future without a name. Then the stack
	// shows which code it is.
	Task   Task
	Worker int           // the number of the worker, from 0
	For    time.Duration // the poll has lasted at least this long when it was found

	// Where is the innermost function in Stack that is outside of this package and of the standard
	// library, with file and line. If there is none, Where is a function of the standard library,
	// or empty. Stack is the stack of the goroutine that keeps the worker. Both are empty if no
	// stack was taken, or if the poll had ended before the stack was taken; see [Config.Stalled].
	Where string
	Stack string

	looked bool // a stack was to be taken
}

// String returns one line that says which task has kept which worker, for how long and where.
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

// newStallReporter returns the handler of a runtime whose Config has none. It prints the stalls for
// which a stack was to be taken, at most one a second. It counts the others, and prints the number
// with the next line.
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

// stallWatch finds polls that take longer than Config.Stall. The watchdog calls it while it holds
// the claim, so one thread at a time uses it.
//
// How it finds a stall:
//
//  1. The first check that sees a new turn of a worker stores the turn, the time and the processor
//     time of the worker's thread, and asks the worker to end the round with its current poll
//     (endRound). From then on the turn is a single poll (checkTurn).
//  2. Each look while the turn stays the same adds the time for which the poll itself has kept the
//     worker (spent).
//  3. When the sum reaches Config.Stall the poll is a stall. It is counted, and passed to
//     stallReports.
//
// Taking a stack and calling the handler take long, so stallReports does both on a goroutine of its
// own. Meanwhile the stallWatch finds further stalls.
type stallWatch struct {
	rt      *Runtime
	every   time.Duration // Config.Stall
	seen    []workerSeen
	reports stallReports

	// The methods of sys.Thread. Tests replace these functions.
	used    func(*worker) (d time.Duration, known bool)
	asleep  func(*worker) bool
	starved func(func()) bool

	probe []byte // see waitForGo
}

// workerSeen is the data of the stallWatch about one worker.
type workerSeen struct {
	turn     uint32
	since    time.Time     // the first look at this turn
	looked   time.Time     // the last look at it
	used     time.Duration // the processor time of the thread at the last look
	own      time.Duration // the time for which the poll itself has kept the worker; see spent
	reported bool          // this turn has been reported
}

// newStallWatch returns the stallWatch of rt, whose Config.Stall is positive.
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

// interval is the longest time between two looks. A poll is first seen at most this long after it
// has begun, and is a stall when the whole Config.Stall has passed after that. So every poll that
// lasts twice Config.Stall is found.
func (s *stallWatch) interval() time.Duration { return s.every / 4 * 3 }

// look reports the workers that have been in one turn for too long, and returns the time until the
// next look. late says that look was called late; see spent.
//
// It reads the visible task before it reads turn again. If turn is still the same, the task is that
// of the poll that is reported.
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
		if seen.reported || w.turn.Load() != turn {
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

// checkTurn reports whether w, which is worker i, is in the same turn as at the last look. At the
// first look at a turn it asks the worker to end the round with its current poll. A turn has many
// polls, but a turn that goes on after this request is one poll: work between two polls changes the
// turn if it may take long (countProgress). endRound is stored after turn is read; see
// worker.beginTurn.
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

// spent returns for how much of the time since the last look the poll of w itself has kept w: its
// thread has computed, or was blocked. The time for which the thread was ready to run while other
// threads had the processors does not count. spent stores the time and the processor time of this
// look in seen.
//
//   - The time that the thread has computed counts, as its processor clock shows it.
//   - If the thread is blocked now, all time since the last look counts, but at most an interval,
//     since the thread may have been ready to run before it was blocked.
//   - If the thread has no clock, all time since the last look counts, but at most an interval. No
//     time counts if late is set: the goroutine of the watchdog was late itself, so the machine has
//     too few processors for all threads that run.
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

// blocked reports whether the thread of w is asleep because of the task. used is the processor time
// of the thread at this look.
//
// The thread may also be asleep because of Go: its goroutine waits for a P, for a step of a garbage
// collection, or for a lock of the heap, and the thread that would end this wait has no processor.
// So blocked reports false in two more cases:
//
//   - The thread is awake, or has run, after this goroutine has waited for the same things. This
//     goroutine has waited behind the goroutine of w. See waitForGo.
//   - Another thread of the process is ready to run and does not get a processor.
func (s *stallWatch) blocked(w *worker, used time.Duration) bool {
	if !s.asleep(w) || s.starved(s.waitForGo) {
		return false
	}
	now, _ := s.used(w)
	return now == used && s.asleep(w)
}

// waitForGo waits where the goroutine of a worker may wait in Go: at the end of the queue of Go's
// scheduler, and in an allocation.
func (s *stallWatch) waitForGo() {
	runtime.Gosched()
	s.probe = make([]byte, probeSize)
	s.probe = nil
}

// probeSize is more than 32 KiB. A smaller object may be allocated from memory that the P has, and
// such an allocation waits for nothing.
const probeSize = 40 << 10

const (
	// stackEvery is the shortest time between two stacks.
	stackEvery = time.Second

	// stackShare bounds the cost of stacks: after a stack, no stack is taken for stackShare times
	// as long as that one took. A profile of 20,000 goroutines takes 150 ms of processor time.
	stackShare = 20

	// stallsWaiting is how many reports may wait for the handler. Further stalls are only counted.
	stallsWaiting = 1024
)

// stallReports has the stalls that have been found and not yet passed to the handler. One goroutine
// (deliver) passes them in their order. It is started by the first of them, and ends when there are
// none.
type stallReports struct {
	handler func(Stall)
	profile func() string // takeProfile; tests have other functions

	mu         lockOf[stallReports] // not held while a stack is taken or the handler runs
	waiting    []foundStall
	delivering bool           // the goroutine runs
	stackDue   time.Time      // before this time no stack is taken
	delivery   sync.WaitGroup // the goroutine
}

// foundStall is a stall, and the data that its stack needs.
type foundStall struct {
	Stall
	w    *worker
	turn uint32
	at   time.Time // when it was found
}

// add adds a stall that was found in a turn of w. It decides whether a stack is to be taken, and
// sets looked. If too many stalls wait it drops the stall, which has been counted.
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

// deliver is the goroutine that passes stalls to the handler.
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

// next returns the next stall. If there is none it reports false, and the goroutine must end:
// delivering is false then, so that add starts another one. Both are decided under mu, so no stall
// is left behind.
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

// took notes that it took d to take the stack of a stall that was found at the time at.
func (r *stallReports) took(at time.Time, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if due := at.Add(stackShare * d); due.After(r.stackDue) {
		r.stackDue = due
	}
}

// workerLabel is the key of the profiler label of the goroutine and the coroutines of a worker.
const workerLabel = "async.worker"

// label gives the calling goroutine the label by which a profile shows the worker. The coroutines
// that the goroutine makes inherit it.
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

// relabel gives the worker's goroutine its labels again, which the Poll of a future may have
// replaced. The coroutines of the worker get theirs again when they begin the next task; see
// coroutine.relabel.
func (w *worker) relabel() {
	pprof.SetGoroutineLabels(w.labels)
	w.labelling++
}

// labelSets is how many sets of labels a worker keeps, one for each name of a task. When there are
// that many, labelsOf drops all of them and begins anew. Names of tasks are few, unless the program
// numbers them.
const labelSets = 128

// labelsOf returns the labels of t: the label of its worker, without which the stacks of its stalls
// would not be found, and, with Config.Tuning.Labels, its name.
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

// valueOrLabels returns the value of a Context of t for key. v is the value in the contexts that t
// is under.
//
// If key is the key of the profiler's labels, it adds the task's own labels. When pprof.Do ends, it
// gives the goroutine the labels in its context. Without the task's own labels in them, a profile
// would no longer show to which worker the goroutine belongs.
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

// runsCaller returns the worker that runs t if the caller is the code of t. Otherwise it returns
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

// stack returns the stack of the goroutine that has kept w since the given turn began, and the
// user's frame in it. Both are empty if that turn is over, or if the goroutine is not found.
//
// The stack is part of a profile of all goroutines, which is the only way that Go offers. The
// profile shows all goroutines as they were at one moment. But taking it takes time, and the turn
// may end before that moment or after it. A witness shows which. It is a goroutine that has a label
// as long as it sees the turn last:
//
//  1. Start the witness, and wait until it has looked at the turn once.
//  2. Take the profile. Meanwhile the witness looks every witnessEvery, and removes its label when
//     the turn is over.
//  3. If the profile has the label of the witness, the turn lasted at the moment of the profile, or
//     had ended about witnessEvery before it at most. Only then the stack is used.
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

// takeProfile returns the profile of all goroutines as text. Unlike runtime.Stack it does not stop
// the world while it goes through them.
func takeProfile() string {
	var b bytes.Buffer
	if pprof.Lookup("goroutine").WriteTo(&b, 1) != nil {
		return ""
	}
	return b.String()
}

// witnessLabel is the key of the profiler label of a witness; see worker.stack. The value is the
// value of the worker's own label.
const witnessLabel = "async.stall"

// witnessEvery is the time between two looks of a witness.
const witnessEvery = 500 * time.Microsecond

// witness is the goroutine of a witness; see stack. It closes ready after its first look, and ends
// when over is closed.
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

// stuckIn returns the group of a goroutine profile that shows the goroutine in a poll on w, or "" if
// it is not found. A group is the text for all goroutines with the same stack and labels. Goroutines
// that are switched out do not count. Of the others it is the first of these:
//
//  1. One with the label of w that is in a poll (isPolling).
//  2. One with the label of w whose outermost frames are missing, so that its beginning is not
//     known: a profile keeps only the innermost frames of a deep stack.
//  3. The only one that is in a poll (isOurs) and has no label of any worker: code may have replaced
//     the label.
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

// isPolling reports whether a stack is the stack of code in a task. Such a stack begins in a poll
// or in a coroutine; the task may have made the coroutine by iter.Pull. It is false for goroutines
// that a task has started, which have the task's labels, and for the worker itself while it does
// not poll.
func isPolling(stack string) bool { return isOurs(stack) || strings.Contains(stack, "\niter.Pull[") }

// isOurs is isPolling without the coroutines of other code.
func isOurs(stack string) bool {
	return strings.Contains(stack, packagePath+".(*worker).poll\n") || strings.Contains(stack, packagePath+".(*coroutine).run\n")
}

// isSwitchedOut reports whether a stack is the stack of a coroutine that waits to be resumed, or of
// code that has resumed a coroutine. Neither of them runs.
func isSwitchedOut(stack string) bool { return strings.HasPrefix(stack, "iter.Pull") }

// isCut reports whether the outermost frames of a goroutine in a profile are missing.
func isCut(group string) bool {
	pcs := profilePCs(group)
	if len(pcs) == 0 {
		return false
	}
	f := runtime.FuncForPC(pcs[len(pcs)-1])
	return f == nil || f.Name() != "runtime.goexit"
}

// profilePCs returns the program counters of a group in a goroutine profile. The group begins with
// a line such as "1 @ 0x47a0e5 0x40b3c7".
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

// stackLines returns the functions, files and lines of a group in a goroutine profile, without its
// addresses and labels.
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
