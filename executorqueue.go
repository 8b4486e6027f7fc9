package async

import (
	"sync/atomic"
)

// runQueue holds the tasks of one worker that any worker may run: plain futures, and straight-line
// tasks that have not begun. The owner is its worker: only the thread of the owner pushes and pops,
// in FIFO order. Other workers are thieves: a thief takes half of the ring at a time. Any thread
// may call len and steal.
//
// The queue is a ring of ringSize slots, and a list for the tasks that do not fit into the ring,
// the spill.
//
// # The ring
//
// Three positions divide the ring. They only grow, modulo 2^32; position p is the slot p%ringSize.
//
//	copying <= take <= tail <= copying+ringSize
//
//	[copying, take)           a thief empties these slots, or the owner has popped them since
//	[take, tail)              the queue: each slot has a task
//	[tail, copying+ringSize)  free: each slot is nil
//
// copying and take are the two halves of head, so that one compare-and-swap changes or confirms
// both. tail is a word of its own, which only the owner writes. The states are:
//
//	           head             may change head
//	quiet      copying == take  the owner (pop) or any thief (steal)
//	copying    copying < take   the owner (pop, take only), and the thief (releaseCopied)
//
// The owner pushes:
//
//  1. Read head. If tail-copying is ringSize the ring is full. A thief can only make it less full.
//  2. Write the task to the slot tail.
//  3. Store tail+1. That publishes the slot: a thief reads tail before it claims a slot.
//
// The owner pops:
//
//  1. Read head. If take is tail, the ring is empty: fill it from the spill, or return nil.
//  2. Move take by one by a compare-and-swap of head, and copying with it if the ring is quiet. If
//     it fails, a thief has claimed slots or released them: begin anew.
//  3. Read the slot and clear it. From step 2 on no thief can claim it, and the owner itself has
//     not pushed to it yet.
//
// A thief steals:
//
//  1. Read head, then tail. If the state is copying, another thief is here: give up. If tail is
//     more than ringSize after take, head has moved between the two reads: give up, too.
//  2. If the ring is empty, take a batch of the spill, under its lock.
//  3. Claim half of the queue, rounded up: move take, but not copying, by a compare-and-swap of
//     head. If it fails, the owner has popped or another thief has claimed: begin anew.
//  4. Read the claimed slots and clear them. The owner does not push to them, because it counts the
//     free slots from copying.
//  5. Release the slots: set copying to take by a compare-and-swap, which is repeated while the
//     owner pops.
//
// Only one thief at a time is between the steps 3 and 5, and the owner never waits for it: it pops
// from the slots behind the claimed slots, and pushes to the free slots or to the spill. A
// compare-and-swap cannot succeed by mistake with a head that has changed in between, unless 2^32
// tasks have passed.
//
// # The holder of a task
//
// A task in the queue is held by the queue (see taskState). A pop or a claim passes it to the owner
// or to the thief. So a task that stands in the queue is neither polled nor queued a second time,
// and the queue contains each task at most once: its length is limited by the number of tasks.
//
// # The spill
//
// A task that does not fit into the ring goes to the spill, and so do all tasks that follow until
// the spill is empty, so that no task overtakes another one. The owner moves up to ringSize/2 tasks
// back when the ring is empty (refill). Only the owner adds to the spill; the owner and thieves
// take from it. Its lock is held for a few assignments for each task. The owner reads the length
// without the lock: only the owner makes it grow, so a length of 0 stays 0.
type runQueue struct {
	head  atomic.Uint64
	tail  atomic.Uint32
	ring  [ringSize]*task
	spill spillQueue
}

const (
	// ringSize is the number of slots of a run queue's ring: so many that bursts rarely spill. The
	// ring takes 2 KiB.
	ringSize = 256
	ringMask = ringSize - 1
)

// spillQueue is a FIFO list of tasks that did not fit into a ring.
type spillQueue struct {
	n           atomic.Int32 // also read without the lock
	mu          lockOf[spillQueue]
	first, last *task
}

