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

// sitter is a task that only counts how often it is woken.
type sitter struct {
	t     *task
	wakes atomic.Int32
	woken chan struct{} // gets a value if there is none
}

func newSitter() *sitter {
	s := &sitter{woken: make(chan struct{}, 1)}
	s.t = newOutsider(func() {
		s.wakes.Add(1)
		notify(s.woken)
	})
	return s
}

func newSitters(n int) []*sitter {
	ss := make([]*sitter, n)
	for i := range ss {
		ss[i] = newSitter()
	}
	return ss
}

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

// The wakers of one task are equal, those of two are not, and they may be
// called after the task's end.
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
		_, err := h.Wait(t.Context())
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

// FuzzWakerSlot compares a slot with a naive one: a flag and a set. What a
// slot promises to those who use it one after the other:
//
//  1. an event is remembered until one join consumes it; events that nobody
//     has consumed are one;
//  2. who has joined is woken exactly once, by the next fire or stir, or by
//     its own leave, whichever is first;
//  3. joining twice is joining once, and who isn't there leaves for nothing.
func FuzzWakerSlot(f *testing.F) {
	const join, leave, fire, stir = 0 << 6, 1 << 6, 2 << 6, 3 << 6
	f.Add([]byte{join, fire, join, join})                                              // woken; then consumes the event
	f.Add([]byte{fire, fire, join, join | 1, fire, join | 1, join})                    // two fires are one event
	f.Add([]byte{join, join | 1, join | 2, leave | 1, fire, leave, join, join | 2})    // a fanout loses one
	f.Add([]byte{join, join | 1, leave, leave | 1, join | 2, stir, join | 2, fire})    // a fanout empties and fills
	f.Add([]byte{stir, fire, stir, join, stir, leave, join | 3, join, stir, fire})     // stir keeps the event
	f.Add([]byte{join, join, leave, leave, join | 1, join | 1, join, leave | 1, fire}) // twice is once
	f.Fuzz(func(t *testing.T, ops []byte) {
		var slot wakerSlot
		ss := newSitters(5)
		happened := false
		waiting := map[*sitter]bool{}
		want := map[*sitter]int32{}
		wakeAll := func() {
			for s := range waiting {
				want[s]++
			}
			clear(waiting)
		}
		for i, op := range ops {
			s := ss[int(op&63)%len(ss)]
			switch op &^ 63 {
			case join:
				waits := slot.join(s.t)
				if waits == happened {
					t.Fatalf("operation %d: join returned %v, but there has been an event: %v", i, waits, happened)
				}
				if waits {
					waiting[s] = true
				}
				happened = false
			case leave:
				slot.leave(s.t, nil)
				if waiting[s] {
					want[s]++
					delete(waiting, s)
				}
			case fire:
				slot.fire(nil)
				wakeAll()
				happened = true
			case stir:
				slot.stir(nil)
				wakeAll()
			}
			for j, s := range ss {
				if got := s.wakes.Load(); got != want[s] {
					t.Fatalf("operation %d: task %d has been woken %d times, want %d", i, j, got, want[s])
				}
			}
		}
	})
}

