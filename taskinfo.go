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

// A TaskInfo describes a task at one moment.
type TaskInfo struct {
	Task

	// Kind is "straight" for straight-line code, "future" for a plain future,
	// "goroutine" for a function that BlockOn runs, "blocking" for a call of
	// SpawnBlocking.
	Kind string

	// State is "waiting", or "runnable" if the task runs or is queued; of a
	// blocking call "blocking" or "queued".
	State string

	// Waits is the event that the task waits for: "time", "read", "write", "task",
	// "group" (its end, or room in it), "blocking call", "lock", "send", "receive",
	// "select" and so on; "goroutine" if a goroutine is to deliver a result, "its turn",
	// or "future" for an event that this package does not know.
	Waits string

	// For is how long the task has waited, to a few milliseconds.
	For time.Duration

	// Where is the function, file and line at which straight-line code awaits,
	// outside this package and, if possible, the standard library; of a plain
	// future its type. It is empty if it could not be found out.
	Where string
}

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
// have yielded, in the order of their IDs; Metrics counts the others. Each worker describes its
// own tasks, because only it can find out where straight-line code waits. This takes about a
// microsecond per task, and other tasks run in between.
//
// If a task keeps its worker from answering within 100 milliseconds, the straight-line tasks of
// that worker have no Where, and the straight-line task that it runs is included even if that has
// never waited.
//
// It is for goroutines, and panics in a task; there, use SpawnBlocking.
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

// blockOnInfos describes the goroutines in BlockOn.
func (rt *Runtime) blockOnInfos() (infos []TaskInfo) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for p := range rt.blockOns {
		infos = append(infos, p.info(nil))
	}
	return infos
}

// listed describes the tasks in w's list, and the straight-line code that runs now, to a
// caller that does not run on it. See uniqueByID.
func (w *worker) listed() []TaskInfo {
	t := w.visible.Load() // before the list is read, since t may go there
	infos := appendInfos(nil, w.waiting.all(), nil)
	if t != nil && t.kind == kindStraight && !t.state.done() {
		infos = append(infos, TaskInfo{Task: t.ident(), Kind: t.kind.String(), State: "runnable"})
	}
	return infos
}

// uniqueByID removes further descriptions of the same task: a running task may also stand in the list
// of the worker on which it first waited.
func uniqueByID(infos []TaskInfo) []TaskInfo {
	seen := make(map[uint64]None, len(infos))
	return slices.DeleteFunc(infos, func(i TaskInfo) bool {
		_, again := seen[i.ID]
		seen[i.ID] = None{}
		return again
	})
}

// appendInfos describes the tasks that are the user's and live.
func appendInfos(infos []TaskInfo, tasks []*task, on *worker) []TaskInfo {
	for _, t := range tasks {
		if info := t.info(on); !t.surveys() && !t.state.done() {
			infos = append(infos, info)
		}
	}
	return infos
}

// survey has w describe the tasks in its list.
func (w *worker) survey() *plain[[]TaskInfo] {
	p := &plain[[]TaskInfo]{f: new(survey)}
	p.body = p
	p.cx.t = &p.task
	p.attributes.Store(surveyAttributes)
	w.rt.spawnOn(w, &p.task)
	return p
}

var surveyAttributes = &taskAttributes{local: true}

// surveys reports whether t is a survey: a task of the runtime's own, for which
// no hooks are called, which does not describe itself, and which may still be
// started while the runtime drains.
func (t *task) surveys() bool { return t.attributes.Load() == surveyAttributes }

// survey is a future, so that other tasks run while it goes through many tasks.
type survey struct {
	begun bool
	tasks []*task
	infos []TaskInfo
}

// surveyStep is how many tasks it describes in one poll.
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

// info describes t. on is the worker that runs the caller, or nil. It becomes
// the holder of the task for a moment, to read the fields that only the holder
// may read.
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

// locator is a taskBody that can say where its code waits. The caller holds
// the task.
type locator interface{ locate(on *worker) string }

func (p *plain[T]) locate(*worker) string { return fmt.Sprintf("%T", p.f) }

func (st *straight[T]) locate(on *worker) string {
	if on == nil || st.w != on || st.co == nil {
		return ""
	}
	return userFrame(st.co.place(on))
}

// userFrame returns the innermost function that belongs neither to this package nor to the
// standard library, and its line. If there is none, it returns the innermost function of the
// standard library that is no part of how Go runs code.
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

// isStandard reports whether f is a function of the standard library, by its file. A build with
// -trimpath leaves only import paths, whose first element has a dot elsewhere.
func isStandard(f runtime.Frame) bool {
	if standardFiles != "" {
		return strings.HasPrefix(f.File, standardFiles)
	}
	first, _, _ := strings.Cut(f.File, "/")
	return !strings.Contains(first, ".") && !strings.HasPrefix(f.Function, "main.")
}

// standardFiles is the directory in which the standard library was when the program was built;
// empty if the build has trimmed paths.
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
