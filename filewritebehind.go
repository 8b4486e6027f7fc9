package async

import "slices"

// Write-behind, in three sentences:
//
//  1. A Write is accepted when the File holds a copy of its data, bufferLarge of it at most beside the part that is being
//     written, and one call in the pool at a time writes what is held, in the order in which it was accepted.
//  2. Each call but Read and Write first waits until all data that was accepted before it has been written.
//  3. If writing fails, all data that is held is dropped; each call that waits for some of it returns the error, or the next
//     call if there is none, and so does Close.
//
// The places of the accepted data, counted from the first byte ever accepted, say which data a call waits for: a writeTicket is
// the data of one call, and written is the place up to which data has been written or dropped.

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
	return 0, f.joinChanged(cx, waitsFile)
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
		return 0, f.joinChanged(cx, waitsFile)
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

func (t *writeTicket) end() int64 { return t.parts[len(t.parts)-1].to }

// lose notes that all data from a place on has been dropped.
func (t *writeTicket) lose(from int64, err error) {
	for _, p := range t.parts {
		t.lost += int(max(0, p.to-max(p.from, from)))
	}
	if t.lost > 0 && t.err == nil {
		t.err = err
	}
}

// addTicket adds a part to *ticket, which is made if it is nil. mu is held.
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

// reportedLoss notes that a call returns the error of a write. mu is held.
func (f *File) reportedLoss() {
	f.loss.reported()
	f.loss, f.writeErr = nil, nil
}
