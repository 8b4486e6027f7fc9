package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// gone waits until there is no process with this number, not even a zombie.
func gone(t *testing.T, pid int) {
	t.Helper()
	eventually(t, func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }, "the end of process ", pid)
}

// outcome describes how a command ended, for a comparison with os/exec.
func outcome(out []byte, err error) string {
	s := fmt.Sprintf("%q %T", out, err)
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		s += fmt.Sprintf(" %v %q", failed.ProcessState, failed.Stderr)
	} else if err != nil {
		s += " " + err.Error()
	}
	for _, is := range []error{exec.ErrNotFound, exec.ErrDot, os.ErrNotExist, os.ErrPermission} {
		s += fmt.Sprint(" ", errors.Is(err, is))
	}
	return s
}

// Each command has the same outcome as with os/exec.
func TestCommandTwins(t *testing.T) {
	rt := fileRuntime(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "plain"), []byte("no program"), 0o600))
	long := fmt.Sprintf(`i=0; while [ $i -lt 3000 ]; do echo "$i %s" >&2; i=$((i+1)); done; exit 3`, strings.Repeat("x", 40))
	for _, args := range [][]string{
		{"true"}, {"false"}, {"sh", "-c", "echo out; echo err >&2"}, {"sh", "-c", "echo out; echo err >&2; exit 7"},
		{"sh", "-c", "kill -9 $$"}, {"sh", "-c", "kill -TERM $$"}, {"sh", "-c", long},
		{"no-such-program"}, {"/no/such/program"}, {filepath.Join(dir, "plain")}, {dir}, {"", "x"},
		{"sh", "-c", "pwd; echo $GREETING; cat"},
	} {
		prepare := func(c *exec.Cmd) {
			c.Env, c.Stdin = append(os.Environ(), "GREETING=hello"), strings.NewReader("input")
			c.Dir = dir
		}
		theirs, theirs2 := exec.Command(args[0], args[1:]...), exec.Command(args[0], args[1:]...)
		prepare(theirs)
		prepare(theirs2)
		want, wantBoth := outcome(theirs.Output()), outcome(theirs2.CombinedOutput())
		inBlockOn(t, rt, func(cx *Context) error {
			ours, ours2 := Command(args[0], args[1:]...), Command(args[0], args[1:]...)
			prepare(ours.Cmd)
			prepare(ours2.Cmd)
			require.Equal(t, want, outcome(ours.Output(cx)), args)
			require.Equal(t, theirs.String(), ours.String())
			require.Equal(t, wantBoth, outcome(ours2.CombinedOutput(cx)), args)
			return nil
		})
	}
}

// Command does not use the disk: Start searches PATH, in the pool. In this test the program exists
// only after Command has returned.
func TestCommandSearchedByStart(t *testing.T) {
	rt := fileRuntime(t)
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	sh := filepath.Join(dir, "late")
	inBlockOn(t, rt, func(cx *Context) error {
		c := Command("late", "an argument")
		require.NoError(t, c.Err)
		require.Equal(t, "late", c.Path)
		require.Equal(t, "late an argument", c.String())
		require.NoError(t, os.WriteFile(sh, []byte("#!/bin/sh\necho $0: $*"), 0o700))
		out, err := c.Output(cx)
		require.NoError(t, err)
		require.Equal(t, sh+": an argument\n", string(out))
		require.Equal(t, sh, c.Path)
		require.Equal(t, []string{"late", "an argument"}, c.Args)
		return nil
	})
}

