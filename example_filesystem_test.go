package async_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing/fstest"
	"time"

	"example.com/async"
)

func ExampleOpen() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "list")
		if err := async.WriteFile(cx, name, []byte("milk\nbread\n"), 0o600); err != nil {
			return err
		}
		f, err := async.Open(cx, name)
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(async.BindFile(cx, f))
		for lines.Scan() {
			fmt.Println(lines.Text())
		}
		return errors.Join(lines.Err(), f.Close(cx))
	})
	// Output:
	// milk
	// bread
}

func ExampleCreate() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "greeting")
		f, err := async.Create(cx, name)
		if err != nil {
			return err
		}
		_, err = f.WriteString(cx, "hello")
		if err := errors.Join(err, f.Close(cx)); err != nil { // the system has the data now
			return err
		}
		data, err := async.ReadFile(cx, name)
		fmt.Println(string(data))
		return err
	})
	// Output: hello
}

func ExampleOpenFile() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "log")
		for _, line := range []string{"start\n", "stop\n"} {
			f, err := async.OpenFile(cx, name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			_, err = f.WriteString(cx, line)
			if err := errors.Join(err, f.Close(cx)); err != nil {
				return err
			}
		}
		data, err := async.ReadFile(cx, name)
		fmt.Print(string(data))
		return err
	})
	// Output:
	// start
	// stop
}

func ExampleCreateTemp() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		f, err := async.CreateTemp(cx, dir, "upload-*.tmp")
		if err != nil {
			return err
		}
		defer async.Remove(cx, f.Name())
		fmt.Println(filepath.Match("upload-*.tmp", filepath.Base(f.Name())))
		return f.Close(cx)
	})
	// Output: true <nil>
}

func ExampleWriteFile() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "config")
		if err := async.WriteFile(cx, name, []byte("port = 80"), 0o600); err != nil {
			return err
		}
		data, err := async.ReadFile(cx, name)
		fmt.Println(string(data))
		return err
	})
	// Output: port = 80
}

func ExampleReadDir() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		for _, name := range []string{"b", "a"} {
			if err := async.Mkdir(cx, filepath.Join(dir, name), 0o700); err != nil {
				return err
			}
		}
		entries, err := async.ReadDir(cx, dir)
		for _, e := range entries {
			fmt.Println(e.Name(), e.IsDir())
		}
		return err
	})
	// Output:
	// a true
	// b true
}

func ExampleMkdir() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "cache")
		fmt.Println(async.Mkdir(cx, name, 0o700))
		err := async.Mkdir(cx, name, 0o700)
		fmt.Println(errors.Is(err, fs.ErrExist))
		return nil
	})
	// Output:
	// <nil>
	// true
}

func ExampleMkdirAll() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "var", "cache", "thumbs")
		if err := async.MkdirAll(cx, name, 0o700); err != nil {
			return err
		}
		info, err := async.Stat(cx, name)
		if err == nil {
			fmt.Println(info.IsDir())
		}
		return err
	})
	// Output: true
}

func ExampleMkdirTemp() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		work, err := async.MkdirTemp(cx, dir, "build-")
		if err != nil {
			return err
		}
		defer async.RemoveAll(cx, work)
		fmt.Println(strings.HasPrefix(filepath.Base(work), "build-"))
		return async.WriteFile(cx, filepath.Join(work, "out"), nil, 0o600)
	})
	// Output: true
}

func ExampleRemove() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "old")
		if err := async.WriteFile(cx, name, nil, 0o600); err != nil {
			return err
		}
		fmt.Println(async.Remove(cx, name))
		_, err := async.Stat(cx, name)
		fmt.Println(errors.Is(err, fs.ErrNotExist))
		return nil
	})
	// Output:
	// <nil>
	// true
}

func ExampleRemoveAll() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		tree := filepath.Join(dir, "a")
		if err := async.MkdirAll(cx, filepath.Join(tree, "b", "c"), 0o700); err != nil {
			return err
		}
		fmt.Println(async.RemoveAll(cx, tree))
		fmt.Println(async.RemoveAll(cx, tree)) // nothing is left to remove
		return nil
	})
	// Output:
	// <nil>
	// <nil>
}

func ExampleRename() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		tmp, name := filepath.Join(dir, "config.tmp"), filepath.Join(dir, "config")
		if err := async.WriteFile(cx, tmp, []byte("new"), 0o600); err != nil {
			return err
		}
		if err := async.Rename(cx, tmp, name); err != nil { // replaces a file of that name
			return err
		}
		data, err := async.ReadFile(cx, name)
		fmt.Println(string(data))
		return err
	})
	// Output: new
}

func ExampleLink() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
		if err := async.WriteFile(cx, first, []byte("shared"), 0o600); err != nil {
			return err
		}
		if err := async.Link(cx, first, second); err != nil {
			return err
		}
		if err := async.Remove(cx, first); err != nil {
			return err
		}
		data, err := async.ReadFile(cx, second)
		fmt.Println(string(data))
		return err
	})
	// Output: shared
}

