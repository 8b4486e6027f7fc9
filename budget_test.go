package async

import (
	"go/ast"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/async/internal/sys"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// These tests check Config.Tuning.Budget: a loop over operations lets other tasks run, even if no
// operation has to wait. The tests call all methods of one value of each type by reflection, in a
// state in which the methods are ready at once. Functions are called by a table.

// testBudget is the Config.Tuning.Budget of these tests. The queue of a unix-domain socket has room
// for twice as many messages.
const testBudget = 5

// unbudgeted has the operations and futures that are not charged to the budget, each with the
// reason.
var unbudgeted = map[string]string{
	"Cond.WaitFuture":         "it always waits",
	"FailedFuture":            "a value",
	"Mutex.Lock":              "a free lock: a loop that locks in order to look stays cheap",
	"Mutex.LockFuture":        "see Mutex.Lock",
	"NeverFuture":             "never ready",
	"YieldFuture":             "it always waits",
	"PollFunc":                "a function of the caller's",
	"RWMutex.Lock":            "see Mutex.Lock",
	"RWMutex.LockFuture":      "see Mutex.Lock",
	"RWMutex.RLock":           "see Mutex.Lock",
	"RWMutex.RLockFuture":     "see Mutex.Lock",
	"RWMutex.ULock":           "see Mutex.Lock",
	"RWMutex.ULockFuture":     "see Mutex.Lock",
	"RWMutex.Upgrade":         "see Mutex.Lock",
	"RWMutex.UpgradeFuture":   "see Mutex.Lock",
	"ReadyFuture":             "a value",
	"Semaphore.Acquire":       "see Mutex.Lock",
	"Semaphore.AcquireFuture": "see Mutex.Lock",
}

// readyValues makes, for each type, a value whose operations are ready at once. The key is the name
// of the type, and may end in a colon and the state of the value.
var readyValues = map[string]func(e *budgetEnv) any{
	"Barrier": func(*budgetEnv) any { return NewBarrier(1) },
	"Chan":    func(*budgetEnv) any { return closedChan() },
	"Cmd":     func(e *budgetEnv) any { return e.cmd() },
	"Dialer":  func(*budgetEnv) any { return new(Dialer) },
	"File":    func(e *budgetEnv) any { f := e.file(); f.Close(e.cx); return f },
	"File: a closed pipe": func(e *budgetEnv) any {
		r := e.pipe()
		r.Close(e.cx)
		return r
	},
	"Group": func(e *budgetEnv) (g any) {
		WithGroup(e.cx, func(_ *Context, made *Group) error { g = made; return nil })
		return g
	},
	"IncomingStream": func(e *budgetEnv) any { return Incoming(e.listener()) },
	"JoinHandle":     func(e *budgetEnv) any { return e.endedTask() },
	"JoinSet":        func(*budgetEnv) any { return new(JoinSet[int]) },
	"ListenConfig":   func(*budgetEnv) any { return new(ListenConfig) },
	"Notify":         func(*budgetEnv) any { return new(Notify) }, // see readyBefore
	"Once": func(e *budgetEnv) any {
		o := new(Once[int])
		o.Do(e.cx, func(*Context) (int, error) { return 1, nil })
		return o
	},
	"Oneshot":                func(*budgetEnv) any { o := new(Oneshot[int]); o.Close(); return o },
	"RecvFuture":             func(*budgetEnv) any { return closedChan().RecvFuture() },
	"Runtime":                func(e *budgetEnv) any { return e.drained },
	"SendFuture":             func(*budgetEnv) any { return closedChan().SendFuture(1) },
	"Server":                 func(*budgetEnv) any { return &Server{Handler: noHandler} },
	"SignalStream":           func(e *budgetEnv) any { return e.signals() },
	"Source":                 func(e *budgetEnv) any { return e.source() },
	"Source: a closed one":   func(e *budgetEnv) any { s := e.source(); s.Close(); return s },
	"Subscription":           func(*budgetEnv) any { s := NewBroadcast[int](1).Subscribe(); s.Close(); return s },
	"TCPConn":                func(e *budgetEnv) any { return e.tcp() },
	"TCPConn: a closed one":  func(e *budgetEnv) any { c := e.tcp(); c.Close(); return c },
	"TCPListener":            func(e *budgetEnv) any { return e.listener() },
	"UDPConn":                func(e *budgetEnv) any { return e.udp() },
	"UDPConn: a closed one":  func(e *budgetEnv) any { c := e.udp(); c.Close(); return c },
	"UDPConn: with a peer":   func(e *budgetEnv) any { a, b := udpPair(e); e.send(b.src.fd); return a },
	"UnixConn":               func(e *budgetEnv) any { return e.unix() },
	"UnixConn: a closed one": func(e *budgetEnv) any { c := e.unix(); c.Close(); return c },
	"UnixDatagram":           func(e *budgetEnv) any { return e.datagram() },
	"UnixDatagram: a closed one": func(e *budgetEnv) any {
		c := e.datagram()
		c.Close()
		return c
	},
	"UnixListener": func(e *budgetEnv) any {
		ln := must(ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(e.TempDir(), "s"), Net: "unix"}))
		ln.Close()
		return ln
	},
	"WaitGroup": func(*budgetEnv) any { return new(WaitGroup) },
	"Watcher":   func(*budgetEnv) any { w := NewWatch(0); w.Close(); return w.Watch() },
}

