package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/async"
	"github.com/stretchr/testify/require"
)

// TestQuotes checks that each program in docs/libraries.md is compiled: the same text, apart from
// the indentation, must be in a file of this package.
func TestQuotes(t *testing.T) {
	doc, err := os.ReadFile("../docs/libraries.md")
	require.NoError(t, err)
	var code []string
	for _, file := range []string{"libraries.go", "inotify_linux.go", "recipes.go", "recipes_test.go"} {
		src, err := os.ReadFile(file)
		require.NoError(t, err)
		code = append(code, unindented(string(src)))
	}
	all := strings.Join(code, "\n")
	quotes := regexp.MustCompile("(?ms)^```(.*?)\n(.*?)^```$").FindAllStringSubmatch(string(doc), -1)
	require.NotEmpty(t, quotes)
	for _, q := range quotes {
		require.Equal(t, "go", q[1])
		require.True(t, strings.Contains(all, unindented(q[2])), "docs/libraries.md has a program that is not compiled:\n%s", q[2])
	}
	require.NotRegexp(t, `(?m)^(\t|    )`, regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(string(doc), ""),
		"a program without a fence escapes this test")
}

// unindented returns the lines of s without their indentation.
func unindented(s string) string { return regexp.MustCompile(`(?m)^[ \t]+`).ReplaceAllString(s, "") }

// inTask runs fn in a task and fails the test if it takes too long.
func inTask[T any](t *testing.T, rt *async.Runtime, fn func(cx *async.Context) (T, error)) (T, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return async.Spawn(rt, fn).JoinBlocking(ctx)
}

// answering answers lines in upper case, in tasks, until the runtime ends.
func answering(t *testing.T, rt *async.Runtime) (address string) {
	t.Helper()
	addrs := make(chan string, 1)
	async.Go(rt, func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		addrs <- ln.Addr().String()
		return async.Serve(cx, ln, func(cx *async.Context, c async.Conn) (keep bool, err error) {
			return false, lines(cx, c, strings.ToUpper)
		})
	})
	select {
	case address = <-addrs:
	case <-time.After(patience):
		t.Fatal("the server has not begun")
	}
	return address
}

func TestLinesAndSharedConn(t *testing.T) {
	rt := newRuntime(t)
	address := answering(t, rt)
	_, err := inTask(t, rt, func(cx *async.Context) (async.None, error) {
		c, err := async.Dial(cx, "tcp", address)
		if err != nil {
			return async.None{}, err
		}
		defer c.Close()
		shared := &account{conn: c}
		var handles []*async.JoinHandle[async.None]
		for i := range 50 {
			handles = append(handles, async.Go(cx, func(cx *async.Context) error {
				answer, err := shared.ask(cx, fmt.Sprint("question ", i))
				if want := fmt.Sprintf("QUESTION %d\n", i); err == nil && answer != want {
					err = fmt.Errorf("got %q, want %q", answer, want)
				}
				return err
			}))
		}
		for _, h := range handles {
			if _, err := async.Await(cx, h); err != nil {
				return async.None{}, err
			}
		}
		return async.None{}, nil
	})
	require.NoError(t, err)
}

func TestDialTLSInTask(t *testing.T) {
	rt := newRuntime(t)
	serverConfig, clientConfig := tlsConfigs()
	ln := listen(t, rt)
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				s := tls.Server(c, serverConfig)
				io.Copy(s, s)
			}()
		}
	}()
	echo := func(config *tls.Config) (string, error) {
		return inTask(t, rt, func(cx *async.Context) (string, error) {
			c, err := dialTLS(cx, ln.Addr().String(), config)
			if err != nil {
				return "", err
			}
			defer c.Close()
			if _, err := io.WriteString(c, "hello"); err != nil {
				return "", err
			}
			got := make([]byte, 5)
			_, err = io.ReadFull(c, got)
			return string(got), err
		})
	}
	got, err := echo(clientConfig)
	require.NoError(t, err)
	require.Equal(t, "hello", got)
	_, err = echo(&tls.Config{ServerName: "example.com"}) // does not trust the server
	var unknown *tls.CertificateVerificationError
	require.ErrorAs(t, err, &unknown)
}

