package async

import "context"

// A Spawner is where tasks are started: a *Runtime, from anywhere, or the
// *Context of a task, which starts them on its own worker, from which another worker may take
// them before they begin; or a *Group; or one of these with properties that its tasks get, see
// Named, Under and Local.
//
// A *Context passes on what a context.Context would pass on. A task that is spawned with a
// derived Context (WithTimeout, WithCancel and the like) has its deadline and its values. It is
// cancelled when the derived Context ends: by its function, at its deadline, or because the task
// that made it has ended or was cancelled. WithValue adds a value, and no deadline or
// cancellation.
//
// A task's own Context passes on the contexts that the task is under. It does not pass on that
// the task was cancelled by its handle, or has ended: a task that must not outlive another
// belongs in a Group. Tasks that a Group's tasks spawn with their own cx are not tasks of the
// Group, but are cancelled when WithGroup returns.
//
// To pass on the values alone, spawn with cx.WithoutCancel(); to pass on nothing, with
// cx.Runtime().
type Spawner interface {
	// Named returns a Spawner of the same place whose tasks have a name.
	Named(name string) Spawner

	// Under returns a Spawner of the same place whose tasks are cancelled when
	// ctx ends. A task that is spawned after that, or waits for room then, does not
	// begin: it has ctx's error.
	// The Contexts of the tasks have ctx's deadline and values, and its error and
	// cause once it has ended. So a goroutine that serves an HTTP request spawns its
	// tasks, or calls BlockOn, with rt.Under(r.Context()). Tasks that these tasks spawn
	// with their own cx are under ctx, too.
	Under(ctx context.Context) Spawner

	// spawner returns the runtime, and the worker on whose thread the caller
	// runs, if it runs on one.
	spawner() (*Runtime, *worker)

	// attributes returns the attributes of its tasks; nil if they have none.
	attributes() *taskAttributes

	// cancelGroup returns the group with which its tasks are cancelled; nil if there is none.
	cancelGroup() *cancelGroup
}

// spawnOptions is a Spawner whose tasks get attributes that the tasks of base do not have.
type spawnOptions struct {
	base       Spawner
	name       string
	local      bool
	group      *cancelGroup
	neverWaits bool // a caller that spawns with it never waits; see Group.Try

	cached attributesCache
}

// Named implements Spawner. The latest name counts.
func (a *spawnOptions) Named(name string) Spawner { return &spawnOptions{base: a, name: name} }

// Under implements Spawner.
func (a *spawnOptions) Under(ctx context.Context) Spawner { return withContext(a, ctx) }

func (a *spawnOptions) spawner() (*Runtime, *worker) { return a.base.spawner() }

// cancelGroup implements Spawner.
func (a *spawnOptions) cancelGroup() *cancelGroup {
	if a.group != nil {
		return a.group
	}
	return a.base.cancelGroup()
}

func (a *spawnOptions) attributes() *taskAttributes {
	return a.cached.of(a.base.attributes(), func(d *taskAttributes) {
		if a.name != "" {
			d.name = a.name
		}
		d.local = d.local || a.local
		d.group = a.cancelGroup()
	})
}

// Local returns a Spawner whose tasks stay on the worker of cx from the
// beginning: no other worker takes them over, also if they are plain futures or
// have not begun. It is for tasks that share data without locks.
//
// Tasks of one worker never run at the same time, and code between two awaits
// is not interrupted by other tasks.
func Local(cx *Context) Spawner { return &spawnOptions{base: cx, local: true} }

// partOf is the Spawner of a task that is part of an operation with the Context. The task
// inherits nothing, and ends with the operation.
type partOf struct{ *Context }

func (partOf) attributes() *taskAttributes { return nil }
func (partOf) cancelGroup() *cancelGroup   { return nil }

// valuesOf returns a Spawner like cx whose tasks inherit the values of the contexts that cx
// is under, and not their ends.
func valuesOf(cx *Context) Spawner {
	own, values := &cx.t.cx, cx.values()
	if values == context.Background() {
		return own
	}
	return &spawnOptions{base: own, group: &cancelGroup{ctx: values, endless: true}}
}

// callerSpawner is implemented by a Spawner that is used by code with different Contexts. caller returns the Context
// of the calling code, or nil.
type callerSpawner interface{ caller() *Context }

// waitingContext returns the Context with which the code that spawns with s can wait;
// nil if there is none. That code must be the caller.
func waitingContext(s Spawner) *Context {
	switch s := s.(type) {
	case *Context:
		if s.canWait() {
			return s
		}
	case callerSpawner:
		return s.caller()
	case *spawnOptions:
		if s.waitsNever() {
			return nil
		}
		if cx := waitingContext(s.base); cx != nil {
			return cx
		}
		return s.group.caller()
	}
	return nil
}

// waitsNever reports whether s, or a Spawner that it is made of, never waits.
func (a *spawnOptions) waitsNever() bool {
	base, ok := a.base.(*spawnOptions)
	return a.neverWaits || ok && base.waitsNever()
}
