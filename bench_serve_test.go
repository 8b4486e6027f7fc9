package async

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// idleRequest is a request, and idleAnswer its answer.
const (
	idleRequest = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	idleAnswer  = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
)

// idleReaders is the pool of buffers for the Handler of Serve, which returns its buffer after each
// call.
var idleReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4096) }}

// answerIdle reads requests from r and answers them on c, until r holds no further input.
func answerIdle(c net.Conn, r *bufio.Reader) error {
	for {
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return err
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := io.WriteString(c, idleAnswer); err != nil {
			return err
		}
		if r.Buffered() == 0 {
			return nil
		}
	}
}

// idleServers serve until the listener is closed.
var idleServers = []struct {
	name  string
	serve func(b *testing.B) (addr net.Addr)
}{
	{"net-http", func(b *testing.B) net.Addr {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })}
		go s.Serve(ln)
		b.Cleanup(func() { s.Close() })
		return ln.Addr()
	}},
	{"net-http-on-NetConn", func(b *testing.B) net.Addr {
		ln, err := newTestRuntime(b, Config{Workers: 2}).ListenNet("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })}
		go s.Serve(ln)
		b.Cleanup(func() { s.Close() })
		return ln.Addr()
	}},
	{"goroutine-each", func(b *testing.B) net.Addr {
		return acceptEach(b, func(c net.Conn) {
			for r := bufio.NewReaderSize(c, 4096); answerIdle(c, r) == nil; {
			}
		})
	}},
	{"straight-task-each", func(b *testing.B) net.Addr {
		rt, ln := newTestRuntime(b, Config{Workers: 2}), tcpListen(b)
		Go(rt, func(cx *Context) error {
			for {
				c, err := ln.Accept(cx)
				if err != nil {
					return nil
				}
				Go(cx, func(cx *Context) error {
					defer c.Close()
					bound := BindConn(cx, c)
					for r := bufio.NewReaderSize(bound, 4096); answerIdle(bound, r) == nil; {
					}
					return nil
				})
			}
		})
		return ln.Addr()
	}},
	{"serve", func(b *testing.B) net.Addr {
		rt, ln := newTestRuntime(b, Config{Workers: 2}), tcpListen(b)
		Go(rt, func(cx *Context) error {
			Serve(cx, ln, func(cx *Context, c Conn) (bool, error) {
				bound := BindConn(cx, c)
				r := idleReaders.Get().(*bufio.Reader)
				defer idleReaders.Put(r)
				r.Reset(bound)
				return answerIdle(bound, r) == nil, nil
			})
			return nil
		})
		return ln.Addr()
	}},
}

// BenchmarkIdleConnections measures the memory that idle keep-alive connections cost the server:
// the heap and the stacks of Go, without the memory of the kernel. There are 10,000 connections, or
// as many as the limit of descriptors allows. Each connection has made one request. The clients are
// plain descriptors.
func BenchmarkIdleConnections(b *testing.B) {
	for _, s := range idleServers {
		b.Run(s.name, func(b *testing.B) {
			var limit unix.Rlimit
			require.NoError(b, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
			conns := int(min(10_000, (limit.Cur-100)/2))
			addr := s.serve(b).(*net.TCPAddr)
			before := goMemory()
			fds := make([]int, conns)
			for i := range fds {
				fds[i] = idleDial(b, addr)
			}
			defer func() {
				for _, fd := range fds {
					unix.Close(fd)
				}
			}()
			ask := func() {
				for _, fd := range fds {
					if _, err := unix.Write(fd, []byte(idleRequest)); err != nil {
						b.Fatal(err)
					}
				}
				var p [512]byte
				for _, fd := range fds {
					if n, err := unix.Read(fd, p[:]); n <= 0 { // a short answer arrives in one read
						b.Fatal(n, err)
					}
				}
			}
			ask()
			held := goMemory() - before
			b.ResetTimer()
			for range b.N {
				ask()
			}
			b.StopTimer()
			b.ReportMetric(float64(held)/float64(conns), "B/conn")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(conns), "ns/request")
		})
	}
}

// idleDial returns a connected blocking socket.
func idleDial(b *testing.B, addr *net.TCPAddr) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	require.NoError(b, err)
	require.NoError(b, unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}))
	return fd
}

// goMemory returns the bytes of the heap and the stacks that are in use.
func goMemory() int64 {
	runtime.GC()
	// A second collection frees the objects that the first has moved to the victim caches of pools.
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
