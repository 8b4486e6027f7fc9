package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// osCalls is either the functions of package os, or the functions of this package under the same
// names.
type osCalls struct {
	open         func(string) (io.Closer, error)
	create       func(string) (io.Closer, error)
	openFile     func(string, int, fs.FileMode) (io.Closer, error)
	createTemp   func(string, string) (io.Closer, error)
	readFile     func(string) ([]byte, error)
	writeFile    func(string, []byte, fs.FileMode) error
	readDir      func(string) ([]fs.DirEntry, error)
	mkdir        func(string, fs.FileMode) error
	mkdirAll     func(string, fs.FileMode) error
	mkdirTemp    func(string, string) (string, error)
	remove       func(string) error
	removeAll    func(string) error
	rename       func(string, string) error
	link         func(string, string) error
	symlink      func(string, string) error
	readlink     func(string) (string, error)
	stat         func(string) (fs.FileInfo, error)
	lstat        func(string) (fs.FileInfo, error)
	chmod        func(string, fs.FileMode) error
	chown        func(string, int, int) error
	lchown       func(string, int, int) error
	chtimes      func(string, time.Time, time.Time) error
	truncate     func(string, int64) error
	copyFS       func(string, fs.FS) error
	evalSymlinks func(string) (string, error)
	walkDir      func(string, fs.WalkDirFunc) error
}

