package async

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// The functions of package os that touch the disk, under their names and with
// their results, each in one call of the runtime's pool, except for data that is
// in memory: see filecached.go. If cx is cancelled before the call has begun,
// nothing has happened. If cx is cancelled later, the call goes on and its result
// is lost: files that it has opened are closed. The error is cx.Err() as it is.

// Open opens the named file for reading, as os.Open does. The error is an
// *fs.PathError, or cx.Err() if cx is cancelled.
func Open(cx *Context, name string) (*File, error) { return OpenFile(cx, name, os.O_RDONLY, 0) }

// Create creates or truncates the named file, as os.Create does. The error is an
// *fs.PathError, or cx.Err() if cx is cancelled.
func Create(cx *Context, name string) (*File, error) {
	return OpenFile(cx, name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// OpenFile opens the named file as os.OpenFile does.
//
// A FIFO is open when its other end is, too, as with os.OpenFile. The wait for that holds a
// thread, but no goroutine of the pool of blocking calls. At most Config.Blocking.Limit tasks
// wait for a writer, and as many for a reader; further tasks wait for a place, unless the
// other end of the same FIFO is being opened by a task of the runtime. The last task that
// gives up waiting for an end releases the thread by opening the other end for a moment.
// Other openings that wait for the same end take that for their peer: those of other
// processes, of other runtimes, and of os.OpenFile. Without permission for the other end the
// thread waits for the next peer, or for a task that opens the same end.
//
// Like all functions of package os here it has the pool of blocking calls do it, and
// waits; except that a file that is opened for reading, and that the system finds
// without asking the disk, is opened on the spot, as File reads data that is in memory.
// If cx is cancelled before the call has begun nothing happens; if later,
// the call goes on, and its result is dropped (a file that it has opened is closed).
// The error is an *fs.PathError, or cx.Err() if cx is cancelled.
func OpenFile(cx *Context, name string, flag int, perm fs.FileMode) (*File, error) {
	if err := cx.mustAwait(); err != nil {
		return nil, err
	}
	known, learn := &filesOf(cx.t.w.rt).devices, false
	if flag == os.O_RDONLY {
		f, fresh := known.openCached(name)
		if f != nil {
			cx.charge(fileCharge)
			return f, nil
		}
		learn = fresh
	}
	f, err := openInPool(cx, func() (*os.File, error) {
		if isFIFO(name, flag) {
			return nil, errFIFO
		}
		f, err := os.OpenFile(name, flag, perm)
		if learn && err == nil {
			known.learn(f)
		}
		return f, err
	})
	if err == errFIFO {
		return openFIFO(cx, name, flag, perm)
	}
	return f, err
}

// CreateTemp creates a new temporary file, as os.CreateTemp does. The error is an
// *fs.PathError, or cx.Err() if cx is cancelled.
func CreateTemp(cx *Context, dir, pattern string) (*File, error) {
	return openInPool(cx, func() (*os.File, error) { return os.CreateTemp(dir, pattern) })
}

func openInPool(cx *Context, open func() (*os.File, error)) (*File, error) {
	return inPool(cx, func() (*File, error) { return openedFile(open()) }, (*File).discard)
}

// openedFile makes a File of a file that the caller has just opened, and that is closed if
// this fails.
func openedFile(o *os.File, err error) (*File, error) {
	if err != nil {
		return nil, err
	}
	f, err := newFile(o, true)
	if err != nil {
		o.Close()
	}
	return f, err
}

// discard closes a file that no caller has received.
func (f *File) discard() {
	if f.polled {
		f.src.close()
	} else {
		f.os.Close()
	}
}

// ReadFile returns the contents of the named file, as os.ReadFile does. A file of up
// to 256 KiB that the system has in memory is read on the spot; see OpenFile. The
// error is an *fs.PathError, or cx.Err() if cx is cancelled.
func ReadFile(cx *Context, name string) ([]byte, error) {
	if err := cx.mustAwait(); err != nil {
		return nil, err
	}
	known := &filesOf(cx.t.w.rt).devices
	data, ok, fresh := known.readFileCached(name)
	if ok {
		cx.charge(len(data) + fileCharge)
		return data, nil
	}
	read := os.ReadFile
	if fresh {
		read = known.readFile
	}
	data, err := inPool(cx, func() ([]byte, error) {
		if isFIFO(name, os.O_RDONLY) {
			return nil, errFIFO
		}
		return read(name)
	}, nil)
	if err == errFIFO {
		return readFIFO(cx, name)
	}
	return data, err
}

// WriteFile writes data to the named file, as os.WriteFile does. It works on a
// copy, so that data may change even if WriteFile was cancelled and goes on. The
// error is an *fs.PathError, or cx.Err() if cx is cancelled.
func WriteFile(cx *Context, name string, data []byte, perm fs.FileMode) error {
	data = append([]byte(nil), data...)
	err := errInPool(cx, func() error {
		if isFIFO(name, os.O_WRONLY) {
			return errFIFO
		}
		return os.WriteFile(name, data, perm)
	})
	if err == errFIFO {
		return writeFIFO(cx, name, data, perm)
	}
	return err
}

// ReadDir returns the entries of the named directory, as os.ReadDir does. An
// entry's Info looks at the disk on the spot, and so keeps a worker waiting:
// Lstat does not. The error is an *fs.PathError, or cx.Err() if cx is cancelled.
func ReadDir(cx *Context, name string) ([]fs.DirEntry, error) {
	type some struct {
		entries []fs.DirEntry
		err     error
	}
	s, err := inPool(cx, func() (s some, _ error) { // os.ReadDir may return both
		s.entries, s.err = os.ReadDir(name)
		return s, nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return s.entries, s.err
}

// Mkdir creates a directory, as os.Mkdir does. The error is an *fs.PathError, or
// cx.Err() if cx is cancelled.
func Mkdir(cx *Context, name string, perm fs.FileMode) error {
	return errInPool(cx, func() error { return os.Mkdir(name, perm) })
}

// MkdirAll creates a directory and the directories above it, as os.MkdirAll does.
// The error is an *fs.PathError, or cx.Err() if cx is cancelled.
func MkdirAll(cx *Context, path string, perm fs.FileMode) error {
	return errInPool(cx, func() error { return os.MkdirAll(path, perm) })
}

// MkdirTemp creates a new temporary directory, as os.MkdirTemp does. The error is
// an *fs.PathError, or cx.Err() if cx is cancelled.
func MkdirTemp(cx *Context, dir, pattern string) (string, error) {
	return inPool(cx, func() (string, error) { return os.MkdirTemp(dir, pattern) }, nil)
}

// Remove removes a file or an empty directory, as os.Remove does. The error is an
// *fs.PathError, or cx.Err() if cx is cancelled.
func Remove(cx *Context, name string) error {
	return errInPool(cx, func() error { return os.Remove(name) })
}

// RemoveAll removes path and everything below it, as os.RemoveAll does. The error
// is an *fs.PathError, or cx.Err() if cx is cancelled.
func RemoveAll(cx *Context, path string) error {
	return errInPool(cx, func() error { return os.RemoveAll(path) })
}

// Rename renames a file, as os.Rename does. The error is an *os.LinkError, or
// cx.Err() if cx is cancelled.
func Rename(cx *Context, oldpath, newpath string) error {
	return errInPool(cx, func() error { return os.Rename(oldpath, newpath) })
}

// Link creates a hard link, as os.Link does. The error is an *os.LinkError, or
// cx.Err() if cx is cancelled.
func Link(cx *Context, oldname, newname string) error {
	return errInPool(cx, func() error { return os.Link(oldname, newname) })
}

// Symlink creates a symbolic link, as os.Symlink does. The error is an
// *os.LinkError, or cx.Err() if cx is cancelled.
func Symlink(cx *Context, oldname, newname string) error {
	return errInPool(cx, func() error { return os.Symlink(oldname, newname) })
}

// Readlink returns where a symbolic link leads, as os.Readlink does. The error is
// an *fs.PathError, or cx.Err() if cx is cancelled.
func Readlink(cx *Context, name string) (string, error) {
	return inPool(cx, func() (string, error) { return os.Readlink(name) }, nil)
}

// Stat describes a file, as os.Stat does. The error is an *fs.PathError, or
// cx.Err() if cx is cancelled.
func Stat(cx *Context, name string) (fs.FileInfo, error) {
	return inPool(cx, func() (fs.FileInfo, error) { return os.Stat(name) }, nil)
}

// Lstat is Stat for a symbolic link itself, as os.Lstat is. The error is an
// *fs.PathError, or cx.Err() if cx is cancelled.
func Lstat(cx *Context, name string) (fs.FileInfo, error) {
	return inPool(cx, func() (fs.FileInfo, error) { return os.Lstat(name) }, nil)
}

// Chmod changes the mode of a file, as os.Chmod does. The error is an
// *fs.PathError, or cx.Err() if cx is cancelled.
func Chmod(cx *Context, name string, mode fs.FileMode) error {
	return errInPool(cx, func() error { return os.Chmod(name, mode) })
}

// Chown changes the owner and the group of a file, as os.Chown does. The error is
// an *fs.PathError, or cx.Err() if cx is cancelled.
func Chown(cx *Context, name string, uid, gid int) error {
	return errInPool(cx, func() error { return os.Chown(name, uid, gid) })
}

// Lchown is Chown for a symbolic link itself, as os.Lchown is. The error is an
// *fs.PathError, or cx.Err() if cx is cancelled.
func Lchown(cx *Context, name string, uid, gid int) error {
	return errInPool(cx, func() error { return os.Lchown(name, uid, gid) })
}

// Chtimes changes the times of access and of change of a file, as os.Chtimes
// does. The error is an *fs.PathError, or cx.Err() if cx is cancelled.
func Chtimes(cx *Context, name string, atime, mtime time.Time) error {
	return errInPool(cx, func() error { return os.Chtimes(name, atime, mtime) })
}

// Truncate changes the size of a file, as os.Truncate does. The error is an
// *fs.PathError, or cx.Err() if cx is cancelled.
func Truncate(cx *Context, name string, size int64) error {
	return errInPool(cx, func() error { return os.Truncate(name, size) })
}

// CopyFS copies fsys into a directory, as os.CopyFS does. The error is that of
// os.CopyFS: an *fs.PathError or an error of fsys; or cx.Err() if cx is cancelled.
func CopyFS(cx *Context, dir string, fsys fs.FS) error {
	return errInPool(cx, func() error { return os.CopyFS(dir, fsys) })
}

// EvalSymlinks returns path without symbolic links, as filepath.EvalSymlinks
// does. The error is that of filepath.EvalSymlinks: an *fs.PathError,
// syscall.ENOTDIR if an element of path but the last is a file, or an error about
// too many links; or cx.Err() if cx is cancelled.
func EvalSymlinks(cx *Context, path string) (string, error) {
	return inPool(cx, func() (string, error) { return filepath.EvalSymlinks(path) }, nil)
}

// CopyFile copies the contents of the file src to dst, which is created with the
// permissions of src or truncated, and returns how many bytes it has copied. The
// kernel does it where it can. If cx is cancelled the copying ends soon, and
// leaves part of the file. The error is an *fs.PathError, an *os.LinkError if dst
// and src are the same file, or cx.Err() if cx is cancelled. If one of the two is a
// FIFO it may also be a [*CopyError] around one of these.
func CopyFile(cx *Context, dst, src string) (written int64, err error) {
	var over atomic.Bool
	defer over.Store(true)
	written, err = inPool(cx, func() (int64, error) {
		if isFIFO(src, os.O_RDONLY) || isFIFO(dst, os.O_WRONLY) {
			return 0, errFIFO
		}
		return copyFile(dst, src, &over)
	}, nil)
	if err == errFIFO {
		return copyFIFO(cx, dst, src)
	}
	return written, err
}

// mayCopy returns an error if src, which info describes, must not be copied to dst, which
// there describes if it exists.
func mayCopy(dst, src string, info, there fs.FileInfo) error {
	if info.IsDir() { // before dst is emptied
		return &fs.PathError{Op: "read", Path: src, Err: syscall.EISDIR}
	}
	if there != nil && os.SameFile(info, there) {
		return &os.LinkError{Op: "copy", Old: src, New: dst, Err: fs.ErrExist} // it would be emptied
	}
	return nil
}

func copyFile(dst, src string, over *atomic.Bool) (written int64, err error) {
	from, err := os.Open(src)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return 0, err
	}
	there, _ := os.Stat(dst)
	if err := mayCopy(dst, src, info, there); err != nil {
		return 0, err
	}
	to, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return 0, err
	}
	for n := int64(copyStep); n == copyStep && err == nil && !over.Load(); {
		n, err = io.Copy(to, io.LimitReader(from, copyStep))
		written += n
	}
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	return written, err
}

// WalkDir calls fn for root and everything below it, as filepath.WalkDir does.
// Directories are read in the pool, one after the other; fn runs in the calling
// task, and may wait; instead of the Info of an entry, which keeps the worker
// waiting, it should use Lstat. fn gets an *fs.PathError for a directory that cannot be
// read, and cx.Err() for the next directory if cx is cancelled. The error is that of fn.
func WalkDir(cx *Context, root string, fn fs.WalkDirFunc) error {
	info, err := Lstat(cx, root)
	if err != nil {
		err = fn(root, nil, err)
	} else {
		err = walkDir(cx, root, fs.FileInfoToDirEntry(info), fn)
	}
	if err == fs.SkipDir || err == fs.SkipAll {
		return nil
	}
	return err
}

func walkDir(cx *Context, path string, d fs.DirEntry, fn fs.WalkDirFunc) error {
	if err := fn(path, d, nil); err != nil || !d.IsDir() {
		if err == fs.SkipDir && d.IsDir() {
			err = nil
		}
		return err
	}
	entries, err := ReadDir(cx, path)
	if err != nil {
		if err = fn(path, d, err); err != nil {
			if err == fs.SkipDir {
				err = nil
			}
			return err
		}
	}
	for _, e := range entries {
		if err := walkDir(cx, filepath.Join(path, e.Name()), e, fn); err != nil {
			if err == fs.SkipDir {
				break
			}
			return err
		}
	}
	return nil
}
