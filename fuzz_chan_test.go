package async

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// party is a sender or a receiver in a channel under test, with a mock task of its own.
type party struct {
	h      *mockTask
	v      int // the message that it sends
	poll   func() (v int, err error)
	cancel func() (v int, err error) // err is ErrPending if there was no outcome
}

// newRecv returns a receiver that the test polls.
func newRecv(c *Chan[int], firm bool) *party {
	p := &party{h: newMockTask()}
	if firm {
		f := &firmRecv[int]{c: c}
		p.poll = func() (int, error) { return f.Poll(p.h.cx) }
		p.cancel = func() (int, error) {
			if v, ok := f.cancel(); ok {
				return v, nil
			}
			return 0, ErrPending
		}
		return p
	}
	f := c.RecvFuture()
	p.poll = func() (int, error) { return f.Poll(p.h.cx) }
	p.cancel = func() (int, error) { f.Cancel(); return 0, ErrPending }
	return p
}

func newSend(c *Chan[int], v int, firm bool) *party {
	p := &party{h: newMockTask(), v: v}
	if firm {
		p, _ = newFirmSend(c, v)
		return p
	}
	f := c.SendFuture(v)
	p.poll = func() (int, error) { _, err := f.Poll(p.h.cx); return v, err }
	p.cancel = func() (int, error) { f.Cancel(); return v, ErrPending }
	return p
}

func newFirmSend(c *Chan[int], v int) (*party, *firmSend[int]) {
	p, f := &party{h: newMockTask(), v: v}, &firmSend[int]{c: c, v: v}
	p.poll = func() (int, error) { _, err := f.Poll(p.h.cx); return v, err }
	p.cancel = func() (int, error) { return v, f.cancel() }
	return p, f
}

// goModel is a Go channel and the parties that would wait for it.
type goModel struct {
	c            chan int
	recvs, sends []*party
	closed       bool
}

// send sends v for p, which waits if there is no room. It reports the outcome, and which receiver
// got v, if a receiver waited.
func (m *goModel) send(p *party, v int) (err error, to *party) {
	switch {
	case m.closed:
		return ErrClosed, nil
	case len(m.recvs) > 0:
		to, m.recvs = m.recvs[0], m.recvs[1:]
		return nil, to
	}
	select {
	case m.c <- v:
		return nil, nil
	default:
		if p != nil {
			m.sends = append(m.sends, p)
			return ErrPending, nil
		}
		return ErrFull, nil
	}
}

// recv receives for p, which waits if there is no message. It also reports the sender whose message
// this has let through.
func (m *goModel) recv(p *party) (v int, err error, from *party) {
	select {
	case got, open := <-m.c:
		if !open {
			return 0, ErrClosed, nil
		}
		if len(m.sends) > 0 {
			from, m.sends = m.sends[0], m.sends[1:]
			m.c <- from.v
		}
		return got, nil, from
	default:
	}
	switch {
	case len(m.sends) > 0: // a rendezvous
		from, m.sends = m.sends[0], m.sends[1:]
		return from.v, nil, from
	case p != nil:
		m.recvs = append(m.recvs, p)
		return 0, ErrPending, nil
	}
	return 0, ErrEmpty, nil
}

