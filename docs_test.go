package async

import (
	"go/ast"
	"go/doc/comment"
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

// docTypes has the declarations of this package, to check its doc comments.
type docTypes struct {
	methods  map[string]map[string]string // doc comments by type and name; functions have the type ""
	embedded map[string][]string
	names    map[string]bool // types, values and fields: a comment may mention them alone
}

func parseDocs(t *testing.T) *docTypes {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	d := &docTypes{map[string]map[string]string{}, map[string][]string{}, map[string]bool{}}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range parsed.Decls {
			d.add(decl)
		}
	}
	return d
}

func (d *docTypes) add(decl ast.Decl) {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		of := ""
		if decl.Recv != nil {
			of = typeName(decl.Recv.List[0].Type)
		}
		d.addMethod(of, decl.Name.Name, decl.Doc)
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			embeds(spec, d.embedded)
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				d.names[spec.Name.Name] = true
				d.addMembers(spec)
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					d.names[name.Name] = true
				}
			}
		}
	}
}

func (d *docTypes) addMethod(of, name string, doc *ast.CommentGroup) {
	if d.methods[of] == nil {
		d.methods[of] = map[string]string{}
	}
	d.methods[of][name] = strings.Join(strings.Fields(doc.Text()), " ")
}

// addMembers adds the fields of a struct, and the methods of an interface.
func (d *docTypes) addMembers(spec *ast.TypeSpec) {
	switch members := spec.Type.(type) {
	case *ast.StructType:
		for _, f := range members.Fields.List {
			for _, name := range f.Names {
				d.names[name.Name] = true
				d.addMethod(spec.Name.Name, name.Name, nil)
			}
		}
	case *ast.InterfaceType:
		for _, m := range members.Methods.List {
			for _, name := range m.Names {
				d.addMethod(spec.Name.Name, name.Name, m.Doc)
			}
			if len(m.Names) == 0 {
				d.embedded[spec.Name.Name] = append(d.embedded[spec.Name.Name], typeName(m.Type))
			}
		}
	}
}

// of returns the methods of a type and of the types that it embeds: the outermost method of each
// name, as in a call.
func (d *docTypes) of(typ string) map[string]string {
	all := map[string]string{}
	for inner := []string{typ}; len(inner) > 0; inner = append(inner[1:], d.embedded[inner[0]]...) {
		for name, doc := range d.methods[inner[0]] {
			if _, hidden := all[name]; !hidden {
				all[name] = doc
			}
		}
	}
	return all
}

// mentioned is a name in a doc comment, with its qualifier.
var mentioned = regexp.MustCompile(`\b(?:(\w+(?:\.\w+)*)\.)?([A-Z]\w*)\b`)

// missing returns the methods that a doc comment mentions and that the type does not have. A method
// of another type must be qualified by the name of that type. A name that is qualified by a
// variable or by another package is not checked.
func (d *docTypes) missing(typ, method, doc string) (all []string) {
	for _, m := range mentioned.FindAllStringSubmatch(doc, -1) {
		of, word := m[1], m[2]
		futures := strings.HasSuffix(method, "Future") && (word == "Poll" || word == "Cancel") // of the future that it returns
		switch {
		case of == "" && (d.names[word] || d.has("", word) || d.has(typ, word) || futures):
		case of == "" && d.isMethod(word), d.names[of] && ast.IsExported(of) && !d.has(of, word):
			all = append(all, m[0])
		}
	}
	return all
}

func (d *docTypes) has(typ, method string) bool {
	_, ok := d.of(typ)[method]
	return ok
}

func (d *docTypes) isMethod(word string) bool {
	for typ, methods := range d.methods {
		if _, ok := methods[word]; ok && typ != "" {
			return true
		}
	}
	return false
}

// The doc comment of an exported method, which may be promoted from an embedded type, mentions no
// method that the type lacks.
func TestDocsMentionOwnMethods(t *testing.T) {
	d := parseDocs(t)
	require.True(t, d.has("UDPConn", "SetReadBuffer"), "promoted from an embedded type")
	require.Equal(t, []string{"SetLinger"}, d.missing("UDPConn", "Close", "Unless SetLinger says otherwise: see Read, TCPConn.SetLinger, c.SetLinger and net.TCPConn.SetLinger."))
	require.Equal(t, []string{"UDPConn.SetLinger"}, d.missing("TCPConn", "Close", "See SetLinger and UDPConn.SetLinger."))
	for typ := range d.names {
		if !ast.IsExported(typ) {
			continue
		}
		for method, doc := range d.of(typ) {
			if ast.IsExported(method) {
				assert.Empty(t, d.missing(typ, method, doc), "the doc comment of %s.%s mentions methods that %s lacks", typ, method, typ)
			}
		}
	}
}

// packageDoc returns the package comment.
func packageDoc(t *testing.T) string {
	parsed, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	require.NoError(t, err)
	return parsed.Doc.Text()
}

// The snippets of the package comment are parts of examples that run.
func TestPackageSnippets(t *testing.T) {
	source, err := os.ReadFile("example_doc_test.go")
	require.NoError(t, err)
	examples, snippets := withoutIndent(string(source)), 0
	for _, block := range new(comment.Parser).Parse(packageDoc(t)).Content {
		if code, ok := block.(*comment.Code); ok {
			snippets++
			require.Contains(t, examples, withoutIndent(code.Text))
		}
	}
	require.Equal(t, 9, snippets)
}

func withoutIndent(code string) string {
	return regexp.MustCompile(`(?m)^\s+`).ReplaceAllString(code, "")
}

// The package comment quotes messages of the library.
func TestPackageMessages(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var library strings.Builder
	for _, file := range files {
		if file != "doc.go" && !strings.HasSuffix(file, "_test.go") {
			source, err := os.ReadFile(file)
			require.NoError(t, err)
			library.Write(source)
		}
	}
	_, list, found := strings.Cut(packageDoc(t), "# What code in a task must not do\n")
	require.True(t, found)
	list, _, found = strings.Cut(list, "One mistake ends the program")
	require.True(t, found)
	quoted := regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(strings.ReplaceAll(list, "\n    ", " "), -1)
	require.Len(t, quoted, 8)
	for _, m := range quoted[1:] { // the first is the prefix of all
		text := regexp.MustCompile(`worker 0 for 12ms`).ReplaceAllString(strings.Join(strings.Fields(m[1]), " "), "worker %d for %v")
		assert.Contains(t, library.String(), text)
	}
}

// Links in the pages lead to files, and to headings, that exist.
func TestPageLinks(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	links := 0
	for _, page := range append(pages, "README.md", "CHANGELOG.md", "bench/README.md") {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		prose := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(string(text), "")
		for _, m := range regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)`).FindAllStringSubmatch(prose, -1) {
			to, anchor := filepath.Join(filepath.Dir(page), m[1]), strings.TrimPrefix(m[2], "#")
			if strings.Contains(m[1], "://") {
				continue
			}
			if m[1] == "" {
				to = page
			}
			links++
			linked, err := os.Stat(to)
			if !assert.NoError(t, err, page) || anchor == "" || linked.IsDir() {
				continue
			}
			text, err := os.ReadFile(to)
			require.NoError(t, err)
			assert.Contains(t, anchors(string(text)), anchor, "a link in %s", page)
		}
	}
	require.Greater(t, links, 30)
}

// anchors returns the names by which links lead to the headings of a page.
func anchors(page string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}
