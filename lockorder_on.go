//go:build lockorder

package async

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// lockOf is the mutex of an owner, with checks. Lock panics if the calling goroutine holds a mutex
// under which lockOrder does not allow this one. It checks before it locks, so a wrong order is
// reported and not a deadlock.
type lockOf[owner any] struct{ mu sync.Mutex }

// name returns the name of the owner's type, without type parameters.
func (l *lockOf[owner]) name() string {
	name, _, _ := strings.Cut(reflect.TypeFor[owner]().Name(), "[")
	return name
}

// Lock is Lock of sync.Mutex, after a check of the order.
func (l *lockOf[owner]) Lock() {
	heldLocks.check(l.name())
	l.mu.Lock()
	heldLocks.add(l.name())
}

// TryLock is TryLock of sync.Mutex. It does not wait, so any order is allowed.
func (l *lockOf[owner]) TryLock() bool {
	locked := l.mu.TryLock()
	if locked {
		heldLocks.add(l.name())
	}
	return locked
}

// Unlock is Unlock of sync.Mutex. The goroutine that has locked l must call it.
func (l *lockOf[owner]) Unlock() {
	heldLocks.remove(l.name())
	l.mu.Unlock()
}

// heldLocks has the mutexes that each goroutine holds.
var heldLocks = lockBook{held: map[uintptr][]string{}}

// lockBook has the names of held locks by goroutine; see getg. It keeps an empty list for a
// goroutine that has ended. The next goroutine with the same number then allocates nothing.
type lockBook struct {
	mu   sync.Mutex
	held map[uintptr][]string
}

// check panics if the caller must not lock the mutex of this name now.
func (b *lockBook) check(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, other := range b.held[getg()] {
		if !mayLock(other, name) {
			panic(fmt.Sprintf("async: the lock of a %s is locked under that of a %s; see lockOrder", name, other))
		}
	}
}

// mayLock reports whether a lock of inner may be locked under a lock of outer. A type that is not
// in the list may not be locked under any lock, and no lock under it.
func mayLock(outer, inner string) bool {
	i, j := slices.Index(lockOrder, outer), slices.Index(lockOrder, inner)
	return i >= 0 && i < j
}

// add notes that the caller holds a lock of this name.
func (b *lockBook) add(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := getg()
	b.held[g] = append(b.held[g], name)
}

// remove notes that the caller holds the lock of this name no longer.
func (b *lockBook) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := getg()
	held := b.held[g]
	i := slices.Index(held, name) // a goroutine holds at most one lock of a name
	b.held[g] = slices.Delete(held, i, i+1)
}
