package async

import (
	"context"
	"io"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// raise sends the program a signal, and returns when s has stored it.
func raise(t *testing.T, s *SignalStream, sig syscall.Signal) {
	t.Helper()
	before := s.count()
	require.NoError(t, syscall.Kill(os.Getpid(), sig))
	eventually(t, func() bool { return s.count() > before })
}

func (s *SignalStream) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending)
}

func TestSignalsByHand(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s := Signals(syscall.SIGUSR1, syscall.SIGUSR2)
	defer s.Close()
	cx, wakes := newPollCx(t, rt)
	_, err := s.PollNext(cx)
	require.Equal(t, ErrPending, err)
	raise(t, s, syscall.SIGUSR1)
	eventually(t, func() bool { return wakes.Load() == 1 })
	raise(t, s, syscall.SIGUSR2)
	s.note(syscall.SIGUSR1) // again, before it is read
	for _, want := range []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2} {
		sig, err := s.PollNext(cx)
		require.NoError(t, err)
		require.Equal(t, want, sig)
	}
	_, err = s.PollNext(cx)
	require.Equal(t, ErrPending, err)
}

func TestSignalsEnd(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	s := Signals(syscall.SIGUSR1)
	got := make(chan os.Signal, 1)
	h := Go(rt, func(cx *Context) error {
		for sig, err := range s.All(cx) {
			if err != nil {
				return err
			}
			got <- sig
		}
		return nil
	})
	eventually(t, func() bool { return waiting(h) })
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	require.Equal(t, syscall.SIGUSR1, receive(t, got))
	require.NoError(t, s.Close())
	require.Equal(t, ErrClosed, s.Close())
	_, err := join(t, h)
	require.NoError(t, err)
	require.Empty(t, got)
	runInTask(t, rt, func(cx *Context) error {
		_, err := s.Next(cx)
		require.Equal(t, io.EOF, err)
		return nil
	})
}

// Signals that os/signal has sent before Close are read before the end, even if the stream's
// goroutine runs only later.
func TestSignalsCloseKeeps(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 1})
	s := &SignalStream{in: make(chan os.Signal, 1)}
	s.in <- syscall.SIGTERM
	require.NoError(t, s.Close())
	cx, wakes := newPollCx(t, rt)
	_, err := s.PollNext(cx)
	require.Equal(t, ErrPending, err)
	s.receive()
	require.Positive(t, wakes.Load())
	sig, err := s.PollNext(cx)
	require.NoError(t, err)
	require.Equal(t, syscall.SIGTERM, sig)
	_, err = s.PollNext(cx)
	require.Equal(t, io.EOF, err)
}

// Several tasks wait: a signal goes to one of them, and a task that gives up loses
// no signal.
func TestSignalsCancel(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	s := Signals(syscall.SIGUSR1)
	defer s.Close()
	next := func(cx *Context) (os.Signal, error) { return s.Next(cx) }
	gives, takes := Spawn(rt, next), Spawn(rt, next)
	eventually(t, func() bool { return waiting(gives) && waiting(takes) })
	gives.Cancel()
	_, err := join(t, gives)
	require.Equal(t, context.Canceled, err)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	sig, err := join(t, takes)
	require.NoError(t, err)
	require.Equal(t, syscall.SIGUSR1, sig)
}

// Each of many signals of one kind is seen, or a later signal of this kind is.
func TestSignalsManyReaders(t *testing.T) {
	rt := newTestRuntime(t, Config{Workers: 2})
	s := Signals(syscall.SIGUSR1, syscall.SIGUSR2)
	const rounds = 200
	var hs []*JoinHandle[int]
	for range 3 {
		hs = append(hs, Spawn(rt, func(cx *Context) (n int, err error) {
			for _, err := range s.All(cx) {
				if err != nil {
					return n, err
				}
				n++
			}
			return n, nil
		}))
	}
	for range rounds {
		s.note(syscall.SIGUSR1)
		s.note(syscall.SIGUSR2)
		eventually(t, func() bool { return s.count() == 0 })
	}
	s.Close()
	total := 0
	for _, h := range hs {
		n, err := join(t, h)
		require.NoError(t, err)
		total += n
	}
	require.Equal(t, 2*rounds, total)
}

// The signal that Go sends to its own threads is not among all signals, but a stream can name it.
func TestSignalsLeaveOutGosOwn(t *testing.T) {
	all, own := Signals(), Signals(syscall.SIGURG)
	defer all.Close()
	defer own.Close()
	raise(t, own, syscall.SIGURG)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	has := func(sig os.Signal) bool { // the channel keeps the order, so earlier signals have arrived, too
		all.mu.Lock()
		defer all.mu.Unlock()
		return slices.Contains(all.pending, sig)
	}
	eventually(t, func() bool { return has(syscall.SIGUSR1) })
	require.False(t, has(syscall.SIGURG))
	sig, err := own.take()
	require.NoError(t, err)
	require.Equal(t, syscall.SIGURG, sig)
}
