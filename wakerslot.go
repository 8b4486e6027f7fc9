package async

import "sync/atomic"

// wakerSlot is where futures wait for one event: a pointer that is nil, the
// one task that waits, or slotFired. It is the whole protocol between the tasks that
// wait and the callers that wake them, and takes no lock while at most one task
// waits.
//
// A second task that waits puts a fanout there. An event then wakes all tasks in
// it, except the tasks that wait in order: of these it wakes the first only.
//
// A task may wait in order (waitInOrder) if the event is that something can be
// taken, and if one task which finds nothing knows that the others would find
// nothing either. The protocol is:
//
//  1. fireOne records the event, takes the first task out and wakes it.
//  2. This task tries, and stands in the slot no longer while it does (withdraw). If
//     it succeeds and there may be more, it calls passOn, which takes the next task
//     out and wakes it. If it finds nothing, it joins again, behind the others.
//  3. A task that does not try after all, because its await was cancelled, has
//     failed or was unwound, calls leave. That passes the wake on, unless the
//     task still stands in the slot: then no event has chosen it.
//
// So while tasks wait in order and something may be there, one task that
// was taken out has not tried yet. A task that calls a Poll method itself cannot
// promise the third step, and is woken by each event.
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
			s.p.CompareAndSwap(old, nil) // unless it stands here no longer, all tasks have left it
		default:
			if s.p.CompareAndSwap(old, newFanout(old, t)) {
				return true
			}
		}
	}
}

// waitInOrder makes t, which has joined, wait in order. If t is the only task
// that waits, or was woken meanwhile, there is nothing to do.
func (s *wakerSlot) waitInOrder(t *task) {
	if f := s.fanout(); f != nil {
		f.waitInOrder(t)
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
// If t was woken before, in order, the next task is woken.
func (s *wakerSlot) leave(t *task, from *worker) {
	if s.remove(t) {
		t.wake(from)
	} else if f := s.fanout(); f != nil {
		s.wakeSome(f, f.next(false), from)
	}
}

// remove is leave without wakes: the caller has t polled once more if it reports
// true. It is for slots in which no task waits in order.
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

// fire records the event for tasks that come later, and wakes all tasks that wait.
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

// fireOne is fire, but of the tasks that wait in order it wakes the first.
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
			s.p.CompareAndSwap(old, nil) // all tasks have left it
		case s.p.CompareAndSwap(old, slotFired):
			if old != nil {
				old.wake(from)
			}
			return
		}
	}
}

// passOn is for a task that has taken something and does not know that there is
// nothing more. It wakes the tasks that fireOne wakes, and records nothing.
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
			s.p.CompareAndSwap(old, nil) // all tasks have left it
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
