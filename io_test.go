package async

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// connPair returns two TCP connections that are each other's peer.
func connPair(t testing.TB) (a, b *TCPConn) {
	t.Helper()
	ln, err := ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer ln.Close()
	rt, err := New(Config{Workers: 1})
	require.NoError(t, err)
	defer rt.Shutdown(context.Background())
	inBlockOn(t, rt, func(cx *Context) (err error) {
		a, err = DialTCP(cx, "tcp", nil, ln.Addr().(*net.TCPAddr))
		require.NoError(t, err)
		b, err = ln.AcceptTCP(cx)
		return err
	})
	return a, b
}

// sameWay embeds a connection and has its own Read, which Copy must call.
type sameWay struct {
	*TCPConn
	reads int
}

func (s *sameWay) Read(cx *Context, p []byte) (int, error) {
	s.reads++
	return s.TCPConn.Read(cx, p)
}

// plainEnd hides a type from Copy, so that the kernel does not copy its data.
type plainEnd struct{ rw any }

func (p plainEnd) Read(cx *Context, b []byte) (int, error)  { return p.rw.(Reader).Read(cx, b) }
func (p plainEnd) Write(cx *Context, b []byte) (int, error) { return p.rw.(Writer).Write(cx, b) }

// Copy copies from every kind of source to every kind of destination.
func TestCopy(t *testing.T) {
	rt := fileRuntime(t)
	want := pattern(3<<20 + 17)
	sources := map[string]func(t *testing.T) (src Reader, done func()){
		"conn":  func(t *testing.T) (Reader, func()) { return connSource(t, rt, want) },
		"plain": func(t *testing.T) (Reader, func()) { r, done := connSource(t, rt, want); return plainEnd{r}, done },
		"embedded": func(t *testing.T) (Reader, func()) {
			r, done := connSource(t, rt, want)
			s := &sameWay{TCPConn: r.(*TCPConn)}
			return s, func() { done(); require.Positive(t, s.reads) }
		},
		"unix": func(t *testing.T) (Reader, func()) {
			a, b := unixPair(t)
			h := Go(rt, func(cx *Context) error { _, err := a.Write(cx, want); return errors.Join(err, a.CloseWrite()) })
			return b, func() { _, err := join(t, h); require.NoError(t, err) }
		},
		"pipe": func(t *testing.T) (Reader, func()) {
			r, w, err := Pipe()
			require.NoError(t, err)
			h := Go(rt, func(cx *Context) error { _, err := w.Write(cx, want); return errors.Join(err, w.Close(cx)) })
			return r, func() { join(t, h); inBlockOn(t, rt, r.Close) }
		},
		"file": func(t *testing.T) (Reader, func()) {
			name := filepath.Join(t.TempDir(), "src")
			require.NoError(t, os.WriteFile(name, append([]byte("skipped"), want...), 0o600))
			var f *File
			inBlockOn(t, rt, func(cx *Context) (err error) {
				f, err = Open(cx, name)
				require.NoError(t, err)
				_, err = io.ReadFull(BindFile(cx, f), make([]byte, 7)) // more data was read ahead
				return err
			})
			return f, func() { inBlockOn(t, rt, f.Close) }
		},
	}
	destinations := map[string]func(t *testing.T) (dst Writer, check func()){
		"conn":  func(t *testing.T) (Writer, func()) { return connSink(t, rt, want) },
		"plain": func(t *testing.T) (Writer, func()) { w, check := connSink(t, rt, want); return plainEnd{w}, check },
		"unix": func(t *testing.T) (Writer, func()) {
			a, b := unixPair(t)
			end := func(*Context) error { return a.CloseWrite() }
			return a, drain(t, rt, b, want, end, func(*Context) error { return errors.Join(a.Close(), b.Close()) })
		},
		"pipe": func(t *testing.T) (Writer, func()) {
			r, w, err := Pipe()
			require.NoError(t, err)
			return w, drain(t, rt, r, want, func(cx *Context) error { return w.Close(cx) }, func(cx *Context) error { return r.Close(cx) })
		},
		"file": func(t *testing.T) (Writer, func()) {
			name := filepath.Join(t.TempDir(), "dst")
			var f *File
			inBlockOn(t, rt, func(cx *Context) (err error) {
				f, err = Create(cx, name)
				require.NoError(t, err)
				_, err = f.WriteString(cx, "head") // must be written before the copy
				return err
			})
			return f, func() {
				inBlockOn(t, rt, f.Close)
				got, err := os.ReadFile(name)
				require.NoError(t, err)
				require.True(t, bytes.Equal(append([]byte("head"), want...), got))
			}
		},
	}
	for from, source := range sources {
		for to, destination := range destinations {
			t.Run(from+" to "+to, func(t *testing.T) {
				src, done := source(t)
				dst, check := destination(t)
				n, err := join(t, Spawn(rt, func(cx *Context) (int64, error) {
					n, err := CopyN(cx, dst, src, 1000)
					if n != 1000 || err != nil {
						return n, err
					}
					n, err = Copy(cx, dst, src)
					return 1000 + n, err
				}))
				require.NoError(t, err)
				require.EqualValues(t, len(want), n)
				check()
				done()
			})
		}
	}
}