// Tasks that join at once, and then events that happen at once: exactly one of
// the joins consumes the event of the round before, everyone else who joins
// waits, and is woken exactly once.
func TestWakerSlotRounds(t *testing.T) {
	const waiters, firers, rounds = 4, 2, 2_000
	var slot wakerSlot
	ss := newSitters(waiters)
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

// Joins and fires at the same time: who has joined is woken exactly once
// before it joins again, so that nobody waits for ever and no wake is left.
func TestWakerSlotStress(t *testing.T) {
	const waiters, firers, joins = 4, 2, 3_000
	var slot wakerSlot
	var waiting, firing sync.WaitGroup
	var over atomic.Bool
	ss := newSitters(waiters)
	for _, s := range ss {
		waiting.Go(func() {
			for n := int32(0); n < joins; {
				if !slot.join(s.t) {
					continue
				}
				n++
				<-s.woken
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

// A stir that meets a fire does not swallow the event, and whoever waited is
// woken once by the two of them.
func TestWakerSlotStirAgainstFire(t *testing.T) {
	const slots = 20_000
	all := make([]wakerSlot, slots)
	s := newSitter()
	for n := range all {
		all[n].join(s.t)
	}
	var at [2]atomic.Int64
	var both sync.WaitGroup
	for i, act := range []func(*wakerSlot, *worker){(*wakerSlot).stir, (*wakerSlot).fire} {
		both.Go(func() {
			for n := range all {
				at[i].Store(int64(n))
				for at[1-i].Load() < int64(n) {
					runtime.Gosched() // so that both are at the same slot
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

// Try, join, try again, with counted tokens: each is taken exactly once, and
// nobody sleeps while there is one, although some give up in between and
// others stir. The last event is the end, and everybody sees it.
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
		s := newSitter()
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
					<-s.woken
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
					slot.stir(nil)
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

// Two tasks that come and go at the same time, with nobody who fires: each is
// woken exactly once by each leave, and the slot does not keep them. It needs
// many slots, since a fanout, once there, stays.
func TestWakerSlotLeaveStress(t *testing.T) {
	const slots = 20_000
	all := make([]wakerSlot, slots)
	ss := newSitters(2)
	var at [2]atomic.Int64
	var missed atomic.Int64
	var done sync.WaitGroup
	for i, s := range ss {
		done.Go(func() {
			for n := range all {
				at[i].Store(int64(n))
				for at[1-i].Load() < int64(n) {
					runtime.Gosched() // so that both are at the same slot
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

// A Waker's function that does not return ends the program, whoever called it: they
// may have had others to wake. Nobody recovers that, and it says where it happened.
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
		if by == "lobby" {
			mustWriteConn(t, b)
		} else {
			Go(rt, func(*Context) error {
				defer func() { recover() }()
				return a.Close()
			})
		}
		receive(t, make(chan None))
	}
	for _, by := range []string{"lobby", "task"} {
		for how := range ends {
			err := faultsStart(t, by+" "+how).wait()
			require.Error(t, err)
			require.Contains(t, err.Error(), "panic: async: the function of a Waker must return: "+
				map[string]string{"panics": "at the disco", "exits": "it called runtime.Goexit"}[how])
			require.Contains(t, err.Error(), "(*outsider).poll")
		}
	}
}

// A fanout that has fired takes nobody, also if it fires at this moment: who
// was added is woken.
func TestFanoutAddAgainstFire(t *testing.T) {
	for range 2_000 {
		first, second := newSitter(), newSitter()
		f := newFanout(first.t)
		var added bool
		var both sync.WaitGroup
		both.Go(func() { added = f.body.(*fanout).add(second.t) })
		both.Go(func() { f.wake(nil) })
		both.Wait()
		require.EqualValues(t, 1, first.wakes.Load())
		require.Equal(t, added, second.wakes.Load() == 1)
		require.False(t, f.body.(*fanout).add(newSitter().t), "a fanout is not used again")
		f.wake(nil)
		require.EqualValues(t, 1, first.wakes.Load(), "nor does it wake twice")
	}
}

// A task that has left a slot in which others still wait is not kept alive.
func TestWakerSlotForgetsWhoLeft(t *testing.T) {
	var slot wakerSlot
	stays := newSitter()
	slot.join(stays.t)
	gone := func() (left []weak.Pointer[task]) {
		ss := newSitters(5)
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

// A fanout keeps the order in which tasks came, and none of those that have left,
// whether there are few or many, as a slice would.
func TestFanoutAgainstSlice(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{3, 2 * fanoutFew, 10 * fanoutFew} {
		var woken []int
		var tasks []*task
		for i := range size {
			tasks = append(tasks, newOutsider(func() { woken = append(woken, i) }))
		}
		f := newFanout(tasks[0]).body.(*fanout)
		model := []int{0}
		for range 20 * size {
			i := rnd.IntN(size)
			if at := slices.Index(model, i); rnd.IntN(3) > 0 {
				require.True(t, f.add(tasks[i]))
				if at < 0 {
					model = append(model, i)
				}
			} else {
				require.Equal(t, at >= 0, f.remove(tasks[i]))
				if at >= 0 {
					model = slices.Delete(model, at, at+1)
				}
			}
			if len(model) > 0 && rnd.IntN(size) == 0 { // nearly all leave
				for _, i := range model[1:] {
					require.True(t, f.remove(tasks[i]))
				}
				model = model[:1]
			}
		}
		f.wake(nil)
		require.Equal(t, slices.Clone(model), slices.Clone(woken))
	}
}
