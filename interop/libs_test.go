package interop

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"example.com/async"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// TestFasthttp serves each connection with fasthttp inside a task. fasthttp starts no goroutine
// there, so it gets the bound form.
func TestFasthttp(t *testing.T) {
	rt := newRuntime(t)
	s := &fasthttp.Server{
		ReadTimeout: 20 * time.Second,
		Handler: func(ctx *fasthttp.RequestCtx) {
			fmt.Fprintf(ctx, "fasthttp %s", ctx.PostBody())
		},
	}
	addrs := make(chan net.Addr, 1)
	async.Go(rt, func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		addrs <- ln.Addr()
		return serveFasthttp(cx, ln, s)
	})
	url := "http://" + (<-addrs).String()
	client := &fasthttp.Client{
		Dial: func(addr string) (net.Conn, error) {
			return rt.DialNet(context.Background(), "tcp", addr)
		},
		MaxIdleConnDuration: 50 * time.Millisecond, // a goroutine of the client stays for this time
	}
	defer client.CloseIdleConnections()
	std := newHTTPClient(rt)
	defer std.CloseIdleConnections()
	for i := range 20 {
		req, res := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
		req.SetRequestURI(url)
		req.Header.SetMethod("POST")
		req.SetBodyString(fmt.Sprint(i))
		require.NoError(t, client.Do(req, res))
		require.Equal(t, fmt.Sprint("fasthttp ", i), string(res.Body()))
		fasthttp.ReleaseRequest(req)
		fasthttp.ReleaseResponse(res)

		hres, err := std.Post(url, "text/plain", strings.NewReader(fmt.Sprint(i)))
		require.NoError(t, err)
		body, err := io.ReadAll(hres.Body)
		hres.Body.Close()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("fasthttp ", i), string(body))
	}
}

// TestGRPC runs client and server of grpc-go, which start goroutines.
func TestGRPC(t *testing.T) {
	rt := newRuntime(t)
	ln := listen(t, rt)
	server := grpc.NewServer()
	checks := health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, checks)
	go server.Serve(ln)
	defer server.Stop()
	conn, err := newGRPCClient(rt, ln.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	client := grpc_health_v1.NewHealthClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 20 {
		res, err := client.Check(ctx, new(grpc_health_v1.HealthCheckRequest))
		require.NoError(t, err)
		require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, res.Status)
	}
	stream, err := client.Watch(ctx, new(grpc_health_v1.HealthCheckRequest))
	require.NoError(t, err)
	for _, status := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
		grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		checks.SetServingStatus("", status)
		res, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, status, res.Status)
	}
}