// FuzzChan compares a Chan with a Go channel. After each operation all woken parties poll. Then the
// same messages are there, the same parties wait, and the other parties have got the same results.
func FuzzChan(f *testing.F) {
	f.Add(uint8(0), []byte{2, 0, 6, 1, 3, 0, 4, 7, 5})
	f.Add(uint8(1), []byte{0, 0, 2, 2, 3, 6, 4, 4, 4, 4, 7, 1, 1})
	f.Add(uint8(2), []byte{3, 3, 3, 0, 6, 14, 22, 0, 0, 2, 2, 2, 1, 1, 5, 1, 1, 1, 1})
	f.Add(uint8(0), []byte{3, 11, 3, 11, 2, 10, 1, 6, 5})
	for i, script := range scripts(100, 200) {
		f.Add(uint8(i), script)
	}
	f.Fuzz(func(t *testing.T, capacity uint8, ops []byte) {
		limit := int(capacity % 4)
		c, m := NewChan[int](limit), &goModel{c: make(chan int, limit)}
		var waiting []*party
		var next int
		// expect has the outcome that a party must get when it polls.
		type outcome struct {
			v   int
			err error
		}
		expect := map[*party]outcome{}
		remove := func(all []*party, p *party) []*party {
			return slices.DeleteFunc(all, func(q *party) bool { return q == p })
		}
		for _, op := range ops {
			// At a rendezvous, parties that are not bound may miss each other.
			firm := op&8 != 0 || limit == 0
			switch op % 8 {
			case 0:
				next++
				err, to := m.send(nil, next)
				if to != nil {
					expect[to] = outcome{next, nil}
				}
				require.Equal(t, err, c.TrySend(next))
			case 1:
				v, err, from := m.recv(nil)
				if from != nil {
					expect[from] = outcome{from.v, nil}
				}
				got, gotErr := c.TryRecv()
				require.Equal(t, err, gotErr)
				require.Equal(t, v, got)
			case 2:
				p := newRecv(c, firm)
				v, err, from := m.recv(p)
				if from != nil {
					expect[from] = outcome{from.v, nil}
				}
				got, gotErr := p.poll()
				require.Equal(t, err, gotErr)
				require.Equal(t, v, got)
				if err == ErrPending {
					waiting = append(waiting, p)
				}
			case 3:
				next++
				p := newSend(c, next, firm)
				err, to := m.send(p, next)
				if to != nil {
					expect[to] = outcome{next, nil}
				}
				_, gotErr := p.poll()
				require.Equal(t, err, gotErr)
				if err == ErrPending {
					waiting = append(waiting, p)
				}
			case 4: // ForceSend
				next++
				var old int
				displaced := false
				err, to := m.send(nil, next)
				switch {
				case to != nil:
					expect[to] = outcome{next, nil}
				case err == ErrFull && limit == 0:
					old, displaced, err = next, true, nil
				case err == ErrFull:
					old, displaced, err = <-m.c, true, nil
					m.c <- next
				}
				gotOld, gotDisplaced, gotErr := c.ForceSend(next)
				require.Equal(t, []any{old, displaced, err}, []any{gotOld, gotDisplaced, gotErr})
			case 5:
				first := !m.closed
				if first {
					m.closed = true
					close(m.c)
					for _, p := range append(m.sends, m.recvs...) {
						expect[p] = outcome{p.v, ErrClosed}
					}
					m.sends, m.recvs = nil, nil
				}
				require.Equal(t, first, c.Close() == nil)
			default: // cancel
				if len(waiting) > 0 {
					p := waiting[int(op/8)%len(waiting)]
					waiting = remove(waiting, p)
					m.sends, m.recvs = remove(m.sends, p), remove(m.recvs, p)
					_, err := p.cancel()
					require.Equal(t, ErrPending, err)
				}
			}
			for again := true; again; {
				again = false
				for _, p := range slices.Clone(waiting) {
					if !p.h.woken() {
						continue
					}
					again = true
					if v, err := p.poll(); err != ErrPending {
						require.Contains(t, expect, p)
						require.Equal(t, expect[p], outcome{v, err})
						delete(expect, p)
						waiting = remove(waiting, p)
					}
				}
			}
			require.Empty(t, expect)
			require.Equal(t, len(m.c), c.Len())
			senders, receivers := c.waitingCounts()
			require.Equal(t, []int{len(m.sends), len(m.recvs)}, []int{senders, receivers})
			requireNoLostWakes(t, c)
		}
	})
}

