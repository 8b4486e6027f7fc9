package async

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A bubble of testing/synctest owns the goroutines, channels and timers that are made in it, with
// three consequences:
//
//   - The Go runtime ends the program if a channel or timer of a bubble is used from outside.
//   - A bubble does not end before its goroutines have ended.
//   - The clock of a bubble stands still while one of its goroutines waits for something outside.
//
// A goroutine in a bubble may use this package, whose workers are outside. So an object that both
// sides use must belong to no bubble. It is made outside:
//
//   - channels, by newChan;
//   - timers of package time, in alarm.setStd;
//   - goroutines that outlive the call that starts them, by goOutsideBubble;
//   - runtimes, in New;
//   - contexts that workers read, by contextOutsideBubble.
//
// The opposite, a call of user code inside the bubble, is cancelScope.callAfterInBubble.
//
// A sync.Mutex belongs to no bubble. This package uses the real time on both sides; see nanosHere.

// inBubble reports whether the calling goroutine is in a bubble. Tasks are in none, and for them
// the call does not read the clock.
func inBubble() bool { return callersIdentity() == nil && ofBubble(time.Now()) }

// ofBubble reports whether now, which time.Now has just returned, is the time of a bubble. Such a
// time has no monotonic clock reading, and every other result of time.Now has one.
func ofBubble(now time.Time) bool { return now == now.Round(0) }

// outsideBubble runs f on a goroutine that is in no bubble, and waits until f has returned. If the
// calling goroutine is in no bubble, f runs on it.
func outsideBubble(f func()) {
	if !inBubble() {
		f()
		return
	}
	var ran sync.Mutex // a channel would belong to the bubble
	ran.Lock()
	runOnStarter(func() {
		defer ran.Unlock()
		f()
	})
	ran.Lock()
}

// goOutsideBubble starts f on a goroutine that is in no bubble. It does not wait, so it may be
// called under a lock.
func goOutsideBubble(f func()) {
	if inBubble() {
		go runOnStarter(f) // the first call waits until the starter runs
	} else {
		go f()
	}
}

// newChan makes a channel that belongs to no bubble.
func newChan[T any](capacity int) chan T {
	if inBubble() {
		return newChanOutsideBubble[T](capacity)
	}
	return make(chan T, capacity)
}

// newChanOutsideBubble is newChan for a caller in a bubble. It is a function of its own because the
// variables to which its closure refers are allocated.
func newChanOutsideBubble[T any](capacity int) (c chan T) {
	outsideBubble(func() { c = make(chan T, capacity) })
	return c
}

// starterJobs passes functions from goroutines in bubbles to the starter. It belongs to no bubble,
// since packages are initialized in none.
var starterJobs = make(chan func())

// runOnStarter makes the starter run f on a new goroutine outside of bubbles. The caller is in a
// bubble. It returns when the starter has received f.
func runOnStarter(f func()) {
	beginStarter()
	starterJobs <- f
}

// beginStarter starts the starter, a goroutine outside of all bubbles that lives as long as the
// program. The first caller is in a bubble, where a go statement starts a goroutine of the bubble.
// But functions that are registered by runtime.AddCleanup run outside. So beginStarter registers a
// function and collects garbage until that function has run. A program without bubbles has no
// starter.
var beginStarter = sync.OnceFunc(func() {
	var runs atomic.Bool
	afterCollection(func() {
		go runStarterJobs()
		runs.Store(true)
	})
	for !runs.Load() {
		runtime.GC()
		for i := 0; i < 1000 && !runs.Load(); i++ {
			runtime.Gosched()
		}
	}
})

// runStarterJobs is the starter. It starts a goroutine for each function, so that no function
// delays another.
func runStarterJobs() {
	for f := range starterJobs {
		go f()
	}
}

// afterCollection makes the Go runtime call f after a garbage collection. It is not inlined, so
// that garbage is unreachable when it returns.
//
//go:noinline
func afterCollection(f func()) {
	garbage := new([64]byte)
	runtime.AddCleanup(garbage, func(f func()) { f() }, f)
}

// nanosHere is nanos for code that may run on a goroutine in a bubble. The clock of the bubble
// stands still while the goroutine waits for this package, so it would never reach the time of a
// timer here.
func nanosHere() int64 {
	now, bubble := clockNow()
	if bubble {
		return nanosOutsideBubble()
	}
	return now
}

// nanosOutsideBubble is nanosHere for a caller in a bubble. It is a function of its own because the
// variables to which its closure refers are allocated.
func nanosOutsideBubble() (now int64) {
	outsideBubble(func() { now = nanos() })
	return now
}

