package async

import (
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openTerminal returns both sides of a pseudo terminal. A shell would give the second one to its
// children.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(m, unix.TIOCGPTN)
	require.NoError(t, err)
	name := fmt.Sprintf("/dev/pts/%d", n)
	s, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	return os.NewFile(uintptr(m), "ptmx"), os.NewFile(uintptr(s), name)
}

// A terminal stays blocking, and returns one line at a time.
func TestStdinTerminal(t *testing.T) {
	rt := fileRuntime(t)
	master, slave := openTerminal(t)
	in := stdFile(slave)
	h := Spawn(rt, func(cx *Context) (string, error) {
		p := make([]byte, 100)
		n, err := in.Read(cx, p)
		return string(p[:n]), err
	})
	eventually(t, func() bool { return waiting(h) })
	_, err := master.WriteString("typed\nahead\n")
	require.NoError(t, err)
	s, err := join(t, h)
	require.NoError(t, err)
	require.Equal(t, "typed\n", s)
	require.False(t, nonblocking(t, slave))
	inBlockOn(t, rt, func(cx *Context) error {
		info, err := in.Stat(cx)
		require.NoError(t, err)
		require.NotZero(t, info.Mode()&fs.ModeCharDevice)
		return in.Close(cx)
	})
	master.Close()
}
