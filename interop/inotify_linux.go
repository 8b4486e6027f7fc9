package interop

import (
	"errors"

	"example.com/async"
	"golang.org/x/sys/unix"
)

// awaitChange waits until a file in a directory is created or changed.
func awaitChange(cx *async.Context, directory string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	src, err := async.NewSource(fd)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	defer src.Close()
	if _, err := unix.InotifyAddWatch(fd, directory, unix.IN_CREATE|unix.IN_MODIFY); err != nil {
		return err
	}
	var events [4096]byte
	_, err = src.ReadWith(cx, func(fd int) (int, error) { return unix.Read(fd, events[:]) })
	return err
}