// Start finds the program that exec.Command finds, and returns the errors of exec.Cmd.Start. It
// does not change fields that were set before.
func TestCommandSearchTwins(t *testing.T) {
	rt := fileRuntime(t)
	dir := t.TempDir()
	script := []byte("#!/bin/sh\nexit 0")
	for _, sub := range []string{"first", "second", "first/both"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, sub), 0o700))
	}
	for name, mode := range map[string]os.FileMode{"first/data": 0o600, "second/program": 0o700, "second/data": 0o700,
		"second/both": 0o700, "first/only": 0o600, "here": 0o700, "second/here2": 0o700} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), script, mode))
	}
	t.Chdir(dir)
	own := errors.New("an error of the user's")
	for _, path := range []string{dir + "/first:" + dir + "/second", dir + "/first:.:" + dir + "/second", ":" + dir + "/second", "second", ""} {
		t.Setenv("PATH", path)
		for _, name := range []string{"program", "data", "both", "only", "here", "here2", "missing", "", ".", "..", "/", "./here",
			"second/program", dir + "/here", "nul\x00", "first"} {
			for what, change := range map[string]func(c *exec.Cmd){
				"nothing": func(c *exec.Cmd) {},
				"Dir":     func(c *exec.Cmd) { c.Dir = "second" },
				"Env":     func(c *exec.Cmd) { c.Env = []string{"PATH=" + dir} },
				"Err":     func(c *exec.Cmd) { c.Err = own },
				"ErrDot":  func(c *exec.Cmd) { c.Path, c.Err = dir+"/here", nil },
				"no Path": func(c *exec.Cmd) { c.Path, c.Err = "", nil },
			} {
				theirs, ours := exec.Command(name, "x"), Command(name, "x")
				change(theirs)
				change(ours.Cmd)
				say := func(c *exec.Cmd, err error) string {
					dot := errors.Is(err, exec.ErrDot)
					return fmt.Sprintf("%s; %v %v %q %v", outcome(nil, err), c.Err, dot, c.Args, c.ProcessState)
				}
				want := say(theirs, theirs.Run())
				wantPath := theirs.Path
				if what == "Err" {
					wantPath = name // nothing is searched
				}
				inBlockOn(t, rt, func(cx *Context) error {
					got := say(ours.Cmd, ours.Run(cx))
					require.Equal(t, want, got, "PATH=%s %q %s", path, name, what)
					require.Equal(t, wantPath, ours.Path, "PATH=%s %q %s", path, name, what)
					return nil
				})
			}
		}
	}
}

// boundStream makes an adapter that waits through cx, of one of two ends.
type boundStream struct {
	name string
	ends func(t *testing.T, rt *Runtime) (own, peer ReadWriter)
}

// twoFiles is the reading end of one pipe and the writing end of another.
type twoFiles struct{ r, w *File }

func (f twoFiles) Read(cx *Context, p []byte) (int, error)  { return f.r.Read(cx, p) }
func (f twoFiles) Write(cx *Context, p []byte) (int, error) { return f.w.Write(cx, p) }

var boundStreams = []boundStream{
	{"TCPConn", func(t *testing.T, rt *Runtime) (own, peer ReadWriter) { return two(tcpPair(t, rt)) }},
	{"UDPConn", func(t *testing.T, rt *Runtime) (own, peer ReadWriter) { return two(udpPair(t)) }},
	{"UnixConn", func(t *testing.T, rt *Runtime) (own, peer ReadWriter) { return two(unixPair(t)) }},
	{"UnixDatagram", func(t *testing.T, rt *Runtime) (own, peer ReadWriter) {
		a, b, err := DatagramPair()
		require.NoError(t, err)
		t.Cleanup(func() { a.Close(); b.Close() })
		return a, b
	}},
	{"pipe", func(t *testing.T, rt *Runtime) (own, peer ReadWriter) {
		r1, w1, err := Pipe()
		require.NoError(t, err)
		r2, w2, err := Pipe()
		require.NoError(t, err)
		t.Cleanup(func() {
			for _, f := range []*File{r1, w1, r2, w2} {
				f.src.close()
			}
		})
		return twoFiles{r1, w2}, twoFiles{r2, w1}
	}},
}

func two[T ReadWriter](a, b T) (own, peer ReadWriter) { return a, b }

