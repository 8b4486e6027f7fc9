package async

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The model of cancellation is a random tree of tasks of all kinds, inside and outside of groups.
// The tasks sleep, await each other, use sockets, and clean up. They cancel each other, close each
// other's connections, exceed deadlines, panic and call Goexit. At the end, or in the middle, there
// is a Shutdown. The promises are:
//
//  1. Every resource that was taken is given back exactly once: resources that deferred calls free,
//     or that a future frees when it is ready or given up, connections, timers, places in groups
//     and in the pool, goroutines and descriptors.
//  2. Every task that was spawned starts once and ends once. Its handle has exactly the result that
//     its code has returned, or the reason why the code never ran.
//  3. A group's tasks have ended when WithGroup returns, and a failure in the group is not lost.
//  4. Each failure of a task that was not joined is reported once, and no other failure is
//     reported.
//
// The seed of a tree decides which operations it makes; the scheduler decides their order. The
// variable ASYNC_MODEL_SEED makes all runs use one seed; ASYNC_MODEL_RUNS is the number of runs.
func TestCancellationModel(t *testing.T) {
	first, runs, step := uint64(1), 48, uint64(1)
	if testing.Short() {
		runs = 16
	}
	if s := os.Getenv("ASYNC_MODEL_RUNS"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		runs = n
	}
	if s := os.Getenv("ASYNC_MODEL_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		first, step = n, 0
	}
	tasks := 0
	for i := range uint64(runs) {
		seed := first + i*step
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { tasks += runModel(t, seed) }) {
			t.Fatalf("to run it again: ASYNC_MODEL_SEED=%d go test -run TestCancellationModel .", seed)
		}
	}
	if step > 0 {
		require.Greater(t, tasks, 10*runs, "the trees are too small to say anything")
	}
}

func FuzzCancellationModel(f *testing.F) {
	f.Add(uint64(1_000_001))
	f.Fuzz(func(t *testing.T, seed uint64) { runModel(t, seed) })
}

// model is one run.
type model struct {
	rt   *Runtime
	seed uint64
	addr string

	nodes atomic.Int32 // counts the tasks; they are numbered in the order in which they are spawned

	mu      sync.Mutex
	wrong   []string
	handles []*modelTask
	conns   []*modelConn
	begun   map[uint64]int // by the number of the task
	over    map[uint64]int
	reports map[uint64][]error
}

// modelNodes bounds the tasks of a tree, and modelDepth its height.
const (
	modelNodes = 120
	modelDepth = 5
)

// modelTask is the record of a task.
type modelTask struct {
	h      *JoinHandle[int]
	kind   string
	ran    atomic.Int32 // how often its code began
	ended  atomic.Int32 // how often the resource that it held was freed
	gave   atomic.Int32 // how often its future was given up
	joined atomic.Bool

	mu   sync.Mutex
	says error // the error that its code returned, or nil
	dies any   // the value of its panic, or modelGoexit
	done bool  // the code has reached its end
}

type modelConn struct {
	Conn
	closed atomic.Int32 // how many Closes succeeded
}

var (
	errModel      = errors.New("a failure of the model's")
	errModelCause = errors.New("a cause of the model's")
	modelGoexit   = new(int)
)

func (m *model) fail(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
}

// modelCode is the code of one task, as it runs.
type modelCode struct {
	*model
	task  *modelTask
	rnd   *rand.Rand
	depth int
	g     *Group // the innermost group that the task is in, or has made
	body  bool   // the task has made g, so it may wait for room
}

// one reports true once in n times.
func (c *modelCode) one(n int) bool { return c.rnd.IntN(n) == 0 }

func (c *modelCode) short() time.Duration { return time.Duration(c.rnd.IntN(2000)) * time.Microsecond }

// other returns a task of the tree, if there is one yet.
func (c *modelCode) other() *modelTask {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.handles) == 0 {
		return nil
	}
	return c.handles[c.rnd.IntN(len(c.handles))]
}

// awaited checks the error of an await that can only fail by cancellation.
func (c *modelCode) awaited(what string, cx *Context, err error) {
	if err == nil {
		return
	}
	if err != cx.Err() {
		c.fail("%s failed with %v, and the Context with %v", what, err, cx.Err())
	}
	if cause := cx.Cause(); cause == nil || context.Cause(cx) != cause {
		c.fail("the Context failed with %v, and has the causes %v and %v", err, cause, context.Cause(cx))
	}
}

