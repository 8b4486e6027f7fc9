package async

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"sync/atomic"

	"example.com/async/internal/pagecache"
	"golang.org/x/sys/unix"
)

// Data that the system has in memory is read on the spot, by the task that wants it: that
// takes less time than handing the read to the pool, and no thread. The system is told
// not to wait for the disk. If the read does not succeed at once, the pool asks
// again in the usual way, so that all failures come from there.
//
// It may take a moment all the same: a miss starts to read ahead from the disk, the first
// read after a change may note the time of access in the journal, and closing a file
// that has just been rewritten may begin to write it.
//
// Only file systems of this machine can be told so. File systems behind a network or
// another process would keep their caller waiting when a file is opened or closed;
// they are found out when the first file of each is read, in the pool.

// More than this at once would keep the worker for too long.
const (
	// cachedFileMost is the largest file that ReadFile reads on the spot: its memory
	// is new, and the system has to provide it page by page.
	cachedFileMost = bufferLarge

	// cachedPartMost is the largest part that is read into memory of the caller's. It takes
	// some 70 µs, 256 KiB nearly 30.
	cachedPartMost = 4 * bufferLarge
)

// charge takes the reading of n bytes off the budget of the current poll: 32 KiB
// cost about as much as an operation on a connection does.
func (cx *Context) charge(n int) {
	if w := cx.here(); w != nil {
		w.budget -= n >> 15
	}
}

// fileCharge is the charge for opening and closing a file, in bytes read.
const fileCharge = 128 << 10

// devices knows which devices have files that can be read without waiting. The map
// is replaced, never changed.
type devices struct {
	known atomic.Pointer[map[uint64]bool]
}

// devicesMost is more devices than there are; numbers of devices that are gone
// need not be kept.
const devicesMost = 64

func (d *devices) readable(dev uint64) (readable, known bool) {
	if m := d.known.Load(); m != nil {
		readable, known = (*m)[dev]
	}
	return readable, known
}

func (d *devices) note(dev uint64, readable bool) {
	for {
		old, m := d.known.Load(), map[uint64]bool{}
		if old != nil && len(*old) < devicesMost {
			m = maps.Clone(*old)
		}
		m[dev] = readable
		if d.known.CompareAndSwap(old, &m) {
			return
		}
	}
}

// readHot is a fast path for data that is in memory, for as long as all reads find their
// data there. The error is pagecache.ErrMiss if this path cannot be taken.
func (f *File) readHot(cx *Context, p []byte) (n int, err error) {
	if f.polled {
		return 0, pagecache.ErrMiss
	}
	if _, ok := cx.quick(); !ok {
		return 0, pagecache.ErrMiss
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !f.atHand() || len(p) == 0:
		return 0, pagecache.ErrMiss
	case f.ahead.n > 0:
		return f.ahead.read(p), nil
	}
	return f.readCached(cx, p)
}

// readCached reads on the spot the data at the file position, where PollRead is about to
// read, as far as it is in memory. mu is held, except while it reads. If a task waits for
// the file position, it leaves the read to the pool, for which the reader must wait, too.
func (f *File) readCached(cx *Context, p []byte) (n int, err error) {
	if !f.mayTry() || f.ahead.n > 0 || f.use != fileIdle || f.wanted || f.readErr != nil || len(p) == 0 {
		return 0, pagecache.ErrMiss
	}
	into := p[:min(len(p), cachedPartMost)]
	small := len(p) < bufferSmall
	if small {
		into = borrowBuffer(max(len(p), f.readSize))
	}
	back, edits, grown := f.lag, f.edits, f.readSize
	f.use = fileReading
	f.mu.Unlock()
	if f.stepBack(back) == nil {
		back = 0
		n, err = pagecache.Read(f.conn, into, -1)
	} else {
		err = pagecache.ErrMiss
	}
	f.mu.Lock()
	f.lag = back
	f.noteRead(err)
	if err == errors.ErrUnsupported {
		err = pagecache.ErrMiss
	}
	got, valid := n, f.edits == edits
	if small {
		f.keepRead(into, n, nil, valid)
		n = f.ahead.read(p)
	} else if n > 0 {
		f.adaptReadSize(n, len(into))
	}
	if got < len(into) && err != io.EOF && valid {
		f.readSize = grown // the remaining data is not in memory, which does not mean that there is none
	}
	cx.charge(n)
	f.endUseOnTheSpot(cx)
	if n == 0 && err == nil { // the file was changed meanwhile
		err = pagecache.ErrMiss
	}
	return n, err
}

// noteRead notes the error that pagecache.Read has returned. mu is held.
func (f *File) noteRead(err error) {
	f.hot = err == nil || err == io.EOF
	f.noteRefusal(err)
}

