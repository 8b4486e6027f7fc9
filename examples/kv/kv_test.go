package main

import (
	"context"
	"fmt"
	"io"
	"math/rand"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func init() { patience = 20 * time.Second } // the machines that run the tests are often overloaded

// start runs a server until the test ends, and returns its address.
func start(t *testing.T) string {
	ctx, stop := context.WithCancel(context.Background())
	addr, over := make(chan string, 1), make(chan error, 1)
	go func() { over <- run(ctx, "127.0.0.1:0", func(a net.Addr) { addr <- a.String() }) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-over)
	})
	select {
	case a := <-addr:
		return a
	case err := <-over:
		over <- err
		t.Fatal(err)
		return ""
	}
}

// ask sends text to the server, closes the writing side, and returns all answers of the server.
func ask(t *testing.T, addr, sends string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(c, sends)
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	answers, err := io.ReadAll(c)
	require.NoError(t, err)
	return string(answers)
}

func TestCommands(t *testing.T) {
	addr := start(t)
	begun := time.Now()
	for _, c := range []struct{ sends, answer string }{
		{"PING", "+PONG"},
		{"ping hello", "$5|hello"},
		{"ECHO hi", "$2|hi"},
		{"GET none", "$-1"},
		{"SET a 1", "+OK"},
		{"GET a", "$1|1"},
		{"SET a 2 NX", "$-1"},
		{"SET b 2 XX", "$-1"},
		{"SET b 2 NX XX", "-ERR syntax error"},
		{"SET b 2 EX", "-ERR syntax error"},
		{"SET b 2 EX 0", "-ERR invalid expire time in 'set' command"},
		{"SET b 2 PX 100000", "+OK"},
		{"TTL b", ":100"},
		{"TTL a", ":-1"},
		{"TTL none", ":-2"},
		{"EXPIRE a 100", ":1"},
		{"EXPIRE none 100", ":0"},
		{"EXPIRE a 9223372036854775807", "-ERR value is not an integer or out of range"},
		{"INCR a", ":2"},
		{"TTL a", ":100"},
		{"DECRBY a 12", ":-10"},
		{"INCRBY a x", "-ERR value is not an integer or out of range"},
		{"SET max 9223372036854775807", "+OK"},
		{"INCR max", "-ERR increment or decrement would overflow"},
		{"APPEND s ab", ":2"},
		{"APPEND s cd", ":4"},
		{"INCR s", "-ERR value is not an integer or out of range"},
		{"STRLEN s", ":4"},
		{"SETNX s x", ":0"},
		{"MSET x 1 y 2", "+OK"},
		{"MSET x", "-ERR wrong number of arguments for 'mset' command"},
		{"MGET x none y", "*3|$1|1|$-1|$1|2"},
		{"RPUSH l b c", ":2"},
		{"LPUSH l a", ":3"},
		{"LRANGE l 0 -1", "*3|$1|a|$1|b|$1|c"},
		{"LRANGE l -2 1", "*1|$1|b"},
		{"LRANGE l 5 9", "*0"},
		{"LLEN l", ":3"},
		{"GET l", "-WRONGTYPE Operation against a key holding the wrong kind of value"},
		{"LPUSH s x", "-WRONGTYPE Operation against a key holding the wrong kind of value"},
		{"LPOP l", "$1|a"},
		{"RPOP l", "$1|c"},
		{"RPOP l", "$1|b"},
		{"RPOP l", "$-1"},
		{"EXISTS l a s s", ":3"},
		{"DEL a s none", ":2"},
		{"PEXPIRE x 0", ":1"},
		{"GET x", "$-1"},
		{"DBSIZE", ":3"},
		{"FLUSHALL", "+OK"},
		{"DBSIZE", ":0"},
		{"GET", "-ERR wrong number of arguments for 'get' command"},
		{"NONSENSE", `-ERR unknown command '"NONSENSE"'`},
		{"QUIT", "+OK"},
	} {
		want, answer := strings.ReplaceAll(c.answer, "|", "\r\n")+"\r\n", ask(t, addr, c.sends+"\r\n")
		if strings.HasPrefix(c.sends, "TTL") && c.answer == ":100" { // less the seconds that have passed
			left := 0
			_, err := fmt.Sscanf(answer, ":%d\r\n", &left)
			require.NoError(t, err, answer)
			require.LessOrEqual(t, left, 100, c.sends)
			require.GreaterOrEqual(t, float64(left), 99-time.Since(begun).Seconds(), c.sends)
			continue
		}
		require.Equal(t, want, answer, c.sends)
	}
}

func TestPipelineAndEnd(t *testing.T) {
	addr := start(t)
	get := "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
	set := "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\nv\r\nw\r\n"
	require.Equal(t, "+OK\r\n"+strings.Repeat("$4\r\nv\r\nw\r\n", 5000), ask(t, addr, set+strings.Repeat(get, 5000)))
	require.Equal(t, "+OK\r\n", ask(t, addr, "QUIT\r\n"+get), "nothing is answered after QUIT")
	require.Equal(t, "", ask(t, addr, get[:len(get)-3]), "half a command")
	require.Equal(t, "", ask(t, addr, "\r\n\r\n"))
}

func TestGarbage(t *testing.T) {
	addr := start(t)
	for _, c := range []struct{ sends, answer string }{
		{"*x\r\n", "invalid multibulk length"},
		{"*-1\r\n", "invalid multibulk length"},
		{"*99999999\r\n", "invalid multibulk length"},
		{"*1\r\nPING\r\n", `expected '$', got "PING"`},
		{"*1\r\n$-1\r\n", "invalid bulk length"},
		{"*1\r\n$999999999999\r\n", "invalid bulk length"},
		{"*1\r\n$4\r\nPINGxx", "a bulk string does not end where it should"},
		{strings.Repeat("x", maxInline), "too big a line"},
	} {
		require.Equal(t, "-ERR Protocol error: "+c.answer+"\r\n", ask(t, addr, c.sends))
	}
	require.Equal(t, "+PONG\r\n", ask(t, addr, "PING\r\n"), "the others are served")
}

func TestManyClients(t *testing.T) {
	addr := start(t)
	const clients, each = 20, 200
	over := make(chan string, clients)
	for range clients {
		go func() { over <- ask(t, addr, strings.Repeat("INCR n\r\n", each)) }()
	}
	for range clients {
		require.Equal(t, each, strings.Count(<-over, ":"))
	}
	require.Equal(t, "$4\r\n4000\r\n", ask(t, addr, "GET n\r\n"))
}

// The list behaves like a slice under random operations.
func TestList(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	var l list
	var model []string
	for i := range 20000 {
		s := string(rune('a' + i%26))
		switch op := rng.Intn(4); {
		case op == 0:
			l.pushFront(s)
			model = slices.Insert(model, 0, s)
		case op == 1:
			l.pushBack(s)
			model = append(model, s)
		case len(model) == 0:
		case op == 2:
			require.Equal(t, model[0], l.popFront())
			model = model[1:]
		default:
			require.Equal(t, model[len(model)-1], l.popBack())
			model = model[:len(model)-1]
		}
		require.Equal(t, len(model), l.len())
		if i%100 == 0 {
			require.Equal(t, append([]string(nil), model...), l.between(0, -1))
		}
	}
}
