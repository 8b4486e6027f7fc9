package async

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzSelect compares Selects over several channels, and futures, with a naive model: a channel is
// a slice, and a Select may do anything that the slices allow. Selects poll and give up at any
// moment, even after they were woken.
//
//  1. A case that happens could happen, and takes and leaves the messages that it should.
//  2. A Select that goes on waiting can do nothing, or leaves the cases that could happen to
//     another Select that was woken for them.
//  3. The cases that have not happened leave nothing behind. Messages or room for which they were
//     called go to other waiters.
func FuzzSelect(f *testing.F) {
	f.Add(uint8(0), []byte{0, 0x15, 0, 0x2a, 1, 1, 3, 0, 2, 0, 3, 0x11, 7, 0, 7, 1})
	f.Add(uint8(0x1b), []byte{0, 0x55, 0, 0x55, 3, 0, 3, 1, 3, 2, 2, 0, 1, 0, 0, 0x6a, 4, 0, 4, 1, 5, 2, 6, 0x15})
	f.Add(uint8(0x24), []byte{0, 0x05, 0, 0x05, 0, 0x11, 3, 0, 3, 0, 3, 1, 7, 0, 2, 1, 2, 0, 5, 0, 1, 0})
	f.Add(uint8(0xc1), []byte{0, 0x44, 8, 0, 0, 0x44, 3, 0, 8, 0, 1, 1, 5, 0, 6, 0x3f})
	for i, script := range scripts(100, 200) {
		f.Add(uint8(i*37), script)
	}
	f.Fuzz(func(t *testing.T, capacities uint8, ops []byte) {
		ops = ops[:min(len(ops), 1000)]
		m := &selectModel{}
		for i := range m.chans {
			m.chans[i].limit = int(capacities >> (2 * i) & 3)
			m.chans[i].c = NewChan[int](m.chans[i].limit)
			if m.chans[i].limit == 3 {
				m.chans[i].limit, m.chans[i].c = chanUnlimited, NewUnboundedChan[int]()
			}
		}
		for ; len(ops) >= 2; ops = ops[2:] {
			m.step(t, ops[0], int(ops[1]))
		}
		m.finish(t)
	})
}

// scripts returns n inputs for tests of the kind of FuzzSelect. They are always the same, so the
// tests do some work even if they are not fuzzed.
func scripts(n, length int) (all [][]byte) {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	for range n {
		script := make([]byte, 1+rnd.IntN(length))
		for i := range script {
			script[i] = byte(rnd.Uint32())
		}
		all = append(all, script)
	}
	return all
}

type selectModel struct {
	chans   [3]modelChan
	waiting []*modelSelect
	next    int
}

type modelChan struct {
	c      *Chan[int]
	limit  int
	queue  []int
	closed bool
}

// modelSelect is a Select under test, which the test polls.
type modelSelect struct {
	h     *mockTask
	f     Future[int]
	cases []Case
	is    []modelCase
}

// modelCase is one case of a modelSelect: a channel to receive from, or to send to, or a
// future.
type modelCase struct {
	c    *modelChan
	send int // the message to send; 0: the case receives
	p    *probe
}

func (s *modelSelect) woken() bool { return s.h.wakes.Load() > s.h.seen }

// newSelect makes a Select. The bits of what select its cases: two for each channel, and two for a
// future that is ready, or not.
func (m *selectModel) newSelect(what int) *modelSelect {
	s := &modelSelect{h: newMockTask()}
	add := func(c Case, is modelCase) { s.cases, s.is = append(s.cases, c), append(s.is, is) }
	for i := range m.chans {
		c := &m.chans[i]
		switch what >> (2 * i) & 3 {
		case 1:
			add(OnRecv(c.c), modelCase{c: c})
		case 2:
			m.next++
			add(OnSend(c.c, m.next), modelCase{c: c, send: m.next})
		}
	}
	if what>>6 != 0 {
		p := new(probe)
		if what>>6 == 3 {
			p.resolve(nil)
		}
		add(OnFuture(Future[int](p)), modelCase{p: p})
	}
	s.f = SelectFuture(s.cases...)
	return s
}

// receivers returns how many Selects wait to receive from c. There is room for as many messages
// beside its capacity.
func (m *selectModel) receivers(c *modelChan) (n int) {
	for _, s := range m.waiting {
		for _, is := range s.is {
			if is.c == c && is.send == 0 {
				n++
			}
		}
	}
	return n
}

// can reports whether a case can happen.
func (m *selectModel) can(is modelCase) bool {
	switch {
	case is.p != nil:
		return is.p.ready
	case is.c.closed:
		return true
	case is.send > 0:
		return len(is.c.queue) < is.c.limit+m.receivers(is.c)
	}
	return len(is.c.queue) > 0
}

// kept reports whether the case is of s was left to another Select, which was woken for it.
func (m *selectModel) kept(s *modelSelect, is modelCase) bool {
	for _, o := range m.waiting {
		if o == s || !o.woken() {
			continue
		}
		for _, other := range o.is {
			if is.c != nil && other.c == is.c && (other.send > 0) == (is.send > 0) {
				return true
			}
		}
	}
	return false
}