// steps does a few random operations.
func (c *modelCode) steps(cx *Context) error {
	for range 1 + c.rnd.IntN(5) {
		if err := c.step(cx); err != nil {
			return err
		}
	}
	return nil
}

func (c *modelCode) step(cx *Context) error {
	switch c.rnd.IntN(16) {
	case 0:
		err := Yield(cx)
		c.awaited("Yield", cx, err)
		return err
	case 1:
		err := Sleep(cx, c.short())
		c.awaited("Sleep", cx, err)
		return err
	case 2:
		return c.within(cx)
	case 3, 4, 5:
		for range 1 + c.rnd.IntN(3) {
			c.spawn(cx, c.spawner(cx))
		}
	case 6:
		return c.group(cx)
	case 7:
		c.join(cx)
	case 8:
		c.cancelOther()
	case 9, 10:
		return c.connection(cx)
	case 11:
		c.closeOther()
	case 12:
		c.set(cx)
	case 13:
		cx = cx.WithoutCancel()
		if err := Sleep(cx, c.short()/4); err != nil {
			c.fail("a shielded Sleep failed: %v", err)
		}
	case 14:
		if c.g != nil && c.one(4) {
			c.g.CancelCause(errModelCause)
		}
	case 15:
		if c.depth > 0 {
			return c.misbehave()
		}
	}
	return nil
}

// misbehave ends the task in one of the ways in which code should not end.
func (c *modelCode) misbehave() error {
	switch c.rnd.IntN(6) {
	case 0:
		c.task.die("the model panics")
		panic("the model panics")
	case 1:
		c.task.die(modelGoexit)
		runtime.Goexit()
	case 2:
		return errModel
	}
	return nil
}

func (t *modelTask) die(how any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dies, t.done = how, true
}

// say records the error that the code of the task returns.
func (t *modelTask) say(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.says, t.done = err, true
	return err
}

// within continues with a Context of its own, which may end earlier.
func (c *modelCode) within(cx *Context) error {
	inner, cancel := cx, func() {}
	switch c.rnd.IntN(4) {
	case 0:
		inner, cancel = cx.WithTimeout(c.short())
	case 1:
		inner, cancel = cx.WithTimeoutCause(c.short(), errModelCause)
	case 2:
		var because context.CancelCauseFunc
		inner, because = cx.WithCancelCause()
		defer time.AfterFunc(c.short(), func() { because(errModelCause) }).Stop()
		cancel = func() { because(nil) }
	case 3:
		inner, cancel = cx.WithoutCancel().WithTimeout(c.short())
	}
	defer cancel()
	c.steps(inner)
	return cx.Err()
}

// spawner returns a Spawner for the next task.
func (c *modelCode) spawner(cx *Context) Spawner {
	var s Spawner = cx
	switch {
	case c.g != nil && c.body && !c.one(3):
		s = c.g
	case c.g != nil && !c.one(3):
		s = c.g.Try() // all other tasks may be waiting for room, too
	case c.one(4):
		s = c.rt
	}
	if c.one(3) {
		s = s.Under(cx)
	}
	if c.one(4) {
		s = s.Named("model")
	}
	return s
}

// spawn starts one more task, unless there are enough.
func (c *modelCode) spawn(cx *Context, s Spawner) *modelTask {
	n := c.nodes.Add(1)
	if n > modelNodes || c.depth >= modelDepth {
		return nil
	}
	t := new(modelTask)
	child := &modelCode{model: c.model, task: t, depth: c.depth + 1,
		rnd: rand.New(rand.NewPCG(c.seed, c.rnd.Uint64()))}
	if c.g != nil && s.cancelGroup() == &c.g.tasks {
		child.g = c.g
	}
	switch c.rnd.IntN(5) {
	case 0, 1:
		t.kind = "straight"
		t.h = Spawn(s, child.straight)
	case 2, 3:
		t.kind = "future"
		t.h = SpawnFuture(s, child.future())
	case 4:
		t.kind = "blocking"
		ctx, stop := context.WithTimeout(cx, c.short())
		t.h = SpawnBlocking(s, func() (int, error) {
			defer stop()
			return child.blocking(ctx)
		})
		if t.h.state.done() {
			stop() // the call never runs
		} else {
			context.AfterFunc(ctx, stop) // nor does a call that is cancelled in the queue
		}
	}
	c.mu.Lock()
	c.handles = append(c.handles, t)
	c.mu.Unlock()
	return t
}

// straight is the code of a straight-line task.
func (c *modelCode) straight(cx *Context) (int, error) {
	t := c.task
	t.ran.Add(1)
	defer t.ended.Add(1)
	defer func() {
		if err := Sleep(cx.WithoutCancel(), c.short()/8); err != nil {
			c.fail("cleaning up failed: %v", err)
		}
	}()
	return 1, t.say(c.steps(cx))
}

