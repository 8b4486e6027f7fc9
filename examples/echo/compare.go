package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

// load is a closed loop: each connection sends a request, waits for the echo,
// and sends the next.
type load struct {
	conns, size int
	time        time.Duration
}

func (l load) check(rounds int) error {
	switch {
	case l.conns < 1 || l.conns > 5000:
		return errors.New("-conns must be 1 to 5000")
	case l.size < 1 || l.size > bufferSize:
		return fmt.Errorf("-size must be 1 to %d", bufferSize)
	case rounds < 1 || rounds > 100:
		return errors.New("-rounds must be 1 to 100")
	case l.time < 100*time.Millisecond || l.time > time.Minute:
		return errors.New("-time must be 100ms to 1m")
	}
	return nil
}

// figures is what one run of one server gave.
type figures struct {
	rate               float64 // requests per second
	cpu                float64 // microseconds of the server's CPU time per request
	p50, p99, p999, hi float64 // latency in microseconds
}

// columns are the figures as they are printed.
var columns = []struct {
	title string
	of    func(figures) float64
}{
	{"requests/s", func(f figures) float64 { return f.rate }},
	{"CPU µs/request", func(f figures) float64 { return f.cpu }},
	{"p50 µs", func(f figures) float64 { return f.p50 }},
	{"p99 µs", func(f figures) float64 { return f.p99 }},
	{"p99.9 µs", func(f figures) float64 { return f.p999 }},
	{"max µs", func(f figures) float64 { return f.hi }},
}

// compare measures every server, round by round, and prints a table.
func compare(l load, rounds int) error {
	fmt.Printf("%d connections, %d-byte requests, closed loop; %d rounds of %v each, servers in turn\n",
		l.conns, l.size, rounds, l.time)
	runs := make([][]figures, len(servers))
	for round := range rounds {
		for i, s := range servers {
			f, err := measure(s.name, l)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			runs[i] = append(runs[i], f)
			fmt.Printf("round %d/%d  %-8s  %7.0f requests/s  %5.1f µs CPU/request  p99 %5.0f µs\n",
				round+1, rounds, s.name, f.rate, f.cpu, f.p99)
		}
	}
	fmt.Printf("\nmedians of %d rounds\n", rounds)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "server\t")
	for _, c := range columns {
		fmt.Fprint(t, c.title, "\t")
	}
	fmt.Fprintln(t)
	for i, s := range servers {
		fmt.Fprint(t, s.name, "\t")
		for _, c := range columns {
			fmt.Fprintf(t, "%.1f\t", median(runs[i], c.of))
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	fmt.Println()
	for _, s := range servers {
		fmt.Printf("%-8s  %s\n", s.name, s.what)
	}
	return nil
}

func median(runs []figures, of func(figures) float64) float64 {
	var xs []float64
	for _, f := range runs {
		xs = append(xs, of(f))
	}
	slices.Sort(xs)
	return (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
}

// measure starts a server, puts it under load and stops it.
func measure(name string, l load) (f figures, err error) {
	p, err := startServer(name)
	if err != nil {
		return f, err
	}
	defer p.stop()
	conns := make([]net.Conn, l.conns)
	for i := range conns {
		if conns[i], err = net.Dial("tcp", p.addr); err != nil {
			return f, err
		}
		defer conns[i].Close()
	}
	if _, err := l.run(conns, l.time/10); err != nil { // warm-up
		return f, err
	}
	before, err := p.cpu()
	if err != nil {
		return f, err
	}
	began := time.Now()
	latencies, err := l.run(conns, l.time)
	if err != nil {
		return f, err
	}
	took := time.Since(began)
	after, err := p.cpu()
	if err != nil {
		return f, err
	}
	n := float64(len(latencies))
	at := func(q float64) float64 {
		return float64(latencies[min(int(q*n), len(latencies)-1)]) / float64(time.Microsecond)
	}
	return figures{
		rate: n / took.Seconds(),
		cpu:  float64((after - before).Microseconds()) / n,
		p50:  at(0.5), p99: at(0.99), p999: at(0.999), hi: at(1),
	}, nil
}

// run loads every connection for a time and returns all latencies, sorted.
func (l load) run(conns []net.Conn, d time.Duration) ([]time.Duration, error) {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		all  []time.Duration
		errs []error
		end  = time.Now().Add(d)
	)
	for i, c := range conns {
		wg.Go(func() {
			mine, err := l.client(c, byte(i), end)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return nil, errs[0]
	}
	slices.Sort(all)
	return all, nil
}

// client sends requests one after the other, at least one, and checks every echo.
func (l load) client(c net.Conn, seed byte, end time.Time) (latencies []time.Duration, err error) {
	out, in := make([]byte, l.size), make([]byte, l.size)
	for began := time.Now(); len(latencies) == 0 || began.Before(end); {
		for i := range out {
			out[i] = seed + byte(len(latencies)+i)
		}
		if _, err := c.Write(out); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, in); err != nil {
			return nil, err
		}
		if !bytes.Equal(in, out) {
			return nil, errors.New("the echo differs from what was sent")
		}
		now := time.Now()
		latencies = append(latencies, now.Sub(began))
		began = now
	}
	return latencies, nil
}

// process is a server in a process of its own.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

func startServer(name string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-listen", "127.0.0.1:0", "-server", name, "-report-cpu")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, in: in, out: bufio.NewReader(out)}
	if p.addr, err = p.line(); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *process) line() (string, error) {
	s, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the server ended: %w", err)
	}
	return s[:len(s)-1], nil
}

// cpu asks the server for the CPU time that it has used.
func (p *process) cpu() (time.Duration, error) {
	if _, err := fmt.Fprintln(p.in); err != nil {
		return 0, err
	}
	s, err := p.line()
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(s)
}

// stop ends the server: it ends itself when its standard input does.
func (p *process) stop() {
	p.in.Close()
	p.cmd.Wait()
}

// answerCPU is the other side of cpu and stop.
func answerCPU() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var use syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
			fmt.Fprintln(os.Stderr, "echo: getrusage:", err)
			os.Exit(1)
		}
		fmt.Println(time.Duration(use.Utime.Nano() + use.Stime.Nano()))
	}
	os.Exit(0)
}
