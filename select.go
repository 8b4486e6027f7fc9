package async

import (
	"math/rand/v2"
	"time"
)

// A Case is one of the events that Select waits for. OnRecv, OnSend, OnFuture, OnJoin,
// OnNext and After make one, which keeps the result of the event. It belongs to one task,
// may be used in one Select after the other, which then need no allocation, and must not be
// copied. A case of OnFuture is for one Select.
type Case interface {
	// try is poll, but a case of a channel takes no place in its queue yet: most Selects
	// that find something at once do so in their first look. A case that can only be polled
	// is polled, and then does nothing when poll follows: once is enough.
	try(cx *Context) (done bool)

	// poll reports whether the case has happened. If not it takes a place in a
	// queue, and the waker of cx.
	poll(cx *Context) (done bool)

	// giveUp gives up the place. An event that was on its way to the case goes to other
	// waiters.
	giveUp()
}

// Select waits until one of the cases can happen, has it happen, and returns its index. The
// result is in the case:
//
//	jobs, quit, late := async.OnRecv(ch), async.OnRecv(stop), async.After(time.Second)
//	switch i, err := async.Select(cx, jobs, quit, late); i {
//	case 0:
//		job, err := jobs.Result()
//		...
//
// If several cases can happen, one of them is taken at random. The other cases are given
// up, and none of them loses anything: messages stay in their channels, and are not sent.
//
// If cx is cancelled no case happens, and Select returns -1 and cx.Err(); without cases
// Select waits for that.
func Select(cx *Context, cases ...Case) (int, error) { return selectOne(cx, cases, true) }

// SelectInOrder is Select, but of several cases that can happen it takes the first.
func SelectInOrder(cx *Context, cases ...Case) (int, error) { return selectOne(cx, cases, false) }

// TrySelect is Select without waiting: it returns -1 and ErrPending if no case can happen
// now. Futures are polled once, for which it needs a cx, and given up like other cases that
// do not happen. It does not look whether cx is cancelled. Like all operations that do not
// wait it does not let other tasks run, however often it is called.
func TrySelect(cx *Context, cases ...Case) (int, error) {
	if w := cx.here(); w != nil {
		// A case that is polled takes its operations off a budget, and returns ErrPending
		// if there is none left, so that other tasks may run. Here ErrPending must mean
		// that the case cannot happen: so the budget is large enough.
		defer func(was int) { w.budget = was }(w.budget)
		w.budget = w.pollBudget + len(cases)
	}
	var order selectOrder
	order.shuffle(len(cases))
	i := -1
	defer func() { giveUpAll(cases, i) }() // also if a future has panicked
	if i = order.try(cx, cases); i < 0 {
		return i, ErrPending
	}
	return i, nil
}

// SelectFuture returns Select as a future, of the index.
func SelectFuture(cases ...Case) Future[int] { return &selectFuture{cases: cases, random: true} }

// SelectInOrderFuture returns SelectInOrder as a future, of the index.
func SelectInOrderFuture(cases ...Case) Future[int] { return &selectFuture{cases: cases} }

type selectFuture struct {
	cases  []Case
	random bool
}

func (f *selectFuture) Poll(cx *Context) (int, error) {
	if !cx.spend() {
		return -1, ErrPending
	}
	cx.waker(waitsSelect) // also if there are no cases
	var order selectOrder
	if f.random {
		order.shuffle(len(f.cases))
	}
	i := order.poll(cx, f.cases)
	if i < 0 {
		return i, cx.unspent(ErrPending)
	}
	giveUpAll(f.cases, i)
	return i, nil
}

// Cancel implements canceler.
func (f *selectFuture) Cancel() { giveUpAll(f.cases, -1) }

func selectOne(cx *Context, cases []Case, random bool) (int, error) {
	t := cx.beginAwait()
	var order selectOrder
	if random {
		order.shuffle(len(cases))
	}
	i := -1
	defer func() { giveUpAll(cases, i) }() // also if a future has panicked, or Shutdown unwinds the code
	if !cx.proceed(t) {
		return -1, cx.Err()
	}
	for i = order.try(cx, cases); i < 0; {
		if i = order.poll(cx, cases); i >= 0 {
			break
		}
		t.waits = waitsSelect
		t.wait()
		if !cx.proceed(t) {
			return -1, cx.Err()
		}
	}
	return i, nil
}

