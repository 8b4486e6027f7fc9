//go:build !linux

package sys

import "os"

// Datasync is f.Sync, since this system has no fdatasync.
func Datasync(f *os.File) error { return f.Sync() }
