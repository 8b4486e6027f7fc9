package async

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"strings"
	"sync"
	"time"
)

// failure is the error of a task that failed. It stands in the handle in the
// error's place until somebody takes it from there.
type failure struct {
	err  error
	task Task
	in   *failures
}

func (f *failure) Error() string { return f.err.Error() }

// handled is called when somebody has been given the error.
func (f *failure) handled() { f.in.take(f) }

// failures finds the failures that nobody will ever join, which must not be
// silent: those whose handle is no longer reachable, as the garbage collector
// finds out, and those that are left when the runtime shuts down. To the
// handler goes each failure once, and none that somebody joins in time.
type failures struct {
	report func(t Task, err error)
	over   <-chan struct{} // closed when the runtime has ended

	mu      sync.Mutex
	waiting map[*failure]struct{}
	hunting bool // hunt runs
}

// add returns the error to leave in the handle of t.
func (fs *failures) add(t *task, err error) error {
	f := &failure{err: err, task: t.ident(), in: fs}
	fs.mu.Lock()
	if fs.waiting == nil {
		fs.waiting = map[*failure]struct{}{}
	}
	fs.waiting[f] = struct{}{}
	hunt := !fs.hunting
	fs.hunting = true
	fs.mu.Unlock()
	runtime.AddCleanup(t, (*failure).unreachable, f)
	if hunt {
		go fs.hunt()
	}
	return f
}

// take reports whether f was waiting; it no longer is.
func (fs *failures) take(f *failure) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	_, waiting := fs.waiting[f]
	delete(fs.waiting, f)
	return waiting
}

// unreachable is called when the handle is garbage.
func (f *failure) unreachable() {
	if f.in.take(f) {
		f.in.report(f.task, f.err)
	}
}

// flush reports all that wait. It is called when the runtime has ended, or the
// program is about to.
func (fs *failures) flush() {
	fs.mu.Lock()
	all := fs.waiting
	fs.waiting = nil
	fs.mu.Unlock()
	for f := range all {
		fs.report(f.task, f.err)
	}
}

// How often hunt looks, and how seldom it makes the collector run. A program
// that allocates collects by itself and is left alone; one that sits idle is
// made to, so that a failure is reported while somebody still looks at the
// screen, but not so often that an endless row of failures would cost more
// than a few milliseconds of a second.
const (
	huntEvery   = time.Second
	huntCollect = 10 * time.Second
)

// hunt makes sure that the collector looks at the handles, and ends once no
// failure waits.
func (fs *failures) hunt() {
	pprof.SetGoroutineLabels(context.Background()) // not those of the task that has failed
	var collected time.Time
	over := fs.over
	for cycles := gcCycles(); ; {
		select {
		case <-time.After(huntEvery):
		case <-over:
			over = nil // what fails from now on, as a call may that outlives Shutdown, is hunted as before
		}
		fs.mu.Lock()
		if len(fs.waiting) == 0 {
			fs.hunting = false
			fs.mu.Unlock()
			return
		}
		fs.mu.Unlock()
		if now := gcCycles(); now != cycles {
			cycles = now
		} else if time.Since(collected) >= huntCollect {
			runtime.GC()
			collected = time.Now()
		}
	}
}

// gcCycles returns how many collections there have been.
func gcCycles() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// reportFailure is the handler that a runtime has if Config names none: one
// line, and the stack if it was a panic.
func reportFailure(t Task, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "async: task %v failed and nobody joined it: %v\n", t, err)
	if p := (*PanicError)(nil); errors.As(err, &p) {
		b.Write(p.Stack)
	}
	os.Stderr.WriteString(b.String())
}

// Crash is a value for Config.Unhandled: it ends the program with a panic that
// names the task and its error. It does not return, and nobody can recover from
// it, whoever has called Shutdown.
func Crash(t Task, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "async: task %v failed and nobody joined it: %v", t, err)
	if p := (*PanicError)(nil); errors.As(err, &p) {
		fmt.Fprintf(&b, "\n\n%s", p.Stack)
	}
	go func() { panic(b.String()) }()
	select {}
}