// giveUpAll gives up all cases but one.
func giveUpAll(cases []Case, but int) {
	for i, c := range cases {
		if i != but {
			c.giveUp()
		}
	}
}

// selectOrder is the order in which cases are looked at.
type selectOrder struct {
	random bool
	few    [8]uint8
	many   []int
}

// shuffle makes the order random.
func (o *selectOrder) shuffle(n int) {
	if o.random = n > 1; !o.random {
		return
	}
	if n > len(o.few) {
		o.many = rand.Perm(n)
		return
	}
	bits := rand.Uint64()
	for i := range n {
		// A byte of chance for each case: the error is too small to matter.
		j := int(bits&0xff) * (i + 1) >> 8
		bits >>= 8
		o.few[i] = o.few[j]
		o.few[j] = uint8(i)
	}
}

func (o *selectOrder) at(i int) int {
	switch {
	case !o.random:
		return i
	case o.many != nil:
		return o.many[i]
	}
	return int(o.few[i])
}

// try returns the index of a case that has happened, or -1.
func (o *selectOrder) try(cx *Context, cases []Case) int {
	for i := range cases {
		if i = o.at(i); cases[i].try(cx) {
			return i
		}
	}
	return -1
}

// poll is try, and the cases that have not happened wait.
func (o *selectOrder) poll(cx *Context, cases []Case) int {
	for i := range cases {
		if i = o.at(i); cases[i].poll(cx) {
			return i
		}
	}
	return -1
}

// OnRecv is the case that a message can be received from c, or that c is closed and empty.
// A nil c never has a message.
func OnRecv[T any](c *Chan[T]) *RecvCase[T] { return &RecvCase[T]{f: RecvFuture[T]{c: c}} }

// A RecvCase is made by OnRecv.
type RecvCase[T any] struct {
	f   RecvFuture[T]
	v   T
	err error
}

// Result returns the message of the last Select in which the case happened, or
// ErrClosed.
func (r *RecvCase[T]) Result() (T, error) { return r.v, r.err }

func (r *RecvCase[T]) try(cx *Context) bool {
	if r.f.c == nil {
		return false
	}
	v, err := r.f.c.pullOnce(cx.here())
	if err == ErrEmpty {
		return false
	}
	r.v, r.err = v, err
	return true
}

func (r *RecvCase[T]) poll(cx *Context) bool {
	if r.f.c == nil {
		return false
	}
	v, err := r.f.c.pollRecv(cx, &r.f.w, chanLoose)
	if r.f.queued = err == ErrPending; !r.f.queued {
		r.v, r.err = v, err
	}
	return !r.f.queued
}

func (r *RecvCase[T]) giveUp() { r.f.Cancel() }

// OnSend is the case that v can be sent to c, or that c is closed. A nil c never has
// room. A Select should not both send to and receive from the same rendezvous: it
// might meet itself.
func OnSend[T any](c *Chan[T], v T) *SendCase[T] { return &SendCase[T]{f: SendFuture[T]{c: c, v: v}} }

// A SendCase is made by OnSend.
type SendCase[T any] struct {
	f   SendFuture[T]
	err error
}

// Err returns nil if the last Select in which the case happened has sent the
// message, or ErrClosed.
func (s *SendCase[T]) Err() error { return s.err }

// Reset makes v the message of the next Select.
func (s *SendCase[T]) Reset(v T) { s.f.Reset(v) }

func (s *SendCase[T]) try(cx *Context) bool {
	if s.f.c == nil {
		return false
	}
	err := s.f.c.pushOnce(cx.here(), s.f.v, false)
	if err != ErrFull {
		s.err = err
	}
	return err != ErrFull
}

func (s *SendCase[T]) poll(cx *Context) bool {
	if s.f.c == nil {
		return false
	}
	err := s.f.c.pollSend(cx, &s.f.w, s.f.v, sendLoose)
	if s.f.queued = err == ErrPending; !s.f.queued {
		s.err = err
	}
	return !s.f.queued
}

func (s *SendCase[T]) giveUp() { s.f.Cancel() }

// OnFuture is the case that f is ready. If it does not happen f is given up (see [Cancel]).
// So the case is for one Select: make a new one for the next. To use it again panics.
func OnFuture[T any](f Future[T]) *FutureCase[T] { return &FutureCase[T]{f: f} }

