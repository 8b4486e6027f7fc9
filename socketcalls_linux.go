package async

import (
	"net/netip"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls that x/sys/unix has not, or only in a form that allocates or
// that tells the Go scheduler of the wait. This is the only file of the package that imports
// unsafe; docs/design.md, "Waiting", gives the reason.

// rawAddr is an address of IPv4 or IPv6 as the kernel has it.
type rawAddr struct{ sa unix.RawSockaddrInet6 }

// v4 is the same memory for IPv4.
func (a *rawAddr) v4() *unix.RawSockaddrInet4 { return (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.sa)) }

// port is the same memory for both: a port in the order of the network.
func (a *rawAddr) port() *[2]byte { return (*[2]byte)(unsafe.Pointer(&a.sa.Port)) }

// get returns the address; an invalid address if it is of another family.
func (a *rawAddr) get() netip.AddrPort {
	p := a.port()
	port := uint16(p[0])<<8 | uint16(p[1])
	switch a.sa.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4(a.v4().Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.sa.Addr).WithZone(zoneName(a.sa.Scope_id)), port)
	}
	return netip.AddrPort{}
}

// set sets the address and returns its size. A socket of this family must be able to send
// to it.
func (a *rawAddr) set(to netip.AddrPort, v6 bool) (size uint32, err error) {
	p := a.port()
	p[0], p[1] = byte(to.Port()>>8), byte(to.Port())
	if !v6 {
		a.sa.Family = unix.AF_INET
		a.v4().Addr = to.Addr().As4()
		return unix.SizeofSockaddrInet4, nil
	}
	a.sa.Family, a.sa.Addr = unix.AF_INET6, to.Addr().As16()
	a.sa.Scope_id, err = zoneIndex(to.Addr().Zone())
	return unix.SizeofSockaddrInet6, err
}

// maxRawIO is the largest buffer, in bytes, for which a socket call is a raw system call, of which Go's
// scheduler is not told. The call does not block, so the scheduler need not know of it, and telling it is
// expensive: sysmon examines each P that is in a system call. A stop of the world has to wait for a
// raw call, and the limit bounds that wait. (If the buffer is a mapped file, the call may wait for the disk, as
// any other access to that memory may.)
const maxRawIO = 32 << 10

// sendFlags is the flags of every call that sends, beside its own: not to block,
// also if another process has made the descriptor blocking, and to raise no signal.
const sendFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

// recv receives into p. It does not block.
func recv(fd int, p []byte, flags int) (int, error) {
	return recvInto(fd, p, flags, nil, nil)
}

// recvFrom is recv that returns the sender, too.
func recvFrom(fd int, p []byte, flags int) (n int, from netip.AddrPort, err error) {
	var a rawAddr
	size := uint32(unsafe.Sizeof(a))
	if n, err = recvInto(fd, p, flags, &a, &size); err == nil {
		from = a.get()
	}
	return n, from, err
}

func recvInto(fd int, p []byte, flags int, from *rawAddr, size *uint32) (int, error) {
	var n uintptr
	var errno unix.Errno
	flags |= unix.MSG_DONTWAIT
	if len(p) <= maxRawIO {
		n, _, errno = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			uintptr(flags), uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(size)))
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			uintptr(flags), uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(size)))
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// provesEmpty reports whether a read from a TCP socket that has put n bytes into p shows
// that it has taken all there was. A short read stops at the end of the data, at
// urgent data (which the poller reports), or at memory that cannot be written. The
// last is impossible if the rest of p lies in the page that has just been written.
func provesEmpty(p []byte, n int) bool {
	if n <= 0 || n >= len(p) {
		return false
	}
	const page = 4096 // no system has smaller ones
	first := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return (first+uintptr(n-1))/page == (first+uintptr(len(p)-1))/page
}

// send sends p to the peer. It does not block.
func send(fd int, p []byte) (int, error) { return sendInto(fd, p, nil, 0) }

// sendTo sends p to an address that rawAddr.set takes. It does not block.
func sendTo(fd int, p []byte, v6 bool, to netip.AddrPort) error {
	var a rawAddr
	size, err := a.set(to, v6)
	if err == nil {
		_, err = sendInto(fd, p, &a, size)
	}
	return err
}

