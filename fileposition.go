package async

import (
	"io"
	"io/fs"
	"os"
	"slices"

	"example.com/async/internal/pagecache"
)

// What a File of the disk does with its position: it reads ahead and writes behind, and calls that need the position
// of the descriptor get it in its right place.
//
// Write-behind, in three sentences:
//
//  1. A Write is accepted when the File holds a copy of its data, bufferLarge of it at most beside the part that is being
//     written, and one call in the pool at a time writes what is held, in the order in which it was accepted.
//  2. Each call but Read and Write first waits until all data that was accepted before it has been written.
//  3. If writing fails, all data that is held is dropped; each call that waits for some of it returns the error, or the next
//     call if there is none, and so does Close.
//
// The places of the accepted data, counted from the first byte ever accepted, say who waits for what: a writeTicket is
// the data of one call, and written is the place up to which data has been written or dropped.

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

// awaitChange makes cx's task wait for a change. mu is held.
func (f *File) awaitChange(cx *Context, reason waitReason) error {
	for !f.changed.join(cx.waker(reason)) {
		// The event of an earlier change, which the caller has just seen.
	}
	return ErrPending
}

// checkUsable returns what ends an operation before it begins. mu is held.
func (f *File) checkUsable(op string) error {
	switch {
	case f.isZero():
		return &fs.PathError{Op: op, Err: os.ErrInvalid}
	case f.closed:
		return &fs.PathError{Op: op, Path: f.name, Err: os.ErrClosed}
	}
	err := f.writeErr
	if err != nil {
		f.reportedLoss()
	}
	return err
}

// isZero reports whether f is a zero value.
func (f *File) isZero() bool { return f.os == nil && !f.polled }

