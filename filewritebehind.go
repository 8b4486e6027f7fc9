package async

import "slices"

// Writing behind
//
// A Write to a file of the disk is accepted when the File has a copy of its data. The pool writes
// the data later, in the order in which it was accepted. fileposition.go describes how an operation
// uses the file position.
//
//  1. Write copies as much data as there is room for to f.unwritten, at most bufferLarge (accept).
//     If that is all of its data, Write returns. Otherwise it waits for f.changed and accepts more.
//     Until it has accepted all, or is given up, it is its turn (f.turn): other Writes wait, so the
//     data of two Writes is not mixed. Only Writes look at the turn.
//  2. If f.use is idle, Write sets it to fileWriting and gives one call to the pool
//     (writeAccepted). If f.use is fileWriting already, this call also writes the new data, so many
//     small Writes cost one system call. In any other use Write waits.
//  3. The call takes the buffer f.unwritten, fires f.changed, since there is room again, and writes
//     the buffer. It repeats this until f.unwritten is empty. Then the use ends. So a File holds at
//     most two buffers: one that is being written and one that is being filled.
//  4. Every call except Read and Write waits first until the data that was accepted before it is
//     written (awaitWritten). While such a call waits for the file position, Write accepts nothing
//     (f.wanted).
//
// Places of data are counted from the first byte that the File has ever accepted. f.accepted is the
// place after the last accepted byte. All bytes before the place f.written have been written or
// dropped.
//
// If a write fails, the bytes after it would be written at a wrong place. So all accepted bytes
// that are not written are dropped (noteWritten), and the error is returned as follows:
//
//  1. A call that waits for some of the bytes has a write ticket, which lists their places. The
//     failure marks each ticket of which it drops bytes. The call returns the error, and a Write
//     does not count these bytes. A Write that was accepted completely at once needs no ticket: it
//     has returned.
//  2. If no such call returns it, the next call returns it (f.writeErr).
//  3. Close returns it in any case (f.writeFail).
//  4. If neither 1 nor 2 happens, Run or Shutdown returns it (f.loss and the ledger in
//     fileunwritten.go).
//
// Only f.writeErr and f.loss are cleared when a call returns the error. Every ticket keeps the
// error, so each of several calls that wait returns it.

// pollWriteBehind accepts as much of p as there is room for. If the caller has to wait for room, or
// for the data to be written, it gets a ticket for the accepted data, unless ticket is nil.
func (f *File) pollWriteBehind(cx *Context, p []byte, ticket **writeTicket) (n int, err error) {
	if !cx.spend() {
		return 0, ErrPending
	}
	f.mu.Lock()
	if ticket != nil && *ticket != nil && (*ticket).err != nil {
		defer f.mu.Unlock()
		return 0, f.ticketError(*ticket)
	}
	if err := f.checkUsable("write"); err != nil || len(p) == 0 {
		f.mu.Unlock()
		return 0, err
	}
	n, err = f.acceptInTurn(cx, p, ticket != nil && *ticket != nil && f.turn == *ticket)
	over := false
	if ticket != nil && n > 0 && (f.sync || n < len(p) || *ticket != nil) {
		f.addTicket(ticket, f.accepted-int64(n), f.accepted)
		over = f.turn != nil && n == len(p)
		if f.turn = *ticket; n == len(p) {
			f.turn = nil
		}
	}
	f.mu.Unlock()
	if over {
		f.changed.fire(nil)
	}
	return n, err
}

// acceptInTurn is pollWriteBehind without tickets. ownTurn says that it is the turn of the caller. mu
// is held.
func (f *File) acceptInTurn(cx *Context, p []byte, ownTurn bool) (n int, err error) {
	if f.turn != nil && !ownTurn {
		return 0, f.joinChanged(cx, waitsFile)
	}
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
			return n, nil // the call in progress writes it, too
		}
	}
	return 0, f.joinChanged(cx, waitsFile)
}

// accept copies as much of p as there is room for to f.unwritten, and returns how much. mu is held.
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

// writeAccepted has the pool write the accepted data until there is no more. f.use is idle. mu is
// held.
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