// FuzzChanCancel has parties poll and give up at any moment, even after they were woken. It uses
// permits, ForceSend, and parties that poll without a place.
//
//  1. A message that was sent is received once and in order, or is displaced, or is there at the
//     end.
//  2. A message that was not sent is not received.
//  3. At the end no party waits for a message, or room, that is there.
func FuzzChanCancel(f *testing.F) {
	f.Add(uint8(0), []byte{2, 3, 5, 2, 4, 1, 3, 2, 5, 4, 4, 4})
	f.Add(uint8(1), []byte{0, 3, 3, 6, 1, 5, 13, 5, 1, 1, 7, 15, 8, 9})
	f.Add(uint8(2), []byte{6, 6, 6, 1, 5, 2, 2, 2, 7, 23, 5, 13, 4, 12, 20, 8, 8, 9, 9})
	f.Add(uint8(0), []byte{3, 3, 3, 10, 2, 5, 1, 10, 2, 22, 10, 4, 1, 1})
	f.Add(uint8(4), []byte{2, 2, 10, 10, 4, 5, 1, 3, 13, 6, 7, 10, 1, 1, 1})
	for i, script := range scripts(100, 200) {
		f.Add(uint8(i), script)
	}
	f.Fuzz(func(t *testing.T, capacity uint8, ops []byte) {
		c := NewChan[int](int(capacity % 5))
		if capacity%5 == 4 {
			c = NewUnboundedChan[int]()
		}
		var waiting []*party
		var permits []*Permit[int]
		next := 0
		sent, received := map[int]bool{}, map[int]bool{}
		var entered []int // the messages that were sent, in order
		enter := func(v int) {
			if !sent[v] {
				sent[v] = true
				entered = append(entered, v)
			}
		}
		// offers has the senders that wait in Send, in order. Any operation may send the
		// messages that they offer, after the messages that it sends itself.
		var offers []*firmSend[int]
		enterOffers := func() {
			offers = slices.DeleteFunc(offers, func(f *firmSend[int]) bool {
				if f.w.phase == waiterChosen && f.w.want == chanSent {
					enter(f.v)
				}
				return f.w.phase != waiterIn
			})
		}
		take := func(v int) {
			enterOffers() // at a rendezvous the message may have been an offer
			require.False(t, received[v], "%d is received twice", v)
			received[v] = true
			require.Zero(t, slices.Index(entered, v), "%d overtakes %v", v, entered)
			entered = entered[1:]
		}
		type kind int
		const (
			receiver kind = iota
			sender
			reserver
		)
		kinds := map[*party]kind{}
		finish := func(p *party, v int, err error) {
			if err == ErrPending {
				return
			}
			waiting = slices.DeleteFunc(waiting, func(q *party) bool { return q == p })
			switch {
			case err != nil:
				require.Equal(t, ErrClosed, err)
				require.True(t, c.IsClosed())
			case kinds[p] == receiver:
				take(v)
			case kinds[p] == sender:
				enter(v)
			}
		}
		poll := func(p *party) {
			p.h.woken()
			v, err := p.poll()
			finish(p, v, err)
		}
		join := func(p *party, k kind) {
			kinds[p] = k
			waiting = append(waiting, p)
			poll(p)
		}
		poller := newMockTask()
		for _, op := range ops {
			arg := int(op / 11)
			switch op % 11 {
			case 0:
				if next++; c.TrySend(next) == nil {
					enter(next)
				}
			case 1:
				if v, err := c.TryRecv(); err == nil {
					take(v)
				}
			case 2:
				join(newRecv(c, arg%2 == 0), receiver)
			case 3:
				next++
				if arg%2 == 0 {
					p, f := newFirmSend(c, next)
					join(p, sender)
					offers = append(offers, f)
				} else {
					join(newSend(c, next, false), sender)
				}
			case 4:
				if len(waiting) > 0 {
					poll(waiting[arg%len(waiting)])
				}
			case 5:
				if len(waiting) > 0 {
					p := waiting[arg%len(waiting)]
					v, err := p.cancel()
					finish(p, v, err)
					waiting = slices.DeleteFunc(waiting, func(q *party) bool { return q == p })
				}
			case 6:
				r := c.ReserveFuture()
				p := &party{h: newMockTask()}
				p.poll = func() (int, error) {
					permit, err := r.Poll(p.h.cx)
					if err == nil {
						permits = append(permits, permit)
					}
					return 0, err
				}
				p.cancel = func() (int, error) { giveUp(nil, r); return 0, ErrPending }
				join(p, reserver)
			case 7:
				if len(permits) > 0 {
					i := arg % len(permits)
					if arg%3 == 0 {
						permits[i].Release()
					} else {
						next++
						permits[i].Send(next)
						enter(next)
					}
					permits = slices.Delete(permits, i, i+1)
				}
			case 8:
				if v, err := c.PollNext(poller.cx); err == nil {
					take(v)
				}
			case 9:
				if arg > 20 {
					c.Close()
				} else if next++; c.TrySend(next) == nil {
					enter(next)
				}
			case 10:
				next++
				switch old, displaced, err := c.ForceSend(next); {
				case err != nil:
					require.Equal(t, ErrClosed, err)
				case old == next:
					require.Zero(t, c.ring.n)
				default:
					enter(next)
					if displaced {
						take(old)
					}
				}
			}
			enterOffers()
			require.Equal(t, len(entered), c.ring.n)
		}
		// All woken parties poll, until no party is woken.
		for again := true; again; {
			again = false
			for _, p := range slices.Clone(waiting) {
				if p.h.woken() {
					again = true
					poll(p)
				}
			}
		}
		requireNoLostWakes(t, c)
		for _, p := range slices.Clone(waiting) {
			v, err := p.cancel()
			finish(p, v, err)
		}
		requireNoLostWakes(t, c)
		for {
			v, err := c.TryRecv()
			if err != nil {
				break
			}
			take(v)
		}
		for _, p := range permits {
			p.Release()
		}
		require.Equal(t, sent, received)
		require.Empty(t, c.ring.n)
		require.Zero(t, c.recvs.promised+c.sends.promised+c.reserved)
	})
}

