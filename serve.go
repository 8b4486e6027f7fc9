package async

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"
)

// A Handler serves a connection for as long as there is something to do: one
// request, or all that have come. If it then returns keep, the connection waits
// for more, and the Handler is called again when data has come. Otherwise
// the connection is closed.
//
// Between calls the connection is a plain future: it has no stack and no
// buffers, only the values that the owner of the Handler keeps for it. So a Handler
// should take its buffers from a pool, and give them back when it returns. It must not
// return keep while its own buffers hold unprocessed input (see [bufio.Reader.Buffered]):
// only new data on the connection causes another call.
//
// All calls for a connection have the same cx, that of the connection's task,
// and each call begins after the previous call has returned. The calls may happen on
// different workers. Before each call the read deadline is cleared, if
// Server.IdleTimeout is set. If it is not set, a read deadline that the Handler leaves behind
// holds between calls, too: when it passes, the connection is closed.
//
// All this is for connections that have the method PollReadable, like TCPConn and
// UnixConn. For other connections the Handler is called again at once, and waits for data
// by itself: it has a stack meanwhile, the connection counts as being in a
// call when Serve drains, and IdleTimeout does nothing.
//
// If err is not nil, the connection is closed; see Server.Failed. A panic, or a call of
// runtime.Goexit, closes it too, and is a failure of the connection's task, of which no code
// has the handle: it goes to Failed and, at once, to Config.Unhandled.
type Handler func(cx *Context, c Conn) (keep bool, err error)

// Serve accepts connections and calls h for each, whenever data has come. It is the form for
// many connections, and for those that are idle most of the time: between two calls of h a
// connection has no stack, and takes some 400 bytes. It is [Server.Serve] of a Server with
// nothing but that Handler.
func Serve(cx *Context, ln Listener, h Handler) error {
	s := Server{Handler: h}
	return s.Serve(cx, ln)
}

// A Server serves the connections of listeners, each in a task of its own, on
// as few workers as that needs: a connection may move to another worker between two calls of its Handler. If the
// task that calls Serve is a task of Local or of Runtime.Workers, its worker serves all connections. The fields must
// not be changed once Serve has been called.
type Server struct {
	// Handler serves the connections; see there.
	Handler Handler

	// NewHandler, if it is not nil, is called for each connection that is
	// accepted, by the task that accepts, and returns its Handler. It must not
	// wait. A closure can keep the state of the connection.
	NewHandler func(c Conn) Handler

	// SpeaksFirst calls the Handler for the first time when the connection has
	// been accepted, and not only when the peer has sent data: for
	// protocols in which the server begins.
	SpeaksFirst bool

	// MaxConns is how many connections a call of Serve has open at once;
	// further ones stay in the listener's backlog. 0 means no limit.
	MaxConns int

	// IdleTimeout is how long a connection may wait between two calls of the
	// Handler, and before the first, until it is closed; 0 means for ever. It
	// is set as the connection's read deadline, which is cleared before the
	// next call. Neither the Handler nor Failed is called for a connection that it closes.
	// It is for connections that have PollReadable; see Handler.
	IdleTimeout time.Duration

	// Grace is how long handlers may go on after the cx of Serve was
	// cancelled, before they are cancelled too; 0 cancels them at once.
	Grace time.Duration

	// Failed is called with each error that a Handler returns, with a *PanicError
	// if the Handler has panicked, and with ErrGoexit if it has called runtime.Goexit.
	// It is called after the connection was closed, on the worker, and must not
	// wait. nil ignores errors that are returned. A panic in Failed is a failure
	// of the connection's task, like a panic in the Handler.
	Failed func(c Conn, err error)
}

// ErrServerClosed is returned by Serve when it was asked to end. The error of Serve wraps it,
// together with the reason: net.ErrClosed, cx.Err() or ErrShutdown.
var ErrServerClosed = errors.New("async: server closed")

