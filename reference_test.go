package async

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/doc/comment"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// needNoExample has the exported types and functions without an Example, each with the reason.
var needNoExample = map[string]string{
	"Crash":           "ends the program",
	"Seeker":          "the signature of io.Seeker and a cx",
	"Closer":          "the signature of io.Closer",
	"ReaderAt":        "the signature of io.ReaderAt and a cx",
	"WriterAt":        "the signature of io.WriterAt and a cx",
	"ReadWriter":      "a Reader and a Writer",
	"ReadWriteSeeker": "a Reader, a Writer and a Seeker",
	"PollWriter":      "the other direction of PollReader",
	"LookupCNAME":     "needs a name server; ExampleResolver has one",
	"LookupMX":        "needs a name server",
	"LookupNS":        "needs a name server",
	"LookupTXT":       "needs a name server",
	"LookupSRV":       "needs a name server",
}

// A referenceEntry is an exported name and its doc comment.
type referenceEntry struct {
	key      string // Name or Type.Name
	doc      string
	pos      token.Pos
	typ      *ast.FuncType // of a function or method
	isType   bool
	methods  bool // the type has methods
	examples []*doc.Example
	shownBy  []string // the type of a constructor, or the constructors of a type: their examples count
}

// A reference is the documentation of the package as go doc shows it.
type reference struct {
	fset  *token.FileSet
	pkg   *doc.Package
	all   map[string]*referenceEntry
	lacks []string
}

// The reference is complete:
//
//  1. Every exported name has a doc comment that begins with the name.
//  2. Every exported type and function has an Example with the output that it checks. The example
//     of a type also serves its NewX, and the example of an OnX its case of Select.
//  3. The doc comment of an operation that returns an error names an error or its type.
//  4. The doc comment of an operation that waits states the effect of cancelling it.
//  5. The doc comment of a type with methods says whether they may be called concurrently.
//  6. Links in doc comments lead to names that exist, and a doc comment that mentions another
//     exported name of more than one word links it.
//
// An operation satisfies 3 and 4 also by a link to an operation that does, and by the comment of its
// type.
func TestReference(t *testing.T) {
	r := newReference(t)
	require.Contains(t, r.all, "TCPConn.Peek", "of an embedded type")
	require.Contains(t, r.all, "TCPConn.SetReadDeadline", "of a type that an embedded type embeds")
	require.Greater(t, len(r.all), 500)
	for _, e := range r.all {
		r.checkDoc(e)
		r.checkExample(e)
		r.checkErrors(e)
		r.checkCancelling(e)
		r.checkConcurrency(e)
	}
	r.checkLinks(t)
	slices.Sort(r.lacks)
	for _, lack := range r.lacks {
		t.Error(lack)
	}
	for name := range needNoExample {
		require.Contains(t, r.all, name)
		require.Empty(t, r.all[name].examples, "%s has an example and need not be in this list", name)
	}
}

func newReference(t *testing.T) *reference {
	r := &reference{fset: token.NewFileSet(), all: map[string]*referenceEntry{}}
	var files []*ast.File
	for _, name := range strings.Fields(goList(t, "-f", `{{join .GoFiles " "}} {{join .TestGoFiles " "}} {{join .XTestGoFiles " "}}`, ".")) {
		f, err := parser.ParseFile(r.fset, name, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, f)
	}
	promoted := promotedMethods(files)
	var err error
	r.pkg, err = doc.NewFromFiles(r.fset, files, "example.com/async")
	require.NoError(t, err)
	for _, f := range r.pkg.Funcs {
		r.addFunc(f)
	}
	for _, typ := range r.pkg.Types {
		r.addType(typ)
	}
	for _, v := range slices.Concat(r.pkg.Vars, r.pkg.Consts) {
		r.addValues(v)
	}
	for key, e := range promoted {
		if r.all[key] == nil {
			r.all[key] = e
		}
	}
	return r
}

// promotedMethods returns the exported methods that exported types have from unexported types. go doc
// shows those that are promoted through one type.
func promotedMethods(files []*ast.File) map[string]*referenceEntry {
	methods, embedded := map[string][]*ast.FuncDecl{}, map[string][]string{}
	for _, f := range files {
		for _, decl := range f.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Recv != nil && decl.Name.IsExported() {
					of := typeName(decl.Recv.List[0].Type)
					methods[of] = append(methods[of], decl)
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					embeds(spec, embedded)
				}
			}
		}
	}
	promoted := map[string]*referenceEntry{}
	for typ := range embedded {
		if !ast.IsExported(typ) {
			continue
		}
		for inner := embedded[typ]; len(inner) > 0; inner = append(inner[1:], embedded[inner[0]]...) {
			for _, decl := range methods[inner[0]] {
				if key := typ + "." + decl.Name.Name; !ast.IsExported(inner[0]) && promoted[key] == nil {
					promoted[key] = &referenceEntry{key: key, doc: decl.Doc.Text(), pos: decl.Pos(), typ: decl.Type} // of the outermost type
				}
			}
		}
	}
	return promoted
}