// FuzzBroadcast compares a Broadcast with a slice of all messages. Each subscriber polls with and
// without a future, which is given up now and then.
func FuzzBroadcast(f *testing.F) {
	f.Add(uint8(0), []byte{0, 0, 1, 2, 10, 0, 0, 0, 2, 10, 3, 2, 4})
	f.Add(uint8(3), []byte{1, 1, 0, 0, 2, 0, 0, 0, 0, 0, 10, 2, 2, 5, 0, 13, 4, 2, 2})
	for i, script := range scripts(100, 200) {
		f.Add(uint8(i), script)
	}
	f.Fuzz(func(t *testing.T, capacity uint8, ops []byte) {
		n := int(capacity%4) + 1
		b := NewBroadcast[int](n)
		var all []int
		type subscriber struct {
			s     *Subscription[int]
			h, by *mockTask // by polls f
			f     Future[int]
			next  int
			gone  bool
			waits *pubsubModel
		}
		var subs []*subscriber
		closed, alive := false, 0
		for _, op := range ops {
			switch op % 8 {
			case 0:
				count, err := b.Send(len(all))
				if closed {
					require.Equal(t, ErrClosed, err)
					break
				}
				require.NoError(t, err)
				require.Equal(t, alive, count)
				all = append(all, len(all))
				for _, s := range subs {
					s.waits.call(len(all) - s.next)
				}
			case 1:
				s := &subscriber{s: b.Subscribe(), h: newMockTask(), by: newMockTask(), next: len(all), waits: newPubsubModel(math.MaxInt)}
				s.f = s.s.recvFuture()
				subs = append(subs, s)
				alive++
			case 3:
				if len(subs) > 0 {
					s := subs[int(op/8)%len(subs)]
					if s.s.Close(); !s.gone {
						s.gone = true
						alive--
						s.waits.callAll()
					}
				}
			case 4:
				if op/8 > 24 {
					require.Equal(t, !closed, b.Close() == nil)
					closed = true
					for _, s := range subs {
						s.waits.callAll()
					}
				}
			default:
				if len(subs) == 0 {
					break
				}
				s := subs[int(op/8)%len(subs)]
				if op%8 == 5 {
					giveUp(nil, s.f)
					s.waits.leave(s.by)
					s.waits.call(len(all) - s.next)
					break
				}
				h, poll := s.h, s.s.pollRecv
				if op%8 == 6 {
					h, poll = s.by, s.f.Poll
				}
				v, err := poll(h.cx)
				oldest := max(0, len(all)-n)
				s.waits.polled(h, err == ErrPending)
				switch {
				case s.gone:
					require.Equal(t, ErrClosed, err)
				case s.next < oldest:
					var lagged *LaggedError
					require.ErrorAs(t, err, &lagged)
					require.EqualValues(t, oldest-s.next, lagged.Missed)
					s.next = oldest
				case s.next < len(all):
					require.NoError(t, err)
					require.Equal(t, s.next, v)
					s.next++
				case closed:
					require.Equal(t, ErrClosed, err)
				default:
					require.Equal(t, ErrPending, err)
				}
			}
			require.Equal(t, alive, b.subscribers())
			for _, s := range subs {
				s.waits.check(t, s.h, s.by)
			}
		}
		for _, s := range subs {
			giveUp(nil, s.f)
			s.s.Close()
			_, err := s.s.pollRecv(s.h.cx)
			require.Equal(t, ErrClosed, err)
		}
		require.Zero(t, b.topic.count())
	})
}

