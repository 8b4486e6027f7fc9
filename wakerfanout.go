package async

import "slices"

// A fanout holds the tasks that wait in a slot, if there are several. It is put into a slot once
// and is never reused. It is shut in two cases:
//
//   - by the first fire or notifyAll, which wakes all tasks in it;
//   - when it becomes empty.
//
// A task that joins finds out under mu whether the fanout is shut. If it is, the task replaces it
// in the slot and joins there. So no task waits in a fanout that will not be fired.
type fanout struct {
	task    // in the slot, in the place of the tasks
	mu      lockOf[fanout]
	each    taskList    // tasks that each event wakes
	inOrder taskList    // tasks that wait in order: an event wakes the first of them
	done    *doneSignal // the task in each that closes the channel of signal, or nil
	fired   bool        // an event is recorded, and no task has consumed it yet
	shut    bool        // set once: no task joins from then on
}

// fanoutState is the state of a fanout after a change.
type fanoutState uint8

const (
	fanoutOpen       fanoutState = iota // tasks wait in it
	fanoutShut                          // it was shut before
	fanoutEmpty                         // this change has left it empty, and has shut it
	fanoutEmptyFired                    // the same, and an event is recorded
)

// fanoutWakes are tasks that were taken out of a fanout, to be woken once mu is unlocked.
type fanoutWakes struct {
	state fanoutState
	each  []*task // some may be nil
	first *task   // of the tasks that wait in order, or nil
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

// join is wakerSlot.join. It reports open as false if f is shut: f is no longer in its slot, or is
// about to be taken out. An event may be recorded in f while tasks wait in order there: fireOne has
// chosen the first of them. Then join consumes the event, and its task tries, too.
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
	if !f.inOrder.has(t) {
		f.each.add(t)
	}
	return true, true
}

// waitInOrder is wakerSlot.waitInOrder. If t is no longer in each, it was woken meanwhile, and its
// wait returns at once.
func (f *fanout) waitInOrder(t *task) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.each.remove(t) {
		f.inOrder.add(t)
	}
}

// leave takes t out of f, and shuts f if it is empty then.
func (f *fanout) leave(t *task) (left bool, state fanoutState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left = f.each.remove(t) || f.inOrder.remove(t)
	return left, f.nextState()
}

// fireOne records an event and takes out the tasks that it wakes. If f is shut, it does nothing.
func (f *fanout) fireOne() fanoutWakes {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.shut {
		f.fired = true
	}
	return f.take(true)
}

// next takes out the tasks that an event wakes. If all is not set, it takes out only the first of
// the tasks that wait in order.
func (f *fanout) next(all bool) fanoutWakes {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.take(all)
}

// take is next. mu is held. Even if all is set, it takes only one of the tasks that wait in order:
// this task wakes the next when it has found something (passOn).
func (f *fanout) take(all bool) (w fanoutWakes) {
	if f.shut {
		w.state = fanoutShut
		return w
	}
	if all {
		w.each, f.done = f.each.takeAll(), nil
	}
	w.first = f.inOrder.takeFirst()
	w.state = f.nextState()
	return w
}

// nextState shuts f if it is empty. mu is held.
func (f *fanout) nextState() fanoutState {
	switch {
	case f.shut:
		return fanoutShut
	case f.each.len()+f.inOrder.len() > 0:
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

// takeAll shuts f. It returns the tasks that were in it, and whether an event is recorded.
func (f *fanout) takeAll() (all []*task, event bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	event = f.fired && !f.shut
	f.shut = true
	all = slices.Concat(f.each.takeAll(), f.inOrder.takeAll())
	return slices.DeleteFunc(all, func(t *task) bool { return t == nil }), event
}

// wakeAll shuts f and wakes the tasks in it. It reports whether an event is recorded.
func (f *fanout) wakeAll(from *worker) (event bool) {
	all, event := f.takeAll()
	for _, t := range all {
		t.wake(from)
	}
	return event
}

// poll implements taskBody: a wake of f wakes the tasks in it.
func (f *fanout) poll(from *worker) bool {
	f.wakeAll(from)
	return false
}

func (f *fanout) abort(*worker, error) {}

// taskList is a queue that contains each task at most once.
//
// To add or to remove a task costs the same however many tasks there are. If there are more than a
// few, a map has the position of each task, and a task that is removed leaves a hole.
type taskList struct {
	all   []*task       // in the order in which they were added; nil is a hole
	holes int           // how many entries of all are nil
	at    map[*task]int // the index in all, plus gone; nil while there are few tasks
	gone  int           // how many entries were removed at the front of all since at was made
}

// taskListFew is how many tasks are searched one after the other: with so few, that costs less than
// a map.
const taskListFew = 16

func (l *taskList) len() int { return len(l.all) - l.holes }

func (l *taskList) has(t *task) bool { return l.find(t) >= 0 }

// find returns the index of t in all, or -1.
func (l *taskList) find(t *task) int {
	if l.at == nil {
		return slices.Index(l.all, t)
	}
	if i, ok := l.at[t]; ok {
		return i - l.gone
	}
	return -1
}

// add appends t, unless the list contains it.
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

// remove reports whether t was in the list.
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

// takeFirst removes the first task and returns it, or nil if the list is empty.
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

// takeAll removes all tasks and returns them. Some entries may be nil.
func (l *taskList) takeAll() []*task {
	all := l.all
	*l = taskList{}
	return all
}

// index makes the map, if it is needed. The list has no holes.
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
