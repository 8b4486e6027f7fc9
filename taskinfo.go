package async

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A TaskInfo describes a task at one moment; [Runtime.Tasks] and [ShutdownError] have it. It is a
// plain value, which does not change when the task does. Its methods may be called from any
// goroutine.
type TaskInfo struct {
	Task

	// Kind is one of these:
	//
	//   - "straight" for straight-line code ([Go], [Spawn], [Launch], [Run]) and for a connection
	//     of a [Server];
	//   - "future" for a plain future ([SpawnFuture], [LaunchFuture]);
	//   - "goroutine" for a function that [BlockOn] runs;
	//   - "blocking" for a call of [SpawnBlocking].
	Kind string

	// State is "waiting", or "runnable" if the task runs or is queued. For a blocking call it is
	// "blocking" if the call runs, or "queued".
	State string

	// Waits is the event that a waiting task waits for: "time", "read", "write", "task", "group"
	// (its end, or room in it), "blocking call", "lock", "send", "receive", "select" and so on. It
	// is "goroutine" if a goroutine is to deliver a result, "its turn" if the task has yielded, and
	// "future" for an event that this package does not know.
	Waits string

	// For is how long the task has waited, to a few milliseconds.
	For time.Duration

	// Where is the function, file and line at which straight-line code awaits, outside this package
	// and, if possible, outside the standard library. For a plain future it is the type of the
	// future. It is empty if it could not be found out.
	Where string
}

// String returns the description in one line, for example "7 (fetch) waiting for read, 1.2s,
// main.fetch (fetch.go:31)".
func (i TaskInfo) String() string {
	s := i.Task.String() + " " + i.State
	if i.Waits != "" {
		s += fmt.Sprintf(" for %s, %v", i.Waits, i.For)
	}
	if i.Where != "" {
		s += ", " + i.Where
	}
	return s
}

// Tasks describes the live tasks that have waited at least once, and the straight-line tasks that
// have yielded, in the order of their IDs. [Runtime.Metrics] counts the other tasks, too. Functions
// of [BlockOn] and calls of [SpawnBlocking] are included. Each worker describes its own tasks,
// because only this worker can find out where straight-line code waits. This takes about a
// microsecond per task, and other tasks run in between.
//
// If a worker does not answer within 100 milliseconds, because of a long poll, its straight-line
// tasks have no Where. The straight-line task that this worker runs is then included even if it has
// never waited.
//
// Tasks is for goroutines, and panics in a task: there, call it in [SpawnBlocking].
func (rt *Runtime) Tasks() []TaskInfo {
	mustNotBlock("Runtime.Tasks", "SpawnBlocking")
	ctx, cancel := context.WithTimeout(context.Background(), surveyPatience)
	defer cancel()
	surveys := make([]*plain[[]TaskInfo], len(rt.workers))
	for i, w := range rt.workers {
		surveys[i] = w.survey()
	}
	var infos []TaskInfo
	for i, s := range surveys {
		found, err := s.JoinBlocking(ctx)
		if err != nil {
			s.Cancel()
			found = rt.workers[i].listed()
		}
		infos = append(infos, found...)
	}
	infos = append(infos, rt.blockOnInfos()...)
	infos = append(infos, rt.calls.infos()...)
	infos = uniqueByID(infos)
	slices.SortFunc(infos, byID)
	return infos
}

func byID(a, b TaskInfo) int { return cmp.Compare(a.ID, b.ID) }

const surveyPatience = 100 * time.Millisecond

// blockOnInfos describes the functions that BlockOn runs.
func (rt *Runtime) blockOnInfos() (infos []TaskInfo) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for p := range rt.blockOns {
		infos = append(infos, p.info(nil))
	}
	return infos
}

// listed describes the tasks in w's list of waiting tasks, and the straight-line code that runs
// now, for a caller that w does not run. A task may be there twice; see uniqueByID.
func (w *worker) listed() []TaskInfo {
	t := w.visible.Load() // before the list is read, since t may go there
	infos := appendInfos(nil, w.waiting.all(), nil)
	if t != nil && t.kind == kindStraight && !t.state.done() {
		infos = append(infos, TaskInfo{Task: t.ident(), Kind: t.kind.String(), State: "runnable"})
	}
	return infos
}

// uniqueByID removes further descriptions of the same task: a running task may also be in the list
// of the worker on which it first waited.
func uniqueByID(infos []TaskInfo) []TaskInfo {
	seen := make(map[uint64]None, len(infos))
	return slices.DeleteFunc(infos, func(i TaskInfo) bool {
		_, again := seen[i.ID]
		seen[i.ID] = None{}
		return again
	})
}

// appendInfos appends descriptions of the tasks that belong to the user and have not ended. on is
// the worker that runs the caller, or nil.
func appendInfos(infos []TaskInfo, tasks []*task, on *worker) []TaskInfo {
	for _, t := range tasks {
		if info := t.info(on); !t.surveys() && !t.state.done() {
			infos = append(infos, info)
		}
	}
	return infos
}

