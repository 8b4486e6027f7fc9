// Package stdlisten is what programs.sh puts in the place of net/http's
// listening functions in the standard library's example programs: the same, on
// the connections of package async. The port is one that the system chooses;
// the address is printed on standard output.
package stdlisten

import (
	"fmt"
	"net"
	"net/http"

	"example.com/async"
)

// ListenAndServe is http.ListenAndServe.
func ListenAndServe(_ string, h http.Handler) error {
	return Serve(&http.Server{Handler: h})
}

// ListenAndServeTLS is http.ListenAndServeTLS.
func ListenAndServeTLS(_, certFile, keyFile string, h http.Handler) error {
	return ServeTLS(&http.Server{Handler: h}, certFile, keyFile)
}

// Serve is the method ListenAndServe of what srv points to, a server or a
// pointer to one.
func Serve[S http.Server | *http.Server](srv *S) error {
	ln, err := listen()
	if err != nil {
		return err
	}
	return server(srv).Serve(ln)
}

// ServeTLS is the method ListenAndServeTLS.
func ServeTLS[S http.Server | *http.Server](srv *S, certFile, keyFile string) error {
	ln, err := listen()
	if err != nil {
		return err
	}
	return server(srv).ServeTLS(ln, certFile, keyFile)
}

func server[S http.Server | *http.Server](srv *S) *http.Server {
	if srv, ok := any(srv).(**http.Server); ok {
		return *srv
	}
	return any(srv).(*http.Server)
}

func listen() (net.Listener, error) {
	ln, err := async.Default().ListenNet("tcp", "127.0.0.1:0")
	if err == nil {
		fmt.Println(ln.Addr())
	}
	return ln, err
}
