// Hello is the server of the README: it sends back all data. Run it, and talk to it with
//
//	nc 127.0.0.1 7000
package main

import (
	"log"

	"example.com/async"
)

func main() {
	log.Fatal(async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:7000")
		if err != nil {
			return err
		}
		return async.Serve(cx, ln, echo)
	}))
}

// echo is called when a connection has data. Between two calls an idle connection keeps no stack.
func echo(cx *async.Context, conn async.Conn) (keep bool, err error) {
	buf := make([]byte, 4096)
	n, err := conn.Read(cx, buf)
	if err == nil {
		_, err = conn.Write(cx, buf[:n])
	}
	return err == nil, err
}
