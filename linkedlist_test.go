package async

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

type listed struct {
	n  int
	at links[listed]
}

func (l *listed) links() *links[listed] { return &l.at }

// A linkedList holds the same elements as a slice. Each byte appends an element, or removes an
// element.
func FuzzLinkedList(f *testing.F) {
	f.Add([]byte{1, 1, 1, 128, 0x81, 1, 0x80, 0x80})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var list linkedList[listed, *listed]
		var model []*listed
		for i, op := range ops {
			if op < 128 {
				e := &listed{n: i}
				list.push(e)
				model = append(model, e)
			} else if len(model) > 0 {
				k := int(op-128) % len(model)
				list.remove(model[k])
				require.Zero(t, model[k].at)
				model = slices.Delete(model, k, k+1)
			}
			require.Equal(t, len(model), list.n)
			require.True(t, slices.Equal(model, slices.Collect(list.all())))
			if len(model) == 0 {
				require.Nil(t, list.first)
			} else {
				require.Same(t, model[0], list.first)
			}
		}
	})
}

// A loop may remove the element that it visits. It does not visit elements that it appends.
func TestLinkedListChangesInLoop(t *testing.T) {
	var list linkedList[listed, *listed]
	for i := range 3 {
		e := &listed{n: i}
		list.push(e)
	}
	var seen []int
	for e := range list.all() {
		seen = append(seen, e.n)
		list.remove(e)
		if e.n > 0 {
			list.push(e)
		}
	}
	require.Equal(t, []int{0, 1, 2}, seen)
	require.Equal(t, 2, list.n)
}