// bindings returns the adapters of a stream: the result of BindFile or BindConn, and the
// adapters for every type.
func bindings(cx *Context, s ReadWriter) map[string]struct {
	io.Reader
	io.Writer
} {
	type rw = struct {
		io.Reader
		io.Writer
	}
	all := map[string]rw{"BindReader, BindWriter": {BindReader(cx, s), BindWriter(cx, s)}}
	switch s := s.(type) {
	case Conn:
		c := BindConn(cx, s)
		all["Bind"] = rw{c, c}
	case twoFiles:
		all["Bind"] = rw{BindFile(cx, s.r), BindFile(cx, s.w)}
	}
	return all
}

// The streams of a program may be adapters that wait through a cx. When the cx ends, the copying
// ends.
func TestCommandBoundStreams(t *testing.T) {
	for _, s := range boundStreams {
		for _, how := range []string{"Bind", "BindReader, BindWriter"} {
			t.Run(s.name+" "+how, func(t *testing.T) {
				rt := fileRuntime(t)
				own, peer := s.ends(t, rt)
				runInTask(t, rt, func(cx *Context) error {
					p := make([]byte, 100)
					for _, fd := range []int{1, 2, 3} {
						b := bindings(cx, own)[how]
						c := Command("sh", "-c", fmt.Sprintf("printf hello >&%d", 1+fd%2))
						if fd&1 != 0 {
							c.Stderr = b.Writer
						}
						if fd&2 != 0 {
							c.Stdout = b.Writer
						}
						if err := c.Run(cx); err != nil {
							return err
						}
						n, err := peer.Read(cx, p)
						if err := expect(err == nil && string(p[:n]) == "hello", "%q, %v", p[:n], err); err != nil {
							return err
						}
					}
					bound, cancel := cx.WithCancel()
					defer cancel()
					c := Command("head", "-c", "5")
					c.Stdin = bindings(bound, own)[how].Reader
					out, err := c.StdoutPipe()
					if err != nil {
						return err
					}
					if _, err := peer.Write(cx, []byte("hello")); err != nil {
						return err
					}
					if err := c.Start(cx); err != nil {
						return err
					}
					got, err := io.ReadAll(BindFile(cx, out))
					if err := expect(err == nil && string(got) == "hello", "%q, %v", got, err); err != nil {
						return err
					}
					cancel()
					err = c.Wait(cx)
					return expect(errors.Is(err, context.Canceled) && cx.Err() == nil, "%v", err)
				})
			})
		}
	}
}

// A program gets the descriptor of a file that is not polled, at the file position after the reads
// and writes of the caller.
func TestCommandBoundFiles(t *testing.T) {
	rt := fileRuntime(t)
	dir := t.TempDir()
	std, err := os.Create(filepath.Join(dir, "std"))
	require.NoError(t, err)
	defer std.Close()
	for how, bind := range map[string]func(cx *Context, f *File) io.ReadWriter{
		"BindFile": func(cx *Context, f *File) io.ReadWriter { return BindFile(cx, f) },
		"BindReader, BindWriter": func(cx *Context, f *File) io.ReadWriter {
			return struct {
				io.Reader
				io.Writer
			}{BindReader(cx, f), BindWriter(cx, f)}
		},
	} {
		inBlockOn(t, rt, func(cx *Context) error {
			name := filepath.Join(dir, "file")
			f, err := Create(cx, name)
			require.NoError(t, err)
			bound := bind(cx, f)
			unwrap := func(rw io.ReadWriter) (io.Reader, io.Writer) {
				if s, ok := rw.(struct {
					io.Reader
					io.Writer
				}); ok {
					return s.Reader, s.Writer
				}
				return rw, rw
			}
			r, w := unwrap(bound)
			_, err = f.WriteString(cx, "before, ")
			require.NoError(t, err)
			c := Command("sh", "-c", "printf 'out, '; printf 'err, ' >&2; printf 'out, '")
			c.Stdout, c.Stderr = w, w
			require.NoError(t, c.Run(cx))
			_, err = f.WriteString(cx, "after")
			require.NoError(t, err)
			const all = "before, out, err, out, after"
			_, err = f.Seek(cx, 0, io.SeekStart)
			require.NoError(t, err)
			p := make([]byte, 8)
			_, err = f.Read(cx, p) // reads ahead, too
			require.NoError(t, err)
			c = Command("head", "-c", "5")
			c.Stdin = r
			got, err := c.Output(cx)
			require.NoError(t, err)
			require.Equal(t, all[8:13], string(got), how)
			rest, err := io.ReadAll(r)
			require.NoError(t, err)
			require.True(t, strings.HasSuffix(all[13:], string(rest)), "%s: %q", how, rest) // head may read more
			require.NoError(t, f.Close(cx))
			c = Command("true")
			c.Stdout = w
			require.ErrorIs(t, c.Run(cx), os.ErrClosed)

			_, w = unwrap(bind(cx, stdFile(std)))
			c = Command("sh", "-c", "test /dev/fd/1 -ef "+std.Name()+" && printf std")
			c.Stdout = w
			require.NoError(t, c.Run(cx))
			return nil
		})
	}
	got, err := os.ReadFile(std.Name())
	require.NoError(t, err)
	require.Equal(t, "stdstd", string(got))
}

