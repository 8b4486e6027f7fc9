package main

import (
	"bufio"
	"io"

	"example.com/async"
)

// talk sends the lines of in to the server, and writes what it says to out, until
// one of the two ends.
func talk(cx *async.Context, addr string, in async.Reader, out async.Writer) error {
	conn, err := async.Dial(cx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
		listener := async.Go(g, func(cx *async.Context) error {
			defer g.Cancel() // the server has left: so do we
			_, err := async.Copy(cx, out, conn)
			return err
		})
		_, err := async.Copy(cx, conn, in)
		if err != nil {
			return err
		}
		if err := conn.(*async.TCPConn).CloseWrite(); err != nil {
			return err
		}
		_, err = listener.Await(cx) // what is still to come
		return err
	})
}

var _ = bufio.NewReader
var _ io.Writer
