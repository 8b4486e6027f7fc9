package interop

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

// These tests check behaviour that other epoll libraries do not have, or have only by a fork of the
// standard library. TestListener checks that Accept always returns a connection or an error.

const patience = 20 * time.Second

// ends returns the result of a call that must end, and fails the test if the call goes on.
func ends(t *testing.T, what string, result <-chan error) error {
	t.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(patience):
		t.Fatalf("the %s goes on", what)
		return nil
	}
}

func requireTimeout(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var ne net.Error
	require.ErrorAs(t, err, &ne)
	require.True(t, ne.Timeout())
}

// requireEcho sends a byte in each direction.
func requireEcho(t *testing.T, a, b net.Conn) {
	t.Helper()
	for _, c := range [][2]net.Conn{{a, b}, {b, a}} {
		sent := make(chan error, 1)
		go func() {
			_, err := c[0].Write([]byte("x"))
			sent <- err
		}()
		_, err := io.ReadFull(c[1], make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, ends(t, "Write", sent))
	}
}

// begun starts a call on a goroutine, and returns a channel for its result. The goroutine has begun
// when begun returns.
func begun(call func() error) <-chan error {
	began, result := make(chan struct{}), make(chan error, 1)
	go func() {
		close(began)
		result <- call()
	}()
	<-began
	return result
}

// A read deadline ends a Read that waits, and does not close the connection. This holds for a
// deadline in the future and for a deadline in the past.
func TestReadDeadlineWakesAndDoesNotClose(t *testing.T) {
	each(t, func(t *testing.T, makePipe nettest.MakePipe) {
		a, b, stop, err := makePipe()
		require.NoError(t, err)
		defer stop()
		for _, after := range []time.Duration{10 * time.Millisecond, -time.Hour} {
			read := begun(func() error { _, err := a.Read(make([]byte, 1)); return err })
			require.NoError(t, a.SetReadDeadline(time.Now().Add(after)))
			requireTimeout(t, ends(t, "Read", read))
			require.NoError(t, a.SetReadDeadline(time.Time{}))
			requireEcho(t, a, b)
		}
	})
}

// A write deadline ends a Write that waits, and does not close the connection.
func TestWriteDeadlineWakesAndDoesNotClose(t *testing.T) {
	each(t, func(t *testing.T, makePipe nettest.MakePipe) {
		a, b, stop, err := makePipe()
		require.NoError(t, err)
		defer stop()
		written := 0
		write := begun(func() error { // more than the buffers of the system hold, so that Write waits
			n, err := a.Write(make([]byte, 64<<20))
			written = n
			return err
		})
		require.NoError(t, a.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
		requireTimeout(t, ends(t, "Write", write))
		require.NoError(t, a.SetWriteDeadline(time.Time{}))
		n, err := io.CopyN(io.Discard, b, int64(written)) // exactly the n bytes that Write has reported arrive
		require.NoError(t, err)
		require.EqualValues(t, written, n)
		requireEcho(t, a, b)
	})
}

// Close ends a Read that waits.
func TestCloseWakes(t *testing.T) {
	each(t, func(t *testing.T, makePipe nettest.MakePipe) {
		a, b, stop, err := makePipe()
		require.NoError(t, err)
		defer stop()
		read := begun(func() error { _, err := a.Read(make([]byte, 1)); return err })
		require.NoError(t, a.Close())
		require.ErrorIs(t, ends(t, "Read", read), net.ErrClosed)
		_, err = b.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
}

// No code that these tests run is a fork: crypto/tls and net/http belong to the standard library,
// and go.mod replaces no module except package async.
func TestNothingIsForked(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	require.Equal(t, 1, bytes.Count(mod, []byte("replace")))
	require.Contains(t, string(mod), "replace example.com/async => ../\n")
	each(t, func(t *testing.T, makePipe nettest.MakePipe) {
		a, _, stop, err := makePipe()
		require.NoError(t, err)
		defer stop()
		require.Equal(t, "crypto/tls", reflect.TypeOf(tls.Client(a, &tls.Config{})).Elem().PkgPath())
	})
}
