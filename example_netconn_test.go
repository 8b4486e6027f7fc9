package async_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"example.com/async"
)

// A server and a client of net/http, both on a runtime.
func ExampleRuntime_ListenNet() {
	rt, err := async.New(async.Config{Workers: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Shutdown(context.Background())
	ln, err := rt.ListenNet("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "hello")
	})}
	go server.Serve(ln)
	defer server.Close()

	client := http.Client{Transport: &http.Transport{DialContext: rt.DialNet, DisableKeepAlives: true}}
	res, err := client.Get("http://" + ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Println(string(body), err)
	// Output: hello <nil>
}

// A task hands a connection to code that starts goroutines of its own.
func ExampleNetConn() {
	done := make(chan string)
	err := async.Run(func(cx *async.Context) error {
		ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close()
		c, err := async.Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		peer, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		defer peer.Close()

		conn := async.NetConn(cx, c)
		go func() {
			all, err := io.ReadAll(conn) // parks this goroutine, not the worker
			conn.Close()
			done <- fmt.Sprintf("%s, %v", all, err)
		}()
		_, err = peer.Write(cx, []byte("from the task"))
		return err
	})
	fmt.Println(<-done, err)
	// Output: from the task, <nil> <nil>
}

// A goroutine accepts the connections of a listener, as code that uses package net does.
func ExampleNetListener() {
	rt := newRuntime()
	defer rt.Shutdown(context.Background())
	tcp, err := async.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		fmt.Println(err)
		return
	}
	var ln net.Listener = async.NetListener(rt, tcp)
	served := make(chan error)
	go func() {
		for {
			conn, err := ln.Accept() // parks this goroutine
			if err != nil {
				served <- err
				return
			}
			io.WriteString(conn, "welcome")
			conn.Close()
		}
	}()
	conn, err := rt.DialNet(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	got, err := io.ReadAll(conn)
	fmt.Println(string(got), err)
	ln.Close()
	fmt.Println(errors.Is(<-served, net.ErrClosed))
	// Output:
	// welcome <nil>
	// true
}
