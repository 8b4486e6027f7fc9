package async

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// faultsChild is the environment variable that makes a test run its part as a child process. This
// part needs a process of its own, because it uses up the descriptors or because its memory is
// measured.
const faultsChild = "ASYNC_TEST_CHILD"

// faultsProcess is a child process that runs one test.
type faultsProcess struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // the reports of the child; see faultsReport
	out   chan string // the whole output of the child, once it has ended
}

// faultsStart runs the calling test in a child process, in the given role.
func faultsStart(t *testing.T, role string, env ...string) *faultsProcess {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	limit := 2 * time.Minute // the largest test is slow under the race detector and on a busy machine
	cmd := exec.Command(exe,
		"-test.run=^"+t.Name()+"$", "-test.v",
		"-test.short="+strconv.FormatBool(testing.Short()),
		"-test.cpu="+strconv.Itoa(runtime.GOMAXPROCS(0)),
		"-test.timeout="+limit.String())
	cmd.Env = append(append(os.Environ(), faultsChild+"="+role), env...)
	p := &faultsProcess{t: t, cmd: cmd, lines: make(chan string, 100), out: make(chan string, 1)}
	p.stdin, err = cmd.StdinPipe()
	require.NoError(t, err)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = w, w
	require.NoError(t, cmd.Start())
	w.Close()
	go func() {
		defer r.Close()
		var all strings.Builder
		for s := bufio.NewScanner(r); s.Scan(); {
			line := s.Text()
			all.WriteString(line + "\n")
			if _, report, ok := strings.Cut(line, faultsMark); ok {
				p.lines <- report
			}
		}
		close(p.lines)
		p.out <- all.String()
	}()
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			p.stdin.Close()
			cmd.Wait()
			t.Log(<-p.out)
		}
	})
	return p
}

// faultsMark is the prefix of each line with which a child reports to its parent.
const faultsMark = "report: "

// faultsReport sends a report to the parent. It is called in the child.
func faultsReport(format string, args ...any) {
	fmt.Printf("\n"+faultsMark+format+"\n", args...)
}

// next returns the child's next report.
func (p *faultsProcess) next() string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("the child process ended: %v", p.wait())
		}
		return line
	case <-time.After(patience):
		p.t.Fatal("the child process reports nothing")
		return ""
	}
}

// wait waits for the end of the child. It returns an error unless the child has
// passed its test.
func (p *faultsProcess) wait() error {
	p.stdin.Close()
	out := <-p.out
	err := p.cmd.Wait()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if !strings.Contains(out, "--- PASS: "+p.t.Name()) {
		return fmt.Errorf("it did not run the test:\n%s", out)
	}
	return nil
}

// finish calls wait, and logs the reports that are left.
func (p *faultsProcess) finish() {
	p.t.Helper()
	assert.NoError(p.t, p.wait())
	for line := range p.lines {
		p.t.Log(line)
	}
}

// faultsLimit sets how many descriptors the process may have.
func faultsLimit(t *testing.T, n uint64) {
	t.Helper()
	var l unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &l))
	raw := any(&l.Cur)
	switch cur := raw.(type) { // the type is signed on FreeBSD
	case *uint64:
		*cur = n
	case *int64:
		*cur = int64(n)
	}
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &l))
}

// faultsPeak returns the most memory that the process has had, as text.
func faultsPeak() string {
	status, err := os.ReadFile("/proc/self/status")
	if m := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(status); err == nil && m != nil {
		kb, _ := strconv.Atoi(string(m[1]))
		return fmt.Sprintf("peak RSS %d MiB", kb>>10)
	}
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return fmt.Sprintf("peak RSS %d (as getrusage counts)", u.Maxrss)
}

// faultsServe echoes the data of c until its end.
func faultsServe(cx *Context, c Conn) error {
	defer c.Close()
	_, err := io.Copy(BindConn(cx, c), BindConn(cx, c))
	return err
}