// Serve accepts connections of ln and serves them until it is asked to end, or accepting
// fails. It is asked to end by cancelling cx, by closing ln, and by [Runtime.Shutdown]: then
// its error wraps ErrServerClosed. Any other error is that of ln.Accept. It leaves ln open,
// and panics if there is no Handler. While MaxConns connections are open, it notices that a
// listener of another package has been closed only when one of them ends.
//
// Before it returns, it drains: connections that wait for data are closed; connections whose
// Handler runs are closed when that returns. A Handler that may run for long, or wait, finds
// out by [IsDraining] or [DrainingFuture]. When all connections are closed, Serve returns. A cx
// that is cancelled cancels the handlers after Grace.
//
// The handlers have the values of the contexts that cx is under, and not their deadlines.
func (s *Server) Serve(cx *Context, ln Listener) error {
	if s.Handler == nil && s.NewHandler == nil {
		panic("async: a Server needs a Handler")
	}
	in := &serveRun{Server: *s, spawner: valuesOf(cx)} // for the end of cx see Grace
	if d := cx.t.attributes.Load(); d != nil && d.local {
		in.spawner, in.local = &spawnOptions{base: in.spawner, local: true}, true
	}
	defer in.endConns() // also if this task is unwound
	err := in.accept(cx, ln)
	asked := errors.Is(err, net.ErrClosed) || errors.Is(err, ErrShutdown) || cx.ended()
	in.endConns()
	in.awaitEnd(cx)
	if asked {
		err = fmt.Errorf("%w: %w", ErrServerClosed, err)
	}
	return err
}

// serveRun is one call of Serve.
type serveRun struct {
	Server
	spawner Spawner      // of the tasks of the connections
	local   bool         // they stay on the worker of the task that calls Serve
	drain   drainState   // once it has begun, connections are not kept
	n       atomic.Int64 // connections
	ends    wakerSlot    // fired by the end of each

	mu    lockOf[serveRun]
	conns linkedList[servedConn, *servedConn]
}

func (in *serveRun) accept(cx *Context, ln Listener) error {
	for {
		if _, err := Await(cx, &roomToServe{in: in, ln: listenerOf(ln)}); err != nil {
			return err
		}
		c, err := ln.Accept(cx)
		if err != nil {
			return err
		}
		in.spawn(cx, c)
	}
}

// roomToServe is the future of one more connection.
type roomToServe struct {
	in    *serveRun
	ln    *listener // whose Close ends the wait; nil for one of another package
	drain Future[None]
	t     *task
}

// listenerOf returns the part of ln that this package has made; nil if there is none.
func listenerOf(ln Listener) *listener {
	if of, ok := ln.(interface{ own() *listener }); ok {
		return of.own()
	}
	return nil
}

func (r *roomToServe) Poll(cx *Context) (None, error) {
	if !r.in.full() {
		r.Cancel()
		return None{}, nil
	}
	if r.drain == nil {
		r.drain = DrainingFuture()
	}
	if _, err := r.drain.Poll(cx); err != ErrPending {
		r.Cancel()
		return None{}, ErrShutdown
	}
	r.t = cx.waker(waitsTask)
	for r.in.full() {
		if r.ln != nil && r.ln.src.checkOpen() != nil {
			r.Cancel()
			return None{}, r.ln.wrap("accept", net.ErrClosed)
		}
		waits := r.in.ends.join(r.t)
		if r.ln != nil {
			waits = r.ln.closed.join(r.t) && waits && r.ln.src.checkOpen() == nil
		}
		if waits && r.in.full() {
			return None{}, ErrPending
		}
	}
	r.Cancel()
	return None{}, nil
}

// Cancel implements canceler.
func (r *roomToServe) Cancel() {
	if r.t != nil {
		r.in.ends.leave(r.t, nil)
		if r.ln != nil {
			r.ln.closed.leave(r.t, nil)
		}
	}
	if r.drain != nil {
		giveUp(r.t, r.drain)
	}
}

func (in *serveRun) full() bool { return in.MaxConns > 0 && in.n.Load() >= int64(in.MaxConns) }

// endConns closes the connections that wait for more, and makes the others end when their Handler returns.
func (in *serveRun) endConns() {
	if in.drain.begin() {
		for _, s := range in.all() {
			s.wake(nil)
		}
	}
}

