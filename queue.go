package async

// queue is a first-in-first-out sequence that grows as needed.
type queue[T any] struct {
	ring    []T // its length is a power of two
	head, n int
}

// queueKept is the size of a ring that an empty queue keeps.
const queueKept = 1024

func (q *queue[T]) push(v T) {
	if q.n == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = v
	q.n++
}

// pop takes the first out, which must be there.
func (q *queue[T]) pop() (v T) {
	v, q.ring[q.head] = q.ring[q.head], v
	q.head = (q.head + 1) & (len(q.ring) - 1)
	if q.n--; q.n == 0 && len(q.ring) > queueKept {
		q.ring, q.head = nil, 0 // a burst is over
	}
	return v
}

// unpop puts v before all others.
func (q *queue[T]) unpop(v T) {
	if q.n == len(q.ring) {
		q.grow()
	}
	q.head = (q.head - 1) & (len(q.ring) - 1)
	q.ring[q.head] = v
	q.n++
}

func (q *queue[T]) grow() {
	ring := make([]T, max(4, 2*len(q.ring)))
	n := copy(ring, q.ring[q.head:])
	copy(ring[n:], q.ring[:q.head])
	q.ring, q.head = ring, 0
}
