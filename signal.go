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

// SignalStream is the Stream of the signals that the program receives; see
// Signals. Any number of tasks may use it at once: each signal goes to one of
// them.
//
// Errors are not wrapped: io.EOF at the end, cx.Err() if cx is cancelled, and
// ErrClosed of a second Close.
type SignalStream struct {
	in      chan os.Signal
	all     bool // no signal was named
	arrived wakerSlot

	mu      lockOf[SignalStream]
	pending []os.Signal // each at most once
	closed  bool
	over    bool // it is closed, and all signals that came before are noted
}

var _ Stream[os.Signal] = (*SignalStream)(nil)

// Signals returns the stream of the given signals, or of all that os/signal
// knows if none is given. From then on they do not have their usual effect, as
// with signal.Notify; several streams get each signal once each.
//
// All signals do not include [syscall.SIGURG]: Go sends it to the program's own threads, many
// times a second, to interrupt goroutines. A stream that is given it gets these, too.
//
// Like the kernel the stream notes each kind of signal once until it is read:
// of ten interrupts in a row a slow reader may see one. So no more is held than
// there are kinds of signals, and no kind is lost.
//
// A stream must be closed: it keeps a goroutine.
func Signals(sig ...os.Signal) *SignalStream {
	s := &SignalStream{in: newChan[os.Signal](64), all: len(sig) == 0}
	outsideBubble(func() {
		signal.Notify(s.in, sig...) // which may start a goroutine, too
		go s.receive()
	})
	return s
}

// receive is the stream's goroutine. It empties the channel at once, since
// os/signal drops signals that find no room there.
func (s *SignalStream) receive() {
	pprof.SetGoroutineLabels(context.Background()) // not the labels of the task that has started it
	for sig := range s.in {
		if !s.all || sig != syscall.SIGURG {
			s.note(sig)
		}
	}
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.arrived.fire(nil) // no more signals come for any task
}

func (s *SignalStream) note(sig os.Signal) {
	s.mu.Lock()
	if !slices.Contains(s.pending, sig) {
		s.pending = append(s.pending, sig)
	}
	s.mu.Unlock()
	s.arrived.fireOne(nil)
}

// take returns the oldest signal that is pending; ErrPending if there is none.
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
	if more {
		s.arrived.passOn(nil)
	}
	return sig, err
}

// PollNext returns the next signal, or io.EOF once the stream is closed and
// has been emptied.
func (s *SignalStream) PollNext(cx *Context) (os.Signal, error) {
	if !cx.spend() {
		return nil, ErrPending
	}
	for {
		if sig, err := s.take(); err != ErrPending {
			return sig, err
		}
		if s.arrived.join(cx.waker(waitsSignal)) {
			// A signal that came before the task had joined did not wake it.
			sig, err := s.take()
			return sig, cx.unspent(err)
		}
	}
}

// abandoned implements abandoner.
func (s *SignalStream) abandoned(t *task, from *worker) { s.arrived.leave(t, from) }

// Next waits for the next signal; see PollNext. If cx is cancelled it returns
// cx.Err(), and no signal is lost.
func (s *SignalStream) Next(cx *Context) (os.Signal, error) {
	sig, err := awaitInOrder(cx, &s.arrived, s.PollNext)
	return sig, awaitedError(cx, err)
}

// All returns the signals for a range loop, which waits through cx. It ends
// when the stream is closed, or with the error of cx once that is cancelled.
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

// Close ends the stream: its signals have their usual effect again unless
// other code asks for them. Signals that came before can still be read, and then
// io.EOF. It may be called from any goroutine. A second Close returns ErrClosed.
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