// awaitEnd waits until there is no connection, also if cx is cancelled.
func (in *serveRun) awaitEnd(cx *Context) {
	t := cx.beginAwait()
	var grace alarm
	defer func() { grace.stop(callersWorker()) }()
	var until int64
	for told := false; in.lives(cx); t.wait() {
		if told || !cx.ended() {
			continue
		}
		if until == 0 {
			until = nanosAfter(in.Grace)
		}
		if told = cx.nanos() >= until; !told {
			grace.set(cx.here(), until, t)
			continue
		}
		for _, s := range in.all() {
			s.cancelCause(cx.Cause())
		}
	}
}

// lives reports whether there are connections, and if so makes cx's task be
// woken when one of them ends.
func (in *serveRun) lives(cx *Context) bool {
	t := cx.waker(waitsTask)
	for in.n.Load() > 0 {
		if in.ends.join(t) {
			return in.n.Load() > 0
		}
	}
	return false
}

// drainState implements drainer.
func (s *servedConn) drainState() *drainState { return &s.in.drain }

// links implements linkedElement.
func (s *servedConn) links() *links[servedConn] { return &s.at }

func (in *serveRun) all() (all []*servedConn) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.AppendSeq(all, in.conns.all())
}

func (in *serveRun) add(s *servedConn) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.n.Add(1)
	in.conns.push(s)
}

func (in *serveRun) remove(s *servedConn, w *worker) {
	in.mu.Lock()
	in.conns.remove(s)
	in.mu.Unlock()
	in.n.Add(-1)
	in.ends.fire(w)
}

// spawn starts the task of a connection.
func (in *serveRun) spawn(cx *Context, c Conn) {
	s := &servedConn{in: in, c: c, h: in.handlerOf(c)}
	s.kind, s.body, s.cx.t = kindStraight, s, &s.task
	s.state.detach()
	if !in.SpeaksFirst {
		s.awaitReadable()
	} else {
		s.phase = servedCalled
	}
	if c, ok := c.(streamer); ok {
		// Registered at once, so that the next connection is assigned with regard to
		// this one, and that it stays there wherever it is polled first.
		w := in.assign(cx)
		if c.stream().src.registerWith(&w.reactor) == nil {
			s.w = w
		}
	}
	in.add(s)
	startTask(in.spawner, &s.task)
}

// assign returns the worker for a connection that cx's task has accepted.
func (in *serveRun) assign(cx *Context) *worker {
	if in.local {
		return cx.taskWorker()
	}
	return cx.Runtime().assignConn(true)
}

// handlerOf closes c if NewHandler panics.
func (in *serveRun) handlerOf(c Conn) (h Handler) {
	if in.NewHandler == nil {
		return in.Handler
	}
	defer func() {
		if h == nil {
			c.Close()
		}
	}()
	if h = in.NewHandler(c); h == nil {
		panic("async: Server.NewHandler has returned no Handler")
	}
	return h
}

// servedConn is the task of a connection. While the connection waits for data,
// it is polled like a plain future, on the worker's own stack, and any
// worker may run it; when the Handler is called, it gets a coroutine, which it
// gives back when the Handler returns. It is one allocation for all its life.
type servedConn struct {
	JoinHandle[None]
	in          *serveRun
	at          links[servedConn] // in in.conns
	c           Conn
	h           Handler
	co          *coroutine // while the Handler runs
	phase       servedPhase
	keep        bool // the Handler has returned keep
	failureTold bool // Failed has been called
}

// servedPhase is the state of a connection.
type servedPhase uint8

const (
	servedWaits   servedPhase = iota // for data; the kernel is to be asked
	servedWaiting                    // the same; the next event will be for new data
	servedCalled                     // the Handler is to be called
	servedRuns                       // the Handler runs
	servedOver                       // the connection is closed
)

// readablePoller is a Conn that can wait without a buffer. Other connections wait in
// their Handler.
type readablePoller interface{ PollReadable(cx *Context) error }

// awaitReadable makes the connection wait.
func (s *servedConn) awaitReadable() {
	s.phase = servedWaits
	if d := s.in.IdleTimeout; d > 0 {
		s.c.SetReadDeadline(time.Now().Add(d))
	}
}

func (s *servedConn) poll(w *worker) (done bool) {
	for {
		if s.phase <= servedWaiting {
			s.look(w)
		}
		if s.phase <= servedWaiting {
			return false
		}
		if s.phase != servedOver {
			s.run(w)
		}
		if s.phase >= servedRuns {
			return s.phase == servedOver
		}
	}
}