// noteRefusal prevents further tries if err says that there is no need to try again: for
// files of the device that are opened later, too, if f was opened on the spot. mu is held.
func (f *File) noteRefusal(err error) {
	if err != errors.ErrUnsupported {
		return
	}
	f.cached, f.hot = false, false
	if f.noted != nil {
		f.noted.note(f.dev, false)
	}
}

// endUseOnTheSpot is endUse for a caller that must not wait: the pool does the closing. It
// returns with mu held.
func (f *File) endUseOnTheSpot(cx *Context) {
	closing := f.endUseKeepingClose(cx.here())
	if closing != nil && cx.t.w.rt.runInPool(closing) != nil {
		goOutsideBubble(closing)
	}
	f.mu.Lock()
}

// mayTry reports whether the system may be asked on the spot: it has not refused
// that, and no data must be written, and no error reported, before. mu is held.
func (f *File) mayTry() bool {
	return f.cached && !f.closed && f.writeErr == nil && f.written == f.accepted
}

// atHand is mayTry for operations that the system answers at once if it has the file
// in memory. mu is held.
func (f *File) atHand() bool { return f.hot && f.mayTry() }

// readCachedAt is readCached for ReadAt. n is 0 if the pool must do the read. The result
// says nothing about the next Read, which is at another offset.
func (f *File) readCachedAt(p []byte, off int64) (n int) {
	if len(p) == 0 || off < 0 {
		return 0
	}
	f.mu.Lock()
	now := f.mayTry()
	f.mu.Unlock()
	if !now {
		return 0
	}
	n, err := pagecache.Read(f.conn, p, off)
	if err == errors.ErrUnsupported {
		f.mu.Lock()
		f.noteRefusal(err)
		f.mu.Unlock()
	}
	return n
}

// seekNow is Seek if that takes no waiting, and does not fail.
func (f *File) seekNow(offset int64, whence int) (at int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.atHand() || f.use != fileIdle || whence > io.SeekEnd { // others look for data on the disk
		return 0, false
	}
	f.dropReadAhead()
	if f.stepBack(f.lag) != nil {
		return 0, false
	}
	f.lag = 0
	at, err := f.os.Seek(offset, whence)
	return at, err == nil
}

// statNow is Stat if that takes no waiting, and does not fail.
func (f *File) statNow() (info fs.FileInfo, ok bool) {
	f.mu.Lock()
	now := f.atHand()
	f.mu.Unlock()
	if !now {
		return nil, false
	}
	info, err := f.os.Stat()
	return info, err == nil
}

// closesNow reports whether closing the file does not keep its caller waiting:
// no data is to be written, and the close does not remove the file. If a task reads
// the file on the spot just then, that read is the last user of the descriptor, and
// does the closing. mu is held.
func (f *File) closesNow() bool {
	return f.hot && f.readOnly && f.use == fileIdle && pagecache.HasName(f.conn)
}

// openNow opens the named file for reading, if that takes no waiting and it is not
// larger than most. fresh says that its device is not known yet: see learn.
func (d *devices) openNow(name string, most int64) (fd int, found pagecache.FileID, ok, fresh bool) {
	found, ok = pagecache.LookUp(name)
	if !ok {
		return -1, found, false, false
	}
	readable, known := d.readable(found.Dev)
	if !readable || found.Size > most {
		return -1, found, false, !known
	}
	fd, ok = pagecache.Open(name, found)
	return fd, found, ok, false
}

// openCached opens the named file for reading if that takes no waiting.
func (d *devices) openCached(name string) (f *File, fresh bool) {
	fd, found, ok, fresh := d.openNow(name, math.MaxInt64)
	if !ok {
		return nil, fresh
	}
	f, err := plainFile(fd, name)
	if err != nil {
		return nil, false
	}
	f.noted, f.dev = d, found.Dev
	return f, false
}

// readFileCached is ReadFile if that takes no waiting.
func (d *devices) readFileCached(name string) (data []byte, ok, fresh bool) {
	fd, found, ok, fresh := d.openNow(name, cachedFileMost)
	if !ok {
		return nil, false, fresh
	}
	defer unix.Close(fd)
	data, err := pagecache.ReadWhole(fd, int(found.Size))
	if err == errors.ErrUnsupported {
		d.note(found.Dev, false)
	}
	return data, err == nil, false
}

// learn finds out whether the files on the device of f can be read without waiting.
// It may wait for that. It opens and closes no descriptor: closing any descriptor of
// a file drops the locks that the process has on the file.
func (d *devices) learn(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	var found pagecache.FileID
	ok := false
	conn.Control(func(fd uintptr) { found, ok = pagecache.LookAt(int(fd)) })
	if ok {
		_, err = pagecache.Read(conn, make([]byte, 1), 0)
		d.note(found.Dev, err != errors.ErrUnsupported)
	}
}

// readFile is os.ReadFile for the first file of a device.
func (d *devices) readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d.learn(f)
	return io.ReadAll(f)
}
