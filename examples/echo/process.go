package main

import (
	"bufio"
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
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

func startServer(name string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-listen", "127.0.0.1:0", "-server", name, "-report")
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

// usage is what a server has used.
type usage struct {
	cpu    time.Duration
	memory int64 // bytes that it has from the system, after a collection if that was asked for
}

// usage asks the server for it.
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

// stop ends the server: it ends itself when its standard input does.
func (p *process) stop() {
	p.in.Close()
	p.cmd.Wait()
}

// answerUsage is the other side of usage and stop.
func answerUsage() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "collect" {
			debug.FreeOSMemory()
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
