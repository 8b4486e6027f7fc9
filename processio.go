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

// The standard streams of a process
//
// os/exec copies a stream that is not an os.File on a goroutine of its own. Such a goroutine must
// not use the cx of a task. So Start replaces the results of BindFile, BindConn, BindReader and
// BindWriter (boundTo):
//
//  1. A File that is not polled is replaced by its os.File, so that the program gets the
//     descriptor. First the descriptor is moved to the file position (replacement).
//  2. Every other stream is replaced by one end of a pipe. When the program has been started, Start
//     spawns a task that copies between the stream and the other end of the pipe (startCopies). Not
//     before: the task takes data from the stream, and this data would be lost if Start failed.
//  3. When the process has ended, reap waits for these tasks, within WaitDelay (awaitCopies).

// cmdCopy is a stream of a process that a task copies.
type cmdCopy struct {
	bound *Context // through which the stream waits
	pipe  *File
	copy  func(cx *Context, pipe *File) error

	// The fields below are set when the program has been started.
	*JoinHandle[None]
	err    error       // of copy; set before the task ends
	unbind func() bool // prevents bound from ending the task
}

// stop cancels the task, if there is one.
func (cp *cmdCopy) stop() {
	if cp.JoinHandle != nil {
		cp.unbind()
		cp.Cancel()
	}
}

// boundTo returns the stream that x reads or writes and the cx through which x waits, if x is the
// result of one of the library's BindX functions. A type that embeds such a result has methods of
// its own, and is none.
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

// replaceStreams replaces Stdin, Stdout and Stderr if they wait through a cx.
func (c *Cmd) replaceStreams(cx *Context) error {
	if in, bound := boundTo(c.Stdin); bound != nil {
		f, err := c.replacement(cx, bound, in, 0, func(cx *Context, pipe *File) error {
			_, err := Copy(cx, pipe, in.(Reader))
			if errors.Is(err, syscall.EPIPE) {
				err = nil // the program has not read all of its input; os/exec ignores that, too
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
		c.Stderr = c.Stdout // one descriptor for both, as with os/exec
	}
	return nil
}

// sameStream reports whether a and b are the same stream.
func sameStream(a, b any) bool { return reflect.ValueOf(a).Comparable() && a == b }

// replacement returns the file that the program gets for a stream that waits through bound. The
// program gets the end of the pipe with the index end.
func (c *Cmd) replacement(cx, bound *Context, stream any, end int, copy func(cx *Context, pipe *File) error) (*os.File, error) {
	if err := bound.Err(); err != nil {
		return nil, err
	}
	if f, ok := stream.(*File); ok && !f.polled {
		// This waits for accepted data, drops data that was read ahead, and steps back.
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

// startCopies spawns the tasks that copy, after the program has been started.
func (c *Cmd) startCopies(cx *Context) {
	for _, cp := range c.copies {
		cp.JoinHandle = Go(partOf{cx}, func(cx *Context) error {
			defer cp.pipe.src.close()
			cp.err = cp.copy(cx, cp.pipe)
			return nil
		})
		// The task ends with its own cx and with the cx of the stream.
		cp.unbind = cp.bound.AfterFunc(func() {
			cp.Cancel()
			cp.pipe.src.close() // the task may never begin
		})
	}
}

// awaitCopies waits until the tasks that copy have ended, but no longer than WaitDelay, unless that
// is 0. It returns the error of the first task that has failed.
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
		_, failed := cp.TryJoin() // the task may have ended since JoinBlocking gave up
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
