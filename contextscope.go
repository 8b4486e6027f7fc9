package async

import (
	"context"
	"sync/atomic"
	"time"
)

// A derived Context has a scope from the beginning. The Context of a task gets a scope when one is
// needed. Scopes form a chain, from the derived Context to the Context of the task.
//
// The end of a scope is not passed down the chain. Instead, an await looks up the chain
// (Context.ending) each time before it polls. So a derived Context that is dropped leaves nothing
// behind, unless it has a deadline: then its timer is left until the deadline, or until the
// function that cancels it is called.
//
// Registration, by the first Done or AfterFunc of a scope, which cannot look up the chain (watch):
//
//  1. Find the scope in which the parent ends (endScope). A scope of WithValue has no end of its
//     own and is skipped. A scope of WithoutCancel registers nothing.
//  2. Store a placeholder in unwatch, under mu. Only the caller that has changed unwatch goes on.
//  3. Register an AfterFunc with the parent's scope. It ends this scope as the parent has ended.
//     This registers the parent with its own parent in the same way.
//  4. Store the function that removes this AfterFunc in unwatch, under mu. If the scope has ended
//     meanwhile, call the function at once.
//
// The end of a scope (end), by its function, at its deadline, by the AfterFunc of step 3, or for
// the task's own scope by the cancellation or the end of the task:
//
//  1. Under mu: if status is not scopeOpen, stop here. Store the cause and then the status. Stop
//     the timer, close done, and take out the AfterFuncs and unwatch.
//  2. Without mu: call unwatch, which removes the registration with the parent. Call the
//     AfterFuncs, or start a goroutine for each.
//  3. Wake the task: its await may use this scope.
//
// The races that this closes:
//
//  1. The scope is ended twice at the same time, for example by its function and at its deadline.
//     The first caller stores the status, under mu.
//  2. The scope is ended, but its parent, or the task, has ended before. Err would have returned
//     the parent's error already. So close looks up the chain first, and ends the scope in the same
//     way as the parent.
//  3. The parent ends before step 3 of the registration. Then the AfterFunc is called at once.
//  4. The scope ends between steps 2 and 4 of the registration. The end finds the placeholder,
//     which does nothing, and step 4 removes the AfterFunc.
//  5. The scope of a task's own Context is made while the task is cancelled or ends. Context.scope
//     stores the scope and then reads the state of the task. The task's state changes before
//     task.endScope reads the scope. So at least one of the two ends the scope.

// A cancelScope is the part of a Context that can be cancelled and watched.
type cancelScope struct {
	t        *task     // the task of the Context; woken when the scope ends
	parent   *Context  // the Context from which this one is derived; nil in the scope of a task's own Context
	deadline time.Time // the earliest deadline of the chain; zero if there is none

	// shield is not nil in the scope of WithoutCancel: the end of the parent does not end this
	// scope. The scope ends when this runtime ends its workers.
	shield *Runtime

	// late is the cause if the scope expires. In the scope of a task's own Context it is the cause
	// if the handle cancels the task, and is guarded by mu.
	late error

	status atomic.Uint32 // whether and how the scope has ended; written under mu
	cause  error         // why the scope has ended; written once, before status

	mu      lockOf[cancelScope]
	alarm   alarm                   // the timer of the deadline
	done    chan struct{}           // closed when the scope ends; nil before the first Done
	after   map[*afterFunc]struct{} // called when the scope ends
	unwatch func() bool             // removes the registration with the parent; nil if there is none

	spawned atomic.Pointer[spawnGroup] // the tasks that were spawned with the Context, or nil
	value   *scopeValue                // set by WithValue; never changes
}

// scopeValue is the value that WithValue adds.
type scopeValue struct{ key, val any }

// The status of a scope: whether it has ended, and how.
const (
	scopeOpen uint32 = iota
	scopeCancelled
	scopeExpired
)

// scopeErrs are the errors of Contexts, by the status of their scope.
var scopeErrs = [...]error{scopeOpen: nil, scopeCancelled: context.Canceled, scopeExpired: context.DeadlineExceeded}

// afterFunc is a function that is called when a scope ends: inline by the code that ends the scope,
// or else on a goroutine of its own.
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

// end ends the scope, unless it has ended. A nil cause means the error of status. from is the
// worker on whose thread the caller runs, or nil if the caller has not looked.
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

// close is end, unless an outer scope or the task has ended before. Then the scope ends in the same
// way as the outer scope or the task, with the same cause; see race 2.
func (sc *cancelScope) close(status uint32, cause error, from *worker) {
	if sc.parent != nil && sc.shield == nil {
		if outer, at := sc.parent.ending(); outer != scopeOpen {
			status, cause = outer, sc.t.causeIn(at)
		}
	}
	sc.end(status, cause, from)
}

// propose sets the cause for the case that the handle cancels the task. The first call counts.
func (sc *cancelScope) propose(cause error) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.late == nil {
		sc.late = cause
	}
}

// proposed returns the cause that propose has set, or nil.
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

// callAfter arranges for f to be called once the scope has ended: by the code that ends the scope
// if inline is set, else on a goroutine of its own. If the scope has ended, f is called at once.
// stop reports whether it has prevented the call.
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

// callAfterInBubble is callAfter for a caller in a bubble of testing/synctest. The bubble may own
// objects that f uses, for example the channel of a context that is derived from the Context. But
// the scope may be ended by code outside. So a goroutine of the bubble waits for the end and calls
// f.
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

// watch registers the scope with its parent, for Done and AfterFunc; see the head of this file.
func (sc *cancelScope) watch() {
	if sc.parent == nil || sc.shield != nil {
		return
	}
	outer := sc.parent.endScope()
	sc.mu.Lock()
	watched := sc.unwatch != nil || sc.status.Load() != scopeOpen
	if !watched {
		sc.unwatch = func() bool { return true } // the placeholder of step 2
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
