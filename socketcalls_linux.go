package async

import (
	"net/netip"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file has system calls of sockets that x/sys/unix does not have, or has only in a form that
// allocates or that announces the call to Go's scheduler. It is the only file of the package that
// imports unsafe; docs/design.md, "Sockets", gives the reason.

// rawAddr is an IPv4 or IPv6 address in the kernel's layout. An IPv6 address is the larger of the
// two, so the same memory serves both.
type rawAddr struct{ sa unix.RawSockaddrInet6 }

// v4 returns the memory of a as an IPv4 address.
func (a *rawAddr) v4() *unix.RawSockaddrInet4 { return (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.sa)) }

// port returns the port, in network byte order. It is at the same place in both layouts.
func (a *rawAddr) port() *[2]byte { return (*[2]byte)(unsafe.Pointer(&a.sa.Port)) }

// get returns the address, or the zero AddrPort for another family.
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

// set stores an address for a socket of this family, and returns its size in bytes. The caller has
// checked that such a socket can send to it; see reachable.
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

// maxRawIO is the largest buffer, in bytes, for which a socket call is a raw system call: one that
// Go's scheduler does not see. The call does not block, so the scheduler need not see it. To
// announce it is expensive, because sysmon examines each P that is in a system call.
//
// The limit is there because a stop of the world has to wait for a raw call: it bounds the bytes
// that one call copies. (If the buffer is a mapped file, the call may wait for the disk, as any
// other access to that memory may.)
const maxRawIO = 32 << 10

// sendFlags is the flags of every call that sends. MSG_DONTWAIT makes the call not block, also if
// another process has made the descriptor blocking. MSG_NOSIGNAL keeps a send after the peer has
// closed from raising SIGPIPE.
const sendFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

// recv is recv(2): it receives into p, without blocking.
func recv(fd int, p []byte, flags int) (int, error) {
	return recvInto(fd, p, flags, nil, nil)
}

// recvFrom is recv, and returns the sender, too.
func recvFrom(fd int, p []byte, flags int) (n int, from netip.AddrPort, err error) {
	var a rawAddr
	size := uint32(unsafe.Sizeof(a))
	if n, err = recvInto(fd, p, flags, &a, &size); err == nil {
		from = a.get()
	}
	return n, from, err
}

// recvInto is recvfrom(2), without blocking. from and size may be nil.
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

// provesEmpty reports whether a read of n bytes into p from a TCP socket proves that the socket is
// empty. A short read has three possible reasons:
//
//  1. The data has ended. This is to be proved.
//  2. The next byte is urgent data. The poller reports urgent data, and then pollFD ignores this
//     proof (see fdHungUp).
//  3. The kernel cannot write to the rest of p. This is impossible if the rest lies in the page
//     that the read has just written.
func provesEmpty(p []byte, n int) bool {
	if n <= 0 || n >= len(p) {
		return false
	}
	const page = 4096 // no system has smaller ones
	first := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return (first+uintptr(n-1))/page == (first+uintptr(len(p)-1))/page
}

// send is send(2): it sends p to the peer, without blocking.
func send(fd int, p []byte) (int, error) { return sendInto(fd, p, nil, 0) }

// sendTo sends p to an address, without blocking. For the address see rawAddr.set.
func sendTo(fd int, p []byte, v6 bool, to netip.AddrPort) error {
	var a rawAddr
	size, err := a.set(to, v6)
	if err == nil {
		_, err = sendInto(fd, p, &a, size)
	}
	return err
}

// sendInto is sendto(2), without blocking. to is nil for the peer.
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

// mmsghdr is the kernel's struct mmsghdr: a message, and the number of its bytes that were sent or
// received.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// A messageBatch is the memory for the arguments of one recvmmsg(2) or sendmmsg(2). Batches are
// pooled, so that a call allocates none.
type messageBatch struct {
	hdrs  []mmsghdr    // one for each message
	addrs []rawAddr    // one for each message
	iovs  []unix.Iovec // the buffers of all messages, one after the other
}

var messageBatches = sync.Pool{New: func() any { return new(messageBatch) }}

// maxBatch is the largest number of messages in one system call. sendmmsg(2) takes no more.
const maxBatch = 1024

// prepare describes the messages to the kernel, except for their addresses. It fills iovs
// completely before it takes pointers into it, since an append may move the array.
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

// done returns b to the pool.
func (b *messageBatch) done() {
	b.clear()
	messageBatches.Put(b)
}

// clear removes the pointers to the caller's buffers, so that the pool does not keep them alive.
func (b *messageBatch) clear() {
	clear(b.hdrs)
	clear(b.iovs)
}

// call makes the system call for the first count messages, and returns how many of them were sent
// or received.
func (b *messageBatch) call(trap uintptr, fd, count, flags int) (int, error) {
	n, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b.hdrs))), uintptr(count),
		uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// recvBatch receives as many messages as are available, at most len(ms), without blocking.
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

// sendBatch sends as many messages as the system has room for, without blocking.
func sendBatch(fd int, ms []Message, v6 bool, flags int) (int, error) {
	b := messageBatches.Get().(*messageBatch)
	defer b.done()
	return b.send(fd, ms, v6, flags)
}

// send is sendBatch with the memory of b. If the address of a message is unusable, send sends the
// messages before it; the next call begins with this message and returns the error.
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
			count = i
			break
		}
	}
	n, err := b.call(unix.SYS_SENDMMSG, fd, count, flags|sendFlags)
	for i := range n {
		ms[i].N, ms[i].NN = int(b.hdrs[i].n), len(ms[i].OOB)
	}
	return n, err
}