// Copying ends after WaitDelay, when Start fails, and when its cx ends. It leaves no task and no
// descriptor: newTestRuntime counts both.
func TestCommandBoundGivenUp(t *testing.T) {
	rt := fileRuntime(t)
	own, peer, err := DatagramPair()
	require.NoError(t, err)
	defer own.Close()
	defer peer.Close()
	runInTask(t, rt, func(cx *Context) error {
		c := Command("true")
		c.Stdin, c.WaitDelay = BindConn(cx, own), time.Millisecond
		if err := c.Run(cx); err != exec.ErrWaitDelay {
			return expect(false, "WaitDelay: %v", err)
		}
		c = Command("no-such-program")
		c.Stdin, c.Stdout, c.Stderr = BindConn(cx, own), BindConn(cx, own), BindConn(cx, own)
		if err := c.Run(cx); !errors.Is(err, exec.ErrNotFound) {
			return expect(false, "no program: %v", err)
		}
		over, cancel := cx.WithCancel()
		cancel()
		c = Command("true")
		c.Stdin = BindConn(over, own)
		if err := c.Run(cx); err != context.Canceled {
			return expect(false, "a cx that has ended: %v", err)
		}
		// The cx ends before the program does, which then gets SIGPIPE.
		bound, end := cx.WithCancel()
		c = Command("yes")
		c.Stdout = BindConn(bound, peer)
		if err := c.Start(cx); err != nil {
			return err
		}
		if _, err := own.Read(cx, make([]byte, 1)); err != nil {
			return err
		}
		end()
		err := c.Wait(cx)
		var failed *exec.ExitError
		return expect(errors.As(err, &failed) && failed.Sys().(syscall.WaitStatus).Signal() == syscall.SIGPIPE, "the end of cx: %v", err)
	})
	eventually(t, func() bool { return len(rt.Tasks()) == 0 }, "tasks that copy")
	runInTask(t, rt, func(cx *Context) error { // the same without a Wait
		c := Command("cat")
		c.Stdin = BindConn(cx, own)
		return c.Start(cx)
	})
	eventually(t, func() bool { return len(rt.Tasks()) == 0 })
}

func TestCommandPipes(t *testing.T) {
	rt := fileRuntime(t)
	want := pattern(1 << 20)
	out, err := join(t, Spawn(rt, func(cx *Context) ([]byte, error) {
		c := Command("sh", "-c", "cat; echo said >&2")
		in, err := c.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := c.StdoutPipe()
		if err != nil {
			return nil, err
		}
		said, err := c.StderrPipe()
		if err != nil {
			return nil, err
		}
		if err := c.Start(cx); err != nil {
			return nil, err
		}
		Go(cx, func(cx *Context) error {
			_, err := in.Write(cx, want)
			return errors.Join(err, in.Close(cx))
		})
		b, err := io.ReadAll(BindFile(cx, out))
		if err != nil {
			return nil, err
		}
		line, err := io.ReadAll(BindFile(cx, said))
		if err := expect(err == nil && string(line) == "said\n", "%q, %v", line, err); err != nil {
			return nil, err
		}
		if err := c.Wait(cx); err != nil {
			return nil, err
		}
		_, err = out.Read(cx, make([]byte, 1))
		return b, expect(errors.Is(err, os.ErrClosed), "Wait closes the pipes: %v", err)
	}))
	require.NoError(t, err)
	require.Equal(t, want, out)
}

