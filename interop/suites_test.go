package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/async/interop/asyncnet"
	"github.com/stretchr/testify/require"
)

// A suite is the tests of another project.
type suite struct {
	name     string
	module   string   // one of go.mod, or stdModule
	packages []string // below the module
	short    bool     // the tests run with -short

	// leftOut has tests that do not run, and leftOutFiles has files that are not in the copy for
	// package async. Each has a reason.
	leftOut, leftOutFiles map[string]string

	// pipes also replaces net.Pipe, by a pair of connected sockets.
	pipes bool

	// tests and opened are lower bounds. The suite fails below these bounds, so that it cannot pass
	// without testing anything.
	tests  int // tests, without subtests, that pass on package async
	opened int // connections dialled, listeners and packet sockets opened on package async

	// differs has tests that pass on package net and may fail on package async, each with the
	// reason. If subtests may fail, differs has the subtests and not their test.
	differs map[string]string
}

var suites = []suite{
	{
		name: "miekg-dns", module: "github.com/miekg/dns", packages: []string{"."},
		tests: 250, opened: 100,
		differs: map[string]string{"TestParseBadNAPTR": "it counts the goroutines of the program"},
	},
	{
		name: "go-smtp", module: "github.com/emersion/go-smtp", packages: []string{"."},
		tests: 70, opened: 80,
	},
	{
		name: "yamux", module: "github.com/hashicorp/yamux", packages: []string{"."}, short: true,
		tests: 30, opened: 50,
	},
	{
		name: "coder-websocket", module: "github.com/coder/websocket", packages: []string{"."}, pipes: true,
		leftOutFiles: map[string]string{"main_test.go": "it fails if there is any goroutine at the end"},
		tests:        20, opened: 80,
		differs: map[string]string{"TestConn/netConn": "it asks for the address of a net.Pipe"},
	},
	{
		name: "x-net", module: "golang.org/x/net", packages: []string{
			"http2", "http2/h2c", "icmp", "internal/socket", "internal/socks", "ipv4", "ipv6",
			"nettest", "netutil", "proxy", "quic", "websocket",
		}, short: true,
		leftOut:      map[string]string{"TestRace": "it takes half a minute"},
		leftOutFiles: map[string]string{"quic/main_test.go": "it waits until there is no goroutine that was not there before"},
		tests:        300, opened: 100,
	},
	{
		name: "std", module: stdModule, packages: []string{
			"log/syslog", "net/http", "net/http/cgi", "net/http/fcgi", "net/http/httptest", "net/http/httputil",
			"net/rpc", "net/rpc/jsonrpc", "net/smtp",
		}, short: true,
		leftOut: map[string]string{
			"TestCmdGoNoHTTPServer": goCommand, "TestOmitHTTP2": goCommand, "TestOmitHTTP2Vet": goCommand,
			"TestTransportEventTrace": ownLookup, "TestTransportEventTrace_NoHooks": ownLookup,
			"TestTransportIDNA": ownLookup, "TestTransportMaxIdleConns": ownLookup,
			"TestWriteHeaderNoCodeCheck": ownPath, "TestWriteHeaderNoCodeCheck_h1hijack": ownPath,
		},
		differs: map[string]string{
			"TestLinuxSendfile": "it wants the system call sendfile, and no goroutine at the end",
		},
		tests: 600, opened: 1000,
	},
}

const (
	goCommand = "it runs the go command on the standard library"
	ownLookup = "it gives package net a look-up function, by a package that only the standard library may import"
	ownPath   = "it wants net/http's own import path in a log message"
)

// stdModule is a module that is made of packages of the standard library: stdPackages, and the
// packages below them. The substitutes in testdata/std replace packages that only the standard
// library may import.
const stdModule = "example.com/std"

var stdPackages = []string{"log/syslog", "net/http", "net/rpc", "net/smtp"}

// TestSuites runs the tests of other projects twice: on package net, and on the connections of
// package async. Each test that passes on package net must pass on package async. A test that fails
// on package async is repeated up to three times, without the other tests: many of these tests
// measure time, and fail on a busy machine on package net, too.
//
// For each of the two runs the modules are copied, and replace the dependencies in a copy of
// go.mod, so that they have the versions and checksums of this module. The Go files of the second
// copy are rewritten, see rewriter. A suite that imports net/http imports the rewritten copy of
// net/http instead: servers, clients and httptest are then on package async, too.
func TestSuites(t *testing.T) {
	doc, err := os.ReadFile("../docs/libraries.md")
	require.NoError(t, err)
	std, ours := copySuites(t, false), copySuites(t, true)
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) {
			for _, tests := range []map[string]string{s.leftOut, s.differs} {
				for name := range tests {
					require.Contains(t, string(doc), name, "docs/libraries.md")
				}
			}
			results := make(chan suiteRun, 1) // both runs at the same time: the tests sleep most of the time
			go func() { results <- std.run(t, s.args(), s.paths()...) }()
			run := ours.run(t, s.args(), s.paths()...)
			s.compare(t, <-results, run, ours)
		})
	}
}

