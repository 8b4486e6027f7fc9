package async

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// asNobody calls fn on a thread that has no privileges while it runs.
func asNobody(t *testing.T, fn func()) {
	if os.Geteuid() != 0 {
		fn()
		return
	}
	become := func(uid uintptr) {
		keep := ^uintptr(0)
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uid, keep) // only for this thread
		require.Zero(t, errno)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become(65534)
	defer become(0)
	fn()
}

func TestNetPermissionErrorsAreThoseOfPackageNet(t *testing.T) {
	dir := netDir(t)
	require.NoError(t, os.Chmod(dir, 0o700))
	locked := filepath.Join(dir, "locked")
	require.NoError(t, os.Mkdir(locked, 0o000))
	name := &net.UnixAddr{Name: filepath.Join(locked, "s"), Net: "unix"}
	gram := &net.UnixAddr{Name: filepath.Join(locked, "g"), Net: "unixgram"}
	low := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	closing := func(c interface{ Close() error }, err error) error {
		if err == nil {
			c.Close()
		}
		return err
	}
	for what, c := range map[string]struct{ own, std func() error }{
		"ListenTCP": {
			func() error { l, err := ListenTCP("tcp", &low); return closing(l, err) },
			func() error { l, err := net.ListenTCP("tcp", &low); return closing(l, err) },
		},
		"ListenUDP": {
			func() error { l, err := ListenUDP("udp", (*net.UDPAddr)(&low)); return closing(l, err) },
			func() error { l, err := net.ListenUDP("udp", (*net.UDPAddr)(&low)); return closing(l, err) },
		},
		"ListenUnix": {
			func() error { l, err := ListenUnix("unix", name); return closing(l, err) },
			func() error { l, err := net.ListenUnix("unix", name); return closing(l, err) },
		},
		"ListenUnixgram": {
			func() error { l, err := ListenUnixgram("unixgram", gram); return closing(l, err) },
			func() error { l, err := net.ListenUnixgram("unixgram", gram); return closing(l, err) },
		},
		"DialUnixgram": {
			func() error { l, err := DialUnixgram("unixgram", nil, gram); return closing(l, err) },
			func() error { l, err := net.DialUnix("unixgram", nil, gram); return closing(l, err) },
		},
	} {
		asNobody(t, func() {
			std, own := c.std(), c.own()
			if std == nil { // on some machines every user may use low ports
				assert.NoError(t, own, what)
				return
			}
			assert.ErrorIs(t, std, syscall.EACCES, what)
			if assert.Error(t, own, what) {
				assert.Equal(t, netErrorFacts(std), netErrorFacts(own), what)
			}
		})
	}
}
