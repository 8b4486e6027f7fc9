package main

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/async"
)

func TestEcho(t *testing.T) {
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		server := async.Go(cx, func(cx *async.Context) error { return async.Serve(cx, ln, echo) })
		conn, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		buf := make([]byte, 16)
		for _, text := range []string{"hello", "world"} {
			if _, err := conn.Write(cx, []byte(text)); err != nil {
				return err
			}
			n, err := conn.Read(cx, buf)
			require.NoError(t, err)
			require.Equal(t, text, string(buf[:n]))
		}
		require.NoError(t, conn.Close())
		require.NoError(t, ln.Close())
		if _, err := server.Join(cx); !errors.Is(err, async.ErrServerClosed) {
			return err
		}
		return nil
	})
	require.NoError(t, err)
}

// The README shows this program whole.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	_, program, found := strings.Cut(string(source), "\npackage main\n")
	require.True(t, found)
	require.Contains(t, string(readme), "```go\npackage main\n"+program+"```\n")
}
