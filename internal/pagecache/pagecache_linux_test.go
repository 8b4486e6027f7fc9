package pagecache

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Some kernels return 0 bytes for data that is not in memory. That is not taken for the end.
func TestZeroBytesAreTheEndOnlyAtTheEnd(t *testing.T) {
	o, err := os.Create(filepath.Join(t.TempDir(), "f"))
	require.NoError(t, err)
	defer o.Close()
	_, err = o.WriteString("abc")
	require.NoError(t, err)
	for at, want := range []error{ErrMiss, ErrMiss, ErrMiss, io.EOF, io.EOF} {
		_, err = o.Seek(int64(at), io.SeekStart)
		require.NoError(t, err)
		require.Equal(t, want, eofOrMiss(int(o.Fd()), -1), fmt.Sprint(at))
		require.Equal(t, want, eofOrMiss(int(o.Fd()), int64(at)), fmt.Sprint(at))
	}
	require.Equal(t, ErrMiss, eofOrMiss(-1, 0))
}
