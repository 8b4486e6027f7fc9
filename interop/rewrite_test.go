package interop

import (
	"bytes"
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	netPath      = "net"
	tlsPath      = "crypto/tls"
	asyncnetPath = "example.com/async/interop/asyncnet"
)

// replaced has, by package, the functions and types that make connections, and their names in
// package asyncnet.
var replaced = map[string]map[string]string{
	netPath: {
		"Dial": "Dial", "DialTCP": "DialTCP", "DialTimeout": "DialTimeout", "DialUDP": "DialUDP", "Dialer": "Dialer",
		"FileConn": "FileConn", "FileListener": "FileListener", "FilePacketConn": "FilePacketConn",
		"Listen": "Listen", "ListenConfig": "ListenConfig", "ListenPacket": "ListenPacket", "ListenTCP": "ListenTCP",
		"ListenUDP": "ListenUDP", "ListenUnix": "ListenUnix", "ListenUnixgram": "ListenUnixgram", pipe: pipe,
	},
	tlsPath: {
		"Dial": "DialTLS", "DialWithDialer": "DialTLSWithDialer", "Dialer": "TLSDialer", "Listen": "ListenTLS",
	},
}

// pipe is replaced only if rewriter.pipes is set: many tests rely on a net.Pipe, which has no
// buffer.
const pipe = "Pipe"

// replacedPointers has types of package net. A pointer to such a type is replaced by an interface
// of the same name in asyncnet.
var replacedPointers = []string{"TCPConn", "TCPListener", "UDPConn", "UnixConn", "UnixListener"}

// used has a type of each package. A declaration with this type keeps the import in use after all
// other uses have been replaced.
var used = map[string]string{netPath: "Addr", tlsPath: "Config"}

// A rewriter rewrites Go files.
type rewriter struct {
	connections bool                     // replace the connections of package net
	pipes       bool                     // replace the connections of net.Pipe
	renamed     func(path string) string // returns the path to import instead of path
}

// rewritten returns a file of Go source with the connections of package async:
//
//   - net.Dial becomes asyncnet.Dial, and so on for the names in replaced;
//   - *net.TCPConn becomes asyncnet.TCPConn, and so on for the names in replacedPointers;
//   - asyncnet is imported in the line of the package clause, so that lines keep their numbers;
//   - an imported path becomes the result of renamed.
//
// Nothing else is changed. A name that the file declares, for example a variable net, is not taken
// for the package.
func (r rewriter) rewritten(src []byte) ([]byte, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "", src, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	type edit struct {
		from, to int
		text     string
	}
	var edits []edit
	offset := func(p token.Pos) int { return set.Position(p).Offset }
	replace := func(n ast.Node, text string) {
		edits = append(edits, edit{offset(n.Pos()), offset(n.End()), text})
	}
	packages := map[string]string{} // the paths of packages by their names in this file
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		if to := r.renamed(path); to != path {
			replace(spec.Path, strconv.Quote(to))
		}
		if replaced[path] != nil {
			name := path[strings.LastIndexByte(path, '/')+1:]
			if spec.Name != nil {
				name = spec.Name.Name
			}
			packages[name] = path
		}
	}
	// of returns the path of the package from which n selects, and the selected name.
	of := func(n ast.Node) (name *ast.Ident, path, selected string) {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if name, ok := s.X.(*ast.Ident); ok && name.Obj == nil {
				return name, packages[name.Name], s.Sel.Name
			}
		}
		return nil, "", ""
	}
	touched := map[string]string{} // the names of packages with replacements, and their paths
	ast.Inspect(file, func(n ast.Node) bool {
		if !r.connections {
			return false
		}
		if star, ok := n.(*ast.StarExpr); ok {
			if name, path, selected := of(star.X); path == netPath && slices.Contains(replacedPointers, selected) {
				replace(n, "asyncnet."+selected)
				touched[name.Name] = path
				return false
			}
		}
		if name, path, selected := of(n); replaced[path][selected] != "" && (selected != pipe || r.pipes) {
			replace(n, "asyncnet."+replaced[path][selected])
			touched[name.Name] = path
		}
		return true
	})
	if len(touched) > 0 {
		at := offset(file.Name.End())
		edits = append(edits, edit{at, at, "; import asyncnet " + strconv.Quote(asyncnetPath)})
	}
	slices.SortFunc(edits, func(a, b edit) int { return cmp.Compare(a.from, b.from) })
	var out bytes.Buffer
	done := 0
	for _, e := range edits {
		out.Write(src[done:e.from])
		out.WriteString(e.text)
		done = e.to
	}
	out.Write(src[done:])
	for name, path := range touched {
		out.WriteString("\nvar _ " + name + "." + used[path] + "\n")
	}
	return out.Bytes(), nil
}

// The rewriter replaces connections, types and imports. It changes nothing else.
func TestRewriter(t *testing.T) {
	const src = `// Comment.
package p

import (
	"crypto/tls"
	stdnet "net"
	"net/http"
)

type conn struct{ *stdnet.TCPConn }

var d *stdnet.Dialer = &stdnet.Dialer{Timeout: 1}

func f(net struct{ Dial func() }) (stdnet.Conn, error) {
	net.Dial()
	a, _ := stdnet.Pipe()
	if u, ok := a.(*stdnet.UDPConn); ok { // as *stdnet.UDPConn
		return u, nil
	}
	tls.Dial("tcp", "", nil)
	var _ http.Header
	return stdnet.Dial("tcp", "stdnet.Dial")
}
`
	const want = `// Comment.
package p; import asyncnet "example.com/async/interop/asyncnet"

import (
	"crypto/tls"
	stdnet "net"
	"other/http"
)

type conn struct{ asyncnet.TCPConn }

var d *asyncnet.Dialer = &asyncnet.Dialer{Timeout: 1}

func f(net struct{ Dial func() }) (stdnet.Conn, error) {
	net.Dial()
	a, _ := stdnet.Pipe()
	if u, ok := a.(asyncnet.UDPConn); ok { // as *stdnet.UDPConn
		return u, nil
	}
	asyncnet.DialTLS("tcp", "", nil)
	var _ http.Header
	return asyncnet.Dial("tcp", "stdnet.Dial")
}
`
	renamed := func(path string) string {
		if path == "net/http" {
			return "other/http"
		}
		return path
	}
	got, err := rewriter{connections: true, renamed: renamed}.rewritten([]byte(src))
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(got, []byte(want)), "%s", got)
	rest := string(got[len(want):])
	require.ElementsMatch(t, []string{"", "var _ stdnet.Addr", "", "var _ tls.Config", ""}, strings.Split(rest, "\n"))
	got, err = rewriter{connections: true, pipes: true, renamed: renamed}.rewritten([]byte(src))
	require.NoError(t, err)
	require.Contains(t, string(got), "a, _ := asyncnet.Pipe()")
	got, err = rewriter{renamed: func(path string) string { return path }}.rewritten([]byte(src))
	require.NoError(t, err)
	require.Equal(t, src, string(got))
}
