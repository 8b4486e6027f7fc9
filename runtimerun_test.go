package async

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// leaveFile are the ways in which the function of Run leaves a File that has accepted data, without
// waiting until it is written.
var leaveFile = map[string]func(cx *Context, f *File){
	"open": func(*Context, *File) {},
	"closed with a cancelled Context": func(cx *Context, f *File) {
		cx, cancel := cx.WithCancel()
		cancel()
		f.Close(cx)
	},
	"closed and not awaited": func(cx *Context, f *File) { f.CloseFuture().Poll(cx) },
}

// Data that File.Write has accepted is in the file when Run returns. That holds for each way in
// which its function leaves the file, and also if the function panics.
func TestRunWritesWhatWasAccepted(t *testing.T) {
	const files = 40
	data := pattern(bufferLarge)
	for how, leave := range leaveFile {
		for _, panics := range []bool{false, true} {
			t.Run(strings.ReplaceAll(fmt.Sprint(how, ", panics ", panics), " ", "_"), func(t *testing.T) {
				dir := os.Getenv("ASYNC_TEST_DIR")
				name := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
				if inChild(t) {
					Run(func(cx *Context) error {
						var all []*File
						for i := range files {
							all = append(all, must(Create(cx, name(i))))
						}
						for _, f := range all {
							must(f.Write(cx, data))
							defer leave(cx, f)
						}
						if panics {
							panic("on purpose")
						}
						return nil
					})
					os.Exit(0) // as when main returns, before package testing does anything
				}
				dir = t.TempDir()
				out, err := child(t, "ASYNC_TEST_DIR="+dir).CombinedOutput()
				require.NoError(t, err, "%s", out)
				for i := range files {
					got, err := os.ReadFile(name(i))
					require.NoError(t, err)
					require.Equal(t, len(data), len(got), "file %d", i)
					require.True(t, bytes.Equal(data, got), "file %d", i)
				}
			})
		}
	}
}

// A cancelled Write to Stdout returns how much data it has accepted. Run waits until this data is
// written, also if Stdout is then closed.
func TestRunWritesStdout(t *testing.T) {
	const size = 200 << 10 // more than a pipe holds, and all of it is accepted
	for how, leave := range leaveFile {
		t.Run(strings.ReplaceAll(how, " ", "_"), func(t *testing.T) {
			if inChild(t) {
				writeStdoutInRun(size, func(cx *Context) {
					leave(cx, Stdout)
					fmt.Fprintln(os.Stderr, "returns")
				})
				os.Exit(0)
			}
			cmd := child(t)
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			stderr, err := cmd.StderrPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			_, err = io.ReadFull(stderr, make([]byte, len("returns\n")))
			require.NoError(t, err)
			got, err := io.ReadAll(stdout) // only now is there room for more data than the pipe holds
			require.NoError(t, err)
			require.NoError(t, cmd.Wait())
			require.Equal(t, size, len(got))
		})
	}
}

// The wait of Run is limited, and its error says which data is lost.
func TestRunGivesUpOnStuckWrites(t *testing.T) {
	const size = 200 << 10
	if inChild(t) {
		fmt.Fprint(os.Stderr, writeStdoutInRun(size, func(*Context) {}))
		os.Exit(0)
	}
	cmd := child(t)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close() // which is never read
	defer w.Close()
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	require.NoError(t, cmd.Run())
	require.Contains(t, stderr.String(), fmt.Sprintf("%d bytes of /dev/stdout: context deadline exceeded", size))
}

// writeStdoutInRun writes size bytes to Stdout in Run, gives up the Write when all bytes have been
// accepted, and calls returns last.
func writeStdoutInRun(size int, returns func(cx *Context)) error {
	return Run(func(cx *Context) error {
		writer := Go(cx, func(cx *Context) error {
			Stdout.Write(cx, make([]byte, size))
			return nil
		})
		for accepted := int64(0); accepted < int64(size); {
			Yield(cx)
			Stdout.mu.Lock()
			accepted = Stdout.accepted
			Stdout.mu.Unlock()
		}
		writer.Cancel()
		writer.Join(cx)
		returns(cx)
		return nil
	})
}

// If the function of Run returns an error, Run returns this error and its own.
func TestRunTellsOfFailedWrites(t *testing.T) {
	if inChild(t) {
		err := Run(func(cx *Context) error {
			f := must(Create(cx, filepath.Join(os.TempDir(), fmt.Sprint("async-test-", os.Getpid()))))
			os.Remove(f.Name())
			f.os.Close() // the File does not see this, and its writes fail from now on
			must(f.Write(cx, []byte("data")))
			return io.ErrNoProgress
		})
		fmt.Fprint(os.Stderr, err)
		os.Exit(0)
	}
	out, err := child(t).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), io.ErrNoProgress.Error())
	require.Contains(t, string(out), "4 bytes of ")
	require.Contains(t, string(out), os.ErrClosed.Error())
}
