// Command rewrite changes a program from the API of version 0.4 to the API of version 0.5. It needs
// the types of the old API: run it in the module of the program while go.mod still names the old
// version, and update go.mod afterwards.
//
//	go run example.com/async/api/rewrite@latest -w ./...
//
// Without -w it prints the number of changes of each file, and changes nothing. The table of all
// changes is renames.txt in this directory. Changes that the program needs and that must be made by
// hand are printed with their line.
package main

import (
	_ "embed"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

//go:embed renames.txt
var table string

func main() {
	write := flag.Bool("w", false, "write the changed files")
	dir := flag.String("C", ".", "the directory of the program's module")
	tags := flag.String("tags", "", "build tags")
	flag.Parse()
	patterns := flag.Args()
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	if err := run(*dir, *tags, *write, patterns); err != nil {
		fmt.Fprintln(os.Stderr, "rewrite:", err)
		os.Exit(1)
	}
}

func run(dir, tags string, write bool, patterns []string) error {
	changes, err := parseTable(table)
	if err != nil {
		return err
	}
	packages, err := load(dir, tags, patterns)
	if err != nil {
		return err
	}
	files := map[string]*file{}
	for _, p := range packages {
		for _, syntax := range p.files {
			f, err := rewriteFile(p, syntax, changes)
			if err != nil {
				return err
			}
			if f != nil {
				files[f.name] = f // a file that is in two packages needs the same edits in both
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		fmt.Printf("%s: %d changes\n", name, len(f.edits))
		for _, note := range f.notes {
			fmt.Println("\tby hand:", note)
		}
		if write && len(f.edits) > 0 {
			if err := os.WriteFile(name, f.rewritten(), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// change describes how a name has changed.
type change struct {
	name     string // the new name; empty if the name was removed
	function bool   // a method has become a function, which takes the receiver after the other arguments
	dropped  bool   // the method has become a function without the receiver
	inside   string // a field has moved into the struct in the field of this name
	note     string // the change to make by hand
	used     bool   // the note applies only where the result is used
}

// parseTable parses lines of the form "old new [note]"; see renames.txt.
func parseTable(text string) (map[string]change, error) {
	changes := map[string]change{}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		old, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if old == "" {
			continue
		}
		to, note, _ := strings.Cut(strings.TrimSpace(rest), " ")
		c := change{note: strings.TrimSpace(note)}
		switch {
		case to == "":
			return nil, fmt.Errorf("renames.txt: %q has no second word", line)
		case to == "-":
		case to == "?":
			c.used = true
		case strings.HasSuffix(to, "()"):
			c.name, c.function = strings.TrimSuffix(to, "()"), true
		case strings.HasSuffix(to, "(-)"):
			c.name, c.function, c.dropped = strings.TrimSuffix(to, "(-)"), true, true
		case strings.Contains(to, "."):
			c.inside, c.name, _ = strings.Cut(to, ".")
		default:
			c.name = to
		}
		changes[old] = c
	}
	return changes, nil
}
