package async

import (
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
)

// A Waker makes its task be polled again. It is what a future keeps when it
// returns ErrPending.
//
// Wake may be called from any goroutine, any number of times, also after the
// task has ended; wakes that come before the next poll are one. Wakers are
// comparable: two that are equal wake the same task. Waking the zero Waker
// does nothing.
type Waker struct{ t *task }

// NewWaker returns a Waker that calls wake, for loops that poll futures
// themselves; see NewContext. wake is called on whatever goroutine wakes,
// possibly on several at once, and must not block. The program crashes if it panics
// or calls runtime.Goexit, as the Fail functions of package testing do: whoever
// called it would wake nobody anymore.
func NewWaker(wake func()) Waker { return Waker{newOutsider(wake)} }

// Wake makes the task be polled again.
func (w Waker) Wake() {
	if w.t != nil {
		w.t.wake(nil)
	}
}

// wakerSlot is where futures wait for one event: a pointer that is nil, the
// one task that waits, or fired. It is the whole protocol between those who
// wait and those who wake, and takes no lock while at most one task waits.
//
// A second task that waits puts a fanout there, which wakes both: an
// event wakes all who wait for it.
type wakerSlot struct{ p atomic.Pointer[task] }

// fired stands in a slot whose event has happened and which nobody has
// consumed since.
var fired = new(task)

// join makes t wait for the next fire. It reports false, and consumes the
// event, if that has happened already.
func (s *wakerSlot) join(t *task) (waits bool) {
	for {
		old := s.p.Load()
		switch {
		case old == t:
			return true
		case old == nil:
			if s.p.CompareAndSwap(nil, t) {
				return true
			}
		case old == fired:
			if s.p.CompareAndSwap(fired, nil) {
				return false
			}
		case old.kind == kindFanout:
			if old.body.(*fanout).add(t) {
				return true
			}
			s.p.CompareAndSwap(old, nil) // unless it stands here no longer, all have left it
		default:
			if s.p.CompareAndSwap(old, newFanout(old, t)) {
				return true
			}
		}
	}
}

// leave makes t wait no longer. Since another future of the same task may
// have waited here too, and has lost its place with t's, t is polled once more.
func (s *wakerSlot) leave(t *task, from *worker) {
	if s.remove(t) {
		t.wake(from)
	}
}

// remove is leave, but whoever calls it has t polled once more if it reports true.
func (s *wakerSlot) remove(t *task) (left bool) {
	for {
		switch old := s.p.Load(); {
		case old == t:
			if s.p.CompareAndSwap(t, nil) {
				return true
			}
		case old != nil && old.kind == kindFanout:
			f := old.body.(*fanout)
			left = f.remove(t)
			if left && f.shutEmpty() {
				s.p.CompareAndSwap(old, nil)
			}
			return left
		default:
			return false
		}
	}
}

// fire records the event for those who come later, and wakes those who wait.
func (s *wakerSlot) fire(from *worker) {
	if s.p.Load() == fired {
		return
	}
	if old := s.p.Swap(fired); old != nil && old != fired {
		old.wake(from)
	}
}

// stir wakes those who wait and records nothing: there is reason to look
// again, but the event has not happened.
func (s *wakerSlot) stir(from *worker) {
	if old := s.p.Load(); old == nil || old == fired {
		return
	}
	if old := s.p.Swap(nil); old == fired {
		s.fire(from)
	} else if old != nil {
		old.wake(from)
	}
}

// empty takes out who waits, for the caller to wake, in slots that are never
// fired.
func (s *wakerSlot) empty() *task {
	if s.p.Load() == nil {
		return nil
	}
	return s.p.Swap(nil)
}

// fanout wakes several tasks. It is put into a slot once and never reused:
// the first wake closes it, and so does the last who leaves.
//
// Adding and removing cost the same however many there are: once there are more
// than a few, a map says where each stands, and who leaves leaves a hole.
type fanout struct {
	task  // what stands in the slot
	mu    sync.Mutex
	all   []*task // in the order in which they came; nil: a hole
	holes int
	at    map[*task]int // nil while there are few
	shut  bool
}

// fanoutFew is how many are searched one after the other.
const fanoutFew = 16

func newFanout(tasks ...*task) *task {
	f := &fanout{all: tasks}
	f.kind = kindFanout
	f.body = f
	return &f.task
}

// add reports false if f has been closed: it stands in its slot no longer, or is
// about to be taken out.
func (f *fanout) add(t *task) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut {
		return false
	}
	if f.find(t) >= 0 {
		return true
	}
	f.all = append(f.all, t)
	switch {
	case f.at != nil:
		f.at[t] = len(f.all) - 1
	case len(f.all) > fanoutFew:
		f.index()
	}
	return true
}

func (f *fanout) remove(t *task) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.find(t)
	switch {
	case i < 0:
		return false
	case f.at == nil:
		f.all = slices.Delete(f.all, i, i+1)
		return true
	}
	f.all[i] = nil
	delete(f.at, t)
	if f.holes++; f.holes > len(f.all)/2 {
		f.all = slices.DeleteFunc(f.all, func(t *task) bool { return t == nil })
		f.index()
	}
	return true
}

// shutEmpty closes f if all have left, and reports whether.
func (f *fanout) shutEmpty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.all) > f.holes {
		return false
	}
	f.shut = true
	return true
}

// find returns where t stands, or -1.
func (f *fanout) find(t *task) int {
	if f.at == nil {
		return slices.Index(f.all, t)
	}
	if i, ok := f.at[t]; ok {
		return i
	}
	return -1
}

// index makes the map, if it is needed, of a list without holes.
func (f *fanout) index() {
	f.at, f.holes = nil, 0
	if len(f.all) <= fanoutFew {
		return
	}
	f.at = make(map[*task]int, len(f.all))
	for i, t := range f.all {
		f.at[t] = i
	}
}

// poll wakes everyone who was added; see outsider.
func (f *fanout) poll(from *worker) bool {
	f.mu.Lock()
	all := f.all
	f.all, f.at, f.shut = nil, nil, true
	f.mu.Unlock()
	for _, t := range all {
		if t != nil {
			t.wake(from)
		}
	}
	return false
}

func (f *fanout) abort(*worker, error) {}

// outsider is what a Waker of NewWaker points to: a task that no worker ever
// polls, since waking it is calling its function. Being a task, it can wait in
// the same slots as the others.
type outsider struct {
	task
	fn func()
}

func newOutsider(fn func()) *task {
	o := &outsider{fn: fn}
	o.kind = kindOutsider
	o.body = o
	return &o.task
}

func (o *outsider) poll(w *worker) bool {
	w.unparks()
	returned := false
	defer func() {
		if !returned {
			crash("the function of a Waker", recover())
		}
	}()
	o.fn()
	returned = true
	return false
}

// crash ends the program, in a goroutine of its own, where nobody recovers: a function of
// the user's, what, has panicked with v, or called Goexit if that is nil. It does not return:
// the caller might end the program before that.
func crash(what string, v any) {
	if v == nil {
		v = "it called runtime.Goexit"
	}
	go panic(fmt.Sprintf("async: %s must return: %v\n\n%s", what, v, debug.Stack()))
	select {}
}

func (o *outsider) abort(*worker, error) {}
