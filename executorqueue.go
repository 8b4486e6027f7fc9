package async

import (
	"sync/atomic"
)

// runQueue holds the tasks of one worker that any worker may run: plain
// futures, and straight-line tasks that have not begun. Its owner pushes and
// pops, in order; others take half of it at a time.
//
// It is a ring with two ends of which only one is contended. Thieves claim a
// range of slots, empty it, and release it, so that no slot is ever written and
// read at once: head holds two positions, the next slot to take (low half)
// and the first slot that a thief still copies from (high half). They differ
// while a thief copies; other thieves stay away meanwhile.
//
// What does not fit goes to a list under a lock, and so does all that follows
// until the list is empty, so that nothing is overtaken. The queue holds each
// task at most once: its length is limited by the number of tasks.
type runQueue struct {
	head  atomic.Uint64
	tail  atomic.Uint32
	ring  [ringSize]*task
	spill spillQueue
}

const (
	// ringSize is the size of a run queue's ring: large enough that bursts
	// rarely spill, 2 KiB.
	ringSize = 256
	ringMask = ringSize - 1
)

// spillQueue is what did not fit into a ring, in order.
type spillQueue struct {
	n           atomic.Int32 // also read without the lock
	mu          lockOf[spillQueue]
	first, last *task
}

func unpackHead(head uint64) (copying, take uint32) { return uint32(head >> 32), uint32(head) }
func packHead(copying, take uint32) uint64          { return uint64(copying)<<32 | uint64(take) }

// push appends t. Only the owner calls it. It reports whether the queue has
// come to spill another ring's worth, which is a sign that there is more work
// here than one worker should do.
func (q *runQueue) push(t *task) (spilled bool) {
	if q.spill.n.Load() == 0 && q.pushRing(t) {
		return false
	}
	return q.spill.add(t)%ringSize == 1
}

// pushRing reports false if the ring is full.
func (q *runQueue) pushRing(t *task) bool {
	copying, _ := unpackHead(q.head.Load())
	tail := q.tail.Load()
	if tail-copying == ringSize {
		return false
	}
	q.ring[tail&ringMask] = t
	q.tail.Store(tail + 1)
	return true
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
		if q.head.CompareAndSwap(head, next) {
			t := q.ring[take&ringMask]
			q.ring[take&ringMask] = nil // the collector may have it once it has ended
			return t
		}
	}
}

// refill moves tasks from the spill to the ring, which is empty but for what a
// thief still copies.
func (q *runQueue) refill() bool {
	copying, _ := unpackHead(q.head.Load())
	room := ringSize - int(q.tail.Load()-copying)
	t := q.spill.take(min(room, ringSize/2))
	if t == nil {
		return false
	}
	for t != nil {
		next := t.next
		t.next = nil
		q.pushRing(t)
		t = next
	}
	return true
}

// ticket returns the place that a task would get that is pushed now, and next
// that of the task that pop returns next.
func (q *runQueue) ticket() uint32 { return q.tail.Load() + uint32(q.spill.n.Load()) }

func (q *runQueue) next() uint32 {
	_, take := unpackHead(q.head.Load())
	return take
}

// len returns about how many tasks there are. Anybody may call it.
func (q *runQueue) len() int {
	_, take := unpackHead(q.head.Load())
	n := int(int32(q.tail.Load() - take))
	return max(n, 0) + int(q.spill.n.Load())
}

// steal takes half of the ring, rounded up, or, if that is empty, a batch of
// the spill, from another worker's queue, as a list.
func (q *runQueue) steal() (first *task) {
	for {
		head := q.head.Load()
		copying, take := unpackHead(head)
		n := q.tail.Load() - take
		if copying != take || n > ringSize {
			return nil // another thief is here, or head moved between the two loads
		}
		if n == 0 {
			return q.spill.take(ringSize / 2)
		}
		n -= n / 2
		if q.head.CompareAndSwap(head, packHead(copying, take+n)) {
			first = q.unlink(take, n)
			q.releaseCopied()
			return first
		}
	}
}

// unlink empties n claimed slots and returns what was there as a list.
func (q *runQueue) unlink(from, n uint32) (first *task) {
	var last *task
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
	return first
}

// releaseCopied lets the owner use the slots again that a thief has emptied.
func (q *runQueue) releaseCopied() {
	for {
		head := q.head.Load()
		_, take := unpackHead(head)
		if q.head.CompareAndSwap(head, packHead(take, take)) {
			return
		}
	}
}

// add appends t and returns how many there are.
func (s *spillQueue) add(t *task) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.next = nil
	if s.last == nil {
		s.first = t
	} else {
		s.last.next = t
	}
	s.last = t
	return s.n.Add(1)
}

// take removes the oldest tasks, at most limit, as a list.
func (s *spillQueue) take(limit int) (first *task) {
	if limit <= 0 || s.n.Load() == 0 {
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
//
// Each entry has a ticket: the place that it would have got in the worker's
// runQueue. So the two can be served as if they were one.
type localQueue struct{ ringBuffer[localEntry] }

type localEntry struct {
	t      *task
	ticket uint32
}

func (q *localQueue) push(t *task, ticket uint32) { q.ringBuffer.push(localEntry{t, ticket}) }

// pop takes the oldest task if its turn has come: if its ticket is not after
// next, or if it need not wait for others.
func (q *localQueue) pop(next uint32, alone bool) *task {
	if q.n == 0 || !alone && int32(q.buf[q.head].ticket-next) > 0 {
		return nil
	}
	return q.ringBuffer.pop().t
}
