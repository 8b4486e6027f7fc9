// Package interop runs the code of other projects on the connections of package async.
// docs/libraries.md quotes the functions of this file, and the tests call them.
package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"example.com/async"
	"github.com/coder/websocket"
	"github.com/gomodule/redigo/redis"
	"github.com/jackc/pgx/v5/pgxpool"
	goredis "github.com/redis/go-redis/v9"
	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Libraries that fit inside a task: they do all their work during the call.

// lines answers each line with the result of reply.
func lines(cx *async.Context, c async.Conn, reply func(line string) string) error {
	bound := async.BindConn(cx, c)
	in, out := bufio.NewScanner(bound), bufio.NewWriter(bound)
	for in.Scan() {
		fmt.Fprintln(out, reply(in.Text()))
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return in.Err()
}

// dialTLS connects by TLS. The connection may be used only in the task of cx.
func dialTLS(cx *async.Context, address string, config *tls.Config) (*tls.Conn, error) {
	c, err := async.Dial(cx, "tcp", address)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(async.BindConn(cx, c), config)
	if err := secured.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	return secured, nil
}

// serveFasthttp serves each connection in a task of its own. One call of the handler serves the
// connection until the connection ends.
func serveFasthttp(cx *async.Context, ln async.Listener, server *fasthttp.Server) error {
	return async.Serve(cx, ln, func(cx *async.Context, c async.Conn) (keep bool, err error) {
		return false, server.ServeConn(async.BindConn(cx, c))
	})
}

// increment increments a key of a Redis server over a connection that it dials and closes.
func increment(cx *async.Context, address, key string) (int, error) {
	c, err := async.Dial(cx, "tcp", address)
	if err != nil {
		return 0, err
	}
	client := redis.NewConn(async.BindConn(cx, c), 0, 0)
	defer client.Close()
	return redis.Int(client.Do("INCR", key)) // but DoContext starts a goroutine
}

// Libraries that start goroutines.

// serveHTTP serves until the listener is closed.
func serveHTTP(rt *async.Runtime, address string, handler http.Handler) error {
	ln, err := rt.ListenNet("tcp", address)
	if err != nil {
		return err
	}
	return http.Serve(ln, handler)
}

func newHTTPClient(rt *async.Runtime) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: rt.DialNet}}
}

func dialWebSocket(ctx context.Context, rt *async.Runtime, url string) (*websocket.Conn, error) {
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: newHTTPClient(rt)})
	return c, err
}

func newGRPCClient(rt *async.Runtime, address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return rt.DialNet(ctx, "tcp", address)
		}))
}

func newRedisClient(rt *async.Runtime, address string) *goredis.Client {
	return goredis.NewClient(&goredis.Options{
		Addr:                  address,
		Dialer:                rt.DialNet,
		ContextTimeoutEnabled: true, // a context's deadline becomes the connection's
	})
}

func newPostgresPool(ctx context.Context, rt *async.Runtime, url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.ConnConfig.DialFunc = dialWith(rt, &async.Dialer{Timeout: 5 * time.Second})
	return pgxpool.NewWithConfig(ctx, config)
}

// dialWith returns a dial function for a library. The function dials with the options of dialer,
// for example the time-out and the local address.
func dialWith(rt *async.Runtime, dialer *async.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := async.BlockOn(rt.Under(ctx), func(cx *async.Context) (async.Conn, error) {
			return dialer.Dial(cx, network, address)
		})
		if err != nil {
			return nil, err
		}
		return async.NetConn(rt, c), nil
	}
}

// fetch calls a client for goroutines from a task.
func fetch(cx *async.Context, client *goredis.Client, key string) (string, error) {
	return async.Await(cx, async.SpawnBlocking(cx, func() (string, error) {
		return client.Get(cx, key).Result() // a Context is a context.Context on any goroutine
	}))
}

// An account is a connection that tasks share.
type account struct {
	mu   async.Mutex // held over awaits, so not a sync.Mutex
	conn async.Conn
}

// ask sends a line and returns the answer. The mutex lets one task at a time ask.
func (a *account) ask(cx *async.Context, question string) (string, error) {
	if err := a.mu.Lock(cx); err != nil {
		return "", err
	}
	defer a.mu.Unlock()
	bound := async.BindConn(cx, a.conn)
	if _, err := fmt.Fprintln(bound, question); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(bound).ReadString('\n') // the peer sends nothing after the answer
	if err != nil {
		a.conn.Close() // a late answer would be read as the answer to the next question
	}
	return answer, err
}

// For tests that look for leaked goroutines.

// runtimeGoroutines returns the options with which goleak ignores the goroutines of a runtime.
func runtimeGoroutines() (options []goleak.Option) {
	for _, function := range []string{
		"(*worker).run",           // a worker
		"newCoroutine.func1",      // a stack for straight-line tasks, in use or free
		"(*sharedReactor).run",    // waits for the descriptors that goroutines use
		"(*watchdog).run",         // finds polls that take too long
		"(*idleWatch).run",        // waits for the events of idle workers
		"(*callPool).run",         // runs blocking calls, or waits for the next one
		"(*SignalStream).receive", // receives signals until the stream is closed
	} {
		options = append(options, goleak.IgnoreAnyFunction("example.com/async."+function))
	}
	return options
}
