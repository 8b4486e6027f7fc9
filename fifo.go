package async

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// Opening one end of a FIFO waits until the other end is open. The system call cannot be
// interrupted, and needs a thread as long as it waits. That thread is not one of the pool
// of blocking calls: openings that wait would fill the pool, and the opening of the other
// end would wait behind them.
//
//  1. A call of the pool that would open a file looks first whether it is a FIFO, and
//     then fails with errFIFO instead.
//  2. The task takes one of Config.Blocking.Limit places. Readers and writers have places
//     of their own, so that both ends can always meet.
//  3. The first task that waits for an end of a FIFO starts a goroutine, which opens that
//     end. Other tasks of the runtime that want the same end join it.
//  4. When the goroutine has the descriptor, one of these tasks takes it. The others open
//     the FIFO without waiting, since the other end is there, or was a moment ago.
//  5. If the last of the tasks gives up before that, the other end is opened without
//     waiting, and stays open until the goroutine has returned from its system call. The
//     goroutine closes what it has got.
//
// Step 5 is why tasks share a goroutine: it would release other openings of the same end,
// too, which would take it for their peer. For the same reason openings of either end that
// come meanwhile wait until step 5 is over.

// errFIFO is returned by calls of the pool that do not open a file since it is a FIFO.
var errFIFO = errors.New("async: a FIFO")

// isFIFO reports whether opening the named file with these flags may wait for the other
// end of a FIFO. The look costs calls of the pool a microsecond, and changes nothing: to
// open a FIFO without waiting would be noticed at its other end.
func isFIFO(name string, flag int) bool {
	const created = os.O_CREATE | os.O_EXCL
	if flag&unix.O_ACCMODE == os.O_RDWR || flag&fifoFlags != 0 || flag&created == created {
		return false
	}
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

// fifoFlags are flags with which an open never waits for the other end.
const fifoFlags = unix.O_NONBLOCK | unix.O_DIRECTORY | openPathFlag

// fifoEnd is one end of a FIFO.
type fifoEnd struct {
	dev, ino uint64
	writes   bool
}

// fifoName is a FIFO that is to be opened.
type fifoName struct {
	end  fifoEnd
	name string
	flag int
	path int // a descriptor of the FIFO as a file, by which it is opened; -1 if the system has none
}

// open opens the FIFO that n has found, also if its name has gone.
func (n *fifoName) open(flag int) (int, error) {
	flag = flag&^(os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW) | unix.O_CLOEXEC
	fd, err := openFd(pathOf(n.path, n.name), flag, 0)
	if err == unix.ENOENT && n.path >= 0 { // /proc is not mounted
		fd, err = openFd(n.name, flag, 0)
	}
	return fd, err
}

// file makes a File of a descriptor of the FIFO.
func (n *fifoName) file(fd int, err error) (*File, error) {
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: n.name, Err: err}
	}
	o := os.NewFile(uintptr(fd), n.name)
	f, err := newFile(o, true)
	if err != nil {
		o.Close()
	}
	return f, err
}

func (n *fifoName) close() {
	if n.path >= 0 {
		unix.Close(n.path)
	}
}

// openFd is unix.Open, again when a signal has interrupted it.
func openFd(name string, flag int, perm uint32) (fd int, err error) {
	for {
		if fd, err = unix.Open(name, flag, perm); err != unix.EINTR {
			return fd, err
		}
	}
}

// foundFIFO is what the pool finds under the name of a FIFO: the FIFO, or a File if there
// is no need to wait.
type foundFIFO struct {
	fifoName
	f *File
}

func (r foundFIFO) drop() {
	if r.f != nil {
		r.f.discard()
	}
	r.close()
}

