//go:build lockorder

package async

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// lockOf is the mutex of an owner. It knows which other mutexes its goroutine holds. To lock it
// against lockOrder ends the program.
type lockOf[owner any] struct{ mu sync.Mutex }

// name returns the name of the owner's type.
func (l *lockOf[owner]) name() string {
	name, _, _ := strings.Cut(reflect.TypeFor[owner]().Name(), "[")
	return name
}

func (l *lockOf[owner]) Lock() {
	heldLocks.check(l.name())
	l.mu.Lock()
	heldLocks.add(l.name())
}

func (l *lockOf[owner]) TryLock() bool {
	locked := l.mu.TryLock() // this does not wait, so any order is allowed
	if locked {
		heldLocks.add(l.name())
	}
	return locked
}

func (l *lockOf[owner]) Unlock() {
	heldLocks.remove(l.name())
	l.mu.Unlock()
}

// heldLocks is the mutexes that each goroutine holds.
var heldLocks = lockBook{held: map[uintptr][]string{}}

// lockBook has the owners of held locks by goroutine. It keeps an empty list for a
// goroutine that has ended: the next goroutine in its place does not allocate.
type lockBook struct {
	mu   sync.Mutex
	held map[uintptr][]string
}

// check panics if the caller may not lock the mutex of this name now.
func (b *lockBook) check(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, other := range b.held[getg()] {
		if !mayLock(other, name) {
			panic(fmt.Sprintf("async: the lock of a %s is locked under that of a %s; see lockOrder", name, other))
		}
	}
}

// mayLock reports whether the lock of inner may be locked under that of outer.
func mayLock(outer, inner string) bool {
	i, j := slices.Index(lockOrder, outer), slices.Index(lockOrder, inner)
	return i >= 0 && i < j
}

func (b *lockBook) add(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := getg()
	b.held[g] = append(b.held[g], name)
}

func (b *lockBook) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := getg()
	held := b.held[g]
	i := slices.Index(held, name) // at most one has this name
	b.held[g] = slices.Delete(held, i, i+1)
}