// pooledValues is readyValues for types whose operations may be run by the pool of blocking calls.
var pooledValues = map[string]func(e *budgetEnv) any{
	"File: a pipe":      func(e *budgetEnv) any { return e.pipe() },
	"File: on the disk": func(e *budgetEnv) any { return e.file() },
	"Resolver":          func(*budgetEnv) any { return DefaultResolver },
}

// readyBefore has, for some methods, a function to call before each call of the method.
var readyBefore = map[string]func(v any){
	"Notify.Wait":       func(v any) { v.(*Notify).NotifyOne() },
	"Notify.WaitFuture": func(v any) { v.(*Notify).NotifyOne() },
}

// readyCalls prepares calls of functions that are ready at once. The key is the name of the
// function, and may end in a colon and the case. Some entries are for methods in a state that
// readyValues does not have.
var readyCalls = map[string]func(e *budgetEnv) func(cx *Context){
	"Await":                   calls(func(cx *Context) { Await(cx, ReadyFuture(1)) }),
	"Await: a failure":        calls(func(cx *Context) { Await(cx, FailedFuture[int](io.EOF)) }),
	"Await: a lock":           calls(func(cx *Context) { m := new(Mutex); Await(cx, m.LockFuture()) }),
	"Await: a select":         calls(func(cx *Context) { Await(cx, SelectFuture(OnFuture(ReadyFuture(1)))) }),
	"Await: a user's":         calls(func(cx *Context) { Await(cx, PollFunc(func(*Context) (int, error) { return 1, nil })) }),
	"Await: with a cancelled": cancelled(func(cx *Context) { Await(cx, ReadyFuture(1)) }),
	"Chan.Recv: a message":    withChan(func(c *Chan[int], cx *Context) { c.TrySend(1); c.Recv(cx) }),
	"Chan.Reserve: room":      withChan(func(c *Chan[int], cx *Context) { must(c.Reserve(cx)).Release() }),
	"Chan.Send: a message":    withChan(func(c *Chan[int], cx *Context) { c.TryRecv(); c.Send(cx, 1) }),
	"Cmd.Wait: too early":     calls(func(cx *Context) { Command("true").Wait(cx) }),
	"Cond.Wait": func(e *budgetEnv) func(*Context) { // it always waits unless cx is cancelled
		c := NewCond(new(Mutex))
		c.L.TryLock()
		return cancelled(func(cx *Context) { c.Wait(cx) })(e)
	},
	"ContextDone":                    calls(func(cx *Context) { ContextDone(cx, ended()) }),
	"Copy":                           calls(func(cx *Context) { Copy(cx, memory{}, noMemory{}) }),
	"CopyN":                          calls(func(cx *Context) { CopyN(cx, memory{}, memory{}, 1) }),
	"CopyN: nothing":                 calls(func(cx *Context) { CopyN(cx, memory{}, memory{}, 0) }),
	"Dial":                           calls(func(cx *Context) { Dial(cx, "unix", "/no/such") }),
	"Dial: nonsense":                 calls(func(cx *Context) { Dial(cx, "tcp", "") }),
	"Dial: datagrams":                calls(func(cx *Context) { must(Dial(cx, "udp", "127.0.0.1:9")).Close() }),
	"Dial: too late":                 calls(func(cx *Context) { (&Dialer{Deadline: time.Unix(1, 0)}).Dial(cx, "tcp", "127.0.0.1:9") }),
	"DialTCP":                        calls(func(cx *Context) { DialTCP(cx, "tcp", nil, nil) }),
	"DialUnix":                       calls(func(cx *Context) { DialUnix(cx, "unix", nil, nil) }),
	"DialUnix: no listener":          calls(func(cx *Context) { DialUnix(cx, "unix", nil, &net.UnixAddr{Name: "/no/such", Net: "unix"}) }),
	"Draining":                       calls(func(cx *Context) { asDraining(cx, func() { Draining(cx) }) }),
	"File.Read: nothing":             func(e *budgetEnv) func(*Context) { r := e.pipe(); return func(cx *Context) { r.Read(cx, nil) } },
	"WaitGroupDone":                  calls(func(cx *Context) { WaitGroupDone(cx, new(sync.WaitGroup)) }),
	"JoinSet.Next: a task":           func(e *budgetEnv) func(*Context) { return e.joinSets() },
	"Listen":                         calls(func(cx *Context) { must(Listen(cx, "tcp", "127.0.0.1:0")).Close() }),
	"Listen: nonsense":               calls(func(cx *Context) { Listen(cx, "tcp", "127.0.0.1") }),
	"ListenConfig.ListenPacket: udp": calls(func(cx *Context) { must(new(ListenConfig).ListenPacket(cx, "udp", "127.0.0.1:0")).Close() }),
	"ListenPacket":                   calls(func(cx *Context) { must(ListenPacket(cx, "udp", "127.0.0.1:0")).Close() }),
	"RecvFrom":                       calls(func(cx *Context) { RecvFrom(cx, closedGoChan()) }),
	"RecvFrom: a value":              calls(func(cx *Context) { c := make(chan int, 1); c <- 1; RecvFrom(cx, c) }),
	"Select":                         calls(func(cx *Context) { Select(cx, OnRecv(closedChan()), After(time.Hour)) }),
	"SelectInOrder":                  calls(func(cx *Context) { SelectInOrder(cx, OnFuture(ReadyFuture(1))) }),
	"SendTo":                         calls(func(cx *Context) { SendTo(cx, make(chan int, 1), 1) }),
	"SendTo: a closed one":           calls(func(cx *Context) { SendTo(cx, closedGoChan(), 1) }),
	"Serve": func(e *budgetEnv) func(*Context) {
		l := e.listener()
		return func(cx *Context) { Serve(cx, l, noHandler) }
	},
	"Sleep": calls(func(cx *Context) { Sleep(cx, 0) }),
	"Subscription.Recv: a message": func(*budgetEnv) func(*Context) {
		b := NewBroadcast[int](1)
		s := b.Subscribe()
		return func(cx *Context) { b.Send(1); s.Recv(cx) }
	},
	"TCPConn.Read: nothing": func(e *budgetEnv) func(*Context) { c := e.tcp(); return func(cx *Context) { c.Read(cx, nil) } },
	"UDPConn.WriteMsgUDP: nowhere": func(e *budgetEnv) func(*Context) {
		c := e.udp()
		return func(cx *Context) { c.WriteMsgUDP(cx, nil, nil, nil) }
	},
	"UDPConn.WriteTo: nowhere":    func(e *budgetEnv) func(*Context) { c := e.udp(); return func(cx *Context) { c.WriteTo(cx, nil, nil) } },
	"UnixConn.SendFiles: nothing": func(e *budgetEnv) func(*Context) { c := e.unix(); return func(cx *Context) { c.SendFiles(cx, nil) } },
	"UnixConn.SendFiles: a nil": func(e *budgetEnv) func(*Context) {
		c := e.unix()
		return func(cx *Context) { c.SendFiles(cx, []byte("x"), nil) }
	},
	"UnixDatagram.WriteTo: a named": func(e *budgetEnv) func(*Context) {
		c := e.named()
		return func(cx *Context) { c.WriteTo(cx, []byte("x"), c.laddr) }
	},
	"UnixDatagram.WriteTo: nowhere": func(e *budgetEnv) func(*Context) {
		c := e.named()
		return func(cx *Context) { c.WriteTo(cx, nil, nil) }
	},
	"Watcher.Changed: a change": func(*budgetEnv) func(*Context) {
		w := NewWatch(0)
		r := w.Watch()
		return func(cx *Context) { w.Set(1); r.Changed(cx) }
	},
	"WithGroup":                   calls(func(cx *Context) { WithGroup(cx, func(*Context, *Group) error { return nil }) }),
	"WriteFile: with a cancelled": cancelled(func(cx *Context) { WriteFile(cx, "/no/such", nil, 0) }),
	"JoinHandle.Await: a cancelled": func(e *budgetEnv) func(*Context) {
		h := e.endedTask()
		return cancelled(func(cx *Context) { h.Join(cx) })(e)
	},
	"Notify.Wait: with a cancelled": cancelled(func(cx *Context) { new(Notify).Wait(cx) }),
	"Chan.Recv: with a cancelled":   cancelled(func(cx *Context) { NewChan[int](1).Recv(cx) }),
	"Mutex.Lock: with a cancelled":  cancelled(func(cx *Context) { new(Mutex).Lock(cx) }),
	"UnixDatagram.WriteTo: cancelled": func(e *budgetEnv) func(*Context) {
		c := e.named()
		return cancelled(func(cx *Context) { c.WriteTo(cx, []byte("x"), c.laddr) })(e)
	},
}

