package async

import "context"

// Workers returns one [Spawner] for each worker, in the order of their numbers. A task that is
// spawned with one of them runs on its worker from the beginning to the end, like a task of
// [Local].
//
// Use it for work that must be done once on each worker, for example to accept from a listener of
// [ListenConfig.ListenEach]. In all other cases spawn with the [Runtime] or a [Context], and let
// the runtime choose the worker: it cannot move a task of these Spawners away from a worker that is
// busy or stuck.
func (rt *Runtime) Workers() []Spawner {
	all := make([]Spawner, len(rt.workers))
	for i, w := range rt.workers {
		all[i] = workerSpawner{w}
	}
	return all
}

// workerSpawner is the Spawner of one worker. Its method spawner returns no worker, since the
// caller may run anywhere; workerOf finds the worker on which the task must run.
type workerSpawner struct{ w *worker }

// localAttributes are the attributes of a task that is bound to its worker, and has no others.
var localAttributes = &taskAttributes{local: true}

func (p workerSpawner) Named(name string) Spawner         { return &spawnOptions{base: p, name: name} }
func (p workerSpawner) Under(ctx context.Context) Spawner { return withContext(p, ctx) }
func (p workerSpawner) spawner() (*Runtime, *worker)      { return p.w.rt, nil }
func (p workerSpawner) cancelGroup() *cancelGroup         { return nil }
func (p workerSpawner) attributes() *taskAttributes       { return localAttributes }

// workerOf returns the worker on which the tasks of s must run. It returns nil if they may run on
// any worker, and also for the Spawner of Local, which spawns on the worker of its caller.
func workerOf(s Spawner) *worker {
	switch s := s.(type) {
	case workerSpawner:
		return s.w
	case *spawnOptions:
		return workerOf(s.base)
	}
	return nil
}
