package async

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// connReads are the ways to wait for data that all connections have, or all streams.
func connReads(c Conn) map[string]func(cx *Context, p []byte) (int, error) {
	reads := map[string]func(cx *Context, p []byte) (int, error){
		"Read": c.Read,
		"Peek": c.(interface {
			Peek(cx *Context, p []byte) (int, error)
		}).Peek,
	}
	if s, ok := c.(streamer); ok {
		reads["Readable"] = func(cx *Context, p []byte) (int, error) { return 0, s.stream().Readable(cx) }
		reads["ReadBuffers"] = func(cx *Context, p []byte) (int, error) {
			n, err := s.stream().ReadBuffers(cx, net.Buffers{p[:1], p[1:]})
			return int(n), err
		}
	}
	return reads
}

func connWrites(c Conn) map[string]func(cx *Context, p []byte) (int, error) {
	writes := map[string]func(cx *Context, p []byte) (int, error){"Write": c.Write}
	if s, ok := c.(streamer); ok {
		writes["WriteBuffers"] = func(cx *Context, p []byte) (int, error) {
			n, err := s.stream().WriteBuffers(cx, &net.Buffers{p[:1], p[1:]})
			return int(n), err
		}
	}
	return writes
}

// Promises, for each kind of connection:
//
//  1. A read that is cancelled takes nothing, whether it waits or there is data.
//  2. A write that is cancelled before it begins has written nothing.
//  3. A write that is cancelled while it waits returns the number of bytes that it has written.
func TestConnCancelled(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	tcpA, tcpB := tcpPair(t, rt)
	unixA, unixB := unixPair(t)
	udpA, udpB := udpPair(t)
	gramA, gramB, err := DatagramPair()
	require.NoError(t, err)
	defer gramA.Close()
	defer gramB.Close()
	for _, ends := range []struct {
		a, b Conn
		src  *pollFD // a's
	}{{tcpA, tcpB, &tcpA.src}, {unixA, unixB, &unixA.src}, {udpA, udpB, &udpA.src}, {gramA, gramB, &gramA.src}} {
		a, b := ends.a, ends.b
		t.Run(fmt.Sprintf("%T", a), func(t *testing.T) {
			for name, read := range connReads(a) {
				h := Go(rt, func(cx *Context) error { _, err := read(cx, make([]byte, 8)); return err })
				eventually(t, func() bool { return directionWaits(&ends.src.rd) }, name)
				h.Cancel()
				_, err := joinOrCancel(h)
				require.ErrorIs(t, err, context.Canceled, name)
			}
			require.NoError(t, runTask(rt, func(cx *Context) error {
				gone, cancel := cx.WithCancel()
				cancel()
				for name, write := range connWrites(b) {
					n, err := write(gone, []byte("lost"))
					assert.ErrorIs(t, err, context.Canceled, name)
					assert.Zero(t, n, name)
				}
				if _, err := b.Write(cx, []byte("kept")); err != nil {
					return err
				}
				p := make([]byte, 8)
				for name, read := range connReads(a) {
					n, err := read(gone, p)
					assert.ErrorIs(t, err, context.Canceled, name)
					assert.Zero(t, n, name)
				}
				n, err := a.Read(cx, p)
				assert.Equal(t, "kept", string(p[:n]))
				if err == nil {
					n, err = a.(PollReader).PollRead(cx, p)
					assert.Equal(t, ErrPending, err, "%q", p[:n])
					err = nil
				}
				return err
			}))
			if _, ok := a.(streamer); !ok {
				return // see TestUnixgramCancelledAndClosedWhileFull; a UDP socket always has room
			}
			for name, write := range connWrites(a) {
				h := Spawn(rt, func(cx *Context) (int, error) { return write(cx, make([]byte, 32<<20)) })
				eventually(t, func() bool { return directionWaits(&ends.src.wr) }, name)
				h.Cancel()
				written, err := joinOrCancel(h)
				require.ErrorIs(t, err, context.Canceled, name)
				require.NoError(t, runTask(rt, func(cx *Context) error {
					p := make([]byte, 64<<10)
					for left := written; left > 0; {
						n, err := b.Read(cx, p)
						if left -= n; err != nil || left < 0 {
							return fmt.Errorf("%s: %d of %d bytes are left: %w", name, left, written, err)
						}
					}
					n, err := b.(PollReader).PollRead(cx, p)
					assert.Equal(t, ErrPending, err, "%d bytes too many", n)
					return nil
				}))
			}
		})
	}
}
