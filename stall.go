package async

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A Stall is a poll that keeps its worker for too long: code in a task that
// computes, or that blocks its thread in a way that the runtime cannot see.
type Stall struct {
	// Task is the task. Its ID is 0 if it is a future without a name: the
	// stack tells which code it is.
	Task   Task
	Worker int
	For    time.Duration // at least so long, so far
	Stack  string        // of the goroutine that holds the worker
}

func (s Stall) String() string {
	what := "a future without a name"
	if s.Task.ID != 0 {
		what = "task " + s.Task.String()
	}
	return fmt.Sprintf("async: %s has kept worker %d for %v or more without awaiting", what, s.Worker, s.For)
}

// newStallReporter returns the handler that a runtime has if Config names none.
func newStallReporter() func(Stall) {
	var last time.Time
	return func(s Stall) {
		if now := time.Now(); now.Sub(last) >= time.Second {
			last = now
			fmt.Fprintf(os.Stderr, "%v\n%s", s, s.Stack)
		}
	}
}

// stallWatch finds polls that take too long. It is a goroutine of its own,
// because all workers may be stuck. It looks until no worker has had anything to
// do for a while, and again when one wakes.
//
// The workers help each other sooner than that; see steal.
type stallWatch struct {
	rt     *Runtime
	every  time.Duration
	report func(Stall)
	seen   []watched
	parked atomic.Bool
	kick   chan struct{}
	over   chan struct{} // closed to end it
	ended  chan struct{}
}

// watched is what it knows of a worker.
type watched struct {
	turn     uint32
	since    time.Time
	reported bool
}

func newStallWatch(rt *Runtime) *stallWatch {
	return &stallWatch{
		rt:     rt,
		every:  rt.cfg.Stall,
		report: rt.cfg.Stalled,
		seen:   make([]watched, len(rt.workers)),
		kick:   make(chan struct{}, 1),
		over:   make(chan struct{}),
		ended:  make(chan struct{}),
	}
}

func (s *stallWatch) run() {
	pprof.SetGoroutineLabels(context.Background()) // not those of whoever has called New
	defer close(s.ended)
	tick := time.NewTimer(s.every)
	defer tick.Stop()
	for due := time.Now().Add(s.every); ; due = time.Now().Add(s.every) {
		select {
		case <-tick.C:
		case <-s.over:
			return
		}
		now := time.Now()
		s.look(now, now.Sub(due) > s.every/2)
		if !s.park() {
			return
		}
		tick.Reset(s.every)
	}
}

// look reports the workers that are in the same turn as before. A turn has many
// polls, so the worker is told to end it with the present one: what keeps it
// from doing so is then one poll. If this goroutine itself was late, the machine
// has too few processors for all that runs: then a worker that did not get on
// need not be stuck.
func (s *stallWatch) look(now time.Time, late bool) {
	for i, w := range s.rt.workers {
		seen := &s.seen[i]
		turn := w.turn.Load()
		if turn != seen.turn || w.asleep.Load() {
			*seen = watched{turn: turn, since: now}
			w.hurry.Store(true)
			continue
		}
		if late {
			seen.since = now
			continue
		}
		if took := now.Sub(seen.since); took >= s.every && !seen.reported {
			seen.reported = true
			s.found(w, turn, took)
		}
	}
}

// found reports a worker, unless it turns out that it has just gone on, or that
// it is not a task that keeps it.
func (s *stallWatch) found(w *worker, turn uint32, took time.Duration) {
	stall := Stall{Worker: w.index, For: took}
	if t := w.shown.Load(); t != nil {
		stall.Task = t.ident()
	}
	stall.Stack = w.stack()
	if w.turn.Load() == turn && stall.Stack != "" {
		s.rt.stalls.Add(1)
		s.report(stall)
	}
}

// watchIdle is how long there must have been nothing to do before it parks: to
// be woken for each event costs more than to look a few times in vain.
const watchIdle = 100 * time.Millisecond

