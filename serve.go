package async

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"
)

// A Handler serves a connection: it reads the requests that have arrived, one or all of them,
// answers them and returns. If it returns keep and no error, the connection waits, and the Handler
// is called again when there is something to read: data, the end of the stream, or a failure.
// Otherwise the connection is closed.
//
// Between two calls the connection is a plain future. It has no stack and no buffers, and only the
// state that the program keeps for it. So a Handler should take its buffers from a pool, and give
// them back when it returns. It must not return keep while its own buffers hold unprocessed input
// (see [bufio.Reader.Buffered]): only new data on the connection causes another call.
//
// The calls for one connection follow each other, possibly on different workers. All have the same
// cx, the Context of the task of the connection. A Handler that may run for long should stop early
// if [IsDraining] reports true.
//
// If err is not nil, the connection is closed and [Server.Failed] is called. If the Handler panics
// or calls [runtime.Goexit], the connection is closed, too. That is a failure of the task of the
// connection, for which there is no handle: Failed is called, and the failure is reported to
// [Config.Unhandled] at once.
//
// A Handler may set the read deadline. If [Server.IdleTimeout] is set, Serve replaces this deadline
// between calls, and clears it before each call. If IdleTimeout is not set, a read deadline that
// the Handler leaves also holds between calls: the connection is closed when it passes.
//
// All this applies to connections that have a method PollReadable, such as [*TCPConn] and
// [*UnixConn]. For another connection that is kept, the Handler is called again at once, and waits
// for data itself. The connection then has a stack while it waits, it counts as being in a call
// when Serve drains, and IdleTimeout has no effect.
type Handler func(cx *Context, c Conn) (keep bool, err error)

// Serve accepts connections of ln, and calls h for each of them when data has arrived. It is for
// many connections, and for connections that are idle most of the time: between two calls of h a
// connection has no stack, and takes about 400 bytes.
//
// Serve is [Server.Serve] of a [Server] that has only this Handler. The calls for one connection
// never overlap. Serve ends when cx is cancelled, when ln is closed, and during [Runtime.Shutdown];
// the error then wraps [ErrServerClosed] and the reason. It does not close ln.
func Serve(cx *Context, ln Listener, h Handler) error {
	s := Server{Handler: h}
	return s.Serve(cx, ln)
}

// A Server serves the connections of listeners. Set Handler or NewHandler, and call its method
// Serve. Serve may be called several times, also at the same time, with different listeners. The
// fields must not be changed after the first call.
//
// Each connection has a task of its own. The tasks run on as few workers as they need: a connection
// may move to another worker between two calls of its Handler. If the task that calls Serve is a
// task of [Local] or of [Runtime.Workers], its worker serves all connections.
type Server struct {
	// Handler serves the connections, unless NewHandler is set. See [Handler].
	Handler Handler

	// NewHandler, if not nil, returns the Handler of a connection. The task that accepts calls it
	// for each connection; it must not wait. It may return a closure, which keeps the state of the
	// connection.
	NewHandler func(c Conn) Handler

	// SpeaksFirst is for protocols in which the server begins: the Handler is called as soon as the
	// connection is accepted. If it is not set, the first call comes when there is something to
	// read: data, the end of the stream, or a failure of the connection. For a connection without
	// PollReadable it makes no difference; see [Handler].
	SpeaksFirst bool

	// MaxConns is how many connections a call of Serve has open at most. Further connections wait
	// in the backlog of the listener. 0 means no limit.
	MaxConns int

	// IdleTimeout is how long a connection may wait before the first call of the Handler and
	// between two calls. After that it is closed, and neither the Handler nor Failed is called. 0
	// means no limit. It is set as the read deadline of the connection, which is cleared before
	// each call of the Handler. It applies to connections that have PollReadable; see [Handler].
	IdleTimeout time.Duration

	// Grace is how long Handlers may go on after the cx of Serve is cancelled. After that they are
	// cancelled, too. 0 cancels them at once.
	Grace time.Duration

	// Failed, if not nil, is called with each failure of a Handler: the error that it has returned,
	// a [*PanicError] if it has panicked, and [ErrGoexit] if it has called [runtime.Goexit]. The
	// connection is closed before. Failed runs on the worker and must not wait. It may be called
	// for several connections at the same time. A panic in Failed is a failure of the task of the
	// connection, like a panic in the Handler.
	Failed func(c Conn, err error)
}

// ErrServerClosed is wrapped by the error of [Serve] and [Server.Serve] when they were asked to end.
// The error also wraps the reason: [net.ErrClosed], cx.Err() or [ErrShutdown].
var ErrServerClosed = errors.New("async: server closed")

