package async

import "context"

// Workers returns a Spawner for each worker. Their tasks run on that worker
// from the beginning to the end, like the tasks of Local, which they may
// spawn. It is for work that is done once on each worker: accepting from a
// listener of ListenConfig.ListenEach, for example. Otherwise leave it to the
// runtime where a task runs.
func (rt *Runtime) Workers() []Spawner {
	all := make([]Spawner, len(rt.workers))
	for i, w := range rt.workers {
		all[i] = workerSpawner{w}
	}
	return all
}

// workerSpawner is the Spawner of one worker.
type workerSpawner struct{ w *worker }

var localAttributes = &taskAttributes{local: true}

func (p workerSpawner) Named(name string) Spawner         { return &spawnOptions{base: p, name: name} }
func (p workerSpawner) Under(ctx context.Context) Spawner { return withContext(p, ctx) }
func (p workerSpawner) spawner() (*Runtime, *worker)      { return p.w.rt, nil }
func (p workerSpawner) cancelGroup() *cancelGroup         { return nil }
func (p workerSpawner) attributes() *taskAttributes       { return localAttributes }

// workerOf returns the worker on which the tasks of s must run; nil if they may
// run on any worker.
func workerOf(s Spawner) *worker {
	switch s := s.(type) {
	case workerSpawner:
		return s.w
	case *spawnOptions:
		return workerOf(s.base)
	}
	return nil
}
