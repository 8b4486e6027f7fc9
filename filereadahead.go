package async

import "example.com/async/internal/pagecache"

// Reading ahead
//
// A file of the disk that is read from its beginning to its end is read by the pool in parts of 256
// KiB, before a task asks for them. fileposition.go describes how an operation uses the file
// position.
//
//  1. Read takes data from f.ahead, if there is any, and returns (pollReadAhead).
//  2. If there is none and f.use is idle, Read sets asked, sets f.use to fileReading, and has the
//     pool read a part (readMore). Then it waits for f.changed. If another operation uses the
//     position, Read waits for f.changed, too.
//  3. The pool reads the part and puts it into f.ahead (keepRead). If readsAhead reports true,
//     there is room in f.ahead and no task wants the position, the pool reads the next part at
//     once. Otherwise the use ends.
//  4. A Read that leaves no more than half of the chunks in f.ahead begins step 2 before there is
//     need, without waiting. So the pool reads while the task works on the data.
//
// The size of a part grows while parts are read completely: 16 KiB or the size that the task asked
// for, then 64 KiB, then 256 KiB (adaptReadSize). So a file of which a task reads only the
// beginning costs one small read. Reading ahead, without a task that asks, begins with the largest
// size.
//
// The races that this closes:
//
//  1. The file is changed during a read. edited counts f.edits. The read has noted the count before
//     it began. If the count differs at its end, its data may be old or new, so it is dropped, and
//     lag grows by it. The waiting Read begins another one.
//  2. A Read is cancelled while the pool reads for it. The data stays in f.ahead for the next Read.
//     The error of such a read is dropped (leave, keepRead), since the end of the file may be at
//     another place by the next Read, which meets a lasting error again.
//  3. The file is closed during a read. As for a change, the data is dropped, and the end of the
//     use closes the file.
//
// Data that cannot be read again, for example from a terminal, is never dropped for a change, and
// no more of it is read than one part.

// readAheadChunks is the number of buffers that may wait for the reader. With a single one, the
// reader had to wait at the end of each, and reading a large file took twice as long.
const readAheadChunks = 4

// readAhead is the data of a file that was read ahead, in order.
type readAhead struct {
	chunks [readAheadChunks]fileChunk
	n      int
}

// fileChunk is a buffer, and how much of it a Read has taken.
type fileChunk struct {
	data []byte
	used int
}

// push adds data, which is not empty, at the end. There must be room for another chunk.
func (a *readAhead) push(data []byte) {
	a.chunks[a.n] = fileChunk{data: data}
	a.n++
}

// read moves data into p, until p is full or there is no more data.
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

// drop drops all data, and returns how much it was.
func (a *readAhead) drop() (n int64) {
	for _, c := range a.chunks[:a.n] {
		n += int64(len(c.data) - c.used)
		returnBuffer(c.data)
	}
	*a = readAhead{}
	return n
}

// pollReadAhead is PollRead for a file that is not polled. It reads on the spot if the system has
// the data in memory (readCached). Otherwise it takes data that was read ahead. If there is none,
// it has the pool read the next part, and returns ErrPending.
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
		f.readMore(cx, bufferLarge) // without room in the pool, a Read asks when it needs the data
	}
	return n, nil
}

// readsAhead reports whether the pool may begin the next read before a task asks for it: the last
// reads followed each other, and the task had to wait for them. mu is held.
func (f *File) readsAhead() bool {
	return f.readSize == bufferLarge && f.seekable && !f.exact && !f.hot
}

// readMore has the pool read the next part of the file, at least want bytes of it if there is room
// in a buffer, and go on while keepRead reports true. f.use is idle, and mu is held.
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

// keepRead keeps the data that a read has returned, and reports whether the pool should read the
// next part. valid says that the file was not changed through f since the read began. If no task
// has asked for this read, its error is dropped: the next read at that place returns it again. mu
// is held.
func (f *File) keepRead(buf []byte, n int, err error, valid bool) (more bool) {
	if f.seekable && (!valid || f.closed) { // data that cannot be read again is kept
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

// adaptReadSize chooses the size of the next read, after a read of n bytes with room for size. mu
// is held.
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

// dropReadAhead drops the data that was read ahead, unless it cannot be read again. mu is held.
func (f *File) dropReadAhead() {
	if !f.seekable {
		return
	}
	f.lag += f.ahead.drop()
	f.readErr, f.readSize = nil, 0
}
