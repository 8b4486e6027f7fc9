package usage

import (
	"os"
	"testing"
	"time"
)

func TestWhatThisProcessComputesIsCounted(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 100*time.Millisecond; {
	}
	after, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if used := after - before; used < 10*time.Millisecond || used > 10*time.Second {
		t.Errorf("computing for 100 ms has used %v", used)
	}
	if resident, err := Resident(os.Getpid()); err != nil || resident < 1<<20 {
		t.Errorf("resident memory: %d, %v", resident, err)
	}
	if busy, stolen, err := MachineBusy(); err != nil || busy <= 0 || stolen < 0 {
		t.Errorf("the machine: %v busy, %v stolen, %v", busy, stolen, err)
	}
}