func TestServeHTTP(t *testing.T) {
	rt := newRuntime(t)
	client := newHTTPClient(rt)
	defer client.CloseIdleConnections()
	var served <-chan error
	var res *http.Response
	for res == nil { // again if another program gets the port between Close and ListenNet
		std, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		address := std.Addr().String()
		require.NoError(t, std.Close())
		served = begun(func() error { return serveHTTP(rt, address, http.HandlerFunc(hello)) })
		for began := time.Now(); res == nil; time.Sleep(time.Millisecond) {
			require.Less(t, time.Since(began), patience)
			if len(served) > 0 {
				require.ErrorIs(t, <-served, syscall.EADDRINUSE)
				break
			}
			if r, err := client.Get("http://" + address); err == nil {
				res = r
			}
		}
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 ", string(body))
	client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, rt.Shutdown(ctx))
	require.ErrorIs(t, ends(t, "server", served), async.ErrShutdown)
}

func TestDialWith(t *testing.T) {
	rt := newRuntime(t)
	address := answering(t, rt)
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}
	dial := dialWith(rt, &async.Dialer{LocalAddr: from})
	c, err := dial(t.Context(), "tcp", address)
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, from.IP.String(), c.LocalAddr().(*net.TCPAddr).IP.String())
	fmt.Fprintln(c, "hello")
	answer, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HELLO\n", answer)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	c, err = dial(ended, "tcp", address)
	require.Nil(t, c)
	require.ErrorIs(t, err, context.Canceled)
}

func TestAwaitChange(t *testing.T) {
	rt := newRuntime(t)
	dir := t.TempDir()
	changed := async.Go(rt, func(cx *async.Context) error { return awaitChange(cx, dir) })
	ended := begun(func() error {
		_, err := changed.JoinBlocking(context.Background())
		return err
	})
	for i := 0; ; i++ { // again: the watch may not have been added yet
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), bytes.Repeat([]byte("x"), 10), 0o600))
		select {
		case err := <-ended:
			require.NoError(t, err)
			return
		case <-time.After(time.Millisecond):
			require.Less(t, i, 20_000)
		}
	}
}

// locksWhatIsHeld has a name of its own in the stack, which distinguishes the task that calls it
// from the task that holds mu.
//
//go:noinline
func locksWhatIsHeld(mu *sync.Mutex) { mu.Lock() }

// A sync.Mutex that is held across an await deadlocks, as docs/libraries.md says: the task that
// holds the mutex cannot go on, because the next task has blocked the worker. The stall detector
// reports the next task.
func TestSyncMutexOverAwait(t *testing.T) {
	stalls := make(chan string, 1000)
	rt, err := async.New(async.Config{Workers: 1, Stalled: func(s async.Stall) { stalls <- s.Stack }})
	require.NoError(t, err)
	var mu sync.Mutex
	var resumed atomic.Int64
	locked := make(chan struct{})
	holder := async.Go(rt, func(cx *async.Context) error {
		mu.Lock()
		close(locked)
		for {
			if err := async.Yield(cx); err != nil {
				return err
			}
			resumed.Add(1)
		}
	})
	<-locked
	next := async.Go(rt, func(*async.Context) error {
		locksWhatIsHeld(&mu)
		defer mu.Unlock()
		return nil
	})
	for blocked := false; !blocked; {
		select {
		case stack := <-stalls:
			blocked = strings.Contains(stack, "sync.(*Mutex).Lock") && strings.Contains(stack, "locksWhatIsHeld")
		case <-time.After(patience):
			t.Fatal("no report")
		}
	}
	before := resumed.Load()
	time.Sleep(20 * time.Millisecond)
	require.Equal(t, before, resumed.Load(), "the holder has gone on")

	mu.Unlock() // only a goroutine outside the pool can still do this
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = next.JoinBlocking(ctx)
	require.NoError(t, err)
	holder.Cancel()
	_, err = holder.JoinBlocking(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, rt.Shutdown(ctx))
}