// A process for which no task waits, or for which all tasks have given up waiting, leaves no
// zombie.
func TestCommandNoZombie(t *testing.T) {
	rt := fileRuntime(t)
	var alone, killed *Cmd
	inBlockOn(t, rt, func(cx *Context) error {
		alone = Command("true")
		require.NoError(t, alone.Start(cx))
		killed = Command("sleep", "1000")
		require.NoError(t, killed.Start(cx))
		require.NoError(t, killed.Process.Signal(syscall.SIGKILL))
		return nil
	})
	gone(t, alone.Process.Pid)
	gone(t, killed.Process.Pid)
	inBlockOn(t, rt, func(cx *Context) error {
		require.NoError(t, alone.Wait(cx))
		require.NoError(t, alone.Wait(cx), "again")
		err := killed.Wait(cx)
		var failed *exec.ExitError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, syscall.SIGKILL, failed.Sys().(syscall.WaitStatus).Signal())
		require.False(t, killed.ProcessState.Success())
		return nil
	})
}

// A Wait that is cancelled kills the process. An await of a future of PollWait that is cancelled
// does not.
func TestCommandCancelled(t *testing.T) {
	rt := fileRuntime(t)
	var c *Cmd
	var out *File
	inBlockOn(t, rt, func(cx *Context) (err error) {
		c = Command("sleep", "1000")
		out, err = c.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, c.Start(cx))
		short, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		_, err = Await(short, PollFunc(func(cx *Context) (None, error) { return None{}, c.PollWait(cx) }))
		require.Equal(t, context.DeadlineExceeded, err)
		require.NoError(t, syscall.Kill(c.Process.Pid, 0))
		return nil
	})
	others := []*JoinHandle[None]{Go(rt, c.Wait), Go(rt, c.Wait)}
	for _, h := range others {
		eventually(t, func() bool { return waiting(h) })
	}
	eventually(t, func() bool { running, _, _, _ := rt.calls.count(); return running == 0 },
		"a process that runs occupies nobody")
	others[0].Cancel()
	_, err := join(t, others[0])
	require.Equal(t, context.Canceled, err)
	_, err = join(t, others[1])
	var failed *exec.ExitError
	require.ErrorAs(t, err, &failed)
	gone(t, c.Process.Pid)
	inBlockOn(t, rt, func(cx *Context) error {
		_, err := out.Read(cx, make([]byte, 1))
		require.ErrorIs(t, err, os.ErrClosed)
		return nil
	})
}

// Cancel and WaitDelay have the effect that they have in os/exec.
func TestCommandCancelFunc(t *testing.T) {
	rt := fileRuntime(t)
	for _, ignores := range []bool{false, true} {
		script := "echo ready; sleep 1000"
		if ignores {
			script = "trap '' TERM; echo ready; while :; do sleep 1000; done"
		}
		c := Command("sh", "-c", script)
		asked, ready := make(chan struct{}, 1), make(chan struct{}, 1)
		c.Cancel = func() error { notifyChan(asked); return c.Process.Signal(syscall.SIGTERM) }
		c.WaitDelay = time.Millisecond
		h := Go(rt, func(cx *Context) error {
			c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := c.StdoutPipe()
			if err == nil {
				err = c.Start(cx)
			}
			if err == nil {
				_, err = io.ReadFull(BindFile(cx, out), make([]byte, 6))
			}
			if err != nil {
				return err
			}
			ready <- struct{}{}
			return c.Wait(cx)
		})
		receive(t, ready)
		eventually(t, func() bool { return waiting(h) })
		h.Cancel()
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
		receive(t, asked)
		gone(t, c.Process.Pid)
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // the processes that sh has started
	}
}

