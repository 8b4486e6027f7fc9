package async

// ringBuffer is a queue that grows when it is full. It keeps its room, unless it is
// asked to shrink.
type ringBuffer[T any] struct {
	buf     []T // its length is a power of two, or 0
	head, n int
}

// ringBufferMin is the room of a ring that has held anything, and ringBufferKept what
// shrink leaves alone.
const (
	ringBufferMin  = 8
	ringBufferKept = 256
)

func (r *ringBuffer[T]) push(v T) {
	if r.n == len(r.buf) {
		r.resize(max(2*len(r.buf), ringBufferMin))
	}
	r.buf[(r.head+r.n)&(len(r.buf)-1)] = v
	r.n++
}

// pop takes out the oldest; there must be one.
func (r *ringBuffer[T]) pop() (v T) {
	var zero T
	p := &r.buf[r.head]
	v, *p = *p, zero // the collector may have it
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	return v
}

// shrink gives back half the room if less than an eighth is used.
func (r *ringBuffer[T]) shrink() {
	if len(r.buf) > ringBufferKept && r.n <= len(r.buf)/8 {
		r.resize(len(r.buf) / 2)
	}
}

//go:noinline // it would be copied into each operation on a channel
func (r *ringBuffer[T]) resize(size int) {
	buf := make([]T, size)
	n := copy(buf, r.buf[r.head:min(r.head+r.n, len(r.buf))])
	copy(buf[n:], r.buf[:r.n-n])
	r.buf, r.head = buf, 0
}
