package sys

import (
	"math/bits"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Preadv2 is preadv2(2) with one buffer, which must not be empty.
func Preadv2(fd int, p []byte, off int64, flags int) (int, error) {
	v := unix.Iovec{Base: &p[0]}
	v.SetLen(len(p))
	const half = bits.UintSize / 2 // the offset is two words; one has it all on 64 bits
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&v)), 1,
		uintptr(off), uintptr(uint64(off)>>half>>half), uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
