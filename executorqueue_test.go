package async

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"
)

// startAt makes an empty queue begin at another position, as if that many tasks had passed through
// it.
func (q *runQueue) startAt(pos uint32) {
	q.head.Store(packHead(pos, pos))
	q.tail.Store(pos)
}

// nearWrap is a position from which a few pushes overflow.
const nearWrap = math.MaxUint32 - 4

// numbered returns tasks whose ids count from 0.
func numbered(n int) []*task {
	ts := make([]*task, n)
	for i := range ts {
		ts[i] = new(task)
		ts[i].id.Store(uint64(i))
	}
	return ts
}

// unlinked returns the tasks of a list, and clears their links.
func unlinked(first *task) (ts []*task) {
	for first != nil {
		next := first.next
		first.next = nil
		ts = append(ts, first)
		first = next
	}
	return ts
}

// FuzzRunQueue drives a queue with one thread and compares it with a slice. Each byte is an
// operation and a count. The invariants are:
//
//  1. each task comes out exactly once, in order, and leaves no link behind;
//  2. len is exact, and both pop and steal find a task while the queue is not empty;
//  3. a thief gets half of the tasks that have not spilled, rounded up.
func FuzzRunQueue(f *testing.F) {
	const push, pop, steal, pushMany = 0 << 6, 1 << 6, 2 << 6, 3 << 6
	f.Add(uint32(0), []byte{push | 2, pop | 1, steal, pop | 5})
	f.Add(uint32(nearWrap), []byte{push | 20, steal, pop | 3, steal, steal, steal, steal, push | 1, pop | 9})
	f.Add(uint32(nearWrap), []byte{pushMany | 63, push | 50, steal, pop | 63, pushMany | 63, pop | 63, steal, steal})
	f.Add(uint32(1<<31-2), []byte{pushMany | 40, pushMany | 40, push | 10, pop | 63, steal, pop | 63, pop | 63, pop | 63, push, pop | 63})
	f.Fuzz(func(t *testing.T, start uint32, ops []byte) {
		var q runQueue
		q.startAt(start)
		var model []*task
		made := uint64(0)
		took := func(got *task) {
			if len(model) == 0 || got != model[0] {
				t.Fatalf("task %d came out of its turn, of %d", got.id.Load(), len(model))
			}
			if got.next != nil {
				t.Fatalf("task %d still has a link", got.id.Load())
			}
			model = model[1:]
		}
		for _, op := range ops[:min(len(ops), 100)] {
			n := int(op&63) + 1
			switch op &^ 63 {
			case pushMany:
				n *= 4
				fallthrough
			case push:
				for range n {
					p := new(task)
					p.id.Store(made)
					made++
					if q.push(p) && len(model) < ringSize {
						t.Fatalf("a ring of %d spills with %d tasks", ringSize, len(model))
					}
					model = append(model, p)
				}
			case pop:
				for range n {
					got := q.pop()
					if (got == nil) != (len(model) == 0) {
						t.Fatalf("pop: %v with %d tasks queued", got, len(model))
					}
					if got != nil {
						took(got)
					}
				}
			case steal:
				inRing := len(model) - int(q.spill.n.Load())
				got := unlinked(q.steal())
				if (len(got) == 0) != (len(model) == 0) {
					t.Fatalf("steal: %d of %d tasks", len(got), len(model))
				}
				if inRing > 0 && len(got) != (inRing+1)/2 {
					t.Fatalf("steal: %d of the %d tasks in the ring, want half of them", len(got), inRing)
				}
				for _, p := range got {
					took(p)
				}
			}
			if q.len() != len(model) {
				t.Fatalf("len is %d, want %d", q.len(), len(model))
			}
		}
		for got := q.pop(); got != nil; got = q.pop() {
			took(got)
		}
		if len(model) != 0 || q.len() != 0 || q.steal() != nil {
			t.Fatalf("%d tasks are lost", len(model))
		}
	})
}