// future returns a plain future that holds a resource while it waits.
func (c *modelCode) future() Future[int] {
	f := &modelFuture{c: c, left: c.rnd.IntN(4)}
	switch c.rnd.IntN(3) {
	case 0:
		f.waits = SleepFuture(c.short())
	case 1:
		f.waits = TimeoutFuture(NeverFuture[None](), c.short())
	case 2:
		f.waits = YieldFuture()
	}
	return f
}

type modelFuture struct {
	c     *modelCode
	left  int
	waits Future[None]
}

func (f *modelFuture) Poll(cx *Context) (v int, err error) {
	t := f.c.task
	if t.ran.Load() == 0 {
		t.ran.Add(1)
	}
	if _, err := f.waits.Poll(cx); err == ErrPending {
		return 0, err
	}
	if f.left--; f.left > 0 {
		f.waits = SleepFuture(f.c.short() / 4)
		_, err := f.waits.Poll(cx)
		if err == ErrPending {
			return 0, err
		}
	}
	defer t.ended.Add(1)
	if f.c.one(4) {
		err = f.c.misbehave()
	}
	return 1, t.say(err)
}

// Cancel is called for a future that was given up, also if its Poll has panicked and
// has freed the resource already.
func (f *modelFuture) Cancel() {
	t := f.c.task
	t.gave.Add(1)
	if t.ran.Load() > t.ended.Load() {
		t.ended.Add(1)
	}
	giveUp(nil, f.waits)
}

// blocking is the code of a blocking call.
func (c *modelCode) blocking(ctx context.Context) (int, error) {
	t := c.task
	t.ran.Add(1)
	defer t.ended.Add(1)
	if c.one(2) {
		<-ctx.Done()
	}
	return 1, t.say(c.misbehave())
}

// group makes a group and waits for it.
func (c *modelCode) group(cx *Context) error {
	var made *Group
	var members []*modelTask
	keepGoing := c.one(4)
	limit := c.rnd.IntN(4)
	returned := false
	before, beforeBody := c.g, c.body
	defer func() {
		c.g, c.body = before, beforeBody
		for _, t := range members {
			if !t.h.state.done() {
				c.fail("a %s task outlives its group", t.kind)
			}
		}
		if gate := &made.tasks.admission; !returned {
		} else if n, reserved := gate.n, gate.reserved; n != 0 || reserved != 0 {
			c.fail("a group has ended, %d wait for it, %d places are taken", n, reserved)
		}
	}()
	err := WithGroup(cx, func(cx *Context, g *Group) error {
		made, c.g, c.body = g, g, true
		if keepGoing {
			g.KeepGoing()
		}
		if limit > 0 {
			g.SetLimit(limit)
		}
		for range 1 + c.rnd.IntN(4) {
			if t := c.spawn(cx, g); t != nil {
				members = append(members, t)
			}
		}
		if c.one(3) {
			g.Wait(cx)
		}
		return c.steps(cx)
	})
	returned = true
	if !keepGoing && err == nil {
		for _, t := range members {
			if f := peek(t.h); f == errModel || f == ErrGoexit {
				c.fail("a group whose %s task failed with %v has not failed", t.kind, f)
			}
		}
	}
	if c.one(2) {
		return cx.Err() // otherwise the failure would end nearly all tasks
	}
	return err
}

// peek returns the error of a task that has ended, without joining it.
func peek(h *JoinHandle[int]) error {
	if f, ok := h.err.(*taskFailure); ok {
		return f.err
	}
	return h.err
}

// join awaits another task, for a limited time, in one of the possible ways.
func (c *modelCode) join(cx *Context) {
	t := c.other()
	if t == nil {
		return
	}
	cx, cancel := cx.WithTimeout(c.short())
	defer cancel()
	if c.one(3) {
		_, err := Await(cx, t.h) // this cancels the task if it takes too long
		t.noteJoin(cx, err)
		return
	}
	_, err := t.h.Join(cx)
	t.noteJoin(cx, err)
}

func (t *modelTask) noteJoin(cx *Context, err error) {
	if cx.Err() == nil || err != cx.Err() {
		t.joined.Store(true)
	}
}

func (c *modelCode) cancelOther() {
	if t := c.other(); t != nil {
		if c.one(2) {
			t.h.Cancel()
		} else {
			t.h.CancelCause(errModelCause)
		}
	}
}