func (r *reference) addFunc(f *doc.Func) {
	key := f.Name
	if f.Recv != "" {
		key = typeName(f.Decl.Recv.List[0].Type) + "." + f.Name
	}
	r.all[key] = &referenceEntry{key: key, doc: f.Doc, pos: f.Decl.Pos(), typ: f.Decl.Type, examples: f.Examples}
}

func (r *reference) addType(typ *doc.Type) {
	e := &referenceEntry{key: typ.Name, doc: typ.Doc, pos: typ.Decl.Pos(), isType: true, methods: len(typ.Methods) > 0, examples: typ.Examples}
	r.all[typ.Name] = e
	for _, f := range typ.Funcs {
		r.addFunc(f)
		if strings.HasPrefix(f.Name, "New") {
			r.all[f.Name].shownBy = []string{typ.Name}
		}
		if strings.HasPrefix(f.Name, "On") || f.Name == "After" {
			e.shownBy = append(e.shownBy, f.Name)
		}
	}
	for _, m := range typ.Methods {
		r.addFunc(m)
		r.all[typ.Name+"."+m.Name] = &referenceEntry{key: typ.Name + "." + m.Name, doc: m.Doc, pos: m.Decl.Pos(), typ: m.Decl.Type}
		e.examples = append(e.examples, m.Examples...)
	}
	for _, v := range slices.Concat(typ.Vars, typ.Consts) {
		r.addValues(v)
	}
	var members *ast.FieldList
	switch spec := typ.Decl.Specs[0].(*ast.TypeSpec).Type.(type) {
	case *ast.StructType:
		members = spec.Fields
	case *ast.InterfaceType:
		members = spec.Methods
	default:
		return
	}
	group := ""
	for _, field := range members.List {
		text := field.Doc.Text() + field.Comment.Text()
		if text != "" {
			group = text // the comment of the first field of a group is the comment of the whole group
		}
		for _, name := range field.Names {
			m := &referenceEntry{key: typ.Name + "." + name.Name, doc: group, pos: name.Pos()}
			if signature, ok := field.Type.(*ast.FuncType); ok && members.Opening.IsValid() {
				if _, isInterface := typ.Decl.Specs[0].(*ast.TypeSpec).Type.(*ast.InterfaceType); isInterface {
					m.typ, e.methods = signature, true
				}
			}
			r.all[m.key] = m
		}
	}
}

func (r *reference) addValues(v *doc.Value) {
	for _, spec := range v.Decl.Specs {
		spec := spec.(*ast.ValueSpec)
		text := spec.Doc.Text() + spec.Comment.Text() + v.Doc
		for _, name := range spec.Names {
			if name.IsExported() {
				r.all[name.Name] = &referenceEntry{key: name.Name, doc: text, pos: name.Pos()}
			}
		}
	}
}

func (r *reference) lack(e *referenceEntry, format string, args ...any) {
	at := r.fset.Position(e.pos)
	lack := fmt.Sprintf("%s:%d: %s: ", at.Filename, at.Line, e.key) + fmt.Sprintf(format, args...)
	if !slices.Contains(r.lacks, lack) {
		r.lacks = append(r.lacks, lack)
	}
}

// checkDoc checks rule 1. The comment of a function, method or type must begin with its name.
// Fields and values need a comment only.
func (r *reference) checkDoc(e *referenceEntry) {
	name := e.key[strings.LastIndexByte(e.key, '.')+1:]
	switch {
	case e.doc == "":
		r.lack(e, "no doc comment")
	case e.isType && !regexp.MustCompile(`^((A|An|The) )?`+name+`\b`).MatchString(e.doc),
		e.typ != nil && !strings.HasPrefix(e.doc, name):
		r.lack(e, "the doc comment does not begin with the name")
	}
}

func (r *reference) checkExample(e *referenceEntry) {
	isFunction := e.typ != nil && !strings.Contains(e.key, ".")
	if !e.isType && !isFunction || needNoExample[e.key] != "" {
		return
	}
	for _, key := range append(e.shownBy, e.key) {
		if slices.ContainsFunc(r.all[key].examples, func(x *doc.Example) bool { return x.Output != "" || x.EmptyOutput }) {
			return
		}
	}
	r.lack(e, "no Example with output")
}

