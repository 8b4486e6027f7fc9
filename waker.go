package async

import (
	"fmt"
	"runtime/debug"
	"slices"
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
func NewWaker(wake func()) Waker { return Waker{newExternalWaker(wake)} }

// Wake makes the task be polled again.
func (w Waker) Wake() {
	if w.t != nil {
		w.t.wake(nil)
	}
}

// wakerSlot is where futures wait for one event: a pointer that is nil, the
// one task that waits, or fired. It is the whole protocol between the tasks that
// wait and the callers that wake them, and takes no lock while at most one task
// waits.
//
// A second task that waits puts a fanout there. An event then wakes all tasks in
// it, except those that wait for their turn: of these it wakes the first only.
//
// A task may wait for its turn (takeTurn) if the event is that something can be
// taken, and if one task which finds nothing knows that the others would find
// nothing either. The protocol is:
//
//  1. fireOne records the event, takes the first task out and wakes it.
//  2. This task tries, and stands in the slot no longer while it does (withdraw). If
//     it succeeds and there may be more, it calls admitNext, which takes the next task
//     out and wakes it. If it finds nothing, it joins again, behind the others.
//  3. A task that does not try after all, because its await was cancelled, has
//     failed or was unwound, calls leave. That passes the turn on, unless the
//     task still stands in the slot: then no event has chosen it.
//
// So while tasks wait for their turn and something may be there, one task that
// was taken out has not tried yet. A task that polls by hand cannot promise the
// third step, and is woken by each event.
type wakerSlot struct{ p atomic.Pointer[task] }

// slotFired stands in a slot whose event has happened and has not been consumed since.
var slotFired = new(task)

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
		case old == slotFired:
			if s.p.CompareAndSwap(slotFired, nil) {
				return false
			}
		case old.kind == kindFanout:
			if waits, open := old.body.(*fanout).join(t); open {
				return waits
			}
			s.p.CompareAndSwap(old, nil) // unless it stands here no longer, all have left it
		default:
			if s.p.CompareAndSwap(old, newFanout(old, t)) {
				return true
			}
		}
	}
}

// takeTurn makes t, which has joined, wait for its turn. If t is the only task
// that waits, or was woken meanwhile, there is nothing to do.
func (s *wakerSlot) takeTurn(t *task) {
	if f := s.fanout(); f != nil {
		f.takeTurn(t)
	}
}

// withdraw takes t out before it tries, if it was woken by something else than an
// event: an event must not choose a task that has tried and may turn to other things.
func (s *wakerSlot) withdraw(t *task) {
	if f := s.fanout(); f != nil {
		_, state := f.leave(t)
		s.replace(f, state, nil)
	}
}

// fanout returns the fanout that stands in the slot, or nil.
func (s *wakerSlot) fanout() *fanout {
	if t := s.p.Load(); t != nil && t.kind == kindFanout {
		return t.body.(*fanout)
	}
	return nil
}

// leave makes t wait no longer. Since another future of the same task may
// have waited here too, and has lost its place with t's, t is polled once more.
// If t was woken before, in its turn, the turn goes to the next task.
func (s *wakerSlot) leave(t *task, from *worker) {
	if s.remove(t) {
		t.wake(from)
	} else if f := s.fanout(); f != nil {
		s.wakeSome(f, f.next(false), from)
	}
}

// remove is leave without wakes: the caller has t polled once more if it reports
// true. It is for slots in which no task waits for its turn.
func (s *wakerSlot) remove(t *task) (left bool) {
	for {
		switch old := s.p.Load(); {
		case old == t:
			if s.p.CompareAndSwap(t, nil) {
				return true
			}
		case old != nil && old.kind == kindFanout:
			f := old.body.(*fanout)
			left, state := f.leave(t)
			s.replace(f, state, nil)
			return left
		default:
			return false
		}
	}
}

// fire records the event for tasks that come later, and wakes all that wait.
func (s *wakerSlot) fire(from *worker) {
	if s.p.Load() == slotFired {
		return
	}
	if old := s.p.Swap(slotFired); old != nil && old != slotFired {
		old.wake(from)
	}
}

