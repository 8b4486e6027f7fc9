package main

import "example.com/async"

// talk sends the lines of in to the server, and writes the lines of the server to out. If in ends,
// talk still writes the lines that the server sends until the server closes the connection. If the
// server closes the connection first, talk ends at once.
func talk(cx *async.Context, addr string, in async.Reader, out async.Writer) error {
	conn, err := async.Dial(cx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
		async.Go(g, func(cx *async.Context) error {
			defer g.Cancel() // the server has closed the connection: this ends the Copy of in
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
		return conn.(*async.TCPConn).CloseWrite() // WithGroup then waits for the task above
	})
}
