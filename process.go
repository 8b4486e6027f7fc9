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

// Cmd is a program to be run, as exec.Cmd is: it has the fields of an
// exec.Cmd (Path, Args, Env, Dir, Stdin, Stdout, Stderr, ExtraFiles, SysProcAttr,
// Cancel, WaitDelay, Process, ProcessState), with the same meaning, and
// methods that wait through a Context. It cannot be used twice. Its methods may
// be called by any task; the fields are set before Start, and Process and
// ProcessState are read after it and after Wait.
//
// Once started, a process is reaped as soon as it ends, whether or not a task waits
// for it: there is no zombie. On Linux that costs no thread meanwhile, elsewhere a
// thread for each process that runs; and a parked goroutine, for Cancel. Stdin,
// Stdout and Stderr that are not files cost a goroutine each, as with os/exec, since
// they are an io.Reader and io.Writers; the pipes of StdinPipe and so on do not.
//
// Stdin, Stdout and Stderr may be results of [BindFile], [BindConn], [BindReader] or [BindWriter].
// The program gets the descriptor of a File of the disk, and of [Stdin],
// [Stdout] and [Stderr]. Everything else is copied by a task that Start
// spawns, and Start replaces the field. The copying ends when the cx of the stream is
// cancelled or its task ends; Wait waits for it, within WaitDelay, and returns its error
// as that of os/exec's copying. An io.Reader or io.Writer of another type that uses such a
// stream (a bufio.Writer, an io.MultiWriter) is called on a goroutine of os/exec, and panics
// there, which ends the program: use StdoutPipe or a [NetConn] instead.
//
// Errors are those of os/exec: an *exec.ExitError of a program that has failed, an *exec.Error
// of a name that is not found in PATH, an *fs.PathError of a program or a directory that is not
// there. If cx is cancelled the error is cx.Err(), not wrapped, and no *exec.ExitError. A call
// that comes too early, too late or twice has an error that has a text only.
//
// A process is not bound to the runtime: Shutdown leaves it running.
type Cmd struct {
	*exec.Cmd
	kill     context.CancelFunc
	searched string // the name for which Start searches PATH; "" if it does not

	started atomic.Bool
	parents []*File    // our ends of pipes
	childs  []*os.File // the process's ends of them
	copies  []*cmdCopy
	ready   chan struct{} // closed when Start has returned, or is about to

	mu      lockOf[Cmd]
	tried   bool // the pool has begun to start it, or must not anymore
	running bool // it has been started, and Start no longer touches the fields above
	ended   bool // it has ended and was reaped
	err     error
	exited  wakerSlot
}

// Command returns the Cmd that runs the named program with the given arguments, as
// exec.Command does. It does not touch the disk. If name contains no slash, Start
// searches the directories of PATH for it, as exec.LookPath does, with the PATH and the
// working directory that the process has then.
//
// So Path is name until Start, and Err is nil, also if there is no such program; String
// prints name. Start sets both to the values that exec.Command sets, and returns Err if it
// is not nil. A Path or an Err that is set before Start is left as it is, and nothing is
// searched. A program that PATH finds in the current directory is an error that is
// exec.ErrDot, as with os/exec; to run it, set Path to "./" + name.
func Command(name string, arg ...string) *Cmd {
	ctx, cancel := context.WithCancel(context.Background())
	const unsearched = "/." // a path, for which nothing is searched
	c := &Cmd{Cmd: exec.CommandContext(ctx, unsearched, arg...), kill: cancel}
	c.Path, c.Args[0] = name, name
	if filepath.Base(name) == name { // the rule of os/exec
		c.searched = name
	}
	return c
}

// Start starts the program and does not wait for it. The errors are those of exec.Command
// and exec.Cmd.Start: an *exec.Error or an *fs.PathError. If cx is cancelled the error is
// cx.Err(), and the program is not started, or killed as by Wait. The starting may go on
// then for a while: the fields of c must not be read. If Stdin is a File of the disk, Start
// waits for the end of a read of it that is under way in the pool of blocking calls.
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

// start runs in the pool.
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

// run notes that the process runs, for Wait.
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
	if path != "" { // it can be there beside an error
		c.Path = path
	}
	c.Err = err
}

func (c *Cmd) closeChilds() {
	for _, f := range c.childs {
		f.Close()
	}
	c.childs = nil
}

// giveUp kills the process, if there is one, and closes our ends of pipes.
func (c *Cmd) giveUp() {
	c.kill()
	c.closePipes()
}

func (c *Cmd) closePipes() {
	for _, f := range c.parents {
		f.src.close()
	}
	for _, cp := range c.copies {
		cp.stop()
	}
}

// reap waits for the process, and for the goroutines of os/exec, on a goroutine.
func (c *Cmd) reap() {
	pprof.SetGoroutineLabels(context.Background()) // not the labels of the task that has started it
	err := c.Cmd.Wait()
	<-c.ready // the tasks that copy have been spawned, or never will be
	if failed := c.awaitCopies(); err == nil {
		err = failed
	}
	c.mu.Lock()
	c.ended, c.err = true, err
	c.mu.Unlock()
	c.exited.fire(nil)
	c.kill() // so that its context is released
}

// PollWait is Wait without waiting: it returns ErrPending while the process
// runs. Giving up on it leaves the process alone.
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

// Wait waits until the process has ended and all output has been copied to
// Stdout and Stderr, closes the pipes of StdinPipe, StdoutPipe and StderrPipe, and
// returns the result of exec.Cmd.Wait: nil, or an *exec.ExitError if the process has
// failed. So read all data that comes from a pipe before Wait. Any number of tasks may
// wait, any number of times. Before Start has returned Wait fails and does nothing, also if
// cx is cancelled.
//
// If cx is cancelled later, the process is killed, or c.Cancel is called if it is set, and
// Wait returns cx.Err() at once. If that must not be, Await a future of
// PollWait.
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

// Run starts the program and waits for it; see Start and Wait.
func (c *Cmd) Run(cx *Context) error {
	if err := c.Start(cx); err != nil {
		return err
	}
	return c.Wait(cx)
}

// Output runs the program and returns the data that it has written to its standard
// output. If Stderr is not set, an *exec.ExitError has the beginning and the end of
// the data that it has written there. No data is returned if cx is cancelled.
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

// CombinedOutput runs the program and returns the data that it has written to its
// standard output and standard error. No data is returned if cx is cancelled.
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

// collected returns the data in b, unless b is still being written to.
func (c *Cmd) collected(b *bytes.Buffer) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		return nil
	}
	return b.Bytes()
}

// StdinPipe returns a pipe whose data the program reads as its standard
// input. It must be closed for the program to see the end; Wait closes it, too.
// A pipe of a Cmd that is never started must be closed by the caller. The error of
// a pipe that cannot be made is an *os.SyscallError.
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

// StdoutPipe returns a pipe with the data that the program writes to its standard
// output. Wait closes it; see StdinPipe.
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

// StderrPipe returns a pipe with the data that the program writes to its standard
// error. Wait closes it; see StdinPipe.
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

// pipe returns both ends of a pipe of which the program gets the end with the
// given index, which blocks, as programs expect.
func (c *Cmd) pipe(method string, end int) (child *os.File, parent *File, err error) {
	if c.started.Load() {
		return nil, nil, fmt.Errorf("exec: %s after process started", method)
	}
	return c.newPipe("|"+method, end)
}

// newPipe is pipe, and may be called also while the process is being started.
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
	left       int // how many bytes between them are left out
}

// bothEndsSize is how much of each is kept.
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
