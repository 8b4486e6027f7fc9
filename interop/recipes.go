package interop

import (
	"context"
	"fmt"
	"sync"
	"time"

	"example.com/async"
)

// Short programs that docs/libraries.md quotes; recipes_test.go runs them.

// periodically calls work once per period until cx ends or work fails. A call of work that takes
// longer than the period delays the next call; missed calls are not made up for.
func periodically(cx *async.Context, period time.Duration, work func(cx *async.Context) error) error {
	for {
		next := time.Now().Add(period)
		if err := work(cx); err != nil {
			return err
		}
		if err := async.Sleep(cx, time.Until(next)); err != nil {
			return err
		}
	}
}

type tenantKey struct{}

func withTenant(cx *async.Context, tenant string) *async.Context {
	return cx.WithValue(tenantKey{}, tenant)
}

func tenantOf(ctx context.Context) string {
	tenant, _ := ctx.Value(tenantKey{}).(string)
	return tenant
}

var requestID = async.TaskLocal[int]{Inherit: true}

// logLine returns a line for the log of the request that the task serves.
func logLine(cx *async.Context, message string) string {
	if id, ok := requestID.Get(cx); ok {
		return fmt.Sprintf("request %d: %s", id, message)
	}
	return message
}

// A dispatcher runs jobs in tasks of its own until it is closed.
type dispatcher struct {
	jobs  *async.Chan[func(cx *async.Context) error]
	ended *async.JoinHandle[async.None]
}

func newDispatcher(s async.Spawner) *dispatcher {
	d := &dispatcher{jobs: async.NewChan[func(cx *async.Context) error](0)}
	d.ended = async.Go(s, d.run)
	return d
}

// run owns the Group: no job outlives this call.
func (d *dispatcher) run(cx *async.Context) error {
	defer d.jobs.Close() // submit fails from now on, whatever the reason for the end
	return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
		g.KeepGoing()   // a job that fails leaves the other jobs alone
		g.SetLimit(100) // submit waits while 100 jobs run
		for job, err := range d.jobs.All(cx) {
			if err != nil {
				return err // cx has ended, and all jobs are cancelled
			}
			async.Go(g, job)
		}
		return nil // the channel is closed, and WithGroup waits for the jobs
	})
}

// submit hands a job to the dispatcher. It fails with ErrClosed after close.
func (d *dispatcher) submit(cx *async.Context, job func(cx *async.Context) error) error {
	return d.jobs.Send(cx, job)
}

// close refuses further jobs and waits until the submitted jobs have ended.
func (d *dispatcher) close(cx *async.Context) error {
	d.jobs.Close()
	_, err := d.ended.Join(cx)
	return err
}

// heartbeat sends the time once per period until ctx ends. It is for a goroutine, and never waits
// for a receiver: if the channel is full, the beat is dropped.
func heartbeat(ctx context.Context, beats *async.Chan[time.Time], period time.Duration) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			beats.TrySend(now)
		case <-ctx.Done():
			return
		}
	}
}

// counters are shared by tasks. No code awaits while it holds the mutex.
type counters struct {
	mu sync.Mutex
	of map[string]int
}

func (c *counters) add(name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]int{}
	}
	c.of[name] += n
}
