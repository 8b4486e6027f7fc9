//go:build !linux

package sys

import "os"

// Datasync is f.Sync.
func Datasync(f *os.File) error { return f.Sync() }
