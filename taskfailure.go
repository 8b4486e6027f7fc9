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

// taskFailure is the error of a task that failed. It takes the place of that error in the
// handle until a caller joins the task.
type taskFailure struct {
	err  error
	task Task
	in   *taskFailures
}

func (f *taskFailure) Error() string { return f.err.Error() }

// handled is called when a caller has been given the error.
func (f *taskFailure) handled() { f.in.take(f) }

// taskFailures finds the failures of tasks that will never be joined, which must not be
// silent: tasks whose handle is no longer reachable, as the next collection finds
// out, and tasks that are left when the runtime shuts down. Each failure goes to the
// handler once, unless the task is joined before. No collection is started for them.
type taskFailures struct {
	report func(t Task, err error)

	mu        lockOf[taskFailures]
	waiting   map[*taskFailure]struct{} // not joined, not being reported
	due       []*taskFailure            // failures of tasks that can no longer be joined
	reporting chan struct{}             // closed when the goroutine that reports them ends; nil if there is none
}

// add returns the error to leave in the handle of t.
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

// take reports whether f was waiting; it no longer is.
func (fs *taskFailures) take(f *taskFailure) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	_, waiting := fs.waiting[f]
	delete(fs.waiting, f)
	return waiting
}

// unjoinable has f reported, on a goroutine of its own. It is called when the handle is
// garbage, or when there has never been a handle.
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

// reportDue reports the failures that are due, until none is left.
func (fs *taskFailures) reportDue(over chan<- struct{}) {
	defer close(over)
	pprof.SetGoroutineLabels(context.Background()) // not the labels of the task that has failed
	for f := fs.nextDue(); f != nil; f = fs.nextDue() {
		if fs.take(f) {
			fs.report(f.task, f.err)
		}
	}
}

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

// reportAll reports all failures that wait, and waits for a report that is being made, but not
// longer than patience: the handler may have to wait for the caller. It is called when the
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

// reportFailure is the handler of a runtime whose Config has none. It prints one
// line, and the stack if the failure was a panic.
func reportFailure(t Task, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "async: task %v failed and nobody joined it: %v\n", t, err)
	if p := (*PanicError)(nil); errors.As(err, &p) {
		b.Write(p.Stack)
	}
	os.Stderr.WriteString(b.String())
}

// Crash is a value for Config.Unhandled: it ends the program with a panic that
// names the task and its error. It does not return, and no code can recover from
// the panic, not even the caller of Shutdown.
func Crash(t Task, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "async: task %v failed and nobody joined it: %v", t, err)
	if p := (*PanicError)(nil); errors.As(err, &p) {
		fmt.Fprintf(&b, "\n\n%s", p.Stack)
	}
	go func() { panic(b.String()) }()
	select {}
}
