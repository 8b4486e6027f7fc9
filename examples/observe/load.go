package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"example.com/async"
)

// How many tasks of each kind the load has.
const (
	clients  = 48
	sleepers = 200
	makers   = 3
	takers   = 6
)

// startLoad starts tasks of all kinds, and waits until it is cancelled.
func startLoad(cx *async.Context) error {
	ln, err := async.Listen(cx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	start := func(name string, fn func(cx *async.Context) error) { async.Go(cx.Named(name), fn) }

	start("accept", func(cx *async.Context) error { return echo(cx, ln) })
	for range clients {
		start("client", func(cx *async.Context) error { return ask(cx, ln.Addr().String()) })
	}
	for range sleepers {
		async.SpawnFuture(cx.Named("sleeper"), new(sleeper))
	}
	jobs := async.NewChan[int](4)
	for range makers {
		start("producer", func(cx *async.Context) error { return produce(cx, jobs) })
	}
	for range takers {
		start("consumer", func(cx *async.Context) error { return consume(cx, jobs) })
	}
	start("backup", backUp)
	start("hog", hog)
	start("parent", nest(3))
	_, err = async.Await(cx, async.NeverFuture[async.None]())
	return err
}

// about returns a random time between d/2 and 3d/2, so that the tasks do not wake at the same time.
func about(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// echo serves connections, each in a task with a name.
func echo(cx *async.Context, ln async.Listener) error {
	for {
		c, err := ln.Accept(cx)
		if err != nil {
			return nil // the runtime shuts down
		}
		async.Go(cx.Named("echo"), func(cx *async.Context) error {
			defer c.Close()
			for p := make([]byte, 512); ; {
				n, err := c.Read(cx, p)
				if err != nil {
					return nil
				}
				if _, err := c.Write(cx, p[:n]); err != nil {
					return nil
				}
			}
		})
	}
}

// ask is a client of the echo server. Each client has a random pause between its requests, from 20
// to 800 ms.
func ask(cx *async.Context, addr string) error {
	c, err := async.Dial(cx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	pause := time.Duration(20*(1+rand.IntN(40))) * time.Millisecond
	for p := []byte("how are you?"); ; {
		if _, err := c.Write(cx, p); err != nil {
			return nil
		}
		if _, err := c.Read(cx, p); err != nil {
			return nil
		}
		if err := async.Sleep(cx, about(pause)); err != nil {
			return err
		}
	}
}

// sleeper is a future that sleeps again and again: a task without a stack.
type sleeper struct{ now async.Future[async.None] }

func (s *sleeper) Poll(cx *async.Context) (async.None, error) {
	for {
		if s.now == nil {
			s.now = async.SleepFuture(about(time.Second))
		}
		if _, err := s.now.Poll(cx); err != nil {
			return async.None{}, err
		}
		s.now = nil
	}
}

func produce(cx *async.Context, jobs *async.Chan[int]) error {
	for n := 0; ; n++ {
		if err := jobs.Send(cx, n); err != nil {
			return err
		}
		if err := async.Sleep(cx, about(30*time.Millisecond)); err != nil {
			return err
		}
	}
}

// consume receives jobs. It runs each job in a task, which computes a little and sleeps a little.
func consume(cx *async.Context, jobs *async.Chan[int]) error {
	for {
		if _, err := jobs.Recv(cx); err != nil {
			return err
		}
		job := async.Go(cx.Named("job"), func(cx *async.Context) error {
			compute(200 * time.Microsecond)
			return async.Sleep(cx, about(40*time.Millisecond))
		})
		if _, err := job.Join(cx); err != nil {
			return err
		}
	}
}

// backUp makes more blocking calls at once than the pool may run at once, every few seconds: the
// page shows a queue.
func backUp(cx *async.Context) error {
	for {
		var calls []*async.JoinHandle[async.None]
		for i := range 7 {
			calls = append(calls, async.SpawnBlocking(cx.Named(fmt.Sprint("write volume ", i+1)), func() (async.None, error) {
				time.Sleep(about(1200 * time.Millisecond)) // stands for a slow disk
				return async.None{}, nil
			}))
		}
		for _, c := range calls {
			if _, err := c.Join(cx); err != nil {
				return err
			}
		}
		if err := async.Sleep(cx, about(500*time.Millisecond)); err != nil {
			return err
		}
	}
}

// hog computes for 60 ms every eight seconds or so: the page shows a stall.
func hog(cx *async.Context) error {
	for {
		if err := async.Sleep(cx, about(8*time.Second)); err != nil {
			return err
		}
		compute(60 * time.Millisecond)
	}
}

func compute(d time.Duration) {
	for begun := time.Now(); time.Since(begun) < d; {
	}
}

// nest returns the code of a task that spawns a child and waits for it. The child does the same,
// down to depth 0.
func nest(depth int) func(cx *async.Context) error {
	return func(cx *async.Context) error {
		for {
			if depth == 0 {
				return async.Sleep(cx, about(4*time.Second))
			}
			child := async.Go(cx.Named(fmt.Sprint("child ", depth)), nest(depth-1))
			if _, err := child.Join(cx); err != nil {
				return err
			}
		}
	}
}

// bridge awaits on a goroutine, as existing code does: with BlockOn.
func bridge(ctx context.Context, rt *async.Runtime) {
	async.BlockOn(rt.Named("bridge"), func(cx *async.Context) (async.None, error) {
		for ctx.Err() == nil {
			if err := async.Sleep(cx, 500*time.Millisecond); err != nil {
				break
			}
		}
		return async.None{}, nil
	})
}
