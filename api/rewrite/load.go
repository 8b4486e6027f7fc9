package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// source is a package of the program with its types.
type source struct {
	fset  *token.FileSet
	files []*ast.File
	types *types.Package
	info  *types.Info
}

// listed is the description of a package by "go list -json".
type listed struct {
	Dir, ImportPath, Export, ForTest string
	GoFiles, TestGoFiles             []string
	ImportMap                        map[string]string
	DepOnly, Standard                bool
}

// load type-checks the packages that match the patterns, with their tests. Packages that they
// import are read from the export data of the go command.
func load(dir, tags string, patterns []string) ([]*source, error) {
	cmd := exec.Command("go", append([]string{"list", "-e", "-test", "-deps", "-export", "-json", "-tags", tags}, patterns...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	byPath := map[string]*listed{}
	var all []*listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		l := new(listed)
		if err := d.Decode(l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		byPath[l.ImportPath] = l
		all = append(all, l)
	}
	var packages []*source
	for _, l := range all {
		tested := l.ForTest == "" && len(l.TestGoFiles) > 0 && byPath[l.ImportPath+" ["+l.ImportPath+".test]"] != nil
		if l.DepOnly || l.Standard || tested || strings.HasSuffix(l.ImportPath, ".test") {
			continue // the variant with tests has all files of the package
		}
		p, err := check(l, byPath)
		if err != nil {
			return nil, err
		}
		packages = append(packages, p)
	}
	return packages, nil
}

// check parses and type-checks one package. Type errors are ignored: a name whose type is not known
// is not changed.
func check(l *listed, byPath map[string]*listed) (*source, error) {
	p := &source{fset: token.NewFileSet(), info: &types.Info{
		Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{},
		Selections: map[*ast.SelectorExpr]*types.Selection{},
	}}
	for _, name := range l.GoFiles {
		if !filepath.IsAbs(name) {
			name = filepath.Join(l.Dir, name)
		}
		f, err := parser.ParseFile(p.fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		p.files = append(p.files, f)
	}
	exported := importer.ForCompiler(p.fset, "gc", func(path string) (io.ReadCloser, error) {
		if mapped, ok := l.ImportMap[path]; ok {
			path = mapped
		}
		if d := byPath[path]; d != nil && d.Export != "" {
			return os.Open(d.Export)
		}
		return nil, fmt.Errorf("no export data of %s", path)
	})
	cfg := types.Config{Importer: exported, Error: func(error) {}}
	p.types, _ = cfg.Check(l.ImportPath, p.fset, p.files, p.info)
	return p, nil
}
