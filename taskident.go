package async

import (
	"fmt"
	"time"
)

// A Task identifies a task: by its number, which no other task of its [Runtime] has, and by its
// name, if the task has one (see [Spawner]). It is a plain value: it keeps no task alive, and its
// methods may be called from any goroutine.
type Task struct {
	ID   uint64 // unique among the tasks of one Runtime
	Name string // empty if the task has none
}

// String returns the number of the task, followed by the name in parentheses if there is one.
func (t Task) String() string {
	if t.Name == "" {
		return fmt.Sprint(t.ID)
	}
	return fmt.Sprintf("%d (%s)", t.ID, t.Name)
}

func (t *task) ident() Task { return Task{ID: t.id.Load(), Name: t.name()} }

func (t *task) name() string {
	if d := t.attributes.Load(); d != nil {
		return d.name
	}
	return ""
}

// waitReason is the kind of event that a task waits for. The code that takes the waker sets it.
type waitReason uint8

const (
	waitsNothing waitReason = iota
	waitsFuture             // an event that only the user's future knows
	waitsTime
	waitsTask
	waitsGroup
	waitsCall
	waitsRead
	waitsWrite
	waitsYield
	waitsLock
	waitsPermits
	waitsCond
	waitsBarrier
	waitsDone
	waitsProcess
	waitsSignal
	waitsNotify
	waitsFile
	waitsSend
	waitsRecv
	waitsSelect
	waitsGo
)

var waitReasons = [...]string{
	waitsNothing: "",
	waitsFuture:  "future",
	waitsTime:    "time",
	waitsTask:    "task",
	waitsGroup:   "group",
	waitsCall:    "blocking call",
	waitsRead:    "read",
	waitsWrite:   "write",
	waitsYield:   "its turn",
	waitsLock:    "lock",
	waitsPermits: "permits",
	waitsCond:    "condition",
	waitsBarrier: "barrier",
	waitsDone:    "wait group",
	waitsProcess: "process",
	waitsSignal:  "signal",
	waitsNotify:  "notification",
	waitsFile:    "file",
	waitsSend:    "send",
	waitsRecv:    "receive",
	waitsSelect:  "select",
	waitsGo:      "goroutine",
}

func (r waitReason) String() string { return waitReasons[r] }

// dumpTicks is a time since the process began, in units of 4 ms (2^22 ns): 32 bits of them are 208
// days. So the head of a task needs only 4 bytes for the time at which the task began to wait.
type dumpTicks uint32

func ticksAt(at int64) dumpTicks { return dumpTicks(at >> 22) }

// ago returns the time from t to at.
func (t dumpTicks) ago(at int64) time.Duration {
	return time.Duration(ticksAt(at)-t) << 22
}
