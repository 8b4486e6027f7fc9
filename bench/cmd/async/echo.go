package main

import (
	"context"
	"net"
	"sync"

	"example.com/async"
	"example.com/async/bench/internal/program"
)

// serve runs a server in a task.
func (m mode) serve(run func(cx *async.Context, ln async.Listener) error) program.EchoServer {
	return func(o program.Options, ready func(net.Addr)) error {
		rt, err := m.newRuntime(o, hungUp)
		if err != nil {
			return err
		}
		for range o.Busy {
			burnStraight(rt)
		}
		_, err = async.Go(rt, func(cx *async.Context) error {
			ln, err := async.Listen(cx, "tcp", program.Address)
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

// straightEcho serves a connection with straight-line code: a loop of Read and Write.
func straightEcho(cx *async.Context, c async.Conn) {
	async.Go(cx, func(cx *async.Context) error {
		defer c.Close()
		buf := make([]byte, program.BufferSize)
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

// futureEcho serves a connection with a state machine.
func futureEcho(cx *async.Context, c async.Conn) {
	async.SpawnFuture(cx, &echo{c: c.(async.PollConn), buf: make([]byte, program.BufferSize)})
}

// An echo writes if rest is not empty. Otherwise it reads.
type echo struct {
	c         async.PollConn
	buf, rest []byte
}

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

func (e *echo) end(err error) (async.None, error) {
	if err != async.ErrPending {
		e.c.Close()
	}
	return async.None{}, err
}

// Cancel is called if the task is cancelled: the future will not be polled again.
func (e *echo) Cancel() { e.c.Close() }

// serveEcho serves connections with Serve: a connection that waits has no stack and no buffer.
func serveEcho(cx *async.Context, ln async.Listener) error {
	buffers := sync.Pool{New: func() any { return new([program.BufferSize]byte) }}
	return async.Serve(cx, ln, func(cx *async.Context, c async.Conn) (keep bool, err error) {
		buf := buffers.Get().(*[program.BufferSize]byte)
		defer buffers.Put(buf)
		n, err := c.Read(cx, buf[:])
		if err != nil {
			return false, err
		}
		_, err = c.Write(cx, buf[:n])
		return err == nil, err
	})
}

// serveNetConn runs the code of the server on package net, on the connections of a runtime for
// goroutines.
func (m mode) serveNetConn(o program.Options, ready func(net.Addr)) error {
	rt, err := m.newRuntime(o, hungUp)
	if err != nil {
		return err
	}
	for range o.Busy {
		burnStraight(rt)
	}
	ln, err := rt.ListenNet("tcp", program.Address)
	if err != nil {
		return err
	}
	defer ln.Close()
	ready(ln.Addr())
	return program.EchoConns(ln)
}
