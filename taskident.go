package async

import (
	"fmt"
	"time"
)

// Task identifies a task: by its number, which no other task of its
// runtime has, and by its name, if it was given a name.
type Task struct {
	ID   uint64
	Name string
}

// String returns the number, and the name if there is one.
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
	waitsFuture             // a future of the user's
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

// dumpTicks is a time since the runtime began, in units of 4 ms: 32 bits of
// them are 208 days.
type dumpTicks uint32

func ticksAt(at int64) dumpTicks { return dumpTicks(at >> 22) }

// ago returns how long before the time at t was.
func (t dumpTicks) ago(at int64) time.Duration {
	return time.Duration(ticksAt(at)-t) << 22
}
