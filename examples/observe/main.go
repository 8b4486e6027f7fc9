// Command observe shows the tasks, workers and metrics of a runtime on a page that refreshes
// itself.
//
//	go run ./examples/observe -listen 127.0.0.1:8080
//
// Then open http://127.0.0.1:8080/ in a browser. The runtime has a load of its own: an echo server
// and its clients, producers and consumers, sleepers, blocking calls, and sometimes a task that
// computes for too long. The page shows metrics, histograms, workers, stalls and tasks. /state has
// the same as JSON, and /debug/vars has the metrics as an expvar.
//
// What to look at: page.go and page.html can be copied into another server; page.go calls
// Runtime.Metrics, Runtime.WorkerMetrics and Runtime.Tasks. Package net/http serves the page on
// goroutines, not in the runtime, so the page answers even when all workers are stuck.
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

// patience limits how long a request may take, and how long tasks may take to end after they have
// been cancelled.
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
	// The load never ends by itself. ctx has ended, so Shutdown cancels the load at once.
	return errors.Join(err, rt.Shutdown(ctx))
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