func closable[F io.Closer](f F, err error) (io.Closer, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

var stdCalls = osCalls{
	open:         func(n string) (io.Closer, error) { return closable(os.Open(n)) },
	create:       func(n string) (io.Closer, error) { return closable(os.Create(n)) },
	openFile:     func(n string, f int, m fs.FileMode) (io.Closer, error) { return closable(os.OpenFile(n, f, m)) },
	createTemp:   func(d, p string) (io.Closer, error) { return closable(os.CreateTemp(d, p)) },
	readFile:     os.ReadFile,
	writeFile:    os.WriteFile,
	readDir:      os.ReadDir,
	mkdir:        os.Mkdir,
	mkdirAll:     os.MkdirAll,
	mkdirTemp:    os.MkdirTemp,
	remove:       os.Remove,
	removeAll:    os.RemoveAll,
	rename:       os.Rename,
	link:         os.Link,
	symlink:      os.Symlink,
	readlink:     os.Readlink,
	stat:         os.Stat,
	lstat:        os.Lstat,
	chmod:        os.Chmod,
	chown:        os.Chown,
	lchown:       os.Lchown,
	chtimes:      os.Chtimes,
	truncate:     os.Truncate,
	copyFS:       os.CopyFS,
	evalSymlinks: filepath.EvalSymlinks,
	walkDir:      filepath.WalkDir,
}

func bind1[A, R any](cx *Context, f func(*Context, A) (R, error)) func(A) (R, error) {
	return func(a A) (R, error) { return f(cx, a) }
}

func bindE[A any](cx *Context, f func(*Context, A) error) func(A) error {
	return func(a A) error { return f(cx, a) }
}

func bindE2[A, B any](cx *Context, f func(*Context, A, B) error) func(A, B) error {
	return func(a A, b B) error { return f(cx, a, b) }
}

func bindE3[A, B, C any](cx *Context, f func(*Context, A, B, C) error) func(A, B, C) error {
	return func(a A, b B, c C) error { return f(cx, a, b, c) }
}

func asyncCalls(cx *Context) osCalls {
	file := func(f *File, err error) (io.Closer, error) {
		if err != nil {
			return nil, err
		}
		return BindFile(cx, f), nil
	}
	return osCalls{
		open:         func(n string) (io.Closer, error) { return file(Open(cx, n)) },
		create:       func(n string) (io.Closer, error) { return file(Create(cx, n)) },
		openFile:     func(n string, f int, m fs.FileMode) (io.Closer, error) { return file(OpenFile(cx, n, f, m)) },
		createTemp:   func(d, p string) (io.Closer, error) { return file(CreateTemp(cx, d, p)) },
		readFile:     bind1(cx, ReadFile),
		writeFile:    bindE3(cx, WriteFile),
		readDir:      bind1(cx, ReadDir),
		mkdir:        bindE2(cx, Mkdir),
		mkdirAll:     bindE2(cx, MkdirAll),
		mkdirTemp:    func(d, p string) (string, error) { return MkdirTemp(cx, d, p) },
		remove:       bindE(cx, Remove),
		removeAll:    bindE(cx, RemoveAll),
		rename:       bindE2(cx, Rename),
		link:         bindE2(cx, Link),
		symlink:      bindE2(cx, Symlink),
		readlink:     bind1(cx, Readlink),
		stat:         bind1(cx, Stat),
		lstat:        bind1(cx, Lstat),
		chmod:        bindE2(cx, Chmod),
		chown:        bindE3(cx, Chown),
		lchown:       bindE3(cx, Lchown),
		chtimes:      bindE3(cx, Chtimes),
		truncate:     bindE2(cx, Truncate),
		copyFS:       bindE2(cx, CopyFS),
		evalSymlinks: bind1(cx, EvalSymlinks),
		walkDir:      bindE2(cx, WalkDir),
	}
}

// fsNames are the file names with which each function is tried.
var fsNames = []string{
	"file", "empty", "dir", "dir/inner", "missing", "missing/below", "file/below", "link", "dangling",
	"loop", "toDir", "toDir/inner", "", "nul\x00", "full", "noaccess",
	strings.Repeat("n", 300), strings.Repeat("long/", 1000),
}

// plantTree makes a directory tree, the same each time, and returns its directory.
func plantTree(t *testing.T) string {
	dir := t.TempDir()
	at := func(n string) string { return filepath.Join(dir, n) }
	require.NoError(t, os.WriteFile(at("file"), []byte("contents"), 0o640))
	require.NoError(t, os.WriteFile(at("empty"), nil, 0o600))
	require.NoError(t, os.WriteFile(at("noaccess"), []byte("x"), 0))
	require.NoError(t, os.Mkdir(at("dir"), 0o750))
	require.NoError(t, os.WriteFile(at("dir/inner"), []byte("inner"), 0o600))
	for link, to := range map[string]string{
		"link": "file", "dangling": "missing", "loop": "loop", "toDir": "dir", "full": "/dev/full",
	} {
		require.NoError(t, os.Symlink(to, at(link)))
	}
	then := time.Unix(1e9, 0)
	require.NoError(t, os.Chtimes(at("file"), then, then))
	return dir
}

// kindOf describes an error by its type, its operation, its path within dir and
// its cause, without the names that differ.
func kindOf(dir string, err error) string {
	if err == nil {
		return "ok"
	}
	var pe *fs.PathError
	var le *os.LinkError
	s := fmt.Sprintf("%T", err)
	in := func(p string) string { return tempName.ReplaceAllString(strings.ReplaceAll(p, dir, "DIR"), "temp*end") }
	if errors.As(err, &pe) {
		s += fmt.Sprintf(" %s %s", pe.Op, in(pe.Path))
	}
	if errors.As(err, &le) {
		s += fmt.Sprintf(" %s %s %s", le.Op, in(le.Old), in(le.New))
	}
	for _, is := range []error{fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, fs.ErrInvalid, fs.ErrClosed} {
		s += fmt.Sprint(" ", errors.Is(err, is))
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		s += " " + errno.Error()
	}
	return s
}

var tempName = regexp.MustCompile(`temp[0-9]+end`)

// describe lists a tree: names, modes, sizes, times that were set, contents.
func describe(t *testing.T, dir string) (all []string) {
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %v %d %d %d", strings.TrimPrefix(p, dir), info.Mode(), st.Uid, st.Gid, st.Nlink)
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			require.NoError(t, err)
			line += fmt.Sprintf(" %q", b)
			if time.Since(info.ModTime()) > time.Hour {
				line += info.ModTime().String()
			}
		}
		all = append(all, line)
		return nil
	}))
	return all
}

// shownTree returns the list of describe as one string, without the name of dir.
func shownTree(t *testing.T, dir string) string {
	return strings.ReplaceAll(strings.Join(describe(t, dir), "\n"), dir, "DIR")
}