// More clients connect than the server has descriptors:
//  1. accepted connections are served as usual;
//  2. once descriptors are free, every client that waited is served;
//  3. the server does not fail and leaks nothing.
func TestFaultsMoreClientsThanDescriptors(t *testing.T) {
	const clients, descriptors = 100, 64
	if os.Getenv(faultsChild) == "server" {
		faultsLimit(t, descriptors)
		rt := newTestRuntime(t, Config{Workers: 2})
		ln := tcpListen(t)
		faultsReport("%s", ln.Addr())
		free := faultsExhaust(t)
		faultsReport("%d", len(faultsHeld))
		free(descriptors)
		require.NoError(t, runTask(rt, func(cx *Context) error {
			var hs []*JoinHandle[None]
			for c, err := range Incoming(ln).All(cx) {
				if err != nil {
					return err
				}
				hs = append(hs, Go(cx, func(cx *Context) error { return faultsServe(cx, c) }))
				if len(hs) == clients {
					break
				}
			}
			for _, h := range hs {
				if _, err := h.Join(cx); err != nil {
					return err
				}
			}
			return nil
		}))
		return
	}

	child := faultsStart(t, "server")
	addr := child.next()
	room, err := strconv.Atoi(child.next())
	require.NoError(t, err)
	require.Less(t, room, clients)

	var served atomic.Int64
	hold := make(chan struct{})
	failed := make(chan error, clients)
	ask := func(c net.Conn, m string) error {
		got := make([]byte, len(m))
		if _, err := io.WriteString(c, m); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if string(got) != m {
			return fmt.Errorf("got %q, want %q", got, m)
		}
		return nil
	}
	client := func(m string) error {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(2 * patience))
		if err := ask(c, m); err != nil {
			return err
		}
		served.Add(1)
		<-hold
		return ask(c, m)
	}
	for i := range clients {
		go func() { failed <- client(fmt.Sprintf("client %d;", i)) }()
	}
	if !within(patience/2, func() bool { return int(served.Load()) >= room }) {
		t.Errorf("%d clients are served, but there are descriptors for %d", served.Load(), room)
	}
	require.Less(t, int(served.Load()), clients)
	// For each connection that is closed, the next client is served. All are
	// closed at once here, so all other clients are served.
	close(hold)
	for range clients {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	child.finish()
}

// With no descriptor left, calls that open a descriptor return EMFILE and leave
// none open. Accept waits instead; a deadline, a cancellation and Close still end
// it.
func TestFaultsNoDescriptors(t *testing.T) {
	if os.Getenv(faultsChild) == "" {
		faultsStart(t, "alone").finish()
		return
	}
	faultsLimit(t, 64)
	rt := newTestRuntime(t, Config{Workers: 2})
	lns := []*TCPListener{tcpListen(t), tcpListen(t)}
	ln := lns[0]
	var clients []*TCPConn
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for _, ln := range lns { // one connection each, which stays in the backlog
			c, err := DialTCP(cx, "tcp", nil, ln.Addr().(*net.TCPAddr))
			if err != nil {
				return err
			}
			clients = append(clients, c)
		}
		return nil
	}))
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()

	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	free := faultsExhaust(t)
	defer func() { free(64) }()
	_, err = FromFile(r)
	require.ErrorIs(t, err, syscall.EMFILE, "not taken for a file on disk")
	_, err = w.WriteString("x")
	require.NoError(t, err)
	_, err = r.Read(make([]byte, 1))
	require.NoError(t, err, "FromFile has left it as it was")
	require.NoError(t, runTask(rt, func(cx *Context) error {
		if _, err := DialTCP(cx, "tcp", nil, ln.Addr().(*net.TCPAddr)); !errors.Is(err, syscall.EMFILE) {
			return fmt.Errorf("dial: %v", err)
		}
		if _, err := ListenTCP("tcp", nil); !errors.Is(err, syscall.EMFILE) {
			return fmt.Errorf("listen: %v", err)
		}
		return nil
	}))
	// New closes only descriptors that it has opened. Descriptor 0 is not one of them.
	stdin, err := os.Stdin.Stat()
	require.NoError(t, err)
	intact := func() bool {
		now, err := os.Stdin.Stat()
		return err == nil && os.SameFile(stdin, now)
	}
	_, err = New(Config{Workers: 2})
	require.ErrorIs(t, err, syscall.EMFILE)
	require.True(t, intact(), "without a descriptor for the poller")
	free(1)
	_, err = New(Config{Workers: 2})
	require.ErrorIs(t, err, syscall.EMFILE)
	require.True(t, intact(), "without a descriptor for the pipe")
	faultsExhaust(t)

	// The second worker does not get all descriptors that it needs, and the first
	// worker closes its descriptors.
	free(7)
	before := openFds(t)
	_, err = New(Config{Workers: 3})
	require.ErrorIs(t, err, syscall.EMFILE)
	require.Equal(t, before, openFds(t))
	faultsExhaust(t)

	t.Run("deadline", func(t *testing.T) {
		require.NoError(t, runTask(rt, func(cx *Context) error {
			d := time.Now().Add(20 * time.Millisecond)
			ln.SetDeadline(d)
			defer ln.SetDeadline(time.Time{})
			_, err := ln.Accept(cx)
			return tcpTimeout(err, d)
		}))
	})
	t.Run("cancel", func(t *testing.T) {
		h := Spawn(rt, ln.Accept)
		eventually(t, func() bool { return directionWaits(&ln.src.rd) })
		h.Cancel()
		_, err := joinOrCancel(h)
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("close", func(t *testing.T) {
		h := Spawn(rt, lns[1].Accept)
		eventually(t, func() bool { return directionWaits(&lns[1].src.rd) })
		require.NoError(t, lns[1].Close()) // frees one descriptor
		_, err := joinOrCancel(h)
		require.ErrorIs(t, err, net.ErrClosed)
		faultsExhaust(t)
	})
	t.Run("several acceptors leave the system alone", func(t *testing.T) {
		var polls atomic.Int64
		var hs []*JoinHandle[Conn]
		for range 3 {
			hs = append(hs, SpawnFuture(rt, PollFunc(func(cx *Context) (Conn, error) {
				polls.Add(1)
				return ln.PollAccept(cx)
			})))
		}
		require.NoError(t, runTask(rt, func(cx *Context) error { return Sleep(cx, 100*time.Millisecond) }))
		assert.Less(t, polls.Load(), int64(300))

		// There is one connection, and as soon as there is a descriptor,
		// one of the tasks gets the connection.
		free(1)
		var got atomic.Int64
		for _, h := range hs {
			go func() {
				if c, err := h.JoinBlocking(t.Context()); err == nil {
					got.Add(1)
					c.Close()
				}
			}()
		}
		eventually(t, func() bool { return got.Load() == 1 })
		for _, h := range hs {
			h.Cancel()
			_, err := joinOrCancel(h)
			if err != nil {
				require.ErrorIs(t, err, context.Canceled)
			}
		}
		require.EqualValues(t, 1, got.Load())
	})
}

// faultsHeld are descriptors that stand for the descriptors of other parts of a program.
var faultsHeld []*os.File

// faultsExhaust opens descriptors until there are none left. free closes at
// most n of them.
func faultsExhaust(t *testing.T) (free func(n int)) {
	t.Helper()
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			require.ErrorIs(t, err, syscall.EMFILE)
			return func(n int) {
				for ; n > 0 && len(faultsHeld) > 0; n-- {
					faultsHeld[0].Close()
					faultsHeld = faultsHeld[1:]
				}
			}
		}
		faultsHeld = append(faultsHeld, f)
	}
}

