package async

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The programs that are run are this test, started again with what it is to do in
// a variable.
const programEnv = "ASYNC_TEST_PROGRAM"

func init() {
	switch do, arg, _ := strings.Cut(os.Getenv(programEnv), " "); do {
	case "":
	case "exit":
		os.Stdout.WriteString("out")
		os.Stderr.WriteString("err")
		var code int
		fmt.Sscan(arg, &code)
		os.Exit(code)
	case "cat":
		io.Copy(os.Stdout, os.Stdin)
		os.Exit(0)
	case "flood":
		os.Stderr.Write(bytes.Repeat([]byte("e"), 1<<20))
		os.Stderr.WriteString("end")
		os.Exit(1)
	case "where":
		dir, _ := os.Getwd()
		fmt.Print(dir)
		os.Exit(0)
	case "hang":
		fmt.Println("hanging")
		select {
		case <-time.After(10 * patience): // in case nobody kills it
			os.Exit(3)
		}
	case "close":
		os.Stdin.Close()
		fmt.Println("closed")
		io.Copy(io.Discard, os.Stdin)
		time.Sleep(10 * patience)
	default:
		os.Exit(4)
	}
}

// program returns the Cmd that does this.
func program(do string) *Cmd {
	c := Command(os.Args[0])
	c.Env = append(os.Environ(), programEnv+"="+do, "GORACE=atexit_sleep_ms=0")
	return c
}

// noChildren fails the test if there is a child, be it a zombie, after a
// while.
func noChildren(t *testing.T) {
	t.Helper()
	eventually(t, func() bool {
		return errors.Is(unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil), unix.ECHILD)
	}, "a child is left")
}

func TestCmdOutputs(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	inTask(t, rt, func(cx *Context) error {
		out, err := program("exit 0").Output(cx)
		require.NoError(t, err)
		require.Equal(t, "out", string(out))

		out, err = program("exit 7").Output(cx)
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 7, exit.ExitCode())
		require.Equal(t, "out", string(out))
		require.Equal(t, "err", string(exit.Stderr))

		out, err = program("exit 0").CombinedOutput(cx)
		require.NoError(t, err)
		require.Equal(t, "outerr", string(out))

		_, err = program("flood").Output(cx)
		require.ErrorAs(t, err, &exit)
		require.Len(t, exit.Stderr, tailSize)
		require.True(t, bytes.HasSuffix(exit.Stderr, []byte("end")))

		dir, err := filepath.EvalSymlinks(t.TempDir())
		require.NoError(t, err)
		c := program("where")
		c.Dir = dir
		out, err = c.Output(cx)
		require.NoError(t, err)
		require.Equal(t, dir, string(out))
		return nil
	})
	noChildren(t)
}

// Errors are those of package exec.
func TestCmdCannotStart(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	plain := filepath.Join(t.TempDir(), "plain")
	require.NoError(t, os.WriteFile(plain, nil, 0o600))
	inTask(t, rt, func(cx *Context) error {
		for _, c := range []struct {
			name string
			kind error
		}{
			{"a-program-that-does-not-exist", exec.ErrNotFound},
			{"/does/not/exist", fs.ErrNotExist},
			{plain, fs.ErrPermission},
			{"/", syscall.EISDIR},
			{"", nil},
			{"nul\x00", nil},
		} {
			want := exec.Command(c.name).Run()
			cmd := Command(c.name)
			in, err := cmd.StdinPipe()
			require.NoError(t, err)
			got := cmd.Run(cx)
			require.Error(t, got)
			require.Equal(t, want.Error(), got.Error(), c.name)
			if c.kind != nil {
				require.ErrorIs(t, got, c.kind)
			}
			require.Equal(t, got, cmd.Wait(cx))
			_, err = in.Write(cx, []byte("x"))
			require.ErrorIs(t, err, fs.ErrClosed, "the pipe was not closed")
		}
		return nil
	})
	noChildren(t)
}

func TestCmdPipes(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	inTask(t, rt, func(cx *Context) error {
		c := program("cat")
		in, err := c.StdinPipe()
		require.NoError(t, err)
		out, err := c.StdoutPipe()
		require.NoError(t, err)
		_, err = c.StdinPipe()
		require.Error(t, err)
		require.NoError(t, c.Start(cx))
		require.Error(t, c.Start(cx), "it has been started")
		_, err = c.StderrPipe()
		require.Error(t, err, "it has been started")

		// More than fits into the pipes, so both ends have to wait.
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		writer := Go(cx, func(cx *Context) error {
			_, err := in.Write(cx, data)
			return errors.Join(err, in.Close(cx))
		})
		got, err := io.ReadAll(out.WithContext(cx))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
		_, err = writer.Await(cx)
		require.NoError(t, err)
		require.NoError(t, c.Wait(cx))
		require.NoError(t, c.Wait(cx), "once more")
		return out.Close(cx)
	})
	noChildren(t)
}

