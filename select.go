package async

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// A Case is one of the things that Select waits for. It is made by RecvCase,
// SendCase, AwaitCase or After, and may be used again once its Select has
// returned, by one task at a time.
type Case interface {
	// try does it now, if it can, and reports whether it has.
	try(cx *Context) (done bool, err error)

	// enroll makes it happen as soon as it can. It is decided by s then.
	enroll(cx *Context, s *selection, index int)

	// withdraw ends that, and returns the result if it has happened.
	withdraw() (done bool, err error)

	// giveUp is called if the Select has ended for another reason.
	giveUp()
}

// Select waits until one of the cases can happen, lets it happen, and returns its
// index and its error: that of Recv, of Send, or of the future. If several can, it
// takes one at random. The others have not happened, and lose nothing; futures
// among them are given up.
//
// If cx is cancelled, Select returns -1 and cx.Err(), and no case has happened.
//
//	var msg string
//	switch i, err := async.Select(cx, async.RecvCase(ch, &msg), async.After(time.Second)); i {
//	case 0: // msg, or err is ErrClosed
//	case 1: // a second has passed
//	default:
//		return err
//	}
//
// A case that is made before a loop and used in it again costs no allocation.
func Select(cx *Context, cases ...Case) (index int, err error) { return selectOf(cx, cases, false) }

// SelectInOrder is Select, but if several cases can happen it takes the first.
func SelectInOrder(cx *Context, cases ...Case) (index int, err error) {
	return selectOf(cx, cases, true)
}

// TrySelect is Select without waiting: if no case can happen now it returns -1 and
// ErrPending. Futures stay as they are, and may be tried again; cx is what they
// are polled with.
func TrySelect(cx *Context, cases ...Case) (index int, err error) {
	if err := cx.Err(); err != nil {
		return -1, err
	}
	s := takeSelection(cx)
	defer s.drop(cx)
	s.begin(cases, false)
	return s.tryAll(cx)
}

func selectOf(cx *Context, cases []Case, inOrder bool) (int, error) {
	if err := cx.mustAwait(); err != nil {
		return -1, err
	}
	s := takeSelection(cx)
	defer s.drop(cx)
	s.begin(cases, inOrder)
	over := false
	defer func() {
		if !over {
			s.end(cx, -1) // Shutdown unwinds the code, or a future panics
		}
	}()
	index, err := await(cx, s.polled)
	if err == errAbandoned {
		// What has happened meanwhile has happened.
		if index, err = s.withdraw(); index < 0 {
			err = cx.Err()
		}
	}
	over = true
	s.end(cx, index)
	return index, err
}

// selection is the state of a Select. Its cases stand in the lists of their
// channels; whoever serves one of them decides for it, and it is an error of
// nobody to find another one decided.
type selection struct {
	decided atomic.Int32 // 1 + the index of the case that happens; 0: none yet
	cases   []Case
	order   []int
	inOrder bool
	in      int // how many cases are enrolled
	polled  func(*Context) (int, error)
	next    *selection // in its worker's list
}

// takeSelection returns a selection that is not used otherwise. Each worker keeps
// some.
func takeSelection(cx *Context) *selection {
	w := cx.here()
	if w == nil || w.selections == nil {
		s := new(selection)
		s.polled = s.poll
		return s
	}
	s := w.selections
	w.selections, s.next = s.next, nil
	return s
}

func (s *selection) begin(cases []Case, inOrder bool) {
	s.cases = append(s.cases[:0], cases...)
	s.order = s.order[:0]
	for i := range cases {
		s.order = append(s.order, i)
	}
	s.inOrder = inOrder
}

// drop gives s back, of which no case is enrolled.
func (s *selection) drop(cx *Context) {
	clear(s.cases)
	if w := cx.here(); w != nil {
		s.next, w.selections = w.selections, s
	}
}

// decide reports whether the case of that index is the first for which it is
// called.
func (s *selection) decide(index int32) bool {
	return s.decided.Load() == 0 && s.decided.CompareAndSwap(0, index+1)
}

// poll is called with no case enrolled, or after a wake, which may be in vain.
func (s *selection) poll(cx *Context) (int, error) {
	if !cx.spend() {
		return -1, ErrPending
	}
	if index, err := s.withdraw(); index >= 0 {
		return index, err
	}
	cx.waker(waitsSelect)
	if index, err := s.tryAll(cx); index >= 0 {
		return index, err
	}
	s.decided.Store(0)
	for i, c := range s.cases {
		c.enroll(cx, s, i)
		s.in++
		if s.decided.Load() != 0 {
			return s.withdraw()
		}
	}
	return -1, ErrPending
}

// tryAll tries each case once.
func (s *selection) tryAll(cx *Context) (int, error) {
	if !s.inOrder {
		for i := len(s.order) - 1; i > 0; i-- {
			j := rand.IntN(i + 1)
			s.order[i], s.order[j] = s.order[j], s.order[i]
		}
	}
	for _, i := range s.order {
		if done, err := s.cases[i].try(cx); done {
			return i, err
		}
	}
	return -1, ErrPending
}

