package async

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// Opening one end of a FIFO waits until the other end is open. The system call cannot be
// interrupted, and needs a thread as long as the call waits. That thread is not one of the
// pool of blocking calls: openings that wait would fill the pool, and the opening of the
// other end would wait behind them.
//
//  1. A call of the pool that would open a file looks first whether it is a FIFO, and
//     then fails with errFIFO instead.
//  2. The task takes one of Config.Blocking.Limit places; readers and writers have places
//     of their own. A task needs no place if another task of the runtime opens the other
//     end of the same FIFO: the two meet. A task that waits for a place goes on without
//     one when such a task comes.
//  3. The first task that waits for an end of a FIFO starts a goroutine, run, which opens
//     that end. Other tasks of the runtime that want the same end join it.
//  4. When run has the descriptor, one of these tasks takes it. The others open the FIFO
//     without waiting, since the other end is there, or was a moment ago. So does a task
//     whose flags differ from those of run, which are the flags of the first task.
//  5. If the last of the tasks gives up before that, a second goroutine, release, opens the
//     other end without waiting, and keeps it open until run has returned from its system
//     call. Then release closes both descriptors. The task leaves its place to the opening.
//  6. If release cannot open the other end, run goes on waiting for a peer. A task that
//     comes later joins it as in step 3, and needs no place. The place of the task that
//     gave up is free when run has returned.
//
// Step 5 is why tasks share a goroutine: if each task had its own, release would end the
// system calls of all of them, and the tasks that have not given up would take the
// descriptor of release for their peer. For the same reason a task that wants the same end
// during step 5 waits until it is over, and begins anew; and a run of the other end waits
// until then before its system call. Two runs never wait for each other: a run waits only
// if, under the lock, its own opening was not being released and the other one was; the run
// that looks last finds the opposite only after the release for which the first one waits.

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

// fifoID identifies a FIFO, whatever its names are.
type fifoID struct{ dev, ino uint64 }

// fifoDir is the direction of one end of a FIFO.
type fifoDir int

const (
	fifoReads fifoDir = iota
	fifoWrites
)

// fifoTarget is one end of a FIFO that a task wants to open.
type fifoTarget struct {
	fifoID
	dir  fifoDir
	name string
	flag int      // of each open, except for O_NONBLOCK
	path *os.File // the FIFO as a file, by which it is opened; nil if the system has no such descriptors
}

// onceFlags are flags that count when the name is looked up, and not when the FIFO that was
// found is opened.
const onceFlags = os.O_CREATE | os.O_EXCL | os.O_TRUNC | unix.O_NOFOLLOW | unix.O_CLOEXEC

// open opens the FIFO that was found, also if its name has gone. The close of t.path takes
// effect when the calls of open that are under way have returned.
func (t *fifoTarget) open(flag int) (fd int, err error) {
	flag |= unix.O_CLOEXEC
	if t.path == nil {
		return openFd(t.name, flag, 0)
	}
	conn, err := t.path.SyscallConn()
	if err != nil {
		return -1, err
	}
	closed := conn.Control(func(path uintptr) { fd, err = openFd(nameOfPath(int(path)), flag, 0) })
	if closed != nil {
		return -1, os.ErrClosed // t is no longer needed
	}
	if err == unix.ENOENT { // /proc is not mounted
		fd, err = openFd(t.name, flag, 0)
	}
	return fd, err
}

// file makes a File of a descriptor of the FIFO.
func (t *fifoTarget) file(fd int, err error) (*File, error) {
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: t.name, Err: err}
	}
	return openedFile(os.NewFile(uintptr(fd), t.name), nil)
}

