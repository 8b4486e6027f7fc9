package interop

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"example.com/async"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// oobCapablePacketConn is the interface that quic-go requires of a socket before it uses ECN and
// GSO, and before it reads batches of packets.
type oobCapablePacketConn interface {
	net.PacketConn
	SyscallConn() (syscall.RawConn, error)
	SetReadBuffer(int) error
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
}

// formRunners call fn with each form of a connection, in the place where this form may be used. The
// connections of package net show the expected behaviour.
var formRunners = []struct {
	name string
	run  func(rt *async.Runtime, c async.Conn, fn func(c net.Conn) error) error
}{
	{"package net", func(rt *async.Runtime, c async.Conn, fn func(c net.Conn) error) error {
		f, err := c.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			return err
		}
		defer f.Close()
		std, err := net.FileConn(f)
		if err != nil {
			return err
		}
		defer std.Close()
		return fn(std)
	}},
	{"goroutines", func(rt *async.Runtime, c async.Conn, fn func(c net.Conn) error) error {
		return fn(async.NetConn(rt, c))
	}},
	{"bound", func(rt *async.Runtime, c async.Conn, fn func(c net.Conn) error) error {
		_, err := async.Go(rt, func(cx *async.Context) error { return fn(async.BindConn(cx, c)) }).JoinBlocking(context.Background())
		return err
	}},
}

// batcher has the methods that ipv4.PacketConn and ipv6.PacketConn share. Both have the same type
// of messages.
type batcher interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
	SetReadDeadline(time.Time) error
}

// The packages of golang.org/x/net set options, and send and receive batches with control messages,
// on both forms.
func TestXNetPacketConn(t *testing.T) {
	for _, family := range []struct {
		network, address string
		setUp            func(c net.PacketConn) (p batcher, control func(oob []byte) (to net.IP, hops int, err error), err error)
	}{
		{"udp4", "127.0.0.1:0", func(c net.PacketConn) (batcher, func([]byte) (net.IP, int, error), error) {
			p := ipv4.NewPacketConn(c)
			err := errors.Join(p.SetTTL(7), p.SetTOS(0x28), p.SetControlMessage(ipv4.FlagDst|ipv4.FlagTTL, true))
			if ttl, err := p.TTL(); ttl != 7 || err != nil {
				return nil, nil, errors.Join(errors.New("the TTL was not set"), err)
			}
			return p, func(oob []byte) (net.IP, int, error) {
				var cm ipv4.ControlMessage
				err := cm.Parse(oob)
				return cm.Dst, cm.TTL, err
			}, err
		}},
		{"udp6", "[::1]:0", func(c net.PacketConn) (batcher, func([]byte) (net.IP, int, error), error) {
			p := ipv6.NewPacketConn(c)
			err := errors.Join(p.SetHopLimit(7), p.SetTrafficClass(0x28), p.SetControlMessage(ipv6.FlagDst|ipv6.FlagHopLimit, true))
			if hops, err := p.HopLimit(); hops != 7 || err != nil {
				return nil, nil, errors.Join(errors.New("the hop limit was not set"), err)
			}
			return p, func(oob []byte) (net.IP, int, error) {
				var cm ipv6.ControlMessage
				err := cm.Parse(oob)
				return cm.Dst, cm.HopLimit, err
			}, err
		}},
	} {
		for _, form := range formRunners {
			t.Run(family.network+"/"+form.name, func(t *testing.T) {
				rt := newRuntime(t)
				c := listenUDP(t, family.network, family.address)
				to := c.LocalAddr().(*net.UDPAddr)
				require.NoError(t, form.run(rt, c, func(c net.Conn) error {
					oob, ok := c.(oobCapablePacketConn)
					if !ok {
						return errors.New("quic-go would do without ECN and GSO")
					}
					p, control, err := family.setUp(oob)
					if err != nil {
						return err
					}
					texts := []string{"one", "two", "three"}
					var out []ipv4.Message
					for _, text := range texts {
						out = append(out, ipv4.Message{Buffers: [][]byte{[]byte(text)}, Addr: to})
					}
					if n, err := p.WriteBatch(out, 0); err != nil || n != len(out) {
						return errors.Join(errors.New("WriteBatch sent another number of messages"), err)
					}
					for len(texts) > 0 {
						in := make([]ipv4.Message, 8)
						for i := range in {
							in[i].Buffers, in[i].OOB = [][]byte{make([]byte, 16)}, make([]byte, 128)
						}
						n, err := p.ReadBatch(in, 0)
						if err != nil {
							return err
						}
						for _, m := range in[:n] {
							dst, hops, err := control(m.OOB[:m.NN])
							if err != nil {
								return err
							}
							if string(m.Buffers[0][:m.N]) != texts[0] || !dst.Equal(to.IP) || hops != 7 || m.Addr.String() != to.String() {
								return errors.New("a message came with other data, or another control message")
							}
							texts = texts[1:]
						}
					}

					// Through WriteMsgUDP and ReadMsgUDP, as quic-go sends.
					if _, _, err := oob.WriteMsgUDP([]byte("message"), nil, to); err != nil {
						return err
					}
					data, cm := make([]byte, 16), make([]byte, 128)
					n, oobn, _, from, err := oob.ReadMsgUDP(data, cm)
					if err != nil {
						return err
					}
					if dst, hops, err := control(cm[:oobn]); err != nil || string(data[:n]) != "message" || !dst.Equal(to.IP) || hops != 7 || from.Port != to.Port {
						return errors.Join(errors.New("ReadMsgUDP did not return what WriteMsgUDP had sent"), err)
					}

					// A wait for a batch ends at the deadline.
					if err := p.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
						return err
					}
					_, err = p.ReadBatch(make([]ipv4.Message, 1), 0)
					var timeout net.Error
					if !errors.As(err, &timeout) || !timeout.Timeout() {
						return errors.Join(errors.New("ReadBatch did not end with the deadline"), err)
					}
					return nil
				}))
			})
		}
	}
}

// ipv4.NewConn and ipv6.NewConn accept TCP connections of both forms.
func TestXNetConn(t *testing.T) {
	for _, form := range formRunners {
		t.Run(form.name, func(t *testing.T) {
			rt := newRuntime(t)
			for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
				a, b, err := pair(rt, "tcp", address)
				require.NoError(t, err)
				defer a.Close()
				defer b.Close()
				require.NoError(t, form.run(rt, a, func(c net.Conn) error {
					if address == "[::1]:0" {
						p := ipv6.NewConn(c)
						err := p.SetHopLimit(9)
						hops, err2 := p.HopLimit()
						if hops != 9 {
							err = errors.Join(err, errors.New("the hop limit was not set"))
						}
						return errors.Join(err, err2)
					}
					p := ipv4.NewConn(c)
					err := p.SetTTL(9)
					ttl, err2 := p.TTL()
					if ttl != 9 {
						err = errors.Join(err, errors.New("the TTL was not set"))
					}
					return errors.Join(err, err2)
				}))
			}
		})
	}
}

func listenUDP(t *testing.T, network, address string) *async.UDPConn {
	laddr, err := net.ResolveUDPAddr(network, address)
	require.NoError(t, err)
	c, err := async.ListenUDP(network, laddr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}
