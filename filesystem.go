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

// The functions of package os that use the disk, under the same names and with the same results.
//
// Each is one call of the runtime's pool of blocking calls. The exceptions are files that the
// system has in memory (filecached.go) and FIFOs (filefifo.go).
//
// If cx is cancelled before the call has begun, nothing happens. If cx is cancelled later, the call
// continues, and its result is dropped: a file that it has opened is closed. In both cases the
// error is cx.Err(), not wrapped.

// Open opens the named file for reading, as [os.Open] does. See [OpenFile] for waiting and
// cancelling. The error is an [*fs.PathError], or cx.Err() if cx is cancelled.
func Open(cx *Context, name string) (*File, error) { return OpenFile(cx, name, os.O_RDONLY, 0) }

// Create creates the named file, or truncates it if it exists, as [os.Create] does. The File can be
// read and written. See [OpenFile] for waiting and cancelling. The error is an [*fs.PathError], or
// cx.Err() if cx is cancelled.
func Create(cx *Context, name string) (*File, error) {
	return OpenFile(cx, name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// OpenFile opens the named file with the given flags, as [os.OpenFile] does. A file that it creates
// gets the permissions perm, less the umask. The File must be closed; see [File].
//
// Like the other functions here that have the name of a function of package os, OpenFile runs in
// the runtime's pool of blocking calls, and waits for it. One case does not use the pool: if the
// file is opened for reading, and the system can find it without asking the disk, the task opens it
// on the spot. File says where that is possible.
//
// If cx is cancelled before the call has begun, nothing happens. If cx is cancelled later, the call
// continues, and the file that it opens is closed. The error is cx.Err() then. Otherwise it is an
// [*fs.PathError].
//
// The opening of a FIFO is complete when the other end is open, too, as with os.OpenFile. The wait
// for the other end uses a thread, but not a goroutine of the pool. At most [BlockingConfig.Limit]
// tasks of a runtime wait for a writer, and as many wait for a reader. Further tasks wait for a
// place. A task needs no place if another task of the runtime opens the other end of the same FIFO.
//
// If all tasks that wait for an end give up, the thread is released by opening the other end for a
// moment. Other openings that wait for the same end take this for their peer, namely openings by
// other processes, by other runtimes and by os.OpenFile. If the program may not open the other end,
// the thread waits until a peer opens it.
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

// CreateTemp creates a new temporary file in the directory dir, as [os.CreateTemp] does. The caller
// removes it. See [OpenFile] for waiting and cancelling; a cancelled call may leave a file. The
// error is an [*fs.PathError], or cx.Err() if cx is cancelled.
func CreateTemp(cx *Context, dir, pattern string) (*File, error) {
	return openInPool(cx, func() (*os.File, error) { return os.CreateTemp(dir, pattern) })
}

// openInPool runs open in the pool, and makes a File of the result. If the caller gives up, the
// file is closed.
func openInPool(cx *Context, open func() (*os.File, error)) (*File, error) {
	return inPool(cx, func() (*File, error) { return openedFile(open()) }, (*File).discard)
}

// openedFile makes a File of a file that the caller has just opened. It closes o if this fails.
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

// discard closes a file at once. It does not wait for accepted data.
func (f *File) discard() {
	if f.polled {
		f.src.close()
	} else {
		f.os.Close()
	}
}

// ReadFile returns the contents of the named file, as [os.ReadFile] does. A file of up to 256 KiB
// that the system has in memory is read on the spot; see [File]. Other files are read in the pool.
// The error is an [*fs.PathError], or cx.Err() if cx is cancelled.
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

// WriteFile writes data to the named file, as [os.WriteFile] does. The file is created with the
// permissions perm, or truncated if it exists. WriteFile returns when the system has the data.
//
// The error is an [*fs.PathError]. If cx is cancelled the error is cx.Err(), and a call that has
// begun continues. It works on a copy of data, so the caller may change data nevertheless.
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

// ReadDir returns the entries of the named directory, sorted by name, as [os.ReadDir] does. The
// Info method of an entry asks the disk on the spot, which occupies a worker: use [Lstat] instead.
// The error is an [*fs.PathError], or cx.Err() if cx is cancelled.
func ReadDir(cx *Context, name string) ([]fs.DirEntry, error) {
	type some struct {
		entries []fs.DirEntry
		err     error
	}
	s, err := inPool(cx, func() (s some, _ error) { // os.ReadDir may return entries and an error
		s.entries, s.err = os.ReadDir(name)
		return s, nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return s.entries, s.err
}

// Mkdir creates a directory, as [os.Mkdir] does. The error is an [*fs.PathError], or cx.Err() if cx
// is cancelled.
func Mkdir(cx *Context, name string, perm fs.FileMode) error {
	return errInPool(cx, func() error { return os.Mkdir(name, perm) })
}

// MkdirAll creates a directory and all missing directories above it, as [os.MkdirAll] does. The
// error is an [*fs.PathError], or cx.Err() if cx is cancelled.
func MkdirAll(cx *Context, path string, perm fs.FileMode) error {
	return errInPool(cx, func() error { return os.MkdirAll(path, perm) })
}

// MkdirTemp creates a new temporary directory in the directory dir, and returns its name, as
// [os.MkdirTemp] does. The caller removes it. The error is an [*fs.PathError]. If cx is cancelled
// the error is cx.Err(), and a call that has begun leaves the directory.
func MkdirTemp(cx *Context, dir, pattern string) (string, error) {
	return inPool(cx, func() (string, error) { return os.MkdirTemp(dir, pattern) }, nil)
}

// Remove removes a file or an empty directory, as [os.Remove] does. The error is an
// [*fs.PathError], or cx.Err() if cx is cancelled.
func Remove(cx *Context, name string) error {
	return errInPool(cx, func() error { return os.Remove(name) })
}

// RemoveAll removes path and everything below it, as [os.RemoveAll] does. It is no error if there
// is nothing to remove. The error is an [*fs.PathError], or cx.Err() if cx is cancelled.
func RemoveAll(cx *Context, path string) error {
	return errInPool(cx, func() error { return os.RemoveAll(path) })
}

// Rename renames a file, and replaces a file of the new name, as [os.Rename] does. The error is an
// [*os.LinkError], or cx.Err() if cx is cancelled.
func Rename(cx *Context, oldpath, newpath string) error {
	return errInPool(cx, func() error { return os.Rename(oldpath, newpath) })
}

// Link creates newname as a hard link to the file oldname, as [os.Link] does. The error is an
// [*os.LinkError], or cx.Err() if cx is cancelled.
func Link(cx *Context, oldname, newname string) error {
	return errInPool(cx, func() error { return os.Link(oldname, newname) })
}

// Symlink creates newname as a symbolic link to oldname, as [os.Symlink] does. The error is an
// [*os.LinkError], or cx.Err() if cx is cancelled.
func Symlink(cx *Context, oldname, newname string) error {
	return errInPool(cx, func() error { return os.Symlink(oldname, newname) })
}

// Readlink returns the destination of a symbolic link, as [os.Readlink] does. The error is an
// [*fs.PathError], or cx.Err() if cx is cancelled.
func Readlink(cx *Context, name string) (string, error) {
	return inPool(cx, func() (string, error) { return os.Readlink(name) }, nil)
}

// Stat describes a file, as [os.Stat] does. It follows symbolic links; see [Lstat]. The error is an
// [*fs.PathError], or cx.Err() if cx is cancelled.
func Stat(cx *Context, name string) (fs.FileInfo, error) {
	return inPool(cx, func() (fs.FileInfo, error) { return os.Stat(name) }, nil)
}

// Lstat describes a file, as [os.Lstat] does. It is [Stat], except that it describes a symbolic
// link itself. The error is an [*fs.PathError], or cx.Err() if cx is cancelled.
func Lstat(cx *Context, name string) (fs.FileInfo, error) {
	return inPool(cx, func() (fs.FileInfo, error) { return os.Lstat(name) }, nil)
}

// Chmod changes the mode of a file, as [os.Chmod] does. The error is an [*fs.PathError], or
// cx.Err() if cx is cancelled.
func Chmod(cx *Context, name string, mode fs.FileMode) error {
	return errInPool(cx, func() error { return os.Chmod(name, mode) })
}

// Chown changes the owner and the group of a file, as [os.Chown] does. An id of -1 is not changed.
// The error is an [*fs.PathError], or cx.Err() if cx is cancelled.
func Chown(cx *Context, name string, uid, gid int) error {
	return errInPool(cx, func() error { return os.Chown(name, uid, gid) })
}

// Lchown changes the owner and the group of a file, as [os.Lchown] does. It is [Chown], except that
// it changes a symbolic link itself. The error is an [*fs.PathError], or cx.Err() if cx is
// cancelled.
func Lchown(cx *Context, name string, uid, gid int) error {
	return errInPool(cx, func() error { return os.Lchown(name, uid, gid) })
}

// Chtimes changes the times of the last access and of the last change of a file, as [os.Chtimes]
// does. The error is an [*fs.PathError], or cx.Err() if cx is cancelled.
func Chtimes(cx *Context, name string, atime, mtime time.Time) error {
	return errInPool(cx, func() error { return os.Chtimes(name, atime, mtime) })
}

// Truncate changes the size of a file to size bytes, as [os.Truncate] does. The error is an
// [*fs.PathError], or cx.Err() if cx is cancelled.
func Truncate(cx *Context, name string, size int64) error {
	return errInPool(cx, func() error { return os.Truncate(name, size) })
}

// CopyFS copies all files of fsys into the directory dir, as [os.CopyFS] does. The error is that of
// os.CopyFS: an [*fs.PathError] or an error of fsys. If cx is cancelled the error is cx.Err(), and
// a copy that has begun continues.
func CopyFS(cx *Context, dir string, fsys fs.FS) error {
	return errInPool(cx, func() error { return os.CopyFS(dir, fsys) })
}

// EvalSymlinks returns path with all symbolic links resolved, as [path/filepath.EvalSymlinks] does.
// The error is that of filepath.EvalSymlinks: an [*fs.PathError]; [syscall.ENOTDIR] if an element
// of path that is not the last is a file; or an error without a type if there are too many links.
// If cx is cancelled the error is cx.Err().
func EvalSymlinks(cx *Context, path string) (string, error) {
	return inPool(cx, func() (string, error) { return filepath.EvalSymlinks(path) }, nil)
}

// CopyFile copies the contents of the file src to the file dst, and returns the number of bytes
// that it has copied. It creates dst with the permissions of src, or truncates it. The kernel
// copies the data if it can.
//
// The error is an [*fs.PathError], or an [*os.LinkError] if dst and src are the same file. If cx is
// cancelled the error is cx.Err(). If one of the two files is a FIFO, the error may also be a
// [*CopyError] that wraps one of these.
//
// If cx is cancelled after the copy has begun, the copy ends after at most one more mebibyte, and
// dst has a part of the data.
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

// mayCopy returns an error if src must not be copied to dst. info describes src. there describes
// dst, or is nil if dst does not exist.
func mayCopy(dst, src string, info, there fs.FileInfo) error {
	if info.IsDir() { // before dst is truncated
		return &fs.PathError{Op: "read", Path: src, Err: syscall.EISDIR}
	}
	if there != nil && os.SameFile(info, there) {
		// Opening dst would truncate src.
		return &os.LinkError{Op: "copy", Old: src, New: dst, Err: fs.ErrExist}
	}
	return nil
}

// copyFile is CopyFile in the pool. It stops after a step when over is set.
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

// WalkDir calls fn for root and for everything below it, as [path/filepath.WalkDir] does. It reads
// the directories in the pool, one after the other. fn runs in the calling task, and may wait. fn
// should use [Lstat] instead of the Info method of an entry, which would occupy the worker.
//
// The error is that of fn. fn gets an [*fs.PathError] for a directory that cannot be read. If cx is
// cancelled, fn gets cx.Err() for the next directory.
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

// walkDir is WalkDir for path, which d describes. The error may be [fs.SkipDir] or [fs.SkipAll].
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
