package async

import (
	"math/rand"
	"testing"
)

// FuzzChan runs random operations on a channel, polled by hand, and on a model of
// it: who waits, in order, what is held, and who has been handed what. Operations
// are given up at any moment.
func FuzzChan(f *testing.F) {
	for seed := range 8 {
		f.Add(int64(seed), uint8(seed))
	}
	rt := newTestRuntime(f, Config{Workers: 1})
	f.Fuzz(func(t *testing.T, seed int64, size uint8) {
		m := &chanModel{t: t, limit: int(size%5) - 1, rng: rand.New(rand.NewSource(seed))}
		m.ch = newTestChan[int](m.limit)
		m.cx = NewContext(rt, NewWaker(func() {}))
		for range 400 {
			m.step()
			m.check()
		}
		m.ch.Close()
		m.closed = true
		m.drain()
	})
}

// chanModel is the model. A sender or receiver that waits is done for as soon as
// its message has moved, as with a Go channel.
type chanModel struct {
	t      *testing.T
	rng    *rand.Rand
	ch     *Chan[int]
	cx     *Context
	limit  int
	closed bool

	held     []int
	permits  []*Permit[int]
	senders  []*chanSender // that wait
	recvs    []*chanReceiver
	sent     []*chanSender // whose message has moved, and who have not been polled since
	received []*chanReceiver
	next     int
}

type chanSender struct {
	f Future[None]
	v int
}

type chanReceiver struct {
	f    Future[int]
	want int
}

func (m *chanModel) room() bool {
	return m.limit < 0 || len(m.held)+len(m.permits) < m.limit
}

// settle moves what can move.
func (m *chanModel) settle() {
	for moved := true; moved; {
		moved = false
		if len(m.senders) > 0 && m.room() {
			s := m.senders[0]
			m.senders = m.senders[1:]
			m.held = append(m.held, s.v)
			m.sent = append(m.sent, s)
			moved = true
		}
		if len(m.recvs) > 0 && len(m.held) > 0 {
			r := m.recvs[0]
			m.recvs = m.recvs[1:]
			r.want, m.held = m.held[0], m.held[1:]
			m.received = append(m.received, r)
			moved = true
		}
		if len(m.recvs) > 0 && len(m.senders) > 0 && len(m.held) == 0 {
			r, s := m.recvs[0], m.senders[0]
			m.recvs, m.senders = m.recvs[1:], m.senders[1:]
			r.want = s.v
			m.received, m.sent = append(m.received, r), append(m.sent, s)
			moved = true
		}
	}
}

func (m *chanModel) step() {
	switch m.rng.Intn(12) {
	case 0, 1, 2:
		s := &chanSender{m.ch.SendFuture(m.next), m.next}
		m.next++
		m.senders = append(m.senders, s)
		m.settle()
		m.pollSend(s)
	case 3, 4, 5:
		r := &chanReceiver{f: m.ch.RecvFuture()}
		m.recvs = append(m.recvs, r)
		m.settle()
		m.pollRecv(r)
	case 6:
		if len(m.senders) > 0 {
			i := m.rng.Intn(len(m.senders))
			giveUp(m.senders[i].f)
			m.senders = append(m.senders[:i:i], m.senders[i+1:]...)
		}
	case 7:
		if len(m.recvs) > 0 {
			i := m.rng.Intn(len(m.recvs))
			giveUp(m.recvs[i].f)
			m.recvs = append(m.recvs[:i:i], m.recvs[i+1:]...)
		}
	case 8:
		// One that was handed a message gives up, and the message goes back.
		if len(m.received) > 0 {
			i := m.rng.Intn(len(m.received))
			r := m.received[i]
			m.received = append(m.received[:i:i], m.received[i+1:]...)
			m.held = append([]int{r.want}, m.held...)
			m.settle()
			giveUp(r.f)
		}
	case 9:
		for len(m.sent) > 0 {
			m.pollSend(m.sent[0])
		}
		for len(m.received) > 0 {
			m.pollRecv(m.received[0])
		}
	case 10:
		m.permit()
	case 11:
		m.try()
	}
}

