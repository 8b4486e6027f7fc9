package async

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// These benchmarks compare files and copies with goroutines that do the same work through packages
// os and net. The metric "threads" is the largest number of threads of the process during the
// benchmark, less the number at the beginning.

// watchThreads reports the threads that the benchmark needs.
func watchThreads(b *testing.B) {
	count := func() int64 {
		all, _ := os.ReadDir("/proc/self/task") // none on other systems
		return int64(len(all))
	}
	before, most := count(), int64(0)
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, count())
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	}()
	b.Cleanup(func() {
		close(over)
		<-done
		b.ReportMetric(float64(most-before), "threads")
	})
}

const (
	smallFiles    = 10_000
	smallFileSize = 1 << 10
	filesAtOnce   = 64
)

// plantFiles makes many small files in directories of 100.
func plantFiles(b *testing.B) (names []string) {
	dir := b.TempDir()
	for i := range smallFiles {
		d := filepath.Join(dir, fmt.Sprint(i/100))
		if i%100 == 0 {
			require.NoError(b, os.Mkdir(d, 0o700))
		}
		name := filepath.Join(d, fmt.Sprint(i))
		require.NoError(b, os.WriteFile(name, pattern(smallFileSize), 0o600))
		names = append(names, name)
	}
	return names
}

// BenchmarkSmallFiles reads 10,000 files of 1 KiB, 64 at once: files that are in the page cache,
// and, if the system can drop files from it, files that are not.
func BenchmarkSmallFiles(b *testing.B) {
	names := plantFiles(b)
	benchSmallFiles(b, names, func(*testing.B) {})
	b.Run("cold", func(b *testing.B) {
		benchSmallFiles(b, names, func(b *testing.B) {
			b.StopTimer()
			for _, name := range names {
				forgetFile(b, name)
			}
			b.StartTimer()
		})
	})
}

// forgetFile is forgetCached by name.
func forgetFile(b *testing.B, name string) {
	f, err := os.Open(name)
	require.NoError(b, err)
	defer f.Close()
	forgetCached(b, f)
}

