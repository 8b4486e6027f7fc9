package async

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"sync/atomic"
)

// Cmd is a program to run, or that runs: an exec.Cmd whose calls wait through a
// Context. The fields are those, documented there, and are set before it is
// started.
//
// The child is killed (by Cmd.Cancel, if that is set) when a Start, Run, Output,
// CombinedOutput or Wait is cancelled. These then return cx.Err() at once. A child
// that nobody waits for runs on, also when the task that started it or the
// runtime has ended. In any case its exit status is taken when it ends, so that
// no zombie remains: a goroutine does that, which needs a thread, for each child
// that runs. Nothing else bounds their number.
//
// A Cmd can be started once. Start, Run, Output, CombinedOutput and what sets it
// up are for one task at a time; Wait may be called by any number.
type Cmd struct {
	*exec.Cmd

	kill     context.CancelFunc // makes package exec end the child
	childs   []*os.File         // the child's ends of pipes, of which it gets copies
	parents  []*File            // and the other ends, to be closed if it cannot be started
	launched atomic.Bool
	started  outcome
	ended    outcome
}

// outcome is an error, or nil, that will be there one day.
type outcome struct {
	waiters wakerSlot
	err     error
	known   atomic.Bool // err has been written
}

// settle makes the outcome known.
func (o *outcome) settle(err error) {
	o.err = err
	o.known.Store(true)
	o.waiters.fire(nil)
}

// Poll implements Future.
func (o *outcome) Poll(cx *Context) (None, error) {
	// If it was settled before the place was taken nobody will look there
	// again: so look once more.
	if !o.known.Load() && o.waiters.join(cx.waker(waitsProcess)) && !o.known.Load() {
		return None{}, ErrPending
	}
	return None{}, o.err
}

// Command returns the Cmd that runs the named program with the given
// arguments; see exec.Command, also for how the name is looked up.
func Command(name string, arg ...string) *Cmd {
	ctx, kill := context.WithCancel(context.Background())
	return &Cmd{Cmd: exec.CommandContext(ctx, name, arg...), kill: kill}
}

// Start starts the child and does not wait for it. Its errors are those of
// exec.Cmd.Start: exec.ErrNotFound, fs.ErrNotExist, fs.ErrPermission and so on.
// If cx is cancelled meanwhile the child is killed as soon as it has started.
func (c *Cmd) Start(cx *Context) error {
	if err := cx.Err(); err != nil {
		return err
	}
	if c.launched.Swap(true) {
		return errStartedTwice
	}
	go c.live()
	return c.await(cx, &c.started)
}

var errStartedTwice = errors.New("async: the Cmd has been started before")

// live is the goroutine of the child.
func (c *Cmd) live() {
	defer c.kill() // the end of its context
	err := c.Cmd.Start()
	for _, f := range c.childs {
		f.Close()
	}
	if err != nil {
		for _, f := range c.parents {
			f.discard()
		}
		c.started.settle(err)
		c.ended.settle(err)
		return
	}
	c.started.settle(nil)
	c.ended.settle(c.Cmd.Wait())
}

// await waits for o, and kills the child if it is not to wait any longer.
func (c *Cmd) await(cx *Context, o *outcome) error {
	_, err := await(cx, o.Poll)
	if err == errAbandoned {
		o.waiters.leave(cx.t, cx.here())
		c.kill()
		err = cx.Err()
	}
	return err
}

// Wait waits until the child has ended and all that Stdout and Stderr get has
// been copied to them. It returns nil if the exit status is 0, an *exec.ExitError
// if it is another one or a signal has ended the child, and the error of Start
// if that has failed. It may be called again, by several tasks. Pipes are left
// open: what the child has written can still be read.
//
// Cancelling it kills the child.
func (c *Cmd) Wait(cx *Context) error {
	if !c.launched.Load() {
		return errors.New("async: Cmd.Wait was called before Cmd.Start")
	}
	return c.await(cx, &c.ended)
}

