package async

import (
	"context"
	"sync/atomic"
	"time"
)

// cancelScope is the part of a Context that can be cancelled and watched. Scopes
// form a chain from the derived Context to that of the task. The end of a scope is
// passed down the chain only to scopes that are watched (by Done or AfterFunc): an
// await looks up the chain instead.
type cancelScope struct {
	t        *task    // woken when the scope ends
	parent   *Context // nil in the scope of a task's own Context
	deadline time.Time

	// shield is not nil in the scope of WithoutCancel: the end of the parent does
	// not end this scope. It ends when this runtime ends its workers.
	shield *Runtime

	// late is the cause if the scope expires. In the scope of a task's own Context
	// it is the cause if the handle cancels the task, and is guarded by mu.
	late error

	status atomic.Uint32 // written under mu
	cause  error         // why it has ended; written once, before status

	mu      lockOf[cancelScope]
	alarm   alarm
	done    chan struct{}
	after   map[*afterFunc]struct{}
	unwatch func() bool // takes this scope off its parent's list

	spawned atomic.Pointer[spawnGroup] // of a derived Context with which a task was spawned
	value   *scopeValue                // of WithValue; never changes
}

// scopeValue is the value that WithValue adds.
type scopeValue struct{ key, val any }

// How a scope ended.
const (
	scopeOpen uint32 = iota
	scopeCancelled
	scopeExpired
)

// scopeErrs are the errors of Contexts by the status of their scope.
var scopeErrs = [...]error{scopeOpen: nil, scopeCancelled: context.Canceled, scopeExpired: context.DeadlineExceeded}

// afterFunc is one call that waits for the end of a scope.
type afterFunc struct {
	f      func()
	inline bool
}

func (a *afterFunc) call() {
	if a.inline {
		a.f()
	} else {
		go a.f()
	}
}

// end ends the scope, once. A nil cause means the error of status. from is the worker
// on whose thread the caller runs, or nil.
func (sc *cancelScope) end(status uint32, cause error, from *worker) {
	if from == nil {
		from = callersWorker()
	}
	sc.mu.Lock()
	if sc.status.Load() != scopeOpen {
		sc.mu.Unlock()
		return
	}
	if sc.cause = cause; cause == nil {
		sc.cause = scopeErrs[status]
	}
	sc.status.Store(status)
	sc.alarm.stop(from)
	if sc.done != nil {
		close(sc.done)
	}
	after, unwatch := sc.after, sc.unwatch
	sc.after, sc.unwatch = nil, nil
	sc.mu.Unlock()

	if unwatch != nil {
		unwatch()
	}
	for a := range after {
		a.call()
	}
	sc.t.wake(from)
}

func (sc *cancelScope) cancel() { sc.close(scopeCancelled, nil, nil) }

// close is end, unless an outer scope or the task has ended before: then the scope ends
// in the same way, with the same cause.
func (sc *cancelScope) close(status uint32, cause error, from *worker) {
	if sc.parent != nil && sc.shield == nil {
		if outer, at := sc.parent.ending(); outer != scopeOpen {
			status, cause = outer, sc.t.causeIn(at)
		}
	}
	sc.end(status, cause, from)
}

// propose sets the cause for the case that the task is cancelled by its handle,
// unless a cause was set before.
func (sc *cancelScope) propose(cause error) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.late == nil {
		sc.late = cause
	}
}

func (sc *cancelScope) proposed() error {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	return sc.late
}

// arm makes the scope expire at the given time.
func (sc *cancelScope) arm(w *worker, at int64) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.alarm.set(w, at, sc)
}

// expire implements expirer.
func (sc *cancelScope) expire(from *worker) { sc.close(scopeExpired, sc.late, from) }

// doneChan returns the channel that is closed when the scope ends.
func (sc *cancelScope) doneChan() <-chan struct{} {
	sc.mu.Lock()
	if sc.done == nil {
		sc.done = newChan[struct{}](0)
		if sc.status.Load() != scopeOpen {
			close(sc.done)
		}
	}
	done := sc.done
	sc.mu.Unlock()
	sc.watch()
	return done
}

// callAfter has f called once the scope has ended: by the caller that ends the
// scope if inline is set, else in a goroutine of its own.
func (sc *cancelScope) callAfter(f func(), inline bool) (stop func() bool) {
	a := &afterFunc{f: f, inline: inline}
	if !inline && inBubble() {
		return sc.callAfterInBubble(f)
	}
	sc.mu.Lock()
	ended := sc.status.Load() != scopeOpen
	if !ended {
		if sc.after == nil {
			sc.after = map[*afterFunc]struct{}{}
		}
		sc.after[a] = struct{}{}
	}
	sc.mu.Unlock()
	if ended {
		a.call()
		return func() bool { return false }
	}
	sc.watch()
	return func() bool {
		sc.mu.Lock()
		defer sc.mu.Unlock()
		_, waiting := sc.after[a]
		delete(sc.after, a)
		return waiting
	}
}

// callAfterInBubble is callAfter for a caller in a bubble of testing/synctest. The bubble
// may own objects that f uses, such as the channel of a context that is derived from the
// Context. The scope may be ended from outside, so a goroutine of the bubble waits for the
// end and calls f.
func (sc *cancelScope) callAfterInBubble(f func()) (stop func() bool) {
	over := newChan[bool](1)
	go func() {
		if <-over {
			f()
		}
	}()
	leave := sc.callAfter(func() { over <- true }, true)
	return func() bool {
		stopped := leave()
		if stopped {
			over <- false
		}
		return stopped
	}
}

// watch makes the scope end when its parent does, for Done and AfterFunc, which do
// not look up the chain.
func (sc *cancelScope) watch() {
	if sc.parent == nil || sc.shield != nil {
		return
	}
	outer := sc.parent.endScope()
	sc.mu.Lock()
	watched := sc.unwatch != nil || sc.status.Load() != scopeOpen
	if !watched {
		sc.unwatch = func() bool { return true } // until the real function is there
	}
	sc.mu.Unlock()
	if watched {
		return
	}
	unwatch := outer.callAfter(func() { sc.end(outer.status.Load(), outer.cause, nil) }, true)
	sc.mu.Lock()
	ended := sc.status.Load() != scopeOpen
	sc.unwatch = unwatch
	sc.mu.Unlock()
	if ended {
		unwatch()
	}
}
