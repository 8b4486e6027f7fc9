package async

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// A listener accepts no more once Shutdown has begun, also if its task waits
// already, and the conversations that are under way come to their end.
func TestShutdownLetsTasksFinish(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	addrs, accepted := make(chan string, 1), make(chan struct{})
	server := Go(rt, func(cx *Context) error {
		ln, err := Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		addrs <- ln.Addr().String()
		c, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		close(accepted)
		Go(cx, func(cx *Context) error { // also spawned late: a task may
			defer c.Close()
			var p [4]byte
			for {
				n, err := c.Read(cx, p[:])
				if err != nil {
					return nil
				}
				if _, err := c.Write(cx, p[:n]); err != nil {
					return err
				}
			}
		})
		_, err = ln.Accept(cx)
		return err
	})
	c, err := net.Dial("tcp", receive(t, addrs))
	require.NoError(t, err)
	defer c.Close()
	receive(t, accepted)
	eventually(t, func() bool { return waiting(server) })

	over := make(chan error, 1)
	go func() { over <- rt.Shutdown(t.Context()) }()
	_, err = join(t, server)
	require.ErrorIs(t, err, ErrShutdown)
	_, err = join(t, Go(rt, func(*Context) error { return nil }))
	require.ErrorIs(t, err, ErrShutdown)

	for range 10 {
		_, err := c.Write([]byte("abcd"))
		require.NoError(t, err)
		var p [4]byte
		_, err = c.Read(p[:])
		require.NoError(t, err)
	}
	require.Empty(t, over, "Shutdown has not waited")
	c.Close()
	require.NoError(t, receive(t, over))
}
