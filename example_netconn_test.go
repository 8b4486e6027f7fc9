package async_test

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"example.com/async"
)

// net/http, both sides, on the workers of a runtime.
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
