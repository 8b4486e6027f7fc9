package async

import (
	"sync"
	"sync/atomic"
)

// runQueue holds the tasks of one worker that any worker may run: plain
// futures, and straight-line tasks that have not begun. Its owner pushes and
// pops; others take half of it at a time.
//
// It is a ring with two ends of which only one is contended. Thieves claim a
// range of slots, copy it, and release it, so that a slot is never written and
// read at once: head holds two positions, the next slot to take (low half)
// and the first slot that a thief still copies from (high half). They differ
// while a thief copies; other thieves stay away meanwhile.
//
// What does not fit spills half the ring into a list under a lock: one lock
// per 128 tasks. The queue holds each task at most once, so its length is
// limited by the number of tasks.
type runQueue struct {
	head  atomic.Uint64
	tail  atomic.Uint32
	ring  [ringSize]*task
	spill spill
}

const (
	// ringSize is the size of a run queue's ring: large enough that bursts
	// rarely spill, 2 KiB.
	ringSize = 256
	ringMask = ringSize - 1
)

// spill is what did not fit into a ring, in order.
type spill struct {
	mu          sync.Mutex
	first, last *task
	n           atomic.Int32 // also read without the lock
}

func unpackHead(head uint64) (copying, take uint32) { return uint32(head >> 32), uint32(head) }
func packHead(copying, take uint32) uint64          { return uint64(copying)<<32 | uint64(take) }

// push appends t. Only the owner calls it. It reports whether the queue had to
// spill, which is a sign that there is more work here than one worker needs.
func (q *runQueue) push(t *task) (spilled bool) {
	for {
		copying, take := unpackHead(q.head.Load())
		tail := q.tail.Load()
		if tail-copying < ringSize {
			q.ring[tail&ringMask] = t
			q.tail.Store(tail + 1)
			return false
		}
		if copying != take {
			q.spill.add(t, t, 1) // a thief is making room
			return true
		}
		if q.spillHalf(take, t) {
			return true
		}
	}
}

// spillHalf moves the older half of a full ring, and then t, to the spill. It
// reports false if a thief was faster.
func (q *runQueue) spillHalf(take uint32, t *task) bool {
	const half = ringSize / 2
	if !q.head.CompareAndSwap(packHead(take, take), packHead(take+half, take+half)) {
		return false
	}
	first, last := q.unlink(take, half)
	last.next, t.next = t, nil
	q.spill.add(first, t, half+1)
	return true
}

// unlink empties n claimed slots and returns what was there as a list.
func (q *runQueue) unlink(from, n uint32) (first, last *task) {
	for i := from; i != from+n; i++ {
		t := q.ring[i&ringMask]
		q.ring[i&ringMask] = nil
		if first == nil {
			first = t
		} else {
			last.next = t
		}
		last = t
	}
	last.next = nil
	return first, last
}

// pop takes the oldest task. Only the owner calls it.
func (q *runQueue) pop() *task {
	for {
		head := q.head.Load()
		copying, take := unpackHead(head)
		if take == q.tail.Load() {
			if !q.refill() {
				return nil
			}
			continue
		}
		next := packHead(take+1, take+1)
		if copying != take {
			next = packHead(copying, take+1)
		}
		t := q.ring[take&ringMask]
		if q.head.CompareAndSwap(head, next) {
			q.ring[take&ringMask] = nil // the collector may have it once it has ended
			return t
		}
	}
}

// refill moves up to half a ring from the spill to the empty ring.
func (q *runQueue) refill() bool {
	if q.spill.n.Load() == 0 {
		return false
	}
	t := q.spill.take(ringSize / 2)
	for t != nil {
		next := t.next
		t.next = nil
		if q.push(t) {
			// A thief still copies; the rest waits for the next time.
			if next != nil {
				q.spill.addList(next)
			}
			return true
		}
		t = next
	}
	return true
}

// len returns about how many tasks there are. Anybody may call it.
func (q *runQueue) len() int {
	_, take := unpackHead(q.head.Load())
	n := int(int32(q.tail.Load() - take))
	return max(n, 0) + int(q.spill.n.Load())
}

// steal takes half of the ring, rounded up, or a batch of the spill, from
// another worker's queue, as a list.
func (q *runQueue) steal() (first *task) {
	for {
		head := q.head.Load()
		copying, take := unpackHead(head)
		tail := q.tail.Load()
		n := tail - take
		if copying != take || n > ringSize {
			return nil // another thief is here, or head moved between the two loads
		}
		if n == 0 {
			return q.spill.take(ringSize / 2)
		}
		n -= n / 2
		if !q.head.CompareAndSwap(head, packHead(copying, take+n)) {
			continue
		}
		first, _ = q.unlink(take, n)
		for {
			head := q.head.Load()
			_, now := unpackHead(head)
			if q.head.CompareAndSwap(head, packHead(now, now)) {
				return first
			}
		}
	}
}

func (s *spill) add(first, last *task, n int32) {
	s.mu.Lock()
	if s.last == nil {
		s.first = first
	} else {
		s.last.next = first
	}
	s.last = last
	s.n.Add(n)
	s.mu.Unlock()
}

func (s *spill) addList(first *task) {
	last, n := first, int32(1)
	for last.next != nil {
		last = last.next
		n++
	}
	s.add(first, last, n)
}

// take removes the oldest tasks, at most limit, as a list.
func (s *spill) take(limit int) (first *task) {
	if s.n.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first = s.first
	if first == nil {
		return nil
	}
	last := first
	n := int32(1)
	for int(n) < limit && last.next != nil {
		last = last.next
		n++
	}
	s.first = last.next
	if s.first == nil {
		s.last = nil
	}
	last.next = nil
	s.n.Add(-n)
	return first
}

// localQueue holds the tasks that only their worker may run: straight-line
// tasks that have begun. Nobody else sees it, so it needs no atomics.
type localQueue struct {
	ring    []*task // its length is a power of two
	head, n int
}

func (q *localQueue) push(t *task) {
	if q.n == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = t
	q.n++
}

func (q *localQueue) pop() *task {
	if q.n == 0 {
		return nil
	}
	t := q.ring[q.head]
	q.ring[q.head] = nil
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	return t
}

func (q *localQueue) grow() {
	ring := make([]*task, max(64, 2*len(q.ring)))
	for i := range q.n {
		ring[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
	}
	q.ring, q.head = ring, 0
}
