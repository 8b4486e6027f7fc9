package async

import (
	"io/fs"
	"os"

	"example.com/async/internal/sys"
)

// Seek sets the file position, at which the next Read or Write begins, as [os.File.Seek] does. It
// returns the new position. Before that it waits until all accepted data is written, as
// [File.Flush] does. The error is an [*fs.PathError]. If cx is cancelled the error is cx.Err(), and
// the position may have changed or not.
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

// ReadAt reads len(p) bytes at the offset off, as [os.File.ReadAt] does. It neither uses nor
// changes the file position, and calls run concurrently. At the end of the file the error is
// [io.EOF]. Other errors are [*fs.PathError]. If cx is cancelled the error is cx.Err(), and the
// first n bytes of p have been read.
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

// readPart reads a part for ReadAt in the pool. The pool reads into a buffer of its own, since p
// must not change after ReadAt has returned, and a read whose caller has given up continues.
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

// WriteAt writes p at the offset off, as [os.File.WriteAt] does. It neither uses nor changes the
// file position, and calls run concurrently. Errors are [*fs.PathError]. There is one exception: if
// the file was opened with [os.O_APPEND], the error is the same as that of os.File.WriteAt, which
// has no type.
//
// If cx is cancelled the error is cx.Err(). At least n bytes have been written then. A part of up
// to 256 KiB after them may be written after WriteAt has returned.
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

// writePart writes a part for WriteAt in the pool. The pool writes from a buffer of its own, since
// the caller may change p when WriteAt has returned.
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

// Sync waits until the disk has all data that was written before, as [os.File.Sync] does. The error
// is an [*fs.PathError]. If cx is cancelled the error is cx.Err(), and a call that has begun
// continues.
func (f *File) Sync(cx *Context) error {
	return withFileErr(cx, f, "sync", false, (*os.File).Sync)
}

// Datasync is [File.Sync] for the data and for the metadata that reading the data needs. It leaves
// out other metadata, for example the time of the last change. On systems without such a call,
// Datasync is Sync.
func (f *File) Datasync(cx *Context) error {
	return withFileErr(cx, f, "datasync", false, sys.Datasync)
}

// Truncate changes the size of the file to size bytes. It does not change the file position. The
// error is an [*fs.PathError]. If cx is cancelled the error is cx.Err(), and a call that has begun
// continues.
func (f *File) Truncate(cx *Context, size int64) error {
	return withFileErr(cx, f, "truncate", true, func(o *os.File) error { return o.Truncate(size) })
}

// Stat describes the file, as [os.File.Stat] does. The size includes all data that Write has
// accepted before. The error is an [*fs.PathError], or cx.Err() if cx is cancelled.
func (f *File) Stat(cx *Context) (fs.FileInfo, error) {
	if err := cx.mustAwait(); err != nil {
		return nil, err
	}
	if info, ok := f.statNow(); ok {
		return info, nil
	}
	return withFile(cx, f, "stat", false, (*os.File).Stat)
}

// Chmod changes the mode of the file, as [os.File.Chmod] does. The error is an [*fs.PathError]. If
// cx is cancelled the error is cx.Err(), and a call that has begun continues.
func (f *File) Chmod(cx *Context, mode fs.FileMode) error {
	return withFileErr(cx, f, "chmod", false, func(o *os.File) error { return o.Chmod(mode) })
}

// Chown changes the owner and the group of the file, as [os.File.Chown] does. The error is an
// [*fs.PathError]. If cx is cancelled the error is cx.Err(), and a call that has begun continues.
func (f *File) Chown(cx *Context, uid, gid int) error {
	return withFileErr(cx, f, "chown", false, func(o *os.File) error { return o.Chown(uid, gid) })
}

// ReadDir returns the next n entries of a directory, as [os.File.ReadDir] does. If n is not
// positive, it returns all entries that are left. If n is positive, the error at the end is
// [io.EOF]. Other errors are [*fs.PathError]. If cx is cancelled the error is cx.Err(), and the
// entries that a call in progress reads are lost for this File. For a directory by its name see
// [ReadDir].
func (f *File) ReadDir(cx *Context, n int) ([]fs.DirEntry, error) {
	return withFile(cx, f, "readdir", false, func(o *os.File) ([]fs.DirEntry, error) { return o.ReadDir(n) })
}

