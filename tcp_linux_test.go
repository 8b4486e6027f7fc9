package async

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A read stops in front of urgent data, also where there is more data behind it.
func TestTCPReadGoesOnBehindUrgentData(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	for _, registered := range []bool{false, true} {
		a, b := tcpPair(t, rt)
		require.NoError(t, runTask(rt, func(cx *Context) error {
			cx, cancel := cx.WithTimeout(patience)
			defer cancel()
			if registered {
				if err := drained(cx, b, a); err != nil {
					return err
				}
				if err := b.PollReadable(cx); err != ErrPending {
					return fmt.Errorf("PollReadable: %v", err)
				}
			}
			if err := tcpWrite(cx, a, "ab"); err != nil {
				return err
			}
			if err := a.src.control(func(fd int) error { return unix.Sendto(fd, []byte("c"), unix.MSG_OOB, nil) }); err != nil {
				return err
			}
			if err := tcpWrite(cx, a, "def"); err != nil {
				return err
			}
			return tcpExpect(cx, b, "abdef")
		}))
	}
}
