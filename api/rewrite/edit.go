package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"slices"
	"strconv"
	"strings"
)

// library is the import path of the package whose names have changed.
const library = "example.com/async"

// edit replaces the text between two offsets.
type edit struct {
	from, to int
	text     func() string // the new text; may call render for parts of the replaced text
}

// file is a file with the edits that it needs.
type file struct {
	name   string
	source []byte
	edits  []edit
	notes  []string
}

// rewritten returns the file after all edits.
func (f *file) rewritten() []byte { return []byte(f.render(0, len(f.source))) }

// render returns the text between two offsets after the edits there. If edits are nested, render
// applies only the outermost edit, and the text function of this edit renders the inner edits.
func (f *file) render(from, to int) string {
	var b strings.Builder
	for at := from; at < to; {
		next := edit{from: to, to: to}
		for _, e := range f.edits {
			if e.from >= at && e.to <= to && !(e.from == from && e.to == to) && (e.from < next.from || e.from == next.from && e.to > next.to) {
				next = e
			}
		}
		b.Write(f.source[at:next.from])
		if next.text != nil {
			b.WriteString(next.text())
		}
		at = max(next.to, at)
		if next.text == nil {
			break
		}
	}
	return b.String()
}

// rewriter finds the edits of one file.
type rewriter struct {
	*file
	p       *source
	changes map[string]change
	pos     *token.File
	done    map[*ast.Ident]bool
	prefix  string // the prefix of names of the library in this file, for example "async."
	imports bool   // the file imports the library
}

// rewriteFile returns the file with the edits that it needs, or nil if it needs neither edits nor
// notes.
func rewriteFile(p *source, syntax *ast.File, changes map[string]change) (*file, error) {
	pos := p.fset.File(syntax.Pos())
	text, err := os.ReadFile(pos.Name())
	if err != nil {
		return nil, err
	}
	r := &rewriter{file: &file{name: pos.Name(), source: text}, p: p, changes: changes, pos: pos, done: map[*ast.Ident]bool{}}
	r.prefix = "async."
	for _, i := range syntax.Imports {
		if i.Path.Value == strconv.Quote(library) {
			r.imports = true
			switch {
			case i.Name == nil:
			case i.Name.Name == ".":
				r.prefix = ""
			default:
				r.prefix = i.Name.Name + "."
			}
		}
	}
	statements := map[ast.Expr]bool{} // calls whose results are not used
	ast.Inspect(syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ExprStmt:
			statements[n.X] = true
		case *ast.DeferStmt:
			statements[n.Call] = true
		case *ast.GoStmt:
			statements[n.Call] = true
		case *ast.CallExpr:
			r.call(n, statements[n])
		case *ast.CompositeLit:
			r.literal(n)
		case *ast.SelectorExpr:
			r.field(n)
		}
		return true
	})
	ast.Inspect(syntax, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			r.identifier(id)
		}
		return true
	})
	if len(r.edits) == 0 && len(r.notes) == 0 {
		return nil, nil
	}
	slices.Sort(r.notes)
	r.notes = slices.Compact(r.notes)
	return r.file, nil
}

func (r *rewriter) offset(p token.Pos) int { return r.pos.Offset(p) }

func (r *rewriter) renderNode(n ast.Node) string {
	return r.render(r.offset(n.Pos()), r.offset(n.End()))
}

func (r *rewriter) replace(n ast.Node, text func() string) {
	r.edits = append(r.edits, edit{r.offset(n.Pos()), r.offset(n.End()), text})
}

// changeOf returns the change of the object that id denotes, and the old name of the object. ok is
// false if the object does not belong to the library or has not changed.
func (r *rewriter) changeOf(id *ast.Ident) (c change, old string, ok bool) {
	o := r.p.info.Uses[id]
	if o == nil || o.Pkg() == nil || o.Pkg().Path() != library {
		return c, "", false
	}
	switch o := o.(type) {
	case *types.Func:
		if recv := o.Signature().Recv(); recv != nil {
			old = typeName(recv.Type()) + "."
		}
	case *types.Var:
		if o.IsField() {
			return c, "", false // see field and literal
		}
	}
	old += o.Name()
	c, ok = r.changes[old]
	return c, old, ok
}

func typeName(t types.Type) string {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if n, ok := t.(*types.Named); ok && n.Obj().Pkg() != nil && n.Obj().Pkg().Path() == library {
		return n.Obj().Name()
	}
	return ""
}

