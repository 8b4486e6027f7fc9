// Command goroutines is the baseline: package net, and goroutines with the channels and locks of
// Go.
package main

import (
	"net"
	"runtime"

	"example.com/async/bench/internal/program"
	"example.com/async/bench/internal/work"
)

func main() {
	program.Program{
		Echo: map[string]program.EchoServer{
			"net": serve(func() {
				for {
					work.Burn()
				}
			}),
			"net-gosched": serve(func() {
				for {
					work.Burn()
					runtime.Gosched()
				}
			}),
		},
		Work: map[string]func(program.Options) (work.Workloads, error){
			"goroutines": func(program.Options) (work.Workloads, error) { return workloads(), nil },
		},
	}.Main()
}

func serve(burn func()) program.EchoServer {
	return func(o program.Options, ready func(net.Addr)) error {
		ln, err := net.Listen("tcp", program.Address)
		if err != nil {
			return err
		}
		defer ln.Close()
		ready(ln.Addr())
		for range o.Busy {
			go burn()
		}
		return program.EchoConns(ln)
	}
}
