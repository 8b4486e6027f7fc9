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

// Opening a FIFO
//
// Opening one end of a FIFO waits until the other end is open. The system call cannot be
// interrupted, and it uses a thread while it waits. This thread is not one of the pool of blocking
// calls: openings that wait would fill the pool, and the opening of the other end would wait behind
// them.
//
//  1. A call of the pool that would open a file first asks whether it is a FIFO (isFIFO). If it is,
//     the call fails with errFIFO, and the task calls openFIFO.
//  2. The task takes one of Config.Blocking.Limit places (acquire). Readers and writers have
//     separate places. A task needs no place if another task of the runtime opens the other end of
//     the same FIFO, since the two are each other's peer. If a task waits for a place and such a
//     task arrives, the waiting task goes on without a place.
//  3. The first task that opens an end of a FIFO starts a goroutine, run, which does the system
//     call. Other tasks of the runtime that open the same end join it.
//  4. When run has the descriptor, one of these tasks takes it. The other tasks open the FIFO
//     without waiting, since the other end is open or was open a moment ago. A task with other
//     flags than the first task does the same, since run has used the flags of the first task.
//  5. If all tasks give up before that, the last one starts a second goroutine, release. It opens
//     the other end without waiting, which ends the system call of run, and keeps it open until run
//     has returned. Then release closes both descriptors. The task leaves its place to the opening.
//  6. If release cannot open the other end, run continues to wait for a peer. A task that opens the
//     same end later joins it as in step 3, and needs no place. The place of the task that gave up
//     is free when run has returned.
//
// Tasks share a goroutine because of step 5. If each task had a goroutine, release would end the
// system calls of all of them, and the tasks that have not given up would take the descriptor of
// release for their peer.
//
// Two more rules follow from step 5, for the time while release runs:
//
//  1. A task that opens the same end waits until release has ended, and then begins anew
//     (errFIFOAgain).
//  2. A run of the other end waits for release before its system call (otherReleased). Otherwise it
//     would take the descriptor of release for its peer.
//
// Rule 2 makes no deadlock: two runs never wait for each other. A run waits only if it saw, in one
// critical section, that its own opening was not being released and that the opening of the other
// end was being released. Of two runs, consider the one that looks last. For it to wait, its own
// opening must not be in release. But the run that looked first waits for exactly that release, so
// the release has ended, and that run no longer waits.

// errFIFO is returned by a call of the pool that has not opened a file, because it is a FIFO.
var errFIFO = errors.New("async: a FIFO")

// isFIFO reports whether opening the named file with these flags may wait for the other end of a
// FIFO. It costs a call of the pool one microsecond, and has no effect on the FIFO. To open the
// FIFO without waiting instead would be noticed at its other end.
func isFIFO(name string, flag int) bool {
	const created = os.O_CREATE | os.O_EXCL
	if flag&unix.O_ACCMODE == os.O_RDWR || flag&fifoFlags != 0 || flag&created == created {
		return false
	}
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

// fifoFlags are the flags with which an open never waits for the other end.
const fifoFlags = unix.O_NONBLOCK | unix.O_DIRECTORY | openPathFlag

// fifoID identifies a FIFO under all its names.
type fifoID struct{ dev, ino uint64 }

// fifoDir is the direction of one end of a FIFO.
type fifoDir int

const (
	fifoReads fifoDir = iota
	fifoWrites
)

// fifoTarget is one end of a FIFO that a task opens.
type fifoTarget struct {
	fifoID
	dir  fifoDir
	name string
	flag int      // of each open; a call may add O_NONBLOCK
	path *os.File // opens the FIFO without its name; nil if the system has no such descriptors
}

// onceFlags are the flags that count when the name is looked up. They do not count when the FIFO
// that was found is opened.
const onceFlags = os.O_CREATE | os.O_EXCL | os.O_TRUNC | unix.O_NOFOLLOW | unix.O_CLOEXEC

// open opens the FIFO that was found, even if its name has gone. A close of t.path at the same time
// takes effect when the calls of open in progress have returned.
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
		return -1, os.ErrClosed // the opening has ended, and its result is not used
	}
	if err == unix.ENOENT { // /proc is not mounted
		fd, err = openFd(t.name, flag, 0)
	}
	return fd, err
}

// file makes a File of the result of an open.
func (t *fifoTarget) file(fd int, err error) (*File, error) {
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: t.name, Err: err}
	}
	return openedFile(os.NewFile(uintptr(fd), t.name), nil)
}

