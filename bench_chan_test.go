package async

import (
	"fmt"
	"sync"
	"testing"
)

// chanShape is how many send, how many receive, and the capacity.
type chanShape struct{ senders, receivers, capacity int }

func (s chanShape) String() string {
	return fmt.Sprintf("%dx%d/capacity=%d", s.senders, s.receivers, s.capacity)
}

func chanShapes() (all []chanShape) {
	for _, capacity := range []int{0, 1, 128} {
		for _, n := range [][2]int{{1, 1}, {4, 1}, {1, 4}, {4, 4}} {
			all = append(all, chanShape{n[0], n[1], capacity})
		}
	}
	return all
}

// share is how many of n messages party i of k sends or receives.
func share(n, i, k int) int { return (n + i) / k }

// BenchmarkChan is messages through a channel, ns each: Go's under goroutines,
// ours under plain futures and straight-line tasks, within one worker and across
// two.
func BenchmarkChan(b *testing.B) {
	for _, s := range chanShapes() {
		b.Run(s.String(), func(b *testing.B) {
			b.Run("goroutines", func(b *testing.B) { benchGoChan(b, s) })
			for workers := 1; workers <= 2; workers++ {
				b.Run(fmt.Sprintf("futures/workers=%d", workers), func(b *testing.B) {
					benchChan(b, s, workers, func(sp Spawner, c *Chan[int], n int) {
						SpawnFuture(sp, &benchSender{f: c.SendFuture(0), left: n})
					}, func(sp Spawner, c *Chan[int], n int, done func()) {
						SpawnFuture(sp, &benchReceiver{f: c.RecvFuture(), left: n, done: done})
					})
				})
				b.Run(fmt.Sprintf("straight/workers=%d", workers), func(b *testing.B) {
					benchChan(b, s, workers, func(sp Spawner, c *Chan[int], n int) {
						Go(sp, func(cx *Context) error {
							for i := range n {
								c.Send(cx, i)
							}
							return nil
						})
					}, func(sp Spawner, c *Chan[int], n int, done func()) {
						Go(sp, func(cx *Context) error {
							for range n {
								c.Recv(cx)
							}
							done()
							return nil
						})
					})
				})
			}
		})
	}
}

func benchGoChan(b *testing.B, s chanShape) {
	c := make(chan int, s.capacity)
	var wg sync.WaitGroup
	b.ReportAllocs()
	for i := range s.senders {
		n := share(b.N, i, s.senders)
		wg.Go(func() {
			for i := range n {
				c <- i
			}
		})
	}
	for i := range s.receivers {
		n := share(b.N, i, s.receivers)
		wg.Go(func() {
			for range n {
				<-c
			}
		})
	}
	wg.Wait()
}

// benchChan has b.N messages sent. The tasks are spawned from outside, which
// spreads them over the workers.
func benchChan(b *testing.B, s chanShape, workers int,
	send func(Spawner, *Chan[int], int), recv func(Spawner, *Chan[int], int, func())) {
	rt := benchRuntimeOf(b, workers)
	c := NewChan[int](s.capacity)
	over := make(chan struct{})
	done := countdown(s.receivers, func() { close(over) })
	b.ReportAllocs()
	b.ResetTimer()
	for i := range s.senders {
		send(rt, c, share(b.N, i, s.senders))
	}
	for i := range s.receivers {
		recv(rt, c, share(b.N, i, s.receivers), done)
	}
	<-over
}

type benchSender struct {
	f    *SendFuture[int]
	left int
}

func (s *benchSender) Poll(cx *Context) (None, error) {
	for ; s.left > 0; s.left-- {
		if _, err := s.f.Poll(cx); err != nil {
			return None{}, err
		}
		s.f.Reset(s.left)
	}
	return None{}, nil
}

type benchReceiver struct {
	f    *RecvFuture[int]
	left int
	done func()
}

func (r *benchReceiver) Poll(cx *Context) (None, error) {
	for ; r.left > 0; r.left-- {
		if _, err := r.f.Poll(cx); err != nil {
			return None{}, err
		}
	}
	r.done()
	return None{}, nil
}
