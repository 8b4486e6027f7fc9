package async

import (
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// These tests check the grammar of the exported names. docs/design.md, "Names", states the grammar
// in words.

// notTheForm has the names that look like a form of another name and are not, each with the reason.
var notTheForm = map[string]string{
	"SpawnFuture":      "spawns a future",
	"LaunchFuture":     "launches a future",
	"OnFuture":         "the case of Select for a future",
	"ReadyFuture":      "a future alone: there is nothing to wait for",
	"FailedFuture":     "the same",
	"NeverFuture":      "the same",
	"TimeoutFuture":    "made of a future; code that waits uses cx.WithTimeout",
	"SpawnBlocking":    "starts a call that blocks",
	"PollFunc":         "the adapter from a function, as http.HandlerFunc is",
	"Once.DoFuture":    "its function returns a future, too",
	"Once.DoBlocking":  "its function is given a ctx, too",
	"TrySelect":        "polls futures, and needs a cx for that",
	"NewUnboundedChan": "a NewChan without a limit",
}

// An entity is an exported function or method, with its key: Name or Type.Name.
type grammarEntity struct {
	key, of, name string
	sig           *types.Signature
}

type grammar struct {
	t   *testing.T
	pkg *types.Package
	all map[string]grammarEntity
}

func TestGrammar(t *testing.T) {
	fset := token.NewFileSet()
	files, deps := parsePackage(t, fset), exportData(t)
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", deps)}
	pkg, err := conf.Check("async", fset, files, nil)
	require.NoError(t, err)
	g := &grammar{t: t, pkg: pkg, all: map[string]grammarEntity{}}
	g.collect()
	require.Contains(t, g.all, "TCPConn.Peek", "of an embedded type")
	require.Greater(t, len(g.all), 400)

	unneeded := maps.Clone(notTheForm)
	for key, e := range g.all {
		wrong := g.violation(e)
		if wrong != "" && notTheForm[key] == "" {
			t.Errorf("%s%s: %s", key, strings.TrimPrefix(e.sig.String(), "func"), wrong)
		}
		if wrong != "" {
			delete(unneeded, key)
		}
	}
	require.Empty(t, unneeded, "these break no rule, or do not exist")
	g.checkCapitals()
	g.checkInterfaces()
}

// collect finds the exported functions, the methods of exported types with promoted methods
// included, and the methods of exported interfaces.
func (g *grammar) collect() {
	scope := g.pkg.Scope()
	for _, name := range scope.Names() {
		switch o := scope.Lookup(name).(type) {
		case *types.Func:
			if o.Exported() {
				g.all[name] = grammarEntity{name, "", name, o.Signature()}
			}
		case *types.TypeName:
			if !o.Exported() {
				continue
			}
			set := types.NewMethodSet(types.NewPointer(o.Type()))
			if types.IsInterface(o.Type()) {
				set = types.NewMethodSet(o.Type())
			}
			for i := range set.Len() {
				m := set.At(i).Obj().(*types.Func)
				if m.Exported() && m.Pkg() == g.pkg {
					key := name + "." + m.Name()
					g.all[key] = grammarEntity{key, name, m.Name(), m.Signature()}
				}
			}
		}
	}
}

// sibling returns the entity of the same type with another name.
func (g *grammar) sibling(e grammarEntity, name string) (grammarEntity, bool) {
	if e.of != "" {
		name = e.of + "." + name
	}
	s, ok := g.all[name]
	return s, ok
}

func (g *grammar) isContext(v *types.Var) bool { return v.Type().String() == cxType }

// parameters returns the types of the parameters, without the first if the first is of the type
// lead.
func parameters(sig *types.Signature, lead string) (list []string) {
	for i := range sig.Params().Len() {
		if p := sig.Params().At(i).Type().String(); i > 0 || p != lead {
			list = append(list, p)
		}
	}
	return list
}

const (
	cxType  = "*async.Context"
	ctxType = "context.Context"
)

func results(sig *types.Signature) (list []string) {
	for i := range sig.Results().Len() {
		list = append(list, sig.Results().At(i).Type().String())
	}
	return list
}

func endsInError(sig *types.Signature) bool {
	r := results(sig)
	return len(r) > 0 && r[len(r)-1] == "error"
}

// takesContext reports whether the first parameter is a cx.
func (g *grammar) takesContext(sig *types.Signature) bool {
	return sig.Params().Len() > 0 && g.isContext(sig.Params().At(0))
}

// violation returns which rule the name of e breaks, or an empty text.
func (g *grammar) violation(e grammarEntity) string {
	sig := e.sig
	for i := range sig.Params().Len() {
		p := sig.Params().At(i)
		switch {
		case g.isContext(p) && (i > 0 || p.Name() != "cx"):
			return "a *Context is the first parameter, and named cx"
		case p.Type().String() == ctxType && (p.Name() != "ctx" || i > 0 && !(i == 1 && g.takesContext(sig))):
			return "a context.Context is the first parameter, but for a cx, and named ctx"
		case p.Type().String() == "async.Spawner" && (i > 0 || p.Name() != "s"):
			return "a Spawner is the first parameter, and named s"
		}
	}
	has := func(suffix string) (rest string, ok bool) {
		rest, ok = strings.CutSuffix(e.name, suffix)
		return rest, ok && rest != ""
	}
	begins := func(prefix string) (rest string, ok bool) {
		rest, ok = strings.CutPrefix(e.name, prefix)
		return rest, ok && rest != "" && token.IsExported(rest)
	}
	if rest, ok := has("Future"); ok {
		return g.futureForm(e, rest)
	}
	if rest, ok := has("Blocking"); ok {
		x, found := g.sibling(e, rest)
		switch {
		case !found || !g.takesContext(x.sig):
			return "XBlocking(ctx) is X(cx) for a goroutine, and there is no such X"
		case sig.Params().Len() == 0 || sig.Params().At(0).Type().String() != ctxType:
			return "XBlocking takes a ctx first"
		case !slices.Equal(parameters(sig, ctxType), parameters(x.sig, cxType)) || !slices.Equal(results(sig), results(x.sig)):
			return "XBlocking has the parameters and results of X"
		}
	}
	if _, ok := begins("Poll"); ok && (!g.takesContext(sig) || !endsInError(sig)) {
		return "PollX(cx, ...) returns an error last"
	}
	if rest, ok := begins("Try"); ok {
		x, found := g.sibling(e, rest)
		switch r := results(sig); {
		case !found:
			return "TryX is X now or never, and there is no X"
		case sig.Params().Len() > 0 && g.takesContext(sig):
			return "TryX has no cx"
		case !slices.Equal(parameters(sig, ""), parameters(x.sig, cxType)):
			return "TryX has the parameters of X"
		case !slices.Equal(r, results(x.sig)) && !(slices.Equal(r, []string{"bool"}) && slices.Equal(results(x.sig), []string{"error"})):
			return "TryX has the results of X, or reports whether it has done what X does"
		}
	}
	if _, ok := begins("Is"); ok && !slices.Equal(results(sig), []string{"bool"}) {
		return "IsX returns a bool"
	}
	if rest, ok := begins("New"); ok && !strings.Contains(results(sig)[0], "async."+rest) {
		return "NewX returns an X"
	}
	if _, ok := begins("On"); ok && e.of == "" && !strings.HasSuffix(strings.Split(results(sig)[0], "[")[0], "Case") {
		return "OnX returns a case of Select"
	}
	switch e.name {
	case "All":
		if r := results(sig)[0]; !strings.HasPrefix(r, "iter.Seq2[") || !strings.HasSuffix(r, ", error]") || !g.takesContext(sig) {
			return "All(cx) yields elements and errors"
		}
	case "Close":
		if !slices.Equal(results(sig), []string{"error"}) {
			return "Close returns an error, which is not nil at the second call"
		}
	case "Closed":
		if !g.takesContext(sig) {
			return "Closed(cx) waits; a predicate is IsClosed"
		}
	case "Cancel":
		if e.of != "" && (sig.Params().Len() > 0 || sig.Results().Len() > 0) {
			return "Cancel() is the method by which a future or a task is given up"
		}
	case "Poll":
		if !g.takesContext(sig) || len(results(sig)) != 2 || !endsInError(sig) {
			return "Poll(cx) is that of a Future"
		}
	}
	return ""
}

// futureForm checks XFuture: the future of X(cx, ...), with the other parameters of X.
func (g *grammar) futureForm(e grammarEntity, rest string) string {
	x, found := g.sibling(e, rest)
	r := results(e.sig)
	result := g.futureResult(e.sig)
	switch {
	case result == "":
		return fmt.Sprintf("XFuture returns a future, and not %v", r)
	case g.takesContext(e.sig):
		return "XFuture takes no cx: a future begins at its first poll"
	case !found || !g.takesContext(x.sig):
		return "XFuture is the future of X(cx), and there is no such X"
	case !slices.Equal(parameters(e.sig, ""), parameters(x.sig, cxType)):
		return "XFuture has the parameters of X without the cx"
	}
	want := results(x.sig)
	if want = want[:len(want)-1]; len(want) == 0 {
		want = []string{"struct{}"}
	}
	if !slices.Equal(want, []string{result}) {
		return fmt.Sprintf("the future has the result %s, and X has %v", result, want)
	}
	return ""
}

// futureResult returns the type of the result of the future that sig returns. The result is empty
// if sig returns no future.
func (g *grammar) futureResult(sig *types.Signature) string {
	if sig.Results().Len() != 1 {
		return ""
	}
	m, _, _ := types.LookupFieldOrMethod(sig.Results().At(0).Type(), true, g.pkg, "Poll")
	poll, ok := m.(*types.Func)
	if !ok || poll.Signature().Results().Len() != 2 {
		return ""
	}
	t := poll.Signature().Results().At(0).Type()
	return types.Unalias(t).String()
}

// checkCapitals finds names that differ only in capitals.
func (g *grammar) checkCapitals() {
	seen := map[string]string{}
	for _, name := range g.pkg.Scope().Names() {
		if !token.IsExported(name) {
			continue
		}
		if other := seen[strings.ToLower(name)]; other != "" {
			g.t.Errorf("%s and %s differ in capitals alone", other, name)
		}
		seen[strings.ToLower(name)] = name
	}
}

// checkInterfaces checks the interfaces that types of other packages may implement by wrapping. It
// finds interfaces that such a type cannot implement, and methods that a wrapper would have to
// override in pairs.
func (g *grammar) checkInterfaces() {
	for _, name := range []string{"Conn", "Listener", "PacketConn"} {
		i := g.pkg.Scope().Lookup(name).Type().Underlying().(*types.Interface)
		for m := range i.Methods() {
			if !m.Exported() || strings.HasPrefix(m.Name(), "Poll") {
				g.t.Errorf("%s has the method %s, which a type that wraps one does not override", name, m.Name())
			}
		}
	}
}