var namesError = regexp.MustCompile(`\b(Err[A-Z]\w*|\w*Error\b|io\.EOF|context\.(Canceled|DeadlineExceeded)|E[A-Z]{3,}\b)|\b(cx|ctx)\.Err\(\)|always (returns )?nil|[Tt]he error (is|of) (always )?(nil|fn|f)\b`)

func (r *reference) checkErrors(e *referenceEntry) {
	if e.typ == nil || e.typ.Results == nil {
		return
	}
	last := e.typ.Results.List[len(e.typ.Results.List)-1].Type
	if id, ok := last.(*ast.Ident); !ok || id.Name != "error" {
		return
	}
	if !r.says(e, namesError) {
		r.lack(e, "names no error or type of error")
	}
}

var saysCancelling = regexp.MustCompile(`(?i)\bcancel|\bgiv(es?|en|ing) up\b|\babandon|\bcx\.Err\(\)|\bcx ends\b`)

// checkCancelling checks rule 4 for functions that take a cx and wait, and for functions that
// return a Future.
func (r *reference) checkCancelling(e *referenceEntry) {
	name := e.key[strings.LastIndexByte(e.key, '.')+1:]
	if e.typ == nil || doNotWait[e.key] || strings.HasPrefix(name, "Poll") {
		return
	}
	if !takesContext(e.typ) && !returnsFuture(e.typ) && !strings.HasSuffix(name, "Blocking") {
		return
	}
	if !r.says(e, saysCancelling) {
		r.lack(e, "says nothing on cancelling")
	}
}

// says reports whether the doc comment matches what, or refers to an operation whose comment does:
// by a link to an operation of this package, or by a sentence that compares it with another package.
// The comment of a type speaks for its methods if it has a sentence on errors, or on cancelling.
func (r *reference) says(e *referenceEntry, what *regexp.Regexp) bool {
	own, _, isMethod := strings.Cut(e.key, ".")
	if typ := r.all[own]; isMethod && typ != nil && forAllMethods.MatchString(typ.doc) && what.MatchString(strings.Join(strings.Fields(typ.doc), " ")) {
		return true
	}
	return r.saysWithin(e, what, 2)
}

var forAllMethods = regexp.MustCompile(`(?m)\b(Errors|Cancelling|cancelled)\b`)

// asElsewhere is a comparison with an operation of another package.
var asElsewhere = regexp.MustCompile(`\b([Aa]s|[Ll]ike|those of|that of) \[\*?[a-z][\w/]*(\.\w+)+\]`)

func (r *reference) saysWithin(e *referenceEntry, what *regexp.Regexp, links int) bool {
	text := strings.Join(strings.Fields(e.doc), " ")
	if what.MatchString(text) || asElsewhere.MatchString(text) {
		return true
	}
	if links == 0 {
		return false
	}
	for _, link := range r.links(e.doc) {
		if to := r.all[linkKey(link)]; link.ImportPath == "" && to != nil && to.typ != nil && r.saysWithin(to, what, links-1) {
			return true
		}
	}
	return false
}

var saysConcurrency = regexp.MustCompile(`(?i)\bconcurren|\bany goroutine|\bat the same time\b|\bone (task|caller|goroutine)( or (task|goroutine))? at a time\b`)

// checkConcurrency: a type says it itself, or refers to a type that does.
func (r *reference) checkConcurrency(e *referenceEntry) {
	if !e.isType || !e.methods || strings.HasSuffix(e.key, "Error") || saysConcurrency.MatchString(strings.Join(strings.Fields(e.doc), " ")) {
		return
	}
	for _, link := range r.links(e.doc) {
		if to := r.all[linkKey(link)]; link.ImportPath == "" && to != nil && to.isType && saysConcurrency.MatchString(strings.Join(strings.Fields(to.doc), " ")) {
			return
		}
	}
	r.lack(e, "does not say whether its methods may be called concurrently")
}

func (r *reference) links(text string) (all []*comment.DocLink) {
	for _, block := range r.pkg.Parser().Parse(text).Content {
		all = append(all, linksIn(block)...)
	}
	return all
}

func linksIn(block comment.Block) (all []*comment.DocLink) {
	switch block := block.(type) {
	case *comment.Paragraph:
		for _, text := range block.Text {
			if link, ok := text.(*comment.DocLink); ok {
				all = append(all, link)
			}
		}
	case *comment.Heading:
		return linksIn(&comment.Paragraph{Text: block.Text})
	case *comment.List:
		for _, item := range block.Items {
			for _, b := range item.Content {
				all = append(all, linksIn(b)...)
			}
		}
	}
	return all
}

func linkKey(link *comment.DocLink) string {
	if link.Recv != "" {
		return link.Recv + "." + link.Name
	}
	return link.Name
}

