package async

import (
	"slices"
	"sync/atomic"
)

// taskAttributes is the properties that few tasks have: a name, task-locals, and the
// like. A value never changes and is shared by all tasks with the same attributes; a
// task that sets a task-local gets a changed copy.
type taskAttributes struct {
	name   string
	local  bool // never leaves the worker on which it was spawned
	locals []localValue
	child  *taskAttributes // the attributes of the tasks that it spawns with its own Context; set by inherit
	group  *cancelGroup    // the tasks with which it is cancelled
}

// attributesCache keeps the attributes that were made last from others, for the next task.
type attributesCache struct {
	latest atomic.Pointer[cachedAttributes]
}

type cachedAttributes struct{ base, made *taskAttributes }

// of returns a copy of base, which may be nil, after change has changed the copy.
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

// A TaskLocal is a variable of which each task has its own. Declare it at
// package level; the zero value is ready for use:
//
//	var requestID = async.TaskLocal[string]{Inherit: true}
//
// It must not be copied. Its methods may be called wherever their cx may be
// used.
type TaskLocal[T any] struct {
	// Inherit makes the tasks that a task spawns begin with the value that the
	// variable has at that moment. Otherwise they begin without a value.
	Inherit bool

	_ noCopy
}

// localValue is one task's value of a TaskLocal.
type localValue struct {
	key     any // the *TaskLocal
	val     any
	inherit bool
}

// Get returns the task's value, or the zero value and false if it has none.
func (l *TaskLocal[T]) Get(cx *Context) (v T, ok bool) {
	cx.here()
	if d := cx.t.attributes.Load(); d != nil {
		for i := range d.locals {
			if d.locals[i].key == any(l) {
				v, _ = d.locals[i].val.(T) // fails for a nil interface, whose zero value is right
				return v, true
			}
		}
	}
	return v, false
}

// Set gives the task a value of its own.
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

// inherit sets the attributes of the tasks that a task with the attributes d spawns: the
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
