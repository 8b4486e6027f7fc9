package async

import (
	"io/fs"
	"os"

	"example.com/async/internal/sys"
)

// Seek sets the file position, that of the next Read or Write, as os.File.Seek does,
// and returns it.
func (f *File) Seek(cx *Context, offset int64, whence int) (int64, error) {
	if f.polled {
		return withFile(cx, f, "seek", false, func(o *os.File) (int64, error) { return o.Seek(offset, whence) })
	}
	if err := cx.mustAwait(); err != nil {
		return 0, err
	}
	if at, ok := f.seekNow(offset, whence); ok {
		return at, nil
	}
	var at int64
	err := f.atPosition(cx, "seek", false, func() (err error) {
		at, err = f.os.Seek(offset, whence)
		return err
	})
	if err != nil {
		return 0, err
	}
	return at, nil
}

// ReadAt reads len(p) bytes at off, as os.File.ReadAt does. It neither uses nor
// changes the file position, and any number of calls run at the same time. At the end
// of the file the error is io.EOF.
func (f *File) ReadAt(cx *Context, p []byte, off int64) (n int, err error) {
	for {
		if err := cx.mustAwait(); err != nil {
			return n, err
		}
		at := off + int64(n)
		m := f.readCachedAt(p[n:min(len(p), n+cachedPartMost)], at)
		cx.charge(m)
		if m == 0 {
			m, err = f.readPart(cx, p[n:min(len(p), n+bufferLarge)], at)
		}
		n += m
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// readPart reads into a buffer of the pool's: p must not change anymore once
// ReadAt has returned.
func (f *File) readPart(cx *Context, p []byte, off int64) (int, error) {
	type part struct {
		buf []byte
		n   int
		err error
	}
	drop := func(r part) { returnBuffer(r.buf) }
	r, err := withFileDrop(cx, f, "read", false, func(o *os.File) (part, error) {
		buf := borrowBuffer(len(p))
		n, err := o.ReadAt(buf[:len(p)], off)
		return part{buf, n, err}, nil
	}, drop)
	if err != nil {
		return 0, err
	}
	copy(p, r.buf[:r.n])
	drop(r)
	return r.n, r.err
}

// WriteAt writes p at off, as os.File.WriteAt does, with the exception that a
// cancelled call may write part of p after it has returned. It neither uses nor changes
// the file position, and any number of calls run at the same time. For a file that
// is opened with os.O_APPEND the error is that of os.File.WriteAt, which is not an
// *fs.PathError.
func (f *File) WriteAt(cx *Context, p []byte, off int64) (n int, err error) {
	for {
		part := p[n:min(len(p), n+bufferLarge)]
		m, err := f.writePart(cx, part, off+int64(n))
		n += m
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// writePart writes from a buffer of the pool's: p may change once WriteAt has
// returned.
func (f *File) writePart(cx *Context, p []byte, off int64) (int, error) {
	type part struct {
		n   int
		err error
	}
	buf := borrowBuffer(len(p))
	copy(buf, p)
	r, err := withFile(cx, f, "write", true, func(o *os.File) (part, error) {
		defer returnBuffer(buf)
		n, err := o.WriteAt(buf[:len(p)], off)
		return part{n, err}, nil
	})
	if err != nil {
		return 0, err
	}
	return r.n, r.err
}

// Sync waits until everything written so far is on the disk, as os.File.Sync
// does.
func (f *File) Sync(cx *Context) error {
	return withFileErr(cx, f, "sync", false, (*os.File).Sync)
}

// Datasync is Sync for the data and the metadata needed to read it, and not for the
// time of its change. On systems that do not have it, Datasync is Sync.
func (f *File) Datasync(cx *Context) error {
	return withFileErr(cx, f, "datasync", false, sys.Datasync)
}

// Truncate changes the size of the file, and not the file position.
func (f *File) Truncate(cx *Context, size int64) error {
	return withFileErr(cx, f, "truncate", true, func(o *os.File) error { return o.Truncate(size) })
}

// Stat describes the file.
func (f *File) Stat(cx *Context) (fs.FileInfo, error) {
	if err := cx.mustAwait(); err != nil {
		return nil, err
	}
	if info, ok := f.statNow(); ok {
		return info, nil
	}
	return withFile(cx, f, "stat", false, (*os.File).Stat)
}

// Chmod changes the mode of the file.
func (f *File) Chmod(cx *Context, mode fs.FileMode) error {
	return withFileErr(cx, f, "chmod", false, func(o *os.File) error { return o.Chmod(mode) })
}

// Chown changes the owner and the group of the file.
func (f *File) Chown(cx *Context, uid, gid int) error {
	return withFileErr(cx, f, "chown", false, func(o *os.File) error { return o.Chown(uid, gid) })
}

// ReadDir returns the next n entries of a directory, or all that are left if n
// is not positive, as os.File.ReadDir does. With a positive n the error at the
// end is io.EOF.
func (f *File) ReadDir(cx *Context, n int) ([]fs.DirEntry, error) {
	return withFile(cx, f, "readdir", false, func(o *os.File) ([]fs.DirEntry, error) { return o.ReadDir(n) })
}

// withFile has the pool do fn once all data has been written that was accepted
// before. edit says that fn changes the contents of the file.
func withFile[T any](cx *Context, f *File, op string, edit bool, fn func(*os.File) (T, error)) (T, error) {
	return withFileDrop(cx, f, op, edit, fn, nil)
}

func withFileErr(cx *Context, f *File, op string, edit bool, fn func(*os.File) error) error {
	_, err := withFile(cx, f, op, edit, func(o *os.File) (None, error) { return None{}, fn(o) })
	return err
}

// withFileDrop is withFile for a result that goes to drop if the caller gives up.
func withFileDrop[T any](cx *Context, f *File, op string, edit bool, fn func(*os.File) (T, error), drop func(T)) (v T, err error) {
	if err := f.awaitWritten(cx, op); err != nil {
		return v, err
	}
	if f.polled {
		return inPool(cx, func() (T, error) { return withOSFile(f, op, fn) }, drop)
	}
	if !edit {
		return inPool(cx, func() (T, error) { return fn(f.os) }, drop)
	}
	f.edited()
	return inPool(cx, func() (T, error) {
		defer f.edited()
		return fn(f.os)
	}, drop)
}

// edited notes that data that was read ahead differs from the contents of the file.
// It is called before a change, for reads that begin after that, and after the
// change, for reads that began before.
func (f *File) edited() {
	f.mu.Lock()
	f.edits++
	f.dropReadAhead()
	f.mu.Unlock()
}

// withOSFile does fn with an os.File of a descriptor that can be polled.
func withOSFile[T any](f *File, op string, fn func(*os.File) (T, error)) (v T, err error) {
	fd := -1
	err = f.src.control(func(raw int) (err error) {
		fd, err = duplicateFD(raw)
		return err
	})
	if err != nil {
		return v, f.wrap(op, err)
	}
	o := os.NewFile(uintptr(fd), f.name)
	defer o.Close()
	return fn(o)
}

// Close closes the file, after all data has been written that was accepted. It
// returns the error of a write that failed, also if a call has reported it
// already, or of the closing. Calls that use the file fail with os.ErrClosed in an
// *fs.PathError, and so does a second Close.
//
// If cx is cancelled Close does not wait, and returns cx.Err() unless the closing
// takes no waiting. The file is written and closed all the same; if that fails, the
// error goes to Config.Unhandled. [Run] and [Runtime.Shutdown] wait for it, and return an
// [*UnwrittenError] about data that is lost. A program that ends without them, by os.Exit
// for example, can lose the data; see [File.Write]. A deferred Close that is to wait in any
// case has a cx of its own:
//
//	defer func() { err = errors.Join(err, f.Close(cx.WithoutCancel())) }()
func (f *File) Close(cx *Context) error {
	if !f.polled {
		cx.beginAwait() // it panics where Close could not wait, also if there is no need to
	}
	h, err := f.beginClose(cx)
	if err != nil || h == nil {
		cx.spendOrYield() // now that it is closed
		return err
	}
	_, err = await(cx, h.Poll)
	if err == errAbandoned {
		h.waiters.leave(cx.t, cx.here())
		return cx.Err()
	}
	f.toldByClose()
	return err
}

// toldByClose notes that a call returns the result of the closing.
func (f *File) toldByClose() {
	f.mu.Lock()
	f.reportedLoss()
	f.mu.Unlock()
}

// CloseFuture returns Close as a future. The first poll closes the file, or begins to: given up
// after that, the closing goes on as after a Close whose cx is cancelled. The error is that of
// Close.
func (f *File) CloseFuture() Future[None] {
	var h *JoinHandle[None]
	return PollFunc(func(cx *Context) (None, error) {
		if h == nil {
			if !cx.spend() {
				return None{}, ErrPending
			}
			var err error
			if h, err = f.beginClose(cx); h == nil {
				return None{}, err
			}
		}
		_, err := h.Poll(cx)
		if err != ErrPending {
			f.toldByClose()
		}
		return None{}, err
	})
}

// beginClose returns the call that closes a file of the disk. Other files, and files
// whose closing need not be waited for, are closed when it returns.
func (f *File) beginClose(cx *Context) (*JoinHandle[None], error) {
	cx.here()
	if f.polled {
		return nil, f.wrap("close", f.src.close())
	}
	f.mu.Lock()
	if f.closed || f.isZero() {
		defer f.mu.Unlock()
		return nil, f.checkUsable("close")
	}
	quick := f.closesNow()
	f.closed = true
	f.dropReadAhead()
	f.ahead.drop()
	f.mu.Unlock()
	if quick {
		f.changed.fire(nil)
		return nil, f.closeNow()
	}

	rt := cx.t.w.rt
	c := newBlockingCall(rt, func() (None, error) { return None{}, f.closeNow() })
	if h := rt.cfg.Tuning.Hooks.TaskStart; h != nil {
		h(c.ident())
	}
	filesOf(rt).ledger.begin(f, &c.JoinHandle)
	now := func() {
		c.poll(nil)
		filesOf(rt).ledger.end(f)
	}
	f.mu.Lock()
	idle := f.use == fileIdle
	if !idle {
		f.closing = now
	}
	f.mu.Unlock()
	f.changed.fire(nil)
	if f.input != nil {
		f.input.close()
	}
	if idle && rt.runInPool(now) != nil {
		goOutsideBubble(now)
	}
	return &c.JoinHandle, nil
}

// closeNow is called when no operation uses the file position anymore.
func (f *File) closeNow() error {
	f.mu.Lock()
	back := f.lag
	f.mu.Unlock()
	err := f.stepBack(back)
	if cerr := f.os.Close(); err == nil {
		err = cerr
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writeFail != nil {
		return f.writeFail
	}
	return err
}