// find runs in the pool. A writer learns here whether there is a reader, and whether
// it may open the FIFO by its name and with its flags.
func (all *fifoOpenings) find(name string, flag int, perm fs.FileMode) (r foundFIFO, err error) {
	r = foundFIFO{fifoName: fifoName{name: name, flag: flag, path: openPath(name, flag)}}
	var st unix.Stat_t
	if r.path >= 0 {
		err = unix.Fstat(r.path, &st)
	} else {
		err = unix.Stat(name, &st)
	}
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		r.close()
		o, err := os.OpenFile(name, flag, perm) // another file has the name by now
		if err != nil {
			return r, err
		}
		f, err := newFile(o, true)
		return foundFIFO{fifoName{path: -1}, f}, err
	}
	r.end = fifoEnd{uint64(st.Dev), uint64(st.Ino), flag&unix.O_ACCMODE == os.O_WRONLY}
	if r.end.writes && all.releasing(r.end) == nil {
		fd, err := openFd(name, flag|unix.O_NONBLOCK|unix.O_CLOEXEC, uint32(perm.Perm()))
		if err == unix.ENXIO {
			return r, nil
		}
		r.close()
		r.path = -1
		r.f, err = r.file(fd, err)
		return r, err
	}
	return r, nil
}

// openFIFO opens a FIFO as os.OpenFile does.
func openFIFO(cx *Context, name string, flag int, perm fs.FileMode) (*File, error) {
	all := &cx.t.w.rt.fifos
	n, err := inPool(cx, func() (foundFIFO, error) { return all.find(name, flag, perm) }, foundFIFO.drop)
	if err != nil || n.f != nil {
		return n.f, err
	}
	defer n.close()
	for {
		f, outcome, err := all.await(cx, &n.fifoName)
		switch outcome {
		case fifoOpened:
			return f, err
		case fifoReleased:
			continue
		}
		f, err = inPool(cx, func() (*File, error) { return n.file(n.open(flag | unix.O_NONBLOCK)) }, (*File).discard)
		if !errors.Is(err, unix.ENXIO) {
			return f, err
		}
	}
}

// fifoOpenings is the openings of a runtime that wait for the other end.
type fifoOpenings struct {
	readers, writers *Semaphore

	mu  lockOf[fifoOpenings]
	all map[fifoEnd]*fifoOpening
}

func (all *fifoOpenings) init(limit int) {
	places := int64(min(limit, math.MaxInt32)) // a Semaphore has bounds, and a process fewer threads
	all.readers, all.writers = NewSemaphore(places), NewSemaphore(places)
	all.all = map[fifoEnd]*fifoOpening{}
}

func (all *fifoOpenings) places(end fifoEnd) *Semaphore {
	if end.writes {
		return all.writers
	}
	return all.readers
}

// fifoOpening is a goroutine that opens one end of a FIFO, and the tasks that wait for it.
type fifoOpening struct {
	fifoName
	all     *fifoOpenings
	changed wakerSlot     // fired when it is over
	ended   chan struct{} // closed when the goroutine has returned from its system call
	gone    chan struct{} // closed when it is over

	// What follows is guarded by all.mu.
	waiting  int   // tasks
	released bool  // the last of them has given up, and has left its place to release
	over     bool  // the goroutine has returned from its system call, and release, if it was called
	f        *File // until a task takes it
	err      error
}

// fifoOutcome is how an opening ended for a task that has waited for it.
type fifoOutcome uint8

const (
	fifoOpened   fifoOutcome = iota // with a File or an error
	fifoTaken                       // another task has got the File
	fifoReleased                    // it had been given up before the task came, which begins anew
)

