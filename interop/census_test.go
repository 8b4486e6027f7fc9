package interop

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// census has the goroutines and the descriptors of the process, which a test must not leave behind.
type census struct {
	stacks [][]byte
	fds    []string
}

// lasting has functions of goroutines that libraries start once and never end.
var lasting = [][]byte{
	[]byte("fasthttp.updateServerDate"),
}

// settled opens, once, the descriptors that the Go runtime keeps open from their first use on.
var settled = sync.OnceFunc(func() {
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close()
	}
})

func takeCensus() (c census, err error) {
	settled()
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for _, stack := range bytes.Split(buf, []byte("\n\n")) {
		if !lasts(stack) {
			c.stacks = append(c.stacks, stack)
		}
	}
	entries, err := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		// The descriptor of the directory itself is closed by now, and has no link.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			c.fds = append(c.fds, e.Name()+" is "+to)
		}
	}
	return c, err
}

func lasts(stack []byte) bool {
	for _, l := range lasting {
		if bytes.Contains(stack, l) {
			return true
		}
	}
	return false
}

// leavesNothing fails the test if the test leaves goroutines or descriptors behind. The check runs
// after the Cleanup functions that are registered after this call, and waits some time for the
// goroutines to end.
func leavesNothing(t testing.TB) {
	t.Helper()
	before, err := takeCensus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			after, err := takeCensus()
			if err == nil && len(after.stacks) <= len(before.stacks) && len(after.fds) <= len(before.fds) {
				return
			}
			if time.Since(began) > 20*time.Second {
				t.Errorf("left behind: %d goroutines, were %d; %d descriptors, were %d; %v\n%s\n%s",
					len(after.stacks), len(before.stacks), len(after.fds), len(before.fds), err,
					bytes.Join(after.stacks, []byte("\n\n")), fmt.Sprint(after.fds))
				return
			}
		}
	})
}

// The census finds a goroutine and a descriptor that are left behind.
func TestCensus(t *testing.T) {
	before, err := takeCensus()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{})
	go func() {
		ln.Accept()
		close(accepted)
	}()
	after, err := takeCensus()
	// Goroutines and descriptors of before may have ended in the meantime, so the test does not
	// compare numbers but looks for these two.
	isNew := func(fd string) bool { return !slices.Contains(before.fds, fd) }
	isOurs := func(stack []byte) bool { return bytes.Contains(stack, []byte(".TestCensus in goroutine")) }
	if err != nil || slices.ContainsFunc(before.stacks, isOurs) ||
		!slices.ContainsFunc(after.stacks, isOurs) || !slices.ContainsFunc(after.fds, isNew) {
		t.Errorf("a goroutine and a descriptor are not seen: %v\n%s\n%s", err, bytes.Join(after.stacks, []byte("\n\n")), after.fds)
	}
	ln.Close()
	<-accepted
}