// A Start that is given up leaves neither a process nor descriptors.
func TestCommandCancelledStart(t *testing.T) {
	rt := fileRuntime(t)
	for i := range 30 {
		c := Command("sleep", "1000")
		_, err := c.StdoutPipe()
		require.NoError(t, err)
		h := Go(rt, c.Run)
		for range i {
			time.Sleep(50 * time.Microsecond)
		}
		h.Cancel()
		_, err = join(t, h)
		require.Equal(t, context.Canceled, err)
		eventually(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.tried && (!c.running || c.ended) })
	}
}

func TestCommandMisuse(t *testing.T) {
	rt := fileRuntime(t)
	inBlockOn(t, rt, func(cx *Context) error {
		c := Command("true")
		require.EqualError(t, c.Wait(cx), "exec: not started")
		require.NoError(t, c.Start(cx))
		require.EqualError(t, c.Start(cx), "exec: already started")
		_, err := c.StdinPipe()
		require.EqualError(t, err, "exec: StdinPipe after process started")
		require.NoError(t, c.Wait(cx))

		c = Command("true")
		for _, pipe := range []func() (*File, error){c.StdinPipe, c.StdoutPipe, c.StderrPipe} {
			_, err := pipe()
			require.NoError(t, err)
			_, err = pipe()
			require.ErrorContains(t, err, "already set")
		}
		_, err = c.Output(cx)
		require.EqualError(t, err, "exec: Stdout already set")
		_, err = c.CombinedOutput(cx)
		require.EqualError(t, err, "exec: Stdout already set")
		require.NoError(t, c.Run(cx))

		over, cancel := cx.WithCancel()
		cancel()
		require.Equal(t, context.Canceled, Command("true").Run(over))
		out, err := Command("true").Output(over)
		require.Nil(t, out)
		require.Equal(t, context.Canceled, err)
		return nil
	})
}

// A Wait that is called before Start does not close the pipes. The caller or the garbage collector
// closes the pipes of a Cmd that is never started.
func TestCommandEarlyWait(t *testing.T) {
	rt := fileRuntime(t)
	inBlockOn(t, rt, func(cx *Context) error {
		c := Command("echo", "hello")
		out, err := c.StdoutPipe()
		require.NoError(t, err)
		require.EqualError(t, c.Wait(cx), "exec: not started")
		require.NoError(t, c.Start(cx))
		b, err := io.ReadAll(BindFile(cx, out))
		require.NoError(t, err)
		require.Equal(t, "hello\n", string(b))
		return c.Wait(cx)
	})
	fds := openFds(t)
	inBlockOn(t, rt, func(cx *Context) error {
		out, err := Command("never").StdoutPipe()
		require.NoError(t, err)
		return out.Close(cx)
	})
	eventually(t, func() bool { runtime.GC(); return openFds(t) <= fds })
}

// Many concurrent processes use as many goroutines of the pool as start at the same time. A process
// that ends after its runtime is reaped, too.
func TestCommandShutdown(t *testing.T) {
	rt, err := New(Config{Workers: 1})
	require.NoError(t, err)
	var all []*Cmd
	inBlockOn(t, rt, func(cx *Context) error {
		for range 10 {
			c := Command("sleep", "1000")
			require.NoError(t, c.Start(cx))
			all = append(all, c)
		}
		return nil
	})
	require.NoError(t, rt.Shutdown(context.Background()))
	for _, c := range all {
		require.NoError(t, syscall.Kill(c.Process.Pid, syscall.SIGKILL))
		gone(t, c.Process.Pid)
	}
}

// A Start that fails takes no data from the streams. The data stays there for other readers.
func TestCommandFailedStartTakesNothing(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	own, peer := two(unixPair(t))
	runInTask(t, rt, func(cx *Context) error {
		p := make([]byte, 10)
		for range 20 {
			if _, err := peer.Write(cx, []byte("hello")); err != nil {
				return err
			}
			c := Command("/no/such/program")
			c.Stdin = BindReader(cx, own)
			if err := c.Run(cx); !errors.Is(err, os.ErrNotExist) {
				return expect(false, "no program: %v", err)
			}
			short, cancel := cx.WithTimeout(time.Second)
			n, err := own.Read(short, p)
			cancel()
			if err := expect(err == nil && string(p[:n]) == "hello", "%q, %v", p[:n], err); err != nil {
				return err
			}
		}
		return nil
	})
}

