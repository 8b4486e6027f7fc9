package async

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// clockStepEnv is the environment variable that makes a child process run as if the wall clock had
// been stepped by its value since the program began.
const clockStepEnv = "ASYNC_TEST_CLOCK_STEP"

// The step is made before other code has read the clock.
var _ = func() None {
	if d, err := time.ParseDuration(os.Getenv(clockStepEnv)); err == nil {
		clockEpoch = withWall(clockEpoch, -d)
	}
	return None{}
}()

// withWall returns t with another reading of the wall clock and the same of the
// monotonic one.
func withWall(t time.Time, d time.Duration) time.Time {
	const seconds = 30 // the bits below are nanoseconds
	wall := (*uint64)(unsafe.Pointer(&t))
	*wall += uint64(d/time.Second) << seconds
	return t
}

// A deadline that was parsed, or read from a database, has no monotonic reading. It is as far away
// as the wall clock says when the deadline is set. The time that this clock showed when the program
// began does not matter.
func TestDeadlineWithoutMonotonicReading(t *testing.T) {
	if !inChild(t) {
		for _, step := range []string{"0s", "1h", "-1h"} {
			out, err := child(t, clockStepEnv+"="+step).CombinedOutput()
			require.NoError(t, err, "stepped by %s:\n%s", step, out)
		}
		return
	}
	const soon = 20 * time.Millisecond
	rt := newTestRuntime(t, Config{Workers: 2})
	tcp, tcpPeer := tcpPair(t, rt)
	udp, err := ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer udp.Close()
	unixA, unixB, err := SocketPair()
	require.NoError(t, err)
	defer unixA.Close()
	defer unixB.Close()
	ln := tcpListen(t)
	r, w, err := Pipe()
	require.NoError(t, err)
	fd, err := duplicateFD(int(r.src.fd))
	require.NoError(t, err)
	src, err := NewSource(fd)
	require.NoError(t, err)
	defer src.Close()
	silent := tcpFullBacklog(t)
	buf := make([]byte, 8)
	ofRuntime := func(fn func(cx *Context) error) error { return runTask(rt, fn) }

	for name, wait := range map[string]func(deadline time.Time) error{
		"TCP": func(d time.Time) error {
			tcp.SetReadDeadline(d)
			return ofRuntime(func(cx *Context) error { _, err := tcp.Read(cx, buf); return err })
		},
		"NetConn": func(d time.Time) error {
			c := NetConn(rt, tcp)
			c.SetReadDeadline(d)
			_, err := c.Read(buf)
			return err
		},
		"UDP": func(d time.Time) error {
			udp.SetDeadline(d)
			return ofRuntime(func(cx *Context) error { _, err := udp.Read(cx, buf); return err })
		},
		"unix": func(d time.Time) error {
			unixA.SetDeadline(d)
			return ofRuntime(func(cx *Context) error { _, err := unixA.Read(cx, buf); return err })
		},
		"listener": func(d time.Time) error {
			ln.SetDeadline(d)
			return ofRuntime(func(cx *Context) error { _, err := ln.Accept(cx); return err })
		},
		"File": func(d time.Time) error {
			if err := r.SetReadDeadline(d); err != nil {
				return err
			}
			return ofRuntime(func(cx *Context) error { _, err := r.Read(cx, buf); return err })
		},
		"Source": func(d time.Time) error {
			src.setReadDeadline(d)
			return ofRuntime(src.Readable)
		},
		"Context": func(d time.Time) error {
			return ofRuntime(func(cx *Context) error {
				cx, cancel := cx.WithDeadline(d)
				defer cancel()
				return Sleep(cx, time.Hour)
			})
		},
		"an inner Context with an outer deadline that has a monotonic reading": func(d time.Time) error {
			return ofRuntime(func(cx *Context) error {
				outer, cancel := cx.WithTimeout(30 * time.Minute)
				defer cancel()
				cx, cancel = outer.WithDeadline(d)
				defer cancel()
				if got, _ := cx.Deadline(); !got.Equal(d) {
					return errors.New("the deadline is not the earlier one")
				}
				return Sleep(cx, time.Hour)
			})
		},
		"a task under a context": func(d time.Time) error {
			ctx, cancel := context.WithDeadline(context.Background(), d)
			defer cancel()
			_, err := joinOrCancel(Go(rt.Under(ctx), func(cx *Context) error { return Sleep(cx, time.Hour) }))
			return err
		},
		"Dialer": func(d time.Time) error {
			dialer := Dialer{Deadline: d}
			return ofRuntime(func(cx *Context) error {
				c, err := dialer.Dial(cx, "tcp", silent)
				if err == nil {
					c.Close()
				}
				return err
			})
		},
	} {
		deadline := time.Now().Add(soon)
		err := wait(deadline.Round(0))
		require.ErrorIs(t, timeoutOf(err), context.DeadlineExceeded, name)
		require.False(t, time.Now().Add(time.Millisecond).Before(deadline), "%s: early", name)
	}

	later := time.Now().Add(time.Hour).Round(0)
	tcp.SetDeadline(later)
	require.NoError(t, ofRuntime(func(cx *Context) error {
		if err := tcpWrite(cx, tcpPeer, "in time"); err != nil {
			return err
		}
		return tcpExpect(cx, tcp, "in time")
	}))
	require.NoError(t, ofRuntime(func(cx *Context) error {
		cx, cancel := cx.WithDeadline(later)
		defer cancel()
		return Sleep(cx, time.Millisecond)
	}))
	require.NoError(t, ofRuntime(func(cx *Context) error { return errors.Join(r.Close(cx), w.Close(cx)) }))
}

// timeoutOf returns context.DeadlineExceeded for each error that a passed deadline causes.
func timeoutOf(err error) error {
	var late interface{ Timeout() bool }
	if errors.As(err, &late) && late.Timeout() {
		return context.DeadlineExceeded
	}
	return err
}