// A peer that sends nothing delays only its own connection, and only until the read deadline that
// the server has set.
func TestFaultsSilentPeer(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	const silent = 5
	var accepted, timeouts atomic.Int64
	server := Go(rt, func(cx *Context) error {
		for {
			c, err := ln.AcceptTCP(cx)
			if err != nil {
				return err
			}
			enough := 200 * time.Millisecond
			if accepted.Add(1) > silent {
				enough = patience // the peer that sends data may be slow, too
			}
			Go(cx, func(cx *Context) error {
				defer c.Close()
				buf := make([]byte, 64)
				for {
					c.SetReadDeadline(time.Now().Add(enough))
					n, err := c.Read(cx, buf)
					if errors.Is(err, os.ErrDeadlineExceeded) {
						timeouts.Add(1)
						return nil
					}
					if err != nil {
						return nil
					}
					if _, err := c.Write(cx, buf[:n]); err != nil {
						return err
					}
				}
			})
		}
	})
	peers := make([]net.Conn, silent)
	for i := range peers {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		peers[i] = c
	}
	eventually(t, func() bool { return accepted.Load() == silent })
	require.NoError(t, runTask(rt, func(cx *Context) error {
		c, err := Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		return tcpAskAll(BindConn(cx, c), tcpMessages(1))
	}))
	for _, c := range peers {
		n, err := c.Read(make([]byte, 1))
		require.Zero(t, n)
		require.ErrorIs(t, err, io.EOF)
	}
	require.EqualValues(t, silent, timeouts.Load())
	ln.Close()
	_, err := joinOrCancel(server)
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestFaultsPeerResets(t *testing.T) {
	for _, way := range tcpWays {
		t.Run(way.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 2})
			ln := tcpListen(t)
			peer, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			defer peer.Close()
			reading := make(chan *TCPConn, 1)
			result := make(chan error, 1)
			go func() {
				result <- way.run(rt, func(cx *Context) error {
					c, err := ln.AcceptTCP(cx)
					if err != nil {
						return err
					}
					defer c.Close()
					if err := tcpExpect(cx, c, "half of "); err != nil {
						return err
					}
					reading <- c
					return tcpExpect(cx, c, "a message")
				})
			}()
			_, err = io.WriteString(peer, "half of a")
			require.NoError(t, err)
			c := <-reading
			eventually(t, func() bool { return directionWaits(&c.src.rd) })
			require.NoError(t, peer.(*net.TCPConn).SetLinger(0))
			require.NoError(t, peer.Close())
			err = <-result
			require.ErrorIs(t, err, syscall.ECONNRESET)
		})
	}
}

