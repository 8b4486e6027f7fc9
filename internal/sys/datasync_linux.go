package sys

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Datasync writes the data of f to the disk, and the metadata that reading the data needs.
func Datasync(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		for err = unix.EINTR; err == unix.EINTR; {
			err = unix.Fdatasync(int(fd))
		}
	})
	if cerr != nil {
		err = os.ErrClosed // Control fails for no other reason
	}
	if err != nil {
		return &fs.PathError{Op: "datasync", Path: f.Name(), Err: err}
	}
	return nil
}