// close closes the descriptor of the name, if there is one.
func (t *fifoTarget) close() {
	if t.path != nil {
		t.path.Close()
	}
}

// openFd is unix.Open. It repeats a call that a signal has interrupted.
func openFd(name string, flag int, perm uint32) (fd int, err error) {
	for {
		if fd, err = unix.Open(name, flag, perm); err != unix.EINTR {
			return fd, err
		}
	}
}

// foundFIFO is the result of find: a File that is open, or, if f is nil, a FIFO that is still to be
// opened, which may have to wait for the other end.
type foundFIFO struct {
	fifoTarget
	f *File
}

// drop releases the result for a task that has given up.
func (r foundFIFO) drop() {
	if r.f != nil {
		r.f.discard()
	}
	r.close()
}

// find runs in the pool. It finds the FIFO of a name. A writer that finds a reader gets its File at
// once. So does a task that finds another file under the name by now. Opening by name and with the
// caller's own flags also tells a writer whether it may open the FIFO at all.
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
	// While release runs, this open could take the descriptor of release for a reader.
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

// openFIFO is OpenFile for a FIFO.
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

// fifoOpenings is the openings of FIFOs in a runtime.
type fifoOpenings struct {
	places [2]*Semaphore // by fifoDir
	byName bool          // for tests: open every FIFO by its name, as on systems other than Linux

	mu  lockOf[fifoOpenings]
	all map[fifoID]*fifoState
}

// fifoState is the state of a FIFO that tasks open. fifoOpenings.mu guards it.
type fifoState struct {
	ends [2]fifoEnd // by fifoDir
}

// fifoEnd is one end of a FIFO.
type fifoEnd struct {
	opening *fifoOpening // nil if there is none
	queued  fifoQueue
}

// fifoQueue is the tasks that wait for a place. Each function ends the wait of its task.
type fifoQueue map[*fifoTarget]context.CancelFunc

// unqueue removes and returns the tasks that wait for a place. The lock is held. The caller unlocks
// it and calls goOn.
func (e *fifoEnd) unqueue() (queued fifoQueue) {
	queued, e.queued = e.queued, nil
	return queued
}

// goOn makes the tasks go on without a place.
func (q fifoQueue) goOn() {
	for _, met := range q {
		met()
	}
}

// wanted reports whether a task waits to open the end.
func (e *fifoEnd) wanted() bool {
	return len(e.queued) > 0 || e.opening != nil && e.opening.waiting > 0
}

// fifoOpening is a goroutine that opens one end of a FIFO, and the tasks that wait for it.
type fifoOpening struct {
	fifoTarget
	all      *fifoOpenings
	opened   chan struct{} // closed when run has returned from its system call
	doneSlot wakerSlot     // fired after done is set

	// all.mu guards the fields below.
	waiting  int           // the number of tasks that wait for this opening
	released chan struct{} // closed when release has ended; nil while release does not run
	place    bool          // a task that gave up has left its place to this opening
	done     bool          // run has returned from its system call, and release does not run
	gaveUp   bool          // release has ended the system call: there was no peer
	fd       int           // the result of run, until a task takes it; or -1
	err      error         // the error of the system call
}

func (all *fifoOpenings) init(limit int) {
	places := int64(min(limit, math.MaxInt32)) // enough: a process has fewer threads
	all.places = [2]*Semaphore{NewSemaphore(places), NewSemaphore(places)}
	all.all = map[fifoID]*fifoState{}
}

// state returns the state of a FIFO. The caller holds the lock, and must add to a new state (see
// tidy).
func (all *fifoOpenings) state(id fifoID) *fifoState {
	s := all.all[id]
	if s == nil {
		s = new(fifoState)
		all.all[id] = s
	}
	return s
}

// tidy removes the state of a FIFO if neither end has an opening or a task that waits for a place.
// The state must exist. The lock is held.
func (all *fifoOpenings) tidy(id fifoID) {
	for i := range all.all[id].ends {
		if e := &all.all[id].ends[i]; e.opening != nil || len(e.queued) > 0 {
			return
		}
	}
	delete(all.all, id)
}

// releasing reports whether release runs for one of the ends.
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

// acquire waits for a place, or until the task needs none (enqueue). It reports whether the task
// has taken a place.
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
		return false, cx.Err() // nil if cx is not cancelled: then goOn has called met
	}
	return true, nil
}

