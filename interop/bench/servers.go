package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"example.com/async"
	"github.com/valyala/fasthttp"
)

// server is one way to answer HTTP requests.
type server struct {
	protocol string // library and security; servers of the same protocol are compared
	on       string // what the server runs on; the server on net is the base of the comparison
	load     bool   // the server is compared under load
	idle     bool   // the server is compared with idle connections
	run      func(ready func(net.Addr)) error
}

func (s server) name() string { return s.protocol + "/" + s.on }

// servers has the servers of each comparison. The server on package net is the first.
var servers = []server{
	{"fasthttp", "net", true, true, onNet(serveFast, false)},
	{"fasthttp", "tasks", true, true, inTasks(fast, false)},
	{"fasthttp", "tasks-reduced", false, true, inTasks(fastReduced, false)},
	{"fasthttp", "goroutines", true, false, onRuntime(serveFast, false)},
	{"fasthttp-tls", "net", true, false, onNet(serveFast, true)},
	{"fasthttp-tls", "tasks", true, false, inTasks(fast, true)},
	{"fasthttp-tls", "goroutines", true, false, onRuntime(serveFast, true)},
	{"net-http", "net", true, true, onNet(serveStd, false)},
	{"net-http", "goroutines", true, true, onRuntime(serveStd, false)},
	{"net-http-tls", "net", true, false, onNet(serveStd, true)},
	{"net-http-tls", "goroutines", true, false, onRuntime(serveStd, true)},
	{"parked", "tasks", false, true, parked},
}

var what = map[string]string{
	"net":           "package net, a goroutine per connection",
	"goroutines":    "the library's own goroutines, on the net.Conns of a runtime (ListenNet)",
	"tasks":         "a straight-line task per connection (Serve, BindConn)",
	"tasks-reduced": "the same with fasthttp's ReduceMemoryUsage",
}

const hello = "Hello, World!"

var (
	fast        = &fasthttp.Server{Handler: answerFast}
	fastReduced = &fasthttp.Server{Handler: answerFast, ReduceMemoryUsage: true}
)

func answerFast(ctx *fasthttp.RequestCtx) { ctx.WriteString(hello) }

func serveFast(ln net.Listener) error { return fast.Serve(ln) }

func serveStd(ln net.Listener) error {
	s := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, hello) }),
		ErrorLog: log.New(io.Discard, "", 0), // wrk closes connections in the middle of handshakes
	}
	return s.Serve(ln)
}

// newRuntime returns a runtime with the default Config, except that it does not report stalls: on a
// machine under load many polls take long.
func newRuntime() (*async.Runtime, error) {
	return async.New(async.Config{Stalled: func(async.Stall) {}})
}

const address = "127.0.0.1:0"

// onNet runs a server on package net.
func onNet(serve func(net.Listener) error, secure bool) func(func(net.Addr)) error {
	return onListener(serve, secure, func() (net.Listener, error) { return net.Listen("tcp", address) })
}

// onRuntime runs a server on the connections of a runtime for goroutines.
func onRuntime(serve func(net.Listener) error, secure bool) func(func(net.Addr)) error {
	return onListener(serve, secure, func() (net.Listener, error) {
		rt, err := newRuntime()
		if err != nil {
			return nil, err
		}
		return rt.ListenNet("tcp", address)
	})
}

func onListener(serve func(net.Listener) error, secure bool, listen func() (net.Listener, error)) func(func(net.Addr)) error {
	return func(ready func(net.Addr)) error {
		ln, err := listen()
		if err != nil {
			return err
		}
		ready(ln.Addr())
		if secure {
			config, err := newConfig()
			if err != nil {
				return err
			}
			ln = tls.NewListener(ln, config)
		}
		return serve(ln)
	}
}

// inTasks runs fasthttp in tasks.
func inTasks(s *fasthttp.Server, secure bool) func(func(net.Addr)) error {
	return func(ready func(net.Addr)) error {
		var config *tls.Config
		if secure {
			var err error
			if config, err = newConfig(); err != nil {
				return err
			}
		}
		return serveTasks(ready, func(cx *async.Context, c async.Conn) (keep bool, err error) {
			conn := async.BindConn(cx, c)
			if config != nil {
				conn = tls.Server(conn, config)
			}
			return false, s.ServeConn(conn)
		})
	}
}

func serveTasks(ready func(net.Addr), h async.Handler) error {
	rt, err := newRuntime()
	if err != nil {
		return err
	}
	_, err = async.Go(rt, func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", address)
		if err != nil {
			return err
		}
		defer ln.Close()
		ready(ln.Addr())
		return async.Serve(cx, ln, h)
	}).JoinBlocking(context.Background())
	return err
}

// parked answers every request that ends with an empty line, and keeps nothing between requests. It
// is not an HTTP server. It shows the least memory that an idle connection can take.
func parked(ready func(net.Addr)) error {
	readers := sync.Pool{New: func() any { return bufio.NewReader(nil) }}
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(hello), hello)
	return serveTasks(ready, func(cx *async.Context, c async.Conn) (keep bool, err error) {
		r := readers.Get().(*bufio.Reader)
		defer readers.Put(r)
		r.Reset(async.BindConn(cx, c))
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return false, nil
			}
			if len(bytes.TrimRight(line, "\r\n")) > 0 {
				continue
			}
			if _, err := c.Write(cx, answer); err != nil {
				return false, err
			}
			if r.Buffered() == 0 {
				return true, nil
			}
		}
	})
}

// newConfig returns a TLS configuration with a self-signed certificate, which the clients do not
// check.
func newConfig() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   []string{"http/1.1"},
	}, nil
}

// beServer serves until standard input ends. The first line of output is the address. Each line of
// input is a question, which beServer answers with its usage: the CPU time, or also the memory
// after a garbage collection.
func beServer(name string) error {
	for _, s := range servers {
		if s.name() == name {
			go func() {
				in := bufio.NewScanner(os.Stdin)
				for in.Scan() {
					fmt.Println(used(in.Text() == askMemory))
				}
				os.Exit(0)
			}()
			return s.run(func(a net.Addr) { fmt.Println(a) })
		}
	}
	return fmt.Errorf("there is no server %q", name)
}

// The questions to a server process.
const (
	askCPU    = "cpu"
	askMemory = "memory"
)

// usage is the CPU time and the memory of a server process.
type usage struct {
	cpu            time.Duration
	heap, resident int64 // bytes of the heap and stacks of Go; bytes of the process
}

func (u usage) String() string { return fmt.Sprint(int64(u.cpu), u.heap, u.resident) }

func used(memory bool) (u usage) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err == nil {
		u.cpu = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	if !memory {
		return u
	}
	runtime.GC()
	runtime.GC() // the second collection frees the values in pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.heap = int64(m.HeapInuse + m.StackInuse)
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		var pages int64
		fmt.Sscan(string(statm), new(int64), &pages)
		u.resident = pages * int64(os.Getpagesize())
	}
	return u
}