func (m *chanModel) permit() {
	if m.limit == 0 {
		return
	}
	if len(m.permits) > 0 && m.rng.Intn(2) == 0 {
		p := m.permits[0]
		m.permits = m.permits[1:]
		if m.rng.Intn(2) == 0 {
			m.held = append(m.held, m.next)
			m.settle()
			if err := p.Send(m.next); err != nil {
				m.t.Fatal(err)
			}
			m.next++
		} else {
			m.settle()
			p.Release()
		}
		return
	}
	p, err := m.ch.TryReserve()
	if m.room() != (err == nil) {
		m.t.Fatal("reserve", err)
	}
	if err == nil {
		m.permits = append(m.permits, p)
	}
}

func (m *chanModel) try() {
	if m.rng.Intn(2) == 0 {
		ok := m.room() || len(m.recvs) > 0 && len(m.held) == 0
		if err := m.ch.TrySend(m.next); ok != (err == nil) {
			m.t.Fatal("TrySend", err, ok)
		}
		if ok {
			m.held = append(m.held, m.next)
			m.next++
			m.settle()
		}
		return
	}
	v, err := m.ch.TryRecv()
	switch {
	case len(m.held) > 0:
		if err != nil || v != m.held[0] {
			m.t.Fatal("TryRecv", v, err, m.held)
		}
		m.held = m.held[1:]
		m.settle()
	case len(m.senders) > 0:
		s := m.senders[0]
		m.senders = m.senders[1:]
		m.sent = append(m.sent, s)
		if err != nil || v != s.v {
			m.t.Fatal("TryRecv", v, err, s.v)
		}
	case err != ErrEmpty:
		m.t.Fatal("TryRecv", v, err)
	}
}

// pollSend polls a sender, which may or may not have been served.
func (m *chanModel) pollSend(s *chanSender) {
	_, err := s.f.Poll(m.cx)
	for i := range m.sent {
		if m.sent[i] == s {
			m.sent = append(m.sent[:i:i], m.sent[i+1:]...)
			if err != nil {
				m.t.Fatal("send", err)
			}
			return
		}
	}
	if err != ErrPending {
		m.t.Fatal("send", err)
	}
}

func (m *chanModel) pollRecv(r *chanReceiver) {
	v, err := r.f.Poll(m.cx)
	for i := range m.received {
		if m.received[i] == r {
			m.received = append(m.received[:i:i], m.received[i+1:]...)
			if err != nil || v != r.want {
				m.t.Fatal("recv", v, err, r.want)
			}
			return
		}
	}
	if err != ErrPending {
		m.t.Fatal("recv", v, err)
	}
}

func (m *chanModel) check() {
	if n := m.ch.Len(); n != len(m.held) {
		m.t.Fatal("held", n, m.held)
	}
	s, r := m.ch.Waiting()
	if s != len(m.senders) || r != len(m.recvs) {
		m.t.Fatal("waiting", s, r, len(m.senders), len(m.recvs))
	}
}

// drain is what comes after Close.
func (m *chanModel) drain() {
	for _, s := range m.senders {
		if _, err := s.f.Poll(m.cx); err != ErrClosed {
			m.t.Fatal("a sender after Close", err)
		}
	}
	for _, r := range m.recvs {
		if _, err := r.f.Poll(m.cx); err != ErrClosed {
			m.t.Fatal("a receiver after Close", err)
		}
	}
	for len(m.sent) > 0 {
		m.pollSend(m.sent[0])
	}
	for len(m.received) > 0 {
		m.pollRecv(m.received[0])
	}
	for _, p := range m.permits {
		if err := p.Send(0); err != ErrClosed {
			m.t.Fatal("a permit after Close", err)
		}
	}
	for _, want := range m.held {
		if v, err := m.ch.TryRecv(); err != nil || v != want {
			m.t.Fatal("held after Close", v, err)
		}
	}
	if _, err := m.ch.TryRecv(); err != ErrClosed {
		m.t.Fatal("after all", err)
	}
}
