// Command httpserver is the example of the documentation of package net/http. Only the listener is
// changed. The command prints its address, and serves HTTP/1.1 and h2c. With a certificate it
// serves HTTPS with HTTP/2.
package main

import (
	"flag"
	"fmt"
	"html"
	"log"
	"net/http"

	"example.com/async"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address`")
	cert := flag.String("cert", "", "certificate `file`, for HTTPS")
	key := flag.String("key", "", "its key's `file`")
	flag.Parse()
	http.HandleFunc("/bar", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello, %q", html.EscapeString(r.URL.Path))
	})
	ln, err := async.Default().ListenNet("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ln.Addr())
	server := &http.Server{Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	if *cert != "" {
		log.Fatal(server.ServeTLS(ln, *cert, *key))
	}
	log.Fatal(server.Serve(ln))
}
