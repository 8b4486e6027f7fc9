package async

import "example.com/async/internal/pagecache"

// readAheadChunks is how many buffers may wait for the reader. With a single one
// the reader waited at the end of each, and reading a large file took twice as
// long.
const readAheadChunks = 4

// readAhead is the part of a file that was read ahead.
type readAhead struct {
	chunks [readAheadChunks]fileChunk
	n      int
}

// fileChunk is a buffer and how much of it has been used.
type fileChunk struct {
	data []byte
	used int
}

func (a *readAhead) push(data []byte) {
	a.chunks[a.n] = fileChunk{data: data}
	a.n++
}

// read moves data into p, as much as there is and p has room for.
func (a *readAhead) read(p []byte) (n int) {
	for a.n > 0 && n < len(p) {
		c := &a.chunks[0]
		m := copy(p[n:], c.data[c.used:])
		c.used += m
		n += m
		if c.used == len(c.data) {
			returnBuffer(c.data)
			copy(a.chunks[:], a.chunks[1:])
			a.n--
			a.chunks[a.n] = fileChunk{}
		}
	}
	return n
}

// drop throws the data away and returns how much it was.
func (a *readAhead) drop() (n int64) {
	for _, c := range a.chunks[:a.n] {
		n += int64(len(c.data) - c.used)
		returnBuffer(c.data)
	}
	*a = readAhead{}
	return n
}

func (f *File) pollReadAhead(cx *Context, p []byte) (int, error) {
	if !cx.spend() {
		return 0, ErrPending
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, err := f.readCached(cx, p); err != pagecache.ErrMiss {
		return n, err
	}
	if err := f.checkUsable("read"); err != nil || len(p) == 0 {
		return 0, err
	}
	if f.ahead.n == 0 && f.use == fileIdle {
		if err := f.readErr; err != nil {
			f.readErr = nil
			return 0, err
		}
		if f.input != nil {
			if err := f.input.poll(cx); err != nil {
				return 0, err
			}
		}
		f.asked = true
		if err := f.readMore(cx, len(p)); err != nil {
			return 0, err
		}
	}
	if f.ahead.n == 0 {
		return 0, f.joinChanged(cx, waitsFile)
	}
	n := f.ahead.read(p)
	if f.use == fileIdle && f.ahead.n <= readAheadChunks/2 && f.readsAhead() && !f.wanted {
		f.readMore(cx, bufferLarge) // if there is no room in the pool it can wait until it is needed
	}
	return n, nil
}

// readsAhead reports whether the pool may begin the next read before a task asks for it: the last reads followed each other,
// and had to be waited for. mu is held.
func (f *File) readsAhead() bool {
	return f.readSize == bufferLarge && f.seekable && !f.exact && !f.hot
}

// readMore has the pool read the next part of the file, and go on as long as
// that makes sense. mu is held.
func (f *File) readMore(cx *Context, want int) error {
	buf := borrowBuffer(max(want, f.readSize))
	if f.exact {
		buf = buf[:min(want, len(buf))]
	}
	back, edits := f.lag, f.edits
	f.use = fileReading
	err := cx.t.w.rt.runInPool(func() {
		err := f.stepBack(back)
		for more := true; more; {
			n := 0
			if err == nil {
				n, err = f.os.Read(buf)
			}
			f.mu.Lock()
			more = f.keepRead(buf, max(n, 0), err, f.edits == edits)
			if !more {
				f.endUse()
				return
			}
			f.mu.Unlock()
			f.changed.fire(nil)
			buf = borrowBuffer(bufferLarge)
		}
	})
	if err != nil {
		f.use = fileIdle
		returnBuffer(buf)
		return err
	}
	f.lag = 0
	return nil
}

// keepRead keeps the data that the pool has read, and reports whether the pool should go on. valid says that the file was not
// changed through f since the read began. If no task has asked for this read, its error is dropped: the read that gets
// there meets it again. mu is held.
func (f *File) keepRead(buf []byte, n int, err error, valid bool) (more bool) {
	if f.seekable && (!valid || f.closed) { // or it cannot be read again
		f.lag += int64(n)
		n = 0
	} else if err != nil && f.asked {
		f.readErr = err
	}
	f.asked = false
	f.adaptReadSize(n, len(buf))
	if n == 0 {
		returnBuffer(buf)
		return false
	}
	f.ahead.push(buf[:n])
	return f.readsAhead() && f.ahead.n < readAheadChunks && !f.wanted
}

// adaptReadSize chooses the size of the next read: n bytes have been read where there was room for size. mu is held.
func (f *File) adaptReadSize(n, size int) {
	switch {
	case n < size:
		f.readSize = 0
	case n <= bufferSmall:
		f.readSize = bufferMedium
	default:
		f.readSize = bufferLarge
	}
}

// dropReadAhead throws away the data that was read ahead, unless it cannot be read again. mu is held.
func (f *File) dropReadAhead() {
	if !f.seekable {
		return
	}
	f.lag += f.ahead.drop()
	f.readErr, f.readSize = nil, 0
}
