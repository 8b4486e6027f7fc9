package main

// list is a sequence that grows and shrinks at both ends in constant time on average. It is two
// stacks whose bottoms meet in the middle of the sequence.
type list struct {
	front, back []string // the first item of the list is the last of front
}

func (l *list) len() int { return len(l.front) + len(l.back) }

func (l *list) at(i int) string {
	if i < len(l.front) {
		return l.front[len(l.front)-1-i]
	}
	return l.back[i-len(l.front)]
}

func (l *list) pushFront(s string) { l.front = append(l.front, s) }
func (l *list) pushBack(s string)  { l.back = append(l.back, s) }

func (l *list) popFront() string {
	if len(l.front) == 0 {
		l.front, l.back = split(l.back)
	}
	return take(&l.front)
}

func (l *list) popBack() string {
	if len(l.back) == 0 {
		l.back, l.front = split(l.front)
	}
	return take(&l.back)
}

// take removes the top of a stack and returns it.
func take(stack *[]string) string {
	last := len(*stack) - 1
	s := (*stack)[last]
	(*stack)[last] = ""
	*stack = (*stack)[:last]
	return s
}

// split moves the lower half of a stack, rounded up, to a new stack in reverse order. It does not
// move the whole stack: a list of which the first and the last item are removed in turns would then
// be moved by each removal.
func split(from []string) (to, rest []string) {
	n := (len(from) + 1) / 2
	for i := n - 1; i >= 0; i-- {
		to = append(to, from[i])
	}
	return to, append([]string(nil), from[n:]...)
}

// between returns the items from index first to index last. A negative index counts from the end.
func (l *list) between(first, last int64) (items []string) {
	n := int64(l.len())
	if first < 0 {
		first = max(first+n, 0)
	}
	if last < 0 {
		last += n
	}
	for i := first; i <= min(last, n-1); i++ {
		items = append(items, l.at(int(i)))
	}
	return items
}
