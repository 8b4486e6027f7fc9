package async

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// BenchmarkGroup compares a group of tasks that do nothing with goroutines and a sync.WaitGroup.
func BenchmarkGroup(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("tasks=%d/goroutines", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ctx, cancel := context.WithCancelCause(context.Background())
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() { _ = ctx.Err() })
				}
				wg.Wait()
				cancel(nil)
			}
		})
		for kind, spawn := range map[string]func(g *Group){
			"futures":  func(g *Group) { SpawnFuture(g, ReadyFuture(1)) },
			"straight": func(g *Group) { Go(g, func(cx *Context) error { return nil }) },
		} {
			b.Run(fmt.Sprintf("tasks=%d/%s", n, kind), func(b *testing.B) {
				b.ReportAllocs()
				rt := benchRuntime(b)
				_, err := Go(rt, func(cx *Context) error {
					for b.Loop() {
						if err := WithGroup(cx, func(_ *Context, g *Group) error {
							for range n {
								spawn(g)
							}
							return nil
						}); err != nil {
							return err
						}
					}
					return nil
				}).JoinBlocking(context.Background())
				if err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkCancelMany cancels a group whose tasks sleep: ns/task is the same for any number of
// tasks.
func BenchmarkCancelMany(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("tasks=%d", n), func(b *testing.B) {
			// A poll that spawns so many tasks would be reported as a stall.
			rt, err := New(Config{Workers: 2, Stall: -1})
			if err != nil {
				b.Fatal(err)
			}
			defer rt.Shutdown(context.Background())
			var took time.Duration
			for range b.N {
				_, err := Go(rt, func(cx *Context) error {
					var begun time.Time
					err := WithGroup(cx, func(cx *Context, g *Group) error {
						for range n {
							SpawnFuture(g, SleepFuture(time.Hour))
						}
						for range n/pollsPerRound + 2 {
							Yield(cx) // they begin to sleep
						}
						begun = time.Now()
						g.Cancel()
						return nil
					})
					took += time.Since(begun)
					return err
				}).JoinBlocking(context.Background())
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(took)/float64(b.N)/float64(n), "ns/task")
		})
	}
}
