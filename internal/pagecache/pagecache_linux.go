package pagecache

import (
	"errors"
	"io"
	"syscall"

	"example.com/async/internal/sys"
	"golang.org/x/sys/unix"
)

// resolveCached (RESOLVE_CACHED of linux/openat2.h) makes openat2 fail if it would wait for the
// disk. x/sys/unix does not have it.
const resolveCached = 0x20

// CanRead reports whether Read may read a file that was opened with these flags. Direct I/O always
// waits, even if the read forbids it.
func CanRead(flags int) bool { return flags&(unix.O_DIRECT|unix.O_PATH) == 0 }

// Read reads the data of a file at off, or at the file position if off is negative, as far as it is
// in memory. The error is ErrMiss if there is none in memory or the read fails; io.EOF at the end;
// and errors.ErrUnsupported if the file system will never read without waiting.
func Read(conn syscall.RawConn, p []byte, off int64) (n int, err error) {
	if conn.Control(func(fd uintptr) { n, err = ReadFD(int(fd), p, off) }) != nil {
		return 0, ErrMiss
	}
	return n, err
}

// ReadFD is Read for a descriptor. No other goroutine may close it meanwhile.
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

// eofOrMiss returns io.EOF if off is at or after the end of the file, and ErrMiss otherwise. It is
// needed because some versions of the kernel return 0 bytes where they should return EAGAIN.
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

// HasName reports whether the file has a name. If it has none, closing it removes it, which may
// take long.
func HasName(conn syscall.RawConn) bool {
	var st unix.Stat_t
	named := false
	conn.Control(func(fd uintptr) { named = unix.Fstat(int(fd), &st) == nil && st.Nlink > 0 })
	return named
}

// LookUp identifies the named file, if it is a regular file that is not empty, and if that takes no
// waiting.
func LookUp(name string) (found FileID, ok bool) {
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveCached})
	if err != nil {
		return FileID{}, false
	}
	defer unix.Close(fd)
	return LookAt(fd)
}

// LookAt is LookUp for a descriptor. It does not ask another machine or process that has the file.
// Files in /proc, where opening and reading may have effects, have the size 0 and are not
// identified.
func LookAt(fd int) (found FileID, ok bool) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_SIZE, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return FileID{}, false
	}
	return FileID{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino, int64(st.Size)}, true
}

// Open opens for reading the file that LookUp has found under this name. It fails if that would
// wait for the disk or for a lease, or if another file has the name by now.
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

// ReadWhole returns the contents of a file that has this size. It fails as Read does, and if the
// file has another size by now.
func ReadWhole(fd int, size int) (data []byte, err error) {
	data = make([]byte, size+1) // the last byte shows whether there is more
	n, err := ReadFD(fd, data, 0)
	if err == nil && n != size {
		err = ErrMiss
	}
	return data[:size], err
}
