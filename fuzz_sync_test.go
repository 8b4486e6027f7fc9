package async

import (
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests of this file let a few actors use a primitive in any order, poll without a wake, and
// give up at any moment. They compare the primitive with a naive model. The low four bits of an
// operation are the actor, the next three bits are the operation itself.

// fuzzActors adds inputs to f and calls step for each operation of an input.
func fuzzActors(f *testing.F, run func(t *testing.T) (step func(actor int, op byte), finish func())) {
	for _, script := range scripts(100, 200) {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		step, finish := run(t)
		for _, op := range ops[:min(len(ops), 1000)] {
			step(int(op&15), op>>4&7)
		}
		finish()
	})
}

// without returns all elements but one.
func without[T comparable](all []T, one T) []T {
	return slices.DeleteFunc(all, func(x T) bool { return x == one })
}

// FuzzOneshot: the value goes to one receiver. A task that waits is woken by the event that ends
// its wait, and by no other event.
func FuzzOneshot(f *testing.F) {
	fuzzActors(f, func(t *testing.T) (func(int, byte), func()) {
		var o Oneshot[int]
		type actor struct {
			h    *mockTask
			f    Future[int] // of the value; nil: it does not wait for the value
			ends bool        // it waits in Closed
			due  bool        // it has been woken
		}
		actors := make([]*actor, 4)
		for i := range actors {
			actors[i] = &actor{h: newMockTask()}
		}
		value, sent, over := 0, false, false
		wake := func(closed bool) {
			for _, a := range actors {
				a.due = a.due || a.f != nil || closed && a.ends
			}
		}
		took := func(v int, err error) (pending bool) {
			switch {
			case over:
				require.Equal(t, ErrClosed, err)
			case sent:
				require.NoError(t, err)
				require.Equal(t, value, v)
				over = true
				wake(true)
			default:
				require.Contains(t, []error{ErrPending, ErrEmpty}, err)
				return true
			}
			return false
		}
		step := func(i int, op byte) {
			a := actors[i%len(actors)]
			switch {
			case op == 0 && i == 0:
				err := o.Send(i + 1)
				if sent || over {
					require.Equal(t, ErrClosed, err)
					break
				}
				require.NoError(t, err)
				value, sent = i+1, true
				wake(false)
			case op == 1 && i == 0:
				first := o.Close() == nil
				require.Equal(t, !sent && !over, first)
				if first {
					over = true
					wake(true)
				}
			case op == 2 && i == 0:
				took(o.TryRecv())
			case op == 3 && !a.ends:
				if a.f == nil {
					a.f = o.recvFuture()
				}
				a.h.woken()
				a.due = false
				f := a.f
				a.f = nil
				if took(f.Poll(a.h.cx)) {
					a.f = f
				}
			case op == 4 && a.f == nil:
				a.h.woken()
				a.due = false
				a.ends = o.pollClosed(a.h.cx) == ErrPending
				require.Equal(t, !over, a.ends)
			case op == 5 && a.f != nil:
				giveUp(nil, a.f)
				a.h.woken() // by itself, perhaps
				a.f, a.due = nil, false
			case op == 6 && a.ends:
				o.closed.leave(a.h.cx.t, nil)
				a.h.woken()
				a.ends, a.due = false, false
			}
			for _, a := range actors {
				require.Equal(t, a.due, a.h.wakes.Load() > a.h.seen)
			}
		}
		return step, func() {
			step(0, 1)
			step(0, 2)
			for i := range actors {
				step(i, 3)
				step(i, 4)
				require.False(t, actors[i].ends)
			}
			require.Zero(t, o.v)
		}
	})
}

