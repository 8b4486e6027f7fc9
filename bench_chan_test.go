package async

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// chanShape is the number of senders and of receivers, and the capacity.
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

// BenchmarkChan measures messages through a channel, ns each: Go's channel with goroutines, and
// Chan with plain futures and straight-line tasks, within one worker and across two.
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

// benchChan makes its tasks send b.N messages. The tasks are spawned outside of the workers, which
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

// BenchmarkChanWaiters measures a message that wakes one of n receivers, and the next wait of this
// receiver.
func BenchmarkChanWaiters(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("waiters=%d/goroutines", n), func(b *testing.B) {
			c, over := make(chan int), make(chan struct{})
			for range n {
				go func() {
					for range c {
						over <- struct{}{}
					}
				}()
			}
			b.ReportAllocs()
			for b.Loop() {
				c <- 1
				<-over
			}
			close(c)
		})
		b.Run(fmt.Sprintf("waiters=%d/futures", n), func(b *testing.B) {
			benchWaiters(b, n, func(cx *Context, c *Chan[int], over *Chan[None]) {
				SpawnFuture(cx, &benchEcho{f: c.RecvFuture(), over: over})
			})
		})
		b.Run(fmt.Sprintf("waiters=%d/straight", n), func(b *testing.B) {
			benchWaiters(b, n, func(cx *Context, c *Chan[int], over *Chan[None]) {
				Go(cx, func(cx *Context) error {
					for range c.All(cx) {
						over.Send(cx, None{})
					}
					return nil
				})
			})
		})
		// The channel alone, without tasks: the benchmark polls the futures itself.
		b.Run(fmt.Sprintf("waiters=%d/hand", n), func(b *testing.B) {
			c := NewChan[int](1)
			h := newMockTask()
			fs := make([]*RecvFuture[int], n)
			for i := range fs {
				fs[i] = c.RecvFuture()
				fs[i].Poll(h.cx)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.TrySend(1)
				fs[i%n].Poll(h.cx)
				fs[i%n].Poll(h.cx)
			}
		})
	}
}

func benchWaiters(b *testing.B, n int, spawn func(*Context, *Chan[int], *Chan[None])) {
	rt := benchRuntimeOf(b, 1)
	b.ReportAllocs()
	h := Go(rt, func(cx *Context) error {
		c, over := NewChan[int](0), NewChan[None](1)
		for range n {
			spawn(cx, c, over)
		}
		for _, receivers := c.waitingCounts(); receivers < n; _, receivers = c.waitingCounts() {
			Yield(cx)
		}
		for b.Loop() {
			c.Send(cx, 1)
			over.Recv(cx)
		}
		c.Close()
		return nil
	})
	h.JoinBlocking(b.Context())
}

type benchEcho struct {
	f    *RecvFuture[int]
	over *Chan[None]
}

func (e *benchEcho) Poll(cx *Context) (None, error) {
	for {
		if _, err := e.f.Poll(cx); err != nil {
			return None{}, nilIfClosed(err)
		}
		e.over.TrySend(None{})
	}
}

// nilIfClosed returns nil for ErrClosed, and every other error as it is.
func nilIfClosed(err error) error {
	if err == ErrClosed {
		return nil
	}
	return err
}

// BenchmarkPingPongOneshot is the ping_pong of the announcement, with Oneshots: 1,000 pairs of
// tasks, each with a value there and a value back.
func BenchmarkPingPongOneshot(b *testing.B) {
	b.Run("goroutines", func(b *testing.B) {
		over := make(chan struct{})
		b.ReportAllocs()
		for b.Loop() {
			count := countdown(pingPairs, func() { over <- struct{}{} })
			go func() {
				for range pingPairs {
					go func() {
						ping, pong := make(chan struct{}, 1), make(chan struct{}, 1)
						go func() { <-ping; pong <- struct{}{} }()
						ping <- struct{}{}
						<-pong
						count()
					}()
				}
			}()
			<-over
		}
	})
	b.Run("futures", func(b *testing.B) {
		benchOn(b, func(cx *Context, done func()) {
			count := countdown(pingPairs, done)
			for range pingPairs {
				SpawnFuture(cx, &oneshotPinger{done: count})
			}
		})
	})
	b.Run("straight", func(b *testing.B) {
		benchOn(b, func(cx *Context, done func()) {
			count := countdown(pingPairs, done)
			for range pingPairs {
				Go(cx, func(cx *Context) error {
					var ping, pong Oneshot[None]
					Go(cx, func(cx *Context) error {
						if _, err := ping.Recv(cx); err != nil {
							return err
						}
						return pong.Send(None{})
					})
					ping.Send(None{})
					_, err := pong.Recv(cx)
					count()
					return err
				})
			}
		})
	})
}