// Serve accepts connections of ln and serves them, until it is asked to end or accepting fails.
// There are three ways to ask:
//
//   - cancel cx,
//   - close ln,
//   - call [Runtime.Shutdown].
//
// The error then wraps [ErrServerClosed] and the reason. Any other error is the error of ln.Accept.
// Serve does not close ln. It panics if neither Handler nor NewHandler is set.
//
// Serve drains before it returns, whatever the reason: it closes the connections that wait for
// data. It closes each other connection when its Handler returns, and returns when all connections
// are closed. A Handler that may run for long, or waits, can ask [IsDraining] or wait for
// [DrainingFuture]. If cx is cancelled, the Handlers are cancelled after Grace.
//
// The Handlers have the values of the contexts that cx is under, but not their deadlines.
//
// While MaxConns connections are open, Serve does not notice that a listener of another package is
// closed. It notices when one of the connections ends.
func (s *Server) Serve(cx *Context, ln Listener) error {
	if s.Handler == nil && s.NewHandler == nil {
		panic("async: a Server needs a Handler")
	}
	// The tasks get only the values of cx: Grace says how long they outlive cx.
	in := &serveRun{Server: *s, spawner: valuesOf(cx)}
	if d := cx.t.attributes.Load(); d != nil && d.local {
		in.spawner, in.local = &spawnOptions{base: in.spawner, local: true}, true
	}
	defer in.endConns() // also if Shutdown unwinds this task
	err := in.accept(cx, ln)
	asked := errors.Is(err, net.ErrClosed) || errors.Is(err, ErrShutdown) || cx.ended()
	in.endConns()
	in.awaitEnd(cx)
	if asked {
		err = fmt.Errorf("%w: %w", ErrServerClosed, err)
	}
	return err
}

// serveRun is one call of Serve. The task that calls Serve accepts, starts a task per connection,
// and waits for all of them. The end goes through these steps:
//
//  1. accept returns an error, because Accept has failed or Serve is asked to end. No connection is
//     added after that, since only this task adds connections.
//  2. endConns sets drain.begun, and then wakes the tasks of all connections.
//  3. A connection that waits reads drain.begun (servedConn.look) and is closed. For a Handler that
//     runs the wake is spurious. When it returns, end reads drain.begun, and the connection is
//     closed.
//  4. awaitEnd waits until n is 0. If cx is cancelled, it cancels the Handlers after Grace.
//
// The races that this closes:
//
//  1. A Handler returns keep while step 2 runs. If end reads begun before it is set, the connection
//     goes on to look, which reads begun again. If look also reads it before it is set, the wake of
//     step 2 follows, and makes the task call look once more.
//  2. A connection ends while awaitEnd or roomToServe looks at n. remove changes n and then fires
//     ends. The waiter joins ends and then reads n. So it sees the change or is woken.
type serveRun struct {
	Server
	spawner Spawner      // starts the tasks of the connections
	local   bool         // the tasks stay on the worker of the task that calls Serve
	drain   drainState   // from its beginning on, no connection is kept
	n       atomic.Int64 // how many connections are open
	ends    wakerSlot    // fired by the end of each connection

	mu    lockOf[serveRun] // guards conns
	conns linkedList[servedConn, *servedConn]
}

// accept accepts and starts tasks until it fails. Its error is never nil.
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

// roomToServe is the future of room for one more connection, below MaxConns. It also ends when the
// runtime drains, and when ln is closed, so that Serve need not wait for a connection to end. The
// poll joins the slots of all three events, and then looks at the conditions once more. So an event
// that happens before it has joined is not missed.
type roomToServe struct {
	in    *serveRun
	ln    *listener    // nil for a listener of another package, whose Close is not noticed
	drain Future[None] // nil before the first poll that waits
	t     *task        // has joined the slots; nil before
}

// listenerOf returns the listener of this package that ln is or embeds, or nil if there is none.
func listenerOf(ln Listener) *listener {
	if of, ok := ln.(interface{ own() *listener }); ok {
		return of.own()
	}
	return nil
}

// Poll returns nil if there is room. The error is ErrShutdown if the runtime drains, and wraps
// net.ErrClosed if the listener is closed.
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

// Cancel implements canceler. It leaves the slots that Poll has joined.
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

// full reports whether MaxConns connections are open.
func (in *serveRun) full() bool { return in.MaxConns > 0 && in.n.Load() >= int64(in.MaxConns) }

// endConns begins the drain: connections that wait are closed, and the others when their Handler
// returns. Only the first call has an effect.
func (in *serveRun) endConns() {
	if in.drain.begin() {
		for _, s := range in.all() {
			s.wake(nil)
		}
	}
}

// awaitEnd waits until no connection is open, also if cx is cancelled. If it is, awaitEnd cancels
// the Handlers after Grace, once. The task is woken when a connection ends, when cx is cancelled,
// and by the timer of Grace.
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

// lives reports whether a connection is open. If so, the task of cx is woken when a connection
// ends.
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

// all returns the connections. The caller wakes or cancels them after the lock is released.
func (in *serveRun) all() (all []*servedConn) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.AppendSeq(all, in.conns.all())
}

// add counts and lists a connection.
func (in *serveRun) add(s *servedConn) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.n.Add(1)
	in.conns.push(s)
}

// remove is the opposite of add. It changes n before it fires ends, so that a task which is woken
// finds room, or finds no connection left.
func (in *serveRun) remove(s *servedConn, w *worker) {
	in.mu.Lock()
	in.conns.remove(s)
	in.mu.Unlock()
	in.n.Add(-1)
	in.ends.fire(w)
}