func sendInto(fd int, p []byte, to *rawAddr, size uint32) (int, error) {
	var n uintptr
	var errno unix.Errno
	if len(p) <= maxRawIO {
		n, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			sendFlags, uintptr(unsafe.Pointer(to)), uintptr(size))
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			sendFlags, uintptr(unsafe.Pointer(to)), uintptr(size))
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// mmsghdr is the kernel's struct of that name.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// messageBatch is the arguments of recvmmsg and sendmmsg.
type messageBatch struct {
	hdrs  []mmsghdr
	addrs []rawAddr
	iovs  []unix.Iovec
}

var messageBatches = sync.Pool{New: func() any { return new(messageBatch) }}

// maxBatch is the kernel's limit.
const maxBatch = 1024

// prepare describes the messages to the kernel, except for the addresses.
func (b *messageBatch) prepare(ms []Message) {
	b.hdrs = slices.Grow(b.hdrs[:0], len(ms))[:len(ms)]
	b.addrs = slices.Grow(b.addrs[:0], len(ms))[:len(ms)]
	clear(b.hdrs)
	clear(b.addrs)
	b.iovs = b.iovs[:0]
	for i := range ms {
		for _, p := range ms[i].Buffers {
			v := unix.Iovec{Base: unsafe.SliceData(p)}
			v.SetLen(len(p))
			b.iovs = append(b.iovs, v)
		}
	}
	iovs := b.iovs
	for i := range ms {
		h := &b.hdrs[i].hdr
		n := len(ms[i].Buffers)
		h.Iov = unsafe.SliceData(iovs)
		h.SetIovlen(n)
		iovs = iovs[n:]
		h.Control = unsafe.SliceData(ms[i].OOB)
		h.SetControllen(len(ms[i].OOB))
	}
}

// done gives b back.
func (b *messageBatch) done() {
	b.clear()
	messageBatches.Put(b)
}

// clear lets go of the caller's memory.
func (b *messageBatch) clear() {
	clear(b.hdrs)
	clear(b.iovs)
}

// call makes the system call for the first count messages.
func (b *messageBatch) call(trap uintptr, fd, count, flags int) (int, error) {
	n, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b.hdrs))), uintptr(count),
		uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// recvBatch receives as many messages as are there, up to len(ms).
func recvBatch(fd int, ms []Message, flags int) (int, error) {
	b := messageBatches.Get().(*messageBatch)
	defer b.done()
	b.prepare(ms)
	for i := range b.hdrs {
		h := &b.hdrs[i].hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.addrs[i])), uint32(unsafe.Sizeof(b.addrs[i]))
	}
	n, err := b.call(unix.SYS_RECVMMSG, fd, len(ms), flags|unix.MSG_DONTWAIT)
	for i := range n {
		m, h := &ms[i], &b.hdrs[i]
		m.N, m.NN, m.Flags = int(h.n), int(h.hdr.Controllen), int(h.hdr.Flags)
		m.from(b.addrs[i].get())
	}
	return n, err
}

// sendBatch sends as many messages as there is room for.
func sendBatch(fd int, ms []Message, v6 bool, flags int) (int, error) {
	b := messageBatches.Get().(*messageBatch)
	defer b.done()
	return b.send(fd, ms, v6, flags)
}

func (b *messageBatch) send(fd int, ms []Message, v6 bool, flags int) (int, error) {
	b.prepare(ms)
	count := len(ms)
	for i := range ms {
		to, err := ms[i].to(v6)
		if err == nil && to.IsValid() {
			h := &b.hdrs[i].hdr
			h.Name = (*byte)(unsafe.Pointer(&b.addrs[i]))
			h.Namelen, err = b.addrs[i].set(to, v6)
		}
		if err != nil && i == 0 {
			return 0, err
		} else if err != nil {
			count = i // the next call returns the error
			break
		}
	}
	n, err := b.call(unix.SYS_SENDMMSG, fd, count, flags|sendFlags)
	for i := range n {
		ms[i].N, ms[i].NN = int(b.hdrs[i].n), len(ms[i].OOB)
	}
	return n, err
}