// Each function changes a tree as its twin in package os does, with the same results
// and errors.
func TestFSTwins(t *testing.T) {
	rt := fileRuntime(t)
	shown := func(info fs.FileInfo, err error) (string, error) {
		if err != nil {
			return "", err
		}
		return fmt.Sprint(info.Name(), info.Mode(), info.IsDir()), nil
	}
	named := func(dir string, c io.Closer, err error) (string, error) {
		if err != nil {
			return "", err
		}
		name := c.(interface{ Name() string }).Name()
		return strings.ReplaceAll(name, dir, "DIR"), c.Close()
	}
	written := func(c io.Closer, err error) (string, error) {
		if err != nil {
			return "", err
		}
		_, err = io.WriteString(c.(io.Writer), "written")
		if err == nil {
			_, err = c.(io.ReaderAt).ReadAt(make([]byte, 3), 1) // the data is written now
		}
		c.Close()
		return "", err
	}
	then := time.Unix(2e8, 0)
	ops := map[string]func(c osCalls, dir, name string) (string, error){
		"Open":     func(c osCalls, d, n string) (string, error) { f, err := c.open(n); return named(d, f, err) },
		"Create":   func(c osCalls, d, n string) (string, error) { return written(c.create(n)) },
		"OpenFile": func(c osCalls, d, n string) (string, error) { return written(c.openFile(n, os.O_RDWR, 0)) },
		"OpenExcl": func(c osCalls, d, n string) (string, error) {
			return written(c.openFile(n, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o604))
		},
		"OpenAppend": func(c osCalls, d, n string) (string, error) { return written(c.openFile(n, os.O_RDWR|os.O_APPEND, 0)) },
		"OpenRead":   func(c osCalls, d, n string) (string, error) { return written(c.openFile(n, os.O_RDONLY, 0)) },
		"OpenSync":   func(c osCalls, d, n string) (string, error) { return written(c.openFile(n, os.O_RDWR|os.O_SYNC, 0)) },
		"CreateTemp": func(c osCalls, d, n string) (string, error) {
			f, err := c.createTemp(n, "temp*end")
			s, err := named(d, f, err)
			if i := strings.LastIndex(s, "temp"); i >= 0 {
				os.Remove(strings.ReplaceAll(s, "DIR", d))
				s = s[:i] + "temp"
			}
			return s, err
		},
		"CreateTempPattern": func(c osCalls, d, n string) (string, error) { _, err := c.createTemp(d, "a/b"); return "", err },
		"ReadFile":          func(c osCalls, d, n string) (string, error) { b, err := c.readFile(n); return string(b), err },
		"WriteFile":         func(c osCalls, d, n string) (string, error) { return "", c.writeFile(n, []byte("new"), 0o604) },
		"ReadDir": func(c osCalls, d, n string) (string, error) {
			all, err := c.readDir(n)
			return fmt.Sprint(all), err
		},
		"Mkdir":    func(c osCalls, d, n string) (string, error) { return "", c.mkdir(n, 0o701) },
		"MkdirAll": func(c osCalls, d, n string) (string, error) { return "", c.mkdirAll(n, 0o701) },
		"MkdirTemp": func(c osCalls, d, n string) (string, error) {
			s, err := c.mkdirTemp(n, "temp*end")
			if err == nil {
				os.Remove(s)
				s = strings.ReplaceAll(s[:strings.LastIndex(s, "temp")], d, "DIR")
			}
			return s, err
		},
		"Remove":     func(c osCalls, d, n string) (string, error) { return "", c.remove(n) },
		"RemoveAll":  func(c osCalls, d, n string) (string, error) { return "", c.removeAll(n) },
		"Rename":     func(c osCalls, d, n string) (string, error) { return "", c.rename(n, d+"/renamed") },
		"RenameOnto": func(c osCalls, d, n string) (string, error) { return "", c.rename(d+"/file", n) },
		"Link":       func(c osCalls, d, n string) (string, error) { return "", c.link(n, d+"/linked") },
		"LinkOnto":   func(c osCalls, d, n string) (string, error) { return "", c.link(d+"/file", n) },
		"Symlink":    func(c osCalls, d, n string) (string, error) { return "", c.symlink("file", n) },
		"Readlink":   func(c osCalls, d, n string) (string, error) { return c.readlink(n) },
		"Stat":       func(c osCalls, d, n string) (string, error) { return shown(c.stat(n)) },
		"Lstat":      func(c osCalls, d, n string) (string, error) { return shown(c.lstat(n)) },
		"Chmod":      func(c osCalls, d, n string) (string, error) { return "", c.chmod(n, 0o707) },
		"Chown":      func(c osCalls, d, n string) (string, error) { return "", c.chown(n, os.Getuid(), os.Getgid()) },
		"Lchown":     func(c osCalls, d, n string) (string, error) { return "", c.lchown(n, os.Getuid(), os.Getgid()) },
		"Chtimes":    func(c osCalls, d, n string) (string, error) { return "", c.chtimes(n, then, then) },
		"Truncate":   func(c osCalls, d, n string) (string, error) { return "", c.truncate(n, 3) },
		"TruncateTo": func(c osCalls, d, n string) (string, error) { return "", c.truncate(n, -1) },
		"CopyFS": func(c osCalls, d, n string) (string, error) {
			return "", c.copyFS(n, fstest.MapFS{"a/b": {Data: []byte("b")}})
		},
		"EvalSymlinks": func(c osCalls, d, n string) (string, error) {
			s, err := c.evalSymlinks(n)
			return strings.ReplaceAll(s, d, "DIR"), err
		},
		"WalkDir": func(c osCalls, d, n string) (string, error) {
			var seen []string
			err := c.walkDir(n, func(p string, e fs.DirEntry, err error) error {
				seen = append(seen, fmt.Sprint(strings.ReplaceAll(p, d, "DIR"), e, kindOf(d, err)))
				return err
			})
			return fmt.Sprint(seen), err
		},
	}
	oldMask := unix.Umask(0o022)
	defer unix.Umask(oldMask)
	planted := shownTree(t, plantTree(t))
	for name, op := range ops {
		t.Run(name, func(t *testing.T) {
			dirs := [2]string{plantTree(t), plantTree(t)} // for package os and for this package
			for _, n := range fsNames {
				if n == "full" && slices.Contains([]string{"Chmod", "Chown", "Chtimes", "ReadFile"}, name) {
					continue // /dev/full belongs to the system, and has no end
				}
				if n == "" && name == "CopyFS" {
					// Package os takes "" for the root directory, where the user root may write.
					continue
				}
				var results, trees []string
				run := func(i int, c osCalls) {
					dir := dirs[i]
					full := dir + "/" + n
					if n == "" {
						full = ""
					}
					s, err := op(c, dir, full)
					results = append(results, strings.ReplaceAll(s, dir, "DIR")+"; "+kindOf(dir, err))
					tree := shownTree(t, dir)
					trees = append(trees, tree)
					if tree != planted {
						dirs[i] = plantTree(t)
					}
				}
				run(0, stdCalls)
				inBlockOn(t, rt, func(cx *Context) error { run(1, asyncCalls(cx)); return nil })
				require.Equal(t, results[0], results[1], "%s(%.40q)", name, n)
				require.Equal(t, trees[0], trees[1], "%s(%.40q)", name, n)
			}
		})
	}
}

