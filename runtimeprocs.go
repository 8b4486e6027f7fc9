package async

import (
	"runtime"
	"sync/atomic"
)

// ownProcs is a runtime's share of GOMAXPROCS. A worker that parks in the kernel by a raw system
// call keeps its P, so the goroutines of the program would have one P less. So each worker brings
// its own P: the runtime raises GOMAXPROCS by the number of its workers. With Config.SharedProcs it
// does not.
//
// The runtime raises GOMAXPROCS at its first task from outside, or when blocking calls follow each
// other quickly, and lowers it at the end of Shutdown. Refused: to raise it in New. A program that
// does not use its runtime then had more threads than processors to no purpose: net/http under a
// load paid 12 % for that.
type ownProcs struct {
	raised atomic.Bool // GOMAXPROCS is raised: workers may keep their P, and may spin
	asked  atomic.Bool // a caller raises it or has raised it, or it must not be raised
	mu     lockOf[ownProcs]
	over   bool // dropProcs has been called; guarded by mu
}

// bringProcs raises GOMAXPROCS, unless that has been done. The first caller may wait for a
// collection, since a change of GOMAXPROCS stops the world. Other callers do not wait for it. mu
// orders the first call before or after dropProcs: after dropProcs it does nothing.
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

// dropProcs lowers GOMAXPROCS again, if the runtime has raised it. The runtime does not raise it
// again.
func (rt *Runtime) dropProcs() {
	o := &rt.ownProcs
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over = true; o.raised.Swap(false) {
		goProcs.add(-len(rt.workers))
	}
}

// goProcs keeps GOMAXPROCS raised by the sum over all runtimes of the process. If the program sets
// GOMAXPROCS meanwhile, the value of the program holds until the last runtime has lowered its
// share, and beyond. That is how add recognizes it: the value differs from the value that it set
// last.
var goProcs procCount

// procCount is the type of goProcs.
type procCount struct {
	mu    lockOf[procCount]
	added int // the sum of the shares
	set   int // the value of GOMAXPROCS that add has set last; not used while added is 0
}

// own returns GOMAXPROCS without the shares of the runtimes. If the program has set GOMAXPROCS
// itself, that is its present value.
func (p *procCount) own() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := runtime.GOMAXPROCS(0)
	if now != p.set {
		return now
	}
	return max(now-p.added, 1)
}

// add adds n, which may be negative, to the shares and to GOMAXPROCS.
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
