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

	// backlog is how many messages may wait for a client that reads slowly. Further messages are
	// dropped, and the client gets a line with their number. So a slow reader delays no other
	// client, and the memory for a client is bounded.
	backlog = 64
)

// event is a message to the broker: a client joins, says a line, or leaves.
type event struct {
	from   *peer
	joined *async.Chan[error] // not nil: the peer joins, and receives here why it was refused, or nil
	line   string             // the line of the peer; if it is empty, and joined is nil, the peer leaves
}

// peer is one client.
type peer struct {
	name string
	out  *async.Chan[string] // lines to the client; the broker sends, the writer receives
	lost int                 // dropped messages that are not yet reported to the client; only the broker uses it
}

// serve accepts clients until the runtime is shut down or cx ends.
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

// broker keeps the table of clients and delivers their messages. Only this task uses the table, so
// the table needs no lock.
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
			e.joined.TrySend(err) // cannot fail: the channel has room for one message
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

// admit adds p to the table, or returns why its name is refused.
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

// deliver sends a line to the clients that the line names, or to all other clients.
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

// tell sends a line to all clients except one.
func tell(peers map[string]*peer, but *peer, line string) {
	for _, p := range peers {
		if p != but {
			p.tell(line)
		}
	}
}

// tell sends a line to the client, or drops the line if backlog messages wait. It never waits.
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

// client serves one connection: it reads in this task, and a second task writes. If one of the
// tasks fails, the Group cancels the other task. If the reading ends, the broker closes the channel
// of the writer, and the writer ends when it has written the waiting lines.
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
		// The broker must receive this event however the reading ends, also if cx is cancelled: the
		// broker then closes p.out, which ends the writer.
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

// join asks the broker to admit p, and returns nil if the broker has.
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

// write writes lines until the sequence ends or the peer has left.
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

// gone returns nil if err only means that a client has left or that the server ends. It returns any
// other error unchanged.
func gone(err error) error {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, async.ErrClosed) {
		return nil
	}
	return err
}