// The methods of a File return the errors of an os.File: for a directory, without the access mode
// that they need, and after Close.
func TestFileTwins(t *testing.T) {
	rt := fileRuntime(t)
	type twin interface {
		io.ReadWriteSeeker
		io.ReaderAt
		io.WriterAt
		io.Closer
		fs.ReadDirFile
		Sync() error
		Truncate(int64) error
	}
	ops := map[string]func(f twin, flush func() error) error{
		"Read":      func(f twin, _ func() error) error { _, err := f.Read(make([]byte, 1)); return err },
		"ReadEmpty": func(f twin, _ func() error) error { _, err := f.Read(nil); return err },
		"Write": func(f twin, flush func() error) error {
			_, err := f.Write([]byte("x"))
			return errors.Join(err, flush())
		},
		"Seek":       func(f twin, _ func() error) error { _, err := f.Seek(-1, io.SeekStart); return err },
		"SeekWhence": func(f twin, _ func() error) error { _, err := f.Seek(0, 77); return err },
		"ReadAt":     func(f twin, _ func() error) error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
		"ReadAtNeg":  func(f twin, _ func() error) error { _, err := f.ReadAt(make([]byte, 1), -1); return err },
		"ReadAtFar":  func(f twin, _ func() error) error { _, err := f.ReadAt(make([]byte, 1), 1000); return err },
		"WriteAt":    func(f twin, _ func() error) error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"WriteAtNeg": func(f twin, _ func() error) error { _, err := f.WriteAt([]byte("x"), -1); return err },
		"Truncate":   func(f twin, _ func() error) error { return f.Truncate(1) },
		"TruncateTo": func(f twin, _ func() error) error { return f.Truncate(-1) },
		"Stat":       func(f twin, _ func() error) error { _, err := f.Stat(); return err },
		"Sync":       func(f twin, _ func() error) error { return f.Sync() },
		"Close":      func(f twin, _ func() error) error { return f.Close() },
		"ReadDir":    func(f twin, _ func() error) error { _, err := f.ReadDir(-1); return err },
		"ReadDirEnd": func(f twin, _ func() error) error { _, err := f.ReadDir(3); return err },
	}
	dir := plantTree(t)
	contents := map[string]string{"file": "contents", "empty": ""}
	for _, name := range []string{"file", "empty", "dir", "full"} {
		for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND} {
			if name == "dir" && flag != os.O_RDONLY {
				continue
			}
			for _, closed := range []bool{false, true} {
				for opName, op := range ops {
					what := fmt.Sprintf("%s of %s, flags %#x, closed %v", opName, name, flag, closed)
					if was, regular := contents[name]; regular {
						require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(was), 0))
					}
					std, err := os.OpenFile(filepath.Join(dir, name), flag, 0)
					require.NoError(t, err)
					if closed {
						std.Close()
					}
					want := kindOf(dir, op(std, func() error { return nil }))
					std.Close()
					if was, regular := contents[name]; regular {
						require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(was), 0))
					}
					inBlockOn(t, rt, func(cx *Context) error {
						f, err := OpenFile(cx, filepath.Join(dir, name), flag, 0)
						require.NoError(t, err)
						if closed {
							require.NoError(t, f.Close(cx))
						}
						flush := func() error { return f.Flush(cx) }
						got := kindOf(dir, op(BindFile(cx, f), flush))
						switch {
						case closed && strings.HasPrefix(opName, "ReadDir"):
							// Package os names the system call: readdirent, getdirentries.
							require.Contains(t, got, "*fs.PathError readdir")
						case closed && want != got:
							// A File checks whether it is closed before it checks the arguments.
							require.True(t, strings.HasSuffix(opName, "Neg") || strings.HasPrefix(opName, "WriteAt"), what)
							require.Contains(t, got, "false true", what)
						default:
							require.Equal(t, want, got, what)
						}
						f.Close(cx)
						return nil
					})
				}
			}
		}
	}
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := Open(cx, filepath.Join(dir, "file"))
		require.NoError(t, err)
		require.NoError(t, f.Chmod(cx, 0o604))
		require.NoError(t, f.Chown(cx, os.Getuid(), os.Getgid()))
		info, err := os.Stat(f.Name())
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o604), info.Mode())
		return f.Close(cx)
	})
}

