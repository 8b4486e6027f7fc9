package async

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// The error of a poll that is pending.
var (
	// ErrPending is returned by Poll, and by every method named PollX, while there is no result.
	// The waker of the [Context] has been kept then, and is woken when there may be a result.
	// [JoinHandle.TryJoin] and [TrySelect] return it, too, and keep no waker. ErrPending is for
	// code that polls: code that awaits never sees it.
	ErrPending = errors.New("async: pending: there is no result yet")
)

// The errors of tasks that have not returned, or have not begun.
var (
	// ErrGoexit is the error of a task that has called [runtime.Goexit], as [testing.T.FailNow]
	// does.
	ErrGoexit = errors.New("async: task called runtime.Goexit")

	// ErrBusy is the error of a task that was refused because a limit was reached
	// ([Group.SetLimit], [BlockingConfig]) and the caller that spawned it could not wait. The
	// nonblocking operations of a [File] return it, too, if the pool of blocking calls is full.
	ErrBusy = errors.New("async: the limit is reached")

	// ErrShutdown is the error of a task that was spawned too late during [Runtime.Shutdown], or
	// that Shutdown has unwound because the task did not end by itself. Operations that a runtime
	// refuses during and after its Shutdown, such as [BlockOn] and [Listener.Accept], return it or
	// an error that wraps it.
	ErrShutdown = errors.New("async: runtime is shut down")
)

// A PanicError is the error of a task that panicked. The panic ends the task and nothing else.
// [errors.As] finds it in the error of [JoinHandle.Join]. If the value of the panic is an error,
// [errors.Is] and errors.As find that error, too.
type PanicError struct {
	Value any    // the value that was passed to panic
	Stack []byte // the stack of the panicking code, as debug.Stack formats it

	task  Task
	where string // the function that panicked; see userFrame
}

// Error returns, in one line, the number and the name of the task, the function that panicked with
// its file and line, and the value of the panic. The function is the innermost one outside this
// package and the standard library, if there is such a function. The format %+v prints the stack,
// too.
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

// Format implements [fmt.Formatter]. The format %+v prints the result of [PanicError.Error] and,
// below it, [PanicError.Stack]. Other formats print as for other errors.
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

// Unwrap returns the value of the panic, [PanicError.Value], if it is an error, and otherwise nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// newPanicError returns the error of t, which has panicked with value. It is called while the panic
// unwinds, so that the stack is still the stack of the code that panicked.
func newPanicError(t *task, value any) *PanicError {
	var pcs [64]uintptr
	where := userFrame(pcs[:runtime.Callers(2, pcs[:])])
	return &PanicError{Value: value, Stack: debug.Stack(), task: t.ident(), where: where}
}

// finalError replaces an error that must not be the result of t: ErrPending, also if it is wrapped.
// A task that polls the handle would take this result to mean that t has not ended.
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

// The errors of channels and similar types.
var (
	// ErrClosed is returned by sends on a closed channel, by receives once the channel is closed
	// and empty, and by a second Close. Streams end with [io.EOF] instead. Closed files fail with
	// [os.ErrClosed], and closed connections with [net.ErrClosed].
	ErrClosed = errors.New("async: closed")

	// ErrFull is returned by an operation such as [Chan.TrySend] that needs room and does not wait
	// for it.
	ErrFull = errors.New("async: full")

	// ErrEmpty is returned by an operation such as [Chan.TryRecv] if there is no message.
	ErrEmpty = errors.New("async: empty")
)

// closedNow returns the error of a Close: nil for the first call, and ErrClosed for the others.
func closedNow(first bool) error {
	if first {
		return nil
	}
	return ErrClosed
}

// bothErrors is errors.Join, but if only one of the errors is not nil, it returns this error
// itself.
func bothErrors(err, unwritten error) error {
	if err == nil || unwritten == nil {
		return cmp.Or(err, unwritten)
	}
	return errors.Join(err, unwritten)
}

// ErrNotPollable is returned by [NewSource] and [Poller.Add] for a kind of descriptor that the
// system cannot wait for, such as a regular file or a directory: the system takes it to be always
// ready. Read and write such files with a [File], or in [SpawnBlocking].
var ErrNotPollable = errors.New("async: this kind of descriptor cannot be waited for")

// ErrSourceInUse is returned by [Source.Detach] if another call uses the descriptor at this moment.
var ErrSourceInUse = errors.New("async: another call uses the descriptor at this moment")
