package async

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Cmd is a program that is to be run, as [exec.Cmd] is. Its methods wait through a [Context]. Make
// it with [Command]. It cannot be used twice.
//
// It has the fields of an exec.Cmd, with the same meaning: Path, Args, Env, Dir, Stdin, Stdout,
// Stderr, ExtraFiles, SysProcAttr, Cancel, WaitDelay, Process and ProcessState. Set them before
// Start. Read Process after Start, and ProcessState after Wait. Methods may be called by any task;
// PollWait and Wait may be called concurrently.
//
// Errors are the errors of os/exec: an [*exec.ExitError] of a program that has failed; an
// [*exec.Error] of a name that is not found in PATH; an [*fs.PathError] of a program or a directory
// that does not exist. If cx is cancelled the error is cx.Err(), and neither wrapped nor an
// *exec.ExitError. A call that is too early, too late or a repetition has an error without a type.
//
// # The process
//
// A process that has ended is reaped at once, even if no task waits for it. So there are no
// zombies. On Linux this uses no thread while the process runs; other systems use one thread for
// each process. There is also one parked goroutine for each, for Cancel.
//
// The process does not belong to the runtime: [Runtime.Shutdown] leaves it running.
//
// # Standard streams
//
// Stdin, Stdout and Stderr may be results of [BindFile], [BindConn], [BindReader] or [BindWriter]:
//
//   - If the stream is a File of the disk, or [Stdin], [Stdout] or [Stderr], the program gets its
//     descriptor.
//   - If it is any other such stream, Start replaces the field by a pipe, and spawns a task that
//     copies. The copying ends when the cx of the stream is cancelled or its task ends. Wait waits
//     for the copying, but no longer than WaitDelay, and returns its error, as os/exec does for its
//     own copying.
//
// A field that is an [io.Reader] or [io.Writer] of another type and not a file costs a goroutine of
// os/exec. The pipes of [Cmd.StdinPipe] and the like cost none. A reader or writer of another type
// must not use such a stream, as a [bufio.Writer] or an [io.MultiWriter] around it would. os/exec
// calls it on its own goroutine, where the stream panics, which ends the program. Use
// [Cmd.StdoutPipe] or a [NetConn] instead.
type Cmd struct {
	*exec.Cmd
	kill     context.CancelFunc
	searched string // the name for which Start searches PATH; "" if it searches nothing

	started atomic.Bool
	parents []*File    // the ends of pipes that this process keeps
	childs  []*os.File // their other ends, which the program gets
	copies  []*cmdCopy
	ready   chan struct{} // closed when Start returns

	mu      lockOf[Cmd]
	tried   bool // the pool has begun to start the program, or must no longer begin
	running bool // the process was started, and Start no longer uses the fields above
	ended   bool // the process has ended and was reaped
	err     error
	exited  wakerSlot
}

// Command returns the [Cmd] that runs the named program with the given arguments, as [exec.Command]
// does. It does not use the disk. If name contains no slash, Start searches the directories of PATH
// for it, as [exec.LookPath] does, with the PATH and the working directory of that moment.
//
// So until Start, Path is name, String prints name, and Err is nil even if there is no such
// program. Start sets Path and Err to the values that exec.Command sets, and returns Err if it is
// not nil. If the caller has set Path or Err before Start, Start does not change them and searches
// nothing.
//
// If PATH leads to a program in the current directory, Start returns an error that wraps
// [exec.ErrDot], as os/exec does. To run such a program set Path to "./" + name.
func Command(name string, arg ...string) *Cmd {
	ctx, cancel := context.WithCancel(context.Background())
	const unsearched = "/." // a path, so exec.CommandContext searches nothing
	c := &Cmd{Cmd: exec.CommandContext(ctx, unsearched, arg...), kill: cancel}
	c.Path, c.Args[0] = name, name
	if filepath.Base(name) == name { // the rule of os/exec
		c.searched = name
	}
	return c
}

// Start starts the program and does not wait for its end; see [Cmd.Wait]. The errors are the errors
// of exec.Command and [exec.Cmd.Start]: an [*exec.Error] or an [*fs.PathError].
//
// If cx is cancelled the error is cx.Err(). The program is not started then, or it is killed as by
// Wait. The starting may continue for a while after Start has returned, so the fields of c must not
// be read. If Stdin is a File of the disk, Start waits until a read of it in the pool of blocking
// calls has ended.
func (c *Cmd) Start(cx *Context) error {
	cx.here()
	if c.started.Swap(true) {
		return cx.refused(errors.New("exec: already started"))
	}
	rt := cx.t.w.rt
	c.ready = newChan[struct{}](0)
	defer close(c.ready)
	err := c.replaceStreams(cx)
	if err == nil {
		_, err = inPool(cx, func() (None, error) { return None{}, c.start(rt) }, func(None) {
			c.giveUp()
			c.run()
		})
	}
	if err == nil {
		c.startCopies(cx)
		c.run()
	} else {
		c.mu.Lock()
		never := !c.tried
		c.tried = true
		c.mu.Unlock()
		if never {
			c.closeChilds()
			c.giveUp()
		}
	}
	return err
}