// clockNow returns the result of nanos, and whether that is wrong because the caller is in a
// bubble.
//
// The clock of a bubble shows a time that is far from the times that this process has seen. So a
// time within a second after clockSeen is no bubble's time, and inBubble is called at most once a
// second. (If a bubble has set its clock forward to this very second, that is not detected.)
func clockNow() (now int64, bubble bool) {
	now = nanos()
	if uint64(now-clockSeen.Load()) < uint64(time.Second) {
		return now, false
	}
	if inBubble() {
		return now, true
	}
	clockSeen.Store(now)
	return now, false
}

// clockSeen is a time at which clockNow has found its caller in no bubble.
var clockSeen atomic.Int64

// nanos is nanosHere for the code of the task of cx. If a worker runs this code, it costs no more
// than the function nanos.
func (cx *Context) nanos() int64 {
	if cx.t.kind < kindGoroutine {
		return nanos()
	}
	return nanosHere()
}

// afterOutsideBubble is time.After by the real clock. The channel belongs to no bubble.
func afterOutsideBubble(d time.Duration) (late <-chan time.Time) {
	outsideBubble(func() { late = time.After(d) })
	return late
}

// contextOutsideBubble returns a context for code outside of the caller's bubble. It ends when ctx
// ends. Code outside must not use ctx itself, not even its method Err, which receives from a
// channel of the bubble. If the caller is in no bubble, contextOutsideBubble returns ctx.
//
// If ctx has a deadline, the context also ends when the time that ctx has left has passed by the
// real clock. The clock of the bubble stands still while a goroutine of the bubble waits for
// something outside, so ctx alone might never end. Package net treats the deadlines of contexts in
// the same way.
//
// release must be called in the bubble when the context is no longer needed.
func contextOutsideBubble(ctx context.Context) (out context.Context, release func()) {
	switch ctx.(type) {
	case *Context, *outerContext:
		return ctx, func() {}
	}
	if ctx.Done() == nil || !inBubble() {
		return ctx, func() {}
	}
	c := &outerContext{inner: ctx}
	deadline, limited := ctx.Deadline()
	left := time.Until(deadline)
	var late *time.Timer
	outsideBubble(func() {
		c.Context, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		c.Done() // makes its channel, here outside
		if limited {
			c.deadline = time.Now().Add(left)
			late = time.AfterFunc(left, func() { c.end(context.DeadlineExceeded, context.DeadlineExceeded) })
		}
	})
	c.Err() // ends c at once if ctx has ended
	stop := context.AfterFunc(ctx, func() { c.Err() })
	return c, func() {
		stop()
		if limited {
			late.Stop()
		}
		c.end(context.Canceled, nil)
	}
}

// contextOfWait returns the context for a goroutine that waits until ctx ends. The goroutine may be
// in a bubble. It could use ctx itself there, but a deadline of ctx might never pass; see
// contextOutsideBubble.
func contextOfWait(ctx context.Context) (out context.Context, release func()) {
	if _, limited := ctx.Deadline(); limited {
		return contextOutsideBubble(ctx)
	}
	return ctx, func() {}
}

// outerContext is the context that contextOutsideBubble returns in a bubble. It is used on both
// sides: Done, Value and, outside, Err use only the embedded context. The field inner is used only
// in the bubble.
type outerContext struct {
	context.Context // made outside, with the values of inner
	inner           context.Context
	deadline        time.Time // the deadline of inner by the real clock; zero if it has none
	cancel          context.CancelCauseFunc

	once    sync.Once   // for end
	expired atomic.Bool // it has ended by its deadline
}

// end ends c with err and a cause, unless c has ended. expired is stored before the embedded
// context ends, so that Err is right as soon as Done is closed.
func (c *outerContext) end(err, cause error) {
	c.once.Do(func() {
		c.expired.Store(err == context.DeadlineExceeded)
		c.cancel(cause)
	})
}

// Err implements context.Context. In the bubble it also looks at inner, and ends c if inner has
// ended. So a caller there sees the end of inner at once, and not only when the function of
// context.AfterFunc has run.
func (c *outerContext) Err() error {
	err := c.Context.Err()
	if err == nil && inBubble() {
		if err = c.inner.Err(); err != nil {
			c.end(err, context.Cause(c.inner))
		}
	}
	if err != nil && c.expired.Load() {
		return context.DeadlineExceeded
	}
	return err
}

// Deadline implements context.Context. It returns the deadline by the clock of the caller: the
// clock of the bubble, or the real clock.
func (c *outerContext) Deadline() (deadline time.Time, ok bool) {
	if c.deadline.IsZero() || inBubble() {
		return c.inner.Deadline()
	}
	return c.deadline, true
}
