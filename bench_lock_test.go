package async

import (
	"sync"
	"testing"
)

func BenchmarkX(b *testing.B) {
	b.Run("sync", func(b *testing.B) {
		var m sync.Mutex
		for b.Loop() {
			m.Lock()
			m.Unlock()
		}
	})
	b.Run("async", func(b *testing.B) {
		rt := benchRuntime(b)
		var m Mutex
		Go(rt, func(cx *Context) error {
			for b.Loop() {
				m.Lock(cx)
				m.Unlock()
			}
			return nil
		}).Wait(b.Context())
	})
	b.Run("try", func(b *testing.B) {
		var m Mutex
		for b.Loop() {
			m.TryLock()
			m.Unlock()
		}
	})
	b.Run("contention/sync", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var m sync.Mutex
			over := make(chan bool)
			done := countdown(10, func() { close(over) })
			for range 10 {
				go func() {
					for range 1000 {
						m.Lock()
						m.Unlock()
					}
					done()
				}()
			}
			<-over
		}
	})
	b.Run("contention/straight", func(b *testing.B) {
		benchOn(b, func(cx *Context, over func()) {
			var m Mutex
			done := countdown(10, over)
			for range 10 {
				Go(cx, func(cx *Context) error {
					for range 1000 {
						m.Lock(cx)
						m.Unlock()
					}
					done()
					return nil
				})
			}
		})
	})
	b.Run("contention/nolock", func(b *testing.B) {
		benchOn(b, func(cx *Context, over func()) {
			done := countdown(10, over)
			for range 10 {
				Go(cx, func(cx *Context) error {
					var m Mutex
					for range 1000 {
						m.Lock(cx)
						m.Unlock()
					}
					done()
					return nil
				})
			}
		})
	})
	b.Run("contention/empty", func(b *testing.B) {
		benchOn(b, func(cx *Context, over func()) {
			done := countdown(10, over)
			for range 10 {
				Go(cx, func(cx *Context) error {
					done()
					return nil
				})
			}
		})
	})
	b.Run("contention/outside", func(b *testing.B) {
		rt := benchRuntime(b)
		b.ReportAllocs()
		for b.Loop() {
			var m Mutex
			over := make(chan bool)
			done := countdown(10, func() { close(over) })
			for range 10 {
				Go(rt, func(cx *Context) error {
					for range 1000 {
						m.Lock(cx)
						m.Unlock()
					}
					done()
					return nil
				})
			}
			<-over
		}
	})
}
