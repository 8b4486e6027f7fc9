package async

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"reflect"
	"syscall"
)

// The goroutines with which os/exec copies must not use the cx of a task. So Start
// replaces the results of BindFile, BindConn, BindReader and BindWriter: a File that cannot
// be polled by its descriptor, as os/exec does with an os.File, and everything else by
// one end of a pipe, whose other end a task copies.

// cmdCopy is a stream of a process that a task copies.
type cmdCopy struct {
	bound *Context // of the stream
	pipe  *File
	copy  func(cx *Context, pipe *File) error

	// The fields below are set once the program has been started.
	*JoinHandle[None]
	err    error       // of copy; set before the task ends
	unbind func() bool // stops bound from ending the task
}

// stop ends the task, if there is one.
func (cp *cmdCopy) stop() {
	if cp.JoinHandle != nil {
		cp.unbind()
		cp.Cancel()
	}
}

// boundTo returns the stream that x reads or writes, and the cx through which x waits, if x
// is one of the library's adapters. A type that merely embeds an adapter has methods of its
// own.
func boundTo(x any) (stream any, cx *Context) {
	switch b := x.(type) {
	case *boundFile:
		return b.f, b.cx
	case boundReader:
		return b.r, b.cx
	case boundWriter:
		return b.w, b.cx
	case *boundTCPConn:
		return b.TCPConn, b.cx
	case *boundUDPConn:
		return b.UDPConn, b.cx
	case *boundUnixConn:
		return b.UnixConn, b.cx
	case *boundUnixDatagram:
		return b.UnixDatagram, b.cx
	case *boundPacketConn:
		return b.PacketConn, b.cx
	case *boundWriteCloser:
		return b.c, b.cx
	case *boundConn:
		return b.Conn, b.cx
	}
	return nil, nil
}

// replaceStreams replaces Stdin, Stdout and Stderr where they wait through a cx.
func (c *Cmd) replaceStreams(cx *Context) error {
	if in, bound := boundTo(c.Stdin); bound != nil {
		f, err := c.replacement(cx, bound, in, 0, func(cx *Context, pipe *File) error {
			_, err := Copy(cx, pipe, in.(Reader))
			if errors.Is(err, syscall.EPIPE) {
				err = nil // the program has not read everything, as with os/exec
			}
			return err
		})
		if err != nil {
			return err
		}
		c.Stdin = f
	}
	_, bound := boundTo(c.Stdout)
	both := bound != nil && sameStream(c.Stdout, c.Stderr)
	for _, w := range []*io.Writer{&c.Stdout, &c.Stderr} {
		to, bound := boundTo(*w)
		if bound == nil || both && w == &c.Stderr {
			continue
		}
		f, err := c.replacement(cx, bound, to, 1, func(cx *Context, pipe *File) error {
			_, err := Copy(cx, to.(Writer), pipe)
			return err
		})
		if err != nil {
			return err
		}
		*w = f
	}
	if both {
		c.Stderr = c.Stdout // one descriptor, as with os/exec
	}
	return nil
}

// sameStream reports whether a and b are the same stream.
func sameStream(a, b any) bool { return reflect.ValueOf(a).Comparable() && a == b }

// replacement returns the file that the program gets for a stream that waits through
// bound. The program's end of a pipe has the given index.
func (c *Cmd) replacement(cx, bound *Context, stream any, end int, copy func(cx *Context, pipe *File) error) (*os.File, error) {
	if err := bound.Err(); err != nil {
		return nil, err
	}
	if f, ok := stream.(*File); ok && !f.polled {
		err := f.atPosition(cx, "start", false, func() error { return nil })
		f.edited() // the program may write to it
		return f.os, err
	}
	child, pipe, err := c.newPipe("|exec", end)
	if err != nil {
		return nil, err
	}
	c.copies = append(c.copies, &cmdCopy{bound: bound, pipe: pipe, copy: copy})
	return child, nil
}

// startCopies spawns the tasks that copy. It is called when the program has been started: a
// task takes data from its stream, which would be lost with a Start that fails.
func (c *Cmd) startCopies(cx *Context) {
	for _, cp := range c.copies {
		cp.JoinHandle = Go(partOf{cx}, func(cx *Context) error {
			defer cp.pipe.src.close()
			cp.err = cp.copy(cx, cp.pipe)
			return nil
		})
		cp.unbind = cp.bound.AfterFunc(func() {
			cp.Cancel()
			cp.pipe.src.close() // the task may never begin
		})
	}
}

// awaitCopies waits until the tasks that copy have ended, but no longer than WaitDelay
// unless that is 0. It returns the error of the first task that has failed.
func (c *Cmd) awaitCopies() (err error) {
	if len(c.copies) == 0 || c.copies[0].JoinHandle == nil { // or Start was given up
		return nil
	}
	ctx, release := context.Background(), func() {}
	if c.WaitDelay > 0 {
		ctx, release = context.WithTimeout(ctx, c.WaitDelay)
	}
	defer release()
	for _, cp := range c.copies {
		cp.JoinBlocking(ctx)
		_, failed := cp.TryJoin() // also if it has ended since JoinBlocking gave up
		switch failed {
		case ErrPending:
			failed = exec.ErrWaitDelay
		case nil:
			failed = cp.err
		}
		cp.stop()
		if err == nil {
			err = failed
		}
	}
	return err
}
