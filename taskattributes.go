package async

import (
	"slices"
	"sync/atomic"
)

// taskAttributes are the properties that few tasks have: a name, task-locals, and the like. A value
// never changes, and all tasks with the same attributes share it. A task that sets a TaskLocal gets
// a changed copy.
type taskAttributes struct {
	name   string
	local  bool // the task never leaves the worker on which it was spawned
	locals []localValue
	child  *taskAttributes // the attributes of the tasks that the task spawns with its own Context; set by inherit
	group  *cancelGroup    // the tasks with which the task is cancelled
}

// attributesCache keeps the attributes that were last made for a Spawner, for the next task. So a
// named task costs no allocation more than another.
type attributesCache struct {
	latest atomic.Pointer[cachedAttributes]
}

type cachedAttributes struct{ base, made *taskAttributes }

// of returns a copy of base that change has changed. base may be nil. change must make the same
// changes each time.
func (m *attributesCache) of(base *taskAttributes, change func(*taskAttributes)) *taskAttributes {
	if l := m.latest.Load(); l != nil && l.base == base {
		return l.made
	}
	l := &cachedAttributes{base: base, made: new(taskAttributes)}
	if base != nil {
		*l.made = *base
	}
	change(l.made)
	l.made.inherit()
	m.latest.Store(l)
	return l.made
}

// A TaskLocal is a variable of which each task has its own value. Declare it at package level:
//
//	var requestID = async.TaskLocal[string]{Inherit: true}
//
// The zero value is ready for use. A TaskLocal must not be copied. Its methods may be called
// concurrently by any number of tasks, each with its own cx.
type TaskLocal[T any] struct {
	// Inherit makes the tasks that a task spawns begin with the value that the task has at that
	// moment. Otherwise they begin without a value. Tasks that are spawned with the [Runtime] begin
	// without a value in any case.
	Inherit bool

	_ noCopy
}

// localValue is one task's value of a TaskLocal.
type localValue struct {
	key     any // the *TaskLocal
	val     any
	inherit bool
}

// Get returns the value of the task of cx, or the zero value and false if the task has none.
func (l *TaskLocal[T]) Get(cx *Context) (v T, ok bool) {
	cx.here()
	if d := cx.t.attributes.Load(); d != nil {
		for i := range d.locals {
			if d.locals[i].key == any(l) {
				v, _ = d.locals[i].val.(T) // the assertion fails for a nil interface; then v is nil, too
				return v, true
			}
		}
	}
	return v, false
}

// Set sets the value of the task of cx. Tasks that were spawned before keep their values.
func (l *TaskLocal[T]) Set(cx *Context, v T) {
	cx.here()
	changed := new(taskAttributes)
	if d := cx.t.attributes.Load(); d != nil {
		*changed = *d
	}
	changed.locals = slices.DeleteFunc(slices.Clone(changed.locals), func(o localValue) bool { return o.key == any(l) })
	changed.locals = append(changed.locals, localValue{l, v, l.Inherit})
	changed.inherit()
	cx.t.attributes.Store(changed)
}

// inherit sets child, the attributes of the tasks that a task with the attributes d spawns: the
// task-locals that are inherited, and the contexts that the task is under.
func (d *taskAttributes) inherit() {
	child := taskAttributes{group: d.group.inherited()}
	for _, l := range d.locals {
		if l.inherit {
			child.locals = append(child.locals, l)
		}
	}
	if d.child = nil; child.locals != nil || child.group != nil {
		child.child = &child
		d.child = &child
	}
}