// set takes the results of a few tasks in the order in which the tasks end.
func (c *modelCode) set(cx *Context) {
	var set JoinSet[int]
	added := map[*JoinHandle[int]]*modelTask{}
	for range c.rnd.IntN(4) {
		if t := c.other(); t != nil && added[t.h] == nil {
			added[t.h] = t
			set.Add(t.h)
		}
	}
	cx, cancel := cx.WithTimeout(c.short())
	defer cancel()
	for h, err := range set.All(cx) {
		if err != nil {
			c.awaited("JoinSet.Next", cx, err)
			return
		}
		t := added[h]
		delete(added, h)
		if t == nil {
			c.fail("a JoinSet handed out what it did not have, or twice")
			return
		}
		t.joined.Store(true)
		if _, err := h.TryJoin(); err == ErrPending {
			c.fail("a JoinSet handed out a task that has not ended")
		}
	}
	if len(added) > 0 {
		c.fail("a JoinSet has kept %d tasks", len(added))
	}
}

// connection exchanges data with the server for a while.
func (c *modelCode) connection(cx *Context) error {
	short, cancel := cx.WithTimeout(c.short())
	defer cancel()
	raw, err := Dial(short, "tcp", c.addr)
	if err != nil {
		return cx.Err()
	}
	conn := &modelConn{Conn: raw}
	c.mu.Lock()
	c.conns = append(c.conns, conn)
	c.mu.Unlock()
	defer conn.close()
	buf := make([]byte, 64)
	for range 1 + c.rnd.IntN(3) {
		if n, err := conn.Write(short, buf[:1+c.rnd.IntN(63)]); n == 0 && err == nil {
			c.fail("Write wrote nothing and says that it did not fail")
		}
		if c.one(4) {
			conn.SetReadDeadline(time.Now().Add(c.short()))
		}
		_, err := conn.Read(short, buf)
		switch {
		case err == nil, errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.EOF):
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			if short.Err() == nil {
				c.fail("Read failed with %v, and its Context has not ended", err)
			}
		default:
			if oe := new(net.OpError); !errors.As(err, &oe) {
				c.fail("Read failed with %v", err)
			}
		}
	}
	return cx.Err()
}

func (c *modelConn) close() {
	if c.Close() == nil {
		c.closed.Add(1)
	}
}

func (c *modelCode) closeOther() {
	c.mu.Lock()
	var conn *modelConn
	if n := len(c.conns); n > 0 {
		conn = c.conns[c.rnd.IntN(n)]
	}
	c.mu.Unlock()
	if conn != nil {
		conn.close()
	}
}

// serve echoes until ln is closed, or cx ends.
func (m *model) serve(cx *Context, ln Listener) error {
	return WithGroup(cx, func(cx *Context, g *Group) error {
		g.KeepGoing()
		for conn, err := range Incoming(ln).All(cx) {
			if err != nil {
				break
			}
			mc := &modelConn{Conn: conn}
			m.mu.Lock()
			m.conns = append(m.conns, mc)
			m.mu.Unlock()
			h := Go(g, func(cx *Context) error {
				defer mc.close()
				c := BindConn(cx, conn)
				io.Copy(c, c)
				return nil
			})
			if h.state.done() {
				mc.close() // it may have been refused
			}
		}
		g.Cancel()
		return nil
	})
}

