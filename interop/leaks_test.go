package interop

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"example.com/async"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// What docs/libraries.md says to those who check for leaked goroutines: with the names of
// runtimeGoroutines nothing is found while a runtime runs, each of them is needed, and
// after Shutdown none is.
func TestLeakCheckers(t *testing.T) {
	earlier := goleak.IgnoreCurrent() // what other tests have left to libraries
	rt, err := async.New(async.Config{Workers: 2, Unhandled: func(async.Task, error) {}})
	require.NoError(t, err)

	// Something of every kind.
	ln, err := rt.ListenNet("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	accepted := begun(func() error { _, err := ln.Accept(); return err })
	failed := async.Go(rt, func(*async.Context) error { return errors.New("a failure") })
	signals := async.Signals(syscall.SIGUSR1)
	waiting := make(chan struct{})
	waits := async.Go(rt, func(cx *async.Context) error {
		_, err := async.Await(cx, async.SpawnBlocking(cx, func() (async.None, error) { return async.None{}, nil }))
		close(waiting)
		if err != nil {
			return err
		}
		_, err = async.Await(cx, async.Never[async.None]())
		return err
	})
	<-waiting

	find := func(names []goleak.Option) error { return goleak.Find(append(names, earlier)...) }
	names := runtimeGoroutines()
	// The goroutine that accepts is ours.
	ours := goleak.IgnoreAnyFunction("example.com/async/interop.begun.func1")
	require.NoError(t, find(append(slices.Clone(names), ours)))
	for i := range names {
		without := slices.Delete(slices.Clone(names), i, i+1)
		require.Error(t, find(append(without, ours)), "name %d is not needed", i)
	}

	waits.Cancel()
	require.NoError(t, ln.Close())
	require.Error(t, ends(t, "Accept", accepted))
	signals.Close()
	require.NoError(t, rt.Shutdown(t.Context()))
	require.NoError(t, find(nil))
	runtime.KeepAlive(failed)
}

// goStatements says of each go statement of the library how long its goroutine stays: until
// Shutdown, if its function is one of runtimeGoroutines, or as said here. A statement is
// named by its function, or by the one in which a function literal stands.
var goStatements = map[string]string{
	"w.run":        "",
	"l.serve":      "",
	"rt.watch.run": "",
	"p.serve":      "",
	"fs.hunt":      "",
	"s.receive":    "",

	"p.rt.bringProcs":     "a moment",
	"c.run":               "as long as the blocking call that Shutdown did not wait for",
	"closing":             "as long as the close of a file, if there is no pool for it any more",
	"now":                 "as long as the close of a file, if there is no pool for it any more",
	"a.f":                 "as long as the function of AfterFunc",
	"w.look":              "a moment",
	"c.reap":              "as long as the child process, without pidfd_open",
	"w.c.reap":            "as long as the child process, if it outlives the runtime",
	"viaGoroutine.func":   "as long as RecvFrom and SendTo wait",
	"FromGoChan.func":     "until the channel or its context has ended",
	"groupDone.Poll.func": "until the count of the WaitGroup is zero",
	"Crash.func":          "the program ends",
	"panic":               "the program ends",
}

// The goroutines that docs/libraries.md speaks of are those that the library starts.
func TestGoStatements(t *testing.T) {
	set := token.NewFileSet()
	files, err := filepath.Glob("../*.go")
	require.NoError(t, err)
	found := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			ast.Inspect(decl, func(n ast.Node) bool {
				statement, ok := n.(*ast.GoStmt)
				if !ok {
					return true
				}
				called := nameOf(statement.Call.Fun)
				if called == "" {
					called = nameOf(decl) + ".func"
				}
				found[called] = true
				require.Contains(t, goStatements, called, "%v: docs/libraries.md and this test do not know this goroutine", set.Position(n.Pos()))
				return true
			})
		}
	}
	for called := range goStatements {
		require.True(t, found[called], "no go statement calls %s", called)
	}
}

// nameOf returns the name of a function that is called or declared, with that of its
// receiver; "" if it has none.
func nameOf(n ast.Node) string {
	switch n := n.(type) {
	case *ast.Ident:
		return n.Name
	case *ast.SelectorExpr:
		return nameOf(n.X) + "." + n.Sel.Name
	case *ast.StarExpr:
		return nameOf(n.X)
	case *ast.FuncDecl:
		if n.Recv != nil {
			return nameOf(n.Recv.List[0].Type) + "." + n.Name.Name
		}
		return n.Name.Name
	default:
		return ""
	}
}