// FuzzLocalQueue compares the local queue with a slice. It is in order. A task is popped only if
// its ticket is not after the next ticket, or if alone is set.
func FuzzLocalQueue(f *testing.F) {
	f.Add(uint32(0), []byte{3, 0x82, 5, 0x90})
	f.Add(uint32(nearWrap), []byte{63, 0xbe, 0x81, 5, 63, 63, 0xff, 63, 0xff, 0xff, 0xc1, 0xc2, 0xff})
	f.Fuzz(func(t *testing.T, start uint32, ops []byte) {
		type entry struct {
			p      *task
			ticket uint32
		}
		var q localQueue
		var model []entry
		given, turn := start, start // the next ticket, and the next turn
		for _, op := range ops[:min(len(ops), 200)] {
			n := int(op&63) + 1
			alone := op&64 != 0
			for range n {
				if op&128 == 0 {
					p := new(task)
					q.push(p, given)
					model = append(model, entry{p, given})
					given += uint32(n % 3)
					continue
				}
				got := q.pop(turn, alone)
				if len(model) == 0 || !alone && int32(model[0].ticket-turn) > 0 {
					if got != nil {
						t.Fatal("a task came out, and it was not its turn")
					}
					turn += uint32(n % 2)
					continue
				}
				if got != model[0].p {
					t.Fatal("out of order")
				}
				model = model[1:]
			}
			if q.n != len(model) {
				t.Fatalf("n is %d, want %d", q.n, len(model))
			}
		}
	})
}

// A task that has spilled must be popped even if the ring never becomes empty, for example because
// its tasks yield.
func TestRunQueueSpilledTasksTakeTurns(t *testing.T) {
	var q runQueue
	ts := numbered(ringSize + 50)
	for _, p := range ts {
		q.push(p)
	}
	seen := make(map[*task]int)
	for range 10 * len(ts) {
		p := q.pop()
		seen[p]++
		q.push(p)
	}
	for _, p := range ts {
		require.Equal(t, 10, seen[p], "turns of task %d while all of them went round 10 times", p.id.Load())
	}
}

// A queue of any length is in order. push reports a long queue once for each ringSize tasks, and
// not each time.
func TestRunQueueSpill(t *testing.T) {
	for _, start := range []uint32{0, nearWrap, math.MaxUint32 - ringSize} {
		var q runQueue
		q.startAt(start)
		ts := numbered(4 * ringSize)
		spills := 0
		for i, p := range ts {
			if q.push(p) {
				spills++
			}
			require.Equal(t, i+1, q.len())
		}
		require.Equal(t, 3, spills, "once for each ring's worth that does not fit")
		for _, p := range ts {
			require.Equal(t, p, q.pop())
		}
		require.Nil(t, q.pop())
		require.Zero(t, q.len())
	}
}

// ticket returns the ticket of a task that is pushed now. next returns the same ticket when this
// task is the next to be popped.
func TestRunQueueTickets(t *testing.T) {
	var q runQueue
	q.startAt(nearWrap)
	tickets := map[*task]uint32{}
	for _, p := range numbered(2*ringSize + 3) {
		tickets[p] = q.ticket()
		q.push(p)
	}
	for q.len() > 0 {
		next := q.next()
		require.Equal(t, next, tickets[q.pop()])
	}
	require.Equal(t, q.ticket(), q.next())
}

// A thief and the owner use the queue step by step. Meanwhile another thief has claimed a part of
// the ring and has not emptied it yet.
func TestRunQueueWhileAThiefCopies(t *testing.T) {
	var q runQueue
	q.startAt(nearWrap)
	ts := numbered(ringSize + 1)
	for _, p := range ts[:8] {
		q.push(p)
	}
	// The thief claims four tasks and is interrupted.
	head := q.head.Load()
	copying, take := unpackHead(head)
	require.True(t, q.head.CompareAndSwap(head, packHead(copying, take+4)))

	require.Nil(t, q.steal(), "one thief at a time")
	require.Equal(t, ts[4], q.pop(), "the owner goes on behind the claimed slots")
	require.Equal(t, ts[5], q.pop())
	for _, p := range ts[8:ringSize] {
		require.False(t, q.push(p), "claimed slots still count, and no others")
	}
	require.True(t, q.push(ts[ringSize]), "there is no room until the thief is done")
	for _, p := range ts[6:ringSize] {
		require.Equal(t, p, q.pop())
	}
	require.Nil(t, q.pop(), "no room for the spilled task: the owner does not wait for the thief")
	require.Equal(t, 1, q.len(), "but counts the spilled task")
	for i := range uint32(4) {
		require.Equal(t, ts[i], q.ring[(take+i)&ringMask], "claimed slots are not changed")
	}

	require.Equal(t, ts[:4], unlinked(q.unlink(take, 4)))
	q.releaseCopied()
	require.Equal(t, ts[ringSize], q.pop())
	require.Nil(t, q.pop())
}