// withFile runs fn in the pool and waits for it. First it waits until all accepted data is written.
// edit says that fn changes the contents of the file.
func withFile[T any](cx *Context, f *File, op string, edit bool, fn func(*os.File) (T, error)) (T, error) {
	return withFileDrop(cx, f, op, edit, fn, nil)
}

// withFileErr is withFile for a function without a result.
func withFileErr(cx *Context, f *File, op string, edit bool, fn func(*os.File) error) error {
	_, err := withFile(cx, f, op, edit, func(o *os.File) (None, error) { return None{}, fn(o) })
	return err
}

// withFileDrop is withFile for a result that must be released: drop is called with it if the caller
// has given up.
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

// edited notes that the contents of the file change, so that data that was read ahead is wrong.
// withFileDrop calls it twice:
//
//  1. Before the change. A Read that begins after this call does not return data that was read
//     before it.
//  2. After the change. Data that was read during the change may be the old data, and is dropped.
//
// A read in progress at one of these calls has noted the count of edits when it began. It drops its
// data if the count differs at its end (keepRead). Data of a file that cannot seek is kept in any
// case, since it cannot be read again. A Cmd calls edited once, when a program gets the file.
func (f *File) edited() {
	f.mu.Lock()
	f.edits++
	f.dropReadAhead()
	f.mu.Unlock()
}

// withOSFile calls fn with an os.File for a File that is polled. fn gets a duplicate of the
// descriptor, since os.File would close the original.
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

// Close closes the file. If it is a file of the disk, Close first waits until all accepted data is
// written. It returns the error of the first write that has failed, even if another call has
// returned that error before. Otherwise it returns the error of the closing, which is an
// [*fs.PathError]. Calls that use the file then fail with [os.ErrClosed] in an *fs.PathError, and
// so does a second Close.
//
// If cx is cancelled Close returns cx.Err() without waiting, unless the closing needs no waiting.
// The data is written and the file is closed nevertheless. If that fails, the error goes to
// [Config.Unhandled]. [Run] and [Runtime.Shutdown] wait for the closing, and return an
// [*UnwrittenError] about data that is lost. A program that ends without them, for example by
// [os.Exit], can lose the data; see [File.Write].
//
// A deferred Close that must wait in any case gets a cx that is not cancelled:
//
//	defer func() { err = errors.Join(err, f.Close(cx.WithoutCancel())) }()
func (f *File) Close(cx *Context) error {
	if !f.polled {
		cx.beginAwait() // panics in code that cannot wait, even if this Close would not have to
	}
	h, err := f.beginClose(cx)
	if err != nil || h == nil {
		cx.spendOrYield() // after the closing, which must not be delayed
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

// toldByClose notes that a call returns the result of the closing, so that Run and Shutdown do not
// report it again.
func (f *File) toldByClose() {
	f.mu.Lock()
	f.reportedLoss()
	f.mu.Unlock()
}

// CloseFuture returns the future of [File.Close]: the same errors. Its first poll closes the file
// or begins to. If the future is given up after that poll, the closing continues, as it does after
// a Close whose cx is cancelled. Giving it up before has no effect on the file.
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

// beginClose closes the file, or begins to. If the closing must be waited for, beginClose returns
// the call that closes the file. Otherwise the file is closed when beginClose returns, and the
// handle is nil.
//
// For a file of the disk:
//
//  1. Set closed, so that no other operation begins, and drop the data that was read ahead.
//  2. Enter the closing into the ledger, for Run and Shutdown.
//  3. If an operation uses the file position, leave the closing in f.closing: the operation does it
//     when its use ends. Thus accepted data is written before. Otherwise give it to the pool.
//
// Steps 1 and 3 each hold mu. No operation can begin between them, so f.use can only become idle.
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

// closeNow steps the descriptor back to the file position and closes it. It is called when no
// operation uses the file position and none can begin. It returns the first error of a write, if
// there was any.
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