// takeForFire is fire for a caller that wakes the tasks itself. It reports early if there
// was an event before.
func (s *wakerSlot) takeForFire() (tasks []*task, early bool) {
	switch old := s.p.Swap(slotFired); {
	case old == nil:
	case old == slotFired:
		early = true
	case old.kind == kindFanout:
		tasks, _ = old.body.(*fanout).takeAll()
	default:
		tasks = []*task{old}
	}
	return tasks, early
}

// fireOne is fire, but of the tasks that wait for their turn it wakes the first.
func (s *wakerSlot) fireOne(from *worker) {
	for {
		switch old := s.p.Load(); {
		case old == slotFired:
			return
		case old != nil && old.kind == kindFanout:
			f := old.body.(*fanout)
			if w := f.fireOne(); w.state != fanoutShut {
				s.wakeSome(f, w, from)
				return
			}
			s.p.CompareAndSwap(old, nil) // all have left it
		case s.p.CompareAndSwap(old, slotFired):
			if old != nil {
				old.wake(from)
			}
			return
		}
	}
}

// admitNext is for a task that has taken something and does not know that there is
// nothing more. It wakes what fireOne wakes, and records nothing.
func (s *wakerSlot) passOn(from *worker) {
	switch old := s.p.Load(); {
	case old == nil || old == slotFired:
	case old.kind == kindFanout:
		f := old.body.(*fanout)
		s.wakeSome(f, f.next(true), from)
	case s.p.CompareAndSwap(old, nil):
		old.wake(from)
	default:
		s.notifyAll(from)
	}
}

// notifyAll wakes all tasks that wait and records nothing: there is reason to look
// again, but the event has not happened.
func (s *wakerSlot) notifyAll(from *worker) {
	if old := s.p.Load(); old == nil || old == slotFired {
		return
	}
	switch old := s.p.Swap(nil); {
	case old == slotFired:
		s.fire(from)
	case old != nil && old.kind == kindFanout:
		if old.body.(*fanout).wakeAll(from) {
			s.fire(from) // the event is still there
		}
	case old != nil:
		old.wake(from)
	}
}

// takeAllTasks takes all tasks out that wait, for the caller to wake, in slots that are
// never fired.
func (s *wakerSlot) takeAllTasks() *task {
	if s.p.Load() == nil {
		return nil
	}
	return s.p.Swap(nil)
}

// wakeSome wakes tasks that were taken out of f, which stands in the slot.
func (s *wakerSlot) wakeSome(f *fanout, w fanoutWakes, from *worker) {
	s.replace(f, w.state, from)
	for _, t := range w.each {
		if t != nil {
			t.wake(from)
		}
	}
	if w.first != nil {
		w.first.wake(from)
	}
}

// replace takes f out of the slot if it was shut because it is empty. The event
// that f has recorded stays.
func (s *wakerSlot) replace(f *fanout, state fanoutState, from *worker) {
	switch state {
	case fanoutEmpty:
		s.p.CompareAndSwap(&f.task, nil)
	case fanoutEmptyFired:
		if !s.p.CompareAndSwap(&f.task, slotFired) {
			s.fireOne(from) // another task has taken f out, and perhaps joined
		}
	}
}

// signal returns a channel that is closed by the next fire, the same for all
// calls until then. If there was a fire the channel is closed.
func (s *wakerSlot) signal() <-chan struct{} {
	var d *doneSignal
	for {
		old := s.p.Load()
		if old == slotFired {
			return closedSignal
		}
		if old != nil && old.kind == kindFanout {
			if c, open := old.body.(*fanout).signal(); open {
				return c
			}
			s.p.CompareAndSwap(old, nil) // all have left it
			continue
		}
		if old != nil {
			if d, ok := old.body.(*doneSignal); ok {
				return d.c
			}
		}
		if d == nil {
			d = newDoneSignal()
		}
		with := &d.task
		if old != nil {
			with = newFanout(old, with)
		}
		if s.p.CompareAndSwap(old, with) {
			return d.c
		}
	}
}

// doneSignal is a task whose poll closes a channel. It stands in one slot.
type doneSignal struct {
	task
	c chan struct{}
}

