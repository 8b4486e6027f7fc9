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

func lookUp(name string) (dev uint64, size int64, ok bool) { return 0, 0, false }

func openNow(name string) (fd int, err error) { return -1, errors.ErrUnsupported }

func readWhole(name string, size int) (data []byte, ok bool) { return nil, false }

func readsNow(name string) (readable bool, err error) { return false, nil }