var (
	looksLikeLink = regexp.MustCompile(`\[\*?(([a-z]\w*/)*[a-z]\w*\.)?[A-Z]\w*(\.[A-Z]\w*)?\](?:[^(\[]|$)`)
	qualifiedName = regexp.MustCompile(`(^|[^\w.\[*])\*?([A-Z]\w*(?:\.[A-Z]\w*)?)\b`)
	codeLine      = regexp.MustCompile(`(?m)^[\t ].*$`)
)

// checkLinks checks the links of every doc comment, and that names are links.
func (r *reference) checkLinks(t *testing.T) {
	r.checkPackageLinks(t)
	for _, e := range r.all {
		printed := string(new(comment.Printer).Text(r.pkg.Parser().Parse(e.doc)))
		for _, broken := range looksLikeLink.FindAllString(printed, -1) {
			r.lack(e, "the link %s leads nowhere", strings.TrimSpace(broken))
		}
		linked := map[string]bool{}
		for _, link := range r.links(e.doc) {
			linked[linkKey(link)] = true
		}
		own, _, _ := strings.Cut(e.key, ".")
		for _, m := range qualifiedName.FindAllStringSubmatch(codeLine.ReplaceAllString(e.doc, ""), -1) {
			name := m[2]
			if r.all[name] != nil && hasWords(name) && name != e.key && name != own && !linked[name] {
				r.lack(e, "mentions %s without a link", name)
			}
		}
	}
}

// hasWords reports whether a name cannot be a plain word at the beginning of a sentence.
func hasWords(name string) bool {
	return strings.Contains(name, ".") || strings.IndexFunc(name[1:], unicode.IsUpper) >= 0
}

// checkPackageLinks checks the links to names of other packages.
func (r *reference) checkPackageLinks(t *testing.T) {
	type use struct {
		link *comment.DocLink
		in   *referenceEntry
	}
	var uses []use
	paths := map[string]bool{}
	for _, e := range r.all {
		for _, link := range r.links(e.doc) {
			if link.ImportPath != "" {
				uses = append(uses, use{link, e})
				paths[link.ImportPath] = true
			}
		}
	}
	packages := importer.ForCompiler(r.fset, "gc", exportDataOf(t, slices.Collect(maps.Keys(paths))))
	for _, u := range uses {
		pkg, err := packages.Import(u.link.ImportPath)
		require.NoError(t, err)
		if !exists(pkg, u.link) {
			r.lack(u.in, "the link to %s.%s leads nowhere", u.link.ImportPath, linkKey(u.link))
		}
	}
}

func exists(pkg *types.Package, link *comment.DocLink) bool {
	if link.Recv == "" {
		return link.Name == "" || pkg.Scope().Lookup(link.Name) != nil
	}
	typ := pkg.Scope().Lookup(link.Recv)
	if typ == nil {
		return false
	}
	member, _, _ := types.LookupFieldOrMethod(typ.Type(), true, pkg, link.Name)
	return member != nil
}

// The checks find comments that say too little.
func TestReferenceChecks(t *testing.T) {
	r := newReference(t)
	lacks := func(key, comment string, check func(*referenceEntry)) bool {
		e := *r.all[key]
		e.doc, r.lacks = comment, nil
		check(&e)
		return len(r.lacks) > 0
	}
	for _, c := range []struct {
		key, comment string
		check        func(*referenceEntry)
		lacks        bool
	}{
		{"Chan.Recv", "", r.checkDoc, true},
		{"Chan.Recv", "Receives.", r.checkDoc, true},
		{"Chan.Recv", "Recv receives.", r.checkDoc, false},
		{"Await", "Await waits. See [io.Reader].", r.checkErrors, true},
		{"Await", "Await waits. See [Spawner].", r.checkErrors, true},
		{"Await", "Await fails with\n[ErrClosed].", r.checkErrors, false},
		{"Await", "Await has the errors of [Chan.Recv].", r.checkErrors, false},
		{"Await", "Await fails as [io.ReadFull] does.", r.checkErrors, false},
		{"Await", "Await waits. See [Spawner].", r.checkCancelling, true},
		{"Await", "Await gives\nup the future.", r.checkCancelling, false},
		{"Chan", "A Chan returns at once.", r.checkConcurrency, true},
		{"Chan", "A Chan is like [io.Reader].", r.checkConcurrency, true},
		{"Chan", "A Chan is used by one\ntask at a time.", r.checkConcurrency, false},
		{"Chan", "A Chan is as safe as [Mutex].", r.checkConcurrency, false},
	} {
		require.Equal(t, c.lacks, lacks(c.key, c.comment, c.check), "%s: %q", c.key, c.comment)
	}
}
