package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/async"
)

func init() { patience = 20 * time.Second } // the machines that run the tests are often overloaded

// start runs a server until the test ends, and returns its address.
func start(t *testing.T) string {
	ctx, stop := context.WithCancel(context.Background())
	ready, over := make(chan string, 1), make(chan error, 1)
	go func() {
		over <- run(ctx, "chat-server", func(cx *async.Context) error {
			return serve(cx, "127.0.0.1:0", func(a net.Addr) { ready <- a.String() })
		})
	}()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-over)
	})
	return <-ready
}

// user is a client of the test.
type user struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func enter(t *testing.T, addr, name string) *user {
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	u := &user{t, c, bufio.NewReader(c)}
	u.say(name)
	return u
}

func (u *user) say(line string) {
	_, err := fmt.Fprintln(u, line)
	require.NoError(u.t, err)
}

func (u *user) hears(want string) {
	u.t.Helper()
	line, err := u.r.ReadString('\n')
	require.NoError(u.t, err)
	require.Equal(u.t, want, strings.TrimSpace(line))
}

func TestConversation(t *testing.T) {
	addr := start(t)
	ann := enter(t, addr, "ann")
	ann.say("nobody: hello?")
	ann.hears("* there is no nobody") // the answer shows that the broker has admitted ann
	bob := enter(t, addr, "bob")
	ann.hears("* bob has come")
	eve := enter(t, addr, "eve")
	ann.hears("* eve has come")
	bob.hears("* eve has come")

	ann.say("to all")
	bob.hears("ann: to all")
	eve.hears("ann: to all")
	ann.say("bob: for you")
	bob.hears("ann: for you")
	bob.say("ann, eve: for both")
	ann.hears("bob: for both")
	eve.hears("bob: for both")

	eve.Close()
	ann.hears("* eve has left")
	bob.hears("* eve has left")
}

func TestNames(t *testing.T) {
	addr := start(t)
	enter(t, addr, "").hears("* a name has 1 to 32 letters, and no colon, comma or space")
	enter(t, addr, "a b").hears("* a name has 1 to 32 letters, and no colon, comma or space")
	ann := enter(t, addr, "ann")
	ann.say("x:y")
	ann.hears("* there is no x")
	enter(t, addr, "ann").hears("* that name is taken")
}

// A client that does not read delays no other client. It gets a line with the number of messages
// that were dropped.
func TestSlowReader(t *testing.T) {
	slow := &peer{name: "slow", out: async.NewChan[string](backlog)}
	for i := range backlog + 10 {
		slow.tell(fmt.Sprint(i))
	}
	require.Equal(t, 10, slow.lost)
	for range 2 {
		_, err := slow.out.TryRecv()
		require.NoError(t, err)
	}
	slow.tell("more")
	require.Zero(t, slow.lost)
	var all []string
	for slow.out.Len() > 0 {
		line, err := slow.out.TryRecv()
		require.NoError(t, err)
		all = append(all, line)
	}
	require.Equal(t, []string{"* 10 messages were lost; you read too slowly", "more"}, all[len(all)-2:])
}

// The program's own client.
func TestTalk(t *testing.T) {
	addr := start(t)
	ann := enter(t, addr, "ann")
	ann.say("x:y")
	ann.hears("* there is no x")
	in, words, err := async.Pipe()
	require.NoError(t, err)
	var out lines
	over := make(chan error, 1)
	go func() {
		over <- run(t.Context(), "chat-client", func(cx *async.Context) error { return talk(cx, addr, in, &out) })
	}()
	write := func(line string) {
		_, err := async.BlockOn(async.Default(), func(cx *async.Context) (int, error) { return words.WriteString(cx, line) })
		require.NoError(t, err)
	}
	write("bob\n")
	ann.hears("* bob has come")
	ann.say("hello bob")
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "ann: hello bob") }, patience, time.Millisecond)
	write("ann: hello ann\n")
	ann.hears("bob: hello ann")
	_, err = async.BlockOn(async.Default(), func(cx *async.Context) (async.None, error) { return async.None{}, words.Close(cx) })
	require.NoError(t, err)
	ann.hears("* bob has left")
	require.NoError(t, <-over)
}

// lines is an async.Writer to memory.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(_ *async.Context, p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
