package main

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"

	"example.com/async"
)

// bufferSize is the size of the read buffer of every server.
const bufferSize = 4096

// servers are the servers that are compared. Each calls ready with its address, and serves until it
// fails.
var servers = []struct {
	name, what string
	serve      func(addr string, ready func(net.Addr)) error
}{
	{"straight", "async, a straight-line task and a buffer for each connection", serveAsync(accepting(straight))},
	{"future", "async, a plain future and a buffer for each connection", serveAsync(accepting(future))},
	{"serve", "async, Serve: nothing for a connection that is idle", serveAsync(serveIdle)},
	{"net", "package net, a goroutine and a buffer for each connection", serveNet},
}

// serveAsync runs a server with as many workers as there are processors.
func serveAsync(run func(cx *async.Context, ln async.Listener) error) func(string, func(net.Addr)) error {
	return func(addr string, ready func(net.Addr)) error {
		rt, err := async.New(async.Config{
			Workers: runtime.NumCPU(),
			// The errors of connections: a peer that leaves is no error here.
			Unhandled: func(async.Task, error) {},
			// No reports of stalls: the comparison shows long polls as latency.
			Stalled: func(async.Stall) {},
		})
		if err != nil {
			return err
		}
		defer rt.Shutdown(context.Background())
		_, err = async.Go(rt, func(cx *async.Context) error {
			ln, err := async.Listen(cx, "tcp", addr)
			if err != nil {
				return err
			}
			defer ln.Close()
			ready(ln.Addr())
			return run(cx, ln)
		}).JoinBlocking(context.Background())
		return err
	}
}

// accepting returns a server that calls handle for each connection.
func accepting(handle func(cx *async.Context, c async.Conn)) func(*async.Context, async.Listener) error {
	return func(cx *async.Context, ln async.Listener) error {
		for {
			c, err := ln.Accept(cx)
			if err != nil {
				return err
			}
			handle(cx, c)
		}
	}
}

// serveIdle calls the Handler for each request. The buffer comes from a pool, so that an idle
// connection has no buffer.
func serveIdle(cx *async.Context, ln async.Listener) error {
	buffers := sync.Pool{New: func() any { return new([bufferSize]byte) }}
	return async.Serve(cx, ln, func(cx *async.Context, c async.Conn) (keep bool, err error) {
		buf := buffers.Get().(*[bufferSize]byte)
		defer buffers.Put(buf)
		n, err := c.Read(cx, buf[:])
		if err != nil {
			return false, err
		}
		_, err = c.Write(cx, buf[:n])
		return true, err
	})
}

// straight serves a connection with straight-line code: a loop of Read and Write.
func straight(cx *async.Context, c async.Conn) {
	async.Go(cx, func(cx *async.Context) error {
		defer c.Close()
		buf := make([]byte, bufferSize)
		for {
			n, err := c.Read(cx, buf)
			if err != nil {
				return err
			}
			if _, err := c.Write(cx, buf[:n]); err != nil {
				return err
			}
		}
	})
}

// future serves a connection with a state machine, which needs no stack.
func future(cx *async.Context, c async.Conn) {
	async.SpawnFuture(cx, &echo{c: c.(async.PollConn), buf: make([]byte, bufferSize)})
}

// echo is the state machine. It writes if rest is not empty. Otherwise it reads.
type echo struct {
	c         async.PollConn
	buf, rest []byte
}

// Poll implements Future. It goes on until a call returns ErrPending or fails. A call that returns
// ErrPending has arranged for another Poll.
func (e *echo) Poll(cx *async.Context) (async.None, error) {
	for {
		if len(e.rest) == 0 {
			n, err := e.c.PollRead(cx, e.buf)
			if err != nil {
				return e.end(err)
			}
			e.rest = e.buf[:n]
		}
		n, err := e.c.PollWrite(cx, e.rest)
		if err != nil {
			return e.end(err)
		}
		e.rest = e.rest[n:]
	}
}

// end closes the connection, unless err is ErrPending.
func (e *echo) end(err error) (async.None, error) {
	if err != async.ErrPending {
		e.c.Close()
	}
	return async.None{}, err
}

// Cancel is called if the task is cancelled: the future will not be polled again.
func (e *echo) Cancel() { e.c.Close() }

// serveNet is the server with package net and a goroutine for each connection.
func serveNet(addr string, ready func(net.Addr)) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer ln.Close()
	ready(ln.Addr())
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			buf := make([]byte, bufferSize)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				if _, err := c.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

// serverNamed returns the serve function of a kind of server.
func serverNamed(name string) (func(string, func(net.Addr)) error, error) {
	if i := indexOf(name); i >= 0 {
		return servers[i].serve, nil
	}
	return nil, fmt.Errorf("there is no server %q", name)
}

// indexOf returns the index of the named server in servers, or -1.
func indexOf(name string) int {
	for i, s := range servers {
		if s.name == name {
			return i
		}
	}
	return -1
}