// withdraw takes all cases off their lists, and returns the one that has
// happened, or -1.
func (s *selection) withdraw() (index int, err error) {
	index, err = -1, ErrPending
	for i, c := range s.cases[:s.in] {
		if done, cerr := c.withdraw(); done {
			index, err = i, cerr
		}
	}
	s.in = 0
	return index, err
}

// end tells the cases that have not happened.
func (s *selection) end(cx *Context, index int) {
	s.withdraw()
	for i, c := range s.cases {
		if i != index {
			c.giveUp()
		}
	}
}

// RecvCase is the case of receiving from c; the message goes to *v, which may be
// nil. A nil c is never ready.
func RecvCase[T any](c *Chan[T], v *T) Case {
	if c == nil {
		return neverCase{}
	}
	return &recvCase[T]{chanCase[T]{newOp(c, opRecv)}, v}
}

// SendCase is the case of sending v to c. A nil c is never ready.
func SendCase[T any](c *Chan[T], v T) Case {
	if c == nil {
		return neverCase{}
	}
	op := newOp(c, opSend)
	op.v = v
	return &chanCase[T]{op}
}

// chanCase is the case of an op.
type chanCase[T any] struct{ op *chanOp[T] }

func (k *chanCase[T]) try(*Context) (done bool, err error) {
	var chosen chosenTasks
	k.op.c.recvs.mu.Lock()
	err = k.op.try(&chosen)
	k.op.c.unlock(&chosen)
	k.op.sent = false
	return err != ErrFull && err != ErrEmpty, err
}

// enroll must not miss what has come since the try: that would be served only to
// those who are in the list.
func (k *chanCase[T]) enroll(cx *Context, s *selection, index int) {
	op, c := k.op, k.op.c
	op.sel, op.index, op.err = s, int32(index), nil
	t := cx.waker(waitsSelect)
	var chosen chosenTasks
	c.recvs.mu.Lock()
	op.list().join(&op.w, t)
	c.match(&chosen)
	c.unlock(&chosen)
}

func (k *chanCase[T]) withdraw() (done bool, err error) {
	op := k.op
	op.c.recvs.mu.Lock()
	done = op.list().leave(&op.w) == waiterChosen
	op.c.recvs.mu.Unlock()
	err, op.err, op.sel, op.sent = op.err, nil, nil, false
	return done, err
}

func (k *chanCase[T]) giveUp() {}

// recvCase stores what was received.
type recvCase[T any] struct {
	chanCase[T]
	v *T
}

func (k *recvCase[T]) try(cx *Context) (bool, error) { return k.store(k.chanCase.try(cx)) }
func (k *recvCase[T]) withdraw() (bool, error)       { return k.store(k.chanCase.withdraw()) }

func (k *recvCase[T]) store(done bool, err error) (bool, error) {
	if done {
		var zero T
		if k.v != nil {
			*k.v = k.op.v
		}
		k.op.v = zero
	}
	return done, err
}

// AwaitCase is the case of a future that is ready; its result goes to *v, which
// may be nil.
func AwaitCase[T any](f Future[T], v *T) Case { return &futureCase[T]{f: f, v: v} }

type futureCase[T any] struct {
	f Future[T]
	v *T
}

func (k *futureCase[T]) try(cx *Context) (done bool, err error) {
	v, err := k.f.Poll(cx)
	if err == ErrPending {
		return false, err
	}
	if k.v != nil {
		*k.v = v
	}
	return true, err
}

func (k *futureCase[T]) enroll(*Context, *selection, int) {}
func (k *futureCase[T]) withdraw() (bool, error)          { return false, nil }
func (k *futureCase[T]) giveUp()                          { giveUp(k.f) }

// After is the case that d has passed since Select began to wait.
func After(d time.Duration) Case { return &afterCase{d: d} }

type afterCase struct {
	d       time.Duration
	s       sleep
	running bool
}

func (k *afterCase) try(cx *Context) (bool, error) {
	if !k.running {
		k.s.until, k.running = after(k.d), true
	}
	_, err := k.s.Poll(cx)
	if err == ErrPending {
		return false, err
	}
	k.running = false
	return true, nil
}

func (k *afterCase) enroll(*Context, *selection, int) {}
func (k *afterCase) withdraw() (bool, error)          { return false, nil }

func (k *afterCase) giveUp() {
	k.s.Cancel()
	k.running = false
}

// neverCase is the case of a nil channel.
type neverCase struct{}

func (neverCase) try(*Context) (bool, error)       { return false, nil }
func (neverCase) enroll(*Context, *selection, int) {}
func (neverCase) withdraw() (bool, error)          { return false, nil }
func (neverCase) giveUp()                          {}
