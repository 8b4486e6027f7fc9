package interop

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/async"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

// countingListener counts connections.
type countingListener struct {
	net.Listener
	n atomic.Int32
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

func listen(t testing.TB, rt *async.Runtime) *countingListener {
	t.Helper()
	ln, err := rt.ListenNet("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return &countingListener{Listener: ln}
}

func hello(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%s %s", r.Proto, body)
}

// TestHTTP runs the client and the server of net/http, both on connections of package async.
func TestHTTP(t *testing.T) {
	for _, kind := range []struct {
		name, proto string
		tls, h2     bool
	}{
		{"HTTP/1.1", "HTTP/1.1", false, false},
		{"HTTPS/1.1", "HTTP/1.1", true, false},
		{"HTTP/2", "HTTP/2.0", true, true},
		{"h2c", "HTTP/2.0", false, true},
	} {
		t.Run(kind.name, func(t *testing.T) {
			rt := newRuntime(t)
			ln := listen(t, rt)
			server := httptest.NewUnstartedServer(http.HandlerFunc(hello))
			server.Listener.Close()
			server.Listener = ln
			transport := &http.Transport{DialContext: rt.DialNet}
			var protocols http.Protocols
			protocols.SetHTTP1(!kind.h2)
			protocols.SetHTTP2(kind.h2 && kind.tls)
			protocols.SetUnencryptedHTTP2(kind.h2 && !kind.tls)
			server.Config.Protocols, transport.Protocols = &protocols, &protocols
			if kind.tls {
				server.EnableHTTP2 = kind.h2
				server.StartTLS()
				transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
				transport.TLSClientConfig.NextProtos = nil
			} else {
				server.Start()
			}
			defer server.Close()
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
			ask := func(body string) error {
				res, err := client.Post(server.URL, "text/plain", strings.NewReader(body))
				if err != nil {
					return err
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				if want := kind.proto + " " + body; err == nil && string(got) != want {
					err = fmt.Errorf("got %d bytes, %.40q, want %.40q", len(got), got, want)
				}
				return err
			}
			// The number of connections is only bounded. The client of net/http sometimes dials a
			// second connection for HTTP/2, and does not keep a connection whose writer is slow to
			// report that it has finished. Both also happen on package net.
			for i := 0; i < 20 || int(ln.n.Load()) > 1+i/20; i++ {
				require.Less(t, i, 1000, "the connection is kept")
				require.NoError(t, ask(fmt.Sprint("request ", i)))
			}
			require.NoError(t, ask(string(make([]byte, 4<<20))))
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					if err := ask(fmt.Sprint("at once ", i)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()

			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			transport.CloseIdleConnections()
			require.NoError(t, server.Config.Shutdown(ctx))
		})
	}
}

// A request that is cancelled ends at once on both sides. To notice the end, the server of net/http
// reads in the background. It ends this Read by a deadline.
func TestHTTPGivenUp(t *testing.T) {
	rt := newRuntime(t)
	asked, givenUp := make(chan struct{}), make(chan struct{})
	ln := listen(t, rt)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/quick" {
			return
		}
		close(asked)
		<-r.Context().Done()
		close(givenUp)
	})}
	go server.Serve(ln)
	defer server.Close()
	client := newHTTPClient(rt)
	defer client.CloseIdleConnections()
	url := "http://" + ln.Addr().String()
	res, err := client.Get(url + "/quick") // the next request uses the same connection
	require.NoError(t, err)
	res.Body.Close()
	ctx, cancel := context.WithCancel(t.Context())
	result := begun(func() error {
		req, err := http.NewRequestWithContext(ctx, "GET", url+"/slow", nil)
		if err == nil {
			_, err = client.Do(req)
		}
		return err
	})
	<-asked
	cancel()
	require.ErrorIs(t, ends(t, "request", result), context.Canceled)
	select {
	case <-givenUp:
	case <-time.After(patience):
		t.Fatal("the handler goes on")
	}
}

func TestWebSocket(t *testing.T) {
	rt := newRuntime(t)
	ln := listen(t, rt)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 21)
		for {
			kind, p, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if c.Write(r.Context(), kind, p) != nil {
				return
			}
		}
	})}
	go server.Serve(ln)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := dialWebSocket(ctx, rt, "ws://"+ln.Addr().String())
	require.NoError(t, err)
	defer c.CloseNow()
	c.SetReadLimit(1 << 21)
	for _, n := range []int{0, 1, 125, 126, 70_000, 1 << 20} {
		require.NoError(t, c.Write(ctx, websocket.MessageBinary, make([]byte, n)))
		_, p, err := c.Read(ctx)
		require.NoError(t, err)
		require.Len(t, p, n)
	}
	require.NoError(t, c.Close(websocket.StatusNormalClosure, ""))
}

// tlsConfigs returns the configurations of a server, and of a client that trusts the server.
func tlsConfigs() (server, client *tls.Config) {
	s := httptest.NewUnstartedServer(nil) // for its certificate
	s.StartTLS()
	defer s.Close()
	client = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	client.ServerName = "example.com"
	return &tls.Config{Certificates: s.TLS.Certificates}, client
}

// TestTLS runs client and server of crypto/tls on every form of the connections.
func TestTLS(t *testing.T) {
	serverConfig, clientConfig := tlsConfigs()
	each(t, func(t *testing.T, makePipe nettest.MakePipe) {
		a, b, stop, err := makePipe()
		require.NoError(t, err)
		defer stop()
		errs := make(chan error, 1)
		go func() {
			s := tls.Server(b, serverConfig)
			_, err := io.Copy(s, s)
			if err == nil {
				err = s.Close()
			}
			errs <- err
		}()
		c := tls.Client(a, clientConfig)
		require.NoError(t, c.Handshake())
		sent := make([]byte, 1<<20)
		go c.Write(sent)
		_, err = io.ReadFull(c, sent)
		require.NoError(t, err)

		// After a deadline in a Read, the reading side of the TLS connection can still be used.
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
		_, err = c.Read(sent)
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
		require.NoError(t, c.SetReadDeadline(time.Time{}))
		_, err = c.Write([]byte("again"))
		require.NoError(t, err)
		_, err = io.ReadFull(c, sent[:5])
		require.NoError(t, err)
		require.Equal(t, "again", string(sent[:5]))

		require.NoError(t, c.CloseWrite())
		_, err = c.Read(sent)
		require.Equal(t, io.EOF, err)
		require.NoError(t, <-errs)
	})
}
