package async

import (
	"math/rand/v2"
	"time"
)

// A Case is one of the events that [Select] waits for. [OnRecv], [OnSend], [OnFuture], [OnJoin],
// [OnNext] and [After] make cases. A case also keeps the result of its event. One task at a time
// may use a case. The task may use it in one Select after another, which then need no allocation; a
// case of OnFuture is for one Select only. A case must not be copied.
type Case interface {
	// try reports whether the case has happened, and has it happen if it can. Unlike poll, a case
	// of a channel takes no place in a queue: most Selects find in their first look that a case can
	// happen. A case that can only be polled is polled by try, and the poll that follows does
	// nothing: to poll it once is enough.
	try(cx *Context) (done bool)

	// poll reports whether the case has happened, and has it happen if it can. If it cannot, the
	// case takes a place in a queue, and the waker of cx.
	poll(cx *Context) (done bool)

	// giveUp gives up the place. An event for which the case was woken is passed on to the other
	// waiters.
	giveUp()
}

// Select waits until one of the cases can happen, has it happen, and returns its index. The result
// is in the case:
//
//	jobs, quit, late := async.OnRecv(ch), async.OnRecv(stop), async.After(time.Second)
//	switch i, err := async.Select(cx, jobs, quit, late); i {
//	case 0:
//		job, err := jobs.Result()
//		...
//
// A case also happens with an error, for example the receive from a closed channel: Select then
// returns its index and nil, and the Result of the case has the error. The error of Select itself
// says only that cx has ended. A case may be used again, except that of [OnFuture]; see [Case].
//
// If several cases can happen, Select takes one of them at random. The other cases do not happen
// and are given up. They lose nothing: messages stay in their channels, and messages to be sent are
// not sent.
//
// If cx is cancelled no case happens, and Select returns -1 and cx.Err(). Without cases Select
// waits for that.
func Select(cx *Context, cases ...Case) (int, error) { return selectOne(cx, cases, true) }

// SelectInOrder is [Select], but if several cases can happen it takes the first of them.
func SelectInOrder(cx *Context, cases ...Case) (int, error) { return selectOne(cx, cases, false) }