func connSource(t *testing.T, rt *Runtime, want []byte) (Reader, func()) {
	a, b := connPair(t)
	h := Go(rt, func(cx *Context) error { _, err := a.Write(cx, want); a.CloseWrite(); return err })
	return b, func() { join(t, h); a.Close(); b.Close() }
}

func connSink(t *testing.T, rt *Runtime, want []byte) (Writer, func()) {
	a, b := connPair(t)
	return a, drain(t, rt, b, want,
		func(*Context) error { return a.CloseWrite() },
		func(*Context) error { return errors.Join(a.Close(), b.Close()) })
}

// drain reads all of r during the copy, and compares the data.
func drain(t *testing.T, rt *Runtime, r Reader, want []byte, end, done func(*Context) error) (check func()) {
	h := Spawn(rt, func(cx *Context) ([]byte, error) { return io.ReadAll(BindReader(cx, r)) })
	return func() {
		inBlockOn(t, rt, end)
		got, err := join(t, h)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
		inBlockOn(t, rt, done)
	}
}

func TestCopyShort(t *testing.T) {
	rt := fileRuntime(t)
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, []byte("abc"), 0o600))
	inBlockOn(t, rt, func(cx *Context) error {
		f, err := Open(cx, name)
		require.NoError(t, err)
		out, err := Create(cx, name+"2")
		require.NoError(t, err)
		n, err := CopyN(cx, out, f, 0)
		require.NoError(t, err)
		require.Zero(t, n)
		n, err = CopyN(cx, out, f, 5)
		require.Equal(t, io.EOF, err)
		require.EqualValues(t, 3, n)
		n, err = Copy(cx, out, f)
		require.NoError(t, err)
		require.Zero(t, n)
		// A file to itself is read and written, not copied in one.
		_, err = out.Seek(cx, 1, io.SeekStart)
		require.NoError(t, err)
		n, err = CopyN(cx, out, out, 1)
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		b, err := ReadFile(cx, name+"2")
		require.NoError(t, err)
		require.NoError(t, out.Flush(cx))
		b, err = ReadFile(cx, name+"2")
		require.NoError(t, err)
		require.Equal(t, "abb", string(b))
		require.NoError(t, f.Close(cx))
		return out.Close(cx)
	})
}