// happens does in the model the same as case i of s, and checks that the case could happen and has
// this result.
func (m *selectModel) happens(t *testing.T, s *modelSelect, i int) {
	is := s.is[i]
	require.True(t, m.can(is), "a case that could not happen")
	switch c := s.cases[i].(type) {
	case *RecvCase[int]:
		m.received(t, is.c)(c.Result())
	case *SendCase[int]:
		m.sent(t, is.c, is.send, c.Err())
	case *FutureCase[int]:
		require.Zero(t, is.p.cancels.Load())
	}
	m.gone(t, s, i)
}

func (m *selectModel) received(t *testing.T, c *modelChan) func(v int, err error) {
	return func(v int, err error) {
		if len(c.queue) == 0 {
			require.True(t, c.closed)
			require.Equal(t, ErrClosed, err)
			return
		}
		require.NoError(t, err)
		require.Equal(t, c.queue[0], v)
		c.queue = c.queue[1:]
	}
}

func (m *selectModel) sent(t *testing.T, c *modelChan, v int, err error) {
	if c.closed {
		require.Equal(t, ErrClosed, err)
		return
	}
	require.NoError(t, err)
	c.queue = append(c.queue, v)
}

// gone notes that s no longer waits. Its case but has happened; if but is -1, none has.
func (m *selectModel) gone(t *testing.T, s *modelSelect, but int) {
	m.waiting = slices.DeleteFunc(m.waiting, func(o *modelSelect) bool { return o == s })
	for i, is := range s.is {
		if is.p != nil && i != but {
			require.EqualValues(t, 1, is.p.cancels.Load(), "futures that lose are given up")
		}
	}
}

// stays checks that s had reason to do nothing.
func (m *selectModel) stays(t *testing.T, s *modelSelect) {
	for _, is := range s.is {
		require.True(t, !m.can(is) || m.kept(s, is), "it could go on")
	}
}

func (m *selectModel) poll(t *testing.T, s *modelSelect) {
	s.h.seen = s.h.wakes.Load()
	i, err := s.f.Poll(s.h.cx)
	if err == ErrPending {
		m.stays(t, s)
		return
	}
	require.NoError(t, err)
	m.happens(t, s, i)
}

func (m *selectModel) step(t *testing.T, op byte, arg int) {
	c := &m.chans[arg%len(m.chans)]
	var s *modelSelect
	if len(m.waiting) > 0 {
		s = m.waiting[arg%len(m.waiting)]
	}
	switch op % 9 {
	case 0:
		// A Select has a place in the queues from its first poll on, and this is the last place. So
		// it is appended after this poll.
		s := m.newSelect(arg)
		s.h.seen = s.h.wakes.Load()
		i, err := s.f.Poll(s.h.cx)
		if err == nil {
			m.happens(t, s, i)
			break
		}
		require.Equal(t, ErrPending, err)
		m.stays(t, s)
		m.waiting = append(m.waiting, s)
	case 1, 7:
		if s != nil {
			m.poll(t, s)
		}
	case 2:
		if s != nil {
			giveUp(nil, s.f)
			m.gone(t, s, -1)
		}
	case 3:
		m.next++
		is := modelCase{c: c, send: m.next}
		if err := c.c.TrySend(m.next); err != ErrFull {
			require.True(t, m.can(is))
			m.sent(t, c, m.next, err)
		} else {
			require.True(t, !m.can(is) || m.kept(nil, is))
		}
	case 4:
		if v, err := c.c.TryRecv(); err != ErrEmpty {
			m.received(t, c)(v, err)
		} else {
			is := modelCase{c: c}
			require.True(t, !m.can(is) || m.kept(nil, is))
		}
	case 5:
		if arg/len(m.chans)%4 == 0 {
			require.Equal(t, !c.closed, c.c.Close() == nil)
			c.closed = true
		}
	case 6:
		s := m.newSelect(arg)
		if i := trySelect(s.h.cx, s.cases...); i >= 0 {
			m.happens(t, s, i)
		} else {
			m.stays(t, s)
			m.gone(t, s, -1)
		}
	case 8:
		if s == nil {
			break
		}
		for _, is := range s.is {
			if is.p != nil {
				is.p.resolve(nil)
				require.True(t, s.woken())
			}
		}
	}
	for i := range m.chans {
		c := &m.chans[i]
		require.Equal(t, min(len(c.queue), c.limit), c.c.Len())
	}
}

// finish has all woken Selects poll until none is woken, and checks the state that is left.
func (m *selectModel) finish(t *testing.T) {
	for again := true; again; {
		again = false
		for _, s := range slices.Clone(m.waiting) {
			if s.woken() {
				again = true
				m.poll(t, s)
			}
		}
	}
	for _, s := range m.waiting {
		m.stays(t, s)
	}
	for _, s := range slices.Clone(m.waiting) {
		giveUp(nil, s.f)
		m.gone(t, s, -1)
	}
	for i := range m.chans {
		c := &m.chans[i]
		requireNoLostWakes(t, c.c)
		senders, receivers := c.c.waitingCounts()
		require.Zero(t, senders+receivers)
		drainChan(t, c.c, c.queue...)
	}
}
