package async

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A system call may stop short, or report that nothing is available, for other reasons than a full
// or empty buffer of the system: memory that cannot be accessed, or urgent data. The tests of this
// file check that no call then waits for an event that will not happen, that no call reports the
// end while data is left, and that the errors are those of package net.

// badFrom returns memory that can be neither read nor written from the offset good on.
func badFrom(t *testing.T, good int) []byte {
	t.Helper()
	page := unix.Getpagesize()
	require.Zero(t, good%page)
	p, err := unix.Mmap(-1, 0, good+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Munmap(p) })
	require.NoError(t, unix.Mprotect(p[good:], unix.PROT_NONE))
	return p
}

// pairOfNet returns a connection of package net, and its peer.
func pairOfNet(t *testing.T, network string) (a, b net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = netDir(t) + "/s"
	}
	ln, err := net.Listen(network, addr)
	require.NoError(t, err)
	defer ln.Close()
	a, err = net.Dial(network, ln.Addr().String())
	require.NoError(t, err)
	b, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// everyForm calls fn with a connection of package net, and with every form of a connection of this
// package that has such a peer. Each call has a connection of its own.
func everyForm(t *testing.T, network string, fn func(t *testing.T, c, peer net.Conn)) {
	t.Helper()
	t.Run(network+" of net", func(t *testing.T) {
		c, peer := pairOfNet(t, network)
		fn(t, c, peer)
	})
	t.Run(network+" for goroutines", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1})
		c, peer := pairOfNet(t, network)
		own, err := FromConn(c)
		require.NoError(t, err)
		defer own.Close()
		fn(t, NetConn(rt, own), peer)
	})
	t.Run(network+" in a task", func(t *testing.T) {
		rt := newTestRuntime(t, Config{Workers: 1})
		ln, err := net.Listen(network, map[bool]string{true: "127.0.0.1:0", false: netDir(t) + "/s"}[network == "tcp"])
		require.NoError(t, err)
		defer ln.Close()
		require.NoError(t, runTask(rt, func(cx *Context) error {
			c, err := Dial(cx, network, ln.Addr().String())
			if err != nil {
				return err
			}
			defer c.Close()
			peer, err := ln.Accept()
			if err != nil {
				return err
			}
			defer peer.Close()
			fn(t, BindConn(cx, c), peer)
			return nil
		}))
	})
}

// inTime sets a deadline, so that a call that would otherwise never return fails.
func inTime(c net.Conn) { c.SetDeadline(time.Now().Add(patience / 2)) }

func TestWriteStopsAtBadMemory(t *testing.T) {
	good := 64 * unix.Getpagesize() // more than one step of a copy; a failed step takes nothing
	for _, network := range []string{"tcp", "unix"} {
		everyForm(t, network, func(t *testing.T, c, peer net.Conn) {
			p := badFrom(t, good)
			copy(p, strings.Repeat("0123456789abcdef", good/16))
			inTime(c)
			inTime(peer)
			got := make(chan []byte)
			go func() {
				all, err := io.ReadAll(peer)
				if err != nil {
					t.Error(err)
				}
				got <- all
			}()
			var want []byte
			for range 3 {
				n, err := c.Write(p)
				requireFault(t, "write", err)
				if n < 0 || n > good {
					t.Errorf("%d bytes written, of %d that can be read", n, good)
					break
				}
				if _, err = c.Write([]byte("END")); err != nil {
					t.Errorf("a write after that: %v", err)
				}
				want = append(append(want, p[:n]...), "END"...)
			}
			c.Close()
			if !bytes.Equal(<-got, want) {
				t.Error("the peer has not got what was written")
			}
		})
	}
}

func TestWriteBuffersStopsAtBadMemory(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := tcpPair(t, rt)
	p := badFrom(t, unix.Getpagesize())
	inTimeOwn(a, b)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		bufs := net.Buffers{[]byte("good"), p}
		n, err := a.WriteBuffers(cx, &bufs)
		if !errors.Is(err, syscall.EFAULT) {
			return fmt.Errorf("got %d, %v", n, err)
		}
		got := make([]byte, n)
		_, err = io.ReadFull(BindConn(cx, b), got)
		return err
	}))
}

func inTimeOwn(cs ...Conn) {
	for _, c := range cs {
		c.SetDeadline(time.Now().Add(patience / 2))
	}
}

// requireFault checks that err is package net's error for EFAULT.
func requireFault(t *testing.T, call string, err error) {
	t.Helper()
	var op *net.OpError
	var sys interface{ Unwrap() error }
	if !errors.As(err, &op) || op.Op != call || !errors.As(op.Err, &sys) || !errors.Is(err, syscall.EFAULT) ||
		!strings.Contains(err.Error(), call+": bad address") {
		t.Errorf("got %v, want EFAULT of %s", err, call)
	}
}