// What the child has written before its end can be read after Wait.
func TestCmdReadAfterWait(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	inTask(t, rt, func(cx *Context) error {
		c := program("exit 0")
		out, err := c.StdoutPipe()
		require.NoError(t, err)
		errs, err := c.StderrPipe()
		require.NoError(t, err)
		require.NoError(t, c.Run(cx))
		got, err := io.ReadAll(out.WithContext(cx))
		require.NoError(t, err)
		require.Equal(t, "out", string(got))
		got, err = io.ReadAll(errs.WithContext(cx))
		require.NoError(t, err)
		require.Equal(t, "err", string(got))
		return errors.Join(out.Close(cx), errs.Close(cx))
	})
}

func TestCmdChildClosesItsInput(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	inTask(t, rt, func(cx *Context) error {
		c := program("close")
		in, err := c.StdinPipe()
		require.NoError(t, err)
		out, err := c.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, c.Start(cx))
		_, err = out.Read(cx, make([]byte, 10)) // it has closed it
		require.NoError(t, err)
		_, err = in.Write(cx, make([]byte, 1<<20))
		require.ErrorIs(t, err, syscall.EPIPE)
		require.NoError(t, c.Process.Kill())
		var exit *exec.ExitError
		require.ErrorAs(t, c.Wait(cx), &exit)
		require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())
		return errors.Join(in.Close(cx), out.Close(cx))
	})
	noChildren(t)
}

// Whoever waits and is cancelled kills the child; the others hear of it.
func TestCmdCancelKills(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	cmds := make(chan *Cmd, 1)
	waits := Go(rt, func(cx *Context) error {
		c := program("hang")
		out, err := c.StdoutPipe()
		require.NoError(t, err)
		defer out.discard()
		require.NoError(t, c.Start(cx))
		_, err = out.Read(cx, make([]byte, 10))
		require.NoError(t, err)
		cmds <- c
		return c.Wait(cx)
	})
	c := receive(t, cmds)
	watches := Go(rt, c.Wait)
	eventually(t, func() bool { return waiting(waits) && waiting(watches) })
	waits.Cancel()
	_, err := join(t, waits)
	require.Equal(t, context.Canceled, err)
	_, err = join(t, watches)
	var exit *exec.ExitError
	require.True(t, errors.As(err, &exit) || errors.Is(err, context.Canceled), "%v", err)
	noChildren(t)

	inTask(t, rt, func(cx *Context) error {
		short, cancel := cx.WithTimeout(time.Millisecond)
		defer cancel()
		_, err := program("hang").Output(short)
		require.Equal(t, context.DeadlineExceeded, err)
		require.Equal(t, context.DeadlineExceeded, program("hang").Start(short))
		return nil
	})
	noChildren(t)
}

// A start that is cancelled at any moment leaves nothing.
func TestCmdCancelledStart(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	for range 20 {
		h := Go(rt, func(cx *Context) error { return program("hang").Run(cx) })
		eventually(t, func() bool { return waiting(h) })
		h.Cancel()
		_, err := join(t, h)
		require.Equal(t, context.Canceled, err)
	}
	noChildren(t)
}

// A child that nobody waits for goes on, and leaves no zombie.
func TestCmdNobodyWaits(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	var in *File
	inTask(t, rt, func(cx *Context) (err error) {
		c := program("cat")
		if in, err = c.StdinPipe(); err != nil {
			return err
		}
		return c.Start(cx)
	})
	require.NoError(t, unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil), "it has ended")
	inTask(t, rt, in.Close)
	noChildren(t)
}

func TestCmdWaitBeforeStart(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	inTask(t, rt, func(cx *Context) error {
		require.Error(t, Command("true").Wait(cx))
		c := program("exit 0")
		c.Stdout = io.Discard
		_, err := c.Output(cx)
		require.Error(t, err)
		_, err = c.CombinedOutput(cx)
		require.Error(t, err)
		_, err = c.StdoutPipe()
		require.Error(t, err)
		return nil
	})
}

// Its future form can be polled by hand: the outcome wakes once.
func TestOutcome(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	cx, wakes := newPollCx(t, rt)
	var o outcome
	_, err := o.Poll(cx)
	require.Equal(t, ErrPending, err)
	o.settle(io.EOF)
	require.EqualValues(t, 1, wakes.Load())
	for range 3 {
		_, err = o.Poll(cx)
		require.Equal(t, io.EOF, err)
	}
}