// pooledCalls is readyCalls for operations that may be run by the pool of blocking calls.
var pooledCalls = map[string]func(e *budgetEnv) func(cx *Context){
	"Chmod":        calls(func(cx *Context) { Chmod(cx, "/no/such", 0) }),
	"Chown":        calls(func(cx *Context) { Chown(cx, "/no/such", 0, 0) }),
	"Chtimes":      calls(func(cx *Context) { Chtimes(cx, "/no/such", time.Time{}, time.Time{}) }),
	"CopyFS":       in(func(dir string, cx *Context) { CopyFS(cx, dir, os.DirFS(dir)) }),
	"CopyFile":     calls(func(cx *Context) { CopyFile(cx, "/no/such", "/no/such") }),
	"Create":       calls(func(cx *Context) { Create(cx, "/no/such") }),
	"CreateTemp":   calls(func(cx *Context) { CreateTemp(cx, "/no/such", "x") }),
	"EvalSymlinks": calls(func(cx *Context) { EvalSymlinks(cx, "/") }),
	"File.Close: on the spot": func(e *budgetEnv) func(*Context) {
		name := e.file().Name()
		return func(cx *Context) { must(Open(cx, name)).Close(cx) }
	},
	"Lchown":    calls(func(cx *Context) { Lchown(cx, "/no/such", 0, 0) }),
	"Link":      calls(func(cx *Context) { Link(cx, "/no/such", "/no/such") }),
	"Lstat":     calls(func(cx *Context) { Lstat(cx, "/") }),
	"Mkdir":     calls(func(cx *Context) { Mkdir(cx, "/", 0) }),
	"MkdirAll":  calls(func(cx *Context) { MkdirAll(cx, "/", 0) }),
	"MkdirTemp": calls(func(cx *Context) { MkdirTemp(cx, "/no/such", "x") }),
	"Open": func(e *budgetEnv) func(*Context) {
		name := e.file().Name()
		return func(cx *Context) { f := must(Open(cx, name)); e.Cleanup(func() { f.os.Close() }) }
	},
	"OpenFile":    calls(func(cx *Context) { OpenFile(cx, "/no/such", os.O_RDWR, 0) }),
	"LookupAddr":  calls(func(cx *Context) { LookupAddr(cx, "none") }),
	"LookupCNAME": calls(func(cx *Context) { LookupCNAME(cx, "..") }),
	"LookupHost":  calls(func(cx *Context) { LookupHost(cx, "127.0.0.1") }),
	"LookupIP":    calls(func(cx *Context) { LookupIP(cx, "127.0.0.1") }),
	"LookupMX":    calls(func(cx *Context) { LookupMX(cx, "..") }),
	"LookupNS":    calls(func(cx *Context) { LookupNS(cx, "..") }),
	"LookupPort":  calls(func(cx *Context) { LookupPort(cx, "tcp", "80") }),
	"LookupSRV":   calls(func(cx *Context) { LookupSRV(cx, "", "", "..") }),
	"LookupTXT":   calls(func(cx *Context) { LookupTXT(cx, "..") }),
	"ReadDir":     in(func(dir string, cx *Context) { ReadDir(cx, dir) }),
	"ReadFile": func(e *budgetEnv) func(*Context) {
		name := e.file().Name()
		return func(cx *Context) { ReadFile(cx, name) }
	},
	"Readlink":  calls(func(cx *Context) { Readlink(cx, "/") }),
	"Remove":    calls(func(cx *Context) { Remove(cx, "/no/such") }),
	"RemoveAll": calls(func(cx *Context) { RemoveAll(cx, "/no/such") }),
	"Rename":    calls(func(cx *Context) { Rename(cx, "/no/such", "/no/such") }),
	"Stat":      calls(func(cx *Context) { Stat(cx, "/") }),
	"Symlink":   calls(func(cx *Context) { Symlink(cx, "/", "/") }),
	"Truncate":  calls(func(cx *Context) { Truncate(cx, "/no/such", 0) }),
	"WalkDir":   in(func(dir string, cx *Context) { WalkDir(cx, dir, func(string, fs.DirEntry, error) error { return nil }) }),
	"WriteFile": calls(func(cx *Context) { WriteFile(cx, "/", nil, 0) }),
	"Yield":     calls(func(cx *Context) { Yield(cx) }),
}