// If the file system is full, accepted data that did not fit is reported.
func TestFileDiskFull(t *testing.T) {
	dir := t.TempDir()
	name := "/dev/full"
	size := int64(64 << 10)
	// Only root can mount a small file system. Other users use a device that is full.
	if mountTmpfs(dir, size) == nil {
		defer unmountTmpfs(dir)
		name = filepath.Join(dir, "f")
	} else {
		size = 0
	}
	rt := fileRuntime(t)
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := OpenFile(cx, name, os.O_RDWR|os.O_CREATE, 0o600)
		require.NoError(t, err)
		n := 0
		for err == nil && n < 4<<20 {
			var m int
			m, err = f.Write(cx, pattern(1000))
			n += m
		}
		require.ErrorIs(t, err, syscall.ENOSPC)
		if size > 0 {
			at, err := f.Seek(cx, 0, io.SeekCurrent)
			require.NoError(t, err)
			require.Equal(t, size, at, "the position is where the writing has stopped")
			require.ErrorIs(t, WriteFile(cx, name+"2", pattern(10), 0o600), syscall.ENOSPC)
			_, err = CopyFile(cx, name+"2", name)
			require.ErrorIs(t, err, syscall.ENOSPC)
			for way, write := range map[string]func(f *File) (int, error){
				"Flush": func(f *File) (int, error) {
					_, err := f.Write(cx, pattern(1000))
					require.NoError(t, err, "accepted")
					return 0, f.Flush(cx)
				},
				"Write":   func(f *File) (int, error) { return f.Write(cx, pattern(4*bufferLarge)) },
				"O_SYNC":  func(f *File) (int, error) { f.sync = true; return f.Write(cx, pattern(1000)) },
				"WriteAt": func(f *File) (int, error) { return f.WriteAt(cx, pattern(1000), 0) },
				"Copy": func(f *File) (int, error) {
					from, err := Open(cx, name)
					require.NoError(t, err)
					defer from.Close(cx)
					n, err := Copy(cx, f, from)
					return int(n), err
				},
			} {
				f, err := Create(cx, name+"2")
				require.NoError(t, err)
				n, err := write(f)
				require.ErrorIs(t, err, syscall.ENOSPC, way)
				require.Zero(t, n, way)
				if way == "WriteAt" || way == "Copy" { // after these Close has no error to return
					require.NoError(t, f.Close(cx))
				} else {
					require.ErrorIs(t, f.Close(cx), syscall.ENOSPC, way)
				}
			}
		}
		require.ErrorIs(t, f.Close(cx), syscall.ENOSPC)
		return nil
	})
}

