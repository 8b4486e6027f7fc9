//go:build !race

package async

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The system calls of an operation are counted by a tracer. It is a process that runs the
// operations in a child process. Only calls of the worker's thread count, without the end of a
// signal handler. So calls that the clock causes (by the Go runtime's monitor and its signals) are
// left out.

// traceMark is the first argument of a prctl that begins and ends the counting. The second argument
// is 0 at the beginning, and the number of operations at the end. There is no such prctl.
const traceMark = 0x61737963

func markTrace(n int) { unix.RawSyscall(unix.SYS_PRCTL, traceMark, uintptr(n), 0) }

// syscallCosts says how often the worker makes each system call for one operation.
type syscallCosts map[string]float64

// countedCalls are the names of the system calls that are distinguished by name.
var countedCalls = map[uint64]string{
	unix.SYS_READ: "read", unix.SYS_WRITE: "write", unix.SYS_RECVFROM: "recvfrom", unix.SYS_SENDTO: "sendto",
	unix.SYS_TIMERFD_SETTIME: "timerfd_settime",
	unix.SYS_RECVMSG:         "recvmsg", unix.SYS_SENDMSG: "sendmsg", unix.SYS_EPOLL_PWAIT: "epoll_wait", unix.SYS_EPOLL_PWAIT2: "epoll_wait",
	unix.SYS_EPOLL_CTL: "epoll_ctl", unix.SYS_FUTEX: "futex", unix.SYS_FCNTL: "fcntl", unix.SYS_PPOLL: "poll",
}

// traceInfo has the first fields of struct ptrace_syscall_info, and its fields for the entry of a
// call.
type traceInfo struct {
	op     uint8
	_      [3]uint8
	arch   uint32
	ip, sp uint64
	nr     uint64
	args   [6]uint64
}

const (
	ptraceGetSyscallInfo = 0x420e
	traceInfoEntry       = 1
)

// traceChild runs the calling test in a child process, which it traces. It returns the system calls
// between two marks, made by the thread that has made the marks.
func traceChild(env ...string) (all []syscallCosts, err error) {
	runtime.LockOSThread() // this thread is the tracer
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Ptrace: true, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("a process cannot be traced here: %w", err)
	}
	pid := cmd.Process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return nil, err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(pid, options); err != nil {
		return nil, err
	}
	if err := unix.PtraceSyscall(pid, 0); err != nil {
		return nil, err
	}
	var counts map[uint64]int // not nil between two marks
	marker := 0
	for {
		tid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		signal := 0
		switch {
		case status.Exited() || status.Signaled():
			if tid != pid {
				continue
			}
			if status.ExitStatus() != 0 {
				return nil, fmt.Errorf("the traced process has ended with %v", status)
			}
			return all, nil
		case !status.Stopped():
			continue
		case status.StopSignal() == unix.SIGTRAP|0x80:
			var info traceInfo
			unix.RawSyscall6(unix.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
			switch {
			case info.op != traceInfoEntry:
			case info.nr == unix.SYS_PRCTL && info.args[0] == traceMark:
				if n := info.args[1]; n == 0 {
					counts, marker = map[uint64]int{}, tid
				} else {
					all = append(all, perOperation(counts, int(n)))
					counts = nil
				}
			case counts != nil && tid == marker && info.nr != unix.SYS_RT_SIGRETURN:
				counts[info.nr]++
			}
		case status.StopSignal() == unix.SIGTRAP, status.StopSignal() == unix.SIGSTOP: // a new thread
		default:
			signal = int(status.StopSignal())
		}
		if err := unix.PtraceSyscall(tid, signal); err != nil && err != unix.ESRCH {
			return nil, err
		}
	}
}

func perOperation(counts map[uint64]int, n int) syscallCosts {
	costs := syscallCosts{}
	for nr, count := range counts {
		name := countedCalls[nr]
		if name == "" {
			name = fmt.Sprint("number ", nr)
		}
		costs[name] += float64(count) / float64(n)
	}
	return costs
}

const traceEnv = "ASYNC_TRACE"

// TestSystemCalls bounds how many system calls the worker makes for an operation. The number of
// waits (epoll_wait) also depends on the time, so its bound is loose.
func TestSystemCalls(t *testing.T) {
	ownProcsOnly(t)
	switch os.Getenv(traceEnv) {
	case "tracer":
		all, err := traceChild(traceEnv + "=traced")
		if err != nil {
			t.Fatal(err)
		}
		json.NewEncoder(os.Stdout).Encode(all)
		return
	case "traced":
		callCounted(t)
		return
	}
	cmd := child(t, traceEnv+"=tracer")
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	var all []syscallCosts
	_, line, found := bytes.Cut(out, []byte("["))
	require.True(t, found, "%s", out)
	require.NoError(t, json.NewDecoder(io.MultiReader(strings.NewReader("["), bytes.NewReader(line))).Decode(&all), "%s", out)
	require.Len(t, all, len(countedOps)+len(tracedForms))
	for i, op := range countedOps {
		all[i].require(t, op.name, syscallCosts{"epoll_wait": 0.5, "timerfd_settime": 0.5})
	}
	for i, form := range tracedForms {
		// A futex call wakes the thread of a goroutine, here of the client, now and then. The
		// watchdog's timer is set at most every 2.5 ms, however many operations there are. A worker
		// that has waited for 8 ms, since the tracer was slow, parks without a P: two calls of
		// epoll_ctl.
		all[len(countedOps)+i].require(t, echoForms[form].name, syscallCosts{"recvfrom": 1, "sendto": 1, "epoll_wait": 3, "epoll_ctl": 0.2, "futex": 0.2, "timerfd_settime": 1})
	}
}

// require compares costs with the allowed maximum.
func (c syscallCosts) require(t *testing.T, name string, most syscallCosts) {
	for call, n := range c {
		assert.LessOrEqual(t, n, most[call]+0.02, "%s of %s; all: %v", call, name, c)
	}
}

// tracedForms are the entries of echoForms that a worker serves.
var tracedForms = []int{0, 1, 2}

// callCounted runs the operations that are counted.
func callCounted(t *testing.T) {
	debug.SetGCPercent(-1)
	rt := newTestRuntime(t, Config{Workers: 1, Stall: -1, Grace: time.Millisecond})
	for _, op := range countedOps {
		_, err := join(t, Go(rt, func(cx *Context) error {
			const n = 5000
			op.run(cx, 200)
			markTrace(0)
			op.run(cx, n)
			markTrace(n)
			return nil
		}))
		require.NoError(t, err)
	}
	for _, form := range tracedForms {
		const before, n = 200, 1000
		requests, end := echoes(t, rt, form, func() func() {
			served := 0
			return func() {
				switch served++; served {
				case before:
					markTrace(0)
				case before + n:
					markTrace(n)
				}
			}
		}())
		requests(before + n)
		end()
	}
}
