// Package godebug replaces internal/godebug, which only the standard library may import. The value
// of a setting is read from the environment variable GODEBUG each time.
package godebug

import (
	"os"
	"strings"
)

// Setting is a setting in GODEBUG.
type Setting struct{ name string }

// New returns the setting of the given name.
func New(name string) *Setting { return &Setting{strings.TrimPrefix(name, "#")} }

// Name returns the name of the setting.
func (s *Setting) Name() string { return s.name }

// Value returns the value of the setting, or "" if it is not set.
func (s *Setting) Value() (value string) {
	for pair := range strings.SplitSeq(os.Getenv("GODEBUG"), ",") {
		if name, v, _ := strings.Cut(pair, "="); name == s.name {
			value = v
		}
	}
	return value
}

// IncNonDefault does nothing. The original counts uses.
func (s *Setting) IncNonDefault() {}