// A read that cannot write the memory leaves the data in the socket, and the next read fails
// instead of waiting. Whether the first read gets any data depends on whether the system has joined
// the two parts.
func TestReadStopsAtBadMemory(t *testing.T) {
	page := unix.Getpagesize()
	for _, network := range []string{"tcp", "unix"} {
		everyForm(t, network, func(t *testing.T, c, peer net.Conn) {
			inTime(c)
			inTime(peer)
			for range 20 {
				few, many := strings.Repeat("a", 100), strings.Repeat("b", 4*page)
				for _, part := range []string{few, many} {
					if _, err := io.WriteString(peer, part); err != nil {
						t.Error(err)
					}
				}
				awaitArrived(t, peer)
				bad := badFrom(t, page)
				got, err := readUntilFault(c, bad)
				requireFault(t, "read", err)
				rest := make([]byte, len(few)+len(many)-len(got))
				_, err = io.ReadFull(c, rest)
				if all := string(got) + string(rest); err != nil || all != few+many {
					t.Errorf("%d bytes before the failure, %d after it, %v", len(got), len(rest), err)
					return
				}
			}
		})
	}
}

// The same holds if both parts arrived with one event, which the reader has consumed.
func TestReadStopsAtBadMemoryAfterItsEvent(t *testing.T) {
	page := unix.Getpagesize()
	rt := newTestRuntime(t, Config{Workers: 1})
	few, many := strings.Repeat("a", 100), strings.Repeat("b", 4*page)
	a, b := tcpPair(t, rt)
	inTimeOwn(a)
	for range 20 {
		bad := badFrom(t, page)
		read := Spawn(rt, func(cx *Context) ([]byte, error) { return readUntilFault(BindConn(cx, a), bad) })
		eventually(t, func() bool { return directionWaits(&a.src.rd) })
		require.NoError(t, runTask(rt, func(cx *Context) error { // no other task runs meanwhile
			return b.src.control(func(fd int) error {
				_, err := unix.Write(fd, []byte(few))
				if err == nil {
					_, err = unix.Write(fd, []byte(many))
				}
				if !within(patience, func() bool { n, _ := unix.IoctlGetInt(fd, unix.TIOCOUTQ); return n == 0 }) {
					return errors.New("the data does not arrive")
				}
				return err
			})
		}))
		got, err := joinOrCancel(read)
		require.ErrorIs(t, err, syscall.EFAULT, "after %d bytes", len(got))
		require.NoError(t, runTask(rt, func(cx *Context) error { return tcpExpect(cx, a, (few + many)[len(got):]) }))
	}
}

// readUntilFault reads into the same memory until a read fails.
func readUntilFault(c net.Conn, p []byte) (got []byte, err error) {
	for range 10 {
		n, err := c.Read(p)
		if got = append(got, p[:n]...); err != nil {
			return got, err
		}
	}
	return got, errors.New("no read has failed")
}

// sendUrgent sends a byte of urgent data.
func sendUrgent(t *testing.T, c net.Conn, b string) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte(b), unix.MSG_OOB, nil) })
	}
	if err != nil {
		t.Error(err)
	}
}

// awaitArrived waits until all data that c has sent is in the receive buffer of its peer.
func awaitArrived(t *testing.T, c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return // a write to a unix socket puts the data there
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	unsent := func() (n int) {
		raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
		return n
	}
	if !within(patience, func() bool { return unsent() == 0 }) || err != nil {
		t.Errorf("the data does not arrive: %v", err)
	}
}

// Copy, which uses splice(2) where it can, delivers the data before and behind urgent data, whether
// or not the data is there when the copy begins.
func TestCopyPastUrgentData(t *testing.T) {
	for _, early := range []bool{true, false} {
		t.Run(fmt.Sprintf("before the copy begins: %v", early), func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			sink, taker := tcpPair(t, rt)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer ln.Close()
			src, err := joinOrCancel(Spawn(rt, func(cx *Context) (Conn, error) { return Dial(cx, "tcp", ln.Addr().String()) }))
			require.NoError(t, err)
			defer src.Close()
			peer, err := ln.Accept()
			require.NoError(t, err)
			defer peer.Close()
			inTimeOwn(src, sink, taker)

			send := func() {
				io.WriteString(peer, "before")
				sendUrgent(t, peer, "!")
				io.WriteString(peer, "behind")
				peer.(*net.TCPConn).CloseWrite()
			}
			if early {
				send()
				awaitArrived(t, peer)
			}
			copied := Spawn(rt, func(cx *Context) (int64, error) {
				defer sink.CloseWrite()
				return Copy(cx, sink, src)
			})
			if !early {
				eventually(t, func() bool { return directionWaits(&src.(*TCPConn).src.rd) })
				send()
			}
			got, err := joinOrCancel(Spawn(rt, func(cx *Context) ([]byte, error) { return io.ReadAll(BindConn(cx, taker)) }))
			require.NoError(t, err)
			require.Equal(t, "beforebehind", string(got))
			n, err := joinOrCancel(copied)
			require.NoError(t, err)
			require.EqualValues(t, len("beforebehind"), n)
		})
	}
}
