package async

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkChan moves messages through a channel: from so many senders to so many
// receivers, with so much room, between tasks of one worker, of two, and between
// goroutines with a Go channel. One operation is one message.
func BenchmarkChan(b *testing.B) {
	for _, shape := range []struct{ senders, receivers int }{{1, 1}, {4, 1}, {1, 4}, {4, 4}} {
		for _, capacity := range []int{0, 1, 128} {
			name := fmt.Sprintf("%dx%d/cap=%d/", shape.senders, shape.receivers, capacity)
			b.Run(name+"goroutines", func(b *testing.B) {
				ch := make(chan int, capacity)
				var sends, recvs sync.WaitGroup
				b.ResetTimer()
				for i := range shape.senders {
					sends.Go(func() {
						for range share(b.N, i, shape.senders) {
							ch <- i
						}
					})
				}
				for range shape.receivers {
					recvs.Go(func() {
						for range ch {
						}
					})
				}
				sends.Wait()
				close(ch)
				recvs.Wait()
			})
			for _, workers := range []int{1, 2} {
				b.Run(fmt.Sprintf("%sstraight-%dw", name, workers), func(b *testing.B) {
					rt := benchRuntimeOf(b, workers)
					ch := NewChan[int](capacity)
					b.ResetTimer()
					moveStraight(b, rt, ch, shape.senders, shape.receivers)
				})
				b.Run(fmt.Sprintf("%sfutures-%dw", name, workers), func(b *testing.B) {
					rt := benchRuntimeOf(b, workers)
					ch := NewChan[int](capacity)
					b.ResetTimer()
					moveFutures(b, rt, ch, shape.senders, shape.receivers)
				})
			}
		}
	}
}

// share is how many of n operations the i-th of several does.
func share(n, i, of int) int { return (n + of - 1 - i) / of }

func moveStraight(b *testing.B, rt *Runtime, ch *Chan[int], senders, receivers int) {
	var sends, recvs []*JoinHandle[None]
	for range receivers {
		recvs = append(recvs, Go(rt, func(cx *Context) error {
			for range ch.All(cx) {
			}
			return nil
		}))
	}
	for i := range senders {
		sends = append(sends, Go(rt, func(cx *Context) error {
			for range share(b.N, i, senders) {
				if err := ch.Send(cx, i); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	benchJoin(b, sends)
	ch.Close()
	benchJoin(b, recvs)
}

func moveFutures(b *testing.B, rt *Runtime, ch *Chan[int], senders, receivers int) {
	var sends, recvs []*JoinHandle[None]
	for range receivers {
		recvs = append(recvs, SpawnFuture(rt, Future[None](&chanSink{ch: ch})))
	}
	for i := range senders {
		sends = append(sends, SpawnFuture(rt, Future[None](&chanPump{ch: ch, left: share(b.N, i, senders)})))
	}
	benchJoin(b, sends)
	ch.Close()
	benchJoin(b, recvs)
}

func benchJoin(b *testing.B, hs []*JoinHandle[None]) {
	for _, h := range hs {
		if _, err := h.Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func benchRuntimeOf(b *testing.B, workers int) *Runtime {
	rt, err := New(Config{Workers: workers, Stalled: func(Stall) {}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { rt.Shutdown(b.Context()) })
	return rt
}

// chanPump sends as a state machine does.
type chanPump struct {
	ch   *Chan[int]
	left int
}

func (p *chanPump) Poll(cx *Context) (None, error) {
	for ; p.left > 0; p.left-- {
		if err := p.ch.PollSend(cx, p.left); err != nil {
			return None{}, err
		}
	}
	return None{}, nil
}

// chanSink receives.
type chanSink struct{ ch *Chan[int] }

func (s *chanSink) Poll(cx *Context) (None, error) {
	for {
		if _, err := s.ch.PollNext(cx); err == io.EOF {
			return None{}, nil
		} else if err != nil {
			return None{}, err
		}
	}
}

// BenchmarkChanWaiters hands a message to one receiver while so many wait: it must
// not cost more the more there are. One operation is one message.
func BenchmarkChanWaiters(b *testing.B) {
	for _, waiters := range []int{1, 100, 10000} {
		b.Run(fmt.Sprint(waiters), func(b *testing.B) {
			rt := benchRuntimeOf(b, 1)
			ch := NewChan[int](0)
			var done atomic.Int64
			var hs []*JoinHandle[None]
			for range waiters {
				hs = append(hs, Go(rt, func(cx *Context) error {
					for range ch.All(cx) {
						done.Add(1)
					}
					return nil
				}))
			}
			b.ResetTimer()
			_, err := Go(rt, func(cx *Context) error {
				for range b.N {
					if err := ch.Send(cx, 1); err != nil {
						return err
					}
				}
				return nil
			}).Wait(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			ch.Close()
			benchJoin(b, hs)
		})
	}
}

// BenchmarkSelect waits for one of two channels on which a message comes by turns.
func BenchmarkSelect(b *testing.B) {
	b.Run("goroutines", func(b *testing.B) {
		x, y := make(chan int), make(chan int)
		go func() {
			for i := range b.N {
				if i%2 == 0 {
					x <- i
				} else {
					y <- i
				}
			}
		}()
		for range b.N {
			select {
			case <-x:
			case <-y:
			}
		}
	})
	b.Run("straight", func(b *testing.B) {
		rt := benchRuntimeOf(b, 1)
		x, y := NewChan[int](0), NewChan[int](0)
		b.ReportAllocs()
		sender := Go(rt, func(cx *Context) error {
			for i := range b.N {
				ch := x
				if i%2 == 1 {
					ch = y
				}
				if err := ch.Send(cx, i); err != nil {
					return err
				}
			}
			return nil
		})
		_, err := Go(rt, func(cx *Context) error {
			var v int
			cx1, cx2 := RecvCase(x, &v), RecvCase(y, &v)
			for range b.N {
				if _, err := Select(cx, cx1, cx2); err != nil {
					return err
				}
			}
			return nil
		}).Wait(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		benchJoin(b, []*JoinHandle[None]{sender})
	})
}
