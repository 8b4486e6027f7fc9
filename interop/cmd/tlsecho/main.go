// Command tlsecho echoes over TLS: in tasks, with crypto/tls of the standard library on the bound
// form of the connections.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"

	"example.com/async"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address`")
	cert := flag.String("cert", "", "certificate `file`")
	key := flag.String("key", "", "its key's `file`")
	flag.Parse()
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	log.Fatal(async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", *listen)
		if err != nil {
			return err
		}
		fmt.Println(ln.Addr())
		return async.Serve(cx, ln, func(cx *async.Context, c async.Conn) (keep bool, err error) {
			conn := tls.Server(async.BindConn(cx, c), config)
			defer conn.Close()
			_, err = io.Copy(conn, conn)
			return false, err
		})
	}))
}
