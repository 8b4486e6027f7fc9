// Command load puts an echo server on 127.0.0.1 under load, from one thread, and checks every byte
// of the answers. These are its steps:
//
//  1. It opens the connections, and exchanges one request on each.
//  2. It runs the load for the time -warm, unmeasured.
//  3. It prints "ready", and waits for a line on standard input.
//  4. It runs the load for the time -seconds, and prints the result as one line of JSON.
//  5. It keeps the connections open until standard input ends.
//
// With -idle it opens that many connections instead. Step 2 is left out, and step 4 exchanges
// another request on each connection and prints "{}".
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
	// One thread runs the load. A garbage collection, or a second P that takes over the goroutine,
	// would be measured as latency of the server.
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
	time.Sleep(300 * time.Millisecond) // the server has parked by then
	if err := signal(in); err != nil {
		return err
	}
	if err := idle.exchange(1); err != nil {
		return err
	}
	fmt.Println("{}")
	return untilEnd(in)
}

// signal prints "ready" for the parent process, and waits for its answer.
func signal(in *bufio.Reader) error {
	fmt.Println("ready")
	if _, err := in.ReadString('\n'); err != nil {
		return fmt.Errorf("waiting for the order to begin: %w", err)
	}
	return nil
}

// untilEnd keeps the connections open until the parent process has taken its measurements and
// closes standard input.
func untilEnd(in *bufio.Reader) error {
	_, err := io.Copy(io.Discard, in)
	return err
}
