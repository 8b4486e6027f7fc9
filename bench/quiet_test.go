package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestQuietKeepsOtherWorkFromTheMachine(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	q, err := newQuiet(name)
	if err != nil {
		t.Fatal(err)
	}
	defer q.close()
	other, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	try := func() error { return syscall.Flock(int(other.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
	if err := q.begin(); err != nil {
		t.Fatal(err)
	}
	if err := try(); err != syscall.EWOULDBLOCK {
		t.Errorf("during a sample: %v", err)
	}
	q.end()
	if err := try(); err != nil {
		t.Errorf("after it: %v", err)
	}
}
