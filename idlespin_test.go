package async

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestAdaptiveSpinCountsHitsAndMisses(t *testing.T) {
	k := adaptiveSpin{spinSettings: workerSpinSettings}
	const minHits, maxHits = 4, 4096
	hitsNeeded := func() (n int) {
		for ; !k.pays(); n++ {
			k.slept(true, 0)
		}
		return n
	}
	require.False(t, k.pays())
	require.Equal(t, minHits, hitsNeeded())

	k.slept(false, 0)
	require.False(t, k.pays(), "something else has ended the sleep")
	require.Equal(t, minHits/2, hitsNeeded(), "one such sleep does not clear the hits")
	for range 3 {
		k.slept(false, 0)
	}
	require.Equal(t, minHits, hitsNeeded(), "several do")

	for n := 2 * minHits; n <= maxHits; n *= 2 {
		k.spinMiss()
		require.False(t, k.pays())
		require.Equal(t, n, hitsNeeded())
	}
	k.spinMiss()
	require.Equal(t, maxHits, hitsNeeded(), "spinning is tried again, after any number of misses")

	k.spinHit()
	require.True(t, k.pays())
	k.spinMiss()
	require.Equal(t, 2*minHits, hitsNeeded(), "a hit makes up for all misses")
}

// A worker that spins takes a message that arrives. It goes to sleep if no message arrives, or if
// goroutines are in the queue of its P.
func TestWorkerSpinTakesWhatComes(t *testing.T) {
	ownProcsOnly(t)
	rt := newTestRuntime(t, Config{Workers: 1})
	rt.bringProcs()
	w := newWorker(rt, 0) // driven by the test
	makePay := func() {
		for !w.workerSpin.pays() {
			w.workerSpin.slept(true, 0)
		}
	}
	require.False(t, w.spinForReply(nanos()+time.Hour.Nanoseconds()), "there are no hits")
	makePay()
	require.False(t, w.spinForReply(nanos()))
	require.False(t, w.workerSpin.pays())

	makePay()
	go w.send(&task{})
	require.True(t, w.spinForReply(nanos()+time.Hour.Nanoseconds()))
	require.True(t, w.workerSpin.pays())
	require.NotNil(t, w.takeInbox())

	w.madeRunnable = true
	require.False(t, w.spinForReply(nanos()+time.Hour.Nanoseconds()))
	require.True(t, w.workerSpin.pays())

	shared := newWorker(newTestRuntime(t, Config{Workers: 1, SharedProcs: true}), 0)
	shared.workerSpin = w.workerSpin
	shared.inbox.Store(&task{})
	require.False(t, shared.spinForReply(nanos()), "it has promised to give its P up whenever it waits")
	require.True(t, shared.workerSpin.pays(), "it has not even tried")
}

// A worker spins for a descriptor if the last event was of this descriptor alone. It takes events
// of other descriptors, but they are no hits.
func TestPeerSpinWaitsForOneDescriptor(t *testing.T) {
	ownProcsOnly(t)
	rt := newTestRuntime(t, Config{Workers: 1})
	rt.bringProcs()
	w := newWorker(rt, 0) // driven by the test
	require.NoError(t, w.reactor.open(new(fdTable)))
	defer w.reactor.close()
	var ends [2][2]int
	for i := range ends {
		require.NoError(t, openPipe(&ends[i]))
		defer unix.Close(ends[i][0])
		defer unix.Close(ends[i][1])
		require.NoError(t, w.reactor.poller.add(ends[i][0]))
	}
	w.reactor.wait(0, true) // the first event of a descriptor may bring no data
	send := func(i int) {
		_, err := unix.Write(ends[i][1], []byte{0})
		require.NoError(t, err)
	}
	long := nanos() + time.Hour.Nanoseconds()
	makePay := func() {
		for !w.peerSpin.pays() {
			w.peerSpin.slept(true, 0)
		}
		w.peerFD = ends[0][0]
	}
	send(0)
	require.False(t, w.spinForReply(long), "there are no hits")

	makePay()
	require.True(t, w.spinForReply(long))
	require.True(t, w.peerSpin.pays())
	require.Equal(t, ends[0][0], w.peerFD)

	send(1)
	require.True(t, w.spinForReply(long))
	require.False(t, w.peerSpin.pays(), "an event of another descriptor")
	require.Equal(t, ends[1][0], w.peerFD)

	makePay()
	w.send(&task{})
	require.True(t, w.spinForReply(long))
	require.False(t, w.peerSpin.pays(), "a message of another worker")
	require.NotNil(t, w.takeInbox())
	w.reactor.wait(0, true) // the message may have written to the wake pipe

	makePay()
	require.False(t, w.spinForReply(nanos()))
	require.False(t, w.peerSpin.pays())
	require.Equal(t, 2*peerSpinSettings.minNeeded, w.peerSpin.needed)

	makePay()
	w.madeRunnable = true
	require.False(t, w.spinForReply(long))
	require.True(t, w.peerSpin.pays(), "it has not even tried")

	require.True(t, w.samePeer([]fdEvent{{fd: ends[0][0]}}))
	require.False(t, w.samePeer([]fdEvent{{fd: ends[0][0]}, {fd: ends[1][0]}}), "two at once")
	require.False(t, w.samePeer([]fdEvent{{fd: ends[0][0]}}))
	require.False(t, w.samePeer(nil))
	for range 2 {
		require.False(t, w.samePeer([]fdEvent{{fd: w.reactor.wakeR}}), "another worker has written to the wake pipe")
	}
}

// A client sends one request at a time over a connection, with pauses. Each request is answered.
func TestPeerSpinAnswersEachRequest(t *testing.T) {
	const requests, pauses = 3000, 20
	ends := [2]*Runtime{newTestRuntime(t, Config{Workers: 1}), newTestRuntime(t, Config{Workers: 1})}
	ln, err := ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer ln.Close()
	echo := Go(ends[0], func(cx *Context) error {
		c, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = Copy(cx, plainEnd{c}, plainEnd{c})
		return err
	})
	client := Go(ends[1], func(cx *Context) error {
		c, err := Dial(cx, "tcp", ln.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		b := BindConn(cx, c)
		for i := range requests {
			if i%(requests/pauses) == 0 {
				if err := Sleep(cx, time.Millisecond); err != nil {
					return err
				}
			}
			request := []byte{byte(i), byte(i >> 8)}
			if _, err := b.Write(request); err != nil {
				return err
			}
			got := make([]byte, 2)
			if _, err := io.ReadFull(b, got); err != nil || string(got) != string(request) {
				return expect(false, "%d: %v, %v", i, got, err)
			}
		}
		return nil
	})
	_, err = join(t, client)
	require.NoError(t, err)
	_, err = join(t, echo)
	require.NoError(t, err)
}

// Two workers send messages to each other, with a pause now and then. No message is lost.
func TestWorkerSpinLosesNoMessage(t *testing.T) {
	const messages, pauses = 2000, 20
	rt := newTestRuntime(t, Config{Workers: 2})
	there, back := NewChan[int](0), NewChan[int](0)
	sender := Go(pinned(rt, 0), func(cx *Context) error {
		for i := range messages {
			if i%(messages/pauses) == 0 {
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
	_, err := join(t, sender)
	require.NoError(t, err)
	_, err = join(t, echo)
	require.NoError(t, err)
}
