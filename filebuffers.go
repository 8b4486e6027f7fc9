package async

import "sync"

// The buffers of files have three sizes. A File has a buffer only while the buffer holds data, so
// that an idle file uses no memory for buffers.
const (
	bufferSmall  = 16 << 10 // for the first read of a file, and for small writes
	bufferMedium = 64 << 10
	bufferLarge  = 256 << 10 // read into new memory in some 45 µs, the cost of a call of the pool
)

var (
	smallBuffers  = sync.Pool{New: func() any { return new([bufferSmall]byte) }}
	mediumBuffers = sync.Pool{New: func() any { return new([bufferMedium]byte) }}
	largeBuffers  = sync.Pool{New: func() any { return new([bufferLarge]byte) }}
)

// borrowBuffer returns a buffer of the smallest size that is at least n. If n is larger than all
// sizes it returns a buffer of the largest size.
func borrowBuffer(n int) []byte {
	switch {
	case n <= bufferSmall:
		return smallBuffers.Get().(*[bufferSmall]byte)[:]
	case n <= bufferMedium:
		return mediumBuffers.Get().(*[bufferMedium]byte)[:]
	default:
		return largeBuffers.Get().(*[bufferLarge]byte)[:]
	}
}

// returnBuffer takes back a buffer that borrowBuffer has returned. b may be cut at its end. If b is
// nil, returnBuffer does nothing.
func returnBuffer(b []byte) {
	switch cap(b) {
	case bufferSmall:
		smallBuffers.Put((*[bufferSmall]byte)(b[:bufferSmall]))
	case bufferMedium:
		mediumBuffers.Put((*[bufferMedium]byte)(b[:bufferMedium]))
	case bufferLarge:
		largeBuffers.Put((*[bufferLarge]byte)(b[:bufferLarge]))
	}
}