// note adds a note about a change that must be made by hand at id.
func (r *rewriter) note(id *ast.Ident, old, text string) {
	r.notes = append(r.notes, fmt.Sprintf("line %d: %s: %s", r.pos.Line(id.Pos()), old, text))
}

// identifier renames id, unless another edit has renamed it.
func (r *rewriter) identifier(id *ast.Ident) {
	c, old, ok := r.changeOf(id)
	if !ok || r.done[id] {
		return
	}
	if c.note != "" && !c.used {
		r.note(id, old, c.note)
	}
	if c.function {
		r.note(id, old, "is the function "+c.name+" now")
	} else if c.name != "" {
		r.replace(id, func() string { return c.name })
	}
}

// call turns the call of a method into the call of a function, if the method has become a function.
func (r *rewriter) call(call *ast.CallExpr, unused bool) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	c, old, ok := r.changeOf(sel.Sel)
	switch {
	case !ok:
	case c.used:
		if !unused {
			r.note(sel.Sel, old, c.note)
		}
	case c.function && c.name == "BindFile" && r.promoted(sel):
		// BindFile takes a *File, and this receiver only embeds one.
		r.done[sel.Sel] = true
		r.note(sel.Sel, old, "is the function BindFile now; pass the embedded *File")
	case c.function:
		r.done[sel.Sel] = true
		if !r.imports {
			r.note(sel.Sel, old, "is the function "+c.name+" now; import "+library)
		}
		r.replace(call, func() string {
			var args []string
			for _, a := range call.Args {
				args = append(args, r.renderNode(a))
			}
			if !c.dropped {
				args = append(args, r.renderNode(sel.X))
			}
			return r.qualified(c.name) + "(" + strings.Join(args, ", ") + ")"
		})
	}
}

// qualified returns a name of the library with the prefix of this file.
func (r *rewriter) qualified(name string) string { return r.prefix + name }

// promoted reports whether sel is a method of an embedded field.
func (r *rewriter) promoted(sel *ast.SelectorExpr) bool {
	s := r.p.info.Selections[sel]
	return s != nil && len(s.Index()) > 1
}

// literal renames the fields of a composite literal, and moves fields into the struct that now has
// them.
func (r *rewriter) literal(lit *ast.CompositeLit) {
	of := typeName(r.p.info.Types[lit].Type)
	var moved []*ast.KeyValueExpr
	inside := ""
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if key, ok := kv.Key.(*ast.Ident); ok && of != "" {
				if c, ok := r.changes[of+"."+key.Name]; ok && c.inside != "" {
					moved, inside = append(moved, kv), c.inside
				} else if ok && c.name != "" {
					r.replace(key, func() string { return c.name })
				}
			}
		}
	}
	for i, kv := range moved {
		if i > 0 {
			r.replace(kv, func() string { return "" })
			r.dropComma(kv)
			continue
		}
		r.replace(kv, func() string {
			var fields []string
			for _, kv := range moved {
				key := kv.Key.(*ast.Ident)
				fields = append(fields, r.changes[of+"."+key.Name].name+": "+r.renderNode(kv.Value))
			}
			return inside + ": " + r.qualified(inside) + "{" + strings.Join(fields, ", ") + "}"
		})
	}
}

// dropComma removes the comma before n, or the comma and the space after it.
func (r *rewriter) dropComma(n ast.Node) {
	at := r.offset(n.Pos())
	from := at
	for from > 0 && strings.ContainsRune(" \t\n", rune(r.source[from-1])) {
		from--
	}
	if from > 0 && r.source[from-1] == ',' {
		r.edits = append(r.edits, edit{from - 1, at, func() string { return "" }})
	}
}

// field renames the use of a field, and adds the name of the struct into which the field has moved.
func (r *rewriter) field(sel *ast.SelectorExpr) {
	v, ok := r.p.info.Uses[sel.Sel].(*types.Var)
	if !ok || !v.IsField() || v.Pkg() == nil || v.Pkg().Path() != library {
		return
	}
	c, ok := r.changes[typeName(r.p.info.Types[sel.X].Type)+"."+v.Name()]
	if !ok {
		return
	}
	to := c.name
	if c.inside != "" {
		to = c.inside + "." + c.name
	}
	r.replace(sel.Sel, func() string { return to })
}