func newDoneSignal() *doneSignal {
	d := &doneSignal{c: newChan[struct{}](0)} // the worker closes it, and is in no bubble
	d.kind, d.body = kindExternal, d
	return d
}

// closedSignal is the channel of signals that have been given.
var closedSignal = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// poll implements taskBody; see externalWaker.
func (d *doneSignal) poll(w *worker) bool {
	w.noteRunnable()
	close(d.c)
	return false
}

func (d *doneSignal) abort(*worker, error) {}

// fanout is the tasks that wait in a slot, if they are several. It is put into a
// slot once and never reused: it is shut by the first fire or stir that wakes all,
// and when it becomes empty.
type fanout struct {
	task  // what stands in the slot
	mu    lockOf[fanout]
	each  taskList    // woken by each event
	turns taskList    // woken one by one
	done  *doneSignal // in each; nil if there is none
	fired bool        // an event was recorded, and has not been consumed since
	shut  bool
}

// fanoutState says what has become of a fanout.
type fanoutState uint8

const (
	fanoutOpen       fanoutState = iota // tasks wait in it
	fanoutShut                          // it was shut before
	fanoutEmpty                         // it is empty and was shut for that
	fanoutEmptyFired                    // the same, and there is an event
)

// fanoutWakes is tasks that were taken out of a fanout, to be woken.
type fanoutWakes struct {
	state fanoutState
	each  []*task // nil: a hole
	first *task   // of those that wait for their turn; nil for none
}

func newFanout(tasks ...*task) *task {
	f := new(fanout)
	f.kind = kindFanout
	f.body = f
	for _, t := range tasks {
		f.each.add(t)
		if d, ok := t.body.(*doneSignal); ok {
			f.done = d
		}
	}
	return &f.task
}

// join is wakerSlot.join. It reports open as false if f has been shut: it stands
// in its slot no longer, or is about to be taken out.
func (f *fanout) join(t *task) (waits, open bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.shut:
		return false, false
	case f.fired:
		f.fired = false
		return false, true
	}
	if !f.turns.has(t) {
		f.each.add(t)
	}
	return true, true
}

// takeTurn is wakerSlot.takeTurn.
func (f *fanout) takeTurn(t *task) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.each.remove(t) {
		f.turns.add(t)
	}
}

// leave takes t out, and shuts f if it was the last.
func (f *fanout) leave(t *task) (left bool, state fanoutState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left = f.each.remove(t) || f.turns.remove(t)
	return left, f.nextState()
}

// fireOne records an event and takes out what it wakes. If f was shut before, it
// does nothing.
func (f *fanout) fireOne() fanoutWakes {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.shut {
		f.fired = true
	}
	return f.take(true)
}

// next takes out what an event wakes, with all, or only the first task that waits
// for its turn.
func (f *fanout) next(all bool) fanoutWakes {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.take(all)
}

func (f *fanout) take(all bool) (w fanoutWakes) {
	if f.shut {
		w.state = fanoutShut
		return w
	}
	if all {
		w.each, f.done = f.each.takeAll(), nil
	}
	w.first = f.turns.takeFirst()
	w.state = f.nextState()
	return w
}

// nextState shuts f if it is empty. The lock is held.
func (f *fanout) nextState() fanoutState {
	switch {
	case f.shut:
		return fanoutShut
	case f.each.len()+f.turns.len() > 0:
		return fanoutOpen
	}
	f.shut = true
	if f.fired {
		return fanoutEmptyFired
	}
	return fanoutEmpty
}

// signal is wakerSlot.signal.
func (f *fanout) signal() (c <-chan struct{}, open bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut {
		return nil, false
	}
	if f.done == nil {
		f.done = newDoneSignal()
		f.each.add(&f.done.task)
	}
	return f.done.c, true
}

// takeAll shuts f, and returns the tasks that were in it, without holes, and
// whether there is an event.
func (f *fanout) takeAll() (all []*task, event bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	event = f.fired && !f.shut
	f.shut = true
	all = slices.Concat(f.each.takeAll(), f.turns.takeAll())
	return slices.DeleteFunc(all, func(t *task) bool { return t == nil }), event
}