// TrySelect is [Select] without waiting. If no case can happen now, it returns -1 and [ErrPending].
// Futures are polled once, which needs a cx, and are given up like all cases that do not happen.
// TrySelect does not check whether cx is cancelled. Like all operations that do not wait it does
// not let other tasks run, however often it is called.
func TrySelect(cx *Context, cases ...Case) (int, error) {
	if w := cx.here(); w != nil {
		// A case that is polled takes its operations off the budget. If none is left it returns
		// ErrPending, so that other tasks may run. Here ErrPending must mean that the case cannot
		// happen. So the budget is made large enough, and restored afterwards.
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

// SelectFuture returns the future of [Select]: it has the index as its result. Giving it up gives
// up all cases.
func SelectFuture(cases ...Case) Future[int] { return &selectFuture{cases: cases, random: true} }

// SelectInOrderFuture returns the future of [SelectInOrder]: it has the index as its result. Giving
// it up gives up all cases.
func SelectInOrderFuture(cases ...Case) Future[int] { return &selectFuture{cases: cases} }

// selectFuture is the future of Select and SelectInOrder.
type selectFuture struct {
	cases  []Case
	random bool
}

func (f *selectFuture) Poll(cx *Context) (int, error) {
	if !cx.spend() {
		return -1, ErrPending
	}
	cx.waker(waitsSelect) // taken even if there are no cases
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

// selectOne is Select and SelectInOrder.
//
//  1. It tries each case (try). If one happens, no case of a channel has taken a place in a queue.
//  2. It polls each case (poll). A case looks once more before it waits, so it misses no event that
//     came after step 1.
//  3. The task waits. The event of any case wakes it, and it goes back to step 2.
//  4. When a case has happened, all other cases are given up. A case that was woken for its event
//     passes the event on.
//
// Exactly one case happens: a case happens only in try or poll, in the task itself, and the first
// case that does ends the loop. No other code sends to a channel or receives from it on behalf of a
// case. Therefore the cases of channels are loose (chanLoose), and a Send at a rendezvous does not
// rely on them. If a future was handed something between two polls, for example a lock, its method
// Cancel passes that on.
func selectOne(cx *Context, cases []Case, random bool) (int, error) {
	t := cx.beginAwait()
	var order selectOrder
	if random {
		order.shuffle(len(cases))
	}
	i := -1
	defer func() { giveUpAll(cases, i) }() // also for a panic or an unwinding by Shutdown
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

// giveUpAll gives up every case whose index is not but. If but is -1, it gives up all cases.
func giveUpAll(cases []Case, but int) {
	for i, c := range cases {
		if i != but {
			c.giveUp()
		}
	}
}

// selectOrder is the order in which the cases are looked at: a permutation of their indexes, or the
// order of the arguments.
type selectOrder struct {
	random bool     // if false the other fields are not used
	few    [8]uint8 // the order of up to 8 cases, without an allocation
	many   []int    // the order of more cases
}

// shuffle makes the order of n cases random.
func (o *selectOrder) shuffle(n int) {
	if o.random = n > 1; !o.random {
		return
	}
	if n > len(o.few) {
		o.many = rand.Perm(n)
		return
	}
	// This is the inside-out form of the Fisher-Yates shuffle.
	bits := rand.Uint64()
	for i := range n {
		// Each case has 8 random bits. So some orders are more probable than others, by too little
		// to matter.
		j := int(bits&0xff) * (i + 1) >> 8
		bits >>= 8
		o.few[i] = o.few[j]
		o.few[j] = uint8(i)
	}
}

// at returns the index of the case that is the i-th to be looked at.
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

// poll is try, but the cases that have not happened wait.
func (o *selectOrder) poll(cx *Context, cases []Case) int {
	for i := range cases {
		if i = o.at(i); cases[i].poll(cx) {
			return i
		}
	}
	return -1
}

// OnRecv returns the case that a message can be received from c, or that c is closed and empty.
// With a nil c it never happens. See [Chan.Recv] and [RecvCase.Result].
func OnRecv[T any](c *Chan[T]) *RecvCase[T] { return &RecvCase[T]{f: RecvFuture[T]{c: c}} }

// A RecvCase is the case of a receive; see [OnRecv]. One task at a time may use it.
type RecvCase[T any] struct {
	f   RecvFuture[T]
	v   T
	err error
}

// Result returns the message that was received by the last [Select] in which the case happened, or
// [ErrClosed].
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

// OnSend returns the case that v can be sent to c, or that c is closed. With a nil c it never
// happens. See [SendCase.Err]. At a rendezvous, one Select should not both send to and receive from
// the same channel: it might receive its own message.
func OnSend[T any](c *Chan[T], v T) *SendCase[T] { return &SendCase[T]{f: SendFuture[T]{c: c, v: v}} }

// A SendCase is the case of a send; see [OnSend]. One task at a time may use it.
type SendCase[T any] struct {
	f   SendFuture[T]
	err error
}

// Err returns nil if the message was sent by the last [Select] in which the case happened, or
// [ErrClosed].
func (s *SendCase[T]) Err() error { return s.err }

// Reset makes v the message that the next [Select] sends.
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

// OnFuture returns the case that f is ready. If it does not happen, f is given up (see [Cancel]).
// So the case is for one Select: make a new case for the next Select. A second use panics.
func OnFuture[T any](f Future[T]) *FutureCase[T] { return &FutureCase[T]{f: f} }

// A FutureCase is the case of a future; see [OnFuture]. One task at a time may use it.
type FutureCase[T any] struct {
	f     Future[T] // nil once it was ready or given up
	t     *task     // has polled f
	tried bool      // try has polled it, and poll has not followed yet
	v     T
	err   error
}

// Result returns the value and the error of f, the future of [OnFuture], if the case has happened.
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

// OnJoin returns the case that the task of h has ended. If it does not happen the task goes on, and
// the case may be used again.
func OnJoin[T any](h *JoinHandle[T]) *JoinCase[T] { return &JoinCase[T]{h: h} }

// A JoinCase is the case of the end of a task; see [OnJoin]. One task at a time may use it.
type JoinCase[T any] struct {
	h     *JoinHandle[T]
	t     *task // waits for the end
	tried bool  // try has polled it, and poll has not followed yet
	v     T
	err   error
}

// Result returns the result of the task, as [JoinHandle.Join] does, if the case has happened.
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

// giveUp leaves the slot of the handle. Otherwise the handle would keep every task that has ever
// waited for it, while its own task runs.
func (j *JoinCase[T]) giveUp() {
	if t := j.t; t != nil {
		j.t, j.tried = nil, false
		j.h.waiters.leave(t, callersWorker())
	}
}

// OnNext returns the case that s has its next element, or an error such as [io.EOF]. If it does not
// happen s goes on, and the case may be used again.
func OnNext[T any](s Stream[T]) *NextCase[T] { return &NextCase[T]{s: s} }

// A NextCase is the case of the next element of a stream; see [OnNext]. One task at a time may use
// it.
type NextCase[T any] struct {
	s     Stream[T]
	t     *task // waits for the next element
	tried bool  // try has polled it, and poll has not followed yet
	v     T
	err   error
}

// Result returns the element, or the error, of the last [Select] in which the case happened. At the
// end of the stream the error is [io.EOF].
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

// giveUp makes a stream of this package forget the task that has polled it, for the reason at
// JoinCase.giveUp. Streams of other packages are not told.
func (n *NextCase[T]) giveUp() {
	t := n.t
	if n.t, n.tried = nil, false; t == nil {
		return
	}
	if s, ok := n.s.(abandoner); ok {
		s.abandoned(t, callersWorker())
	}
}

// After returns the case that d has passed since this call, or since the last [TimerCase.Reset].
func After(d time.Duration) *TimerCase { return &TimerCase{s: sleepFuture{until: nanosAfter(d)}} }

// A TimerCase is the case that a time has passed; see [After]. The time does not begin anew with
// each [Select]. Once it has passed, the case happens in every Select, at once, until
// [TimerCase.Reset]. One task at a time may use it.
type TimerCase struct{ s sleepFuture }

// Reset makes it the case that d has passed since this call.
func (t *TimerCase) Reset(d time.Duration) { t.s.until = nanosAfter(d) }

func (t *TimerCase) try(*Context) bool { return nanosHere() >= t.s.until }

func (t *TimerCase) poll(cx *Context) bool {
	_, err := t.s.Poll(cx)
	return err == nil
}

func (t *TimerCase) giveUp() { t.s.Cancel() }
