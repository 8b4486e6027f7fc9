package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

// process is a server in a process of its own.
type process struct {
	cmd  *exec.Cmd
	kill context.CancelFunc
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

func startServer(name string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, kill := context.WithTimeout(context.Background(), 2*time.Minute) // whatever happens
	p := &process{kill: kill}
	p.cmd = exec.CommandContext(ctx, self, "-listen", "127.0.0.1:0", "-server", name, "-report")
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		p.out = bufio.NewReader(out)
		p.in, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		kill()
		return nil, err
	}
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

// usage is what a server has used.
type usage struct {
	cpu    time.Duration
	memory int64 // of the Go runtime, in bytes: what it has from the system after collections
}

// usage asks the server what it has used. Its memory is 0 without collect.
func (p *process) usage(collect bool) (u usage, err error) {
	question := "now"
	if collect {
		question = "collect"
	}
	if _, err := fmt.Fprintln(p.in, question); err != nil {
		return u, err
	}
	s, err := p.line()
	if err != nil {
		return u, err
	}
	_, err = fmt.Sscan(s, &u.cpu, &u.memory)
	return u, err
}

// stop ends the server, which ends itself when its standard input ends.
func (p *process) stop() {
	p.in.Close()
	late := time.AfterFunc(patience, p.kill)
	p.cmd.Wait()
	late.Stop()
	p.kill()
}

// answerUsage answers the questions of usage in the server, and ends the server with its
// standard input.
func answerUsage() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "collect" {
			for range 3 { // a sync.Pool keeps what it has for two collections
				debug.FreeOSMemory()
			}
		}
		var use syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
			fmt.Fprintln(os.Stderr, "echo: getrusage:", err)
			os.Exit(1)
		}
		var m runtime.MemStats
		if in.Text() == "collect" {
			runtime.ReadMemStats(&m)
		}
		fmt.Println(use.Utime.Nano()+use.Stime.Nano(), m.Sys-m.HeapReleased)
	}
	os.Exit(0)
}
