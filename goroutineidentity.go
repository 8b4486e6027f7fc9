package async

import (
	"math/bits"
	"sync/atomic"
)

// An identity is the role of a goroutine in this package: the goroutine of a worker, a coroutine of
// a worker, or the goroutine of a shared reactor. All other goroutines have no identity.
type identity struct {
	worker *worker // nil for a shared reactor
}

// sharedReactorIdentity is the identity of the goroutines of all shared reactors.
var sharedReactorIdentity = new(identity)

// identities has all goroutines with an identity, of all runtimes of the process.
var identities = newIdentityTable()

// callersIdentity returns the identity of the calling goroutine, or nil if it has none.
func callersIdentity() *identity { return identities.of(getg()) }

// callersWorker returns the worker on whose thread the caller runs: the caller is the worker's
// goroutine or one of its coroutines. It returns nil for all other goroutines. The head of
// executor.go says what a caller may do with its worker.
func callersWorker() *worker {
	if id := callersIdentity(); id != nil {
		return id.worker
	}
	return nil
}

// mustNotBlock panics if the caller runs on the thread of a worker or serves a shared reactor: the
// caller is about to block. what is the name of the operation, and instead the operation that tasks
// use.
func mustNotBlock(what, instead string) {
	if id := callersIdentity(); id != nil {
		id.mustNotBlock(what, instead)
	}
}

// mustNotBlock panics with the text for a goroutine of this identity.
func (id *identity) mustNotBlock(what, instead string) {
	if id == sharedReactorIdentity {
		panic("async: " + what + " was called in the function of a Waker, which must not block; start a goroutine there")
	}
	panic("async: " + what + " was called in a task and would block its worker; use " + instead)
}

// identityTable maps goroutines to their identities. The key of a goroutine is the result of getg.
// The table is a hash table with open addressing.
//
// An entry must not outlive its goroutine, since Go gives the descriptor of a goroutine that has
// ended to another goroutine. So:
//
//  1. A goroutine adds itself before it does anything else.
//  2. It removes itself as its last act, in a deferred call, so that a panic and Goexit do not
//     prevent that.
//  3. It searches only for itself.
//
// A coroutine is in the table for all of its life. This costs a switch nothing. While the coroutine
// is suspended it cannot search.
//
// A reader takes no lock, because of rule 3. Only the reader's own goroutine writes and removes the
// key that it searches for. So during the whole search the key is in the table, or it is not.
// Writers may change other slots meanwhile:
//
//   - A slot before the key never becomes free (0), which would end the search: a removed entry
//     leaves identityRemoved there.
//   - The table may be replaced by a larger or smaller one. The reader goes on in the old table.
//     The old table is no longer written, and has the reader's key if the new table has it.
//   - A slot is used again for another key. id is written before g, so a reader that finds its key
//     finds its own id.
type identityTable struct {
	mu    lockOf[identityTable] // held to write
	slots atomic.Pointer[identitySlots]
	live  int // entries
	used  int // entries, and slots whose entry was removed
}

// identitySlots is a table of a fixed size, a power of two. At most a quarter of it is in use. So a
// search soon finds a free slot, however many entries there are and however their keys cluster.
type identitySlots struct {
	shift uint8 // of the hash: 64 minus the logarithm of the size
	all   []identitySlot
}

// identitySlot is an entry. id is written, under the lock, before g is written.
type identitySlot struct {
	g  atomic.Uintptr // 0: free; identityRemoved: was in use
	id *identity
}

const (
	identityRemoved  = uintptr(1) // no goroutine has this address
	identitySlotsMin = 64         // the size of the smallest table
)

// newIdentityTable returns an empty table.
func newIdentityTable() *identityTable {
	t := new(identityTable)
	t.slots.Store(newIdentitySlots(0))
	return t
}

// newIdentitySlots makes a table for n entries and some more.
//
// A new table has 6 to 12 slots for each entry. It is replaced when a quarter of it is in use, and
// when there are more than 32 slots for each entry. So between two replacements the number of
// entries has changed by at least half, and a replacement costs little for each change.
func newIdentitySlots(n int) *identitySlots {
	log := bits.Len(uint(max(6*n, identitySlotsMin) - 1))
	return &identitySlots{shift: uint8(64 - log), all: make([]identitySlot, 1<<log)}
}

// firstSlot returns the index at which the search for g begins.
func (s *identitySlots) firstSlot(g uintptr) int {
	return int(uint64(g) * 0x9E3779B97F4A7C15 >> s.shift) // the golden ratio spreads the keys
}

// of returns the identity of g, which must be the caller, or nil if it has none. It takes no lock.
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

// add adds g, which must be the caller and must not be in the table.
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

// put adds g, and reports whether the slot was free. If not, its entry had been removed. The lock
// is held.
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

// remove removes g, which must be the caller and be in the table. It replaces a table that has
// become too large.
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

// rebuild copies the entries to a table of the right size. The lock is held.
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
