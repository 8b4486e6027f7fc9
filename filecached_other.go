//go:build !linux

package async

import (
	"errors"
	"syscall"
)

// Other systems read files with waiting only.

func canReadNow(flags int) bool { return false }

func readNow(conn syscall.RawConn, p []byte, off int64) (n int, err error) {
	return 0, errors.ErrUnsupported
}

func hasName(conn syscall.RawConn) bool { return false }

func lookUp(name string) (found foundFile, ok bool) { return found, false }

func lookAt(fd int) (found foundFile, ok bool) { return found, false }

func openFound(name string, found foundFile) (fd int, ok bool) { return -1, false }

func readWhole(fd int, size int) (data []byte, err error) { return nil, errors.ErrUnsupported }