// noteWritten notes that the pool has written n of size bytes. If err is not nil, it drops all
// other accepted data; see the head of this file. mu is held.
func (f *File) noteWritten(rt *Runtime, n, size int, err error) {
	if err == nil {
		f.written += int64(size)
		return
	}
	for _, t := range f.tickets {
		t.lose(f.written+int64(n), err)
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

// PollFlush is [File.Flush] without waiting: it returns nil if the system has all data that Write
// has accepted before this poll, the error of a write that has failed, or [ErrPending]. A File that
// is not of the disk has nothing to flush.
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

// Flush waits until the system has all data that Write has accepted before. If a write fails, or
// has failed and no call has returned the error, Flush returns this error, an [*fs.PathError]. If
// cx is cancelled the error is cx.Err(), and the data will be written nevertheless. Flush does not
// wait for the disk; [File.Sync] does.
func (f *File) Flush(cx *Context) error { return f.awaitWritten(cx, "flush") }

// pollWrittenTo is ready when all bytes before the place mark have been written or dropped. ticket
// is the ticket of the caller, or nil.
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
		return 0, f.joinChanged(cx, waitsFile)
	}
	return 0, f.checkUsable(op)
}

// pollWritten is ready when the data of ticket has been written or dropped. It does not return the
// error of a write of other data.
func (f *File) pollWritten(cx *Context, ticket *writeTicket) (int, error) {
	f.mu.Lock()
	written := ticket.err == nil && f.written >= ticket.end()
	f.mu.Unlock()
	if written {
		return 0, nil
	}
	return f.pollWrittenTo(cx, "write", ticket.end(), ticket)
}

// awaitWritten waits until all data that was accepted before is written. It begins every operation
// except Read and Write.
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

// writeTicket lists the accepted data for which one call waits. If some of it is dropped, the
// ticket says how much, and why.
type writeTicket struct {
	parts []byteRange // in order
	lost  int         // how many bytes of it were dropped; they are its last bytes
	err   error       // why they were dropped
}

// byteRange is the bytes from the place from up to, but without, the place to.
type byteRange struct{ from, to int64 }

// end returns the place after the last byte of the ticket.
func (t *writeTicket) end() int64 { return t.parts[len(t.parts)-1].to }

// lose notes that all data from the place from on has been dropped because of err.
func (t *writeTicket) lose(from int64, err error) {
	for _, p := range t.parts {
		t.lost += int(max(0, p.to-max(p.from, from)))
	}
	if t.lost > 0 && t.err == nil {
		t.err = err
	}
}

// addTicket adds a range to *ticket. If *ticket is nil it makes the ticket first. mu is held.
func (f *File) addTicket(ticket **writeTicket, from, to int64) {
	t := *ticket
	if t == nil {
		t = new(writeTicket)
		*ticket = t
		f.tickets = append(f.tickets, t)
	}
	if n := len(t.parts); n > 0 && t.parts[n-1].to == from {
		t.parts[n-1].to = to
		return
	}
	t.parts = append(t.parts, byteRange{from, to})
}

// dropTicket removes the ticket of a call that no longer waits. ticket may be nil.
func (f *File) dropTicket(ticket *writeTicket) {
	if ticket == nil {
		return
	}
	f.mu.Lock()
	i := slices.Index(f.tickets, ticket)
	f.tickets = slices.Delete(f.tickets, i, i+1)
	over := f.turn == ticket
	if over {
		f.turn = nil
	}
	f.mu.Unlock()
	if over {
		f.changed.fire(nil)
	}
}

// ticketError returns the error of a ticket whose data was dropped. If it is the last failure of f,
// no other call needs to return it, except calls with tickets, and Close. mu is held.
func (f *File) ticketError(ticket *writeTicket) error {
	if f.writeErr == ticket.err {
		f.reportedLoss()
	}
	return ticket.err
}

// lost returns how many bytes of ticket were dropped.
func (f *File) lost(ticket *writeTicket) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return ticket.lost
}

// reportedLoss notes that a call returns the error of a write. mu is held.
func (f *File) reportedLoss() {
	f.loss.reported()
	f.loss, f.writeErr = nil, nil
}