// look decides whether a connection that waits goes on waiting, is closed, or has data for the Handler.
func (s *servedConn) look(w *worker) {
	if s.in.drain.begun.Load() || s.state.cancelled() {
		s.over(w, nil)
		return
	}
	c := streamOf(s.c)
	here := c != nil && c.src.ownedAlwaysBy(&w.reactor) // while s is polled here, no other task moves its descriptor away
	switch err := s.pollReadable(); {
	case err == ErrPending:
		s.phase = servedWaits
		if here && !w.yielded && c.src.ownedAlwaysBy(&w.reactor) {
			s.phase = servedWaiting
		}
	case err != nil:
		s.over(w, nil) // IdleTimeout, or the connection has been closed: no Handler has failed
	default:
		s.phase = servedCalled
		if s.in.IdleTimeout > 0 {
			s.c.SetReadDeadline(time.Time{})
		}
	}
}

func (s *servedConn) pollReadable() error {
	if c := streamOf(s.c); c != nil && s.phase == servedWaiting {
		return c.pollReadableAgain(&s.cx)
	}
	if c, ok := s.c.(readablePoller); ok {
		return c.PollReadable(&s.cx)
	}
	return nil
}

// streamOf returns the streamConn in a connection of this package. It returns nil for all other
// connections, also for a type that embeds such a connection and may have methods of its own.
func streamOf(c Conn) *streamConn {
	switch c := c.(type) {
	case *TCPConn:
		return &c.streamConn
	case *UnixConn:
		return &c.streamConn
	}
	return nil
}

// run calls the Handler, or lets it go on.
func (s *servedConn) run(w *worker) {
	co := s.co
	if co == nil {
		co = w.takeCoroutine()
		s.phase, s.co, co.code, co.t = servedRuns, co, s, &s.task
		s.g.Store(co.g)
		if s.listedAt == 0 {
			w.list(&s.task)
		}
	}
	w.setVisible(&s.task)
	w.running = co
	co.resume()
	w.running = nil
	if s.phase == servedRuns {
		return
	}
	s.g.Store(0) // until the next call any worker may run it
	s.co, co.code, co.t = nil, nil, nil
	w.freeCoroutine(co)
}

// main implements coroutineCode.
func (s *servedConn) main(co *coroutine) {
	keep, err := s.h(&s.cx, s.c)
	s.keep = keep && err == nil
	if err != nil {
		s.tell(err)
	}
	co.returned = true
}

// tell closes the connection and calls Failed.
func (s *servedConn) tell(err error) {
	s.failureTold = true
	s.c.Close()
	if f := s.in.Failed; f != nil {
		f(s.c, err)
	}
}

// end implements coroutineCode. err is not nil if the Handler has not returned, or Failed
// has not.
func (s *servedConn) end(err error) (reusable bool) {
	switch {
	case err == nil && s.keep && !s.in.drain.begun.Load() && !s.state.cancelled():
		s.awaitReadable()
	case err == nil || s.failureTold || s.endedByCancel(err):
		s.over(s.w, err)
	default:
		s.fail(err)
	}
	return false
}

// fail ends the task of a Handler that has panicked or called Goexit. If Failed does so, too,
// the task has both errors.
func (s *servedConn) fail(err error) {
	told := ErrGoexit
	defer func() {
		if v := recover(); v != nil {
			told = newPanicError(&s.task, v)
		}
		if told != nil {
			err = errors.Join(err, told)
		}
		s.over(s.w, err)
	}()
	s.tell(err)
	told = nil
}

// over closes the connection and ends the task.
func (s *servedConn) over(w *worker, err error) {
	s.phase = servedOver
	s.c.Close()
	s.finish(w, None{}, err)
	s.in.remove(s, w)
}

// abort implements taskBody; see straight.abort.
func (s *servedConn) abort(w *worker, err error) {
	if co := s.co; co != nil {
		w.running = co
		co.unwind()
		return
	}
	s.over(w, err)
}

// locate implements locator.
func (s *servedConn) locate(on *worker) string {
	if s.co == nil {
		return "a connection between two calls of its Handler"
	}
	if on == nil || s.w != on {
		return ""
	}
	return userFrame(s.co.place(on))
}
