package async

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// openPathFlag opens the name of a file, and not its contents.
const openPathFlag = unix.O_PATH

// openPath returns a descriptor that keeps the named file, under whatever name, or -1.
func openPath(name string, flag int) int {
	fd, err := openFd(name, unix.O_PATH|unix.O_CLOEXEC|flag&unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1
	}
	return fd
}

// nameOfPath returns a name that opens the file of a descriptor of openPath.
func nameOfPath(path int) string { return "/proc/self/fd/" + strconv.Itoa(path) }
