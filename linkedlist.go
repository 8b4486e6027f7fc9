package async

import "iter"

// linkedList is a list from the middle of which an element can be taken. Its elements
// contain their links, so it allocates nothing. (A waitlist has links of its own, which
// need no way back to the element.)
type linkedList[T any] struct {
	first, last *links[T]
	n           int
}

// links is the place of an element in a linkedList, or in none.
type links[T any] struct {
	prev, next *links[T]
	of         *T
	in         *linkedList[T] // nil for none
}

// push appends an element; at is its links, which are in no list.
func (l *linkedList[T]) push(of *T, at *links[T]) {
	*at = links[T]{prev: l.last, of: of, in: l}
	if l.last != nil {
		l.last.next = at
	} else {
		l.first = at
	}
	l.last = at
	l.n++
}

// remove takes an element out of the list in which it is.
func (l *linkedList[T]) remove(at *links[T]) {
	if at.prev != nil {
		at.prev.next = at.next
	} else {
		l.first = at.next
	}
	if at.next != nil {
		at.next.prev = at.prev
	} else {
		l.last = at.prev
	}
	*at = links[T]{}
	l.n--
}

// front returns the first element, or nil.
func (l *linkedList[T]) front() *T {
	if l.first == nil {
		return nil
	}
	return l.first.of
}

// all returns the elements that are in the list now. The loop may take out the element that
// it looks at, and append others.
func (l *linkedList[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		at, last := l.first, l.last
		for at != nil {
			next, end := at.next, at == last
			if !yield(at.of) || end {
				return
			}
			at = next
		}
	}
}
