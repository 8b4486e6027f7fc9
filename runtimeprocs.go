package async

import (
	"runtime"
	"sync/atomic"
)

// ownProcs says whether a runtime has raised GOMAXPROCS by the number of its workers,
// which keep a P each while they wait for a moment.
type ownProcs struct {
	raised atomic.Bool
	asked  atomic.Bool // a caller is raising or has raised it, or it must not be raised
	mu     lockOf[ownProcs]
	over   bool
}

// bringProcs raises GOMAXPROCS. It is called when the first task comes from outside, or
// many blocking calls come soon after each other. Before that the workers have nothing to
// do, and the program would have more threads than processors to no purpose. bringProcs
// may wait for a collection.
func (rt *Runtime) bringProcs() {
	o := &rt.ownProcs
	if o.asked.Load() || o.asked.Swap(true) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over {
		goProcs.add(len(rt.workers))
		o.raised.Store(true)
	}
}

// dropProcs lowers GOMAXPROCS again, for good.
func (rt *Runtime) dropProcs() {
	o := &rt.ownProcs
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over = true; o.raised.Swap(false) {
		goProcs.add(-len(rt.workers))
	}
}

// goProcs keeps GOMAXPROCS raised by the number of workers that run, unless the
// program sets it meanwhile: then that value holds, until the last worker has ended
// and beyond.
var goProcs procCount

type procCount struct {
	mu    lockOf[procCount]
	added int
	set   int // GOMAXPROCS as it was set here, while added is not 0
}

// own returns GOMAXPROCS without the number that runtimes have added.
func (p *procCount) own() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := runtime.GOMAXPROCS(0)
	if now != p.set {
		return now
	}
	return max(now-p.added, 1)
}

func (p *procCount) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := runtime.GOMAXPROCS(0)
	if p.added == 0 || now == p.set {
		p.set = max(now+n, 1)
		runtime.GOMAXPROCS(p.set)
	}
	p.added += n
}
