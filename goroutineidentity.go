package async

import (
	"math/bits"
	"sync/atomic"
)

// An identity says what a goroutine is to this package: the goroutine of a worker, a
// coroutine of a worker, or the goroutine of a shared reactor. All other goroutines have
// no identity.
type identity struct {
	worker *worker // nil for a shared reactor
}

// sharedReactorIdentity is the identity of the goroutines of all shared reactors.
var sharedReactorIdentity = new(identity)

// identities knows all goroutines that have an identity, of all runtimes.
var identities = newIdentityTable()

// callersIdentity returns the identity of the calling goroutine; nil if it has none.
func callersIdentity() *identity { return identities.of(getg()) }

// callersWorker returns the worker on whose thread the caller runs: as its goroutine
// or as a coroutine of it. It returns nil for all other goroutines.
func callersWorker() *worker {
	if id := callersIdentity(); id != nil {
		return id.worker
	}
	return nil
}

// mustNotBlock panics if the caller runs on a thread of a pool, which it is
// about to block.
func mustNotBlock(what, instead string) {
	if id := callersIdentity(); id != nil {
		id.mustNotBlock(what, instead)
	}
}

func (id *identity) mustNotBlock(what, instead string) {
	if id == sharedReactorIdentity {
		panic("async: " + what + " was called in the function of a Waker, which must not block; start a goroutine there")
	}
	panic("async: " + what + " was called in a task and would block its worker; use " + instead)
}

// identityTable maps goroutines, as getg tells them apart, to their identities. It is a
// hash table with open addressing.
//
// An identity must not outlive its goroutine, since Go gives the descriptor of a
// goroutine that has ended to another goroutine. So:
//
//  1. A goroutine adds itself before it does anything else.
//  2. It removes itself as its last act, in a deferred call, so that a panic and
//     Goexit do not prevent that.
//  3. It asks for itself alone.
//
// A coroutine is in the table for all of its life. This costs a switch nothing, and
// while the coroutine is suspended it cannot ask.
//
// A reader takes no lock, because of rule 3. The key that it looks for is written and
// removed by its own goroutine only, so it stands in the table during the whole search or
// at no time. Writers change other slots meanwhile, or replace the table by a larger or
// smaller one; the old table gives the same answer as the new one.
type identityTable struct {
	mu    lockOf[identityTable]
	slots atomic.Pointer[identitySlots]
	live  int // entries
	used  int // entries, and slots whose entry was removed
}

// identitySlots is a table of a certain size, a power of two. At most a quarter of it is
// in use, so a search soon comes to a free slot, however many entries there are and
// however their keys cluster.
type identitySlots struct {
	shift uint8 // of the hash
	all   []identitySlot
}

// identitySlot is an entry. id is written, under the lock, before g is.
type identitySlot struct {
	g  atomic.Uintptr // 0: free; identityRemoved: was in use
	id *identity
}

const (
	identityRemoved  = uintptr(1) // no goroutine has this address
	identitySlotsMin = 64
)

func newIdentityTable() *identityTable {
	t := new(identityTable)
	t.slots.Store(newIdentitySlots(0))
	return t
}

// newIdentitySlots makes room for n entries and some more.
//
// A table has 6 to 12 slots for each entry when it is made. It is replaced when a quarter is in
// use, and when there are more than 32 slots for each entry, so that between two
// replacements the number of entries has changed by half at least.
func newIdentitySlots(n int) *identitySlots {
	log := bits.Len(uint(max(6*n, identitySlotsMin) - 1))
	return &identitySlots{shift: uint8(64 - log), all: make([]identitySlot, 1<<log)}
}

// firstSlot returns where the search for g begins.
func (s *identitySlots) firstSlot(g uintptr) int {
	return int(uint64(g) * 0x9E3779B97F4A7C15 >> s.shift) // the golden ratio spreads the keys
}

// of returns the identity of g, which must be the caller.
func (t *identityTable) of(g uintptr) *identity {
	s := t.slots.Load()
	for i := s.firstSlot(g); ; i++ {
		slot := &s.all[i&(len(s.all)-1)]
		switch slot.g.Load() {
		case g:
			return slot.id
		case 0:
			return nil
		}
	}
}

// add enters g, which must be the caller.
func (t *identityTable) add(g uintptr, id *identity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if 4*(t.used+1) > len(t.slots.Load().all) {
		t.rebuild()
	}
	if t.slots.Load().put(g, id) {
		t.used++
	}
	t.live++
}

// put enters g, and reports whether that took a slot which was free.
func (s *identitySlots) put(g uintptr, id *identity) (free bool) {
	for i := s.firstSlot(g); ; i++ {
		slot := &s.all[i&(len(s.all)-1)]
		if old := slot.g.Load(); old == 0 || old == identityRemoved {
			slot.id = id
			slot.g.Store(g)
			return old == 0
		}
	}
}

// remove takes out g, which must be the caller and have been added.
func (t *identityTable) remove(g uintptr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.slots.Load()
	for i := s.firstSlot(g); ; i++ {
		if slot := &s.all[i&(len(s.all)-1)]; slot.g.Load() == g {
			slot.g.Store(identityRemoved)
			slot.id = nil
			break
		}
	}
	t.live--
	if n := len(s.all); n > identitySlotsMin && n > 32*t.live {
		t.rebuild() // many coroutines have ended
	}
}

// rebuild copies the entries to a table that fits them. The lock is held.
func (t *identityTable) rebuild() {
	s := newIdentitySlots(t.live + 1)
	for i := range t.slots.Load().all {
		old := &t.slots.Load().all[i]
		if g := old.g.Load(); g != 0 && g != identityRemoved {
			s.put(g, old.id)
		}
	}
	t.used = t.live
	t.slots.Store(s)
}