// One owner and several thieves use a queue that wraps and spills. Each task is taken exactly once.
// The goroutine that takes a task writes to it without a lock, so that the race detector sees
// whether the queue orders the push before that.
func TestRunQueueThieves(t *testing.T) {
	const tasks, thieves = 20_000, 3
	bursts := []int{1, 2, 7, 40, 200, 300, 600}
	for _, start := range []uint32{nearWrap, math.MaxUint32 - tasks/2} {
		var q runQueue
		q.startAt(start)
		ts := numbered(tasks)
		var taken atomic.Int64
		take := func(p *task) {
			p.listedAt++
			taken.Add(1)
		}
		var done sync.WaitGroup
		for range thieves {
			done.Go(func() {
				for taken.Load() < tasks {
					got := unlinked(q.steal())
					for _, p := range got {
						take(p)
					}
					if got == nil {
						runtime.Gosched()
					}
				}
			})
		}
		for i, next := 0, 0; next < tasks; i++ {
			n := min(bursts[i%len(bursts)], tasks-next)
			for _, p := range ts[next : next+n] {
				q.push(p)
			}
			next += n
			for range n / 2 {
				if p := q.pop(); p != nil {
					take(p)
				}
			}
			if i%8 == 0 {
				runtime.Gosched() // otherwise the thieves are too late on one processor
			}
		}
		for taken.Load() < tasks {
			if p := q.pop(); p != nil {
				take(p)
			} else {
				runtime.Gosched()
			}
		}
		done.Wait()
		for _, p := range ts {
			require.EqualValues(t, 1, p.listedAt, "task %d", p.id.Load())
		}
		require.Zero(t, q.len())
		require.Nil(t, q.pop())
	}
}

// Owners steal a few tasks from each other, again and again, so that the same slots and the same
// links are used again at once. Each task is run exactly as often as it was queued.
func TestRunQueueExchange(t *testing.T) {
	const owners, tasks, rounds = 3, 7, 3_000
	var queues [owners]runQueue
	ts := numbered(tasks)
	for i := range queues {
		queues[i].startAt(nearWrap)
	}
	for _, p := range ts {
		p.id.Store(0)
		queues[0].push(p)
	}
	var left atomic.Int64
	left.Store(tasks)
	var done sync.WaitGroup
	for i := range owners {
		done.Go(func() {
			own := &queues[i]
			for turn := 0; left.Load() > 0; turn++ {
				p := own.pop()
				if p == nil {
					for _, p := range unlinked(queues[(i+1+turn%(owners-1))%owners].steal()) {
						own.push(p)
					}
					runtime.Gosched()
					continue
				}
				if p.id.Add(1) == rounds {
					left.Add(-1)
				} else {
					own.push(p)
				}
			}
		})
	}
	done.Wait()
	for _, p := range ts {
		require.EqualValues(t, rounds, p.id.Load())
	}
	for i := range queues {
		require.Zero(t, queues[i].len())
	}
}

// A queue does not keep a task alive that has left it: there is no reference in a slot of the ring,
// in the spill, or in a task that is still in the queue.
func TestQueuesForgetTasksThatLeft(t *testing.T) {
	type queue interface {
		push(p *task)
		pop() *task
	}
	for name, q := range map[string]queue{"shared": &pushOnly{}, "local": new(ownerQueue)} {
		t.Run(name, func(t *testing.T) {
			const n = ringSize + ringSize/2 // so that some of the tasks spill
			gone := func() (left []weak.Pointer[task]) {
				for range n {
					p := new(task)
					left = append(left, weak.Make(p))
					q.push(p)
				}
				for i := range n {
					if i == n/3 {
						if s, ok := q.(*pushOnly); ok {
							unlinked(s.steal())
						}
					}
					q.pop()
				}
				return left
			}()
			q.push(new(task)) // one task stays in the queue
			eventually(t, func() bool {
				runtime.GC()
				for _, p := range gone {
					if p.Value() != nil {
						return false
					}
				}
				return true
			}, "a task that left the queue is collected")
			runtime.KeepAlive(q)
		})
	}
}

// pushOnly is a runQueue whose push has no result.
type pushOnly struct{ runQueue }

func (q *pushOnly) push(p *task) { q.runQueue.push(p) }

// ownerQueue is a localQueue without tickets.
type ownerQueue struct{ localQueue }

func (q *ownerQueue) push(p *task) { q.localQueue.push(p, 0) }
func (q *ownerQueue) pop() *task   { return q.localQueue.pop(0, true) }
