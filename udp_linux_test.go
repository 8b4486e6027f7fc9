package async

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A socket of both families sets its options for both. A socket of IPv6 alone does not change the
// options of IPv4.
func TestUDPOptionsOfBothFamilies(t *testing.T) {
	lo := udpLoopback(t)
	for network, both := range map[string]bool{"udp": true, "udp6": false} {
		t.Run(network, func(t *testing.T) {
			c, err := ListenUDP(network, nil)
			require.NoError(t, err)
			defer c.Close()
			require.True(t, c.v6())
			before, err := c.option(unix.IPPROTO_IP, unix.IP_TTL)
			require.NoError(t, err)
			require.NoError(t, c.SetTTL(3))
			require.NoError(t, c.SetMulticastTTL(5))
			require.NoError(t, c.SetMulticastLoopback(false))
			require.NoError(t, c.setMulticastInterface(lo))
			want := map[int]int{unix.IP_TTL: before, unix.IP_MULTICAST_TTL: 1, unix.IP_MULTICAST_LOOP: 1}
			on := [4]byte{}
			if both {
				want = map[int]int{unix.IP_TTL: 3, unix.IP_MULTICAST_TTL: 5, unix.IP_MULTICAST_LOOP: 0}
				on = [4]byte{127, 0, 0, 1}
			}
			for option, v := range want {
				got, err := c.option(unix.IPPROTO_IP, option)
				require.NoError(t, err)
				require.Equal(t, v, got, "option %d", option)
			}
			for option, v := range map[int]int{unix.IPV6_UNICAST_HOPS: 3, unix.IPV6_MULTICAST_HOPS: 5, unix.IPV6_MULTICAST_LOOP: 0, unix.IPV6_MULTICAST_IF: lo.Index} {
				got, err := c.option(unix.IPPROTO_IPV6, option)
				require.NoError(t, err)
				require.Equal(t, v, got, "option %d of IPv6", option)
			}
			require.NoError(t, c.src.control(func(fd int) error {
				got, err := unix.GetsockoptInet4Addr(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF)
				require.Equal(t, on, got)
				return err
			}))
			ifis, err := net.Interfaces()
			require.NoError(t, err)
			for _, ifi := range ifis {
				if ifi.Flags&net.FlagUp != 0 {
					require.NoError(t, c.setMulticastInterface(&ifi), "%s, which IPv4 may not know", ifi.Name)
				}
			}
		})
	}
}

func TestUDPInterfaceWithoutIPv4(t *testing.T) {
	_, err := interfaceIPv4(&net.Interface{Index: 1 << 24, Name: "without"})
	require.ErrorIs(t, err, errNoIPv4)
	require.ErrorContains(t, err, "without")
}

// A batch in the pool refers to no memory of the caller's, not even to that of messages that were
// not sent.
func TestUDPBatchForgets(t *testing.T) {
	a, b := udpListen(t), udpListen(t)
	text := []byte("text")
	good := Message{Buffers: [][]byte{text}, OOB: text[:0], Addr: b.LocalAddr()}
	used := new(messageBatch)
	require.NoError(t, a.src.control(func(fd int) error {
		n, err := used.send(fd, []Message{good, {Buffers: good.Buffers, OOB: text, Addr: &net.TCPAddr{}}, good}, a.v6(), 0)
		require.Equal(t, 1, n)
		return err
	}))
	used.clear()
	for _, h := range used.hdrs[:cap(used.hdrs)] {
		require.Zero(t, h)
	}
	for _, v := range used.iovs[:cap(used.iovs)] {
		require.Zero(t, v)
	}
}
