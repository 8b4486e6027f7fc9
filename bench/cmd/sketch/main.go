// Command sketch is an echo server without a library: epoll, edge-triggered, with a callback for
// each ready descriptor and no goroutine per connection. It is the lower bound for the cost of an
// event loop in Go. It has no features of a library, for example timers or buffers that outlive a
// callback.
package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"unsafe"

	"example.com/async/bench/internal/program"
	"example.com/async/bench/internal/rawio"
)

func main() {
	program.Program{Echo: map[string]program.EchoServer{
		"locked":   serve(lockedWait),
		"unlocked": serve(unlockedWait),
	}}.Main()
}

// A wait describes how a loop waits for events.
type wait struct {
	locked  bool // each loop is locked to its thread
	procs   int  // GOMAXPROCS for each loop
	millis  int  // how many milliseconds the first system call, which is raw, waits
	gosched bool // other goroutines run before the loop makes a system call that waits without a limit
}

var (
	// lockedWait is the wait of the library: a raw wait of 10 ms, which keeps the P of the loop. So
	// each loop adds one P to GOMAXPROCS.
	lockedWait = wait{locked: true, procs: 2, millis: 10}

	// unlockedWait polls without waiting, then lets other goroutines run, and then waits in a
	// system call that the scheduler is aware of.
	unlockedWait = wait{procs: 1, gosched: true}
)

func serve(w wait) program.EchoServer {
	return func(o program.Options, ready func(net.Addr)) error {
		if o.Busy > 0 {
			return errors.New("the sketch has no tasks")
		}
		runtime.GOMAXPROCS(o.Workers * w.procs)
		loops := make([]*loop, o.Workers)
		failed := make(chan error, len(loops))
		for i := range loops {
			ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
			if err != nil {
				return fmt.Errorf("epoll_create1: %w", err)
			}
			l := &loop{ep: ep, wait: w, rests: map[int32][]byte{}}
			loops[i] = l
			go func() { failed <- l.run() }()
		}
		ln, addr, err := listen()
		if err != nil {
			return err
		}
		ready(addr)
		go func() { failed <- deal(ln, loops) }()
		return <-failed
	}
}

// listen opens a blocking listener. The goroutine that accepts keeps one thread, which is blocked
// while no connection arrives.
func listen() (int, net.Addr, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("socket: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, nil, fmt.Errorf("bind: %w", err)
	}
	if err := syscall.Listen(fd, 4096); err != nil {
		return 0, nil, fmt.Errorf("listen: %w", err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, nil, fmt.Errorf("getsockname: %w", err)
	}
	in := sa.(*syscall.SockaddrInet4)
	return fd, &net.TCPAddr{IP: in.Addr[:], Port: in.Port}, nil
}

// deal accepts connections, and passes them to the loops in turn.
func deal(ln int, loops []*loop) error {
	for i := 0; ; i++ {
		fd, _, err := syscall.Accept4(ln, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if err == syscall.ECONNABORTED || err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("accept4: %w", err)
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("TCP_NODELAY: %w", err)
		}
		if err := loops[i%len(loops)].add(fd); err != nil {
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
}

// A loop serves the connections of one epoll descriptor.
type loop struct {
	ep      int
	wait    wait
	rests   map[int32][]byte // data that a socket did not accept; such a connection is not read
	events  [256]syscall.EpollEvent
	scratch [program.BufferSize]byte
}

func (l *loop) add(fd int) error {
	const edge = 1 << 31
	return syscall.EpollCtl(l.ep, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{
		Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge, Fd: int32(fd),
	})
}

func (l *loop) run() error {
	if l.wait.locked {
		runtime.LockOSThread()
	}
	for {
		n, err := l.next()
		if err != nil {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, ev := range l.events[:n] {
			if !l.serve(ev) {
				delete(l.rests, ev.Fd)
				syscall.Close(int(ev.Fd))
			}
		}
	}
}

// next waits for events. It may return without an event.
func (l *loop) next() (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.ep), uintptr(unsafe.Pointer(&l.events[0])),
		uintptr(len(l.events)), uintptr(l.wait.millis), 0, 0)
	switch {
	case errno == syscall.EINTR:
		return 0, nil
	case errno != 0:
		return 0, errno
	case n > 0:
		return int(n), nil
	}
	if l.wait.gosched {
		runtime.Gosched()
	}
	m, err := syscall.EpollWait(l.ep, l.events[:], -1)
	if err == syscall.EINTR {
		return 0, nil
	}
	return m, err
}

// serve handles one event, and reports whether the connection stays open.
func (l *loop) serve(ev syscall.EpollEvent) bool {
	if rest := l.rests[ev.Fd]; rest != nil {
		n, errno := rawio.Write(int(ev.Fd), rest)
		if errno != 0 && errno != syscall.EAGAIN {
			return false
		}
		if n < len(rest) {
			l.rests[ev.Fd] = rest[n:]
			return true
		}
		delete(l.rests, ev.Fd)
	} else if ev.Events&^syscall.EPOLLOUT == 0 {
		return true
	}
	hungUp := ev.Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0
	for {
		n, errno := rawio.Read(int(ev.Fd), l.scratch[:])
		if errno == syscall.EAGAIN {
			return true
		}
		if errno != 0 || n == 0 {
			return false
		}
		m, errno := rawio.Write(int(ev.Fd), l.scratch[:n])
		if errno != 0 && errno != syscall.EAGAIN {
			return false
		}
		if m < n {
			l.rests[ev.Fd] = append([]byte(nil), l.scratch[m:n]...)
			return true
		}
		// A short read has emptied the socket, and later input causes a new event. There are two
		// exceptions, in which the loop reads until EAGAIN: after a hang-up there is no later
		// event, and a connection that had a rest may have ignored an event.
		if n < len(l.scratch) && !hungUp && ev.Events&syscall.EPOLLIN != 0 {
			return true
		}
	}
}
