package async

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Where Go's own poller has no room for another one, each waits in system calls.
func TestPollerEachAlone(t *testing.T) {
	var p poller
	require.NoError(t, p.open(false))
	require.NoError(t, unix.SetNonblock(p.fd, false))
	p.file = os.NewFile(uintptr(p.fd), "epoll") // which leaves blocking descriptors to themselves
	eachEvent(t, &p)
}