// A FutureCase is made by OnFuture.
type FutureCase[T any] struct {
	f     Future[T]
	t     *task // has polled f
	tried bool  // just now
	v     T
	err   error
}

// Result returns the result of the future if it was ready.
func (f *FutureCase[T]) Result() (T, error) { return f.v, f.err }

func (f *FutureCase[T]) try(cx *Context) (done bool) {
	done = f.poll(cx)
	f.tried = !done
	return done
}

func (f *FutureCase[T]) poll(cx *Context) bool {
	if f.tried {
		f.tried = false
		return false
	}
	if f.f == nil {
		panic("async: a case of OnFuture was used in a second Select, where it could never happen; make a new case for each Select")
	}
	f.t = cx.t
	v, err := f.f.Poll(cx)
	if err == ErrPending {
		return false
	}
	f.f, f.t, f.v, f.err = nil, nil, v, err
	return true
}

func (f *FutureCase[T]) giveUp() {
	was, t := f.f, f.t
	if f.f, f.t, f.tried = nil, nil, false; was != nil {
		abandonFuture(t, was)
	}
}

// OnJoin is the case that the task of h has ended. If it does not happen the task
// goes on, and the case may be used again.
func OnJoin[T any](h *JoinHandle[T]) *JoinCase[T] { return &JoinCase[T]{h: h} }

// A JoinCase is made by OnJoin.
type JoinCase[T any] struct {
	h     *JoinHandle[T]
	t     *task // waits for the end
	tried bool  // just now
	v     T
	err   error
}

// Result returns the result of the task if it has ended.
func (j *JoinCase[T]) Result() (T, error) { return j.v, j.err }

func (j *JoinCase[T]) try(cx *Context) (done bool) {
	done = j.poll(cx)
	j.tried = !done
	return done
}

func (j *JoinCase[T]) poll(cx *Context) bool {
	if j.tried {
		j.tried = false
		return false
	}
	v, err := j.h.Poll(cx)
	if err == ErrPending {
		j.t = cx.t
		return false
	}
	j.t, j.v, j.err = nil, v, err
	return true
}

// giveUp leaves the handle, which would else keep every task that has ever waited, for as
// long as the task of the handle runs.
func (j *JoinCase[T]) giveUp() {
	if t := j.t; t != nil {
		j.t, j.tried = nil, false
		j.h.waiters.leave(t, callersWorker())
	}
}

// OnNext is the case that s has its next element, or an error such as io.EOF. If it
// does not happen s goes on, and the case may be used again.
func OnNext[T any](s Stream[T]) *NextCase[T] { return &NextCase[T]{s: s} }

// A NextCase is made by OnNext.
type NextCase[T any] struct {
	s     Stream[T]
	t     *task // waits for the next element
	tried bool  // just now
	v     T
	err   error
}

// Result returns the result of the stream in the last Select in which the case happened.
func (n *NextCase[T]) Result() (T, error) { return n.v, n.err }

func (n *NextCase[T]) try(cx *Context) (done bool) {
	done = n.poll(cx)
	n.tried = !done
	return done
}

func (n *NextCase[T]) poll(cx *Context) bool {
	if n.tried {
		n.tried = false
		return false
	}
	v, err := n.s.PollNext(cx)
	if err == ErrPending {
		n.t = cx.t
		return false
	}
	n.t, n.v, n.err = nil, v, err
	return true
}

// giveUp leaves the stream, if it is a stream of this package, as JoinCase does.
func (n *NextCase[T]) giveUp() {
	t := n.t
	if n.t, n.tried = nil, false; t == nil {
		return
	}
	if s, ok := n.s.(abandoner); ok {
		s.abandoned(t, callersWorker())
	}
}

// After is the case that d has passed since this call, or since the last Reset.
func After(d time.Duration) *TimerCase { return &TimerCase{s: sleepFuture{until: nanosAfter(d)}} }

// A TimerCase is made by After. Its time does not begin anew with each Select; once
// it has passed the case happens at once.
type TimerCase struct{ s sleepFuture }

// Reset makes the case that d has passed since this call.
func (t *TimerCase) Reset(d time.Duration) { t.s.until = nanosAfter(d) }

func (t *TimerCase) try(*Context) bool { return nanosHere() >= t.s.until }

func (t *TimerCase) poll(cx *Context) bool {
	_, err := t.s.Poll(cx)
	return err == nil
}

func (t *TimerCase) giveUp() { t.s.Cancel() }
