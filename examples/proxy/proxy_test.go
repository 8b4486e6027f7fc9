package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// start runs a proxy to an address until the test ends.
func start(t *testing.T, to string) (p *proxy, addr string) {
	p = &proxy{to: to, dial: 10 * time.Second}
	ctx, stop := context.WithCancel(context.Background())
	ready, over := make(chan string, 1), make(chan error, 1)
	go func() { over <- p.run(ctx, "127.0.0.1:0", 10*time.Second, func(a net.Addr) { ready <- a.String() }) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-over)
	})
	return p, <-ready
}

// serveEcho runs an echo server, which closes a connection when the client has closed its writing
// side.
func serveEcho(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

func TestForwardsBothWays(t *testing.T) {
	p, addr := start(t, serveEcho(t))
	data := make([]byte, 3<<20)
	rand.Read(data)
	const clients = 8
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			go func() {
				c.Write(data)
				c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c) // returns only if the proxy passes the end on in both directions
			if err != nil || !bytes.Equal(data, got) {
				t.Errorf("%d bytes came back, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, clients, p.conns.Load())
	require.EqualValues(t, clients*len(data), p.up.Load())
	require.EqualValues(t, clients*len(data), p.down.Load())
}

func TestNobodyToForwardTo(t *testing.T) {
	// A socket that is bound to the port, so that no other program gets the port, and that does not
	// listen.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer syscall.Close(fd)
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	name, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	_, addr := start(t, fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port))
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err, "the connection goes on")
}
