package async

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// makeBlocking makes the open file of c blocking, as another process that shares the file can.
func makeBlocking(t *testing.T, c interface{ File() (*os.File, error) }) {
	t.Helper()
	f, err := c.File()
	require.NoError(t, err)
	defer f.Close()
	raw, err := f.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), false) }))
	require.NoError(t, err)
}

// A descriptor that other code has made blocking does not block a worker: while an
// operation waits, another task of the only worker gets its turn and ends that wait.
func TestSharedDescriptorMadeBlocking(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	tcp, tcpPeer := tcpPair(t, rt)
	stream, streamPeer := unixPair(t)
	gram, gramPeer, err := DatagramPair()
	require.NoError(t, err)
	defer gram.Close()
	defer gramPeer.Close()
	udp, err := ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer udp.Close()
	toUDP, err := DialUDP("udp", nil, udp.LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	defer toUDP.Close()
	ln := tcpListen(t)
	unixLn, err := ListenUnix("unix", &net.UnixAddr{Name: netDir(t) + "/s", Net: "unix"})
	require.NoError(t, err)
	defer unixLn.Close()
	pr, pw, err := os.Pipe()
	require.NoError(t, err)
	defer pw.Close()
	inherited, err := duplicateFD(int(pr.Fd()))
	require.NoError(t, err)
	r, err := FromFile(os.NewFile(uintptr(inherited), "inherited"))
	require.NoError(t, err)
	buf := make([]byte, 64)

	read := func(c Conn) func(cx *Context) error {
		return func(cx *Context) error { _, err := c.Read(cx, buf); return err }
	}
	send := func(c Conn) func(cx *Context) error {
		return func(cx *Context) error { return tcpWrite(cx, c, "x") }
	}
	dial := func(ln Listener) func(cx *Context) error {
		return func(cx *Context) error {
			c, err := Dial(cx, ln.Addr().Network(), ln.Addr().String())
			if err == nil {
				c.Close()
			}
			return err
		}
	}
	accept := func(ln Listener) func(cx *Context) error {
		return func(cx *Context) error {
			c, err := ln.Accept(cx)
			if err == nil {
				c.Close()
			}
			return err
		}
	}
	for what, c := range map[string]struct {
		shared  interface{ File() (*os.File, error) }
		op, end func(cx *Context) error
	}{
		"TCP read":           {tcp, read(tcp), send(tcpPeer)},
		"unix read":          {stream, read(stream), send(streamPeer)},
		"unix datagram read": {gram, read(gram), send(gramPeer)},
		"UDP read":           {udp, read(udp), send(toUDP)},
		"UDP ReadFrom":       {udp, func(cx *Context) error { _, _, err := udp.ReadFrom(cx, buf); return err }, send(toUDP)},
		"UDP ReadMsgUDP":     {udp, func(cx *Context) error { _, _, _, _, err := udp.ReadMsgUDP(cx, buf, nil); return err }, send(toUDP)},
		"UDP ReadBatch": {udp, func(cx *Context) error {
			_, err := udp.ReadBatch(cx, []Message{{Buffers: [][]byte{buf}}, {Buffers: [][]byte{buf}}}, 0)
			return err
		}, send(toUDP)},
		"TCP Peek":        {tcp, func(cx *Context) error { _, err := tcp.Peek(cx, buf); return errors.Join(err, read(tcp)(cx)) }, send(tcpPeer)},
		"TCP ReadBuffers": {tcp, func(cx *Context) error { _, err := tcp.ReadBuffers(cx, net.Buffers{buf}); return err }, send(tcpPeer)},
		"ReceiveFiles": {stream, func(cx *Context) error {
			_, _, err := stream.ReceiveFiles(cx, buf, 1)
			return err
		}, send(streamPeer)},
		"accept":      {ln, accept(ln), dial(ln)},
		"unix accept": {unixLn, accept(unixLn), dial(unixLn)},
		"TCP splice":  {tcp, func(cx *Context) error { _, err := CopyN(cx, stream, tcp, 1); return err }, send(tcpPeer)},
		"a pipe that was inherited": {nil, func(cx *Context) error { _, err := r.Read(cx, buf); return err },
			func(cx *Context) error { _, err := pw.Write([]byte("x")); return err }},
	} {
		for range 2 { // the second time there is no recorded event
			if c.shared != nil {
				makeBlocking(t, c.shared)
			} else {
				require.NoError(t, unix.SetNonblock(int(pr.Fd()), false)) // the same open file
			}
			op := Go(rt, c.op)
			end := Go(rt, c.end) // begins when op waits, for there is one worker
			_, err := joinOrCancel(end)
			require.NoError(t, err, what)
			_, err = joinOrCancel(op)
			require.NoError(t, err, what)
		}
	}
	require.NoError(t, runTask(rt, func(cx *Context) error { return r.Close(cx) }))

	for what, c := range map[string]struct{ from, to Conn }{"TCP write": {tcp, tcpPeer}, "unix write": {stream, streamPeer}} {
		makeBlocking(t, c.from.(interface{ File() (*os.File, error) }))
		const large = 32 << 20
		op := Go(rt, func(cx *Context) error { _, err := c.from.Write(cx, make([]byte, large)); return err })
		end := Go(rt, func(cx *Context) error {
			n, err := io.CopyN(io.Discard, BindConn(cx, c.to), large)
			if err != nil {
				return fmt.Errorf("after %d bytes: %w", n, err)
			}
			return nil
		})
		_, err := joinOrCancel(end)
		require.NoError(t, err, what)
		_, err = joinOrCancel(op)
		require.NoError(t, err, what)
	}
}

// The code before a Write happens before the code after the Read that gets its data. This holds if
// an end is of package net, too. The race detector reports a race if it does not see that.
func TestWriteHappensBeforeRead(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, form := range []string{"goroutines", "task"} {
			rt := newTestRuntime(t, Config{Workers: 1})
			std, peer := pairOfNet(t, network)
			c, err := FromConn(std)
			require.NoError(t, err)
			run := runTask
			own := func(cx *Context) net.Conn { return BindConn(cx, c) }
			if form == "goroutines" {
				run = runBlockOn
				n := NetConn(rt, c)
				own = func(*Context) net.Conn { return n }
			}
			inTime(peer)
			inTimeOwn(c)
			var ours, theirs int // guarded by the order of the messages
			done := make(chan error, 1)
			go func() {
				var err error
				for i := range 100 {
					theirs = i
					if _, err = peer.Write([]byte("x")); err != nil {
						break
					}
					if _, err = io.ReadFull(peer, make([]byte, 1)); err != nil || ours != i {
						break
					}
				}
				done <- err
			}()
			require.NoError(t, run(rt, func(cx *Context) error {
				nc := own(cx)
				for i := range 100 {
					if _, err := io.ReadFull(nc, make([]byte, 1)); err != nil {
						return err
					}
					if theirs != i {
						return fmt.Errorf("the peer has written %d, want %d", theirs, i)
					}
					ours = i
					if _, err := nc.Write([]byte("x")); err != nil {
						return err
					}
				}
				return nil
			}), "%s, %s", network, form)
			require.NoError(t, <-done)
			c.Close()
		}
	}
}