// A connection that was reset while it waited in the backlog has no effect on the next connection.
func TestFaultsResetBeforeAccept(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	for range 5 {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	good, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer good.Close()
	_, err = io.WriteString(good, "good")
	require.NoError(t, err)
	require.NoError(t, runTask(rt, func(cx *Context) error {
		for {
			c, err := ln.Accept(cx)
			if err != nil {
				return err
			}
			err = tcpExpect(cx, c, "good")
			c.Close()
			if !errors.Is(err, syscall.ECONNRESET) {
				return err
			}
		}
	}))
}

// faultsBreak echoes lines, and panics in the middle of a read if they hold
// "poison": code of the standard library is between the panic and the function of
// the task.
func faultsBreak(cx *Context, c Conn) error {
	defer c.Close()
	s := bufio.NewScanner(BindConn(cx, c))
	s.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if strings.Contains(string(data), "poison") {
			panic("poisoned: " + string(data))
		}
		return bufio.ScanLines(data, atEOF)
	})
	for s.Scan() {
		if _, err := c.Write(cx, s.Bytes()); err != nil {
			return err
		}
	}
	return s.Err()
}

func TestFaultsPanicInRead(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	ln := tcpListen(t)
	const conns = 20
	before := openFds(t)
	server := Go(rt, func(cx *Context) error {
		var hs []*JoinHandle[None]
		for range conns {
			c, err := ln.Accept(cx)
			if err != nil {
				return err
			}
			hs = append(hs, Go(cx, func(cx *Context) error { return faultsBreak(cx, c) }))
		}
		panicked := 0
		for _, h := range hs { // in any order: connections need not be accepted in the order in which they were dialled
			_, err := h.Join(cx)
			if err == nil {
				continue
			}
			panicked++
			var p *PanicError
			if !errors.As(err, &p) {
				return fmt.Errorf("the panic became %v", err)
			}
			if p.Value != "poisoned: poison\n" {
				return fmt.Errorf("the value is %v", p.Value)
			}
			if !strings.Contains(string(p.Stack), "faultsBreak") {
				return fmt.Errorf("the stack does not show the code that panicked:\n%s", p.Stack)
			}
		}
		return expect(panicked == conns/2, "%d have panicked", panicked)
	})
	var peers []net.Conn
	for i := range conns {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		peers = append(peers, c)
		line := "hello\n"
		if i%2 == 1 {
			line = "poison\n"
		}
		_, err = io.WriteString(c, line)
		require.NoError(t, err)
	}
	for i, c := range peers {
		if i%2 == 1 {
			_, err := c.Read(make([]byte, 8)) // the end, or a reset: the task has closed it
			require.Error(t, err)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		}
	}
	for i, c := range peers { // the other connections, and the worker, go on
		if i%2 == 0 {
			got := make([]byte, 10)
			_, err := io.WriteString(c, "again\n")
			require.NoError(t, err)
			_, err = io.ReadFull(c, got)
			require.NoError(t, err)
			require.Equal(t, "helloagain", string(got))
		}
		c.Close()
	}
	_, err := joinOrCancel(server)
	require.NoError(t, err)
	eventually(t, func() bool { return openFds(t) <= before })
}

