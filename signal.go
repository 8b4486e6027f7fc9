package async

import (
	"context"
	"io"
	"iter"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"syscall"
)

// SignalStream is the [Stream] of the signals that the program receives; see [Signals]. Any number
// of tasks may use it concurrently: each signal goes to one of them.
//
// Errors are not wrapped: [io.EOF] at the end, cx.Err() if cx is cancelled, and [ErrClosed] of a
// second [SignalStream.Close].
type SignalStream struct {
	in      chan os.Signal // from os/signal; nil in the zero value
	all     bool           // no signal was named
	arrived wakerSlot      // fired by each signal, and by the end

	mu      lockOf[SignalStream]
	pending []os.Signal // the signals that were not read, in the order of arrival; each at most once
	closed  bool
	over    bool // it is closed, and all signals that arrived before are in pending
}

var _ Stream[os.Signal] = (*SignalStream)(nil)

// Signals returns the stream of the given signals, or, if none is given, of all signals that
// [os/signal.Notify] can report. From then on these signals do not have their usual effect, for
// example to end the program. If several streams have a signal, each of them gets it. The stream
// must be closed, since it keeps a goroutine: see [SignalStream.Close].
//
// Without arguments the stream leaves out [syscall.SIGURG]: Go sends it to the program's own
// threads, many times a second, to interrupt goroutines. A stream for which SIGURG is named gets
// these signals.
//
// The stream stores each kind of signal once until it is read, as the kernel does: if ten
// interrupts arrive in a row, a slow reader may see one. So a stream holds at most as many signals
// as there are kinds, and loses no kind.
func Signals(sig ...os.Signal) *SignalStream {
	s := &SignalStream{in: newChan[os.Signal](64), all: len(sig) == 0}
	outsideBubble(func() {
		// Notify may start a goroutine, too. Neither goroutine may belong to a bubble.
		signal.Notify(s.in, sig...)
		go s.receive()
	})
	return s
}

// receive is the stream's goroutine. It takes each signal from the channel at once, because
// os/signal drops a signal for which the channel has no room. When Close has closed the channel, it
// first stores the signals that are left, and then sets over and wakes all tasks.
func (s *SignalStream) receive() {
	// The goroutine does not keep the labels of the task that has started it.
	pprof.SetGoroutineLabels(context.Background())
	for sig := range s.in {
		if !s.all || sig != syscall.SIGURG {
			s.note(sig)
		}
	}
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.arrived.fire(nil) // no task gets a further signal
}

// note stores a signal, and wakes one task. It also wakes a task if the signal is stored already: a
// wake too many is harmless.
func (s *SignalStream) note(sig os.Signal) {
	s.mu.Lock()
	if !slices.Contains(s.pending, sig) {
		s.pending = append(s.pending, sig)
	}
	s.mu.Unlock()
	s.arrived.fireOne(nil)
}

// take removes and returns the oldest signal. It returns ErrPending if there is none, and io.EOF if
// there will be none.
func (s *SignalStream) take() (sig os.Signal, err error) {
	s.mu.Lock()
	more := len(s.pending) > 1
	switch {
	case len(s.pending) > 0:
		sig = s.pending[0]
		s.pending = slices.Delete(s.pending, 0, 1)
	case s.over:
		err = io.EOF
	default:
		err = ErrPending
	}
	s.mu.Unlock()
	// An event wakes only one of the tasks that wait in order, so this task wakes the next; see
	// wakerSlot.
	if more {
		s.arrived.passOn(nil)
	}
	return sig, err
}

// PollNext returns the next signal if there is one. Otherwise it keeps cx's waker and returns
// [ErrPending]. It returns [io.EOF] once the stream is closed and all its signals have been read.
func (s *SignalStream) PollNext(cx *Context) (os.Signal, error) {
	if !cx.spend() {
		return nil, ErrPending
	}
	for {
		if sig, err := s.take(); err != ErrPending {
			return sig, err
		}
		if s.arrived.join(cx.waker(waitsSignal)) {
			// A signal that arrived before the task joined did not wake it.
			sig, err := s.take()
			return sig, cx.unspent(err)
		}
	}
}

// abandoned implements abandoner.
func (s *SignalStream) abandoned(t *task, from *worker) { s.arrived.leave(t, from) }

// Next waits for the next signal and returns it. It returns [io.EOF] once the stream is closed and
// all its signals have been read. If cx is cancelled it returns cx.Err(), and no signal is lost.
func (s *SignalStream) Next(cx *Context) (os.Signal, error) {
	sig, err := awaitInOrder(cx, &s.arrived, s.PollNext)
	return sig, awaitedError(cx, err)
}

// All returns an iterator over the signals for a range loop, which waits through cx as
// [SignalStream.Next] does. It ends when the stream is closed. If cx is cancelled, its last element
// is the error of cx.
func (s *SignalStream) All(cx *Context) iter.Seq2[os.Signal, error] {
	return func(yield func(os.Signal, error) bool) {
		for {
			sig, err := s.Next(cx)
			if err == io.EOF || !yield(sig, err) || err != nil {
				return
			}
		}
	}
}

// Close ends the stream: its signals have their usual effect again unless other code asks for them.
// Signals that arrived before can still be read, and then [io.EOF]. Close may be called from any
// goroutine. A second Close returns [ErrClosed].
func (s *SignalStream) Close() error {
	s.mu.Lock()
	first := !s.closed && s.in != nil // nil in the zero value, which gets no signals
	s.closed = true
	s.mu.Unlock()
	if first {
		signal.Stop(s.in) // nothing is sent after this
		close(s.in)
	}
	return closedNow(first)
}
