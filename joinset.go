package async

import (
	"io"
	"iter"
)

// A JoinSet returns the handles of tasks in the order in which the tasks end. It is a [Stream] of
// handles. The result of a task, its error included, is in its handle; an error of the JoinSet
// means that there is no handle. Use it with a [Group], which bounds how long the tasks live, to
// take results as soon as they are there:
//
//	var set async.JoinSet[int]
//	for _, url := range urls {
//		set.Add(async.Spawn(g, func(cx *async.Context) (int, error) { ... }))
//	}
//	for h, err := range set.All(cx) {
//		...
//		n, _, err := h.TryJoin()
//
// The zero JoinSet is empty and ready for use. A JoinSet must not be copied. Its methods may be
// called concurrently from any goroutine, except that a cx belongs to its caller. Any number of
// tasks may wait for the next handle, and each handle is returned to one of them. A task that ends
// wakes one of the tasks that wait in [JoinSet.Next] or [JoinSet.All], and all tasks that poll with
// [JoinSet.PollNext].
type JoinSet[T any] struct {
	mu    lockOf[JoinSet[T]]
	ended []*JoinHandle[T] // of tasks that have ended, in this order
	n     int              // how many handles were added and not returned yet
	slot  wakerSlot        // fired for each task that ends
}

// Add adds tasks to the set, whether or not they have ended. The set does not own them: if the set
// is dropped, they go on.
func (s *JoinSet[T]) Add(hs ...*JoinHandle[T]) {
	s.mu.Lock()
	s.n += len(hs)
	s.mu.Unlock()
	for _, h := range hs {
		j := &joinSetEntry[T]{s: s, h: h}
		j.kind, j.body = kindExternal, j
		if !h.waiters.join(&j.task) {
			j.poll(nil)
		} else if h.state.done() {
			h.fireLate()
		}
	}
}

// joinSetEntry is in the slot of a handle, and waits for the end of the task.
type joinSetEntry[T any] struct {
	task
	s *JoinSet[T]
	h *JoinHandle[T]
}

// poll is called once, when the task has ended.
func (j *joinSetEntry[T]) poll(from *worker) bool {
	j.s.mu.Lock()
	j.s.ended = append(j.s.ended, j.h)
	j.s.mu.Unlock()
	j.s.slot.fireOne(from)
	return false
}

func (j *joinSetEntry[T]) abort(*worker, error) {}

// Len returns how many handles were added and have not been returned yet.
func (s *JoinSet[T]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// PollNext returns the handle of the next task that has ended, [io.EOF] if the set is empty, or
// [ErrPending].
func (s *JoinSet[T]) PollNext(cx *Context) (*JoinHandle[T], error) {
	if !cx.spend() {
		return nil, ErrPending
	}
	for {
		if h, err := s.take(cx); err != ErrPending {
			return h, err
		}
		if s.slot.join(cx.waker(waitsTask)) {
			h, err := s.take(cx) // a task that ended before the join has not woken cx's task
			return h, cx.unspent(err)
		}
	}
}

// abandoned implements abandoner.
func (s *JoinSet[T]) abandoned(t *task, from *worker) { s.slot.leave(t, from) }

// take is PollNext without joining the slot.
func (s *JoinSet[T]) take(cx *Context) (*JoinHandle[T], error) {
	s.mu.Lock()
	var h *JoinHandle[T]
	err := ErrPending
	last, more := false, false
	switch {
	case len(s.ended) > 0:
		h, err = s.ended[0], nil
		s.ended[0] = nil
		s.ended = s.ended[1:]
		s.n--
		last, more = s.n == 0, len(s.ended) > 0
	case s.n == 0:
		err = io.EOF
	}
	s.mu.Unlock()
	switch {
	case last:
		s.slot.fire(cx.here()) // the other waiters have nothing to wait for
	case more:
		s.slot.passOn(cx.here())
	}
	return h, err
}

// Next waits for the next task that ends, and returns its handle. It returns [io.EOF] if the set is
// empty. If cx is cancelled it returns cx.Err(), and the set keeps all its handles.
func (s *JoinSet[T]) Next(cx *Context) (*JoinHandle[T], error) {
	h, err := awaitInOrder(cx, &s.slot, s.PollNext)
	return h, awaitedError(cx, err)
}

// All returns the handles that [JoinSet.Next] would return, for a range loop that waits with cx.
// The loop ends when the set is empty, or after an error. If cx is cancelled, the set keeps the
// handles that are left.
func (s *JoinSet[T]) All(cx *Context) iter.Seq2[*JoinHandle[T], error] {
	return func(yield func(*JoinHandle[T], error) bool) {
		for {
			h, err := s.Next(cx)
			if err == io.EOF || !yield(h, err) || err != nil {
				return
			}
		}
	}
}
