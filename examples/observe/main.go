// Command observe shows what a runtime does, on a page that refreshes itself.
//
//	observe -listen 127.0.0.1:8080
//
// The runtime serves a little load of its own: an echo server and its clients,
// producers and consumers, sleepers, blocking calls, and now and then a task
// that computes for too long. The page shows its metrics, histograms, workers
// and tasks; /state is the same as JSON, and /debug/vars has the metrics as an
// expvar.
//
// What a server of your own needs of this is page.go and page.html. The page is
// served by package net/http on goroutines, beside the runtime: so it answers
// also when all workers are stuck.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/async"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "show the page at this `address`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, *listen, func(a net.Addr) { fmt.Printf("look at http://%v/\n", a) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "observe:", err)
		os.Exit(1)
	}
}

// patience is how long requests may take, and tasks to end once they are
// cancelled.
const patience = 10 * time.Second

// run serves until ctx ends.
func run(ctx context.Context, addr string, ready func(net.Addr)) error {
	stalls := new(stallLog)
	rt, err := async.New(async.Config{
		Tuning:   async.Tuning{Name: "observe"},
		Workers:  2,
		Grace:    patience,
		Blocking: async.BlockingConfig{Limit: 4},
		Stalled:  stalls.add,
	})
	if err != nil {
		return err
	}
	w := newWatch(rt, stalls)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go w.sample(ctx)
	go bridge(ctx, rt)
	async.Go(rt.Named("load"), startLoad)

	ln, err := net.Listen("tcp", addr)
	if err == nil {
		ready(ln.Addr())
		err = serve(ctx, ln, w.handler())
	}
	cancel()
	return errors.Join(err, rt.Shutdown(ctx)) // which has ended: the load would go on for ever
}

// serve serves h until ctx ends.
func serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: patience}
	stop := context.AfterFunc(ctx, func() {
		late, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if server.Shutdown(late) != nil {
			server.Close()
		}
	})
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
