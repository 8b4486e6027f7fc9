package async

import "sync"

// The buffers of files come in three sizes. They are borrowed only while they hold
// data, so that an idle file has none.
const (
	bufferSmall  = 16 << 10 // the first read of a file, and any small write
	bufferMedium = 64 << 10
	bufferLarge  = 256 << 10 // a hand-off costs some 45 µs, as much as reading this from memory
)

var (
	smallBuffers  = sync.Pool{New: func() any { return new([bufferSmall]byte) }}
	mediumBuffers = sync.Pool{New: func() any { return new([bufferMedium]byte) }}
	largeBuffers  = sync.Pool{New: func() any { return new([bufferLarge]byte) }}
)

// borrowBuffer returns a buffer of the smallest size that is not less than n, or
// of the largest.
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

// returnBuffer takes back a buffer. b is any part of it from its beginning on, or
// nil for no buffer.
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