// await waits until the other end is there.
func (all *fifoOpenings) await(cx *Context, n *fifoName) (f *File, outcome fifoOutcome, err error) {
	places := all.places(n.end)
	if err := places.Acquire(cx, 1); err != nil {
		return nil, fifoOpened, err
	}
	o := all.join(n)
	defer func() { // also if Shutdown unwinds the caller
		if !all.leave(o) {
			places.Release(1)
		}
	}()
	_, err = await(cx, func(cx *Context) (None, error) {
		over := func() bool { all.mu.Lock(); defer all.mu.Unlock(); return o.over }
		for !over() {
			if o.changed.join(cx.waker(waitsFile)) && !over() {
				return None{}, ErrPending
			}
		}
		return None{}, nil
	})
	if err == errAbandoned {
		o.changed.leave(cx.t, cx.here())
		return nil, fifoOpened, cx.Err()
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	f, o.f = o.f, nil
	switch {
	case o.released:
		outcome = fifoReleased
	case f == nil && o.err == nil:
		outcome = fifoTaken
	}
	return f, outcome, o.err
}

// releasing returns the opening of one of the ends that is being released; nil if there is
// none.
func (all *fifoOpenings) releasing(end fifoEnd) *fifoOpening {
	all.mu.Lock()
	defer all.mu.Unlock()
	for range 2 {
		if o := all.all[end]; o != nil && o.released {
			return o
		}
		end.writes = !end.writes
	}
	return nil
}

// join makes the caller wait for the opening of n, which it starts if there is none.
func (all *fifoOpenings) join(n *fifoName) *fifoOpening {
	all.mu.Lock()
	defer all.mu.Unlock()
	o := all.all[n.end]
	if o == nil {
		o = &fifoOpening{fifoName: *n, all: all, ended: newChan[struct{}](0), gone: newChan[struct{}](0)}
		if n.path >= 0 {
			o.path, _ = duplicate(n.path)
		}
		all.all[n.end] = o
		goOutside(o.run)
	}
	o.waiting++
	return o
}

// leave is called by a task that waits for o no longer. It reports whether the task's place
// is left to the goroutine.
func (all *fifoOpenings) leave(o *fifoOpening) (passed bool) {
	all.mu.Lock()
	o.waiting--
	f := o.dropped()
	if passed = o.waiting == 0 && !o.over && !o.released; passed {
		o.released = true
		goOutside(o.release)
	}
	all.mu.Unlock()
	if f != nil {
		f.discard()
	}
	return passed
}

// dropped returns what no task will take.
func (o *fifoOpening) dropped() (f *File) {
	if o.over && o.waiting == 0 {
		f, o.f = o.f, nil
	}
	return f
}

// run opens the FIFO.
func (o *fifoOpening) run() {
	for other := o.all.releasing(o.end); other != nil && other != o; other = o.all.releasing(o.end) {
		<-other.gone
	}
	f, err := o.file(o.open(o.flag))
	o.all.mu.Lock()
	released := o.released
	if !released {
		o.f, o.err = f, err
		f = o.finish()
	}
	o.all.mu.Unlock()
	if f != nil {
		f.discard()
	}
	close(o.ended)
	if !released {
		o.tell()
	}
}

// finish notes that the opening is over. It returns what no task will take. The lock is
// held.
func (o *fifoOpening) finish() *File {
	delete(o.all.all, o.end)
	o.over = true
	return o.dropped()
}

// tell is called after finish.
func (o *fifoOpening) tell() {
	o.close()
	close(o.gone)
	o.changed.fire(nil)
}

// release ends run. Without permission to open the other end it cannot, and run waits for
// a peer.
func (o *fifoOpening) release() {
	flag := os.O_RDWR // succeeds at once on the systems that there are, also without a reader
	if o.end.writes {
		flag = os.O_RDONLY
	}
	fd, err := o.open(flag | unix.O_NONBLOCK)
	<-o.ended
	if err == nil {
		unix.Close(fd)
	}
	o.all.mu.Lock()
	o.finish()
	o.all.mu.Unlock()
	o.tell()
	o.all.places(o.end).Release(1)
}

// readFIFO is ReadFile for a FIFO.
func readFIFO(cx *Context, name string) ([]byte, error) {
	f, err := openFIFO(cx, name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.discard()
	return io.ReadAll(f.WithContext(cx))
}

// writeFIFO is WriteFile for a FIFO.
func writeFIFO(cx *Context, name string, data []byte, perm fs.FileMode) error {
	f, err := openFIFO(cx, name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(cx, data)
	if cerr := f.Close(cx); err == nil {
		err = cerr
	}
	return err
}

// copyFIFO is CopyFile if one of the files is a FIFO.
func copyFIFO(cx *Context, dst, src string) (written int64, err error) {
	from, err := Open(cx, src)
	if err != nil {
		return 0, err
	}
	defer from.Close(cx)
	info, err := from.Stat(cx)
	if err != nil {
		return 0, err
	}
	there, _ := Stat(cx, dst)
	if err := mayCopy(dst, src, info, there); err != nil {
		return 0, err
	}
	to, err := OpenFile(cx, dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return 0, err
	}
	written, err = Copy(cx, to, from)
	if cerr := to.Close(cx); err == nil {
		err = cerr
	}
	return written, err
}
