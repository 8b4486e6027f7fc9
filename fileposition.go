package async

import (
	"io"
	"io/fs"
	"os"
)

// The position of a file of the disk
//
// A File reads ahead (filereadahead.go) and writes behind (filewritebehind.go), so its descriptor
// is often not at the position that the caller of Read, Write and Seek must see. The two positions
// differ by two amounts:
//
//	position of the descriptor = position of the File + unread data in ahead + lag
//
// lag is data that was read ahead and then dropped. The equation holds while f.use is fileIdle.
// While it is fileWriting, the descriptor is before the position of the File, by the accepted data
// that is not written yet. No data that was read ahead is left then.
//
// One operation at a time uses the position. f.use says which, and mu guards it:
//
//  1. Begin: with mu held, see that f.use is fileIdle, and set it. Take lag in the same critical
//     section.
//  2. Step the descriptor back by lag, without mu, on the goroutine that does the operation. Now
//     the descriptor is where the operation must begin.
//  3. Do the operation. mu is not held during a system call that may wait.
//  4. End: endUse sets fileIdle, fires f.changed, and closes the file if Close has asked for it
//     meanwhile.
//
// A read on the spot does steps 2 and 3 on the worker; see filecached.go. A Seek on the spot
// (seekNow) does all steps in one critical section, since its system calls do not wait. All other
// operations do steps 2 to 4 in the pool.
//
// An operation other than Read and Write:
//
//  1. Waits until all data that was accepted before is written (awaitWritten).
//  2. If another operation uses the position, sets wanted and waits for f.changed. While wanted is
//     set, the pool does not begin to read another part ahead, and Write accepts nothing more. So
//     the use ends soon.
//  3. Takes the position as above (takePosition), drops data that was read ahead, and clears
//     wanted.
//  4. If it gives up at 2, clears wanted and fires f.changed, so that other operations that wait
//     set wanted again, and Reads and Writes that have waited go on.
//
// The races that this closes:
//
//  1. Close during an operation. closed is set under mu, so no use begins after it. If f.use is not
//     idle then, Close leaves the closing to that operation, which finds it in step 4.
//  2. Two copies between the same two files in opposite directions. A copy takes both positions or
//     none (copyStepTo), so neither copy holds one position while it waits for the other.

// joinChanged makes cx's task wait for a change, and returns ErrPending. mu is held.
func (f *File) joinChanged(cx *Context, reason waitReason) error {
	for !f.changed.join(cx.waker(reason)) {
		// join has consumed the event of an earlier change. The caller holds mu and has seen that
		// change.
	}
	return ErrPending
}

// checkUsable returns the error that ends an operation before it begins: the file is not open, or
// an earlier write has failed and no call has returned its error. mu is held.
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

// isZero reports whether f is the zero value, which is not open.
func (f *File) isZero() bool { return f.os == nil && !f.polled }

// stepBack moves the descriptor's position back by the given amount.
func (f *File) stepBack(by int64) error {
	if by == 0 {
		return nil
	}
	_, err := f.os.Seek(-by, io.SeekCurrent)
	return err
}

// endUse ends the use of the position. mu is held, and endUse unlocks it.
func (f *File) endUse() {
	if closing := f.endUseKeepingClose(nil); closing != nil {
		closing()
	}
}

// endUseKeepingClose is endUse without the closing. The caller does the closing, which may wait. w
// is the worker that runs the caller, or nil.
func (f *File) endUseKeepingClose(w *worker) (closing func()) {
	f.use = fileIdle
	closing = f.closing
	f.closing = nil
	f.mu.Unlock()
	f.changed.fire(w)
	return closing
}

// pollPosition takes the file position for another operation than Read and Write. The caller must
// step the descriptor back by the amount that pollPosition returns. endUse ends the use.
func (f *File) pollPosition(cx *Context, op string) (back int64, err error) {
	f.mu.Lock()
	back, err = f.takePosition(cx, op)
	gaveUp := err != nil && err != ErrPending && f.wanted
	if gaveUp {
		f.wanted = false // other calls that want the position set this again
	}
	f.mu.Unlock()
	if gaveUp {
		f.changed.fire(cx.here())
	}
	return back, err
}

// takePosition is pollPosition, except that it leaves wanted set if it fails. mu is held.
func (f *File) takePosition(cx *Context, op string) (back int64, err error) {
	if err := f.checkUsable(op); err != nil {
		return 0, err
	}
	if f.use != fileIdle {
		f.wanted = true
		return 0, f.joinChanged(cx, waitsFile)
	}
	f.use, f.wanted = filePositioned, false
	f.dropReadAhead()
	back, f.lag = f.lag, 0
	return back, nil
}

// returnPosition undoes pollPosition. The caller has not stepped the descriptor back.
func (f *File) returnPosition(back int64) {
	f.mu.Lock()
	f.lag = back
	f.endUse()
}

// atPosition runs fn in the pool while no other operation uses the file position. The descriptor is
// at the file position then. If cx is cancelled after fn has begun, fn continues; atPosition waits
// for its end only if anyway is set.
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

// awaitDone waits until done is set, and returns the result. mu guards both. If anyway is set, it
// waits even if cx is cancelled.
func (f *File) awaitDone(cx *Context, anyway bool, done *bool, result *error) error {
	poll := func(cx *Context) (int, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !*done {
			return 0, f.joinChanged(cx, waitsFile)
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

// copyTo copies up to limit bytes from the position of f to the position of out. Both are files of
// the disk. It copies in steps, so that a cancelled copy ends soon.
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

// copyStepTo is one step of copyTo. It takes both positions or none. If it held one position while
// it waits for the other, two copies in opposite directions could wait for each other.
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

// copyFiles copies up to step bytes in the pool. If it fails, the position of from is after the
// data that has been written, so that the rest is not lost.
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