func benchSmallFiles(b *testing.B, names []string, prepare func(*testing.B)) {
	b.Run("goroutines", func(b *testing.B) {
		watchThreads(b)
		for b.Loop() {
			prepare(b)
			var next atomic.Int64
			var all sync.WaitGroup
			for range filesAtOnce {
				all.Go(func() {
					for i := next.Add(1) - 1; i < smallFiles; i = next.Add(1) - 1 {
						if _, err := os.ReadFile(names[i]); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
		}
	})
	for _, limit := range []int{512, 4} {
		b.Run(fmt.Sprintf("straight/limit=%d", limit), func(b *testing.B) {
			rt, err := New(Config{Workers: 2, Blocking: BlockingConfig{Limit: limit}})
			require.NoError(b, err)
			defer rt.Shutdown(context.Background())
			watchThreads(b)
			for b.Loop() {
				prepare(b)
				var next atomic.Int64
				var all []*JoinHandle[None]
				for range filesAtOnce {
					all = append(all, Go(rt, func(cx *Context) error {
						for i := next.Add(1) - 1; i < smallFiles; i = next.Add(1) - 1 {
							if _, err := ReadFile(cx, names[i]); err != nil {
								return err
							}
						}
						return nil
					}))
				}
				for _, h := range all {
					if _, err := h.JoinBlocking(context.Background()); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// largeFile makes a file of 256 MiB; ASYNC_BENCH_LARGE=1 makes it 1 GiB.
func largeFile(b *testing.B) (name string, size int64) {
	size = 256 << 20
	if os.Getenv("ASYNC_BENCH_LARGE") != "" {
		size = 1 << 30
	}
	name = filepath.Join(b.TempDir(), "large")
	f, err := os.Create(name)
	require.NoError(b, err)
	part := pattern(1 << 20)
	for n := int64(0); n < size; n += int64(len(part)) {
		_, err := f.Write(part)
		require.NoError(b, err)
	}
	require.NoError(b, f.Close())
	return name, size
}

// BenchmarkLargeFile reads one file from its beginning to its end.
func BenchmarkLargeFile(b *testing.B) {
	name, size := largeFile(b)
	for _, part := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB/goroutines", part>>10), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				f, err := os.Open(name)
				require.NoError(b, err)
				for p := make([]byte, part); err == nil; {
					_, err = f.Read(p)
				}
				require.Equal(b, io.EOF, err)
				f.Close()
			}
		})
		b.Run(fmt.Sprintf("%dKiB/straight", part>>10), func(b *testing.B) {
			rt := benchRuntime(b)
			b.SetBytes(size)
			for b.Loop() {
				_, err := Go(rt, func(cx *Context) error {
					f, err := Open(cx, name)
					if err != nil {
						return err
					}
					for p := make([]byte, part); err == nil; {
						_, err = f.Read(cx, p)
					}
					f.Close(cx)
					return err
				}).JoinBlocking(context.Background())
				require.Equal(b, io.EOF, err)
			}
		})
	}
}

// BenchmarkSmallReads reads 4 MiB in pieces of 64 bytes. BenchmarkSmallWrites writes as much.
func BenchmarkSmallReads(b *testing.B)  { benchSmall(b, false) }
func BenchmarkSmallWrites(b *testing.B) { benchSmall(b, true) }

func benchSmall(b *testing.B, write bool) {
	const piece, pieces = 64, 64 << 10
	name := filepath.Join(b.TempDir(), "f")
	require.NoError(b, os.WriteFile(name, pattern(piece*pieces), 0o600))
	run := func(b *testing.B, rw io.ReadWriter) {
		p := make([]byte, piece)
		for range pieces {
			if write {
				rw.Write(p)
			} else {
				rw.Read(p)
			}
		}
	}
	b.Run("os", func(b *testing.B) {
		b.SetBytes(piece * pieces)
		for b.Loop() {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			require.NoError(b, err)
			run(b, f)
			f.Close()
		}
	})
	b.Run("os with bufio", func(b *testing.B) {
		b.SetBytes(piece * pieces)
		for b.Loop() {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			require.NoError(b, err)
			w := bufio.NewWriter(f)
			run(b, bufio.NewReadWriter(bufio.NewReader(f), w))
			w.Flush()
			f.Close()
		}
	})
	for _, buffered := range []bool{false, true} {
		b.Run(map[bool]string{false: "straight", true: "straight with bufio"}[buffered], func(b *testing.B) {
			rt := benchRuntime(b)
			b.SetBytes(piece * pieces)
			for b.Loop() {
				_, err := Go(rt, func(cx *Context) error {
					f, err := OpenFile(cx, name, os.O_RDWR, 0)
					if err != nil {
						return err
					}
					if bound := BindFile(cx, f); buffered {
						w := bufio.NewWriter(bound)
						run(b, bufio.NewReadWriter(bufio.NewReader(bound), w))
						w.Flush()
					} else {
						run(b, bound)
					}
					return f.Close(cx)
				}).JoinBlocking(context.Background())
				require.NoError(b, err)
			}
		})
	}
}

// BenchmarkProxy copies 64 MiB from one connection to another.
func BenchmarkProxy(b *testing.B) {
	const size = 64 << 20
	// Goroutines send and receive the data in all cases.
	ends := func(b *testing.B, ln net.Listener) (in, out net.Conn, accept func() net.Conn) {
		var err error
		in, err = net.Dial("tcp", ln.Addr().String())
		require.NoError(b, err)
		out, err = net.Dial("tcp", ln.Addr().String())
		require.NoError(b, err)
		return in, out, func() net.Conn { c, err := ln.Accept(); require.NoError(b, err); return c }
	}
	pump := func(b *testing.B, in, out net.Conn) {
		done := make(chan error, 1)
		go func() {
			_, err := io.CopyN(io.Discard, struct{ io.Reader }{out}, size)
			done <- err
		}()
		part := pattern(64 << 10)
		for n := 0; n < size; n += len(part) {
			_, err := in.Write(part)
			require.NoError(b, err)
		}
		require.NoError(b, <-done)
	}
	b.Run("net", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		defer ln.Close()
		in, out, accept := ends(b, ln)
		from, to := accept(), accept()
		done := make(chan struct{})
		go func() { io.Copy(to, from); close(done) }()
		b.SetBytes(size)
		for b.Loop() {
			pump(b, in, out)
		}
		in.Close()
		<-done
		for _, c := range []net.Conn{out, from, to} {
			c.Close()
		}
	})
	for _, kind := range []string{"splice", "through"} {
		b.Run(kind, func(b *testing.B) {
			rt := benchRuntime(b)
			in, out, err := proxied(rt, kind == "splice")
			require.NoError(b, err)
			b.SetBytes(size)
			for b.Loop() {
				pump(b, in, out)
			}
			in.Close()
			out.Close()
		})
	}
}

// proxied returns the outer ends of two connections between which a task copies.
func proxied(rt *Runtime, splice bool) (in, out net.Conn, err error) {
	ln, err := ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	if in, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		return nil, nil, err
	}
	if out, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		return nil, nil, err
	}
	type ends struct{ from, to *TCPConn }
	e, err := BlockOn(rt, func(cx *Context) (e ends, err error) {
		if e.from, err = ln.AcceptTCP(cx); err == nil {
			e.to, err = ln.AcceptTCP(cx)
		}
		return e, err
	})
	if err != nil {
		return nil, nil, err
	}
	Go(rt, func(cx *Context) (err error) {
		defer e.from.Close()
		defer e.to.Close()
		if splice {
			_, err = Copy(cx, e.to, e.from)
		} else {
			_, err = Copy(cx, plainEnd{e.to}, plainEnd{e.from})
		}
		return err
	})
	return in, out, nil
}
