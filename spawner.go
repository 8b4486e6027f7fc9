package async

import "context"

// A Spawner is a place where tasks start. It is the first argument of [Go], [Spawn], [SpawnFuture],
// [SpawnBlocking], [Launch] and [BlockOn]. The following are Spawners:
//
//   - a [*Runtime]: a task starts on the next worker in turn;
//   - a [*Context]: a task starts on the worker of the Context. Another worker may take the task
//     over before it begins;
//   - a [*Group]: a task starts as with the Context of the code that spawns it, and [WithGroup]
//     waits for it;
//   - [Local], [Runtime.Workers], [Group.Via], [Group.Try], and the methods of Spawner: they return
//     Spawners whose tasks have more properties.
//
// A Runtime, a Group, and Spawners that are made of them may be used concurrently from any
// goroutine. A Context, and a Spawner that is made of it, may be used only by the code to which the
// Context was passed.
//
// A Context passes on to new tasks the same things as a [context.Context]:
//
//   - A derived Context ([Context.WithTimeout], [Context.WithCancel] and similar methods) passes on
//     its deadline, its values and its end. The task is cancelled when the derived Context is
//     cancelled or the task that has made it ends. [Context.WithValue] adds a value, but no
//     deadline and no end.
//   - The Context with which a task began passes on the contexts that this task is under. It does
//     not pass on that this task was cancelled by its handle, or has ended. Spawn a task that must
//     not outlive another one in a Group.
//   - A task of a Group passes on the end of the Group, and not the membership. So tasks that it
//     spawns with its own Context are cancelled at the latest when WithGroup returns, but WithGroup
//     does not wait for them.
//   - cx.WithoutCancel() passes on the values alone, and cx.Runtime() nothing.
type Spawner interface {
	// Named returns a Spawner like this one whose tasks have a name; see [Context.Task]. If Named
	// is called several times, the last name counts.
	Named(name string) Spawner

	// Under returns a Spawner like this one whose tasks are under ctx:
	//
	//   - A task is cancelled when ctx ends. [Context.Err] and [Context.Cause] of its Context then
	//     return the error and the cause of ctx.
	//   - A task that is spawned after the end of ctx, or that waits for room when ctx ends, does
	//     not begin. The error of its handle is the error of ctx.
	//   - The [Context] of a task has the deadline and the values of ctx.
	//   - Tasks that such a task spawns with its own Context are under ctx, too.
	//
	// For example, a goroutine that serves an HTTP request spawns its tasks, or calls [BlockOn],
	// with rt.Under(r.Context()).
	Under(ctx context.Context) Spawner

	// spawner returns the runtime, and the worker on whose thread the caller runs, or nil if no
	// worker runs it.
	spawner() (*Runtime, *worker)

	// attributes returns the attributes of the tasks, or nil if they have none.
	attributes() *taskAttributes

	// cancelGroup returns the group with which the tasks are cancelled, or nil if there is none.
	cancelGroup() *cancelGroup
}

// spawnOptions is a Spawner whose tasks have attributes that the tasks of base do not have.
type spawnOptions struct {
	base       Spawner
	name       string
	local      bool
	group      *cancelGroup
	neverWaits bool // spawning never waits for room; see Group.Try

	cached attributesCache
}

// Named implements Spawner. The last name counts, since the outer options change the attributes
// last.
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

// Local returns a [Spawner] like cx whose tasks never leave the worker of cx, even if they are
// plain futures or have not begun. It is for tasks that share data without locks: tasks of one
// worker never run at the same time, and no other task runs between two awaits of a task.
func Local(cx *Context) Spawner { return &spawnOptions{base: cx, local: true} }

// partOf is the Spawner of a task that is part of an operation with the Context. The task inherits
// nothing. The operation makes sure that the task does not outlive it.
type partOf struct{ *Context }

func (partOf) attributes() *taskAttributes { return nil }
func (partOf) cancelGroup() *cancelGroup   { return nil }

// valuesOf returns a Spawner like cx. Its tasks inherit the values of the contexts that cx is
// under, and not their ends.
func valuesOf(cx *Context) Spawner {
	own, values := &cx.t.cx, cx.values()
	if values == context.Background() {
		return own
	}
	return &spawnOptions{base: own, group: &cancelGroup{ctx: values, endless: true}}
}

// callerSpawner is implemented by a Spawner that code with different Contexts uses. caller returns
// the Context of the calling code, or nil.
type callerSpawner interface{ caller() *Context }

// waitingContext returns the Context with which the calling code, which spawns with s, can wait for
// room. It returns nil if the code cannot wait.
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

// waitsNever reports whether a, or a Spawner of which it is made, has neverWaits set.
func (a *spawnOptions) waitsNever() bool {
	base, ok := a.base.(*spawnOptions)
	return a.neverWaits || ok && base.waitsNever()
}
