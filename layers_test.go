package async

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// layers has the files of the package, by prefix of their names, from the lowest layer to the
// highest. A file uses files of its own layer and of lower layers. The longest prefix that matches
// counts.
var layers = [][]string{
	{"lockorder", "race", "ringbuffer", "linkedlist", "goroutine.", "doc."},

	// The core: tasks, executor, timers, readiness. The files of the core use each other.
	{
		"admission", "blocking", "blockon", "bubble", "config", "context", "coroutine", "errors", "executor", "future", "goroutine",
		"idle", "joinhandle", "metrics", "pollfd", "reactor", "readiness", "runtime", "shutdown", "spawn", "task", "timer",
		"waitlist", "waker", "watchdog",
	},

	// Types that tasks wait for, and that need only tasks and wait lists.
	{
		"barrier", "broadcast", "chan", "cond", "gochan", "group", "joinset", "mutex", "pubsub", "notify", "once",
		"oneshot", "rwmutex", "select", "semaphore", "waitgroup", "watch.",
	},

	// System calls that wait for readiness, and the exported types that wait for it.
	{"pollfdwait", "pollfdretry", "poller", "source"},

	// Files and sockets. They are one layer because Copy uses both.
	{"bind", "file", "incoming", "io", "net", "socket", "tcp", "udp", "unix"},

	// The files that use files and sockets.
	{"process", "serve", "signal"},
}

// upwards lists the uses of higher layers that are allowed, as "file -> file", each with a reason.
var upwards = map[string]string{}

// A file uses only files of its own layer and of lower layers: see layers.
func TestLayers(t *testing.T) {
	fset := token.NewFileSet()
	files := parsePackage(t, fset)
	deps := exportData(t)

	unused := maps.Clone(upwards)
	for _, use := range usesUpwards(t, fset, files, deps) {
		if upwards[use.arrow()] == "" {
			t.Errorf("%s: %s uses %s, of a higher layer", use.arrow(), use.at, use.name)
		}
		delete(unused, use.arrow())
	}
	require.Empty(t, unused, "not needed")

	probe, err := parser.ParseFile(fset, "executorprobe.go", "package async\nvar _ = Listen", 0)
	require.NoError(t, err)
	found := usesUpwards(t, fset, append(files, probe), deps)
	require.True(t, slices.ContainsFunc(found, func(u upwardUse) bool { return u.from == "executorprobe.go" && u.name == "Listen" }),
		"an upward use that was added on purpose is found")
}

// parsePackage parses the files of the package for this system, without tests.
func parsePackage(t *testing.T, fset *token.FileSet) (files []*ast.File) {
	for _, name := range strings.Fields(goList(t, "-f", `{{join .GoFiles " "}}`, ".")) {
		f, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		files = append(files, f)
	}
	return files
}

// exportData returns the types of each package that this package imports, for an importer.
func exportData(t *testing.T) importer.Lookup {
	return exportDataOf(t, strings.Fields(goList(t, "-f", `{{join .Imports " "}}`, ".")))
}

// exportDataOf is exportData for the given packages and all packages that these import.
func exportDataOf(t *testing.T, packages []string) importer.Lookup {
	data := map[string]string{}
	args := append([]string{"-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, packages...)
	for line := range strings.Lines(goList(t, args...)) {
		if f := strings.Fields(line); len(f) == 2 {
			data[f[0]] = f[1]
		}
	}
	return func(path string) (io.ReadCloser, error) { return os.Open(data[path]) }
}

func goList(t *testing.T, args ...string) string {
	var stderr bytes.Buffer
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	return string(out)
}

// upwardUse is a use of a name that a file of a higher layer declares.
type upwardUse struct{ from, to, name, at string }

func (u upwardUse) arrow() string { return u.from + " -> " + u.to }

func usesUpwards(t *testing.T, fset *token.FileSet, files []*ast.File, deps importer.Lookup) (uses []upwardUse) {
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", deps)}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	pkg, err := conf.Check("async", fset, files, info)
	require.NoError(t, err)
	for ident, object := range info.Uses {
		if object.Pkg() != pkg {
			continue
		}
		at := fset.Position(ident.Pos())
		u := upwardUse{
			from: filepath.Base(at.Filename),
			to:   filepath.Base(fset.Position(object.Pos()).Filename),
			name: ident.Name,
			at:   fmt.Sprintf("line %d", at.Line),
		}
		if layerOf(t, u.to) > layerOf(t, u.from) {
			uses = append(uses, u)
		}
	}
	return uses
}

func layerOf(t *testing.T, file string) (layer int) {
	longest := ""
	for i, prefixes := range layers {
		for _, p := range prefixes {
			if strings.HasPrefix(file, p) && len(p) > len(longest) {
				layer, longest = i, p
			}
		}
	}
	require.NotEmpty(t, longest, "%s is in no layer", file)
	return layer
}