// paths returns the import paths of the packages.
func (s *suite) paths() (paths []string) {
	for _, p := range s.packages {
		paths = append(paths, strings.TrimSuffix(s.module+"/"+p, "/."))
	}
	return paths
}

// args returns the arguments of go test.
func (s *suite) args() (args []string) {
	if s.short {
		args = append(args, "-short")
	}
	if len(s.leftOut) > 0 {
		args = append(args, "-skip", anyOf(slices.Collect(maps.Keys(s.leftOut))))
	}
	return args
}

// anyOf returns a pattern for go test.
func anyOf(tests []string) string {
	slices.Sort(tests)
	return "^(" + strings.Join(slices.Compact(tests), "|") + ")$"
}

// compare fails the test if s passes on package net and not on package async. copies are the copies
// for package async.
func (s *suite) compare(t *testing.T, std, ours suiteRun, copies suiteCopies) {
	passed, both := 0, 0
	for test := range ours.passed {
		if !test.isSub() && !test.isPackage() {
			passed++
		}
	}
	failed := map[string][]suiteTest{} // failed tests that pass on package net, by package
	for test := range std.passed {
		switch {
		case ours.passed[test]:
			both++
			if _, listed := s.differs[test.name]; listed {
				t.Logf("%v is on the list and passes", test)
			}
		case ours.failed[test] || !test.isSub(): // subtests may have other names in each run
			failed[test.pkg] = append(failed[test.pkg], test)
		}
	}
	for pkg, tests := range failed {
		tests = slices.DeleteFunc(innermost(tests), func(test suiteTest) bool {
			_, listed := s.differs[test.name]
			return listed
		})
		last := ours
		for try := 0; try < 3 && len(tests) > 0; try++ {
			t.Logf("to be run again: %s", last.about(tests))
			var top []string
			for _, test := range tests {
				top = append(top, test.top())
			}
			args := s.args()
			if !tests[0].isPackage() { // if there is a package, it is the only element: see innermost
				args = append(args, "-run", anyOf(top))
			}
			last = copies.run(t, args, pkg)
			tests = slices.DeleteFunc(tests, func(test suiteTest) bool { return last.passed[test] })
		}
		if len(tests) > 0 {
			t.Errorf("passes on package net, and not on package async: %s", last.about(tests))
		}
	}
	if tests := innermost(slices.Collect(maps.Keys(std.failed))); len(tests) > 0 {
		t.Logf("fails on package net: %s", std.about(tests))
	}
	opened := 0
	for _, n := range ours.opened {
		opened += n
	}
	require.GreaterOrEqual(t, passed, s.tests, "tests that pass on package async")
	require.GreaterOrEqual(t, opened, s.opened, "connections and listeners: %v", ours.opened)
	require.Empty(t, std.opened, "connections of package async in the run on package net")
	t.Logf("%d tests pass on package async, with subtests %d, of which %d on package net, too; opened: %v",
		passed, len(ours.passed), both, ours.opened)
}

// A suiteTest is the name of a test, or of a package if name is empty.
type suiteTest struct{ pkg, name string }

func (t suiteTest) String() string  { return strings.TrimSuffix(t.pkg+"."+t.name, ".") }
func (t suiteTest) isPackage() bool { return t.name == "" }
func (t suiteTest) isSub() bool     { return strings.Contains(t.name, "/") }

// top returns the name of the test that has the subtest t, or the name of t.
func (t suiteTest) top() string {
	top, _, _ := strings.Cut(t.name, "/")
	return top
}

// innermost returns tests, sorted, without the tests that have a subtest in tests, and without the
// packages that have a test in tests.
func innermost(tests []suiteTest) []suiteTest {
	outer := map[suiteTest]bool{}
	for _, test := range tests {
		if !test.isPackage() {
			outer[suiteTest{pkg: test.pkg}] = true
		}
		for i, b := range test.name {
			if b == '/' {
				outer[suiteTest{test.pkg, test.name[:i]}] = true
			}
		}
	}
	tests = slices.DeleteFunc(tests, func(test suiteTest) bool { return outer[test] })
	slices.SortFunc(tests, func(a, b suiteTest) int { return strings.Compare(a.String(), b.String()) })
	return tests
}

// A suiteRun is the outcome of a run of go test.
type suiteRun struct {
	passed, failed map[suiteTest]bool
	output         map[suiteTest]string
	opened         map[string]int // numbers by function and network; see asyncnet.LogVariable
}