// readyFutures are functions that return futures which are ready at once.
var readyFutures = map[string]func() any{
	"ContextDoneFuture":   func() any { return ContextDoneFuture(ended()) },
	"DialFuture":          func() any { return DialFuture("tcp", "") },
	"SelectFuture":        func() any { return SelectFuture(OnRecv(closedChan())) },
	"SelectInOrderFuture": func() any { return SelectInOrderFuture(OnRecv(closedChan())) },
	"SleepFuture":         func() any { return SleepFuture(0) },
	"TimeoutFuture":       func() any { return TimeoutFuture(NeverFuture[int](), 0) },
	"DrainingFuture": func() any {
		f := DrainingFuture()
		return PollFunc(func(cx *Context) (v None, err error) {
			asDraining(cx, func() { v, err = f.Poll(cx) })
			return v, err
		})
	},
	"WaitGroupDoneFuture": func() any {
		f := WaitGroupDoneFuture(new(sync.WaitGroup)).(*groupDone)
		f.o = new(Oneshot[None]) // without its goroutine, which may not run at once
		f.o.Send(None{})
		return f
	},
}

// asDraining calls f while the runtime of cx seems to drain.
func asDraining(cx *Context, f func()) {
	rt := cx.Runtime()
	rt.draining.Store(true)
	defer rt.draining.Store(false)
	f()
}

// A loop over any operation lets another task of the same worker run after at most as many
// operations as the budget allows. If the operations are ready at once, the other task does not run
// earlier.
func TestEveryOperationIsCharged(t *testing.T) {
	inBudgetTask(t, func(e *budgetEnv) {
		for _, name := range slices.Sorted(maps.Keys(readyValues)) {
			e.eachOperation(name, readyValues[name], func(op string, call func(*Context)) { e.checkTurn(op, true, call) })
		}
		for _, name := range slices.Sorted(maps.Keys(readyCalls)) {
			// The first call of WaitGroupDone may wait for its goroutine.
			e.checkTurn(name, !strings.HasPrefix(name, "WaitGroupDone"), readyCalls[name](e))
		}
		for _, name := range slices.Sorted(maps.Keys(pooledValues)) {
			e.eachOperation(name, pooledValues[name], func(op string, call func(*Context)) { e.checkTurn(op, false, call) })
		}
		for _, name := range slices.Sorted(maps.Keys(pooledCalls)) {
			e.checkTurn(name, false, pooledCalls[name](e))
		}
	})
}