// A Start that is given up
//
// The pool starts the program (start), and the task that called Start may give up at any time:
//
//  1. start sets tried before it begins. Start sets tried when it gives up. Both do it under mu,
//     and the first of them decides.
//  2. If Start was first, start does nothing. Start closes both ends of all pipes.
//  3. If start was first, it continues. If the program then starts although its caller has given
//     up, inPool calls the function that Start has passed to it: this kills the process, and sets
//     running. If the program does not start, start itself closes the pipes.
//  4. In any case a process that was started is reaped (watch). reap waits for ready before it
//     looks at the tasks that copy, since Start spawns them after the process has been started.

// start starts the program, in the pool. Either start or a Start that gives up sets tried first,
// and so decides whether the program is started.
func (c *Cmd) start(rt *Runtime) error {
	c.mu.Lock()
	late := c.tried
	c.tried = true
	c.mu.Unlock()
	if late {
		return context.Canceled
	}
	c.lookUp()
	err := c.Cmd.Start()
	c.closeChilds()
	if err != nil {
		c.giveUp()
		return err
	}
	c.watch(rt)
	return nil
}

// run notes for Wait that the process was started.
func (c *Cmd) run() {
	c.mu.Lock()
	c.running = true
	c.mu.Unlock()
}

// lookUp finds the program in the directories of PATH, as exec.Command does.
func (c *Cmd) lookUp() {
	if c.searched == "" || c.Path != c.searched || c.Err != nil {
		return
	}
	path, err := exec.LookPath(c.searched)
	if path != "" { // LookPath may return a path and an error
		c.Path = path
	}
	c.Err = err
}

// closeChilds closes the ends of pipes that the program has got.
func (c *Cmd) closeChilds() {
	for _, f := range c.childs {
		f.Close()
	}
	c.childs = nil
}

// giveUp kills the process, if there is one, and closes this process's ends of pipes.
func (c *Cmd) giveUp() {
	c.kill()
	c.closePipes()
}

// closePipes closes this process's ends of pipes, and ends the tasks that copy.
func (c *Cmd) closePipes() {
	for _, f := range c.parents {
		f.src.close()
	}
	for _, cp := range c.copies {
		cp.stop()
	}
}

// reap runs on a goroutine. It waits for the process, for the goroutines of os/exec and for the
// tasks that copy, and then wakes the tasks that wait for the process.
func (c *Cmd) reap() {
	pprof.SetGoroutineLabels(context.Background()) // not the labels of the task that called Start
	err := c.Cmd.Wait()
	<-c.ready // now the tasks that copy have been spawned, or never will be
	if failed := c.awaitCopies(); err == nil {
		err = failed
	}
	c.mu.Lock()
	c.ended, c.err = true, err
	c.mu.Unlock()
	c.exited.fire(nil)
	c.kill() // releases the context of the exec.Cmd
}

// PollWait is [Cmd.Wait] without waiting: it returns [ErrPending] while Wait would wait. It does
// not close the pipes of StdinPipe, StdoutPipe and StderrPipe: the caller closes them. Giving up a
// future of it does not affect the process.
func (c *Cmd) PollWait(cx *Context) error {
	for {
		c.mu.Lock()
		ended, err, running := c.ended, c.err, c.running
		c.mu.Unlock()
		switch {
		case (ended || !running) && !cx.spend():
			return ErrPending
		case ended:
			return err
		case !running:
			return errors.New("exec: not started")
		}
		if c.exited.join(cx.waker(waitsProcess)) {
			c.mu.Lock()
			ended = c.ended
			c.mu.Unlock()
			if !ended {
				return ErrPending
			}
		}
	}
}

// Wait waits until the process has ended and all its output has been copied to Stdout and Stderr.
// It closes the pipes of StdinPipe, StdoutPipe and StderrPipe, so read all data of a pipe before.
// It returns the result of [exec.Cmd.Wait]: nil, or an [*exec.ExitError] if the program has failed.
// Any number of tasks may call Wait, any number of times. Before Start has returned, Wait does
// nothing and returns an error, even if cx is cancelled.
//
// If cx is cancelled, Wait kills the process, or calls c.Cancel if that is set, and returns
// cx.Err() at once. To wait without this effect, [Await] a future of [Cmd.PollWait].
func (c *Cmd) Wait(cx *Context) error {
	_, err := await(cx, func(cx *Context) (None, error) { return None{}, c.PollWait(cx) })
	if err == errAbandoned {
		c.exited.leave(cx.t, cx.here())
		c.mu.Lock()
		running := c.running
		c.mu.Unlock()
		if running {
			c.giveUp()
		}
		return cx.Err()
	}
	c.mu.Lock()
	ended := c.ended
	c.mu.Unlock()
	if ended { // Wait was not called too early
		c.closePipes()
	}
	return err
}

// Run starts the program and waits for its end: it is [Cmd.Start] and then [Cmd.Wait].
func (c *Cmd) Run(cx *Context) error {
	if err := c.Start(cx); err != nil {
		return err
	}
	return c.Wait(cx)
}