// Run starts the child and waits for it; see Start and Wait.
func (c *Cmd) Run(cx *Context) error {
	if err := c.Start(cx); err != nil {
		return err
	}
	return c.Wait(cx)
}

// Output runs the child and returns what it writes to its standard output. If
// it fails and Stderr was not set, the *exec.ExitError has the end of its
// standard error, 32 KiB of it. Once cancelled it returns no output.
func (c *Cmd) Output(cx *Context) ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("async: Cmd.Output: Stdout is set")
	}
	var stdout bytes.Buffer
	c.Stdout = &stdout
	var stderr tail
	if c.Stderr == nil {
		c.Stderr = &stderr
	}
	err := c.Run(cx)
	if !c.ended.known.Load() {
		return nil, err // the buffers are still written to
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && c.Stderr == &stderr {
		exit.Stderr = stderr.end()
	}
	return stdout.Bytes(), err
}

// CombinedOutput runs the child and returns what it writes to its standard
// output and its standard error. Once cancelled it returns nothing.
func (c *Cmd) CombinedOutput(cx *Context) ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("async: Cmd.CombinedOutput: Stdout or Stderr is set")
	}
	var both bytes.Buffer
	c.Stdout, c.Stderr = &both, &both
	err := c.Run(cx)
	if !c.ended.known.Load() {
		return nil, err // the buffer is still written to
	}
	return both.Bytes(), err
}

// tail keeps the end of what is written to it.
type tail struct{ bytes []byte }

const tailSize = 32 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.bytes = append(t.bytes, p...)
	if n := len(t.bytes); n > 2*tailSize {
		t.bytes = append(t.bytes[:0], t.bytes[n-tailSize:]...)
	}
	return len(p), nil
}

// end returns the last tailSize bytes.
func (t *tail) end() []byte { return t.bytes[max(len(t.bytes)-tailSize, 0):] }

// StdinPipe returns a pipe to the child's standard input. Close it when there
// is no more; writes fail with syscall.EPIPE once the child reads no longer. It
// must be called before the start, and the pipe be closed in any case, unless
// Start fails, which closes it.
func (c *Cmd) StdinPipe() (*File, error) {
	if c.Stdin != nil {
		return nil, errors.New("async: Cmd.StdinPipe: Stdin is set")
	}
	child, parent, err := c.pipe(false)
	if err == nil {
		c.Stdin = child
	}
	return parent, err
}

// StdoutPipe returns a pipe from the child's standard output. It ends with
// io.EOF when the child, and whoever has inherited it, has closed it. It must be
// called before the start, and the pipe be closed in any case, unless Start
// fails, which closes it. Wait leaves it open, and may be called before all has
// been read.
func (c *Cmd) StdoutPipe() (*File, error) {
	if c.Stdout != nil {
		return nil, errors.New("async: Cmd.StdoutPipe: Stdout is set")
	}
	child, parent, err := c.pipe(true)
	if err == nil {
		c.Stdout = child
	}
	return parent, err
}

// StderrPipe is StdoutPipe for the standard error.
func (c *Cmd) StderrPipe() (*File, error) {
	if c.Stderr != nil {
		return nil, errors.New("async: Cmd.StderrPipe: Stderr is set")
	}
	child, parent, err := c.pipe(true)
	if err == nil {
		c.Stderr = child
	}
	return parent, err
}

// pipe makes a pipe of which the child has one end.
func (c *Cmd) pipe(reads bool) (child *os.File, parent *File, err error) {
	if c.launched.Load() {
		return nil, nil, errors.New("async: a pipe was asked for after the Cmd has been started")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	child, mine := r, w
	if reads {
		child, mine = w, r
	}
	if parent, err = FromFile(mine); err != nil {
		r.Close()
		w.Close()
		return nil, nil, err
	}
	c.childs = append(c.childs, child)
	c.parents = append(c.parents, parent)
	return child, parent, nil
}