func TestFaultsZeroLengths(t *testing.T) {
	for _, way := range tcpWays {
		t.Run(way.name, func(t *testing.T) {
			rt := newTestRuntime(t, Config{Workers: 1})
			a, b := tcpPair(t, rt)
			zero := func(cx *Context) error {
				for range 3 {
					if n, err := a.Read(cx, nil); n != 0 || err != nil {
						return fmt.Errorf("read: %d, %v", n, err)
					}
					if n, err := a.Write(cx, []byte{}); n != 0 || err != nil {
						return fmt.Errorf("write: %d, %v", n, err)
					}
				}
				return nil
			}
			steps := []struct {
				when string
				do   func(cx *Context) error
			}{
				{"with nothing there", func(cx *Context) error { return nil }},
				{"with data there", func(cx *Context) error { return tcpWrite(cx, b, "data") }},
				{"after a short read", func(cx *Context) error {
					buf := make([]byte, 10)
					n, err := a.Read(cx, buf)
					if string(buf[:n]) != "data" {
						return fmt.Errorf("zero-length reads have taken something: %q, %v", buf[:n], err)
					}
					return err
				}},
				{"with full buffers", func(cx *Context) error {
					cx, cancel := cx.WithTimeout(10 * time.Millisecond)
					defer cancel()
					for {
						_, err := a.Write(cx, make([]byte, 1<<20))
						if errors.Is(err, context.DeadlineExceeded) {
							return nil
						}
						if err != nil {
							return err
						}
					}
				}},
				{"at the end", func(cx *Context) error { return b.CloseWrite() }},
			}
			for _, s := range steps {
				require.NoError(t, way.run(rt, s.do), s.when)
				require.NoError(t, way.run(rt, zero), s.when)
			}
		})
	}
}

// Tasks and goroutines close, read, write, set deadlines and cancel on one connection at the same
// time. In every order, all calls return.
func TestFaultsEverythingAtOnce(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	rounds := 200
	if testing.Short() {
		rounds = 40
	}
	for range rounds {
		a, b := tcpPair(t, rt)
		var hs []*JoinHandle[None]
		for i, c := range []*TCPConn{a, b, a, b} {
			hs = append(hs, Go(rt, func(cx *Context) error {
				buf := make([]byte, 100)
				for {
					if _, err := c.Read(cx, buf); err != nil {
						return nil
					}
					if _, err := c.Write(cx, buf[:10*i]); err != nil {
						return nil
					}
				}
			}), Go(rt, func(cx *Context) error {
				for n := range 20 {
					c.SetDeadline(time.Now().Add(time.Duration(n%3+1) * 10 * time.Millisecond))
					if _, err := c.Write(cx, make([]byte, 50)); err != nil {
						return nil
					}
				}
				if i >= 2 {
					c.SetLinger(0)
					c.Close()
				}
				return nil
			}))
		}
		hs[0].Cancel()
		for _, h := range hs {
			_, err := joinOrCancel(h)
			require.NoError(t, err)
		}
		a.Close()
		b.Close()
	}
}

// TestFaultsTenThousandConnections opens n connections at once, uses each twice while all are open,
// and closes them, in two processes so that the usual limits suffice.
func TestFaultsTenThousandConnections(t *testing.T) {
	n := 10000
	if testing.Short() {
		n = 500
	}
	switch role := os.Getenv(faultsChild); role {
	case "server":
		rt := newTestRuntime(t, Config{Workers: 2})
		ln := tcpListen(t)
		faultsReport("%s", ln.Addr())
		var open, peak int64
		require.NoError(t, tcpRunFor(time.Minute, rt, func(cx *Context) error {
			hs := make([]*JoinHandle[None], n)
			var now atomic.Int64
			for i := range hs {
				c, err := ln.Accept(cx)
				if err != nil {
					return err
				}
				peak = max(peak, now.Add(1))
				hs[i] = Go(cx, func(cx *Context) error {
					defer now.Add(-1)
					return faultsServe(cx, c)
				})
			}
			for _, h := range hs {
				if _, err := h.Join(cx); err != nil {
					return err
				}
			}
			open = now.Load()
			return nil
		}))
		require.Zero(t, open)
		require.EqualValues(t, n, peak)
		faultsReport("server of %d connections: %s", n, faultsPeak())
	case "":
		server := faultsStart(t, "server")
		client := faultsStart(t, server.next())
		client.finish()
		server.finish()
	default:
		rt := newTestRuntime(t, Config{Workers: 2})
		require.NoError(t, tcpRunFor(time.Minute, rt, func(cx *Context) error { return faultsCrowd(cx, role, n) }))
		faultsReport("client of %d connections: %s", n, faultsPeak())
	}
}

