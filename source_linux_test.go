package async

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const filesAreRefused = true

func TestSourceEventfd(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	require.NoError(t, err)
	s, err := NewSource(fd)
	require.NoError(t, err)
	defer s.Close()
	const rounds = 100
	adder := Go(rt, func(cx *Context) error {
		one := binary.NativeEndian.AppendUint64(nil, 1)
		for range rounds {
			if _, err := s.WriteWith(cx, func(fd int) (int, error) { return unix.Write(fd, one) }); err != nil {
				return err
			}
			if err := Yield(cx); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for sum := uint64(0); sum < rounds; {
			var p [8]byte
			if _, err := s.ReadWith(cx, readSome(p[:])); err != nil {
				return err
			}
			sum += binary.NativeEndian.Uint64(p[:])
		}
		return nil
	}))
	_, err = joinOrCancel(adder)
	require.NoError(t, err)
}

func TestSourceInotify(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	dir := t.TempDir()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	require.NoError(t, err)
	s, err := NewSource(fd)
	require.NoError(t, err)
	defer s.Close()
	_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE)
	require.NoError(t, err)
	for range 3 {
		h := Go(rt, func(cx *Context) error {
			_, err := s.ReadWith(cx, readSome(make([]byte, 4096)))
			return err
		})
		eventually(t, func() bool { return waiting(h) })
		f, err := os.CreateTemp(dir, "")
		require.NoError(t, err)
		require.NoError(t, f.Close())
		_, err = joinOrCancel(h)
		require.NoError(t, err)
	}
	_, err = newSourceOf(mustOpen(t, dir))
	require.ErrorIs(t, err, ErrNotPollable, "a directory")
}

func mustOpen(t *testing.T, name string) *os.File {
	f, err := os.Open(name)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// A netlink socket asks the kernel for the network interfaces.
func TestSourceNetlink(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	require.NoError(t, err)
	s, err := NewSource(fd)
	require.NoError(t, err)
	defer s.Close()
	request := make([]byte, unix.NLMSG_HDRLEN+unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if _, err := s.WriteWith(cx, func(fd int) (int, error) {
			return len(request), unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		}); err != nil {
			return err
		}
		p := make([]byte, 1<<16)
		n, err := s.ReadWith(cx, readSome(p))
		require.Greater(t, n, unix.NLMSG_HDRLEN)
		require.EqualValues(t, unix.RTM_NEWLINK, binary.NativeEndian.Uint16(p[4:]))
		return err
	}))
}

func TestSourceFifoAndNull(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(name, 0o600))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	s, err := newSourceOf(f)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = newSourceOf(mustOpen(t, "/dev/null"))
	require.ErrorIs(t, err, ErrNotPollable)
}
