package main

import "example.com/async"

// talk sends the lines of in to the server, and writes what it says to out, until
// one of the two ends.
func talk(cx *async.Context, addr string, in async.Reader, out async.Writer) error {
	conn, err := async.Dial(cx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
		async.Go(g, func(cx *async.Context) error {
			defer g.Cancel() // the server has left: so do we
			_, err := async.Copy(cx, out, conn)
			return err
		})
		_, err := async.Copy(cx, conn, in)
		if cx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		return conn.(*async.TCPConn).CloseWrite() // and wait for what is still to come
	})
}