// unpackHead returns the two positions in runQueue.head, and packHead is the reverse.
func unpackHead(head uint64) (copying, take uint32) { return uint32(head >> 32), uint32(head) }
func packHead(copying, take uint32) uint64          { return uint64(copying)<<32 | uint64(take) }

// push appends t, which the caller holds. Only the owner calls it. It reports whether the spill has
// just begun another ringSize tasks, which is a sign that there is more work here than one worker
// should do.
func (q *runQueue) push(t *task) (spilled bool) {
	if q.spill.n.Load() == 0 && q.pushRing(t) {
		return false
	}
	return q.spill.add(t)%ringSize == 1
}

// pushRing appends t to the ring, and reports false if the ring is full.
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

// pop removes the oldest task and returns it, or nil if there is none. Only the owner calls it.
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
			q.ring[take&ringMask] = nil // so that the garbage collector frees it once it has ended
			return t
		}
	}
}

// refill moves tasks from the spill to the ring, and reports whether there were any. The ring is
// empty except for slots that a thief is emptying. It moves half a ring at most, so that the tasks
// that are pushed next may find free slots.
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

// ticket returns the position that a task would have if it were pushed now. Only the owner calls
// it. The position is too high if a thief takes tasks from the spill later; see worker.nextTask.
func (q *runQueue) ticket() uint32 { return q.tail.Load() + uint32(q.spill.n.Load()) }

// next returns the position of the task that pop returns next. Only the owner calls it.
func (q *runQueue) next() uint32 {
	_, take := unpackHead(q.head.Load())
	return take
}

// len returns about how many tasks there are. Any thread may call it. A pop or a steal between the
// two reads makes the number too large.
func (q *runQueue) len() int {
	_, take := unpackHead(q.head.Load())
	n := int(int32(q.tail.Load() - take))
	return max(n, 0) + int(q.spill.n.Load())
}

// steal removes half of the tasks in the ring, rounded up, and returns them as a list, linked by
// next. If the ring is empty it removes a batch from the spill. It returns nil if there is no task
// or if another thief is at work. The caller then holds the tasks.
func (q *runQueue) steal() (first *task) {
	for {
		head := q.head.Load()
		copying, take := unpackHead(head)
		n := q.tail.Load() - take
		if copying != take || n > ringSize {
			return nil // another thief is here, or head has moved between the two loads
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

// unlink empties the n claimed slots that begin at the position from, and returns their tasks as a
// list in the order of the slots. n is at least 1.
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

// releaseCopied makes the slots that the calling thief has emptied free again. It repeats the
// compare-and-swap only if the owner has popped in between: no other thief changes head.
func (q *runQueue) releaseCopied() {
	for {
		head := q.head.Load()
		_, take := unpackHead(head)
		if q.head.CompareAndSwap(head, packHead(take, take)) {
			return
		}
	}
}

// add appends t and returns how many tasks there are.
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

// take removes the oldest tasks, at most limit, and returns them as a list; nil if there are none.
// It looks at n before it locks, so an empty spill costs no lock.
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

// localQueue holds the tasks that only their worker may run: straight-line tasks that have begun,
// and tasks that are bound to the worker (see Local). Only the worker's thread uses it, so it needs
// no atomics.
//
// Each entry has a ticket: the position that it would have got in the worker's runQueue. So the
// worker serves the two queues in the order of arrival, as if they were one. Refused: to serve them
// in turn, since then one of three tasks that only yield may run twice in a row.
type localQueue struct{ ringBuffer[localEntry] }

// localEntry is a task in a localQueue.
type localEntry struct {
	t      *task
	ticket uint32 // compared with runQueue.next by the sign of the difference, since positions wrap
}

func (q *localQueue) push(t *task, ticket uint32) { q.ringBuffer.push(localEntry{t, ticket}) }

// pop removes the oldest task and returns it, if its ticket is not after next. With alone it
// ignores the tickets: there is no other queue to serve first. Otherwise it returns nil.
func (q *localQueue) pop(next uint32, alone bool) *task {
	if q.n == 0 || !alone && int32(q.buf[q.head].ticket-next) > 0 {
		return nil
	}
	return q.ringBuffer.pop().t
}
