package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// process is a server in a process of its own.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

func start(s server) (p *process, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p = &process{cmd: exec.Command(self, "-serve", s.name())}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err = p.cmd.Start(); err != nil {
		return nil, err
	}
	if p.addr, err = p.out.ReadString('\n'); err != nil {
		p.stop()
		return nil, fmt.Errorf("%s has not begun: %w", s.name(), err)
	}
	p.addr = strings.TrimSpace(p.addr)
	return p, nil
}

// used asks the server for its usage. what is askCPU or askMemory.
func (p *process) used(what string) (u usage, err error) {
	if _, err = fmt.Fprintln(p.in, what); err == nil {
		_, err = fmt.Fscan(p.out, &u.cpu, &u.heap, &u.resident)
	}
	return u, err
}

func (p *process) stop() {
	p.in.Close()
	p.cmd.Wait()
}