func ExampleSymlink() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		if err := async.WriteFile(cx, filepath.Join(dir, "v2"), []byte("2"), 0o600); err != nil {
			return err
		}
		if err := async.Symlink(cx, "v2", filepath.Join(dir, "current")); err != nil {
			return err
		}
		data, err := async.ReadFile(cx, filepath.Join(dir, "current"))
		fmt.Println(string(data))
		return err
	})
	// Output: 2
}

func ExampleReadlink() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "current")
		if err := async.Symlink(cx, "v2", name); err != nil { // v2 need not exist
			return err
		}
		fmt.Println(async.Readlink(cx, name))
		return nil
	})
	// Output: v2 <nil>
}

func ExampleEvalSymlinks() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		dir, err := async.EvalSymlinks(cx, dir) // the directory for temporary files may be a link
		if err != nil {
			return err
		}
		if err := async.Mkdir(cx, filepath.Join(dir, "v2"), 0o700); err != nil {
			return err
		}
		if err := async.Symlink(cx, "v2", filepath.Join(dir, "current")); err != nil {
			return err
		}
		path, err := async.EvalSymlinks(cx, filepath.Join(dir, "current"))
		fmt.Println(strings.TrimPrefix(path, dir))
		return err
	})
	// Output: /v2
}

func ExampleStat() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "f")
		if err := async.WriteFile(cx, name, []byte("12345"), 0o600); err != nil {
			return err
		}
		info, err := async.Stat(cx, name)
		if err != nil {
			return err
		}
		fmt.Println(info.Name(), info.Size(), info.Mode())
		return nil
	})
	// Output: f 5 -rw-------
}

func ExampleLstat() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "link")
		if err := async.Symlink(cx, "missing", name); err != nil {
			return err
		}
		_, err := async.Stat(cx, name)
		fmt.Println(errors.Is(err, fs.ErrNotExist)) // Stat follows the link
		info, err := async.Lstat(cx, name)
		if err == nil {
			fmt.Println(info.Mode().Type() == fs.ModeSymlink)
		}
		return err
	})
	// Output:
	// true
	// true
}

func ExampleChmod() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "script")
		if err := async.WriteFile(cx, name, nil, 0o600); err != nil {
			return err
		}
		if err := async.Chmod(cx, name, 0o750); err != nil {
			return err
		}
		info, err := async.Stat(cx, name)
		if err == nil {
			fmt.Println(info.Mode())
		}
		return err
	})
	// Output: -rwxr-x---
}

func ExampleChown() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "f")
		if err := async.WriteFile(cx, name, nil, 0o600); err != nil {
			return err
		}
		if err := async.Chown(cx, name, -1, os.Getgid()); err != nil { // -1: the owner stays
			return err
		}
		info, err := async.Stat(cx, name)
		if err == nil {
			fmt.Println(int(info.Sys().(*syscall.Stat_t).Gid) == os.Getgid())
		}
		return err
	})
	// Output: true
}

func ExampleLchown() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "link")
		if err := async.Symlink(cx, "missing", name); err != nil {
			return err
		}
		err := async.Chown(cx, name, -1, os.Getgid())
		fmt.Println(errors.Is(err, fs.ErrNotExist)) // Chown follows the link
		fmt.Println(async.Lchown(cx, name, -1, os.Getgid()))
		return nil
	})
	// Output:
	// true
	// <nil>
}

func ExampleChtimes() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "f")
		if err := async.WriteFile(cx, name, nil, 0o600); err != nil {
			return err
		}
		then := time.Date(2020, time.May, 1, 12, 0, 0, 0, time.UTC)
		if err := async.Chtimes(cx, name, then, then); err != nil {
			return err
		}
		info, err := async.Stat(cx, name)
		if err == nil {
			fmt.Println(info.ModTime().Equal(then))
		}
		return err
	})
	// Output: true
}

func ExampleTruncate() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name := filepath.Join(dir, "f")
		if err := async.WriteFile(cx, name, []byte("hello world"), 0o600); err != nil {
			return err
		}
		if err := async.Truncate(cx, name, 5); err != nil {
			return err
		}
		data, err := async.ReadFile(cx, name)
		fmt.Println(string(data))
		return err
	})
	// Output: hello
}

func ExampleCopyFS() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		files := fstest.MapFS{"index.html": {Data: []byte("<p>hi</p>")}} // or an embed.FS
		site := filepath.Join(dir, "site")
		if err := async.CopyFS(cx, site, files); err != nil {
			return err
		}
		data, err := async.ReadFile(cx, filepath.Join(site, "index.html"))
		fmt.Println(string(data))
		return err
	})
	// Output: <p>hi</p>
}

func ExampleCopyFile() {
	async.Run(func(cx *async.Context) error {
		dir, remove := tempDir(cx)
		defer remove()
		name, backup := filepath.Join(dir, "data"), filepath.Join(dir, "data.bak")
		if err := async.WriteFile(cx, name, []byte("precious"), 0o600); err != nil {
			return err
		}
		fmt.Println(async.CopyFile(cx, backup, name))
		data, err := async.ReadFile(cx, backup)
		fmt.Println(string(data))
		return err
	})
	// Output:
	// 8 <nil>
	// precious
}