// spawn starts the task of a connection, which cx's task has accepted. in counts and lists the
// connection before its task can end.
func (in *serveRun) spawn(cx *Context, c Conn) {
	s := &servedConn{in: in, c: c, h: in.handlerOf(c)}
	s.kind, s.body, s.cx.t = kindStraight, s, &s.task
	s.state.detach()
	if !in.SpeaksFirst {
		s.awaitReadable()
	} else {
		s.phase = servedCalled
	}
	// Register the descriptor now, and not at the first wait. Then the assignment of the next
	// connection counts this one, and the connection stays with the worker w, even if another
	// worker polls its task first.
	if c, ok := c.(streamer); ok {
		w := in.assign(cx)
		if c.stream().src.registerWith(&w.reactor) == nil {
			s.w = w
		}
	}
	in.add(s)
	startTask(in.spawner, &s.task)
}

// assign returns the worker for a connection that the task of cx has accepted.
func (in *serveRun) assign(cx *Context) *worker {
	if in.local {
		return cx.taskWorker()
	}
	return cx.Runtime().assignConn(true)
}

// handlerOf returns the Handler of c. It closes c if NewHandler panics or returns nil.
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

// servedConn is the task of a connection, in one allocation. It has the kind of straight-line code,
// but no stack of its own until its Handler runs:
//
//   - While the connection waits, the task is polled like a plain future, on the stack of the
//     worker. Any worker may run it.
//   - While the Handler runs, the task has a coroutine of the worker and stays there. The worker
//     gets the coroutine back when the Handler returns.
//
// The phases follow each other like this:
//
//	servedWaits, servedWaiting  look   -> the same, servedCalled or servedOver
//	servedCalled                run    -> servedRuns
//	servedRuns                  end    -> servedWaits or servedOver
type servedConn struct {
	JoinHandle[None]
	in          *serveRun
	at          links[servedConn] // its place in in.conns
	c           Conn
	h           Handler
	co          *coroutine // while the Handler runs
	phase       servedPhase
	keep        bool // the Handler has returned keep and no error
	failureTold bool // tell was called
}

// servedPhase is the state of a connection. servedConn.poll compares phases by < and >, so it
// relies on the order of the constants.
type servedPhase uint8

const (
	servedWaits   servedPhase = iota // it waits for data; the next poll asks the kernel
	servedWaiting                    // it waits for data; the next event is believed, see look
	servedCalled                     // the Handler is to be called
	servedRuns                       // the Handler runs
	servedOver                       // the connection is closed
)

// readablePoller is a Conn that can wait without a buffer. For other connections the Handler waits.
type readablePoller interface{ PollReadable(cx *Context) error }

// awaitReadable begins to wait for data, for IdleTimeout at most.
func (s *servedConn) awaitReadable() {
	s.phase = servedWaits
	if d := s.in.IdleTimeout; d > 0 {
		s.c.SetReadDeadline(time.Now().Add(d))
	}
}

// poll implements taskBody. It goes on until the connection waits, its Handler waits, or it is
// closed.
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

// look decides whether a connection that waits goes on waiting, is closed, or has data for the
// Handler.
//
// It may choose servedWaiting, in which the next event is believed, only if that event cannot be an
// old one, about data that was read before. That needs two conditions, before and after the kernel
// was asked: the reactor of w owns the descriptor, and no other reactor can report an event late
// (ownedAlwaysBy). While s is polled by the worker of this reactor, no other task moves the
// descriptor to another worker. A poll without budget (w.yielded) has not asked the kernel.
func (s *servedConn) look(w *worker) {
	if s.in.drain.begun.Load() || s.state.cancelled() {
		s.over(w, nil)
		return
	}
	c := streamOf(s.c)
	here := c != nil && c.src.ownedAlwaysBy(&w.reactor)
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

// pollReadable returns nil if the Handler must be called, ErrPending if there is no data, or an
// error if the connection has failed. For a connection that cannot be polled it returns nil.
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
// connections, also for a type that embeds such a connection: its methods may be its own.
func streamOf(c Conn) *streamConn {
	switch c := c.(type) {
	case *TCPConn:
		return &c.streamConn
	case *UnixConn:
		return &c.streamConn
	}
	return nil
}

// run calls the Handler in a coroutine, or resumes it.
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
	s.g.Store(0) // until the next call any worker may run the task
	s.co, co.code, co.t = nil, nil, nil
	w.freeCoroutine(co)
}

// main implements coroutineCode. It calls the Handler.
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

// end implements coroutineCode: the connection waits for more data, or its task ends. err is nil if
// the Handler has returned, and Failed too if it was called. Else err says that one of them has
// panicked or called Goexit, or that Shutdown unwinds it. run, and not the coroutine, decides on
// the next use of the coroutine, so end returns false.
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

// fail ends the task of a Handler that has panicked or called Goexit with err. If Failed then
// panics or calls Goexit, too, the task has both errors.
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
