package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"expvar"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"example.com/async"
)

//go:embed page.html
var page []byte

// watch keeps the past that the page shows: the metrics of the last minute and a half, and the last
// stalls.
type watch struct {
	rt     *async.Runtime
	begun  time.Time
	stalls *stallLog

	mu      sync.Mutex
	samples []sample // the oldest first
}

// sample is the metrics of one moment.
type sample struct {
	at time.Time
	m  async.Metrics
}

// How often samples are taken, and how many are kept.
const (
	sampleEvery = 500 * time.Millisecond
	samplesKept = 180
)

// published is the watch whose metrics expvar shows. An expvar can be published only once per
// process, and a test makes several watches.
var published atomic.Pointer[watch]

func init() {
	expvar.Publish("async", expvar.Func(func() any {
		if w := published.Load(); w != nil {
			return w.rt.Metrics()
		}
		return nil
	}))
}

func newWatch(rt *async.Runtime, stalls *stallLog) *watch {
	w := &watch{rt: rt, begun: time.Now(), stalls: stalls}
	w.take(w.begun)
	published.Store(w)
	return w
}

// sample takes samples until ctx ends.
func (w *watch) sample(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			w.take(now)
		}
	}
}

func (w *watch) take(now time.Time) {
	m := w.rt.Metrics()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.samples = append(w.samples, sample{now, m})
	if n := len(w.samples) - samplesKept; n > 0 {
		w.samples = append(w.samples[:0], w.samples[n:]...)
	}
}

// policy keeps the page from loading anything from another server.
const policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"

func (w *watch) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		rw.Header().Set("Content-Security-Policy", policy)
		rw.Write(page)
	})
	mux.HandleFunc("GET /state", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(rw).Encode(w.state())
	})
	mux.Handle("GET /debug/vars", expvar.Handler())
	return mux
}

// state is the JSON of /state. Durations are in nanoseconds, and points in time in milliseconds
// since 1970.
type state struct {
	Now, Begun int64
	Metrics    async.Metrics
	Before     async.Metrics // the metrics at the time BeforeAt; see recently
	BeforeAt   int64
	Workers    []worker
	Bounds     []time.Duration // the upper ends of the histogram buckets; the lower end of the last
	History    []point
	Tasks      []async.TaskInfo
	Stalls     []stall
}

// worker has the figures of one worker, without the histograms.
type worker struct {
	Polls, Stolen, Received, Waits                      uint64
	Queued, Timers, Sources, Coroutines, CoroutinesFree int
}

// point is the part of a sample that the curves need.
type point struct {
	At                                   int64
	Alive, Spawned, Polls, Waits, Stalls uint64
	Timers                               int
}

// recently is how far Before lies in the past. The histograms show the difference to the present.
const recently = 15 * time.Second

func (w *watch) state() state {
	tasks := w.rt.Tasks() // first: it takes long, and now must be the time of the metrics
	now := time.Now()
	s := state{
		Now:     now.UnixMilli(),
		Begun:   w.begun.UnixMilli(),
		Metrics: w.rt.Metrics(),
		Tasks:   tasks,
		Stalls:  w.stalls.all(),
	}
	for i := range s.Metrics.Workers {
		m := w.rt.WorkerMetrics(i)
		s.Workers = append(s.Workers, worker{
			m.Polls, m.Stolen, m.Received, m.Parks,
			m.Queued, m.Timers, m.Sources, m.Coroutines, m.CoroutinesFree,
		})
	}
	for i := range s.Metrics.PollTime.Counts {
		s.Bounds = append(s.Bounds, s.Metrics.PollTime.Bound(i))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, sm := range w.samples {
		at := sm.at.UnixMilli()
		if s.BeforeAt == 0 || now.Sub(sm.at) >= recently {
			s.Before, s.BeforeAt = sm.m, at
		}
		m := &sm.m
		s.History = append(s.History, point{at, m.Alive, m.Spawned, m.Polls, m.Parks, m.Stalls, m.Timers})
	}
	return s
}

// stall is a reported stall.
type stall struct {
	At     int64
	Task   async.Task
	Worker int
	For    time.Duration
	Stack  string
}

// stallLog keeps the last stalls, the latest first.
type stallLog struct {
	mu   sync.Mutex
	last []stall
}

const stallsKept = 8

func (l *stallLog) add(s async.Stall) {
	l.mu.Lock()
	defer l.mu.Unlock()
	latest := stall{time.Now().UnixMilli(), s.Task, s.Worker, s.For, s.Stack}
	l.last = append([]stall{latest}, l.last...)
	l.last = l.last[:min(len(l.last), stallsKept)]
}

func (l *stallLog) all() []stall {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]stall{}, l.last...)
}
