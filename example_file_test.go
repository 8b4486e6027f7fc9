package async_test

import (
	"bufio"
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