// park waits while all workers sleep, and have slept for watchIdle. It reports
// false at the end.
//
// Against a missed kick: it says first that it is parked and then looks at the
// workers; a worker that wakes does the reverse.
func (s *stallWatch) park() bool {
	s.parked.Store(true)
	defer s.parked.Store(false)
	if s.rt.othersBusy(nil) || nanos()-s.rt.lastWork() < int64(watchIdle) {
		return true
	}
	select {
	case <-s.kick:
		return true
	case <-s.over:
		return false
	}
}

// awake is called by each worker that wakes.
func (s *stallWatch) awake() {
	if s != nil && s.parked.Load() {
		notify(s.kick)
	}
}

// stop ends the watch and waits for that.
func (s *stallWatch) stop() {
	if s != nil {
		close(s.over)
		<-s.ended
	}
}

// workerLabel is the profiler label that all goroutines of a worker have.
const workerLabel = "async.worker"

// label gives the calling goroutine, and the coroutines that it makes, the
// label by which a profile knows them.
func (w *worker) label() {
	value := fmt.Sprintf("%d/%d", w.rt.serial, w.index)
	if name := w.rt.cfg.Name; name != "" {
		value = name + "/" + value
	}
	w.labels = pprof.WithLabels(context.Background(), pprof.Labels(workerLabel, value))
	w.relabel()
	w.labelled = fmt.Sprintf("%q:%q", workerLabel, value)
}

// relabel gives the worker's goroutine its labels again, which the Poll of a future
// may have replaced. Its coroutines get theirs when they begin the next task.
func (w *worker) relabel() {
	pprof.SetGoroutineLabels(w.labels)
	w.labelling++
}

// labelSets is how many sets of labels a worker keeps. Names are few, unless
// somebody numbers them.
const labelSets = 128

// labelsOf returns the labels of t: that of its worker, without which its stalls
// would not be found, and its name, if that is wanted.
func (w *worker) labelsOf(t *task) context.Context {
	if !w.rt.cfg.Labels || t.name() == "" {
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

// valueOrLabels returns what a Context of t has for key, v being what the contexts
// have that it is under. If it is the key of the profiler's labels the task's
// own are added: pprof.Do gives the goroutine those of its context when it is
// through, and the task could not be found by its label any longer.
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

// stack returns the stack of the goroutine that runs on w: of all that have
// its label the one that is not switched out. Unlike runtime.Stack this does
// not stop the world while it walks over all goroutines.
//
// A profile keeps the innermost frames only. So of a deep stack it cannot be said
// where it begins, and it counts if there is no better one.
func (w *worker) stack() (deep string) {
	var profile bytes.Buffer
	if pprof.Lookup("goroutine").WriteTo(&profile, 1) != nil {
		return ""
	}
	for _, group := range strings.Split(profile.String(), "\n\n") {
		if !strings.Contains(group, w.labelled) {
			continue
		}
		stack := stackLines(group)
		if isPolling(stack) {
			return stack
		}
		if deep == "" && isCut(group) && !isSwitchedOut(stack) {
			deep = stack
		}
	}
	return deep
}

// isPolling reports whether a stack is that of code in a task, which begins in a
// poll or in a coroutine, perhaps one that the task has made by iter.Pull. The
// goroutines that are not are those that a task has started, which have its
// labels, the worker itself while it does not poll, and all that are switched
// out: they end in iter.Pull.
func isPolling(stack string) bool {
	ours := strings.Contains(stack, ".(*worker).poll\n") || strings.Contains(stack, "\niter.Pull[")
	return ours && !isSwitchedOut(stack)
}

func isSwitchedOut(stack string) bool { return strings.HasPrefix(stack, "iter.Pull") }

// isCut reports whether the outermost frames of a goroutine in a profile are
// missing.
func isCut(group string) bool {
	pcs, _, _ := strings.Cut(strings.TrimLeft(group, "\n"), "\n")
	outermost, err := strconv.ParseUint(pcs[strings.LastIndexByte(pcs, ' ')+1:], 0, 64)
	f := runtime.FuncForPC(uintptr(outermost))
	return err == nil && (f == nil || f.Name() != "runtime.goexit")
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