func TestCopyFile(t *testing.T) {
	rt := fileRuntime(t)
	dir := t.TempDir()
	at := func(n string) string { return filepath.Join(dir, n) }
	want := pattern(2*copyStep + 5)
	require.NoError(t, os.WriteFile(at("src"), want, 0o640))
	require.NoError(t, os.WriteFile(at("there"), pattern(4*copyStep), 0o604))
	inBlockOn(t, rt, func(cx *Context) error {
		for dst, mode := range map[string]fs.FileMode{"new": 0o640, "there": 0o604} {
			n, err := CopyFile(cx, at(dst), at("src"))
			require.NoError(t, err)
			require.EqualValues(t, len(want), n)
			b, err := os.ReadFile(at(dst))
			require.NoError(t, err)
			require.Equal(t, want, b)
			info, err := os.Stat(at(dst))
			require.NoError(t, err)
			require.Equal(t, mode, info.Mode())
		}
		require.NoError(t, os.Symlink("src", at("same")))
		for _, dst := range []string{"src", "same"} {
			_, err := CopyFile(cx, at(dst), at("src"))
			require.ErrorIs(t, err, fs.ErrExist, "a file is not copied to itself")
		}
		_, err := CopyFile(cx, at("x"), at("missing"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = CopyFile(cx, at("missing/x"), at("src"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		for _, dst := range []string{"x", "new"} {
			_, err = CopyFile(cx, at(dst), dir)
			require.ErrorIs(t, err, syscall.EISDIR)
		}
		_, err = os.Stat(at("x"))
		require.ErrorIs(t, err, fs.ErrNotExist, "a directory is not copied, and no file is made for it")
		b, err := os.ReadFile(at("new"))
		require.NoError(t, err)
		require.Equal(t, want, b)
		return nil
	})
	b, err := os.ReadFile(at("src"))
	require.NoError(t, err)
	require.Equal(t, want, b)
}

// The function that WalkDir calls may wait, skip and stop. After a cancellation it is called with
// the error.
func TestWalkDir(t *testing.T) {
	rt := fileRuntime(t)
	dir := t.TempDir()
	for _, p := range []string{"a/1", "a/2", "b/3", "c/4"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, p), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, p, "f"), nil, 0o600))
	}
	walk := func(walkDir func(string, fs.WalkDirFunc) error, answers map[string]error) (seen []string, err error) {
		err = walkDir(dir, func(p string, d fs.DirEntry, err error) error {
			p = strings.TrimPrefix(p, dir)
			seen = append(seen, p)
			if err != nil {
				return err
			}
			return answers[p]
		})
		return seen, err
	}
	boom := errors.New("boom")
	for _, answers := range []map[string]error{
		{}, {"/a": fs.SkipDir}, {"/a/1/f": fs.SkipDir}, {"/b": fs.SkipAll}, {"/b/3/f": fs.SkipAll}, {"": fs.SkipDir},
		{"/b": boom}, {"/c/4/f": boom}, {"": boom},
	} {
		want, werr := walk(filepath.WalkDir, answers)
		inBlockOn(t, rt, func(cx *Context) error {
			got, err := walk(func(root string, fn fs.WalkDirFunc) error {
				return WalkDir(cx, root, func(p string, d fs.DirEntry, err error) error {
					Yield(cx)
					return fn(p, d, err)
				})
			}, answers)
			require.Equal(t, want, got)
			require.Equal(t, werr, err)
			return nil
		})
	}
	var last error
	_, err := join(t, Go(rt, func(cx *Context) error {
		cx, cancel := cx.WithCancel()
		return WalkDir(cx, dir, func(p string, d fs.DirEntry, err error) error {
			if strings.HasSuffix(p, "/b") {
				cancel()
			}
			last = err
			return err
		})
	}))
	require.Equal(t, context.Canceled, err)
	require.Equal(t, context.Canceled, last)
}

