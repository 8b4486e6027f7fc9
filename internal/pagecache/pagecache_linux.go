package pagecache

import (
	"errors"
	"io"
	"syscall"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// resolveCached has openat2 fail rather than wait for the disk. x/sys has not got
// it.
const resolveCached = 0x20

// CanRead reports whether a file with these flags may be read by Read.
// Direct I/O always waits, also if the read asks it not to.
func CanRead(flags int) bool { return flags&(unix.O_DIRECT|unix.O_PATH) == 0 }

// Read reads the data of a file that is in memory at off, or at the file position if
// off is negative. It returns ErrMiss if there is none or if it fails, io.EOF at
// the end, and errors.ErrUnsupported if there is no need to try again.
func Read(conn syscall.RawConn, p []byte, off int64) (n int, err error) {
	if conn.Control(func(fd uintptr) { n, err = ReadFD(int(fd), p, off) }) != nil {
		return 0, ErrMiss
	}
	return n, err
}

// ReadFD is Read for a descriptor that no other goroutine closes.
func ReadFD(fd int, p []byte, off int64) (n int, err error) {
	n, err = sys.Preadv2(fd, p, max(off, -1), unix.RWF_NOWAIT)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return 0, errors.ErrUnsupported
	case err != nil:
		return 0, ErrMiss
	case n == 0:
		return 0, eofOrMiss(fd, off)
	}
	return n, nil
}

// eofOrMiss returns io.EOF if off is at the end of the file. Some versions of the
// kernel read nothing where they should say EAGAIN.
func eofOrMiss(fd int, off int64) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && off < 0 {
		off, err = unix.Seek(fd, 0, io.SeekCurrent)
	}
	if err != nil || off < st.Size {
		return ErrMiss
	}
	return io.EOF
}

// HasName reports whether the file has a name: else closing it removes it, which
// may take long.
func HasName(conn syscall.RawConn) bool {
	var st unix.Stat_t
	named := false
	conn.Control(func(fd uintptr) { named = unix.Fstat(int(fd), &st) == nil && st.Nlink > 0 })
	return named
}

// LookUp looks at the named file, if it is a regular file that is not empty,
// unless the disk must be asked for where it is.
func LookUp(name string) (found FileID, ok bool) {
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveCached})
	if err != nil {
		return FileID{}, false
	}
	defer unix.Close(fd)
	return LookAt(fd)
}

// LookAt is LookUp for a descriptor. It does not ask another machine or process that
// has the file. (In /proc, where opening and reading may do more than that, files look
// empty.)
func LookAt(fd int) (found FileID, ok bool) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_SIZE, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return FileID{}, false
	}
	return FileID{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino, int64(st.Size)}, true
}

// Open opens the file that LookUp has found under this name for reading, unless
// the disk or a lease must be waited for, or another file has the name by now.
func Open(name string, found FileID) (fd int, ok bool) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_LARGEFILE
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: flags, Resolve: resolveCached})
	if err != nil {
		return -1, false
	}
	now, ok := LookAt(fd)
	if !ok || now.Dev != found.Dev || now.Ino != found.Ino {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}

// ReadWhole returns the contents of a file of this size. It fails as Read does,
// and if the file has another size by now.
func ReadWhole(fd int, size int) (data []byte, err error) {
	data = make([]byte, size+1) // the last byte shows that there is no more
	n, err := ReadFD(fd, data, 0)
	if err == nil && n != size {
		err = ErrMiss
	}
	return data[:size], err
}