// A future that polls futures that are ready at once gets ErrPending when the budget is spent. So
// it yields.
func TestEveryPollIsCharged(t *testing.T) {
	inBudgetTask(t, func(e *budgetEnv) {
		for _, name := range slices.Sorted(maps.Keys(readyValues)) {
			e.eachPoll(name, readyValues[name], e.checkPoll)
		}
		e.eachPoll("File: a pipe", pooledValues["File: a pipe"], e.checkPoll)
		for _, name := range slices.Sorted(maps.Keys(readyFutures)) {
			make := readyFutures[name]
			e.checkPoll(name, func(cx *Context) error { return pollOnce(reflect.ValueOf(make()), cx) })
		}
	})
}

// pendingPolls prepares polls that are pending, each of a value of its own.
var pendingPolls = map[string]func(e *budgetEnv) func(cx *Context) error{
	"Barrier": pendingFuture(func(*budgetEnv) any { return NewBarrier(2).WaitFuture() }),
	"Chan":    pendingFuture(func(*budgetEnv) any { return NewChan[int](1).RecvFuture() }),
	"Chan: polled": func(*budgetEnv) func(*Context) error {
		c := NewChan[int](1)
		return func(cx *Context) error { _, err := c.PollNext(cx); return err }
	},
	"Chan: sends": func(*budgetEnv) func(*Context) error {
		c := NewChan[int](0)
		f := c.SendFuture(1)
		return func(cx *Context) error { _, err := f.Poll(cx); return err }
	},
	"JoinHandle": pendingFuture(func(e *budgetEnv) any { return e.waitingTask() }),
	"JoinSet": func(e *budgetEnv) func(*Context) error {
		set := new(JoinSet[None])
		set.Add(e.waitingTask())
		return func(cx *Context) error { _, err := set.PollNext(cx); return err }
	},
	"Notify":       pendingFuture(func(*budgetEnv) any { return new(Notify).WaitFuture() }),
	"Oneshot":      pendingFuture(func(*budgetEnv) any { return new(Oneshot[int]) }),
	"Oneshot: end": pendingFuture(func(*budgetEnv) any { return new(Oneshot[int]).ClosedFuture() }),
	"Permit":       pendingFuture(func(*budgetEnv) any { return NewChan[int](0).ReserveFuture() }),
	"Select":       pendingFuture(func(*budgetEnv) any { return SelectFuture(OnRecv(NewChan[int](1))) }),
	"Send":         pendingFuture(func(*budgetEnv) any { return NewChan[int](0).SendFuture(1) }),
	"Sleep":        pendingFuture(func(*budgetEnv) any { return SleepFuture(time.Hour) }),
	"Source": func(e *budgetEnv) func(*Context) error {
		s := e.source()
		s.ReadWith(e.cx, readSome(make([]byte, 1)))
		return s.PollReadable
	},
	"Subscription": pendingFuture(func(*budgetEnv) any { return NewBroadcast[int](1).Subscribe().recvFuture() }),
	"WaitGroup":    pendingFuture(func(*budgetEnv) any { wg := new(WaitGroup); wg.Add(1); return wg.WaitFuture() }),
	"Watcher":      pendingFuture(func(*budgetEnv) any { return NewWatch(0).Watch().changedFuture() }),
}

// Pending polls are not charged: a future may poll more pending futures than its budget has
// operations. All of them get its waker, and the future does not have to yield.
func TestPendingPollsAreFree(t *testing.T) {
	inBudgetTask(t, func(e *budgetEnv) {
		for _, name := range slices.Sorted(maps.Keys(pendingPolls)) {
			e.checkPending(name, pendingPolls[name])
		}
	})
}

// A Select over more cases than the budget has operations is woken by each case.
func TestSelectOfManyFutures(t *testing.T) {
	inBudgetTask(t, func(e *budgetEnv) {
		cases := []Case{After(patience)}
		var c *Chan[int]
		for range 4 * testBudget {
			c = NewChan[int](1)
			cases = append(cases, OnFuture(c.RecvFuture()))
		}
		sender := Go(e.cx, func(cx *Context) error { return c.Send(cx, 1) })
		i, err := SelectInOrder(e.cx, cases...)
		assert.NoError(t, err)
		assert.Equal(t, len(cases)-1, i)
		sender.Join(e.cx)
	})
}

// Every exported operation with a Context, and every exported future, is in one of the tables
// above.
func TestEveryOperationIsInTheTables(t *testing.T) {
	covered := map[string]bool{}
	inBudgetTask(t, func(e *budgetEnv) {
		for _, values := range []map[string]func(*budgetEnv) any{readyValues, pooledValues} {
			for name, make := range values {
				e.eachOperation(name, make, func(op string, _ func(*Context)) { covered[baseName(op)] = true })
			}
		}
		for name := range readyValues {
			e.eachPoll(name, readyValues[name], func(op string, _ func(*Context) error) { covered[baseName(op)] = true })
		}
	})
	for _, calls := range []map[string]func(*budgetEnv) func(*Context){readyCalls, pooledCalls} {
		for name := range calls {
			covered[baseName(name)] = true
		}
	}
	for name := range readyFutures {
		covered[name] = true
	}
	operations, _ := declaredAs(t, func(fn *ast.FuncDecl) bool { return takesContext(fn.Type) || returnsFuture(fn.Type) })
	require.Contains(t, operations, "Oneshot.Poll")
	require.Contains(t, operations, "Notify.WaitFuture")
	for _, op := range operations {
		if !covered[op] && !doNotWait[op] && unbudgeted[op] == "" {
			t.Errorf("%s is in no table of budget_test.go: does a loop over it, where it is always ready, let other tasks run?", op)
		}
	}
}

