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
	// The time limit ends a server that outlives the comparison.
	ctx, kill := context.WithTimeout(context.Background(), 2*time.Minute)
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

// usage is the CPU time and the memory of a server.
type usage struct {
	cpu    time.Duration
	memory int64 // bytes that the Go runtime has from the system after garbage collections
}

// usage asks the server for its usage. The memory is 0 if collect is false.
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

// stop closes the standard input of the server, which ends the server, and waits for the process.
// It kills the process if that takes longer than patience.
func (p *process) stop() {
	p.in.Close()
	late := time.AfterFunc(patience, p.kill)
	p.cmd.Wait()
	late.Stop()
	p.kill()
}

// answerUsage runs in the server. It answers the questions of usage, and ends the server when the
// standard input ends.
func answerUsage() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "collect" {
			for range 3 { // a sync.Pool keeps its values for two collections
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