// reportedLoss notes that a call returns the error of a write. mu is held.
func (f *File) reportedLoss() {
	f.loss.reported()
	f.loss, f.writeErr = nil, nil
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
		return 0, f.awaitChange(cx, waitsFile)
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

// stepBack puts the descriptor's position where the file's is.
func (f *File) stepBack(by int64) error {
	if by == 0 {
		return nil
	}
	_, err := f.os.Seek(-by, io.SeekCurrent)
	return err
}

// endUse ends the use of the position and unlocks mu.
func (f *File) endUse() {
	if closing := f.endUseKeepingClose(nil); closing != nil {
		closing()
	}
}

// endUseKeepingClose is rest but for the closing, which may wait and is left to the caller. w
// is the worker that it is called on, or nil.
func (f *File) endUseKeepingClose(w *worker) (closing func()) {
	f.use = fileIdle
	closing = f.closing
	f.closing = nil
	f.mu.Unlock()
	f.changed.fire(w)
	return closing
}

// pollWriteBehind accepts as much of p as there is room for. If the caller has to wait for more room or for the data, it gets
// a ticket for the accepted data, unless ticket is nil.
func (f *File) pollWriteBehind(cx *Context, p []byte, ticket **writeTicket) (n int, err error) {
	if !cx.spend() {
		return 0, ErrPending
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if ticket != nil && *ticket != nil && (*ticket).err != nil {
		return 0, f.ticketError(*ticket)
	}
	if err := f.checkUsable("write"); err != nil || len(p) == 0 {
		return 0, err
	}
	defer func() {
		if ticket != nil && n > 0 && (f.sync || n < len(p) || *ticket != nil) {
			f.addTicket(ticket, f.accepted-int64(n), f.accepted)
		}
	}()
	switch f.use {
	case fileIdle:
		f.dropReadAhead()
		n := f.accept(p)
		if err := f.writeAccepted(cx); err != nil {
			returnBuffer(f.unwritten)
			f.unwritten = nil
			f.accepted -= int64(n)
			return 0, err
		}
		return n, nil
	case fileWriting:
		if f.wanted {
			break
		}
		if n := f.accept(p); n > 0 {
			return n, nil // the call that is under way writes it, too
		}
	}
	return 0, f.awaitChange(cx, waitsFile)
}

// accept copies as much of p as there is room for. mu is held.
func (f *File) accept(p []byte) int {
	have := len(f.unwritten)
	if want := min(have+len(p), bufferLarge); cap(f.unwritten) < want {
		larger := borrowBuffer(want)[:have]
		copy(larger, f.unwritten)
		returnBuffer(f.unwritten)
		f.unwritten = larger
	}
	n := min(len(p), cap(f.unwritten)-have)
	f.unwritten = append(f.unwritten, p[:n]...)
	f.accepted += int64(n)
	return n
}

// writeAccepted has the pool write the accepted data, until there is no more.
// mu is held.
func (f *File) writeAccepted(cx *Context) error {
	back, rt := f.lag, cx.t.w.rt
	f.use = fileWriting
	err := rt.runInPoolFor(f, func() {
		err := f.stepBack(back)
		f.mu.Lock()
		for len(f.unwritten) > 0 {
			buf := f.unwritten
			f.unwritten = nil
			f.mu.Unlock()
			f.changed.fire(nil) // there is room
			n := 0
			if err == nil {
				n, err = f.os.Write(buf)
			}
			f.mu.Lock()
			f.noteWritten(rt, max(n, 0), len(buf), err)
			returnBuffer(buf)
		}
		f.endUse()
	})
	if err != nil {
		f.use = fileIdle
		return err
	}
	f.lag = 0
	return nil
}

// noteWritten notes that n of size bytes have been written. After a failure the data behind them would be written in
// a wrong place, so it is dropped. mu is held.
func (f *File) noteWritten(rt *Runtime, n, size int, err error) {
	if err == nil {
		f.written += int64(size)
		return
	}
	for _, s := range f.tickets {
		s.lose(f.written+int64(n), err)
	}
	f.loss = filesOf(rt).ledger.lose(f.loss, f.name, f.accepted-f.written-int64(n), err)
	f.written = f.accepted
	returnBuffer(f.unwritten)
	f.unwritten = nil
	f.writeErr = err
	if f.writeFail == nil {
		f.writeFail = err
	}
}

// PollFlush reports whether all data that Write has accepted so far has reached the
// system: it returns nil, the error of a write that has failed, or ErrPending.
// A File that is not of the disk has nothing to flush.
func (f *File) PollFlush(cx *Context) error {
	if !cx.spend() {
		return ErrPending
	}
	f.mu.Lock()
	mark := f.accepted
	f.mu.Unlock()
	_, err := f.pollWrittenTo(cx, "flush", mark, nil)
	return cx.unspent(err)
}

// Flush waits until all data that Write has accepted before has reached the
// system. It returns the error if that fails, or has failed and no call has returned the
// error yet. It is not Sync, which goes on to the disk.
func (f *File) Flush(cx *Context) error { return f.awaitWritten(cx, "flush") }

// pollWrittenTo is ready once the first mark bytes have been written or dropped.
func (f *File) pollWrittenTo(cx *Context, op string, mark int64, ticket *writeTicket) (int, error) {
	if f.polled {
		return 0, f.wrap(op, f.src.checkOpen())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if ticket != nil && ticket.err != nil {
		return 0, f.ticketError(ticket)
	}
	if !f.closed && f.written < mark {
		return 0, f.awaitChange(cx, waitsFile)
	}
	return 0, f.checkUsable(op)
}

// pollWritten is ready once the data of ticket has been written or dropped. It does not return the failure of other
// data.
func (f *File) pollWritten(cx *Context, ticket *writeTicket) (int, error) {
	f.mu.Lock()
	written := ticket.err == nil && f.written >= ticket.end()
	f.mu.Unlock()
	if written {
		return 0, nil
	}
	return f.pollWrittenTo(cx, "write", ticket.end(), ticket)
}

// awaitWritten waits until all data that was accepted before has been written.
func (f *File) awaitWritten(cx *Context, op string) error {
	var ticket *writeTicket
	f.mu.Lock()
	mark := f.accepted
	if f.written < mark {
		f.addTicket(&ticket, f.written, mark)
	}
	f.mu.Unlock()
	defer f.dropTicket(ticket)
	_, err := f.await(cx, &f.src.wr, func(cx *Context) (int, error) { return f.pollWrittenTo(cx, op, mark, ticket) })
	return err
}

// writeTicket is accepted data that a call waits for. So each call that a failure concerns returns it, and knows how much
// of its own data was dropped.
type writeTicket struct {
	parts []byteRange // in order
	lost  int         // how many bytes of it were dropped, the last ones
	err   error       // why
}

type byteRange struct{ from, to int64 }

func (s *writeTicket) end() int64 { return s.parts[len(s.parts)-1].to }

// lose notes that all data from a place on has been dropped.
func (s *writeTicket) lose(from int64, err error) {
	for _, p := range s.parts {
		s.lost += int(max(0, p.to-max(p.from, from)))
	}
	if s.lost > 0 && s.err == nil {
		s.err = err
	}
}

// addTicket adds a part to *ticket, which is made if it is nil. mu is held.
func (f *File) addTicket(ticket **writeTicket, from, to int64) {
	s := *ticket
	if s == nil {
		s = new(writeTicket)
		*ticket = s
		f.tickets = append(f.tickets, s)
	}
	if n := len(s.parts); n > 0 && s.parts[n-1].to == from {
		s.parts[n-1].to = to
		return
	}
	s.parts = append(s.parts, byteRange{from, to})
}

// dropTicket takes a ticket back, whose call waits no longer; nil is none.
func (f *File) dropTicket(ticket *writeTicket) {
	if ticket == nil {
		return
	}
	f.mu.Lock()
	i := slices.Index(f.tickets, ticket)
	f.tickets = slices.Delete(f.tickets, i, i+1)
	f.mu.Unlock()
}

// ticketError returns why the data of ticket was dropped. Calls without a part in that data need not return the error then.
// mu is held.
func (f *File) ticketError(ticket *writeTicket) error {
	if f.writeErr == ticket.err {
		f.reportedLoss()
	}
	return ticket.err
}

func (f *File) lost(ticket *writeTicket) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return ticket.lost
}

// pollPosition takes the position, in its right place once the descriptor has
// stepped back, which the caller does. It ends with rest.
func (f *File) pollPosition(cx *Context, op string) (back int64, err error) {
	f.mu.Lock()
	back, err = f.takePosition(cx, op)
	gaveUp := err != nil && err != ErrPending && f.wanted
	if gaveUp {
		f.wanted = false // other calls that want it set this again
	}
	f.mu.Unlock()
	if gaveUp {
		f.changed.fire(cx.here())
	}
	return back, err
}

// takePosition is pollPosition without the cleaning up after a failure. mu is held.
func (f *File) takePosition(cx *Context, op string) (back int64, err error) {
	if err := f.checkUsable(op); err != nil {
		return 0, err
	}
	if f.use != fileIdle {
		f.wanted = true
		return 0, f.awaitChange(cx, waitsFile)
	}
	f.use, f.wanted = filePositioned, false
	f.dropReadAhead()
	back, f.lag = f.lag, 0
	return back, nil
}

// returnPosition undoes pollPosition.
func (f *File) returnPosition(back int64) {
	f.mu.Lock()
	f.lag = back
	f.endUse()
}

// atPosition has the pool do fn when no other call uses the position, with that of
// the descriptor in its right place. If cx is cancelled, fn goes on if it
// has begun; with anyway it is waited for then.
func (f *File) atPosition(cx *Context, op string, anyway bool, fn func() error) error {
	if err := f.awaitWritten(cx, op); err != nil {
		return err
	}
	for {
		var back int64
		_, err := f.await(cx, &f.src.wr, func(cx *Context) (n int, err error) {
			back, err = f.pollPosition(cx, op)
			return 0, err
		})
		if err != nil {
			return err
		}
		var done bool
		var result error
		err = cx.t.w.rt.runInPool(func() {
			err := f.stepBack(back)
			if err == nil {
				err = fn()
			}
			f.mu.Lock()
			done, result = true, err
			f.endUse()
		})
		if err == nil {
			return f.awaitDone(cx, anyway, &done, &result)
		}
		f.returnPosition(back)
		if err := awaitRoom(cx); err != nil {
			return err
		}
	}
}

// awaitDone waits until done is set, which mu guards.
func (f *File) awaitDone(cx *Context, anyway bool, done *bool, result *error) error {
	poll := func(cx *Context) (int, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !*done {
			return 0, f.awaitChange(cx, waitsFile)
		}
		return 0, *result
	}
	if anyway {
		_, err := awaitAnyway(cx, poll)
		return err
	}
	_, err := f.await(cx, &f.src.wr, poll)
	return err
}

// copyTo copies up to limit bytes from the position of f to that of out, both
// files of the disk.
func (f *File) copyTo(cx *Context, out *File, limit int64) (written int64, err error) {
	for written < limit && err == nil {
		var n int64
		step := min(copyStep, limit-written)
		n, err = f.copyStepTo(cx, out, step)
		written += n
		if err == nil && n < step {
			return written, nil
		}
	}
	return written, err
}

// copyStepTo takes both positions, or none: two calls that copy in opposite directions must not wait for each other.
func (f *File) copyStepTo(cx *Context, out *File, step int64) (n int64, err error) {
	for {
		var back, outBack int64
		_, err = f.await(cx, &f.src.wr, func(cx *Context) (_ int, err error) {
			if back, err = f.pollPosition(cx, "read"); err != nil {
				return 0, err
			}
			if outBack, err = out.pollPosition(cx, "write"); err != nil {
				f.returnPosition(back)
			}
			return 0, err
		})
		if err != nil {
			out.leave(cx, &out.src.wr)
			return 0, err
		}
		var done bool
		var result error
		err = cx.t.w.rt.runInPool(func() {
			err := f.stepBack(back)
			if err == nil {
				err = out.stepBack(outBack)
			}
			if err == nil {
				n, err = copyFiles(out.os, f.os, step)
			}
			out.mu.Lock()
			out.endUse()
			f.mu.Lock()
			done, result = true, err
			f.endUse()
		})
		if err == nil {
			err = f.awaitDone(cx, true, &done, &result)
			return n, err
		}
		f.returnPosition(back)
		out.returnPosition(outBack)
		if err := awaitRoom(cx); err != nil {
			return 0, err
		}
	}
}

// copyFiles copies up to step bytes. Also if it fails, the position of from is behind the data that has been written.
func copyFiles(to, from *os.File, step int64) (int64, error) {
	at, err := from.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(to, io.LimitReader(from, step))
	if err != nil {
		from.Seek(at+n, io.SeekStart)
	}
	return n, err
}
