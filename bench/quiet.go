package main

import (
	"os"
	"syscall"
	"time"
)

// A quiet keeps other work from running while a sample is taken, if the other work is started with
// flock(1) on the same file. Without a file it does nothing.
type quiet struct{ file *os.File }

func newQuiet(name string) (quiet, error) {
	if name == "" {
		return quiet{}, nil
	}
	file, err := os.OpenFile(name, os.O_RDONLY|os.O_CREATE, 0o666)
	return quiet{file}, err
}

// begin waits until the other work has ended.
func (q quiet) begin() error {
	if q.file == nil {
		return nil
	}
	for {
		if err := syscall.Flock(int(q.file.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			return os.NewSyscallError("flock", err)
		}
	}
}

// end lets the other work run. It waits until the other work can have taken the lock: otherwise
// begin would take the lock again at once.
func (q quiet) end() {
	if q.file == nil {
		return
	}
	syscall.Flock(int(q.file.Fd()), syscall.LOCK_UN)
	time.Sleep(20 * time.Millisecond)
}

func (q quiet) close() {
	if q.file != nil {
		q.file.Close()
	}
}