// A call that is given up before it has begun is not made. If it has begun, the file that it opens
// is closed, and its error is not reported. newTestRuntime counts descriptors at the end.
func TestFSCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1, Blocking: BlockingConfig{Limit: 1}, Unhandled: func(task Task, err error) {
		t.Errorf("no caller has seen the failure of %v: %v", task, err)
	}})
	dir := t.TempDir()
	release := occupy(t, rt, 1)
	h := Go(rt, func(cx *Context) error { return Mkdir(cx, filepath.Join(dir, "never"), 0o700) })
	eventually(t, func() bool { return waiting(h) })
	h.Cancel()
	_, err := join(t, h)
	require.Equal(t, context.Canceled, err)
	release()
	inBlockOn(t, rt, func(cx *Context) error {
		all, err := ReadDir(cx, dir)
		require.Empty(t, all)
		return err
	})
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	opened, goOn := make(chan None), make(chan None)
	h = Go(rt, func(cx *Context) error {
		_, err := openInPool(cx, func() (*os.File, error) {
			f, err := os.OpenFile(fifo, os.O_RDWR, 0)
			close(opened)
			<-goOn
			return f, err
		})
		return err
	})
	receive(t, opened)
	h.Cancel()
	_, err = join(t, h)
	require.Equal(t, context.Canceled, err)
	hasReader := func() bool {
		w, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			w.Close()
		}
		return !errors.Is(err, syscall.ENXIO)
	}
	require.True(t, hasReader(), "the call goes on")
	close(goOn)
	eventually(t, func() bool { return !hasReader() })
	for range 100 {
		h := Go(rt, func(cx *Context) error { _, err := ReadFile(cx, filepath.Join(dir, "missing")); return err })
		h.Cancel()
		_, err := join(t, h)
		require.True(t, errors.Is(err, context.Canceled) || errors.Is(err, fs.ErrNotExist), "%v", err)
	}
	require.False(t, slices.ContainsFunc(rt.Tasks(), func(i TaskInfo) bool { return i.Kind == "straight" }))
}
