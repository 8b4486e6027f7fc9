package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/async"
)

func TestCounts(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	var want tally
	for i := range 100 {
		text := strings.Repeat(strings.Repeat("x", i*100)+"\n", i) + "last"
		write(fmt.Sprintf("%d/%d.txt", i%7, i), text)
		want = want.plus(tally{1, int64(i) + 1, int64(len(text))})
	}
	write("empty.txt", "")
	want.files++
	write("readme", "one\ntwo\n")
	write("code.go", "package x\n")
	require.NoError(t, os.Symlink("readme", filepath.Join(dir, "link")))

	for _, atOnce := range []int{0, 1, 3, 1000} {
		var c counter
		require.NoError(t, async.Run(func(cx *async.Context) error { return c.count(cx, []string{dir}, "", atOnce) }))
		require.Equal(t, map[string]tally{".txt": want, "none": {1, 2, 8}, ".go": {1, 1, 10}}, c.byExt)
		require.Empty(t, c.failed)
	}

	var c counter
	missing := filepath.Join(dir, "missing")
	require.NoError(t, async.Run(func(cx *async.Context) error { return c.count(cx, []string{missing, dir}, ".go", 4) }))
	require.Len(t, c.failed, 1)
	require.ErrorIs(t, c.failed[0], os.ErrNotExist)
	var out strings.Builder
	c.print(&out)
	require.Equal(t, []string{"extension", "files", "lines", "bytes", ".go", "1", "1", "10", "all", "1", "1", "10"}, strings.Fields(out.String()))
}
