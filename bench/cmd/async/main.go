// Command async runs the library: its four forms for connections, and its two forms for tasks.
package main

import (
	"example.com/async"
	"example.com/async/bench/internal/program"
	"example.com/async/bench/internal/work"
)

func main() {
	p := program.Program{
		Echo: map[string]program.EchoServer{},
		Work: map[string]func(program.Options) (work.Workloads, error){},
	}
	for suffix, m := range map[string]mode{"": {}, "-shared": {sharedProcs: true}} {
		p.Echo["straight"+suffix] = m.serve(accepting(straightEcho))
		p.Echo["future"+suffix] = m.serve(accepting(futureEcho))
		p.Echo["serve"+suffix] = m.serve(serveEcho)
		p.Echo["netconn"+suffix] = m.serveNetConn
		p.Work["straight"+suffix] = m.withRuntime(straightWorkloads)
		p.Work["future"+suffix] = m.withRuntime(futureWorkloads)
		p.Work["inside"+suffix] = m.withRuntime(insideWorkloads)
	}
	p.Main()
}

// A mode has the options in which the measured runtimes differ.
type mode struct{ sharedProcs bool }

// newRuntime returns a runtime with the default Config, except for the mode and the number of
// workers. It does not report stalls, which a loaded machine causes.
func (m mode) newRuntime(o program.Options, unhandled func(async.Task, error)) (*async.Runtime, error) {
	return async.New(async.Config{
		Workers:     o.Workers,
		SharedProcs: m.sharedProcs,
		Stalled:     func(async.Stall) {},
		Unhandled:   unhandled,
	})
}

// hungUp ignores the failure of an echo task: the peer has closed the connection.
func hungUp(async.Task, error) {}

func (m mode) withRuntime(workloads func(rt *async.Runtime) work.Workloads) func(program.Options) (work.Workloads, error) {
	return func(o program.Options) (work.Workloads, error) {
		rt, err := m.newRuntime(o, async.Crash)
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
