package async

import (
	"io"
	"io/fs"
	"os"
)

// A File of the disk reads ahead (filereadahead.go) and writes behind (filewritebehind.go). Calls that need the position of
// the descriptor get it in its right place.

// joinChanged makes cx's task wait for a change. mu is held.
func (f *File) joinChanged(cx *Context, reason waitReason) error {
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

// endUseKeepingClose is endUse but for the closing, which may wait and is left to the caller. w
// is the worker that it is called on, or nil.
func (f *File) endUseKeepingClose(w *worker) (closing func()) {
	f.use = fileIdle
	closing = f.closing
	f.closing = nil
	f.mu.Unlock()
	f.changed.fire(w)
	return closing
}

// pollPosition takes the position, in its right place once the descriptor has
// stepped back, which the caller does. endUse ends it.
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
		return 0, f.joinChanged(cx, waitsFile)
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
