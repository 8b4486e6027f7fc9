package async

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkUDPEcho makes a server echo packets of 64 bytes. One operation is one packet and its
// echo. All servers have the same client, which keeps a window of packets in flight, and sends and
// receives in batches, so that most of the work is done by the server.
func BenchmarkUDPEcho(b *testing.B) {
	for _, window := range []int{1, 64} {
		for _, s := range []struct {
			name  string
			serve func(b *testing.B, rt *Runtime) (addr string, stop func())
		}{
			{"net", benchUDPNet},
			{"plain", benchUDPServer("ReadFromUDPAddrPort")},
			{"plain, net.Addr", benchUDPServer("ReadFrom")},
			{"batch of 8", benchUDPServer("ReadBatch")},
			{"bound", benchUDPServer("net")},
		} {
			b.Run(fmt.Sprintf("window=%d/%s", window, s.name), func(b *testing.B) {
				rt, err := New(Config{Workers: 1, Stalled: func(Stall) {}})
				require.NoError(b, err)
				defer rt.Shutdown(context.Background())
				addr, stop := s.serve(b, rt)
				defer stop()
				benchUDPClient(b, addr, window)
			})
		}
	}
}

func benchUDPNet(b *testing.B, _ *Runtime) (string, func()) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(b, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, 2048)
		for {
			n, addr, err := c.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(p[:n], addr)
		}
	}()
	return c.LocalAddr().String(), func() { c.Close(); <-done }
}

func benchUDPServer(way string) func(b *testing.B, rt *Runtime) (string, func()) {
	return func(b *testing.B, rt *Runtime) (string, func()) {
		c, err := ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(b, err)
		h := Go(rt, func(cx *Context) error {
			if err := udpEchoes[way](cx, c); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
		return c.LocalAddr().String(), func() {
			c.Close()
			_, err := joinOrCancel(h)
			require.NoError(b, err)
		}
	}
}

// benchUDPClient runs the client in a runtime of its own.
func benchUDPClient(b *testing.B, addr string, window int) {
	rt, err := New(Config{Workers: 1, Stalled: func(Stall) {}})
	require.NoError(b, err)
	defer rt.Shutdown(context.Background())
	h := Go(rt, func(cx *Context) error {
		d, err := Dial(cx, "udp4", addr)
		if err != nil {
			return err
		}
		defer d.Close()
		c := d.(*UDPConn)
		c.SetDeadline(time.Now().Add(time.Minute)) // in case a packet is lost
		out, in := udpMessages(window, 64), udpMessages(window, 64)
		b.ResetTimer()
		sent, got := 0, 0
		for got < b.N {
			if n := min(b.N-sent, window-(sent-got)); n > 0 {
				if _, err := c.WriteBatch(cx, out[:n], 0); err != nil {
					return err
				}
				sent += n
			}
			n, err := c.ReadBatch(cx, in, 0)
			if err != nil {
				return err
			}
			got += n
		}
		b.StopTimer()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
		return nil
	})
	_, err = joinOrCancel(h)
	require.NoError(b, err)
}
