package async_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"example.com/async"
)

// tempDir is for examples that need files.
func tempDir(cx *async.Context) (dir string, remove func()) {
	dir, err := async.MkdirTemp(cx, "", "example")
	if err != nil {
		panic(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

func ExampleFile() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		f, err := async.Create(cx, filepath.Join(dir, "numbers"))
		if err != nil {
			return err
		}
		for i := range 3 { // small writes are joined, and cost no hand-off each
			fmt.Fprintln(async.BindFile(cx, f), i)
		}
		if _, err := f.Seek(cx, 0, io.SeekStart); err != nil {
			return err
		}
		lines := bufio.NewScanner(async.BindFile(cx, f))
		for lines.Scan() {
			fmt.Println(lines.Text())
		}
		return f.Close(cx) // says so if a write has failed
	})
	// Output:
	// 0
	// 1
	// 2
}

func ExampleReadFile() {
	async.Run(func(cx *async.Context) error {
		_, err := async.ReadFile(cx, "/no/such/file")
		fmt.Println(errors.Is(err, fs.ErrNotExist))
		return nil
	})
	// Output: true
}

func ExampleWalkDir() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		async.MkdirAll(cx, filepath.Join(dir, "a", "b"), 0o700)
		async.WriteFile(cx, filepath.Join(dir, "a", "f"), []byte("x"), 0o600)
		return async.WalkDir(cx, dir, func(path string, d fs.DirEntry, err error) error {
			fmt.Println(strings.TrimPrefix(path, dir), d.IsDir())
			return err
		})
	})
	// Output:
	//  true
	// /a true
	// /a/b true
	// /a/f false
}

func ExampleCopy() {
	async.Run(func(cx *async.Context) error {
		r, w, err := async.Pipe()
		if err != nil {
			return err
		}
		defer r.Close(cx)
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "f")
		async.WriteFile(cx, name, []byte("from file to pipe\n"), 0o600)

		sender := async.Go(cx, func(cx *async.Context) error {
			defer w.Close(cx)
			f, err := async.Open(cx, name)
			if err != nil {
				return err
			}
			defer f.Close(cx)
			_, err = async.Copy(cx, w, f)
			return err
		})
		b, err := io.ReadAll(async.BindFile(cx, r))
		fmt.Print(string(b), err)
		_, err = sender.Join(cx)
		return err
	})
	// Output:
	// from file to pipe
	// <nil>
}

func ExampleCopyError() {
	err := error(&async.CopyError{Unwritten: []byte("rest"), Err: io.ErrClosedPipe})
	var left *async.CopyError
	if errors.As(err, &left) {
		fmt.Printf("%s; to be sent again: %s\n", err, left.Unwritten)
	}
	// Output: io: read/write on closed pipe (4 bytes were read and not written); to be sent again: rest
}

func ExampleUnwrittenError() {
	err := error(&async.UnwrittenError{Files: []async.UnwrittenFile{{Name: "log", Bytes: 80, Err: syscall.ENOSPC}}})
	fmt.Println(err)
	var lost *async.UnwrittenError
	if errors.As(err, &lost) {
		fmt.Println(lost.Files[0].Name, lost.Files[0].Bytes, errors.Is(err, syscall.ENOSPC))
	}
	// Output:
	// async: data that was accepted has not been written: 80 bytes of log: no space left on device
	// log 80 true
}

func ExampleBindReader() {
	async.Run(func(cx *async.Context) error {
		r, w, err := async.Pipe()
		if err != nil {
			return err
		}
		defer r.Close(cx)
		fmt.Fprint(async.BindWriter(cx, w), "42 is the answer")
		w.Close(cx)
		var n int
		fmt.Fscan(async.BindReader(cx, r), &n)
		fmt.Println(n)
		return nil
	})
	// Output: 42
}

func ExamplePipe() {
	async.Run(func(cx *async.Context) error {
		r, w, err := async.Pipe()
		if err != nil {
			return err
		}
		defer r.Close(cx)
		async.Go(cx, func(cx *async.Context) error {
			defer w.Close(cx) // the end for the reader
			_, err := w.WriteString(cx, "through the pipe\n")
			return err
		})
		data, err := io.ReadAll(async.BindFile(cx, r))
		fmt.Print(string(data))
		return err
	})
	// Output: through the pipe
}

