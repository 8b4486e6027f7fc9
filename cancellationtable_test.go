package async

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// doNotWait has the exported functions and methods that take a Context first and never wait, so
// that there is nothing to cancel.
var doNotWait = map[string]bool{
	"BindConn":      true,
	"BindFile":      true,
	"BindReader":    true,
	"BindWriter":    true,
	"Cancel":        true,
	"IsDraining":    true,
	"Local":         true,
	"TaskLocal.Get": true,
	"TaskLocal.Set": true,
	"TrySelect":     true,
}

// The tables in docs/cancellation.md name only tests that exist, and name all operations of this
// package that wait. An operation that waits is an exported function or method whose first argument
// is a cx and whose name does not begin with Poll.
func TestCancellationTable(t *testing.T) {
	named, tests := cancellationTable(t)
	operations, have := declared(t)
	for _, name := range tests {
		require.True(t, have[name], "docs/cancellation.md names %s, which does not exist", name)
	}
	require.Contains(t, operations, "UDPConn.Read", "of an embedded type")
	for _, op := range operations {
		if !doNotWait[op] {
			assert.True(t, named[op], "docs/cancellation.md has no row for %s: what does cancelling it lose, and which test shows it?", op)
		}
	}
}

// cancellationTable returns the operations that have a row, and the tests.
func cancellationTable(t *testing.T) (operations map[string]bool, tests []string) {
	text, err := os.ReadFile("docs/cancellation.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(text), "## What it loses\n")
	require.True(t, found)
	operations = map[string]bool{}
	code, test := regexp.MustCompile("`([A-Za-z.]+)`"), regexp.MustCompile(`^Test\w+$`)
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || cells[0] == "---" || strings.HasPrefix(cells[0], " operation") {
			continue
		}
		require.Len(t, cells, 3, "a row of docs/cancellation.md: %s", line)
		for _, m := range code.FindAllStringSubmatch(cells[0], -1) {
			operations[m[1]] = true
		}
		for name := range strings.SplitSeq(cells[2], ",") {
			name = strings.TrimSpace(name)
			require.Regexp(t, test, name, "a row of docs/cancellation.md names no test: %s", line)
			tests = append(tests, name)
		}
	}
	require.NotEmpty(t, tests)
	return operations, tests
}

// declared returns the exported operations of this package that take a Context first, and the tests
// of the package. A type has the methods of the types that it embeds.
func declared(t *testing.T) (operations []string, tests map[string]bool) {
	return declaredAs(t, func(fn *ast.FuncDecl) bool {
		return !strings.HasPrefix(fn.Name.Name, "Poll") && takesContext(fn.Type)
	})
}

// declaredAs is declared for the exported functions and methods for which the function is returns
// true.
func declaredAs(t *testing.T, is func(fn *ast.FuncDecl) bool) (operations []string, tests map[string]bool) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	tests = map[string]bool{}
	methods, embedded := map[string][]string{}, map[string][]string{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range parsed.Decls {
			if strings.HasSuffix(file, "_test.go") {
				if fn, ok := d.(*ast.FuncDecl); ok {
					tests[fn.Name.Name] = fn.Recv == nil
				}
				continue
			}
			switch d := d.(type) {
			case *ast.FuncDecl:
				if name := d.Name.Name; d.Name.IsExported() && is(d) {
					of := ""
					if d.Recv != nil {
						of = typeName(d.Recv.List[0].Type)
					}
					methods[of] = append(methods[of], name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					embeds(spec, embedded)
				}
			}
		}
	}
	operations = methods[""]
	for of := range embedded {
		if !ast.IsExported(of) {
			continue
		}
		for inner := []string{of}; len(inner) > 0; inner = append(inner[1:], embedded[inner[0]]...) {
			for _, name := range methods[inner[0]] {
				operations = append(operations, of+"."+name)
			}
		}
	}
	return operations, tests
}

// embeds adds the types that a type embeds to embedded, if spec declares a type.
func embeds(spec ast.Spec, embedded map[string][]string) {
	declared, ok := spec.(*ast.TypeSpec)
	if !ok {
		return
	}
	name := declared.Name.Name
	embedded[name] = nil
	if s, ok := declared.Type.(*ast.StructType); ok {
		for _, f := range s.Fields.List {
			if len(f.Names) == 0 {
				embedded[name] = append(embedded[name], typeName(f.Type))
			}
		}
	}
}

// takesContext reports whether the first parameter is a *Context.
func takesContext(fn *ast.FuncType) bool {
	if len(fn.Params.List) == 0 {
		return false
	}
	star, ok := fn.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	id, ok := star.X.(*ast.Ident)
	return ok && id.Name == "Context"
}

// typeName returns the name of the type of this package that x denotes. x may be a pointer or an
// instance of a generic type.
func typeName(x ast.Expr) string {
	for {
		switch y := x.(type) {
		case *ast.StarExpr:
			x = y.X
		case *ast.IndexExpr:
			x = y.X
		case *ast.IndexListExpr:
			x = y.X
		case *ast.Ident:
			return y.Name
		default:
			return "of another package"
		}
	}
}