func runModel(t *testing.T, seed uint64) (tasks int) {
	m := &model{seed: seed, begun: map[uint64]int{}, over: map[uint64]int{}, reports: map[uint64][]error{}}
	note := func(counts map[uint64]int) func(Task) {
		return func(t Task) { m.mu.Lock(); defer m.mu.Unlock(); counts[t.ID]++ }
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	m.rt = newTestRuntime(t, Config{
		Workers:  1 + rnd.IntN(3),
		Blocking: BlockingConfig{Limit: 1 + rnd.IntN(2), Queue: 1 + rnd.IntN(3)},
		Tuning:   Tuning{Hooks: Hooks{TaskStart: note(m.begun), TaskEnd: note(m.over)}},
		Unhandled: func(t Task, err error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.reports[t.ID] = append(m.reports[t.ID], err)
		},
	})
	ln, err := ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	m.addr = ln.Addr().String()
	server := Go(m.rt, func(cx *Context) error { return m.serve(cx, ln) })

	var roots sync.WaitGroup
	for range 1 + rnd.IntN(3) {
		m.startRoot(&roots, rnd)
	}
	if rnd.IntN(3) == 0 {
		// Shutdown while the trees run. Tasks that are spawned from outside are then refused.
		time.Sleep(time.Duration(rnd.IntN(5000)) * time.Microsecond)
		require.NoError(t, m.rt.Shutdown(ended()))
	}
	roots.Wait()
	ln.Close()
	require.NoError(t, m.rt.Shutdown(context.Background()))
	_, err = join(t, server)
	require.NoError(t, err)
	m.check(t)
	return len(m.handles)
}

// startRoot starts a tree: as a task, or in a goroutine whose code is under a context
// that ends after a while.
func (m *model) startRoot(roots *sync.WaitGroup, rnd *rand.Rand) {
	c := &modelCode{model: m, task: new(modelTask), rnd: rand.New(rand.NewPCG(m.seed, rnd.Uint64()))}
	many := func(cx *Context) (int, error) {
		for range 8 {
			c.steps(cx)
		}
		return c.straight(cx)
	}
	c.task.kind = "root"
	if rnd.IntN(2) == 0 {
		c.task.h = Spawn(m.rt, many)
		m.mu.Lock()
		m.handles = append(m.handles, c.task)
		m.mu.Unlock()
		roots.Go(func() { c.task.h.JoinBlocking(context.Background()); c.task.joined.Store(true) })
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rnd.IntN(30))*time.Millisecond)
	roots.Go(func() {
		defer cancel()
		defer func() {
			if v := recover(); v != nil && v != c.task.dies {
				m.fail("BlockOn panicked with %v", v)
			}
		}()
		BlockOn(m.rt.Under(ctx), many)
	})
}

// check checks the promises when all tasks have ended.
func (m *model) check(t *testing.T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wrong := slices.Clone(m.wrong)
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for i, task := range m.handles {
		id := task.h.Task().ID
		what := fmt.Sprintf("task %d (%d, %s)", i, id, task.kind)
		if !task.h.state.done() {
			say("%s has not ended", what)
			continue
		}
		if m.begun[id] != 1 || m.over[id] != 1 {
			say("%s has started %d times and ended %d times", what, m.begun[id], m.over[id])
		}
		ran, ended, gave := task.ran.Load(), task.ended.Load(), task.gave.Load()
		if ran > 1 || ended != ran || gave > 1 {
			say("%s: taken %d times, freed %d times, given up %d times", what, ran, ended, gave)
		}
		if err := task.allowed(); err != nil {
			say("%s: %v", what, err)
		}
		reports := m.reports[id]
		f, failed := task.h.err.(*taskFailure)
		switch {
		case len(reports) > 1, len(reports) == 1 && (!failed || reports[0] != f.err):
			say("%s: reported %v, and its error is %v", what, reports, task.h.err)
		case failed && len(reports) == 0 && !task.joined.Load():
			say("%s has failed, and nobody has heard of it: %v", what, f.err)
		}
	}
	for i, c := range m.conns {
		if n := c.closed.Load(); n != 1 {
			say("connection %d has been closed %d times", i, n)
		}
	}
	for _, w := range m.rt.workers {
		if n := w.timers.len(); n > 0 {
			say("%d timers are left", n)
		}
	}
	pool := m.rt.calls
	pool.admission.mu.Lock()
	if pool.queue.n != 0 || pool.running.n != 0 || pool.admission.n != 0 || pool.admission.reserved != 0 {
		say("the pool: %d queued, %d run, %d wait, %d places reserved", pool.queue.n, pool.running.n, pool.admission.n, pool.admission.reserved)
	}
	pool.admission.mu.Unlock()
	for _, text := range wrong {
		t.Error(text)
	}
}

// allowed returns nil if the error of the task's handle agrees with the end of its code.
func (t *modelTask) allowed() error {
	err := peek(t.h)
	t.mu.Lock()
	defer t.mu.Unlock()
	p := new(PanicError)
	switch {
	case t.done && t.dies == modelGoexit:
		return expect(err == ErrGoexit, "it called Goexit, and its error is %v", err)
	case t.done && t.dies != nil:
		return expect(errors.As(err, &p) && p.Value == t.dies, "it panicked, and its error is %v", err)
	case t.done:
		return expect(err == t.says, "it returned %v, and its error is %v", t.says, err)
	case t.kind == "future" && t.gave.Load() == 1, t.ran.Load() == 0:
		ok := err == context.Canceled || err == context.DeadlineExceeded || err == ErrShutdown || err == ErrBusy
		return expect(ok, "it never got to its end, and its error is %v", err)
	}
	return fmt.Errorf("it began and did not end; its error is %v", err)
}
