package async

import "sync/atomic"

// A wakerSlot is one pointer. It is one of these:
//
//   - nil: no task waits, and no event is recorded;
//   - slotFired: the event has happened, and no task has consumed it yet;
//   - a task: the only task that waits;
//   - a fanout: several tasks wait, or one is left of several.
//
// It takes no lock while at most one task waits.
//
// Waiting and firing, for a condition that other code changes:
//
//  1. The task looks at the condition. If it holds, the task does not wait.
//  2. The task joins the slot, and looks at the condition again. If it does not hold, the task
//     waits.
//  3. The code that changes the condition then fires the slot. This wakes the tasks that wait. If
//     no task waits, a slot that records events keeps the event, and the next join consumes it.
//
// So the task sees the change in step 2, or is in the slot when the slot is fired.
//
// A second task that joins replaces the first by a fanout with both. An event then wakes all tasks
// in it, except the tasks that wait in order (waitInOrder): of these it wakes the first only. A
// task may wait in order if the event means that something can be taken, and if one task that finds
// nothing shows that the others would find nothing either. The protocol of waiting in order is:
//
//  1. fireOne records the event, takes the first task out of the slot and wakes it.
//  2. This task tries, and is not in the slot while it tries (withdraw). If it succeeds and there
//     may be more, it calls passOn, which takes the next task out and wakes it. If it finds
//     nothing, it joins again, behind the others.
//  3. A task that does not try, because its await was cancelled, has failed or was unwound, calls
//     leave. If the task is still in the slot, no event has chosen it, and leave only takes it out.
//     Otherwise leave wakes the next task.
//
// So while tasks wait in order and something may be there, one task that was taken out has not
// tried yet. A task that calls a Poll method itself cannot promise step 3. So it does not wait in
// order, and each event wakes it.

// wakerSlot is the place where the futures of one or several tasks wait for an event. The zero
// value is empty. The protocol is above.
type wakerSlot struct{ p atomic.Pointer[task] }

// slotFired is in a slot whose event has happened and was not consumed since.
var slotFired = new(task)

// join makes t wait for the next fire. If the event has happened already, join consumes it and
// reports false.
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
			s.p.CompareAndSwap(old, nil) // it is shut: all tasks have left it, or it was taken out
		default:
			if s.p.CompareAndSwap(old, newFanout(old, t)) {
				return true
			}
		}
	}
}

// waitInOrder makes t, which has joined, wait in order. If t is the only task that waits, or was
// woken meanwhile, it does nothing.
func (s *wakerSlot) waitInOrder(t *task) {
	if f := s.fanout(); f != nil {
		f.waitInOrder(t)
	}
}

// withdraw takes t out of the slot before t tries. t is still there if something other than an
// event has woken it. An event must not choose a task that has already tried and may turn to
// something else.
func (s *wakerSlot) withdraw(t *task) {
	if f := s.fanout(); f != nil {
		_, state := f.leave(t)
		s.replace(f, state, nil)
	}
}

// fanout returns the fanout in the slot, or nil.
func (s *wakerSlot) fanout() *fanout {
	if t := s.p.Load(); t != nil && t.kind == kindFanout {
		return t.body.(*fanout)
	}
	return nil
}

// leave takes t out of the slot. Another future of the same task may have waited here, too, and has
// lost its place with the place of t. So t is polled once more. If an event had chosen t, which
// waited in order, leave wakes the next task.
func (s *wakerSlot) leave(t *task, from *worker) {
	if s.remove(t) {
		t.wake(from)
	} else if f := s.fanout(); f != nil {
		s.wakeSome(f, f.next(false), from)
	}
}

// remove is leave without wakes. If it reports true, the caller must have t polled once more. It is
// for slots in which no task waits in order.
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

// fire records the event for tasks that join later, and wakes all tasks that wait.
func (s *wakerSlot) fire(from *worker) {
	if s.p.Load() == slotFired {
		return
	}
	if old := s.p.Swap(slotFired); old != nil && old != slotFired {
		old.wake(from)
	}
}

// takeForFire is fire for a caller that wakes the tasks itself. It reports early if the slot had
// been fired before.
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

// fireOne is fire, except that it wakes only the first of the tasks that wait in order.
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

// passOn is for a task that has taken something and does not know whether there is more. It wakes
// the tasks that fireOne would wake, and records nothing.
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

// notifyAll wakes all tasks that wait and records nothing. It is for a reason to look again that is
// not the event.
func (s *wakerSlot) notifyAll(from *worker) {
	if old := s.p.Load(); old == nil || old == slotFired {
		return
	}
	switch old := s.p.Swap(nil); {
	case old == slotFired:
		s.fire(from)
	case old != nil && old.kind == kindFanout:
		if old.body.(*fanout).wakeAll(from) {
			s.fire(from) // the fanout has recorded an event, which stays
		}
	case old != nil:
		old.wake(from)
	}
}

// takeAllTasks takes all tasks out of a slot that is never fired. The caller wakes the task that is
// returned: it may be a fanout.
func (s *wakerSlot) takeAllTasks() *task {
	if s.p.Load() == nil {
		return nil
	}
	return s.p.Swap(nil)
}

// wakeSome wakes tasks that were taken out of f, which is in the slot.
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

// replace takes f out of the slot if f was shut because it is empty. An event that f has recorded
// stays in the slot.
func (s *wakerSlot) replace(f *fanout, state fanoutState, from *worker) {
	switch state {
	case fanoutEmpty:
		s.p.CompareAndSwap(&f.task, nil)
	case fanoutEmptyFired:
		if !s.p.CompareAndSwap(&f.task, slotFired) {
			s.fireOne(from) // another task has taken f out, and has perhaps joined: it gets the event
		}
	}
}

// signal returns a channel that the next fire closes. All calls until then return the same channel.
// If the slot is fired, the channel is closed.
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