// A copy between types that never wait lets other tasks run in its middle.
func TestCopyOfMemoryYields(t *testing.T) {
	inBudgetTask(t, func(e *budgetEnv) {
		turns, reads := 0, 0
		other := Go(e.cx, func(*Context) error { turns++; return nil })
		_, err := Copy(e.cx, memory{}, readFunc(func(p []byte) (int, error) {
			if reads++; turns > 0 || reads > 2*testBudget {
				return 0, io.EOF
			}
			return len(p), nil
		}))
		assert.NoError(t, err)
		assert.NotZero(t, turns, "the copy has read %d times, and no other task has had a turn", reads)
		other.Join(e.cx)
	})
}

// returnsFuture reports whether the only result is a future of this package.
func returnsFuture(fn *ast.FuncType) bool {
	if fn.Results == nil || len(fn.Results.List) != 1 {
		return false
	}
	return strings.HasSuffix(typeName(fn.Results.List[0].Type), "Future")
}

// baseName is a name of a table without the case.
func baseName(name string) string {
	base, _, _ := strings.Cut(name, ":")
	return base
}

// budgetEnv makes the values for the operations of the tables.
type budgetEnv struct {
	testing.TB
	cx      *Context
	drained *Runtime
}

// inBudgetTask runs fn in a task of the only worker.
func inBudgetTask(t *testing.T, fn func(e *budgetEnv)) {
	drained := newTestRuntime(t, Config{Workers: 1})
	require.NoError(t, drained.Shutdown(t.Context()))
	rt := newTestRuntime(t, Config{Workers: 1, Tuning: Tuning{Budget: testBudget}})
	runInTask(t, rt, func(cx *Context) error {
		fn(&budgetEnv{TB: t, cx: cx, drained: drained})
		return nil
	})
}

// checkTurn calls an operation until another task has run. If ready is set, the first call must not
// have waited.
func (e *budgetEnv) checkTurn(name string, ready bool, op func(cx *Context)) {
	var turns, over atomic.Int32
	other := Go(e.cx, func(cx *Context) error {
		for over.Load() == 0 {
			turns.Add(1)
			Yield(cx)
		}
		return nil
	})
	for turns.Load() == 0 {
		Yield(e.cx)
	}
	Yield(e.cx)
	before, n := turns.Load(), 0
	for ; turns.Load() == before && n < 2*testBudget; n++ {
		op(e.cx)
		if n == 0 && ready && turns.Load() != before {
			e.Errorf("%s is not ready at once, as it should be for this test", name)
		}
	}
	if n > testBudget+2 {
		e.Errorf("%s keeps the worker: no other task has had a turn in %d calls, with a budget of %d", name, n, testBudget)
	}
	over.Store(1)
	other.Join(e.cx)
}

// checkPoll polls in a plain future until the budget is spent.
func (e *budgetEnv) checkPoll(name string, op func(cx *Context) error) {
	n := 0
	_, err := Await(e.cx, SpawnFuture(e.cx, PollFunc(func(cx *Context) (None, error) {
		for n < 2*testBudget && op(cx) != ErrPending {
			n++
		}
		return None{}, nil
	})))
	assert.NoError(e, err, name)
	switch {
	case n == 0:
		e.Errorf("%s is not ready at once, as it should be for this test", name)
	case n > testBudget:
		e.Errorf("%s keeps the worker: it was ready %d times in one poll, with a budget of %d", name, n, testBudget)
	}
}

// checkPending calls many pending polls in one poll of a plain future. The future must not be made
// to yield.
func (e *budgetEnv) checkPending(name string, make func(e *budgetEnv) func(cx *Context) error) {
	var polls []func(cx *Context) error
	for range 3 * testBudget {
		polls = append(polls, make(e))
	}
	h := SpawnFuture(e.cx, PollFunc(func(cx *Context) (None, error) {
		for _, poll := range polls {
			if err := poll(cx); err != ErrPending {
				e.Errorf("%s: a poll that should be pending: %v", name, err)
			}
		}
		if cx.here().yielded {
			e.Errorf("%s: some of %d pending polls were refused, with a budget of %d", name, len(polls), testBudget)
		}
		return None{}, nil
	}))
	h.Join(e.cx)
}

// waitingTask returns the handle of a task that waits until the test ends.
func (e *budgetEnv) waitingTask() *JoinHandle[None] {
	return SpawnFuture(e.cx, NeverFuture[None]())
}

func pendingFuture(make func(e *budgetEnv) any) func(e *budgetEnv) func(cx *Context) error {
	return func(e *budgetEnv) func(cx *Context) error {
		f := reflect.ValueOf(make(e))
		return func(cx *Context) error { return pollOnce(f, cx) }
	}
}

