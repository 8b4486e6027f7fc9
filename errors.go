package async

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// The error of a poll that is not ready.
var (
	// ErrPending is returned by Poll and by every method named PollX when the
	// result is not there yet and the waker of the Context has been kept for
	// the moment at which it may be; and by TryJoin and TrySelect. It is for code
	// that polls: code that awaits never sees it.
	ErrPending = errors.New("async: pending: there is no result yet")
)

// How a task may end without having returned.
var (
	// ErrGoexit is the error of a task that called runtime.Goexit, as a
	// testing.T's FailNow does.
	ErrGoexit = errors.New("async: task called runtime.Goexit")

	// ErrBusy is the error of a task that was refused because a limit was
	// reached and the spawner cannot wait.
	ErrBusy = errors.New("async: the limit is reached")

	// ErrShutdown is the error of a task that was spawned on a runtime after
	// its Shutdown had begun, or that Shutdown had to unwind because it did not
	// end by itself.
	ErrShutdown = errors.New("async: runtime is shut down")
)

// A PanicError is the error of a task that panicked. The panic ends the task
// and nothing else.
type PanicError struct {
	Value any    // the value that was passed to panic
	Stack []byte // the stack of the panicking code, as debug.Stack formats it

	task  Task
	where string // see userFrame
}

// Error returns, in one line, the number and the name of the task, the function that
// panicked, with its file and line, and the panic's value. The function is the innermost
// function outside this package and the standard library, if there is such a function. The
// format %+v prints the stack, too.
func (e *PanicError) Error() string {
	var b strings.Builder
	b.WriteString("async: task ")
	if e.task.ID != 0 {
		fmt.Fprintf(&b, "%v ", e.task)
	}
	b.WriteString("panicked")
	if e.where != "" {
		b.WriteString(" at " + e.where)
	}
	fmt.Fprintf(&b, ": %v", e.Value)
	return b.String()
}

// Format implements [fmt.Formatter]: %+v prints Error and, below it, Stack. Other verbs
// print as for other errors.
func (e *PanicError) Format(s fmt.State, verb rune) {
	switch {
	case verb == 'v' && s.Flag('+'):
		fmt.Fprintf(s, "%s\n\n%s", e.Error(), e.Stack)
	case verb == 'v' && s.Flag('#'):
		type fields PanicError // without this method
		fmt.Fprintf(s, fmt.FormatString(s, verb), (*fields)(e))
	default:
		fmt.Fprintf(s, fmt.FormatString(s, verb), e.Error())
	}
}

// Unwrap returns the panic's value if it is an error, else nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// newPanicError is the error of t. It is called while the panic unwinds, so that the
// stack is still that of the code that panicked.
func newPanicError(t *task, value any) *PanicError {
	var pcs [64]uintptr
	where := userFrame(pcs[:runtime.Callers(2, pcs[:])])
	return &PanicError{Value: value, Stack: debug.Stack(), task: t.ident(), where: where}
}

// finalError replaces an error that must not be the result of t: ErrPending in any
// wrapping. A task that polls the handle would take it to mean that t goes on.
func (t *task) finalError(err error) error {
	if err != nil && errors.Is(err, ErrPending) {
		return &PanicError{
			Value: "async: a task returned ErrPending as its result: straight-line code must await " +
				"(call X instead of PollX, or Await(cx, f)), and a future must return ErrPending itself, not wrapped",
			Stack: debug.Stack(),
			task:  t.ident(),
		}
	}
	return err
}

// Errors of channels and similar types.
var (
	// ErrClosed is returned by sends on a closed channel, by receives once the
	// channel is closed and empty, and by a second Close. Streams end with [io.EOF]
	// instead; closed files and connections fail with os.ErrClosed and net.ErrClosed.
	ErrClosed = errors.New("async: closed")

	// ErrFull is returned by a TrySend that found no room.
	ErrFull = errors.New("async: full")

	// ErrEmpty is returned by a TryRecv that found nothing.
	ErrEmpty = errors.New("async: empty")
)

// closedNow returns the error of a Close: nil if it was the first.
func closedNow(first bool) error {
	if first {
		return nil
	}
	return ErrClosed
}

// bothErrors is errors.Join, but returns an error that is alone as it is.
func bothErrors(err, unwritten error) error {
	if err == nil || unwritten == nil {
		return cmp.Or(err, unwritten)
	}
	return errors.Join(err, unwritten)
}

// ErrNotPollable is returned by NewSource, and by Poller.Add, for a descriptor
// of a kind that the system cannot wait for, such as a regular file or a
// directory, which it takes to be always ready. Such files are read and written
// in the pool of SpawnBlocking.
var ErrNotPollable = errors.New("async: this kind of descriptor cannot be waited for")

// ErrSourceInUse is returned by Source.Detach.
var ErrSourceInUse = errors.New("async: another call uses the descriptor at this moment")