func ExampleFromFile() {
	async.Run(func(cx *async.Context) error {
		r, w, err := os.Pipe() // or a file from another library
		if err != nil {
			return err
		}
		go func() {
			defer w.Close()
			fmt.Fprintln(w, "from a goroutine")
		}()
		f, err := async.FromFile(r) // f owns r from now on
		if err != nil {
			return err
		}
		defer f.Close(cx)
		line, err := bufio.NewReader(async.BindFile(cx, f)).ReadString('\n')
		fmt.Print(line)
		return err
	})
	// Output: from a goroutine
}

func ExampleCopyN() {
	async.Run(func(cx *async.Context) error {
		r, w, err := async.Pipe()
		if err != nil {
			return err
		}
		defer r.Close(cx)
		w.WriteString(cx, "header body")
		w.Close(cx)
		dir, remove := tempDir(cx)
		defer remove()
		f, err := async.Create(cx, filepath.Join(dir, "header"))
		if err != nil {
			return err
		}
		defer f.Close(cx)
		fmt.Println(async.CopyN(cx, f, r, 6))
		fmt.Println(async.CopyN(cx, f, r, 100)) // the source ends before
		return nil
	})
	// Output:
	// 6 <nil>
	// 5 EOF
}

// A Reader may be a connection, a file or a pipe.
func ExampleReader() {
	firstLine := func(cx *async.Context, r async.Reader) (string, error) {
		return bufio.NewReader(async.BindReader(cx, r)).ReadString('\n')
	}
	async.Run(func(cx *async.Context) error {
		r, w, err := async.Pipe()
		if err != nil {
			return err
		}
		defer r.Close(cx)
		w.WriteString(cx, "GET /\nHost: example.com\n")
		w.Close(cx)
		line, err := firstLine(cx, r)
		fmt.Print(line)
		return err
	})
	// Output: GET /
}

// A Writer may be a connection, a file or a pipe.
func ExampleWriter() {
	writeNumbers := func(cx *async.Context, w async.Writer) error {
		buffered := bufio.NewWriter(async.BindWriter(cx, w))
		for i := range 3 {
			fmt.Fprintln(buffered, i)
		}
		return buffered.Flush()
	}
	async.Run(func(cx *async.Context) error {
		r, w, err := async.Pipe()
		if err != nil {
			return err
		}
		defer r.Close(cx)
		err = writeNumbers(cx, w)
		w.Close(cx)
		data, _ := io.ReadAll(async.BindFile(cx, r))
		fmt.Print(string(data))
		return err
	})
	// Output:
	// 0
	// 1
	// 2
}

// A poll of a read becomes a future, which other futures can be combined with.
func ExamplePollReader() {
	read := func(r async.PollReader, p []byte) async.Future[int] {
		return async.PollFunc(func(cx *async.Context) (int, error) { return r.PollRead(cx, p) })
	}
	async.Run(func(cx *async.Context) error {
		r, w, err := async.Pipe()
		if err != nil {
			return err
		}
		defer r.Close(cx)
		defer w.Close(cx)
		p := make([]byte, 16)
		_, err = r.PollRead(cx, p)
		fmt.Println(err == async.ErrPending)
		w.WriteString(cx, "now")
		n, err := async.Await(cx, read(r, p))
		fmt.Println(string(p[:n]))
		return err
	})
	// Output:
	// true
	// now
}

func ExampleUnwrittenFile() {
	err := error(&async.UnwrittenError{Files: []async.UnwrittenFile{
		{Name: "log", Bytes: 80, Err: syscall.ENOSPC},
		{Name: "trace", Bytes: 0, Err: context.DeadlineExceeded},
	}})
	var lost *async.UnwrittenError // as of async.Run or Runtime.Shutdown
	if errors.As(err, &lost) {
		for _, f := range lost.Files {
			late := errors.Is(f.Err, context.DeadlineExceeded)
			fmt.Printf("%s: %d bytes, late: %t\n", f.Name, f.Bytes, late)
		}
	}
	// Output:
	// log: 80 bytes, late: false
	// trace: 0 bytes, late: true
}