// enqueue notes that a task waits for a place. It reports true, and notes nothing, if the task
// needs no place: a task waits to open the other end, or the opening of the same end has a place
// already.
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

// dequeue ends the wait of a task for a place.
func (all *fifoOpenings) dequeue(t *fifoTarget) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if s := all.all[t.fifoID]; s != nil {
		delete(s.ends[t.dir].queued, t)
		all.tidy(t.fifoID)
	}
}

// await waits for a place, if the task needs one, and until the other end is open, and opens the
// FIFO. The error is errFIFOAgain if the task must begin anew: release has ended the opening, the
// opening had other flags and has failed, or the readers have gone before this writer opened the
// FIFO.
func (all *fifoOpenings) await(cx *Context, t *fifoTarget) (*File, error) {
	place, err := all.acquire(cx, t)
	if err != nil {
		return nil, err
	}
	o := all.join(t)
	defer func() { // even if Shutdown unwinds the caller
		if kept := all.leave(o, place); place && !kept {
			all.places[t.dir].Release(1)
		}
	}()
	_, err = awaitSlot(cx, &o.doneSlot, func(cx *Context) (None, error) {
		done := func() bool { all.mu.Lock(); defer all.mu.Unlock(); return o.done }
		// tell fires after done is set. So a task that joins and then finds done unset is woken.
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

// take returns the result of o for a task that has waited for it:
//
//   - the descriptor, if the task is the first that takes it and has the flags of run;
//   - the error of the system call, if the task has the flags of run;
//   - errFIFOAgain, if release has ended the call, or if a call with other flags has failed;
//   - -1 and nil, if the task must open the FIFO itself, without waiting.
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

// join makes the caller wait for the opening of the end t. It starts the opening if there is none.
// Tasks that wait for a place to open the other end go on, since the caller is their peer.
func (all *fifoOpenings) join(t *fifoTarget) *fifoOpening {
	all.mu.Lock()
	s := all.state(t.fifoID)
	o := s.ends[t.dir].opening
	if o == nil {
		o = &fifoOpening{fifoTarget: *t, all: all, fd: -1, opened: newChan[struct{}](0)}
		o.path = nil // the task closes the descriptor of t, so the opening gets a duplicate
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

// leave is called when a task no longer waits for o. If it is the last, and run is in its system
// call, leave starts release. place says that the task has a place. leave reports whether it leaves
// the place to the opening.
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

// unused returns the descriptor if no task will take it, and -1 otherwise. The caller closes it.
// The lock is held.
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

// run opens the FIFO. It first waits for a release of the other end; see the head of this file.
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

// end notes that the opening has ended. It returns a descriptor that no task will take, or -1. The
// lock is held. The caller unlocks it and calls tell.
func (o *fifoOpening) end() (unused int) {
	o.done = true
	o.all.all[o.fifoID].ends[o.dir].opening = nil
	o.all.tidy(o.fifoID)
	return o.unused()
}

// tell closes the descriptors that are not needed, wakes the tasks and frees the place.
func (o *fifoOpening) tell(unused int) {
	closeFd(unused)
	o.close()
	o.doneSlot.fire(nil)
	if o.place {
		o.all.places[o.dir].Release(1)
	}
}

// otherReleased returns a channel that is closed when the release of the other end has ended. It
// returns nil if run need not wait for a release.
func (o *fifoOpening) otherReleased() <-chan struct{} {
	o.all.mu.Lock()
	defer o.all.mu.Unlock()
	other := o.all.all[o.fifoID].ends[1-o.dir].opening
	// An opening that is being released itself does not wait, or two runs could wait for each
	// other.
	if o.released != nil || other == nil {
		return nil
	}
	return other.released
}

// release ends the system call of run by opening the other end, and closes both descriptors. If it
// cannot open the other end, run continues to wait. That happens, for example, if the process has
// no permission, or if the opening knows the FIFO only by a name that has gone.
func (o *fifoOpening) release() {
	flag := os.O_RDWR // succeeds at once on all supported systems, even without a reader
	if o.dir == fifoWrites {
		flag = os.O_RDONLY
	}
	fd, err := o.open(flag | unix.O_NONBLOCK)
	ended := err == nil
	if ended {
		<-o.opened // until then the other end stays open
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
	case <-o.opened: // run has left the end to release, since it saw o.released
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

// copyFIFO is CopyFile if src or dst is a FIFO.
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
