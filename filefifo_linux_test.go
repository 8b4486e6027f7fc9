package async

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// If an opening fails because of the flags of one task, another task with other flags does not get
// the error. The error has the name that its task has used.
func TestFIFOSharedError(t *testing.T) {
	rt := fileRuntime(t)
	name := newFIFO(t)
	link := name + ".link"
	require.NoError(t, os.Link(name, link))
	direct := opens(rt, link, os.O_RDONLY|unix.O_DIRECT) // fails when there is a peer
	waitsForPeer(t, rt, name, false, 1)
	same := opens(rt, name, os.O_RDONLY|unix.O_DIRECT)
	waitsForPeer(t, rt, name, false, 2)
	plain := Spawn(rt, func(cx *Context) ([]byte, error) { return ReadFile(cx, name) })
	waitsForPeer(t, rt, name, false, 3)
	eventually(t, func() bool { return fifoGoroutines(t) == 1 })
	w, err := os.OpenFile(name, os.O_WRONLY, 0)
	require.NoError(t, err)
	for h, name := range map[*JoinHandle[None]]string{direct: link, same: name} {
		_, err = join(t, h)
		require.ErrorIs(t, err, syscall.EINVAL)
		var pe *fs.PathError
		require.ErrorAs(t, err, &pe)
		require.Equal(t, name, pe.Path)
	}
	eventually(t, func() bool { // until the first peers have closed
		_, err := w.WriteString("all")
		return !errors.Is(err, syscall.EPIPE)
	})
	require.NoError(t, w.Close())
	got, err := join(t, plain)
	require.NoError(t, err)
	require.Equal(t, "all", string(got))
}

// A FIFO is opened by a descriptor that stays open until the system call has returned, even if its
// task has ended meanwhile. Otherwise another file could get the number of the descriptor.
func TestFIFOKeepsPath(t *testing.T) {
	rt := fifoRuntime(t)
	name := newFIFO(t)
	r, err := filesOf(rt).fifos.find(name, os.O_RDONLY, 0)
	require.NoError(t, err)
	require.NotNil(t, r.path)
	path := int(r.path.Fd())
	opened := make(chan int)
	go func() {
		fd, err := r.open(os.O_RDONLY)
		if err != nil {
			t.Error(err)
		}
		opened <- fd
	}()
	inOpen(t)
	r.close()
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(path, &st))
	require.Equal(t, r.fifoID, fifoID{uint64(st.Dev), uint64(st.Ino)})
	w, err := unix.Open(name, os.O_WRONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	unix.Close(<-opened)
	unix.Close(w)
	require.Equal(t, unix.EBADF, unix.Fstat(path, &st))
	_, err = r.open(os.O_RDONLY)
	require.Equal(t, os.ErrClosed, err)
}
