package async

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The kernel copies between stream connections of the unix domain. It does not copy packets, since
// a splice would not keep their bounds.
func TestSpliceUnix(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	a, b := unixPair(t)
	c, d := unixPair(t)
	from, ok := kernelEndOf(b)
	require.True(t, ok)
	to, ok := kernelEndOf(c)
	require.True(t, ok)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if err := tcpWrite(cx, a, "spliced"); err != nil {
			return err
		}
		n, err := spliceCopy(cx, to, from, 7)
		if n != 7 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		return tcpExpect(cx, d, "spliced")
	}))

	ln, err := ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(netDir(t), "s"), Net: "unixpacket"})
	require.NoError(t, err)
	defer ln.Close()
	require.NoError(t, runTask(rt, func(cx *Context) error {
		a, b, err := netConnect(cx, ln)
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		for _, c := range []Conn{a, b} {
			if _, ok := kernelEndOf(c); ok {
				t.Error("packets are spliced")
			}
		}
		return nil
	}))
}
