// Command async is the library, in its four forms for connections and its two forms
// for tasks.
package main

import (
	"example.com/async"
	"example.com/async/bench/internal/program"
	"example.com/async/bench/internal/work"
)

func main() {
	program.Program{
		Echo: map[string]program.EchoServer{
			"straight": serve(accepting(straightEcho)),
			"future":   serve(accepting(futureEcho)),
			"serve":    serve(serveEcho),
			"netconn":  serveNetConn,
		},
		Work: map[string]func(program.Options) (work.Workloads, error){
			"straight": withRuntime(straightWorkloads),
			"future":   withRuntime(futureWorkloads),
			"inside":   withRuntime(insideWorkloads),
		},
	}.Main()
}

// newRuntime returns a runtime as it is by default, with that many workers. It is
// silent about polls that take long, which a loaded machine causes.
func newRuntime(o program.Options, unhandled func(async.Task, error)) (*async.Runtime, error) {
	return async.New(async.Config{
		Workers:   o.Workers,
		Stalled:   func(async.Stall) {},
		Unhandled: unhandled,
	})
}

// hungUp ignores the failure of an echo task: its peer has hung up.
func hungUp(async.Task, error) {}

func withRuntime(workloads func(rt *async.Runtime) work.Workloads) func(program.Options) (work.Workloads, error) {
	return func(o program.Options) (work.Workloads, error) {
		rt, err := newRuntime(o, async.Crash)
		if err != nil {
			return nil, err
		}
		return workloads(rt), nil
	}
}

// burnStraight starts one CPU-bound task, which yields after each slice.
func burnStraight(rt *async.Runtime) {
	async.Go(rt, func(cx *async.Context) error {
		for {
			work.Burn()
			if err := async.Yield(cx); err != nil {
				return err
			}
		}
	})
}