// eachOperation calls f for each method of a type that takes a Context first and may wait. name is
// a key of readyValues.
func (e *budgetEnv) eachOperation(name string, make func(*budgetEnv) any, f func(op string, call func(cx *Context))) {
	e.eachMethod(name, make, func(op string, method string, v any, m reflect.Value) {
		if !takesContextFirst(m.Type()) || strings.HasPrefix(method, "Poll") {
			return
		}
		f(op, func(cx *Context) {
			before(op, v)
			for _, result := range m.Call(e.arguments(v, cx, m.Type())) {
				exhaust(result)
			}
		})
	})
}

// eachPoll calls f for each method that polls or returns a future.
func (e *budgetEnv) eachPoll(name string, make func(*budgetEnv) any, f func(op string, poll func(cx *Context) error)) {
	e.eachMethod(name, make, func(op, method string, v any, m reflect.Value) {
		switch {
		case takesContextFirst(m.Type()) && strings.HasPrefix(method, "Poll"):
			f(op, func(cx *Context) error {
				results := m.Call(e.arguments(v, cx, m.Type()))
				err, _ := results[len(results)-1].Interface().(error)
				return err
			})
		case strings.HasSuffix(method, "Future") || method == "Draining":
			f(op, func(cx *Context) error {
				before(op, v)
				return pollOnce(m.Call(e.arguments(v, cx, m.Type()))[0], cx)
			})
		}
	})
}

// eachMethod calls f for each exported method of the value that make makes, each time with a new
// value. op is the key of the tables.
func (e *budgetEnv) eachMethod(name string, make func(*budgetEnv) any, f func(op, method string, v any, m reflect.Value)) {
	of, state, _ := strings.Cut(name, ":")
	for i := range reflect.TypeOf(make(e)).NumMethod() {
		v := make(e)
		method := reflect.TypeOf(v).Method(i).Name
		op := of + "." + method
		if unbudgeted[op] != "" || doNotWait[op] {
			continue
		}
		if state != "" {
			op += ":" + state
		}
		f(op, method, v, reflect.ValueOf(v).Method(i))
	}
}

func takesContextFirst(fn reflect.Type) bool {
	return fn.NumIn() > 0 && fn.In(0) == reflect.TypeFor[*Context]()
}

// arguments makes arguments for a method of v.
func (e *budgetEnv) arguments(v any, cx *Context, fn reflect.Type) (args []reflect.Value) {
	var local net.Addr
	if c, ok := v.(Conn); ok {
		local = c.LocalAddr()
	}
	n := fn.NumIn()
	if fn.IsVariadic() {
		n--
	}
	for i := range n {
		args = append(args, reflect.Zero(fn.In(i)))
		switch args[i].Interface().(type) {
		case *Context:
			args[i] = reflect.ValueOf(cx)
		case string:
			args[i] = reflect.ValueOf("..") // every look-up of this name fails without the network
		case int, int64:
			args[i] = reflect.ValueOf(1).Convert(fn.In(i))
		case []byte:
			args[i] = reflect.ValueOf([]byte("x"))
		case net.Buffers:
			args[i] = reflect.ValueOf(net.Buffers{[]byte("x")})
		case *net.Buffers:
			args[i] = reflect.ValueOf(&net.Buffers{[]byte("x")})
		case []Message:
			m := Message{Buffers: net.Buffers{[]byte("x")}}
			if c, ok := v.(*UDPConn); ok && !c.connected() {
				m.Addr = local
			}
			args[i] = reflect.ValueOf([]Message{m})
		case netip.AddrPort:
			args[i] = reflect.ValueOf(local.(*net.UDPAddr).AddrPort())
		case *net.UDPAddr, *net.UnixAddr:
			args[i] = reflect.ValueOf(local)
		case func(int) (int, error):
			args[i] = reflect.ValueOf(func(int) (int, error) { return 0, nil })
		case nil: // an interface
			switch fn.In(i) {
			case reflect.TypeFor[net.Addr]():
				args[i] = reflect.ValueOf(local)
			case reflect.TypeFor[Listener]():
				args[i] = reflect.ValueOf(e.listener())
			}
		}
	}
	return args
}

// before calls the function of readyBefore for an operation, if there is one.
func before(op string, v any) {
	if f := readyBefore[baseName(op)]; f != nil {
		f(v)
	}
}

// exhaust ranges over a result that is a sequence, up to the first error.
func exhaust(result reflect.Value) {
	switch {
	case result.Kind() != reflect.Func:
	case result.Type().CanSeq2():
		for _, err := range result.Seq2() {
			if !err.IsNil() {
				return
			}
		}
	default:
		for range result.Seq() {
		}
	}
}

