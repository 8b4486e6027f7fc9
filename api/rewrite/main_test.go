package main

import (
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every new name of the table exists, and no old name does.
func TestTableMatchesTheLibrary(t *testing.T) {
	changes, err := parseTable(table)
	require.NoError(t, err)
	require.Greater(t, len(changes), 80)
	packages, err := load("../..", "", []string{"."})
	require.NoError(t, err)
	var library *types.Package
	for _, p := range packages {
		if p.types.Name() == "async" {
			library = p.types
		}
	}
	has := func(key string) bool {
		of, name, member := strings.Cut(key, ".")
		o := library.Scope().Lookup(of)
		if !member || o == nil {
			return o != nil
		}
		found, _, _ := types.LookupFieldOrMethod(o.Type(), true, library, name)
		return found != nil
	}
	for old, c := range changes {
		of, _, member := strings.Cut(old, ".")
		switch {
		case !token.IsExported(of): // methods that exported types get from an embedded type
		case !has(of) && member:
			t.Errorf("%s: there is no %s", old, of)
		case c.name == "" && c.note == "":
			t.Errorf("%s: the table does not say what to do", old)
		case c.used, strings.Contains(c.note, "takes no argument"), strings.Contains(c.note, "yields"), strings.Contains(c.note, "returns (int"):
			require.True(t, has(old), "%s does not exist", old)
		case has(old) && old != "Incoming": // a function now has the name Incoming
			t.Errorf("%s exists", old)
		}
		switch {
		case c.inside != "":
			require.True(t, has(of+"."+c.inside) && has(c.inside+"."+c.name), "%s: %s.%s does not exist", old, c.inside, c.name)
		case c.name == "":
		case member && !c.function:
			require.True(t, has(of+"."+c.name), "%s: %s.%s does not exist", old, of, c.name)
		default:
			require.True(t, has(c.name), "%s: %s does not exist", old, c.name)
		}
	}
}

func TestParseTableRefusesHalfALine(t *testing.T) {
	_, err := parseTable("NewSleep\n")
	require.ErrorContains(t, err, "no second word")
}

// oldLibrary is the part of the old API that the program below uses.
const oldLibrary = `package async

type Context struct{}
type Conn interface {
	Read(cx *Context, p []byte) (int, error)
	WithContext(cx *Context) interface{ Read(p []byte) (int, error) }
}
type JoinHandle[T any] struct{}

func (h *JoinHandle[T]) Await(cx *Context) (T, error)              { var v T; return v, nil }
func (h *JoinHandle[T]) TryAwait() (v T, ended bool, err error)    { return }
func Spawn[T any](cx *Context, f func(*Context) (T, error)) *JoinHandle[T] { return nil }
func NewSleep(d int) any                                           { return nil }

type Runtime struct{}

func (rt *Runtime) Draining() any { return nil }

type Chan[T any] struct{}

func (c *Chan[T]) Close() (first bool) { return }

type Config struct {
	Workers int
	Spin    int
	Name    string
}
`

const oldProgram = `package main

import lib "example.com/async"

type inner struct{ lib.Conn }

func program(cx *lib.Context, rt *lib.Runtime, c inner, ch *lib.Chan[int]) {
	// NewSleep is a word in a comment.
	_, _ = lib.Spawn(cx, func(cx *lib.Context) (int, error) { return c.WithContext(cx).Read(nil) }).Await(cx)
	_, _, _ = lib.Spawn[int](cx, nil).TryAwait()
	_, _ = lib.NewSleep(1), rt.Draining()
	ch.Close()
	defer ch.Close()
	go ch.Close()
	if ch.Close() {
		NewSleep()
	}
	cfg := lib.Config{Spin: 1, Workers: 2, Name: "x"}
	cfg.Spin++
}

func NewSleep() {}
`

const newProgram = `package main

import lib "example.com/async"

type inner struct{ lib.Conn }

func program(cx *lib.Context, rt *lib.Runtime, c inner, ch *lib.Chan[int]) {
	// NewSleep is a word in a comment.
	_, _ = lib.Spawn(cx, func(cx *lib.Context) (int, error) { return lib.BindConn(cx, c).Read(nil) }).Join(cx)
	_, _, _ = lib.Spawn[int](cx, nil).TryAwait()
	_, _ = lib.SleepFuture(1), lib.DrainingFuture()
	ch.Close()
	defer ch.Close()
	go ch.Close()
	if ch.Close() {
		NewSleep()
	}
	cfg := lib.Config{Tuning: lib.Tuning{Spin: 1, Name: "x"}, Workers: 2}
	cfg.Tuning.Spin++
}

func NewSleep() {}
`

// Files that do not import the library, that import it with a dot, or that wrap a File are
// rewritten.
func TestRewriteSpecialFiles(t *testing.T) {
	const old = oldLibrary + `
type File struct{}

func (f *File) WithContext(cx *Context) any { return nil }
`
	changes, packages, _ := loadProgram(t, old, map[string]string{
		"dot.go":   "package p\n\nimport . \"example.com/async\"\n\nvar cx *Context\n\nfunc conn() Conn { return nil }\n\nfunc dot() { conn().WithContext(cx) }\n",
		"none.go":  "package p\n\nfunc none() { conn().WithContext(cx) }\n",
		"embed.go": "package p\n\nimport lib \"example.com/async\"\n\ntype log struct{ *lib.File }\n\nfunc embed(l log) { l.WithContext(cx) }\n",
	})
	got := map[string]*file{}
	for _, syntax := range packages[0].files {
		f, err := rewriteFile(packages[0], syntax, changes)
		require.NoError(t, err)
		got[filepath.Base(f.name)] = f
	}
	require.Contains(t, string(got["dot.go"].rewritten()), "func dot() { BindConn(cx, conn()) }")
	require.Contains(t, string(got["none.go"].rewritten()), "func none() { async.BindConn(cx, conn()) }")
	require.Contains(t, got["none.go"].notes[0], "import example.com/async")
	require.Contains(t, string(got["embed.go"].rewritten()), "l.WithContext(cx)")
	require.Contains(t, got["embed.go"].notes[0], "pass the embedded *File")
}

// A program is rewritten by its types: only names of the library change. A change that must be made
// by hand is reported.
func TestRewrite(t *testing.T) {
	changes, packages, dir := loadProgram(t, oldLibrary, map[string]string{"main.go": oldProgram})
	require.Len(t, packages, 1)
	f, err := rewriteFile(packages[0], packages[0].files[0], changes)
	require.NoError(t, err)
	require.Equal(t, newProgram, string(f.rewritten()))
	require.Len(t, f.notes, 2, f.notes)
	require.Contains(t, f.notes[0], "line 10: JoinHandle.TryAwait: is TryJoin() (T, error)")
	require.Contains(t, f.notes[1], "line 15: Chan.Close: returns an error")

	require.NoError(t, run(dir, "", true, []string{"./..."}))
	written, err := os.ReadFile(filepath.Join(dir, "main.go"))
	require.NoError(t, err)
	require.Equal(t, newProgram, string(written))
	require.Error(t, run(filepath.Join(dir, "no", "such"), "", true, nil))
}

// loadProgram writes a program that uses a library with the old API, and loads it.
func loadProgram(t *testing.T, library string, program map[string]string) (map[string]change, []*source, string) {
	dir := t.TempDir()
	program["go.mod"] = "module program\n\ngo 1.25\n\nrequire example.com/async v0.0.0\n\nreplace example.com/async => ./old\n"
	program["old/go.mod"] = "module example.com/async\n\ngo 1.25\n"
	program["old/async.go"] = library
	for name, text := range program {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	changes, err := parseTable(table)
	require.NoError(t, err)
	packages, err := load(dir, "", []string{"."})
	require.NoError(t, err)
	return changes, packages, dir
}
