package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"strings"
	"syscall"

	"example.com/async"
)

const (
	maxName = 32
	maxLine = 4096

	// backlog is how many messages may wait for a client that reads slowly.
	// Those that come after it are dropped, and the client is told: a slow
	// reader must not hold up the others, nor fill the memory.
	backlog = 64
)

// event is what the broker is told.
type event struct {
	from   *peer
	joined *async.Chan[error] // not nil: the peer comes, and wants to know whether it may
	line   string             // what it says; empty: it leaves
}

// peer is one client.
type peer struct {
	name string
	out  *async.Chan[string]
	lost int // messages; the broker's
}

// serve accepts clients until the runtime is shut down.
func serve(cx *async.Context, addr string, ready func(net.Addr)) error {
	ln, err := async.Listen(cx, "tcp", addr)
	if err != nil {
		return err
	}
	defer ln.Close()
	ready(ln.Addr())
	events := async.NewChan[event](backlog)
	defer events.Close()
	async.Go(cx.Named("broker"), func(cx *async.Context) error { return broker(cx, events) })
	for {
		conn, err := ln.Accept(cx)
		if errors.Is(err, async.ErrShutdown) || cx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		async.Go(cx.Named("client"), func(cx *async.Context) error {
			defer conn.Close()
			return client(cx, conn, events)
		})
	}
}

// broker knows who is there and passes messages on. Only this task has the peers,
// so they need no lock.
func broker(cx *async.Context, events *async.Chan[event]) error {
	peers := map[string]*peer{}
	defer func() {
		for _, p := range peers {
			p.out.Close()
		}
	}()
	for e, err := range events.All(cx) {
		if err != nil {
			return err
		}
		switch p := e.from; {
		case e.joined != nil:
			err := admit(peers, p)
			e.joined.TrySend(err) // there is room for one
			if err == nil {
				tell(peers, p, "* "+p.name+" has come")
			}
		case e.line == "":
			delete(peers, p.name)
			p.out.Close()
			tell(peers, p, "* "+p.name+" has left")
		default:
			deliver(peers, p, e.line)
		}
	}
	return nil
}

func admit(peers map[string]*peer, p *peer) error {
	if p.name == "" || len(p.name) > maxName || strings.ContainsAny(p.name, ":, \t") {
		return fmt.Errorf("a name has 1 to %d letters, and no colon, comma or space", maxName)
	}
	if peers[p.name] != nil {
		return errors.New("that name is taken")
	}
	peers[p.name] = p
	return nil
}

// deliver sends a line to those whom it names, or to all.
func deliver(peers map[string]*peer, from *peer, line string) {
	names, text, private := strings.Cut(line, ":")
	if !private {
		tell(peers, from, from.name+": "+line)
		return
	}
	for _, name := range strings.Split(names, ",") {
		name = strings.TrimSpace(name)
		if to := peers[name]; to != nil {
			to.tell(from.name + ": " + strings.TrimSpace(text))
		} else {
			from.tell("* there is no " + name)
		}
	}
}

// tell tells all but one.
func tell(peers map[string]*peer, but *peer, line string) {
	for _, p := range peers {
		if p != but {
			p.tell(line)
		}
	}
}

// tell never waits; see backlog.
func (p *peer) tell(line string) {
	if p.lost > 0 {
		if p.out.TrySend(fmt.Sprintf("* %d messages were lost; you read too slowly", p.lost)) != nil {
			p.lost++
			return
		}
		p.lost = 0
	}
	if p.out.TrySend(line) != nil {
		p.lost++
	}
}

// client serves one connection: it reads in this task and writes in another. If
// one of them ends, so does the other.
func client(cx *async.Context, conn async.Conn, events *async.Chan[event]) error {
	return async.WithGroup(cx, func(cx *async.Context, g *async.Group) error {
		c := async.BindConn(cx, conn)
		lines := bufio.NewScanner(c)
		lines.Buffer(make([]byte, 0, 512), maxLine)
		if !lines.Scan() {
			return gone(lines.Err())
		}
		p := &peer{name: strings.TrimSpace(lines.Text()), out: async.NewChan[string](backlog)}
		if err := p.join(cx, events); err != nil {
			_, err = fmt.Fprintln(c, "*", err)
			return gone(err)
		}
		// The broker must hear of the end, however it comes, and then ends the writer.
		defer func() { events.Send(cx.WithoutCancel(), event{from: p}) }()
		async.Go(g.Named("writer"), func(cx *async.Context) error { return write(async.BindConn(cx, conn), p.out.All(cx)) })
		for lines.Scan() {
			if line := strings.TrimSpace(lines.Text()); line != "" {
				if err := events.Send(cx, event{from: p, line: line}); err != nil {
					return gone(err)
				}
			}
		}
		return gone(lines.Err())
	})
}

// join asks the broker to let p in.
func (p *peer) join(cx *async.Context, events *async.Chan[event]) error {
	answer := async.NewChan[error](1)
	if err := events.Send(cx, event{from: p, joined: answer}); err != nil {
		return err
	}
	refused, err := answer.Recv(cx)
	if err != nil {
		return err
	}
	return refused
}

// write writes lines until there are no more.
func write(w io.Writer, lines iter.Seq2[string, error]) error {
	for line, err := range lines {
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			return gone(err)
		}
	}
	return nil
}

// gone returns nil for what only says that a client has left, or that the server
// ends.
func gone(err error) error {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, async.ErrClosed) {
		return nil
	}
	return err
}
