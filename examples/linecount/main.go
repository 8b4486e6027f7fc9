// Command linecount counts the lines of all files below some folders.
//
//	go run ./examples/linecount [-ext .go] [-n 32] [folder ...]
//
// It walks the folders in one task, reads at most -n files at once in other tasks, and prints the
// sums by file extension.
//
// What to look at: counter.count uses a Group with a limit. Go waits in the walking task while the
// group is full, so the walk never runs ahead of the reads.
package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"text/tabwriter"

	"example.com/async"
)

func main() {
	ext := flag.String("ext", "", "count only files with this extension, such as .go")
	atOnce := flag.Int("n", 32, "how many files are read at once")
	flag.Parse()
	roots := flag.Args()
	if len(roots) == 0 {
		roots = []string{"."}
	}
	var c counter
	err := async.Run(func(cx *async.Context) error { return c.count(cx, roots, *ext, *atOnce) })
	c.print(os.Stdout)
	for _, err := range c.failed {
		fmt.Fprintln(os.Stderr, "linecount:", err)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "linecount:", err)
	}
	if err != nil || len(c.failed) > 0 {
		os.Exit(1)
	}
}

// counter collects the results of all files.
type counter struct {
	mu     sync.Mutex // no code awaits while it holds mu, so this need not be an async.Mutex
	byExt  map[string]tally
	failed []error
}

type tally struct{ files, lines, bytes int64 }

func (t tally) plus(o tally) tally {
	return tally{t.files + o.files, t.lines + o.lines, t.bytes + o.bytes}
}

// count counts all regular files below roots. It notes the error of a file or folder that cannot be
// read, and goes on with the next.
func (c *counter) count(cx *async.Context, roots []string, ext string, atOnce int) error {
	return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
		g.SetLimit(max(atOnce, 1))
		for _, root := range roots {
			err := async.WalkDir(cx, root, func(path string, d fs.DirEntry, err error) error {
				switch {
				case err != nil:
					c.note(path, tally{}, err)
				case d.Type().IsRegular() && (ext == "" || filepath.Ext(path) == ext):
					async.Go(g, func(cx *async.Context) error { // Go waits while atOnce files are being read
						t, err := countFile(cx, path)
						c.note(path, t, err)
						return cx.Err()
					})
				}
				return cx.Err()
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// note adds the tally of one file, or its error.
func (c *counter) note(path string, t tally, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed = append(c.failed, err)
		return
	}
	if c.byExt == nil {
		c.byExt = map[string]tally{}
	}
	ext := cmp.Or(filepath.Ext(path), "none")
	c.byExt[ext] = c.byExt[ext].plus(t)
}

// countFile counts the lines of one file. The last line need not end in a newline.
func countFile(cx *async.Context, path string) (t tally, err error) {
	f, err := async.Open(cx, path)
	if err != nil {
		return t, err
	}
	defer f.Close(cx)
	t.files = 1
	buf, last := make([]byte, 64<<10), byte('\n')
	for {
		n, err := f.Read(cx, buf)
		t.bytes += int64(n)
		t.lines += int64(bytes.Count(buf[:n], []byte("\n")))
		if n > 0 {
			last = buf[n-1]
		}
		if err == io.EOF && last != '\n' {
			t.lines++
		}
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return t, err
		}
	}
}

// print prints a line for each extension, ordered by the number of lines, and a line with the sums.
func (c *counter) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "extension\tfiles\tlines\tbytes\t\n")
	var sum tally
	exts := slices.SortedFunc(maps.Keys(c.byExt), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.byExt[b].lines, c.byExt[a].lines), cmp.Compare(a, b))
	})
	for _, ext := range exts {
		t := c.byExt[ext]
		sum = sum.plus(t)
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t\n", ext, t.files, t.lines, t.bytes)
	}
	fmt.Fprintf(table, "all\t%d\t%d\t%d\t\n", sum.files, sum.lines, sum.bytes)
	table.Flush()
}
