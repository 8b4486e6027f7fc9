package async

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A bubble of testing/synctest owns the goroutines, channels and timers that are made
// in it. The Go runtime ends the program if a channel or timer of a bubble is used from
// outside; a bubble does not end before its goroutines do; and its clock stands still
// while one of them waits for something outside.
//
// A goroutine in a bubble may use this package, whose workers are outside. So an object
// that both sides use must belong to no bubble, and is made outside:
//
//   - channels, by newChan;
//   - timers of Go's, in alarm.setStd;
//   - goroutines that outlive the call that starts them, by goOutsideBubble;
//   - runtimes, in New;
//   - contexts that workers look at, by contextOutsideBubble.
//
// The reverse is cancelScope.callAfterInBubble.
//
// A sync.Mutex belongs to no bubble. Time is the real one, on both sides: see nanosHere.

// inBubble reports whether the calling goroutine is in a bubble. Tasks are in none, and pay
// less.
func inBubble() bool { return callersIdentity() == nil && ofBubble(time.Now()) }

// ofBubble reports whether now, which time.Now has just returned, is a bubble's time. Only
// there does it have no monotonic clock reading.
func ofBubble(now time.Time) bool { return now == now.Round(0) }

// outsideBubble runs f on a goroutine that is in no bubble, and waits for it. If the caller's
// goroutine is in no bubble, f runs there.
func outsideBubble(f func()) {
	if !inBubble() {
		f()
		return
	}
	var ran sync.Mutex // a channel would be the bubble's
	ran.Lock()
	runOnStarter(func() {
		defer ran.Unlock()
		f()
	})
	ran.Lock()
}

// goOutsideBubble starts f on a goroutine that is in no bubble. It does not wait, so it may
// be called under a lock.
func goOutsideBubble(f func()) {
	if inBubble() {
		go runOnStarter(f) // which may wait for the first time
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

func newChanOutsideBubble[T any](capacity int) (c chan T) {
	outsideBubble(func() { c = make(chan T, capacity) })
	return c
}

// starterJobs passes functions from goroutines in bubbles to the starter. It belongs to no
// bubble, since packages are initialized in none.
var starterJobs = make(chan func())

// runOnStarter has f run on a goroutine of its own outside. The caller is in a bubble.
func runOnStarter(f func()) {
	beginStarter()
	starterJobs <- f
}

// beginStarter starts the starter, a goroutine outside of all bubbles that stays. The
// first caller is in a bubble, where a go statement cannot start it. But the functions
// that runtime.AddCleanup is given run outside. A program without bubbles has no starter.
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

// runStarterJobs is the starter.
func runStarterJobs() {
	for f := range starterJobs {
		go f()
	}
}

// afterCollection has f called when the garbage collector has run.
//
//go:noinline
func afterCollection(f func()) {
	garbage := new([64]byte)
	runtime.AddCleanup(garbage, func(f func()) { f() }, f)
}

// nanosHere is nanos for code that may run on a goroutine in a bubble, where package
// time has a clock that stands still while the goroutine waits for this package.
func nanosHere() int64 {
	now, bubble := clockNow()
	if bubble {
		return nanosOutsideBubble()
	}
	return now
}

// nanosOutsideBubble is a function of its own because the variables that its closure
// refers to are allocated.
func nanosOutsideBubble() (now int64) {
	outsideBubble(func() { now = nanos() })
	return now
}

// clockNow returns the result of nanos, and whether it is wrong because the caller is in a
// bubble. A time by a bubble's clock is far from any time that this process has seen, so it
// is enough to call inBubble once a second. (A bubble whose clock was set forward to just
// that second would be missed.)
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

// clockSeen is a time at which clockNow has found the caller in no bubble.
var clockSeen atomic.Int64

// nanos is nanosHere for the code of cx's task, at no cost if a worker runs this code.
func (cx *Context) nanos() int64 {
	if cx.t.kind < kindGoroutine {
		return nanos()
	}
	return nanosHere()
}

// afterOutsideBubble is time.After by the clock outside.
func afterOutsideBubble(d time.Duration) (late <-chan time.Time) {
	outsideBubble(func() { late = time.After(d) })
	return late
}

// contextOutsideBubble returns a context for code outside of the caller's bubble, which ends when
// ctx does. Code outside must not use ctx, not even its method Err, which receives from
// ctx's channel. If the caller is in no bubble, contextOutsideBubble returns ctx itself.
//
// The context also ends when as much real time has passed as ctx has left by the clock
// of the bubble, since that clock stands still while a goroutine of the bubble waits
// for something outside. Package net treats the deadlines of contexts in the same way.
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
		c.Done() // its channel is made here
		if limited {
			c.deadline = time.Now().Add(left)
			late = time.AfterFunc(left, func() { c.end(context.DeadlineExceeded, context.DeadlineExceeded) })
		}
	})
	c.Err() // ctx may have ended
	stop := context.AfterFunc(ctx, func() { c.Err() })
	return c, func() {
		stop()
		if limited {
			late.Stop()
		}
		c.end(context.Canceled, nil)
	}
}

// contextOfWait returns the context for a goroutine that waits until ctx ends. In a bubble
// the goroutine may use ctx itself, but the deadline would not pass; see contextOutsideBubble.
func contextOfWait(ctx context.Context) (out context.Context, release func()) {
	if _, limited := ctx.Deadline(); limited {
		return contextOutsideBubble(ctx)
	}
	return ctx, func() {}
}

// outerContext is the context that contextOutsideBubble returns in a bubble.
type outerContext struct {
	context.Context // made outside, with the values of inner
	inner           context.Context
	deadline        time.Time // inner's, on the clock outside; zero if there is none
	cancel          context.CancelCauseFunc

	once    sync.Once // ends it
	expired atomic.Bool
}

// end ends it, unless it has ended.
func (c *outerContext) end(err, cause error) {
	c.once.Do(func() {
		c.expired.Store(err == context.DeadlineExceeded)
		c.cancel(cause)
	})
}

// Err implements context.Context. In the bubble the end of inner shows at once.
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

// Deadline implements context.Context, on the clock of the caller.
func (c *outerContext) Deadline() (deadline time.Time, ok bool) {
	if c.deadline.IsZero() || inBubble() {
		return c.inner.Deadline()
	}
	return c.deadline, true
}
