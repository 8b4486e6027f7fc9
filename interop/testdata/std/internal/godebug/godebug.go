// Package godebug stands in for the standard library's, which only that may import: a
// setting is what the environment variable GODEBUG says at the moment.
package godebug

import (
	"os"
	"strings"
)

// Setting is one setting.
type Setting struct{ name string }

// New returns the setting of that name.
func New(name string) *Setting { return &Setting{strings.TrimPrefix(name, "#")} }

// Name returns its name.
func (s *Setting) Name() string { return s.name }

// Value returns its value, "" if it is not set.
func (s *Setting) Value() (value string) {
	for pair := range strings.SplitSeq(os.Getenv("GODEBUG"), ",") {
		if name, v, _ := strings.Cut(pair, "="); name == s.name {
			value = v
		}
	}
	return value
}

// IncNonDefault would count.
func (s *Setting) IncNonDefault() {}
