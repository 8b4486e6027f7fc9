package async

import (
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"
)

func TestWaker(t *testing.T) {
	var zero Waker
	zero.Wake() // does nothing
	require.Equal(t, Waker{}, zero)

	n := 0
	a, b := NewWaker(func() { n++ }), NewWaker(func() { n += 10 })
	c := a
	require.True(t, a == c)
	require.False(t, a == b)
	require.False(t, a == zero)
	a.Wake()
	c.Wake()
	b.Wake()
	require.Equal(t, 12, n)
	require.Len(t, map[Waker]bool{a: true, b: true, c: true}, 2, "wakers are map keys")
}

// The wakers of one task are equal, and the wakers of two tasks are not. They may be called after
// the end of the task.
func TestWakerOfTasks(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	wakers := func() (first, second Waker) {
		h := Go(rt, func(cx *Context) error {
			first = cx.Waker()
			if err := Yield(cx); err != nil {
				return err
			}
			second = cx.Waker()
			return nil
		})
		_, err := h.JoinBlocking(t.Context())
		require.NoError(t, err)
		return first, second
	}
	a1, a2 := wakers()
	b1, _ := wakers()
	require.True(t, a1 == a2)
	require.False(t, a1 == b1)
	a1.Wake()
	b1.Wake()
}

// FuzzWakerSlot compares a slot with a naive slot: a flag and two slices. A slot promises to
// callers that use it one after another:
//
//  1. An event is recorded until one join consumes it. Several events that no join has consumed
//     count as one.
//  2. A task that has joined is woken exactly once: by the next event that is for it, or by its own
//     leave, whichever is first.
//  3. To join twice is to join once. A leave of a task that is not in the slot does nothing to this
//     task.
//  4. Of the tasks that wait in order, fireOne and passOn wake the first, and so does the leave of
//     a task that is not in the slot.
func FuzzWakerSlot(f *testing.F) {
	const join, leave, fire, notifyAll, turn, fireOne, passOn, withdraw = 0 << 5, 1 << 5, 2 << 5, 3 << 5, 4 << 5, 5 << 5, 6 << 5, 7 << 5
	f.Add([]byte{join, fire, join, join})                                                              // woken; then consumes the event
	f.Add([]byte{fire, fire, join, join | 1, fire, join | 1, join})                                    // two fires are one event
	f.Add([]byte{join, join | 1, join | 2, leave | 1, fire, leave, join, join | 2})                    // a fanout loses a task
	f.Add([]byte{join, join | 1, leave, leave | 1, join | 2, notifyAll, join | 2, fire})               // a fanout empties and fills
	f.Add([]byte{notifyAll, fire, notifyAll, join, notifyAll, leave, join | 3, join, notifyAll, fire}) // notifyAll keeps the event
	f.Add([]byte{join, join, leave, leave, join | 1, join | 1, join, leave | 1, fire})                 // to join twice is to join once
	f.Add([]byte{join, turn | 1, turn | 2, turn | 3, fireOne, fireOne, leave | 1, passOn, join, join | 1})
	f.Add([]byte{join, turn | 1, turn | 2, fireOne, notifyAll, join | 3, join | 3, turn | 1, passOn})
	f.Add([]byte{turn, turn | 1, withdraw | 1, turn | 1, turn | 2, fireOne, leave | 4, leave | 4, join, join | 1})
	for _, script := range scripts(20, 200) {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		var slot wakerSlot
		ss := newMockTasks(5)
		var (
			happened    bool
			fan         bool // several tasks have waited, and at least one of them is left
			each, turns []*mockTask
		)
		want := map[*mockTask]int32{}
		wake := func(some ...*mockTask) {
			for _, s := range some {
				want[s]++
			}
		}
		without := func(list []*mockTask, s *mockTask) []*mockTask {
			return slices.DeleteFunc(slices.Clone(list), func(o *mockTask) bool { return o == s })
		}
		waits := func(s *mockTask) bool { return slices.Contains(each, s) || slices.Contains(turns, s) }
		remove := func(s *mockTask) {
			each, turns = without(each, s), without(turns, s)
			fan = fan && len(each)+len(turns) > 0
		}
		next := func() {
			if len(turns) > 0 {
				wake(turns[0])
				turns = turns[1:]
			}
			fan = fan && len(each)+len(turns) > 0
		}
		all := func() {
			wake(each...)
			wake(turns...)
			each, turns, fan = nil, nil, false
		}
		some := func() {
			wake(each...)
			each = nil
			next()
		}
		for i, op := range ops {
			s := ss[int(op&31)%len(ss)]
			switch op &^ 31 {
			case join, turn:
				if got := slot.join(s.t); got == happened {
					t.Fatalf("operation %d: join returned %v, but there has been an event: %v", i, got, happened)
				}
				if happened {
					happened = false
					break
				}
				if !waits(s) {
					each = append(each, s)
				}
				fan = fan || len(each) > 1
				if op&^31 == turn {
					slot.waitInOrder(s.t)
					if fan && slices.Contains(each, s) {
						each, turns = without(each, s), append(turns, s)
					}
				}
			case leave:
				slot.leave(s.t, nil)
				if waits(s) {
					wake(s)
					remove(s)
				} else {
					next()
				}
			case withdraw:
				slot.withdraw(s.t)
				if fan {
					remove(s)
				}
			case fire:
				slot.fire(nil)
				all()
				happened = true
			case notifyAll:
				slot.notifyAll(nil)
				all()
			case fireOne:
				slot.fireOne(nil)
				some()
				happened = true
			case passOn:
				slot.passOn(nil)
				some()
			}
			for j, s := range ss {
				if got := s.wakes.Load(); got != want[s] {
					t.Fatalf("operation %d: task %d has been woken %d times, want %d", i, j, got, want[s])
				}
			}
			if slot.count() != len(each)+len(turns) || (slot.fanout() != nil) != fan {
				t.Fatalf("operation %d: %d tasks wait, want %d; there is a fanout: %v", i, slot.count(), len(each)+len(turns), !fan)
			}
		}
	})
}

