// Package proc runs the measured programs as processes, and reads their profiles, counters and CPU
// times.
package proc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Process is a program that answers lines on its standard input with lines on its standard
// output, and ends when its standard input ends.
//
// When its context ends, the process is killed together with the processes that it has started.
// When the thread that started it ends, the kernel kills the process alone: so [Start] must be
// called on a goroutine that is locked to the main thread.
type Process struct {
	name   string // for errors; without directories, which differ between machines
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	errors tail
}

// stopTime is how long a process may take to end after its standard input has ended.
const stopTime = 10 * time.Second

// Start starts a program. The program gets the environment of this process and the settings.
func Start(ctx context.Context, program string, args []string, settings ...string) (*Process, error) {
	p := &Process{name: strings.Join(append([]string{filepath.Base(program)}, args...), " ")}
	p.cmd = exec.CommandContext(ctx, program, args...)
	p.cmd.Env = append(os.Environ(), settings...)
	p.cmd.Stderr = &p.errors
	p.cmd.WaitDelay = stopTime
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.cmd.Cancel = func() error { return syscall.Kill(-p.PID(), syscall.SIGKILL) }
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return p, nil
}

// PID returns the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Line reads one line of the output of the process, and returns it without the newline.
func (p *Process) Line() (string, error) {
	s, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s ended too early: %w%s", p.name, err, p.errors.String())
	}
	return strings.TrimSuffix(s, "\n"), nil
}

// Tell writes one line to the process.
func (p *Process) Tell(line string) error {
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		return fmt.Errorf("writing to %s: %w%s", p.name, err, p.errors.String())
	}
	return nil
}

// Address reads a line that is the address of a server.
func (p *Process) Address() (netip.AddrPort, error) {
	line, err := p.Line()
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr, err := netip.ParseAddrPort(line)
	if err != nil {
		return addr, fmt.Errorf("%s announced the address %q: %w", p.name, line, err)
	}
	return addr, nil
}

// Stop closes the standard input of the process, and waits until the process has ended. If this
// takes longer than stopTime, it kills the process.
func (p *Process) Stop() error {
	p.in.Close()
	kill := time.AfterFunc(stopTime, func() { p.cmd.Cancel() })
	defer kill.Stop()
	io.Copy(io.Discard, p.out) // Wait closes the pipe, so all output must have been read before
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w%s", p.name, err, p.errors.String())
	}
	return nil
}

// Interrupt sends SIGINT to the process. It makes perf write its results.
func (p *Process) Interrupt() error { return p.cmd.Process.Signal(os.Interrupt) }

// ErrorOutput returns the last part of the standard error of the process. It is complete after
// [Process.Stop].
func (p *Process) ErrorOutput() string { return p.errors.all() }

// CPU returns the CPU time of a process that has been stopped.
func (p *Process) CPU() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// Run runs a program to its end and returns its output.
func Run(ctx context.Context, program string, args []string, settings ...string) (string, *Process, error) {
	p, err := Start(ctx, program, args, settings...)
	if err != nil {
		return "", nil, err
	}
	var out bytes.Buffer
	_, err = io.Copy(&out, p.out)
	return out.String(), p, errors.Join(err, p.Stop())
}

// A tail keeps the last bytes that are written to it. It has a lock because a goroutine of package
// exec writes while other goroutines read.
type tail struct {
	mu   sync.Mutex
	last []byte
}

const tailSize = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if extra := len(t.last) - tailSize; extra > 0 {
		t.last = append(t.last[:0], t.last[extra:]...)
	}
	return len(p), nil
}

func (t *tail) all() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last)
}

// String returns the output for an error message.
func (t *tail) String() string {
	all := strings.TrimSpace(t.all())
	if all == "" {
		return ""
	}
	return ": " + all
}