// FuzzWatch compares a Watch with a count of its changes. Each watcher polls with and without a
// future, which is given up now and then.
func FuzzWatch(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 3, 0, 0, 2, 2, 4, 2})
	for _, script := range scripts(100, 200) {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		w := NewWatch(0)
		type watcher struct {
			r     *Watcher[int]
			h, by *mockTask // by polls f
			f     Future[int]
			seen  int
			waits *pubsubModel
		}
		var all []*watcher
		set, closed := 0, false
		for _, op := range ops {
			switch op % 8 {
			case 0:
				if closed {
					require.Equal(t, ErrClosed, w.Set(set+1))
					break
				}
				set++
				require.NoError(t, w.Set(set))
				for _, r := range all {
					r.waits.call(set - r.seen)
				}
			case 1:
				r := &watcher{r: w.Watch(), h: newMockTask(), by: newMockTask(), seen: set, waits: newPubsubModel(1)}
				r.f = r.r.changedFuture()
				all = append(all, r)
			case 4:
				if op/8 > 28 {
					require.Equal(t, !closed, w.Close() == nil)
					closed = true
					for _, r := range all {
						r.waits.callAll()
					}
				}
			default:
				if len(all) == 0 {
					break
				}
				r := all[int(op/8)%len(all)]
				require.Equal(t, r.seen != set, r.r.HasChanged())
				h, poll := r.h, r.r.pollChanged
				switch op % 8 {
				case 3:
					require.Equal(t, set, r.r.Get())
					r.seen = set
					continue
				case 5:
					giveUp(nil, r.f)
					r.waits.leave(r.by)
					r.waits.call(set - r.seen)
					r.waits.check(t, r.h, r.by)
					continue
				case 6:
					h, poll = r.by, r.f.Poll
				}
				v, err := poll(h.cx)
				r.waits.polled(h, err == ErrPending)
				switch {
				case r.seen != set:
					require.NoError(t, err)
					require.Equal(t, set, v)
					r.seen = set
				case closed:
					require.Equal(t, ErrClosed, err)
				default:
					require.Equal(t, ErrPending, err)
				}
			}
			require.Equal(t, set, w.Get())
			for _, r := range all {
				r.waits.check(t, r.h, r.by)
			}
		}
		w.Close()
		for _, r := range all {
			giveUp(nil, r.f)
			r.r.Get()
			_, err := r.r.pollChanged(r.h.cx)
			require.Equal(t, ErrClosed, err)
		}
		require.Zero(t, w.topic.count())
	})
}