// faultsCrowd opens n connections to addr and uses each twice, before it closes any of them.
func faultsCrowd(cx *Context, addr string, n int) error {
	conns := make([]Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	steps := []func(cx *Context, i int) error{
		func(cx *Context, i int) (err error) {
			conns[i], err = Dial(cx, "tcp", addr)
			return err
		},
		func(cx *Context, i int) error {
			m := fmt.Sprintf("message %d", i)
			return errors.Join(tcpWrite(cx, conns[i], m), tcpExpect(cx, conns[i], m))
		},
	}
	for _, step := range append(steps, steps[1]) {
		hs := make([]*JoinHandle[None], n)
		for i := range hs {
			hs[i] = Go(cx, func(cx *Context) error { return step(cx, i) })
		}
		for _, h := range hs {
			if _, err := h.Join(cx); err != nil {
				return err
			}
		}
	}
	return nil
}

// tcpRunFor is runTask with another time limit.
func tcpRunFor(limit time.Duration, rt *Runtime, fn func(cx *Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	h := Go(rt, fn)
	_, err := h.JoinBlocking(ctx)
	if ctx.Err() != nil {
		h.Cancel()
	}
	return err
}

// Many tasks sleep at once: none wakes early, and all wake.
func TestFaultsSleepers(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 5_000
	}
	asleep := func(spawn func(rt *Runtime, until time.Time, in, out func()) *JoinHandle[None]) {
		rt := newTestRuntime(t, Config{Workers: 2})
		// All tasks must have gone to sleep before the first wakes. If that takes
		// longer, the next try has more time.
		for d := 500 * time.Millisecond; ; d *= 2 {
			require.Less(t, d, time.Minute)
			var now, early, woken atomic.Int64
			peak := int64(0)
			until := time.Now().Add(d)
			hs := make([]*JoinHandle[None], n)
			for i := range hs {
				hs[i] = spawn(rt, until, func() { now.Add(1) }, func() {
					now.Add(-1)
					woken.Add(1)
					if time.Now().Before(until) {
						early.Add(1)
					}
				})
			}
			for woken.Load() == 0 {
				peak = max(peak, now.Load())
				runtime.Gosched()
			}
			for _, h := range hs {
				_, err := joinOrCancel(h)
				require.NoError(t, err)
			}
			require.EqualValues(t, n, woken.Load())
			require.Zero(t, early.Load())
			if int(peak) == n {
				return
			}
		}
	}
	switch os.Getenv(faultsChild) {
	case "futures":
		asleep(func(rt *Runtime, until time.Time, in, out func()) *JoinHandle[None] {
			var s Future[None]
			return SpawnFuture(rt, PollFunc(func(cx *Context) (None, error) {
				if s == nil {
					s = SleepFuture(time.Until(until))
					in()
				}
				v, err := s.Poll(cx)
				if err == nil {
					out()
				}
				return v, err
			}))
		})
		faultsReport("%d futures asleep: %s", n, faultsPeak())
	case "straight":
		asleep(func(rt *Runtime, until time.Time, in, out func()) *JoinHandle[None] {
			return Go(rt, func(cx *Context) error {
				in()
				defer out()
				return Sleep(cx, time.Until(until))
			})
		})
		faultsReport("%d straight-line tasks asleep: %s", n, faultsPeak())
	default:
		faultsStart(t, "futures").finish()
		faultsStart(t, "straight").finish()
	}
}

// A million tasks are spawned by one task that does not wait in between.
func TestFaultsSpawns(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 20_000
	}
	var ended atomic.Int64
	run := func(spawn func(cx *Context)) {
		rt := newTestRuntime(t, Config{Workers: 2})
		require.NoError(t, tcpRunFor(time.Minute, rt, func(cx *Context) error {
			for range n {
				spawn(cx)
			}
			return nil
		}))
		if !within(time.Minute, func() bool { return ended.Load() == int64(n) }) {
			t.Fatalf("%d of %d have run", ended.Load(), n)
		}
	}
	switch os.Getenv(faultsChild) {
	case "futures":
		f := PollFunc(func(cx *Context) (None, error) {
			ended.Add(1)
			return None{}, nil
		})
		run(func(cx *Context) { SpawnFuture(cx, f) })
		faultsReport("%d futures spawned: %s", n, faultsPeak())
	case "straight":
		run(func(cx *Context) {
			Go(cx, func(cx *Context) error {
				err := Yield(cx)
				ended.Add(1)
				return err
			})
		})
		faultsReport("%d straight-line tasks spawned: %s", n, faultsPeak())
	default:
		faultsStart(t, "futures").finish()
		faultsStart(t, "straight").finish()
	}
}
