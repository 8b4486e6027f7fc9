package async

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The queue of a listener is as long as the system allows, and not limited by the constant of the
// system's headers.
func TestListenBacklogIsWhatTheSystemAllows(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	require.NoError(t, err)
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	ln := tcpListen(t)
	require.NoError(t, ln.src.control(func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		require.NoError(t, err)
		require.EqualValues(t, min(limit, 1<<16-1), info.Sacked) // for a listener this field is the length of its queue
		return nil
	}))
}
