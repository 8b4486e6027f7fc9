package async

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTalk(t *testing.T) {
	var k talk
	words := func() (n int) {
		for ; !k.goesOn(); n++ {
			k.slept(true)
		}
		return n
	}
	require.False(t, k.goesOn())
	require.Equal(t, talkAfter, words())

	k.slept(false)
	require.False(t, k.goesOn(), "something else has ended the sleep")
	require.Equal(t, talkAfter/2, words(), "one such sleep does not make all forgotten")
	for range 3 {
		k.slept(false)
	}
	require.Equal(t, talkAfter, words(), "several do")

	for n := 2 * talkAfter; n <= talkLimit; n *= 2 {
		k.inVain()
		require.False(t, k.goesOn())
		require.Equal(t, n, words())
	}
	k.inVain()
	require.Equal(t, talkLimit, words(), "it is tried again, however often it was in vain")

	k.answered()
	require.True(t, k.goesOn())
	k.inVain()
	require.Equal(t, 2*talkAfter, words(), "an answer makes up for all that was in vain")
}

// A worker that lingers takes what comes, and goes to sleep if nothing does, or
// if goroutines stand in the queue of its P.
func TestLinger(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	w := newWorker(rt, 0) // driven by hand
	talking := func() {
		for !w.talk.goesOn() {
			w.talk.slept(true)
		}
	}
	require.False(t, w.linger(nanos()+time.Hour.Nanoseconds()), "nobody talks")
	talking()
	require.False(t, w.linger(nanos()))
	require.False(t, w.talk.goesOn())

	talking()
	go w.send(&task{})
	require.True(t, w.linger(nanos()+time.Hour.Nanoseconds()))
	require.True(t, w.talk.goesOn())
	require.NotNil(t, w.takeInbox())

	w.unparked = true
	require.False(t, w.linger(nanos()+time.Hour.Nanoseconds()))
	require.True(t, w.talk.goesOn())

	shared := newWorker(newTestRuntime(t, Config{Workers: 1, SharedProcs: true}), 0)
	shared.talk = w.talk
	shared.inbox.Store(&task{})
	require.False(t, shared.linger(nanos()), "it has promised to give its P up whenever it waits")
	require.True(t, shared.talk.goesOn(), "it has not even tried")
}

// Words that go to and fro between two workers, and now and then stop for a while:
// none is lost.
func TestTalkBetweenWorkers(t *testing.T) {
	const words, pauses = 2000, 20
	rt := newTestRuntime(t, Config{Workers: 2})
	there, back := NewChan[int](0), NewChan[int](0)
	speaker := Go(pinned(rt, 0), func(cx *Context) error {
		for i := range words {
			if i%(words/pauses) == 0 {
				if err := Sleep(cx, time.Millisecond); err != nil {
					return err
				}
			}
			if err := there.Send(cx, i); err != nil {
				return err
			}
			if got, err := back.Recv(cx); err != nil || got != i {
				return expect(false, "%d: %d, %v", i, got, err)
			}
		}
		there.Close()
		return nil
	})
	echo := Go(pinned(rt, 1), func(cx *Context) error {
		for i := range there.All(cx) {
			if err := back.Send(cx, i); err != nil {
				return err
			}
		}
		return nil
	})
	_, err := join(t, speaker)
	require.NoError(t, err)
	_, err = join(t, echo)
	require.NoError(t, err)
}
