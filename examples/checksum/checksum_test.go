package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/async"
)

func TestChecksum(t *testing.T) {
	dir := t.TempDir()
	var want strings.Builder
	for i := range 50 {
		path := filepath.Join(dir, fmt.Sprintf("%02d", i), "file")
		require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
		data := make([]byte, i*i*100)
		rand.Read(data)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		fmt.Fprintf(&want, "%x  %s\n", sha256.Sum256(data), path)
	}
	for _, atOnce := range []int{0, 1, 4, 100} {
		var out, bar bytes.Buffer
		err := async.Run(func(cx *async.Context) error {
			failed, err := checksum(cx, dir, atOnce, &out, &bar)
			require.Zero(t, failed)
			return err
		})
		require.NoError(t, err)
		require.Equal(t, want.String(), out.String())
		require.Contains(t, bar.String(), "100 %  50 of 50 files")
	}
}

// A folder that cannot be read is counted, and other folders are still read. Here the path of the
// folder is too long.
func TestUnreadableFolder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "z"), nil, 0o600))
	at, err := os.OpenRoot(dir)
	require.NoError(t, err)
	for range 20 {
		name := strings.Repeat("a", 250)
		require.NoError(t, at.Mkdir(name, 0o700))
		below, err := at.OpenRoot(name)
		require.NoError(t, err)
		at.Close()
		at = below
	}
	at.Close()
	var out bytes.Buffer
	err = async.Run(func(cx *async.Context) error {
		failed, err := checksum(cx, dir, 1, &out, nil)
		require.Equal(t, 1, failed)
		return err
	})
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%x  %s\n", sha256.Sum256(nil), filepath.Join(dir, "z")), out.String())
}

func TestMissingFolder(t *testing.T) {
	err := async.Run(func(cx *async.Context) error {
		_, err := checksum(cx, filepath.Join(t.TempDir(), "none"), 1, new(bytes.Buffer), nil)
		return err
	})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A checksum whose Context has ended returns an error, and leaves no task behind.
func TestCancel(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 1<<20), 0o600))
	}
	err := async.Run(func(cx *async.Context) error {
		inner, cancel := cx.WithCancel()
		cancel()
		_, err := checksum(inner, dir, 4, new(bytes.Buffer), nil)
		return err
	})
	require.Error(t, err)
}