// A Wait that is cancelled before Start has returned does nothing.
func TestCommandEarlyWaitCancelled(t *testing.T) {
	rt := fileRuntime(t)
	own, _ := two(unixPair(t))
	runInTask(t, rt, func(cx *Context) error {
		over, cancel := cx.WithCancel()
		cancel()
		for range 20 {
			c := Command("echo", "hello")
			out, err := c.StdoutPipe()
			if err != nil {
				return err
			}
			c.Stderr = BindWriter(cx, own)
			if err := c.Wait(over); err != context.Canceled {
				return expect(false, "before Start: %v", err)
			}
			stop := make(chan None)
			meanwhile := Go(rt, func(cx *Context) error { // on another worker
				over, cancel := cx.WithCancel()
				cancel()
				for {
					select {
					case <-stop:
						return nil
					default:
					}
					c.mu.Lock()
					running := c.running
					c.mu.Unlock()
					if running { // from now on a cancelled Wait kills
						return nil
					}
					if err := c.Wait(over); err != context.Canceled {
						return expect(false, "during Start: %v", err)
					}
					Yield(cx)
				}
			})
			err = c.Start(cx)
			close(stop)
			if err := expect(err == nil, "Start: %v", err); err != nil {
				return err
			}
			if _, err := meanwhile.Join(cx); err != nil {
				return err
			}
			if _, err := io.ReadAll(BindFile(cx, out)); err != nil && !errors.Is(err, os.ErrClosed) {
				return err
			}
			c.Wait(cx) // a Wait of meanwhile after Start may have killed the process
		}
		c := Command("echo", "hello")
		c.Stderr = BindWriter(cx, own)
		if err := c.Wait(over); err != context.Canceled {
			return expect(false, "before Start: %v", err)
		}
		out, err := c.Output(cx)
		return expect(err == nil && string(out) == "hello\n", "%q, %v", out, err)
	})
}

// A copying task may end at the same moment as WaitDelay. Then Wait counts it as ended or as late.
// It never returns the error of the context that measures WaitDelay.
func TestCommandWaitDelayEnds(t *testing.T) {
	rt := fileRuntime(t)
	for i := range 2000 {
		c := Command("true")
		c.WaitDelay = time.Duration(1+i%50) * time.Microsecond
		r, w, err := Pipe()
		require.NoError(t, err)
		require.NoError(t, w.src.close())
		begun := time.Now()
		cp := &cmdCopy{bound: NewContext(rt, NewWaker(func() {})), pipe: r, unbind: func() bool { return true }}
		cp.JoinHandle = Go(rt, func(cx *Context) error {
			defer r.src.close()
			for time.Since(begun) < c.WaitDelay {
			}
			return nil
		})
		c.copies = []*cmdCopy{cp}
		if err := c.awaitCopies(); err != nil {
			require.Equal(t, exec.ErrWaitDelay, err)
		}
	}
}

// If the cx of a stream has ended, Start returns its error, whatever the stream is.
func TestCommandBoundEnded(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "file")
	own, _ := two(unixPair(t))
	runInTask(t, rt, func(cx *Context) error {
		f, err := Create(cx, name)
		if err != nil {
			return err
		}
		defer f.Close(cx)
		over, cancel := cx.WithCancel()
		cancel()
		for _, s := range []ReadWriter{f, own} {
			for i := range 3 {
				c := Command("true")
				switch i {
				case 0:
					c.Stdin = BindReader(over, s)
				case 1:
					c.Stdout = BindWriter(over, s)
				case 2:
					c.Stderr = BindWriter(over, s)
				}
				if err := c.Run(cx); err != context.Canceled {
					return expect(false, "%T %d: %v", s, i, err)
				}
			}
		}
		return nil
	})
}
