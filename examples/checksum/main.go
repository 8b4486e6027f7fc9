// Command checksum prints the SHA-256 of every file in a tree, in the format of sha256sum.
//
//	go run ./examples/checksum [-n 16] [folder]
//
// It reads at most -n files at once, prints the sums in the order of the names, and draws a
// progress bar if standard error is a terminal.
//
// What to look at:
//
//   - checksum starts tasks with results (Spawn), joins them in order, and so bounds how many run.
//   - sum passes a file to io.Copy of the standard library (BindFile).
//   - progress.show is periodic work in a task: a loop with Sleep, ended by JoinHandle.Cancel.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"example.com/async"
)

func main() {
	atOnce := flag.Int("n", 16, "how many files are read at once")
	flag.Parse()
	root := "."
	if flag.NArg() > 0 {
		root = flag.Arg(0)
	}
	var bar io.Writer
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&fs.ModeCharDevice != 0 {
		bar = os.Stderr
	}
	failed := 0
	err := async.Run(func(cx *async.Context) (err error) {
		out := bufio.NewWriter(async.BindFile(cx, async.Stdout))
		failed, err = checksum(cx, root, *atOnce, out, bar)
		return errors.Join(err, out.Flush())
	})
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "checksum:", err)
		os.Exit(1)
	case failed > 0:
		fmt.Fprintf(os.Stderr, "checksum: %d files or folders could not be read\n", failed)
		os.Exit(1)
	}
}

// file is one file of the tree.
type file struct {
	path string
	size int64
}

// checksum writes the sums of all regular files below root to out, and a progress bar to bar unless
// bar is nil. It returns how many files and folders could not be read, and prints their errors to
// standard error.
func checksum(cx *async.Context, root string, atOnce int, out, bar io.Writer) (failed int, err error) {
	files, failed, err := list(cx, root)
	if err != nil {
		return failed, err
	}
	p := &progress{files: int64(len(files))}
	for _, f := range files {
		p.bytes += f.size
	}
	err = async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
		if bar != nil {
			stop := async.Go(cx, func(cx *async.Context) error { return p.show(cx, bar) })
			defer stop.Cancel()
		}
		// begun has the tasks whose sums have not been printed yet, in the order of files. There
		// are at most atOnce, so a large tree needs no more handles than a small tree.
		atOnce = max(atOnce, 1)
		var begun []*async.JoinHandle[string]
		next := func() error { // prints the sum of the first file
			sum, err := begun[0].Join(cx)
			path := files[0].path
			begun, files = begun[1:], files[1:]
			if cx.Err() != nil {
				return cx.Err()
			}
			if err != nil {
				failed++
				fmt.Fprintln(os.Stderr, "checksum:", err)
				return nil
			}
			_, err = fmt.Fprintf(out, "%s  %s\n", sum, path)
			return err
		}
		g.KeepGoing() // a file that cannot be read does not cancel the other tasks
		for _, f := range files {
			if len(begun) == atOnce {
				if err := next(); err != nil {
					return err
				}
			}
			begun = append(begun, async.Spawn(g, func(cx *async.Context) (string, error) { return sum(cx, f.path, p) }))
		}
		for len(begun) > 0 {
			if err := next(); err != nil {
				return err
			}
		}
		return nil
	})
	if bar != nil {
		p.draw(bar)
		fmt.Fprintln(bar)
	}
	return failed, err
}

// list returns the regular files below root, in lexical order, and how many files and folders could
// not be examined. It fails only if root itself cannot be examined, or if cx is cancelled.
func list(cx *async.Context, root string) (files []file, failed int, err error) {
	err = async.WalkDir(cx, root, func(path string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil && d.Type().IsRegular() {
			info, err = async.Lstat(cx, path) // d.Info would block the worker
		}
		switch {
		case cx.Err() != nil:
			return cx.Err()
		case err != nil && d == nil: // root itself
			return err
		case err != nil:
			failed++
			fmt.Fprintln(os.Stderr, "checksum:", err)
		case info != nil:
			files = append(files, file{path, info.Size()})
		}
		return nil
	})
	return files, failed, err
}

// sum returns the sum of one file.
func sum(cx *async.Context, path string, p *progress) (string, error) {
	f, err := async.Open(cx, path)
	if err != nil {
		return "", err
	}
	defer f.Close(cx)
	defer p.doneFiles.Add(1)
	hash := sha256.New()
	if _, err := io.Copy(io.MultiWriter(hash, p), async.BindFile(cx, f)); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// progress counts the files and bytes that have been read, and the total.
type progress struct {
	files, bytes         int64
	doneFiles, doneBytes atomic.Int64
}

// Write implements io.Writer. It counts the bytes that were read.
func (p *progress) Write(b []byte) (int, error) {
	p.doneBytes.Add(int64(len(b)))
	return len(b), nil
}

// show draws the bar every 100 ms until cx ends.
func (p *progress) show(cx *async.Context, w io.Writer) error {
	for {
		p.draw(w)
		if err := async.Sleep(cx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

const barWidth = 40

func (p *progress) draw(w io.Writer) {
	done := 1.0
	if p.bytes > 0 {
		done = min(float64(p.doneBytes.Load())/float64(p.bytes), 1)
	}
	n := int(done * barWidth)
	fmt.Fprintf(w, "\r[%s%s] %3.0f %%  %d of %d files", strings.Repeat("=", n), strings.Repeat(" ", barWidth-n),
		100*done, p.doneFiles.Load(), p.files)
}
