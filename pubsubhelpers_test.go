package async

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// count returns how many tasks wait, and checks the list.
func (p *pubsubTopic) count() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for f := range p.waiting.all() {
		if f.queue.n == 0 {
			panic("a follower without tasks is in the list")
		}
		n += f.queue.n
	}
	return n
}

// pubsubModel is a naive model of one subscriber, made of a slice and a set. It says which of the
// waiting tasks are woken.
type pubsubModel struct {
	most   int // the most news that there can be
	queue  []*mockTask
	called map[*mockTask]bool
	woken  map[*mockTask]bool
}

func newPubsubModel(most int) *pubsubModel {
	return &pubsubModel{most: most, called: map[*mockTask]bool{}, woken: map[*mockTask]bool{}}
}

// call wakes the next task if there is news for it; news is how much there is.
func (m *pubsubModel) call(news int) {
	if len(m.queue) > 0 && len(m.called) < min(news, m.most) {
		h := m.queue[0]
		m.queue = m.queue[1:]
		m.called[h], m.woken[h] = true, true
	}
}

func (m *pubsubModel) callAll() {
	for _, h := range m.queue {
		m.called[h], m.woken[h] = true, true
	}
	m.queue = nil
}

// polled notes that h has polled, and whether it got news.
func (m *pubsubModel) polled(h *mockTask, pending bool) {
	at := slices.Index(m.queue, h)
	switch {
	case !pending:
		m.leave(h)
	case m.called[h]:
		delete(m.called, h)
		m.queue = slices.Insert(m.queue, 0, h)
	case at < 0:
		m.queue = append(m.queue, h)
	}
}

func (m *pubsubModel) leave(h *mockTask) {
	delete(m.called, h)
	m.queue = slices.DeleteFunc(m.queue, func(o *mockTask) bool { return o == h })
}

// check compares the wakes since the last check.
func (m *pubsubModel) check(t testing.TB, hands ...*mockTask) {
	for i, h := range hands {
		require.Equal(t, m.woken[h], h.woken(), "task %d", i)
	}
	clear(m.woken)
}