// survey makes w describe the tasks in its list of waiting tasks.
func (w *worker) survey() *plain[[]TaskInfo] {
	p := &plain[[]TaskInfo]{f: new(survey)}
	p.body = p
	p.cx.t = &p.task
	p.attributes.Store(surveyAttributes)
	w.rt.spawnOn(w, &p.task)
	return p
}

var surveyAttributes = &taskAttributes{local: true}

// surveys reports whether t is a survey: a task of the runtime's own. No hooks are called for it,
// it does not describe itself, and it may also start while the runtime drains.
func (t *task) surveys() bool { return t.attributes.Load() == surveyAttributes }

// survey is a future, so that other tasks run while it goes through many tasks.
type survey struct {
	begun bool
	tasks []*task
	infos []TaskInfo
}

// surveyStep is how many tasks a survey describes in one poll: at a microsecond per task, less than
// the 100 µs of a round.
const surveyStep = 64

func (s *survey) Poll(cx *Context) ([]TaskInfo, error) {
	w := cx.here()
	if !s.begun {
		s.begun, s.tasks = true, w.waiting.all()
	}
	n := min(surveyStep, len(s.tasks))
	s.infos = appendInfos(s.infos, s.tasks[:n], w)
	if s.tasks = s.tasks[n:]; len(s.tasks) == 0 {
		return s.infos, nil
	}
	w.yield(cx.t)
	return nil, ErrPending
}

// info describes t. on is the worker that runs the caller, or nil. If t waits, info becomes its
// holder for a moment, to read the fields that only the holder may read, and then makes it idle
// again.
func (t *task) info(on *worker) TaskInfo {
	info := TaskInfo{Task: t.ident(), Kind: t.kind.String(), State: "runnable"}
	if !t.state.take() {
		return info
	}
	info.Task = t.ident() // a launched task may have been reused for another task by now
	info.State, info.Waits = "waiting", t.waits.String()
	info.For = t.since.ago(nanosHere())
	if l, ok := t.body.(locator); ok {
		info.Where = l.locate(on)
	}
	if !t.state.suspend() {
		t.schedule(on)
	}
	return info
}

func (k taskKind) String() string {
	return [...]string{kindPlain: "future", kindStraight: "straight", kindGoroutine: "goroutine", kindExternal: "", kindFanout: "", kindBlocking: "blocking"}[k]
}

// locator is a taskBody that can tell where its code waits. The caller is the holder of the task.
type locator interface{ locate(on *worker) string }

func (p *plain[T]) locate(*worker) string { return fmt.Sprintf("%T", p.f) }

func (st *straight[T]) locate(on *worker) string {
	if on == nil || st.w != on || st.co == nil {
		return ""
	}
	return userFrame(st.co.place(on))
}

// userFrame returns the innermost function of pcs that belongs neither to this package nor to the
// standard library, with its file and line. If there is none, it returns the innermost function of
// the standard library that is not part of how Go runs code.
func userFrame(pcs []uintptr) string {
	standard := ""
	frames := runtime.CallersFrames(pcs)
	for more := len(pcs) > 0; more; {
		var f runtime.Frame
		f, more = frames.Next()
		own := strings.HasPrefix(f.Function, packagePath+".") && !strings.HasSuffix(f.File, "_test.go")
		if own || f.Function == "" {
			continue
		}
		place := fmt.Sprintf("%s (%s:%d)", f.Function, filepath.Base(f.File), f.Line)
		if !isStandard(f) {
			return place
		}
		if standard == "" && !strings.HasPrefix(f.Function, "runtime.") && !strings.HasPrefix(f.Function, "iter.Pull[") {
			standard = place
		}
	}
	return standard
}

// isStandard reports whether f is a function of the standard library. It decides by the file. A
// build with -trimpath leaves only import paths: outside the standard library the first element of
// an import path has a dot.
func isStandard(f runtime.Frame) bool {
	if standardFiles != "" {
		return strings.HasPrefix(f.File, standardFiles)
	}
	first, _, _ := strings.Cut(f.File, "/")
	return !strings.Contains(first, ".") && !strings.HasPrefix(f.Function, "main.")
}

// standardFiles is the directory of the standard library at the time of the build. It is empty if
// the build has trimmed paths.
var standardFiles = func() string {
	var pcs [1]uintptr
	f, _ := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs[:])]).Next()
	return strings.TrimSuffix(f.File, "runtime/extern.go") // of runtime.Callers
}()

// packagePath is the import path of this package.
var packagePath = func() string {
	pc, _, _, _ := runtime.Caller(0)
	name := runtime.FuncForPC(pc).Name() // path/of/async.init.func1 or so
	slash := strings.LastIndexByte(name, '/') + 1
	dot := strings.IndexByte(name[slash:], '.')
	return name[:slash+dot]
}()