// Tasks join at the same time, and then events happen at the same time. Exactly one of the joins
// consumes the event of the round before. Every other task that joins waits, and is woken exactly
// once.
func TestWakerSlotRounds(t *testing.T) {
	const waiters, firers, rounds = 4, 2, 2_000
	var slot wakerSlot
	ss := newMockTasks(waiters)
	slot.fire(nil)
	for round := range int32(rounds) {
		var consumed atomic.Int32
		var phase sync.WaitGroup
		for _, s := range ss {
			phase.Go(func() {
				for !slot.join(s.t) {
					consumed.Add(1)
				}
			})
		}
		phase.Wait()
		if consumed.Load() != 1 {
			t.Fatalf("round %d: the event was consumed %d times", round, consumed.Load())
		}
		for range firers {
			phase.Go(func() { slot.fire(nil) })
		}
		phase.Wait()
		for i, s := range ss {
			if got := s.wakes.Load(); got != round+1 {
				t.Fatalf("round %d: task %d has been woken %d times", round, i, got)
			}
		}
	}
}

// Tasks join while the slot is fired. A task that has joined is woken exactly once before it joins
// again. So no task waits without end, and no wake is left over.
func TestWakerSlotStress(t *testing.T) {
	const waiters, firers, joins = 4, 2, 3_000
	var slot wakerSlot
	var waiting, firing sync.WaitGroup
	var over atomic.Bool
	ss := newMockTasks(waiters)
	for _, s := range ss {
		waiting.Go(func() {
			for n := int32(0); n < joins; {
				if !slot.join(s.t) {
					continue
				}
				n++
				<-s.notified
				if got := s.wakes.Load(); got != n {
					t.Errorf("woken %d times for %d joins", got, n)
				}
			}
		})
	}
	for range firers {
		firing.Go(func() {
			for !over.Load() {
				slot.fire(nil)
				runtime.Gosched()
			}
		})
	}
	waiting.Wait()
	over.Store(true)
	firing.Wait()
}

// A notifyAll at the same time as a fire does not lose the event. A task that waits is woken once
// by the two of them.
func TestWakerSlotNotifyAllAgainstFire(t *testing.T) {
	const slots = 20_000
	all := make([]wakerSlot, slots)
	s := newMockTask()
	for n := range all {
		all[n].join(s.t)
	}
	var at [2]atomic.Int64
	var both sync.WaitGroup
	for i, act := range []func(*wakerSlot, *worker){(*wakerSlot).notifyAll, (*wakerSlot).fire} {
		both.Go(func() {
			for n := range all {
				at[i].Store(int64(n))
				for at[1-i].Load() < int64(n) {
					runtime.Gosched() // so that both goroutines use the same slot
				}
				act(&all[n], nil)
			}
		})
	}
	both.Wait()
	require.EqualValues(t, slots, s.wakes.Load())
	for n := range all {
		if all[n].join(s.t) {
			t.Fatalf("the event of slot %d is lost", n)
		}
	}
}

