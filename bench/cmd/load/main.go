// Command load puts an echo server on 127.0.0.1 under load, from one thread, and
// checks every byte that comes back.
//
// It opens the connections, exchanges one request on each, runs the load for a while unmeasured, prints "ready", waits for a line
// on standard input, runs the load again and prints the result as one line of JSON.
// With -idle it instead opens that many connections, exchanges one request on each, prints
// "ready", waits for a line, exchanges another request on each and prints "{}".
// It ends with its standard input.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run() error {
	addr := flag.String("addr", "", "the server's `address` on 127.0.0.1")
	conns := flag.Int("conns", 64, "connections that send requests")
	size := flag.Int("size", 64, "bytes in a request")
	rate := flag.Float64("rate", 0, "requests per second over all connections; 0 is the closed loop")
	seconds := flag.Float64("seconds", 3, "how long to measure")
	warm := flag.Float64("warm", 0.5, "how long to run the load unmeasured before")
	idle := flag.Int("idle", 0, "open that many connections and leave them idle")
	flag.Parse()
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case *conns < 1 || *conns > 20_000 || *idle < 0 || *idle > 25_000:
		return errors.New("too many or too few connections")
	case *size < 8 || *size > 1<<20:
		return errors.New("-size must be 8 to 1048576")
	case *rate < 0 || *rate > 1e6:
		return errors.New("-rate must be 0 to 1000000")
	case *seconds <= 0 || *seconds > 60 || *warm < 0 || *warm > 60:
		return errors.New("-seconds and -warm must be at most 60")
	}
	to, err := netip.ParseAddrPort(*addr)
	if err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	if !to.Addr().IsLoopback() || !to.Addr().Is4() {
		return fmt.Errorf("-addr %s: only 127.0.0.1 is loaded", to)
	}
	// One thread runs the load. A collection, or a second processor that takes the
	// goroutine over, would show as latency of the server.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)

	in := bufio.NewReader(os.Stdin)
	if *idle > 0 {
		return runIdle(to, *idle, *size, in)
	}
	return runLoad(to, *conns, *size, *rate, toDuration(*warm), toDuration(*seconds), in)
}

func toDuration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

func runLoad(to netip.AddrPort, conns, size int, rate float64, warm, measured time.Duration, in *bufio.Reader) error {
	l, err := newLoad(to, conns, size, rate)
	if err != nil {
		return err
	}
	defer l.close()
	if warm > 0 {
		if err := l.phase(warm); err != nil {
			return err
		}
		if l.errors > 0 {
			return fmt.Errorf("%d errors in the warm-up", l.errors)
		}
	}
	if err := signal(in); err != nil {
		return err
	}
	if err := l.phase(measured); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(l.metrics(measured)); err != nil {
		return err
	}
	return untilEnd(in)
}

func runIdle(to netip.AddrPort, n, size int, in *bufio.Reader) error {
	idle, err := openIdle(to, n, size)
	if err != nil {
		return err
	}
	defer idle.close()
	time.Sleep(300 * time.Millisecond) // until the server has gone back to waiting
	if err := signal(in); err != nil {
		return err
	}
	if err := idle.exchange(1); err != nil {
		return err
	}
	fmt.Println("{}")
	return untilEnd(in)
}

// signal tells the parent process that all is ready and waits until it answers.
func signal(in *bufio.Reader) error {
	fmt.Println("ready")
	if _, err := in.ReadString('\n'); err != nil {
		return fmt.Errorf("waiting for the order to begin: %w", err)
	}
	return nil
}

// untilEnd keeps the connections open until the parent process has read what it wants.
func untilEnd(in *bufio.Reader) error {
	_, err := io.Copy(io.Discard, in)
	return err
}
