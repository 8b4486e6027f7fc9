package async

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newsOf is a subscriber of messages or changes, for tests that do the same with both kinds. A
// piece of news is a message or a change.
type newsOf struct {
	name    string
	publish func()
	future  func() Future[int]
	try     func() bool // takes a piece of news, if there is one
	each    bool        // each piece of news is for a task of its own
}

func bothKindsOfNews() []newsOf {
	b := NewBroadcast[int](1_000)
	s := b.Subscribe()
	w := NewWatch(0)
	r := w.Watch()
	return []newsOf{
		{"Subscription", func() { b.Send(1) }, s.recvFuture, func() bool { _, err := s.TryRecv(); return err == nil }, true},
		{"Watcher", func() { w.Set(1) }, r.changedFuture, func() bool { defer r.Get(); return r.HasChanged() }, false},
	}
}

// Many tasks wait with one subscription, or one watcher. An event wakes only as many of them as it
// can serve: one.
func TestPubsubWakesOneTaskOfEachSubscriber(t *testing.T) {
	const n = 50
	for _, x := range bothKindsOfNews() {
		t.Run(x.name, func(t *testing.T) {
			hs, fs := make([]*mockTask, n), make([]Future[int], n)
			for i := range n {
				hs[i], fs[i] = newMockTask(), x.future()
				pending(t, hs[i], fs[i])
			}
			woken := func() (which []int) {
				for i, h := range hs {
					if h.woken() {
						which = append(which, i)
					}
				}
				return which
			}
			for i := range 10 { // one after the other
				x.publish()
				require.Equal(t, []int{i}, woken())
				_, err := fs[i].Poll(hs[i].cx)
				require.NoError(t, err)
			}
			want := []int{10}
			if x.each {
				want = []int{10, 11, 12, 13, 14}
			}
			for range 5 { // before the woken tasks run
				x.publish()
			}
			require.Equal(t, want, woken())
			for i := range want {
				_, err := fs[10+i].Poll(hs[10+i].cx)
				require.NoError(t, err)
			}
			for _, f := range fs {
				giveUp(nil, f)
			}
			x.publish()
			require.Empty(t, woken(), "a task that has given up is woken")
		})
	}
}

// When a task that was woken for news gives up, the next task is woken. A woken task that finds no
// news goes back to the front.
func TestPubsubPassesTheWakeOn(t *testing.T) {
	for _, x := range bothKindsOfNews() {
		t.Run(x.name, func(t *testing.T) {
			h1, h2, h3 := newMockTask(), newMockTask(), newMockTask()
			f1, f2, f3 := x.future(), x.future(), x.future()
			pending(t, h1, f1)
			pending(t, h2, f2)
			pending(t, h3, f3)
			x.publish()
			require.True(t, h1.woken())
			require.False(t, h2.woken() || h3.woken())
			giveUp(nil, f1)
			require.True(t, h2.woken(), "the news is passed on")
			require.False(t, h3.woken())

			require.True(t, x.try(), "another caller is faster")
			pending(t, h2, f2)
			x.publish()
			require.True(t, h2.woken(), "it has kept its place")
			require.False(t, h3.woken())
			require.True(t, x.try())
			giveUp(nil, f2)
			require.False(t, h3.woken(), "there is nothing to pass on")
			x.publish()
			require.True(t, h3.woken())
			_, err := f3.Poll(h3.cx)
			require.NoError(t, err)
		})
	}
}

// Many tasks share the messages of one subscription, and awaits are cancelled all the time. Each
// message is received once, and no task sleeps while there is a message.
func TestBroadcastSharedExactlyOnce(t *testing.T) {
	const tasks, messages, burst = 8, 4_000, 64
	rt := newTestRuntime(t, Config{Workers: 2})
	b := NewBroadcast[int](messages)
	s := b.Subscribe()
	received := make(chan None, messages)
	var hs []*JoinHandle[[]int]
	for i := range tasks {
		hs = append(hs, Spawn(rt, func(cx *Context) (got []int, err error) {
			for n := i; ; n++ {
				in, cancel := cx.WithCancel()
				if n%3 == 0 {
					Go(cx, func(*Context) error { cancel(); return nil })
				}
				v, err := s.Recv(in)
				cancel()
				switch {
				case err == nil:
					got = append(got, v)
					received <- None{}
				case err == ErrClosed:
					return got, nil
				case cx.Err() != nil:
					return nil, err
				}
			}
		}))
	}
	for i := range messages {
		b.Send(i)
		if i%burst == burst-1 {
			for range burst {
				receive(t, received)
			}
		}
	}
	b.Close()
	seen := make([]int, messages)
	for _, h := range hs {
		got, err := join(t, h)
		require.NoError(t, err)
		for _, v := range got {
			seen[v]++
		}
	}
	for v, n := range seen {
		require.Equal(t, 1, n, "message %d", v)
	}
}

// Close of a subscription looks only at the tasks that wait with it, and not at the tasks of other
// subscriptions. With 250 times as many other tasks, it must not cost 25 times as much. The
// quickest of several tries counts, since other programs may use the processor.
func TestSubscriptionCloseCost(t *testing.T) {
	const few, many, closes, tries = 200, 50_000, 100, 30
	crowd := func(n int) (b *Broadcast[int]) {
		b = NewBroadcast[int](1)
		for range n {
			pending(t, newMockTask(), b.Subscribe().recvFuture())
		}
		return b
	}
	cost := func(b *Broadcast[int]) time.Duration {
		var all []*Subscription[int]
		var hs []*mockTask
		for range closes {
			s, h := b.Subscribe(), newMockTask()
			pending(t, h, s.recvFuture())
			all, hs = append(all, s), append(hs, h)
		}
		begun := time.Now()
		for _, s := range all {
			s.Close()
		}
		took := time.Since(begun)
		for _, h := range hs {
			require.True(t, h.woken())
		}
		return took
	}
	small, large := crowd(few), crowd(many)
	beside := [2]time.Duration{cost(small), cost(large)}
	for range tries {
		beside = [2]time.Duration{min(beside[0], cost(small)), min(beside[1], cost(large))}
	}
	require.Less(t, beside[1], 25*beside[0], "%d closes beside %d and beside %d tasks", closes, few, many)
}