// Tasks take counted tokens: each tries, joins and tries again. Each token is taken exactly once,
// and no task sleeps while there is a token, although some tasks give up in between and other
// goroutines call notifyAll. The last event is the end, and every task sees it.
func TestWakerSlotTokens(t *testing.T) {
	const waiters, firers, tokens = 3, 2, 3_000
	var slot wakerSlot
	var left, taken atomic.Int64
	var closed atomic.Bool
	take := func() bool {
		for n := left.Load(); n > 0; n = left.Load() {
			if left.CompareAndSwap(n, n-1) {
				taken.Add(1)
				return true
			}
		}
		return false
	}
	var waiting, firing sync.WaitGroup
	for range waiters {
		s := newMockTask()
		waiting.Go(func() {
			for i := 0; ; i++ {
				if take() {
					continue
				}
				if closed.Load() {
					return
				}
				if !slot.join(s.t) {
					continue
				}
				if i%7 == 0 {
					slot.leave(s.t, nil)
					continue
				}
				if left.Load() == 0 && !closed.Load() {
					<-s.notified
				}
			}
		})
	}
	for i := range firers {
		firing.Go(func() {
			for n := range tokens {
				left.Add(1)
				slot.fire(nil)
				if n%5 == i {
					slot.notifyAll(nil)
				}
			}
		})
	}
	firing.Wait()
	eventually(t, func() bool { return taken.Load() == firers*tokens }, "every token is taken")
	closed.Store(true)
	slot.fire(nil)
	waiting.Wait()
	require.Zero(t, left.Load())
}

// Two tasks join and leave at the same time, without events. Each leave wakes its task exactly
// once, and the slot does not keep the tasks. The test needs many slots, since a fanout stays in
// its slot.
func TestWakerSlotLeaveStress(t *testing.T) {
	const slots = 20_000
	all := make([]wakerSlot, slots)
	ss := newMockTasks(2)
	var at [2]atomic.Int64
	var missed atomic.Int64
	var done sync.WaitGroup
	for i, s := range ss {
		done.Go(func() {
			for n := range all {
				at[i].Store(int64(n))
				for at[1-i].Load() < int64(n) {
					runtime.Gosched() // so that both goroutines use the same slot
				}
				before := s.wakes.Load()
				all[n].join(s.t)
				all[n].leave(s.t, nil)
				if s.wakes.Load() != before+1 {
					missed.Add(1)
				}
			}
		})
	}
	done.Wait()
	require.Zero(t, missed.Load(), "leaves that left the task where it was, of %d", 2*slots)
	for i, s := range ss {
		before := s.wakes.Load()
		for n := range all {
			all[n].fire(nil)
		}
		require.Equal(t, before, s.wakes.Load(), "task %d still stands in a slot that it has left", i)
	}
}

// A function of a Waker that does not return ends the program, whatever code has called it: the
// caller may have had other tasks to wake. No deferred call recovers the panic, and the panic shows
// where it happened.
func TestWakerMustReturn(t *testing.T) {
	ends := map[string]func(){
		"panics": func() { panic("at the disco") },
		"exits":  runtime.Goexit,
	}
	if role := os.Getenv(faultsChild); role != "" {
		by, how, _ := strings.Cut(role, " ")
		rt := newTestRuntime(t, Config{Workers: 1})
		a, b, err := SocketPair()
		require.NoError(t, err)
		cx := NewContext(rt, NewWaker(ends[how]))
		require.Equal(t, ErrPending, a.PollReadable(cx))
		if by == "reactor" {
			mustWriteConn(t, b)
		} else {
			Go(rt, func(*Context) error {
				defer func() { recover() }()
				return a.Close()
			})
		}
		receive(t, make(chan None))
	}
	for _, by := range []string{"reactor", "task"} {
		for how := range ends {
			err := faultsStart(t, by+" "+how).wait()
			require.Error(t, err)
			require.Contains(t, err.Error(), "panic: async: the function of a Waker must return: "+
				map[string]string{"panics": "at the disco", "exits": "it called runtime.Goexit"}[how])
			require.Contains(t, err.Error(), "(*externalWaker).poll")
		}
	}
}

// A fanout that has been shut takes no task, also if it is shut at this moment. A task that was
// added is woken.
func TestFanoutAddAgainstFire(t *testing.T) {
	for range 2_000 {
		first, second := newMockTask(), newMockTask()
		f := newFanout(first.t)
		added := func(t *task) bool {
			waits, open := f.body.(*fanout).join(t)
			return waits && open
		}
		var was bool
		var both sync.WaitGroup
		both.Go(func() { was = added(second.t) })
		both.Go(func() { f.wake(nil) })
		both.Wait()
		require.EqualValues(t, 1, first.wakes.Load())
		require.Equal(t, was, second.wakes.Load() == 1)
		require.False(t, added(newMockTask().t), "a fanout is not used again")
		f.wake(nil)
		require.EqualValues(t, 1, first.wakes.Load(), "nor does it wake twice")
	}
}

