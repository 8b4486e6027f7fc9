// Package stdlisten has the listening functions of net/http on the connections of package async.
// programs.sh replaces the functions of net/http by these in the example programs of the standard
// library. The system chooses the port. The address is printed on standard output.
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

// Serve replaces the method ListenAndServe. srv points to a server or to a pointer to a server.
func Serve[S http.Server | *http.Server](srv *S) error {
	ln, err := listen()
	if err != nil {
		return err
	}
	return server(srv).Serve(ln)
}

// ServeTLS replaces the method ListenAndServeTLS. srv is as for Serve.
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
