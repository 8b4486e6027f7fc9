package async

// ring is a queue that grows when it is full. It keeps its room, unless it is
// asked to shrink.
type ring[T any] struct {
	buf     []T // its length is a power of two, or 0
	head, n int
}

// ringLeast is the room of a ring that has held anything, and ringKept what
// shrink leaves alone.
const (
	ringLeast = 8
	ringKept  = 256
)

func (r *ring[T]) push(v T) {
	if r.n == len(r.buf) {
		r.resize(max(2*len(r.buf), ringLeast))
	}
	r.buf[(r.head+r.n)&(len(r.buf)-1)] = v
	r.n++
}

// pop takes out the oldest; there must be one.
func (r *ring[T]) pop() (v T) {
	var zero T
	p := &r.buf[r.head]
	v, *p = *p, zero // the collector may have it
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	return v
}

// shrink gives back half the room if less than an eighth is used.
func (r *ring[T]) shrink() {
	if len(r.buf) > ringKept && r.n <= len(r.buf)/8 {
		r.resize(len(r.buf) / 2)
	}
}

//go:noinline // it would be copied into each operation on a channel
func (r *ring[T]) resize(size int) {
	buf := make([]T, size)
	n := copy(buf, r.buf[r.head:min(r.head+r.n, len(r.buf))])
	copy(buf[n:], r.buf[:r.n-n])
	r.buf, r.head = buf, 0
}