func (t *fifoTarget) close() {
	if t.path != nil {
		t.path.Close()
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

// foundFIFO is the result of find for the name of a FIFO: the FIFO, or a File if there is no
// need to wait.
type foundFIFO struct {
	fifoTarget
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
func (all *fifoOpenings) find(name string, flag int, perm fs.FileMode) (foundFIFO, error) {
	t := fifoTarget{name: name, flag: flag &^ onceFlags}
	var st unix.Stat_t
	path, err := -1, error(nil)
	if !all.byName {
		path = openPath(name, flag)
	}
	if path >= 0 {
		t.path = os.NewFile(uintptr(path), name)
		err = unix.Fstat(path, &st)
	} else {
		err = unix.Stat(name, &st)
	}
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		t.close()
		f, err := openedFile(os.OpenFile(name, flag, perm)) // another file has the name by now
		return foundFIFO{f: f}, err
	}
	t.fifoID = fifoID{uint64(st.Dev), uint64(st.Ino)}
	if flag&unix.O_ACCMODE == os.O_WRONLY {
		t.dir = fifoWrites
	}
	if t.dir == fifoWrites && !all.releasing(t.fifoID) {
		fd, err := openFd(name, flag|unix.O_NONBLOCK|unix.O_CLOEXEC, uint32(perm.Perm()))
		if err != unix.ENXIO {
			t.close()
			f, err := t.file(fd, err)
			return foundFIFO{f: f}, err
		}
	}
	return foundFIFO{fifoTarget: t}, nil
}

// openFIFO opens a FIFO as os.OpenFile does.
func openFIFO(cx *Context, name string, flag int, perm fs.FileMode) (*File, error) {
	all := &filesOf(cx.t.w.rt).fifos
	r, err := inPool(cx, func() (foundFIFO, error) { return all.find(name, flag, perm) }, foundFIFO.drop)
	if err != nil || r.f != nil {
		return r.f, err
	}
	defer r.close()
	for {
		f, err := all.await(cx, &r.fifoTarget)
		if err != errFIFOAgain {
			return f, err
		}
	}
}

// errFIFOAgain is returned by await if the task must begin anew.
var errFIFOAgain = errors.New("async: a FIFO whose other end has gone")

// fifoOpenings is the openings of a runtime that wait for the other end.
type fifoOpenings struct {
	places [2]*Semaphore // by fifoDir
	byName bool          // no FIFO is opened by a descriptor, as on other systems than Linux; for tests

	mu  lockOf[fifoOpenings]
	all map[fifoID]*fifoState
}

// fifoState is a FIFO that tasks open. It is guarded by fifoOpenings.mu.
type fifoState struct {
	ends [2]fifoEnd // by fifoDir
}

// fifoEnd is one end of a FIFO.
type fifoEnd struct {
	opening *fifoOpening // nil if there is none
	queued  fifoQueue
}

// fifoQueue is tasks that wait for a place. The functions end these waits.
type fifoQueue map[*fifoTarget]context.CancelFunc

// unqueue returns the tasks that wait for a place, for goOn after the lock, which is held.
func (e *fifoEnd) unqueue() (queued fifoQueue) {
	queued, e.queued = e.queued, nil
	return queued
}

// goOn has the tasks go on without a place.
func (q fifoQueue) goOn() {
	for _, met := range q {
		met()
	}
}

// wanted reports whether a task wants to open the end.
func (e *fifoEnd) wanted() bool {
	return len(e.queued) > 0 || e.opening != nil && e.opening.waiting > 0
}

// fifoOpening is a goroutine that opens one end of a FIFO, and the tasks that wait for it.
type fifoOpening struct {
	fifoTarget
	all      *fifoOpenings
	opened   chan struct{} // closed when run has returned from its system call
	doneSlot wakerSlot     // fired after done is set

	// The fields below are guarded by all.mu.
	waiting  int           // tasks
	released chan struct{} // closed when release has ended; nil if it is not running
	place    bool          // a task that gave up has left its place to the opening
	done     bool          // run has returned from its system call, and release is not running
	gaveUp   bool          // release has ended the system call
	fd       int           // the descriptor that run has opened, until a task takes it; else -1
	err      error         // of run's system call
}

func (all *fifoOpenings) init(limit int) {
	places := int64(min(limit, math.MaxInt32)) // a Semaphore has bounds, and a process fewer threads
	all.places = [2]*Semaphore{NewSemaphore(places), NewSemaphore(places)}
	all.all = map[fifoID]*fifoState{}
}

// state returns the state of a FIFO. The lock is held, and the caller adds to the state.
func (all *fifoOpenings) state(id fifoID) *fifoState {
	s := all.all[id]
	if s == nil {
		s = new(fifoState)
		all.all[id] = s
	}
	return s
}

// tidy drops the state of a FIFO that no task opens. The lock is held.
func (all *fifoOpenings) tidy(id fifoID) {
	for i := range all.all[id].ends {
		if e := &all.all[id].ends[i]; e.opening != nil || len(e.queued) > 0 {
			return
		}
	}
	delete(all.all, id)
}

// releasing reports whether an opening of one of the ends is being released.
func (all *fifoOpenings) releasing(id fifoID) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	if s := all.all[id]; s != nil {
		for i := range s.ends {
			if o := s.ends[i].opening; o != nil && o.released != nil {
				return true
			}
		}
	}
	return false
}

// acquire takes a place. It reports whether the task has one; see enqueue for tasks that
// need none.
func (all *fifoOpenings) acquire(cx *Context, t *fifoTarget) (place bool, err error) {
	if err := cx.mustAwait(); err != nil {
		return false, err
	}
	places := all.places[t.dir]
	if places.TryAcquire(1) {
		return true, nil
	}
	queued, met := cx.WithCancel()
	defer met()
	if all.enqueue(t, met) {
		return false, nil
	}
	defer all.dequeue(t)
	err = places.Acquire(queued, 1)
	if err != nil {
		return false, cx.Err() // nil if met has been called
	}
	return true, nil
}

// enqueue notes that a task waits for a place, unless it needs none: a task wants to open
// the other end, or the task can join an opening that has a place.
func (all *fifoOpenings) enqueue(t *fifoTarget, met context.CancelFunc) (needless bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	s := all.state(t.fifoID)
	own := &s.ends[t.dir]
	if s.ends[1-t.dir].wanted() || own.opening != nil && own.opening.place {
		return true
	}
	if own.queued == nil {
		own.queued = fifoQueue{}
	}
	own.queued[t] = met
	return false
}

func (all *fifoOpenings) dequeue(t *fifoTarget) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if s := all.all[t.fifoID]; s != nil {
		delete(s.ends[t.dir].queued, t)
		all.tidy(t.fifoID)
	}
}

