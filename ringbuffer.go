package async

// ringBuffer is a FIFO queue in a slice. It doubles the slice when it is full, and keeps it when
// values are removed. shrink makes it smaller. The zero ringBuffer is empty. It has no lock: its
// user guards it.
type ringBuffer[T any] struct {
	buf     []T // its length is a power of two, or 0
	head, n int // the index of the oldest value, and how many values there are
}

const (
	ringBufferMin  = 8   // the smallest length of a slice
	ringBufferKept = 256 // a slice of this length or less is not made smaller
)

// push appends v.
func (r *ringBuffer[T]) push(v T) {
	if r.n == len(r.buf) {
		r.resize(max(2*len(r.buf), ringBufferMin))
	}
	r.buf[(r.head+r.n)&(len(r.buf)-1)] = v
	r.n++
}

// pop removes the oldest value and returns it. There must be one.
func (r *ringBuffer[T]) pop() (v T) {
	var zero T
	p := &r.buf[r.head]
	v, *p = *p, zero // so that the slice does not keep the value alive
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
	return v
}

// shrink halves a slice that is longer than ringBufferKept, if at most an eighth of it is used. At
// most a quarter of the new slice is used. So a queue whose length varies a little does not grow
// and shrink again and again.
func (r *ringBuffer[T]) shrink() {
	if len(r.buf) > ringBufferKept && r.n <= len(r.buf)/8 {
		r.resize(len(r.buf) / 2)
	}
}

//go:noinline // it would be copied into each operation on a channel
func (r *ringBuffer[T]) resize(size int) {
	// In the new slice the oldest value is the first.
	buf := make([]T, size)
	n := copy(buf, r.buf[r.head:min(r.head+r.n, len(r.buf))])
	copy(buf[n:], r.buf[:r.n-n])
	r.buf, r.head = buf, 0
}
