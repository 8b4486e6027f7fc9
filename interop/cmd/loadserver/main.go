// Command loadserver serves HTTP by fasthttp for bench.sh, in the clear or over
// crypto/tls, on package net with a goroutine per connection or in tasks. It
// prints its address.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"

	"example.com/async"
	"github.com/valyala/fasthttp"
)

var server = &fasthttp.Server{
	Handler: func(ctx *fasthttp.RequestCtx) { ctx.WriteString("Hello, World!") },
}

func main() {
	on := flag.String("on", "tasks", "what it runs on: net, tasks, or goroutines for net.Conns of the runtime")
	listen := flag.String("listen", "127.0.0.1:0", "`address`")
	cert := flag.String("cert", "", "certificate `file`, for HTTPS")
	key := flag.String("key", "", "its key's `file`")
	flag.Parse()
	var config *tls.Config
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			log.Fatal(err)
		}
		config = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	switch *on {
	case "net":
		ln, err := net.Listen("tcp", *listen)
		log.Fatal(serveGoroutines(ln, err, config))
	case "goroutines":
		ln, err := async.Default().ListenNet("tcp", *listen)
		log.Fatal(serveGoroutines(ln, err, config))
	case "tasks":
		log.Fatal(serveTasks(*listen, config))
	default:
		log.Fatalf("-on %s is unknown", *on)
	}
}

// serveConn serves a connection until it ends.
func serveConn(c net.Conn, config *tls.Config) {
	defer c.Close()
	if config != nil {
		c = tls.Server(c, config)
	}
	server.ServeConn(c)
}

func serveGoroutines(ln net.Listener, err error, config *tls.Config) error {
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go serveConn(c, config)
	}
}

func serveTasks(addr string, config *tls.Config) error {
	return async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", addr)
		if err != nil {
			return err
		}
		fmt.Println(ln.Addr())
		return async.Serve(cx, ln, func(cx *async.Context, c async.Conn) (keep bool, err error) {
			serveConn(c.WithContext(cx), config)
			return false, nil
		})
	})
}