// pollOnce polls a future of any type.
func pollOnce(f reflect.Value, cx *Context) error {
	if f.Kind() == reflect.Interface {
		f = f.Elem()
	}
	err, _ := f.MethodByName("Poll").Call([]reflect.Value{reflect.ValueOf(cx)})[1].Interface().(error)
	return err
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// calls, cancelled, withChan and in make the lines of the tables short.
func calls(op func(cx *Context)) func(*budgetEnv) func(*Context) {
	return func(*budgetEnv) func(*Context) { return op }
}

func cancelled(op func(cx *Context)) func(*budgetEnv) func(*Context) {
	return func(e *budgetEnv) func(*Context) {
		cx, cancel := e.cx.WithCancel()
		cancel()
		return func(*Context) { op(cx) }
	}
}

func withChan(op func(c *Chan[int], cx *Context)) func(*budgetEnv) func(*Context) {
	c := NewChan[int](1)
	return calls(func(cx *Context) { op(c, cx) })
}

func in(op func(dir string, cx *Context)) func(*budgetEnv) func(*Context) {
	return func(e *budgetEnv) func(*Context) {
		dir := e.TempDir()
		return func(cx *Context) { op(dir, cx) }
	}
}

// memory is a Reader without end and a Writer of everything, which never wait.
type memory struct{}

func (memory) Read(_ *Context, p []byte) (int, error)  { return len(p), nil }
func (memory) Write(_ *Context, p []byte) (int, error) { return len(p), nil }

type noMemory struct{}

func (noMemory) Read(*Context, []byte) (int, error) { return 0, io.EOF }

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(_ *Context, p []byte) (int, error) { return f(p) }

func noHandler(*Context, Conn) (bool, error) { return false, nil }

func closedChan() *Chan[int] {
	c := NewChan[int](1)
	c.Close()
	return c
}

func closedGoChan() chan int {
	c := make(chan int)
	close(c)
	return c
}

// cmd returns a Cmd that has run.
func (e *budgetEnv) cmd() *Cmd {
	c := Command("true")
	assert.NoError(e, c.Run(e.cx))
	return c
}

// endedTask returns the handle of a task that has ended.
func (e *budgetEnv) endedTask() *JoinHandle[None] {
	h := Go(e.cx, func(*Context) error { return nil })
	h.Join(e.cx)
	return h
}

func (e *budgetEnv) joinSets() func(cx *Context) {
	var set JoinSet[None]
	h := e.endedTask()
	return func(cx *Context) {
		set.Add(h)
		set.Next(cx)
	}
}

// signals returns a stream of signals at its end.
func (e *budgetEnv) signals() *SignalStream {
	s := Signals(os.Interrupt)
	s.Close()
	s.Next(e.cx)
	return s
}

// file returns an open file with data in it.
func (e *budgetEnv) file() *File {
	name := filepath.Join(e.TempDir(), "f")
	assert.NoError(e, os.WriteFile(name, pattern(1000), 0o600))
	f := must(OpenFile(e.cx, name, os.O_RDWR, 0))
	e.Cleanup(func() { f.os.Close() })
	return f
}

// pipe returns the end of a pipe for reading, which is never written to.
func (e *budgetEnv) pipe() *File {
	r, w, err := Pipe()
	assert.NoError(e, err)
	w.src.close()
	e.Cleanup(func() { r.src.close() })
	return r
}

// source returns a Source that is readable and writable.
func (e *budgetEnv) source() *Source {
	fds, err := sys.SocketPair(unix.SOCK_STREAM)
	assert.NoError(e, err)
	must(unix.Write(fds[1], []byte("x")))
	s := must(NewSource(fds[0]))
	e.Cleanup(func() { s.Close(); unix.Close(fds[1]) })
	return s
}

// listener returns a listener that is closed.
func (e *budgetEnv) listener() *TCPListener {
	ln := must(ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}))
	ln.Close()
	return ln
}

// tcp and unix return a connection whose peer has ended its stream, and still takes data that is
// written.
func (e *budgetEnv) tcp() *TCPConn {
	ln := must(ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}))
	defer ln.Close()
	a := must(DialTCP(e.cx, "tcp", nil, ln.Addr().(*net.TCPAddr)))
	b := must(ln.AcceptTCP(e.cx))
	b.CloseWrite()
	e.Cleanup(func() { a.Close(); b.Close() })
	a.Readable(e.cx) // the end may take a moment to arrive
	return a
}

func (e *budgetEnv) unix() *UnixConn {
	a, b, err := SocketPair()
	assert.NoError(e, err)
	b.CloseWrite()
	e.Cleanup(func() { a.Close(); b.Close() })
	return a
}

// udp returns a socket that has received messages from itself.
func (e *budgetEnv) udp() *UDPConn {
	c := udpListen(e)
	to := must(net.Dial("udp", c.LocalAddr().String()))
	defer to.Close()
	for range 2 * testBudget {
		must(to.Write([]byte("x")))
	}
	c.Peek(e.cx, make([]byte, 1))
	return c
}

// datagram returns a socket that has received messages from its peer.
func (e *budgetEnv) datagram() *UnixDatagram {
	a, b, err := DatagramPair()
	assert.NoError(e, err)
	e.Cleanup(func() { a.Close(); b.Close() })
	e.send(b.src.fd)
	return a
}

// named returns a socket that can send to itself.
func (e *budgetEnv) named() *UnixDatagram {
	c := must(ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(e.TempDir(), "s"), Net: "unixgram"}))
	e.Cleanup(func() { c.Close() })
	return c
}

// send sends messages from a socket to its peer.
func (e *budgetEnv) send(fd int32) {
	for range 2 * testBudget {
		must(unix.Write(int(fd), []byte("x")))
	}
}