// about returns the output of the failed tests among tests, which are of one package. If a test did
// not end, it also returns the output of the package.
func (r *suiteRun) about(tests []suiteTest) string {
	var b strings.Builder
	var missing []suiteTest
	print := func(test suiteTest) {
		const most = 10_000
		out := r.output[test]
		if len(out) > 2*most {
			out = out[:most] + "\n[...]\n" + out[len(out)-most:]
		}
		fmt.Fprintf(&b, "%v\n%s", test, out)
	}
	for _, test := range tests {
		if r.failed[test] {
			print(test)
		} else {
			missing = append(missing, test)
		}
	}
	if len(missing) > 0 {
		fmt.Fprintf(&b, "%d tests did not end, the first of them %v, in\n", len(missing), missing[0])
		print(suiteTest{pkg: missing[0].pkg})
	}
	return b.String()
}

// suiteCopies are copies of the modules, for package net or for package async.
type suiteCopies struct {
	dir   string
	async bool
}

func (c suiteCopies) modfile() string { return filepath.Join(c.dir, "go.mod") }

func copySuites(t *testing.T, async bool) suiteCopies {
	t.Helper()
	c := suiteCopies{t.TempDir(), async}
	mod, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	sum, err := os.ReadFile("go.sum")
	require.NoError(t, err)
	for _, s := range suites {
		to := filepath.Join(c.dir, s.name)
		mod = fmt.Appendf(mod, "\nreplace %s => %s\n", s.module, to)
		if s.module == stdModule {
			mod = fmt.Appendf(mod, "\nrequire %s v0.0.0\n", stdModule)
			root := strings.TrimSpace(string(goCommandOutput(t, "env", "GOROOT")))
			for _, p := range stdPackages {
				c.copyTree(t, s, filepath.Join(to, p), filepath.Join(root, "src", p))
			}
			c.copyTree(t, s, to, "testdata/std")
			require.NoError(t, os.WriteFile(filepath.Join(to, "go.mod"), []byte("module "+stdModule+"\n\ngo 1.26\n"), 0o600))
			continue
		}
		var module struct{ Dir string }
		require.NoError(t, json.Unmarshal(goCommandOutput(t, "mod", "download", "-json", s.module), &module))
		c.copyTree(t, s, to, module.Dir)
	}
	require.NoError(t, os.WriteFile(c.modfile(), mod, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "go.sum"), sum, 0o600))
	return c
}

func goCommandOutput(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("go", args...).Output()
	require.NoError(t, err, "go %v: %s", args, out)
	return out
}

// copyTree copies a directory, and rewrites its Go files.
func (c suiteCopies) copyTree(t *testing.T, s suite, to, from string) {
	t.Helper()
	r := rewriter{connections: c.async, pipes: s.pipes, renamed: func(path string) string { return c.renamed(s, path) }}
	left := 0
	require.NoError(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if _, ok := s.leftOutFiles[filepath.ToSlash(rel)]; ok && c.async {
			left++
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if filepath.Ext(path) == ".go" && !strings.Contains(rel, "testdata") {
			if data, err = r.rewritten(data); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	}))
	if c.async {
		require.Len(t, s.leftOutFiles, left, "files to leave out are not there")
	}
}

// renamed returns the path to import instead of path.
func (c suiteCopies) renamed(s suite, path string) string {
	inStd := s.module == stdModule
	switch {
	case !c.async && !inStd, path == "net/http/httptrace": // package net uses only the original
		return path
	case inStd && path == "internal/synctest":
		return "testing/synctest"
	case inStd && strings.HasPrefix(path, "internal/"):
		return stdModule + "/" + path
	}
	for _, p := range stdPackages {
		if path == p || strings.HasPrefix(path, p+"/") {
			return stdModule + "/" + path
		}
	}
	return path
}

// run runs go test. With -trimpath the build does not depend on the path of the copies, so the next
// run finds the build in the build cache.
func (c suiteCopies) run(t *testing.T, args []string, packages ...string) suiteRun {
	r := suiteRun{map[suiteTest]bool{}, map[suiteTest]bool{}, map[suiteTest]string{}, map[string]int{}}
	log, err := os.CreateTemp(c.dir, "log")
	if err != nil {
		t.Error(err)
		return r
	}
	defer log.Close()
	args = slices.Concat([]string{"test", "-modfile", c.modfile(), "-trimpath", "-json", "-count=1", "-vet=off", "-timeout=5m"}, args, packages)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), asyncnet.LogVariable+"="+log.Name())
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Error(err)
	}
	if stderr.Len() > 0 {
		t.Logf("go %v:\n%s", args, stderr.Bytes())
	}
	for out.Len() > 0 {
		line, err := out.ReadBytes('\n')
		var event struct{ Action, Package, Test, ImportPath, Output string }
		if err := errors.Join(err, json.Unmarshal(line, &event)); err != nil {
			t.Errorf("%v: %s", err, line)
			continue
		}
		test := suiteTest{event.Package, event.Test}
		switch event.Action {
		case "pass":
			r.passed[test] = true
		case "fail":
			r.failed[test] = true
		case "output":
			r.output[test] += event.Output
		case "build-output":
			t.Logf("%s", event.Output)
		}
	}
	for lines := bufio.NewScanner(log); lines.Scan(); {
		r.opened[lines.Text()]++
	}
	return r
}