// Output runs the program, as [Cmd.Run] does, and returns the data that the program has written to
// its standard output. If Stderr is not set, an [*exec.ExitError] has the beginning and the end of
// the data that the program has written to its standard error, 32 KiB of each. If cx is cancelled,
// Output returns no data.
func (c *Cmd) Output(cx *Context) ([]byte, error) {
	if c.Stdout != nil {
		return nil, cx.refused(errors.New("exec: Stdout already set"))
	}
	var stdout bytes.Buffer
	var stderr *bothEnds
	c.Stdout = &stdout
	if c.Stderr == nil {
		stderr = new(bothEnds)
		c.Stderr = stderr
	}
	err := c.Run(cx)
	var failed *exec.ExitError
	if errors.As(err, &failed) && stderr != nil {
		failed.Stderr = stderr.bytes()
	}
	return c.collected(&stdout), err
}

// CombinedOutput runs the program, as [Cmd.Run] does, and returns the data that it has written to
// its standard output and standard error. If cx is cancelled, it returns no data.
func (c *Cmd) CombinedOutput(cx *Context) ([]byte, error) {
	if c.Stdout != nil {
		return nil, cx.refused(errors.New("exec: Stdout already set"))
	}
	if c.Stderr != nil {
		return nil, cx.refused(errors.New("exec: Stderr already set"))
	}
	var both bytes.Buffer
	c.Stdout, c.Stderr = &both, &both
	err := c.Run(cx)
	return c.collected(&both), err
}

// collected returns the data in b if the process has ended. Otherwise it returns nil, because a
// goroutine may still write to b.
func (c *Cmd) collected(b *bytes.Buffer) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		return nil
	}
	return b.Bytes()
}

// StdinPipe returns a pipe. The program reads the data that is written to the pipe as its standard
// input. It sees the end of its input when the caller closes the pipe. [Cmd.Wait] closes it, too.
// If the Cmd is never started the caller must close the pipe. If the pipe cannot be made the error
// is an [*os.SyscallError].
func (c *Cmd) StdinPipe() (*File, error) {
	if c.Stdin != nil {
		return nil, errors.New("exec: Stdin already set")
	}
	child, parent, err := c.pipe("StdinPipe", 0)
	if err == nil {
		c.Stdin = child
	}
	return parent, err
}

// StdoutPipe returns a pipe with the data that the program writes to its standard output.
// [Cmd.Wait] closes it. For errors and closing see [Cmd.StdinPipe].
func (c *Cmd) StdoutPipe() (*File, error) {
	if c.Stdout != nil {
		return nil, errors.New("exec: Stdout already set")
	}
	child, parent, err := c.pipe("StdoutPipe", 1)
	if err == nil {
		c.Stdout = child
	}
	return parent, err
}

// StderrPipe returns a pipe with the data that the program writes to its standard error. [Cmd.Wait]
// closes it. For errors and closing see [Cmd.StdinPipe].
func (c *Cmd) StderrPipe() (*File, error) {
	if c.Stderr != nil {
		return nil, errors.New("exec: Stderr already set")
	}
	child, parent, err := c.pipe("StderrPipe", 1)
	if err == nil {
		c.Stderr = child
	}
	return parent, err
}

// pipe returns both ends of a pipe for the method of this name. The program gets the end with the
// index end, which blocks, as programs expect.
func (c *Cmd) pipe(method string, end int) (child *os.File, parent *File, err error) {
	if c.started.Load() {
		return nil, nil, fmt.Errorf("exec: %s after process started", method)
	}
	return c.newPipe("|"+method, end)
}

// newPipe is pipe, except that it may be called while the process is being started.
func (c *Cmd) newPipe(name string, end int) (child *os.File, parent *File, err error) {
	var fds [2]int
	if err := openPipe(&fds); err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(fds[end], false); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("setnonblock", err)
	}
	child = os.NewFile(uintptr(fds[end]), "|child")
	parent = pipeEnd(fds[1-end], name)
	c.childs = append(c.childs, child)
	c.parents = append(c.parents, parent)
	return child, parent, nil
}

// bothEnds keeps the beginning and the end of the data that is written to it.
type bothEnds struct {
	head, tail []byte
	left       int // how many bytes between head and tail are left out
}

// bothEndsSize is the most bytes that head and tail keep each, as os/exec keeps.
const bothEndsSize = 32 << 10

func (b *bothEnds) Write(p []byte) (int, error) {
	n := len(p)
	m := min(n, bothEndsSize-len(b.head))
	b.head = append(b.head, p[:m]...)
	b.tail = append(b.tail, p[m:]...)
	if over := len(b.tail) - bothEndsSize; over > 0 {
		b.left += over
		b.tail = append(b.tail[:0], b.tail[over:]...)
	}
	return n, nil
}

func (b *bothEnds) bytes() []byte {
	if b.left == 0 {
		return append(b.head, b.tail...)
	}
	return fmt.Appendf(b.head, "\n... omitting %d bytes ...\n%s", b.left, b.tail)
}