// Copies in opposite directions do not wait for each other.
func TestCopyCrosswise(t *testing.T) {
	rt := fileRuntime(t)
	dir := t.TempDir()
	var files [2]*File
	inBlockOn(t, rt, func(cx *Context) (err error) {
		for i, name := range []string{"a", "b"} {
			files[i], err = OpenFile(cx, filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
			require.NoError(t, err)
			_, err = files[i].Write(cx, pattern(100_000))
			require.NoError(t, err)
			_, err = files[i].Seek(cx, 0, io.SeekStart)
			require.NoError(t, err)
		}
		return nil
	})
	var all []*JoinHandle[None]
	for i := range 40 {
		all = append(all, Go(rt, func(cx *Context) error {
			_, err := CopyN(cx, files[i%2], files[1-i%2], 100)
			return err
		}))
	}
	for _, h := range all {
		_, err := join(t, h)
		require.NoError(t, err)
	}
	for _, f := range files {
		inBlockOn(t, rt, func(cx *Context) error {
			at, err := f.Seek(cx, 0, io.SeekCurrent)
			require.NoError(t, err)
			require.EqualValues(t, 40*100, at, "each was read from 20 times and written to 20 times")
			return f.Close(cx)
		})
	}
}

// Whenever a Copy is cancelled, the data that it has read has been written or is in the error. A
// copy that continues from there loses nothing.
func TestCopyCancelled(t *testing.T) {
	rt := fileRuntime(t)
	want := pattern(4 << 20)
	for _, kind := range []string{"conn", "plain", "file"} {
		t.Run(kind, func(t *testing.T) {
			var src Reader
			done := func() {}
			if kind == "file" {
				name := filepath.Join(t.TempDir(), "src")
				require.NoError(t, os.WriteFile(name, want, 0o600))
				inBlockOn(t, rt, func(cx *Context) (err error) {
					f, err := Open(cx, name)
					src, done = f, func() { inBlockOn(t, rt, f.Close) }
					return err
				})
			} else {
				src, done = connSource(t, rt, want)
				if kind == "plain" {
					src = plainEnd{src}
				}
			}
			// No task reads until the copies have been cancelled, so that they wait.
			dst, other := connPair(t)
			require.NoError(t, dst.SetWriteBuffer(1<<15))
			require.NoError(t, other.SetReadBuffer(1<<15))
			permits := NewUnboundedChan[None]()
			check := drain(t, rt, permittedReader{other, permits}, want,
				func(*Context) error { return dst.CloseWrite() },
				func(*Context) error { return errors.Join(dst.Close(), other.Close()) })
			total, cancelled := int64(0), 0
			for i := 0; ; i++ {
				var n int64
				h := Go(rt, func(cx *Context) (err error) { n, err = Copy(cx, dst, src); return err })
				eventually(t, func() bool { return waiting(h) || h.state.done() })
				if i < 10 {
					h.Cancel()
					permits.TrySend(None{})
				} else {
					permits.Close()
				}
				_, err := join(t, h)
				total += n
				var left *CopyError
				if errors.As(err, &left) {
					require.NotEmpty(t, left.Unwritten)
					total += int64(len(left.Unwritten))
					rest := Go(rt, func(cx *Context) error { _, err := dst.Write(cx, left.Unwritten); return err })
					eventually(t, func() bool { permits.TrySend(None{}); return rest.state.done() })
				}
				if err == nil {
					break
				}
				require.ErrorIs(t, err, context.Canceled)
				cancelled++
			}
			permits.Close() // the last copy may have ended by then
			require.Positive(t, cancelled)
			require.EqualValues(t, len(want), total)
			check()
			done()
		})
	}
}

// Nothing is lost either if the destination fails.
func TestCopyBroken(t *testing.T) {
	rt := fileRuntime(t)
	for _, plain := range []bool{false, true} {
		r, w, err := Pipe()
		require.NoError(t, err)
		in, out, err := Pipe()
		require.NoError(t, err)
		inBlockOn(t, rt, func(cx *Context) error {
			_, err := out.WriteString(cx, "unread")
			require.NoError(t, err)
			require.NoError(t, r.Close(cx))
			var dst Writer = w
			if plain {
				dst = plainEnd{w}
			}
			n, err := Copy(cx, dst, in)
			require.Zero(t, n)
			require.ErrorIs(t, err, syscall.EPIPE)
			var left *CopyError
			require.ErrorAs(t, err, &left)
			require.Equal(t, "unread", string(left.Unwritten))
			require.Contains(t, err.Error(), "6 bytes were read and not written")
			require.NoError(t, w.Close(cx))
			require.NoError(t, in.Close(cx))
			_, err = Copy(cx, plainEnd{out}, in)
			require.ErrorIs(t, err, os.ErrClosed)
			return out.Close(cx)
		})
	}
}

// While copies wait for their sources they hold no pipe and no buffer. The existing pipes and
// buffers serve one copy after the other.
func TestCopyIdle(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	const copies = 20
	var out []*TCPConn
	var in []*File
	var all []*JoinHandle[None]
	for range copies {
		r, w, err := Pipe()
		require.NoError(t, err)
		a, b := connPair(t)
		in, out = append(in, r, w), append(out, a, b)
	}
	rt.shared.acquire() // the shared reactor has descriptors of its own
	before := openFds(t)
	for i := range copies {
		all = append(all, Go(rt, func(cx *Context) error { _, err := Copy(cx, out[2*i], in[2*i]); return err }))
	}
	for _, h := range all {
		eventually(t, func() bool { return waiting(h) })
	}
	inBlockOn(t, rt, func(cx *Context) error {
		for i := range copies {
			for range 2 {
				_, err := in[2*i+1].WriteString(cx, "x")
				require.NoError(t, err)
				one := make([]byte, 2)
				n, err := out[2*i+1].Read(cx, one)
				require.NoError(t, err)
				require.Equal(t, "x", string(one[:n]))
			}
		}
		return nil
	})
	require.LessOrEqual(t, openFds(t), before+2)
	for i, h := range all {
		inBlockOn(t, rt, in[2*i+1].Close)
		_, err := join(t, h)
		require.NoError(t, err)
		inBlockOn(t, rt, in[2*i].Close)
		out[2*i].Close()
		out[2*i+1].Close()
	}
}

// permittedReader waits for a permit before each read, until permits are closed.
type permittedReader struct {
	Reader
	permits *Chan[None]
}

func (r permittedReader) Read(cx *Context, p []byte) (int, error) {
	if _, err := r.permits.Recv(cx); err != nil && err != ErrClosed {
		return 0, err
	}
	return r.Reader.Read(cx, p)
}

type stringReader struct{ *strings.Reader }

func (r stringReader) Read(_ *Context, p []byte) (int, error) { return r.Reader.Read(p) }

type shortWriter struct{}

func (shortWriter) Write(*Context, []byte) (int, error) { return 1, nil }

func TestCopyShortWrite(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	inBlockOn(t, rt, func(cx *Context) error {
		n, err := Copy(cx, shortWriter{}, stringReader{strings.NewReader("abc")})
		require.EqualValues(t, 1, n)
		require.ErrorIs(t, err, io.ErrShortWrite)
		b, err := io.ReadAll(BindReader(cx, stringReader{strings.NewReader("abc")}))
		require.NoError(t, err)
		require.Equal(t, "abc", string(b))
		n2, err := BindWriter(cx, shortWriter{}).Write([]byte("x"))
		require.NoError(t, err)
		require.Equal(t, 1, n2)
		return nil
	})
}