type oneshotPinger struct {
	done       func()
	sent       bool
	ping, pong Oneshot[None]
}

func (p *oneshotPinger) Poll(cx *Context) (None, error) {
	if !p.sent {
		p.sent = true
		SpawnFuture(cx, (*oneshotPonger)(p))
		p.ping.Send(None{})
	}
	if _, err := p.pong.Poll(cx); err != nil {
		return None{}, err
	}
	p.done()
	return None{}, nil
}

type oneshotPonger oneshotPinger

func (p *oneshotPonger) Poll(cx *Context) (None, error) {
	if _, err := p.ping.Poll(cx); err != nil {
		return None{}, err
	}
	return None{}, p.pong.Send(None{})
}

// BenchmarkSelect measures a Select that finds a message at once, and a Select that waits for the
// message of another task. Each Select has a second channel on which no message arrives.
func BenchmarkSelect(b *testing.B) {
	b.Run("ready/goroutine", func(b *testing.B) {
		c, never := make(chan int, 1), make(chan int)
		for b.Loop() {
			c <- 1
			select {
			case <-c:
			case <-never:
			}
		}
	})
	b.Run("ready/straight", func(b *testing.B) {
		benchStraight(b, func(cx *Context) {
			c, never := NewChan[int](1), NewChan[int](0)
			r, n := OnRecv(c), OnRecv(never)
			for b.Loop() {
				c.Send(cx, 1)
				Select(cx, r, n)
			}
		})
	})
	b.Run("waiting/goroutines", func(b *testing.B) {
		c, back, never := make(chan int), make(chan int), make(chan int)
		go func() {
			for v := range c {
				back <- v
			}
		}()
		for b.Loop() {
			c <- 1
			select {
			case <-back:
			case <-never:
			}
		}
		close(c)
	})
	b.Run("waiting/straight", func(b *testing.B) {
		benchStraight(b, func(cx *Context) {
			c, back, never := NewChan[int](0), NewChan[int](0), NewChan[int](0)
			Go(cx, func(cx *Context) error {
				for v := range c.All(cx) {
					back.Send(cx, v)
				}
				return nil
			})
			r, n := OnRecv(back), OnRecv(never)
			for b.Loop() {
				c.Send(cx, 1)
				Select(cx, r, n)
			}
			c.Close()
		})
	})
}

// benchStraight runs f in a task of a runtime with one worker.
func benchStraight(b *testing.B, f func(cx *Context)) {
	rt := benchRuntimeOf(b, 1)
	b.ReportAllocs()
	Go(rt, func(cx *Context) error { f(cx); return nil }).JoinBlocking(b.Context())
}

// BenchmarkRecvFrom measures one value out of a Go channel that a goroutine fills: at once, with a
// goroutine for each wait, and through FromGoChan.
func BenchmarkRecvFrom(b *testing.B) {
	feed := func(capacity int) (<-chan int, context.CancelFunc) {
		ch := make(chan int, capacity)
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			for {
				select {
				case ch <- 1:
				case <-ctx.Done():
					return
				}
			}
		}()
		return ch, cancel
	}
	b.Run("goroutine", func(b *testing.B) {
		ch, stop := feed(0)
		defer stop()
		for b.Loop() {
			<-ch
		}
	})
	for _, capacity := range []int{0, 128} {
		b.Run(fmt.Sprintf("straight/capacity=%d", capacity), func(b *testing.B) {
			ch, stop := feed(capacity)
			defer stop()
			benchStraight(b, func(cx *Context) {
				for b.Loop() {
					RecvFrom(cx, ch)
				}
			})
		})
	}
	for _, n := range []int{1, 128} {
		b.Run(fmt.Sprintf("FromGoChan/n=%d", n), func(b *testing.B) {
			ch, stop := feed(128)
			defer stop()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			c := FromGoChan(ctx, ch, n)
			benchStraight(b, func(cx *Context) {
				for b.Loop() {
					c.Recv(cx)
				}
			})
		})
	}
}

// BenchmarkBroadcast measures one message to n subscribers that wait for it.
func BenchmarkBroadcast(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("straight/subscribers=%d", n), func(b *testing.B) {
			benchStraight(b, func(cx *Context) {
				bc := NewBroadcast[int](16)
				for range n {
					s := bc.Subscribe()
					Go(cx, func(cx *Context) error {
						for range s.All(cx) {
						}
						return nil
					})
				}
				for b.Loop() {
					bc.Send(1)
					Yield(cx)
				}
				bc.Close()
			})
		})
	}
}