// FuzzWaitGroup: an actor that waits when the count becomes zero is released, even if the count
// grows again before the actor looks.
func FuzzWaitGroup(f *testing.F) {
	fuzzActors(f, func(t *testing.T) (func(int, byte), func()) {
		var wg WaitGroup
		type actor struct {
			w        *mockWaiter
			released bool
		}
		var actors [5]actor
		count := 0
		step := func(i int, op byte) {
			a := &actors[i%len(actors)]
			delta := 0
			switch {
			case op == 0:
				delta = i%3 + 1
			case op == 1:
				delta = -1
			case op == 2:
				delta = -2
			case op == 3 && a.w == nil:
				a.w, a.released = newMockWaiter(wg.WaitFuture()), count == 0
				fallthrough
			case op == 4 && a.w != nil:
				ready := a.w.ready(t)
				require.Equal(t, a.released, ready)
				if ready {
					a.w = nil
				}
			case op == 5 && a.w != nil:
				a.w.cancel()
				a.w = nil
			}
			if count+delta < 0 {
				requireMisuse(t, misuse(func() { wg.Add(delta) }), "negative WaitGroup counter")
			} else if delta != 0 {
				wg.Add(delta)
				count += delta
				for i := range actors {
					actors[i].released = actors[i].released || count == 0
				}
			}
			waits := 0
			for _, a := range actors {
				if a.w != nil {
					require.Equal(t, a.released, a.w.woken())
					if !a.released {
						waits++
					}
				}
			}
			want := int64(count) * groupUnit
			if waits > 0 {
				want |= groupAwaited
			}
			require.Equal(t, want, wg.state.bits.Load())
			require.Equal(t, waits, wg.list.n)
		}
		return step, func() {
			for count > 0 {
				step(0, 1)
			}
			for i := range actors {
				step(i, 4)
				require.Nil(t, actors[i].w)
			}
		}
	})
}

// FuzzBarrier: a round ends when three parties are there at the same time, and the last of them is
// the leader.
func FuzzBarrier(f *testing.F) {
	const parties = 3
	fuzzActors(f, func(t *testing.T) (func(int, byte), func()) {
		b := NewBarrier(parties)
		type actor struct {
			h      *mockTask
			f      Future[bool]
			passed bool
		}
		var queue []*actor
		actors := make([]*actor, 6)
		for i := range actors {
			actors[i] = &actor{h: newMockTask()}
		}
		step := func(i int, op byte) {
			a := actors[i%len(actors)]
			switch {
			case op <= 2 && a.f == nil:
				a.f, a.passed = b.WaitFuture(), false
				a.h.woken()
				leader, err := a.f.Poll(a.h.cx)
				queue = append(queue, a)
				if len(queue) < parties {
					require.Equal(t, ErrPending, err)
					break
				}
				require.NoError(t, err)
				require.True(t, leader)
				for _, q := range queue {
					q.passed = true
				}
				queue, a.f = nil, nil
			case op <= 4 && a.f != nil:
				a.h.woken()
				leader, err := a.f.Poll(a.h.cx)
				if !a.passed {
					require.Equal(t, ErrPending, err)
					break
				}
				require.NoError(t, err)
				require.False(t, leader)
				a.f = nil
			case op == 5 && a.f != nil:
				giveUp(nil, a.f)
				queue = without(queue, a)
				a.f = nil
			}
			for _, a := range actors {
				if a.f != nil {
					require.Equal(t, a.passed, a.h.wakes.Load() > a.h.seen)
				}
			}
			require.Equal(t, len(queue), b.list.n)
		}
		return step, func() {
			for i := range actors {
				step(i, 3)
				step(i, 5)
			}
			require.Empty(t, queue)
		}
	})
}

// FuzzCond: a signal wakes the first waiter. If this waiter gives up, before it was polled or while
// it waits for the Mutex, the signal goes to the next waiter. Broadcast wakes all waiters. An actor
// whose wait has returned holds the Mutex, alone.
func FuzzCond(f *testing.F) {
	fuzzActors(f, func(t *testing.T) (func(int, byte), func()) {
		c := NewCond(new(Mutex))
		type actor struct {
			w        *mockWaiter
			signaled bool
			byOne    bool
			holds    bool
		}
		actors := make([]*actor, 6)
		for i := range actors {
			actors[i] = new(actor)
		}
		var queue []*actor
		signal := func() {
			if len(queue) > 0 {
				queue[0].signaled, queue[0].byOne = true, true
				require.True(t, queue[0].w.woken())
				queue = queue[1:]
			}
		}
		holder := func() *actor {
			i := slices.IndexFunc(actors, func(a *actor) bool { return a.holds })
			if i < 0 {
				return nil
			}
			return actors[i]
		}
		poll := func(a *actor) {
			switch ready := a.w.ready(t); {
			case !a.signaled:
				require.False(t, ready)
			case ready:
				require.Nil(t, holder(), "two hold it")
				a.w, a.holds = nil, true
			}
		}
		step := func(i int, op byte) {
			a := actors[i%len(actors)]
			switch {
			case op == 0 && a.w == nil && !a.holds:
				free := !c.L.state.locked()
				require.Equal(t, free, c.L.TryLock())
				a.holds = free
			case op <= 2 && a.holds:
				*a = actor{w: newMockWaiter(c.WaitFuture())}
				poll(a) // unlocks
				queue = append(queue, a)
			case op <= 2 && a.w != nil:
				poll(a)
			case op == 3 && a.holds:
				a.holds = false
				c.L.Unlock()
			case op == 4:
				c.Signal()
				signal()
			case op == 5 && i < 4:
				c.Broadcast()
				for _, q := range queue {
					q.signaled = true
				}
				queue = nil
			case op == 6 && a.w != nil:
				a.w.cancel()
				a.w = nil
				if queue = without(queue, a); a.signaled && a.byOne {
					signal()
				}
			}
			require.Equal(t, len(queue), c.list.n)
			woken, handed := 0, 0
			for _, a := range actors {
				if a.w == nil {
					continue
				}
				if a.w.woken() {
					woken++
				}
				if a.w.f.(*condLockFuture).lock.w.phase == waiterChosen {
					handed++
				}
				require.False(t, !a.signaled && a.w.woken(), "nobody has called it")
			}
			if holder() == nil {
				require.Equal(t, handed == 1, c.L.state.locked())
				signaled := slices.ContainsFunc(actors, func(a *actor) bool { return a.w != nil && a.signaled })
				require.Equal(t, signaled, woken > 0, "whoever has been called comes for the Mutex")
			}
		}
		return step, func() {
			for again := true; again; {
				again = false
				for i, a := range actors {
					again = again || a.holds || a.w != nil && a.w.woken()
					if a.holds {
						step(i, 3)
					} else if a.w != nil && a.w.woken() {
						step(i, 2)
					}
				}
			}
			for _, a := range actors {
				require.True(t, a.w == nil || slices.Contains(queue, a), "forgotten")
			}
			require.Zero(t, c.L.state.bits.Load())
		}
	})
}