// await waits until the other end is there, and opens the FIFO.
func (all *fifoOpenings) await(cx *Context, t *fifoTarget) (*File, error) {
	place, err := all.acquire(cx, t)
	if err != nil {
		return nil, err
	}
	o := all.join(t)
	defer func() { // also if Shutdown unwinds the caller
		if kept := all.leave(o, place); place && !kept {
			all.places[t.dir].Release(1)
		}
	}()
	_, err = awaitSlot(cx, &o.doneSlot, func(cx *Context) (None, error) {
		done := func() bool { all.mu.Lock(); defer all.mu.Unlock(); return o.done }
		for !done() {
			if o.doneSlot.join(cx.waker(waitsFile)) && !done() {
				return None{}, ErrPending
			}
		}
		return None{}, nil
	})
	if err != nil {
		return nil, err
	}
	fd, err := o.take(t)
	switch {
	case err == errFIFOAgain:
		return nil, err
	case fd >= 0 || err != nil:
		return t.file(fd, err)
	}
	f, err := inPool(cx, func() (*File, error) { return t.file(t.open(t.flag | unix.O_NONBLOCK)) }, (*File).discard)
	if errors.Is(err, unix.ENXIO) {
		err = errFIFOAgain
	}
	return f, err
}

// take returns the result for a task that has waited for o: the descriptor, the error of
// the system call, errFIFOAgain, or -1 and nil if the task is to open the FIFO without
// waiting. An error of other flags than its own does not count for the task.
func (o *fifoOpening) take(t *fifoTarget) (fd int, err error) {
	o.all.mu.Lock()
	defer o.all.mu.Unlock()
	switch {
	case o.gaveUp || o.err != nil && o.flag != t.flag:
		return -1, errFIFOAgain
	case o.err != nil || o.flag != t.flag:
		return -1, o.err
	}
	fd, o.fd = o.fd, -1
	return fd, nil
}

// join makes the caller wait for the opening of t, which it starts if there is none. Tasks
// that wait for a place to open the other end go on.
func (all *fifoOpenings) join(t *fifoTarget) *fifoOpening {
	all.mu.Lock()
	s := all.state(t.fifoID)
	o := s.ends[t.dir].opening
	if o == nil {
		o = &fifoOpening{fifoTarget: *t, all: all, fd: -1, opened: newChan[struct{}](0)}
		o.path = nil // the descriptor of t is that of a task
		if t.path != nil {
			if path, err := duplicateFile(t.path); err == nil {
				o.path = os.NewFile(uintptr(path), t.name)
			}
		}
		s.ends[t.dir].opening = o
		goOutsideBubble(o.run)
	}
	o.waiting++
	queued := s.ends[1-t.dir].unqueue()
	all.mu.Unlock()
	queued.goOn()
	return o
}

