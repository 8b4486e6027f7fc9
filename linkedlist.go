package async

import "iter"

// linkedList is a list from the middle of which an element can be taken. Its elements contain their links, so it allocates
// nothing. (A waitlist has links of its own: it is too hot for calls of a method that returns them.)
type linkedList[T any, E linkedElement[T]] struct {
	first, last *T
	n           int
}

// linkedElement is implemented by pointers to the elements of a linkedList.
type linkedElement[T any] interface {
	*T
	links() *links[T]
}

// links is the place of an element in a list.
type links[T any] struct{ prev, next *T }

// push appends e, which is in no list.
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

// remove takes e out of the list, in which it is.
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

// all returns the elements that are in the list now. The loop may take out the element that it looks at, and append others.
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
