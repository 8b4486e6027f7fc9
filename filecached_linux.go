package async

import (
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// resolveCached has openat2 fail rather than wait for the disk. x/sys has not got
// it.
const resolveCached = 0x20

// canReadNow reports whether a file with these flags may be read by readNow.
// Direct I/O is waited for whatever one says.
func canReadNow(flags int) bool { return flags&(unix.O_DIRECT|unix.O_PATH) == 0 }

// readNow reads what of a file is in memory at off, or at its position if off is
// negative. It returns errNotCached if nothing is or if it fails, io.EOF at
// the end, and errors.ErrUnsupported if there is no need to try again.
func readNow(conn syscall.RawConn, p []byte, off int64) (n int, err error) {
	if conn.Control(func(fd uintptr) { n, err = readFdNow(int(fd), p, off) }) != nil {
		return 0, errNotCached
	}
	return n, err
}

// readFdNow is readNow for a descriptor that nobody else closes.
func readFdNow(fd int, p []byte, off int64) (n int, err error) {
	n, err = preadv2(fd, p, max(off, -1), unix.RWF_NOWAIT)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return 0, errors.ErrUnsupported
	case err != nil:
		return 0, errNotCached
	case n == 0:
		return 0, endOrNot(fd, off)
	}
	return n, nil
}

// endOrNot returns io.EOF if off is at the end of the file. Some versions of the
// kernel read nothing where they should say EAGAIN.
func endOrNot(fd int, off int64) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && off < 0 {
		off, err = unix.Seek(fd, 0, io.SeekCurrent)
	}
	if err != nil || off < st.Size {
		return errNotCached
	}
	return io.EOF
}

// hasName reports whether the file has a name: else closing it removes it, which
// may take long.
func hasName(conn syscall.RawConn) bool {
	var st unix.Stat_t
	named := false
	conn.Control(func(fd uintptr) { named = unix.Fstat(int(fd), &st) == nil && st.Nlink > 0 })
	return named
}

// lookUp looks at the named file, if it is a regular one with something in it,
// unless the disk must be asked for where it is.
func lookUp(name string) (found foundFile, ok bool) {
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveCached})
	if err != nil {
		return foundFile{}, false
	}
	defer unix.Close(fd)
	return lookAt(fd)
}

// lookAt is lookUp for a descriptor. It asks nobody else who has the file. (In
// /proc, where opening and reading may do more than that, files look empty.)
func lookAt(fd int) (found foundFile, ok bool) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_SIZE, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return foundFile{}, false
	}
	return foundFile{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino, int64(st.Size)}, true
}

// openFound opens the file that lookUp has found under this name for reading, unless
// the disk or a lease must be waited for, or another one has the name by now.
func openFound(name string, found foundFile) (fd int, ok bool) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_LARGEFILE
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: flags, Resolve: resolveCached})
	if err != nil {
		return -1, false
	}
	now, ok := lookAt(fd)
	if !ok || now.dev != found.dev || now.ino != found.ino {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}

// readWhole returns the contents of a file of this size. It fails as readNow does,
// and if the file has another size by now.
func readWhole(fd int, size int) (data []byte, err error) {
	data = make([]byte, size+1) // the last byte shows that there is no more
	n, err := readFdNow(fd, data, 0)
	if err == nil && n != size {
		err = errNotCached
	}
	return data[:size], err
}