// leave is called by a task that waits for o no longer. It reports whether the task's place,
// if it has one, is left to the opening.
func (all *fifoOpenings) leave(o *fifoOpening, place bool) (kept bool) {
	all.mu.Lock()
	o.waiting--
	fd := o.unused()
	var queued fifoQueue
	if o.waiting == 0 && !o.done {
		if o.released == nil {
			o.released = newChan[struct{}](0)
			goOutsideBubble(o.release)
		}
		kept = place && !o.place
		o.place = o.place || place
		if o.place {
			queued = all.all[o.fifoID].ends[o.dir].unqueue()
		}
	}
	all.mu.Unlock()
	queued.goOn()
	closeFd(fd)
	return kept
}

// unused returns the descriptor if no task will take it. The lock is held.
func (o *fifoOpening) unused() (fd int) {
	fd = -1
	if o.done && o.waiting == 0 {
		fd, o.fd = o.fd, -1
	}
	return fd
}

// closeFd closes a descriptor unless it is -1.
func closeFd(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

// run opens the FIFO.
func (o *fifoOpening) run() {
	for other := o.otherReleased(); other != nil; other = o.otherReleased() {
		<-other
	}
	fd, err := o.open(o.flag)
	o.all.mu.Lock()
	o.fd, o.err = fd, err
	close(o.opened)
	done := o.released == nil
	if done {
		fd = o.end()
	}
	o.all.mu.Unlock()
	if done {
		o.tell(fd)
	}
}

// end notes that the opening is over. It returns the descriptor if no task will take it.
// The lock is held, and the caller calls tell after it.
func (o *fifoOpening) end() (unused int) {
	o.done = true
	o.all.all[o.fifoID].ends[o.dir].opening = nil
	o.all.tidy(o.fifoID)
	return o.unused()
}

func (o *fifoOpening) tell(unused int) {
	closeFd(unused)
	o.close()
	o.doneSlot.fire(nil)
	if o.place {
		o.all.places[o.dir].Release(1)
	}
}

// otherReleased returns a channel that is closed when the release of the other end is over.
// It returns nil if run need not wait for that.
func (o *fifoOpening) otherReleased() <-chan struct{} {
	o.all.mu.Lock()
	defer o.all.mu.Unlock()
	other := o.all.all[o.fifoID].ends[1-o.dir].opening
	if o.released != nil || other == nil {
		return nil
	}
	return other.released
}

// release ends run, unless it cannot open the other end: without permission, or if it has
// only a name, which has gone.
func (o *fifoOpening) release() {
	flag := os.O_RDWR // succeeds at once on the systems that there are, also without a reader
	if o.dir == fifoWrites {
		flag = os.O_RDONLY
	}
	fd, err := o.open(flag | unix.O_NONBLOCK)
	ended := err == nil
	if ended {
		<-o.opened
		o.all.mu.Lock()
		opened := o.fd
		o.fd = -1
		o.all.mu.Unlock()
		closeFd(opened)
		unix.Close(fd)
	}
	o.all.mu.Lock()
	released, unused := o.released, -1
	o.released, o.gaveUp = nil, ended
	done := false
	select {
	case <-o.opened:
		done, unused = true, o.end()
	default:
	}
	o.all.mu.Unlock()
	close(released)
	if done {
		o.tell(unused)
	}
}

// readFIFO is ReadFile for a FIFO.
func readFIFO(cx *Context, name string) ([]byte, error) {
	f, err := openFIFO(cx, name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.discard()
	return io.ReadAll(BindFile(cx, f))
}

// writeFIFO is WriteFile for a FIFO.
func writeFIFO(cx *Context, name string, data []byte, perm fs.FileMode) error {
	f, err := openFIFO(cx, name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	closed := false
	defer func() {
		if !closed { // Shutdown unwinds the caller, or it panics
			f.discard()
		}
	}()
	_, err = f.Write(cx, data)
	closed = true
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
	closed := false
	defer func() {
		if !closed { // Shutdown unwinds the caller, or it panics
			to.discard()
		}
	}()
	written, err = Copy(cx, to, from)
	closed = true
	if cerr := to.Close(cx); err == nil {
		err = cerr
	}
	return written, err
}