// wakeAll shuts f and wakes the tasks in it. It reports whether there is an event.
func (f *fanout) wakeAll(from *worker) (event bool) {
	all, event := f.takeAll()
	for _, t := range all {
		t.wake(from)
	}
	return event
}

// poll implements taskBody; see externalWaker.
func (f *fanout) poll(from *worker) bool {
	f.wakeAll(from)
	return false
}

func (f *fanout) abort(*worker, error) {}

// taskList is a queue in which each task stands once.
//
// Adding and removing cost the same however many tasks there are: once there are
// more than a few, a map says where each stands, and a task that is removed leaves
// a hole.
type taskList struct {
	all   []*task // in the order in which they came; nil: a hole
	holes int
	at    map[*task]int // where in all; nil while there are few
	gone  int           // how many were cut off in front of all since at was made
}

// taskListFew is how many are searched one after the other.
const taskListFew = 16

func (l *taskList) len() int { return len(l.all) - l.holes }

func (l *taskList) has(t *task) bool { return l.find(t) >= 0 }

// find returns where t stands, or -1.
func (l *taskList) find(t *task) int {
	if l.at == nil {
		return slices.Index(l.all, t)
	}
	if i, ok := l.at[t]; ok {
		return i - l.gone
	}
	return -1
}

// add appends t, unless it is there.
func (l *taskList) add(t *task) {
	if l.has(t) {
		return
	}
	l.all = append(l.all, t)
	switch {
	case l.at != nil:
		l.at[t] = len(l.all) - 1 + l.gone
	case len(l.all) > taskListFew:
		l.index()
	}
}

// remove reports whether t was there.
func (l *taskList) remove(t *task) bool {
	i := l.find(t)
	switch {
	case i < 0:
		return false
	case l.at == nil:
		l.all = slices.Delete(l.all, i, i+1)
		return true
	}
	l.all[i] = nil
	delete(l.at, t)
	if l.holes++; l.holes > len(l.all)/2 {
		l.all = slices.DeleteFunc(l.all, func(t *task) bool { return t == nil })
		l.index()
	}
	return true
}

// takeFirst removes the first task and returns it; nil if there is none.
func (l *taskList) takeFirst() *task {
	for len(l.all) > 0 {
		t := l.all[0]
		l.all[0] = nil
		l.all = l.all[1:]
		l.gone++
		if t == nil {
			l.holes--
			continue
		}
		if delete(l.at, t); l.len() == 0 {
			*l = taskList{}
		}
		return t
	}
	return nil
}

// takeAll removes all tasks and returns them, and holes.
func (l *taskList) takeAll() []*task {
	all := l.all
	*l = taskList{}
	return all
}

// index makes the map, if it is needed, of a list without holes.
func (l *taskList) index() {
	l.at, l.holes, l.gone = nil, 0, 0
	if len(l.all) <= taskListFew {
		return
	}
	l.at = make(map[*task]int, len(l.all))
	for i, t := range l.all {
		l.at[t] = i
	}
}

// externalWaker is what a Waker of NewWaker points to: a task that no worker ever
// polls, since waking it is calling its function. Being a task, it can wait in
// the same slots as the others.
type externalWaker struct {
	task
	fn func()
}

func newExternalWaker(fn func()) *task {
	o := &externalWaker{fn: fn}
	o.kind = kindExternal
	o.body = o
	return &o.task
}

func (o *externalWaker) poll(w *worker) bool {
	w.noteRunnable()
	returned := false
	defer func() {
		if !returned {
			crashProcess("the function of a Waker", recover())
		}
	}()
	o.fn()
	returned = true
	return false
}

// crashProcess ends the program, in a goroutine of its own, where nothing recovers: a function of
// the user's, what, has panicked with v, or called Goexit if that is nil. It does not return:
// the caller might end the program before that.
func crashProcess(what string, v any) {
	if v == nil {
		v = "it called runtime.Goexit"
	}
	go panic(fmt.Sprintf("async: %s must return: %v\n\n%s", what, v, debug.Stack()))
	select {}
}

func (o *externalWaker) abort(*worker, error) {}