// FuzzOnce: one actor at a time tries to make the value. Once it is made, all actors get it.
func FuzzOnce(f *testing.F) {
	fails := errors.New("it cannot be made")
	fuzzActors(f, func(t *testing.T) (func(int, byte), func()) {
		var o Once[int]
		type actor struct {
			h *mockTask
			f Future[int]
			p *probe // makes the value
		}
		actors := make([]*actor, 5)
		for i := range actors {
			actors[i] = &actor{h: newMockTask()}
		}
		var maker *actor
		made := false
		poll := func(a *actor) {
			a.h.woken()
			v, err := a.f.Poll(a.h.cx)
			switch {
			case made:
				if err != ErrPending { // another actor may have been handed the lock
					require.NoError(t, err)
					require.Equal(t, 42, v)
					a.f = nil
				}
			case a.p == nil || !a.p.ready:
				require.Equal(t, ErrPending, err)
			default:
				require.Same(t, maker, a)
				require.Equal(t, a.p.err, err)
				require.EqualValues(t, 0, a.p.cancels.Load())
				made = err == nil
				maker, a.f, a.p = nil, nil, nil
			}
		}
		step := func(i int, op byte) {
			a := actors[i%len(actors)]
			switch {
			case op == 0 && a.f == nil:
				a.f = o.DoFuture(func() Future[int] {
					require.False(t, made)
					require.Nil(t, maker, "two make it")
					maker, a.p = a, new(probe)
					if i > 12 {
						a.p.err, a.p.ready = fails, true
					}
					return a.p
				})
				poll(a)
			case op <= 2 && a.f != nil:
				poll(a)
			case op == 3 && maker != nil:
				var err error
				if i < 12 {
					err = fails
				}
				maker.p.resolve(err)
				require.True(t, maker.h.wakes.Load() > maker.h.seen)
			case op >= 4 && op <= 5 && a.f != nil:
				giveUp(nil, a.f)
				if maker == a {
					require.EqualValues(t, 1, a.p.cancels.Load())
					maker = nil
				}
				a.f, a.p = nil, nil
			}
			v, ok := o.Get()
			require.Equal(t, made, ok)
			if made {
				require.Equal(t, 42, v)
			}
			waits, woken := false, false
			for _, a := range actors {
				if a.f != nil {
					waits, woken = true, woken || a.h.wakes.Load() > a.h.seen
				}
			}
			require.True(t, maker != nil || !waits || woken, "nobody comes to try")
		}
		return step, func() {
			for again := true; again; {
				again = false
				step(15, 3)
				for i, a := range actors {
					if a.f != nil && a.h.wakes.Load() > a.h.seen {
						again = true
						step(i, 2)
					}
				}
			}
			for _, a := range actors {
				require.Nil(t, a.f, "forgotten")
			}
			require.Zero(t, o.mu.state.bits.Load())
		}
	})
}
