package async

import "iter"

// linkedList is a doubly linked list. The elements contain their links, so it allocates nothing,
// and an element can be removed at the same cost wherever it is. The zero linkedList is empty. It
// has no lock: its user guards it.
//
// A waitlist has links of its own, since it is used too often for a call of the method links at
// each step.
type linkedList[T any, E linkedElement[T]] struct {
	first, last *T
	n           int
}

// linkedElement is implemented by pointers to the elements of a linkedList. links returns the links
// in the element.
type linkedElement[T any] interface {
	*T
	links() *links[T]
}

// links has the neighbors of an element in its list. An element is in one list at a time.
type links[T any] struct{ prev, next *T }

// push appends e, which must not be in a list.
func (l *linkedList[T, E]) push(e *T) {
	*E(e).links() = links[T]{prev: l.last}
	if l.last != nil {
		E(l.last).links().next = e
	} else {
		l.first = e
	}
	l.last = e
	l.n++
}

// remove removes e, which must be in the list. It clears the links of e, so that e keeps no
// neighbor alive.
func (l *linkedList[T, E]) remove(e *T) {
	at := E(e).links()
	if at.prev != nil {
		E(at.prev).links().next = at.next
	} else {
		l.first = at.next
	}
	if at.next != nil {
		E(at.next).links().prev = at.prev
	} else {
		l.last = at.prev
	}
	*at = links[T]{}
	l.n--
}

// all returns the elements that are in the list when the loop begins. The body of the loop may
// remove the element that it has, and may append other elements, which the loop does not visit. It
// must not remove other elements.
func (l *linkedList[T, E]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		e, last := l.first, l.last
		for e != nil {
			next, end := E(e).links().next, e == last
			if !yield(e) || end {
				return
			}
			e = next
		}
	}
}
