package async

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"
)

// A taskFailure is the error of a task that failed, with the data for its report. The handle of the
// task has the taskFailure in place of the error. Each caller that joins the task gets err, and
// calls handled.
type taskFailure struct {
	err  error
	task Task
	in   *taskFailures
}

func (f *taskFailure) Error() string { return f.err.Error() }

// handled is called when a caller has got the error: the failure will not be reported.
func (f *taskFailure) handled() { f.in.take(f) }

// taskFailures reports the failures of tasks that no caller will join. There are three kinds: the
// handle is no longer reachable, which the next garbage collection finds out; there has never been
// a handle; or the runtime has shut down. Each failure is reported once, unless the task is joined
// before.
//
// A failure is in waiting until it is joined or reported. The caller that removes it (take) is the
// only one that may report it:
//
//  1. add puts the failure into waiting and registers a cleanup with the task.
//  2. A caller that joins the task removes the failure (handled).
//  3. If the garbage collector finds the task unreachable, the cleanup appends the failure to due
//     (unjoinable). A goroutine takes one failure after the other from due, and reports it if it
//     was still in waiting.
//  4. reportAll takes all failures out of waiting and reports them.
//
// The package starts no garbage collection for this: a collection costs the more the larger the
// program is, and the program itself decides when to collect.
type taskFailures struct {
	report func(t Task, err error)

	mu        lockOf[taskFailures]
	waiting   map[*taskFailure]struct{} // neither joined nor reported
	due       []*taskFailure            // failures of tasks that no caller can join
	reporting chan struct{}             // closed when the goroutine that reports them ends; nil if there is none
}

// add returns the error that takes the place of err in the handle of t.
func (fs *taskFailures) add(t *task, err error) error {
	f := &taskFailure{err: err, task: t.ident(), in: fs}
	fs.mu.Lock()
	if fs.waiting == nil {
		fs.waiting = map[*taskFailure]struct{}{}
	}
	fs.waiting[f] = struct{}{}
	fs.mu.Unlock()
	runtime.AddCleanup(t, (*taskFailure).unjoinable, f)
	return f
}

// take removes f from waiting. It reports whether f was there: then the caller decides what becomes
// of f.
func (fs *taskFailures) take(f *taskFailure) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	_, waiting := fs.waiting[f]
	delete(fs.waiting, f)
	return waiting
}

// unjoinable makes f be reported, on a goroutine outside the pool. It is called when the handle is
// garbage, and when there has never been a handle.
func (f *taskFailure) unjoinable() {
	fs := f.in
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if _, waiting := fs.waiting[f]; !waiting {
		return
	}
	fs.due = append(fs.due, f)
	if fs.reporting == nil {
		fs.reporting = make(chan struct{})
		go fs.reportDue(fs.reporting)
	}
}

// reportDue reports the failures that are due, until there are none.
func (fs *taskFailures) reportDue(over chan<- struct{}) {
	defer close(over)
	pprof.SetGoroutineLabels(context.Background()) // not the labels of the task that has failed
	for f := fs.nextDue(); f != nil; f = fs.nextDue() {
		if fs.take(f) {
			fs.report(f.task, f.err)
		}
	}
}

// nextDue takes the next failure that is due. If there is none, the calling goroutine ends: under
// the same lock nextDue records that there is no such goroutine.
func (fs *taskFailures) nextDue() *taskFailure {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if len(fs.due) == 0 {
		fs.due, fs.reporting = nil, nil
		return nil
	}
	f := fs.due[0]
	fs.due = fs.due[1:]
	return f
}

// reportAll reports all failures that wait. It also waits for the goroutine that reports failures,
// at most for patience: the user's handler may itself wait for the caller. It is called when the
// runtime has ended, or when the program is about to end.
func (fs *taskFailures) reportAll(patience time.Duration) {
	fs.mu.Lock()
	all, reporting := fs.waiting, fs.reporting
	fs.waiting = nil
	fs.mu.Unlock()
	for f := range all {
		fs.report(f.task, f.err)
	}
	if reporting != nil {
		select {
		case <-reporting:
		case <-afterOutsideBubble(patience):
		}
	}
}

// reportFailure is the handler of a runtime whose Config has none. It prints one line, and the
// stack if the failure was a panic.
func reportFailure(t Task, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "async: task %v failed and was never joined: %v\n", t, err)
	if p := (*PanicError)(nil); errors.As(err, &p) {
		b.Write(p.Stack)
	}
	os.Stderr.WriteString(b.String())
}

// Crash is a value for [Config.Unhandled]. It ends the program with a panic that names the task and
// its error. It does not return, and no code can recover from the panic, not even the caller of
// [Runtime.Shutdown].
func Crash(t Task, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "async: task %v failed and was never joined: %v", t, err)
	if p := (*PanicError)(nil); errors.As(err, &p) {
		fmt.Fprintf(&b, "\n\n%s", p.Stack)
	}
	go func() { panic(b.String()) }()
	select {}
}