// A task that has left a slot in which other tasks still wait is not kept alive.
func TestWakerSlotForgetsTasksThatLeft(t *testing.T) {
	var slot wakerSlot
	stays := newMockTask()
	slot.join(stays.t)
	gone := func() (left []weak.Pointer[task]) {
		ss := newMockTasks(5)
		for _, s := range ss {
			slot.join(s.t)
			left = append(left, weak.Make(s.t))
		}
		for _, s := range ss {
			slot.leave(s.t, nil)
		}
		return left
	}()
	for i, p := range gone { // a collection may find a pointer that a register still holds
		eventually(t, func() bool { runtime.GC(); return p.Value() == nil }, "task ", i, " is still kept")
	}
	slot.fire(nil)
	require.EqualValues(t, 1, stays.wakes.Load())
}

// A list keeps tasks in the order in which they were added, and no task that was removed, whether
// there are few or many. A slice is the model.
func TestTaskListAgainstSlice(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{3, 2 * taskListFew, 10 * taskListFew} {
		var tasks []*task
		for range size {
			tasks = append(tasks, newExternalWaker(nil))
		}
		var l taskList
		var model []*task
		for range 40 * size {
			at := tasks[rnd.IntN(size)]
			i := slices.Index(model, at)
			require.Equal(t, i >= 0, l.has(at))
			switch rnd.IntN(6) {
			case 0:
				require.Equal(t, i >= 0, l.remove(at))
				if i >= 0 {
					model = slices.Delete(model, i, i+1)
				}
			case 1:
				if len(model) == 0 {
					require.Nil(t, l.takeFirst())
				} else {
					require.Same(t, model[0], l.takeFirst())
					model = model[1:]
				}
			default:
				if l.add(at); i < 0 {
					model = append(model, at)
				}
			}
			if len(model) > 0 && rnd.IntN(size) == 0 { // nearly all tasks leave
				for _, t2 := range model[1:] {
					require.True(t, l.remove(t2))
				}
				model = model[:1]
			}
			require.Equal(t, len(model), l.len())
		}
		all := slices.DeleteFunc(l.takeAll(), func(t *task) bool { return t == nil })
		require.True(t, slices.Equal(model, all))
		require.Zero(t, l.len())
	}
}

// Tasks wait in order for counted tokens. An event wakes one task, each token is taken exactly
// once, and no task sleeps while there is a token. Some tasks give up at any moment, and others
// join without waitInOrder and do not poll again.
func TestWakerSlotTurns(t *testing.T) {
	const waiters, firers, tokens = 4, 2, 3_000
	var slot wakerSlot
	var left, taken atomic.Int64
	var closed atomic.Bool
	take := func() bool {
		for n := left.Load(); n > 0; n = left.Load() {
			if left.CompareAndSwap(n, n-1) {
				taken.Add(1)
				if n > 1 {
					slot.passOn(nil)
				}
				return true
			}
		}
		return false
	}
	var waiting, firing sync.WaitGroup
	for i := range waiters {
		s := newMockTask()
		again := false
		waiting.Go(func() {
			for n := i; ; n++ {
				if again {
					slot.withdraw(s.t)
				}
				again = false
				if take() {
					continue
				}
				if closed.Load() {
					return
				}
				if !slot.join(s.t) {
					continue
				}
				slot.waitInOrder(s.t)
				again = true
				if left.Load() > 0 || closed.Load() {
					continue // there was a token, or the end, before the task joined
				}
				if n%7 == 0 {
					slot.leave(s.t, nil)
					again = false
					continue
				}
				<-s.notified
				if n%5 == 0 {
					slot.leave(s.t, nil) // the task was chosen, and does not try
					again = false
				}
			}
		})
	}
	for range firers {
		firing.Go(func() {
			for n := range tokens {
				left.Add(1)
				slot.fireOne(nil)
				if n%11 == 0 && !slot.join(newMockTask().t) { // a task that does not poll again
					slot.fireOne(nil)
				}
				if n%13 == 0 {
					slot.notifyAll(nil)
				}
			}
		})
	}
	firing.Wait()
	eventually(t, func() bool { return taken.Load() == firers*tokens }, "every token is taken")
	closed.Store(true)
	slot.fire(nil)
	waiting.Wait()
	require.Zero(t, left.Load())
}
