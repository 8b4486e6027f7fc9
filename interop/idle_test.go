package interop

import (
	"io"
	"net"
	"net/http"
	"runtime"
	"syscall"
	"testing"

	"example.com/async"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"
)

// idleServers serve HTTP until the test ends, and return their address. The
// idle connections of Serve with idle parking are measured in the library's own
// BenchmarkIdleConnections.
var idleServers = []struct {
	name  string
	serve func(b *testing.B) net.Addr
}{
	{"net-http", func(b *testing.B) net.Addr {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })}
		go s.Serve(ln)
		b.Cleanup(func() { s.Close() })
		return ln.Addr()
	}},
	{"fasthttp-net", func(b *testing.B) net.Addr {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		go idleFasthttp(false).Serve(ln)
		b.Cleanup(func() { ln.Close() })
		return ln.Addr()
	}},
	{"fasthttp-tasks", func(b *testing.B) net.Addr { return idleTasks(b, idleFasthttp(false)) }},
	{"fasthttp-tasks-ReduceMemoryUsage", func(b *testing.B) net.Addr { return idleTasks(b, idleFasthttp(true)) }},
}

func idleFasthttp(reduce bool) *fasthttp.Server {
	return &fasthttp.Server{
		ReduceMemoryUsage: reduce,
		Handler:           func(ctx *fasthttp.RequestCtx) { ctx.WriteString("ok") },
	}
}

func idleTasks(b *testing.B, s *fasthttp.Server) net.Addr {
	addrs := make(chan net.Addr, 1)
	async.Go(newRuntime(b), func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		addrs <- ln.Addr()
		async.Serve(cx, ln, func(cx *async.Context, c async.Conn) (bool, error) {
			s.ServeConn(c.WithContext(cx))
			return false, nil
		})
		return nil
	})
	return <-addrs
}

// BenchmarkIdle measures what keep-alive connections cost that have had one
// request each: Go's heap and stacks, not the kernel's memory. The clients are
// plain descriptors. There are 10,000, or as many as the limit allows.
func BenchmarkIdle(b *testing.B) {
	for _, s := range idleServers {
		b.Run(s.name, func(b *testing.B) {
			var limit syscall.Rlimit
			require.NoError(b, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
			conns := int(min(10_000, (limit.Cur-100)/2))
			addr := s.serve(b).(*net.TCPAddr)
			before := memory()
			fds := make([]int, conns)
			for i := range fds {
				fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
				require.NoError(b, err)
				require.NoError(b, syscall.Connect(fd, &syscall.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}))
				fds[i] = fd
			}
			defer func() {
				for _, fd := range fds {
					syscall.Close(fd)
				}
			}()
			for range b.N {
				for _, fd := range fds {
					if _, err := syscall.Write(fd, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
						b.Fatal(err)
					}
				}
				var p [1024]byte
				for _, fd := range fds {
					if n, err := syscall.Read(fd, p[:]); n <= 0 {
						b.Fatal(n, err)
					}
				}
			}
			b.ReportMetric(float64(memory()-before)/float64(conns), "B/conn")
		})
	}
}

func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
