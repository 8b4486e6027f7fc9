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

// Reading on the spot
//
// A task reads data that the system has in memory itself, on its worker. That takes less time than
// a call of the pool, and no thread. The system call has a flag that forbids it to wait for the
// disk (package pagecache). If it does not succeed at once, the pool repeats the read in the usual
// way. So every error of a read except [io.EOF] comes from the pool.
//
// A read at the file position (readCached):
//
//  1. With mu held, see that a read on the spot is possible (mayTry), that f.ahead is empty, that
//     f.use is idle and that no task waits for the position. Set f.use to fileReading and unlock
//     mu.
//  2. Step the descriptor back by lag, and read. A large read goes into the memory of the caller. A
//     small one goes into a buffer.
//  3. Lock mu. Keep the data of the buffer in f.ahead, as a read of the pool does (keepRead), so
//     that the next small reads need no system call.
//  4. End the use. If Close has asked for the closing meanwhile, the pool does it, since it may
//     wait.
//
// An opening (openNow):
//
//  1. Find the file under its name, without waiting, and see that it is regular and not empty.
//  2. See that files of its device can be read without waiting (devices).
//  3. Open the name, without waiting.
//  4. See that this has opened the same file. Another file may have got the name between 1 and 3,
//     for example a FIFO, whose opening could wait. So step 3 uses O_NONBLOCK.
//
// The task is still delayed in some cases: a miss makes the system start to read ahead from the
// disk; the first read after a change may note the time of access in the journal; and closing a
// file that has just been rewritten may begin to write it.
//
// Only local file systems honour the flag. A file system behind a network or another process would
// delay the caller when a file is opened or closed. So the first file of each device is opened and
// read in the pool, which finds out whether its file system can refuse to wait (learn).

// The most that is read on the spot at once. Larger reads would occupy the worker for too long.
const (
	// cachedFileMost is the size of the largest file that ReadFile reads on the spot. The memory
	// for the contents is new, so the system has to provide it page by page.
	cachedFileMost = bufferLarge

	// cachedPartMost is the size of the largest part that is read into memory of the caller. It
	// takes some 70 µs to read. 256 KiB take nearly 30 µs.
	cachedPartMost = 4 * bufferLarge
)

// charge takes the read of n bytes off the budget of the current poll. 32 KiB count as one
// operation, since they take about as long as an operation on a connection.
func (cx *Context) charge(n int) {
	if w := cx.here(); w != nil {
		w.budget -= n >> 15
	}
}

// fileCharge is the charge for opening and closing a file: four operations.
const fileCharge = 128 << 10

// devices lists the devices, and whether their files can be read without waiting. The map is
// replaced and never changed, so that readers need no lock.
type devices struct {
	known atomic.Pointer[map[uint64]bool]
}

// devicesMost is more than the number of devices that a system has at a time. When the list is full
// it begins anew, so that the numbers of devices that are gone do not fill it.
const devicesMost = 64

// readable reports whether files of dev can be read without waiting, and whether that is known.
func (d *devices) readable(dev uint64) (readable, known bool) {
	if m := d.known.Load(); m != nil {
		readable, known = (*m)[dev]
	}
	return readable, known
}

// note stores whether files of dev can be read without waiting.
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

// readHot is a short path of Read for a file whose last read was on the spot. The error is
// pagecache.ErrMiss if Read must take its long path.
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

// readCached reads data at the file position on the spot, as PollRead does, if the data is in
// memory. The error is pagecache.ErrMiss if the pool must do the read. If a task waits for the file
// position, the read goes to the pool, too, where it waits its turn. mu is held, but not during the
// read.
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
		f.readSize = grown // the rest of the part is not in memory, but the file may be longer
	}
	cx.charge(n)
	f.endUseOnTheSpot(cx)
	if n == 0 && err == nil { // the file was changed during the read, and the data dropped
		err = pagecache.ErrMiss
	}
	return n, err
}

// noteRead notes the error of a pagecache.Read at the file position. mu is held.
func (f *File) noteRead(err error) {
	f.hot = err == nil || err == io.EOF
	f.noteRefusal(err)
}

// noteRefusal prevents further reads on the spot if err says that the file system cannot refuse to
// wait. If f was opened on the spot, this holds for files of its device that are opened later, too.
// mu is held.
func (f *File) noteRefusal(err error) {
	if err != errors.ErrUnsupported {
		return
	}
	f.cached, f.hot = false, false
	if f.noted != nil {
		f.noted.note(f.dev, false)
	}
}

// endUseOnTheSpot is endUse for a caller on a worker, which must not wait: the pool does the
// closing. It returns with mu held.
func (f *File) endUseOnTheSpot(cx *Context) {
	closing := f.endUseKeepingClose(cx.here())
	if closing != nil && cx.t.w.rt.runInPool(closing) != nil {
		goOutsideBubble(closing)
	}
	f.mu.Lock()
}

// mayTry reports whether a read on the spot may be tried: the file system has not refused it, all
// accepted data is written, and there is no error of a write to return. mu is held.
func (f *File) mayTry() bool {
	return f.cached && !f.closed && f.writeErr == nil && f.written == f.accepted
}

// atHand reports whether f may be used on the spot and was in memory at the last read. Then the
// system answers other operations at once, too. mu is held.
func (f *File) atHand() bool { return f.hot && f.mayTry() }

// readCachedAt is readCached for ReadAt. n is 0 if the pool must do the read. The result does not
// change f.hot, since it says nothing about the next Read, which is at another place.
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

// seekNow is Seek on the spot. ok is false if Seek would wait or fail, and the pool must do it.
func (f *File) seekNow(offset int64, whence int) (at int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.atHand() || f.use != fileIdle || whence > io.SeekEnd { // SEEK_DATA may ask the disk
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

// statNow is Stat on the spot. ok is false if Stat would wait or fail, and the pool must do it.
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

// closesNow reports whether closing the file takes no waiting: there is no data to write, and the
// file has a name, so that the close does not remove it. If a task is in a ReadAt or Stat on the
// spot just then, that call is the last user of the descriptor and closes it. mu is held.
func (f *File) closesNow() bool {
	return f.hot && f.readOnly && f.use == fileIdle && pagecache.HasName(f.conn)
}

// openNow opens the named file for reading, if that takes no waiting and its size is at most most.
// fresh says that its device is not known yet, so that the caller should call learn. The steps are
// at the head of this file.
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

// openCached is openNow for OpenFile.
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

// readFileCached is ReadFile on the spot. ok is false if the pool must do it.
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

// learn finds out whether the files on the device of f can be read without waiting. That itself may
// wait. It uses the descriptor of f and opens none: the close of any descriptor of a file drops the
// locks that the process has on the file.
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

// readFile is os.ReadFile for the first file of a device, and calls learn.
func (d *devices) readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d.learn(f)
	return io.ReadAll(f)
}
